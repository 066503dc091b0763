//! The decoder `iced-x86`.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic as M, OpKind, Register as Iced};
use vm_device::exit::x86::instruction::{Operand, Operation};
use vm_device::exit::x86::{Mode, Registers, Repeat, Segment, Size};

use super::words::{operand, operation};
use super::{Meaning, bit_distance, effective};

pub(crate) fn bitness(mode: Mode) -> u32 {
    match mode {
        Mode::Bits16 => 16,
        Mode::Bits32 => 32,
        Mode::Bits64 => 64,
    }
}

pub(crate) fn decode(bytes: &[u8], mode: Mode, rip: u64) -> Instruction {
    Decoder::with_ip(bitness(mode), bytes, rip, DecoderOptions::NONE).decode()
}

/// The number of a general-purpose register of any size.
pub(crate) fn number(register: Iced) -> usize {
    register.full_register() as usize - Iced::RAX as usize
}

pub(crate) fn segment(register: Iced) -> Segment {
    Segment::from_number(register as u64 - Iced::ES as u64).unwrap_or(Segment::Ds)
}

fn is_source(kind: OpKind) -> bool {
    matches!(kind, OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI)
}

fn is_destination(kind: OpKind) -> bool {
    matches!(kind, OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI)
}

/// Segment and offset of a memory operand.
fn place(instruction: &Instruction, operand: u32, mode: Mode, registers: &Registers) -> Option<(Segment, u64)> {
    let segment = match instruction.op_kind(operand) {
        kind if is_destination(kind) => Segment::Es,
        _ => segment(instruction.memory_segment()),
    };
    // Segments are taken to begin at 0.
    let offset = instruction.virtual_address(operand, 0, |register, _, _| {
        if register.is_segment_register() {
            return Some(0);
        }
        let whole = registers.gpr.get(number(register))?;
        Some(whole & u64::MAX >> (64 - 8 * register.size()))
    })?;
    Some((effective(segment, mode), offset))
}

/// The size of the addresses of its memory operand, in bytes; 0 if it has none.
pub(crate) fn address_bytes(instruction: &Instruction) -> usize {
    let kinds = (0..instruction.op_count()).map(|index| instruction.op_kind(index));
    let of_operand = kinds.map(|kind| match kind {
        OpKind::MemorySegSI | OpKind::MemoryESDI => 2,
        OpKind::MemorySegESI | OpKind::MemoryESEDI => 4,
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => 8,
        OpKind::Memory => match (instruction.memory_base(), instruction.memory_index()) {
            (Iced::None, Iced::None) => instruction.memory_displ_size() as usize,
            (Iced::None, register) | (register, _) => register.size(),
        },
        _ => 0,
    });
    of_operand.max().unwrap_or(0)
}

/// What it is in the words of the crate; `None` for what the crate does not execute.
pub(crate) fn meaning(instruction: &Instruction, mode: Mode, registers: &Registers) -> Option<Meaning> {
    if instruction.is_invalid() {
        return None;
    }
    let operation = operation(instruction)?;
    let first = operand(instruction, 0)?;
    let second = if instruction.op_count() > 1 { Some(operand(instruction, 1)?) } else { None };
    let (destination, source) = match operation {
        // The order of its operands means nothing.
        Operation::Xchg if second == Some(Operand::Memory) => (Operand::Memory, first),
        Operation::Inc | Operation::Dec => (first, Operand::Immediate(1)),
        Operation::Not | Operation::Neg | Operation::CmpxchgPair => (first, first),
        Operation::Push => (Operand::Stack, first),
        Operation::Pop => (first, Operand::Stack),
        _ => (first, second?),
    };
    if destination != Operand::Memory && source != Operand::Memory {
        return None;
    }
    let is_string = instruction.is_string_instruction();
    let memory = |index: &u32| operand(instruction, *index) == Some(Operand::Memory);
    let operands = 0..instruction.op_count();
    let at_source = operands.clone().find(|index| is_source(instruction.op_kind(*index)));
    let at_destination = operands.clone().find(|index| is_destination(instruction.op_kind(*index)));
    let main = at_destination.or(at_source).or_else(|| operands.clone().find(memory))?;
    let bytes = instruction.memory_size().size();
    let (segment, mut offset) = place(instruction, main, mode, registers)?;
    let moved = match operation {
        Operation::Pop if instruction.memory_base().full_register() == Iced::RSP => bytes as u64,
        _ => bit_distance(operation, source, bytes, registers),
    };
    if moved != 0 {
        offset = Size::from_bytes(address_bytes(instruction))?.truncate(offset.wrapping_add(moved));
    }
    let is_move = operation == Operation::Move && !is_string;
    let repeat = match (is_string, operation, instruction.has_repe_prefix(), instruction.has_repne_prefix()) {
        (true, Operation::Cmp, true, _) => Repeat::WhileEqual,
        (true, Operation::Cmp, _, true) => Repeat::WhileNotEqual,
        (true, _, repe, repne) if repe || repne => Repeat::Count,
        _ => Repeat::Once,
    };
    Some(Meaning {
        length: instruction.len(),
        operation,
        destination,
        source,
        bytes,
        extended: match destination {
            Operand::Register(_) if is_move => (
                Size::from_bytes(instruction.op_register(0).size())?,
                matches!(instruction.mnemonic(), M::Movsx | M::Movsxd),
            ),
            _ if is_move => (Size::from_bytes(bytes)?, false),
            _ => (Size::Byte, false),
        },
        is_locked: instruction.has_lock_prefix() || operation == Operation::Xchg,
        repeat,
        operand: (segment, offset),
        string_source: match (at_source, at_destination) {
            (Some(source), Some(_)) => place(instruction, source, mode, registers),
            _ => None,
        },
    })
}

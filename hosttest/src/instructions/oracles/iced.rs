//! The decoder `iced-x86`.

use iced_x86::{Decoder, DecoderOptions, EncodingKind, Instruction, Mnemonic as M, OpKind, Register as Iced};
use vm_device::exit::x86::instruction::{Operand, Operation};
use vm_device::exit::x86::{Gpr, Mode, Register, Registers, Repeat, Segment, Size};

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

fn operation(instruction: &Instruction) -> Option<Operation> {
    Some(match instruction.mnemonic() {
        M::Movsd if instruction.is_string_instruction() => Operation::Move,
        M::Cmpsd if !instruction.is_string_instruction() => return None,
        M::Mov | M::Movnti | M::Movzx | M::Movsx | M::Movsxd => Operation::Move,
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => Operation::Move,
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => Operation::Move,
        M::Movsb | M::Movsw | M::Movsq => Operation::Move,
        M::Movbe => Operation::Movbe,
        M::Movups | M::Movupd | M::Movaps | M::Movapd | M::Movdqu | M::Movdqa | M::Movntdq | M::Movntdqa => {
            Operation::MoveVector
        }
        M::Movntps | M::Movntpd | M::Lddqu | M::Movd | M::Movq | M::Movss | M::Movsd => Operation::MoveVector,
        M::Vmovups | M::Vmovupd | M::Vmovaps | M::Vmovapd | M::Vmovdqu | M::Vmovdqa | M::Vmovntdq | M::Vmovntdqa => {
            Operation::MoveVector
        }
        M::Vmovntps | M::Vmovntpd | M::Vlddqu | M::Vmovd | M::Vmovq | M::Vmovss | M::Vmovsd => Operation::MoveVector,
        M::Add => Operation::Add,
        M::Adc => Operation::Adc,
        M::Sub => Operation::Sub,
        M::Sbb => Operation::Sbb,
        M::And => Operation::And,
        M::Or => Operation::Or,
        M::Xor => Operation::Xor,
        M::Cmp | M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq => {
            Operation::Cmp
        }
        M::Test => Operation::Test,
        M::Bt => Operation::Bt,
        M::Bts => Operation::Bts,
        M::Btr => Operation::Btr,
        M::Btc => Operation::Btc,
        M::Xchg => Operation::Xchg,
        M::Xadd => Operation::Xadd,
        M::Cmpxchg => Operation::Cmpxchg,
        M::Cmpxchg8b | M::Cmpxchg16b => Operation::CmpxchgPair,
        M::Inc => Operation::Inc,
        M::Dec => Operation::Dec,
        M::Not => Operation::Not,
        M::Neg => Operation::Neg,
        M::Push => Operation::Push,
        M::Pop => Operation::Pop,
        _ => return None,
    })
}

fn register(register: Iced) -> Option<Operand> {
    let high = |gpr| Some(Operand::Register(Register::High(gpr)));
    match register {
        Iced::AH => high(Gpr::Rax),
        Iced::CH => high(Gpr::Rcx),
        Iced::DH => high(Gpr::Rdx),
        Iced::BH => high(Gpr::Rbx),
        _ if register.is_gpr() => Some(Operand::Register(Register::Low(Gpr::from_number(number(register) as u8)?))),
        _ if register.is_xmm() || register.is_ymm() => Some(Operand::Vector(register.number() as u8)),
        _ => None,
    }
}

fn operand(instruction: &Instruction, index: u32) -> Option<Operand> {
    Some(match instruction.op_kind(index) {
        OpKind::Register => register(instruction.op_register(index))?,
        // Immediates are as long as the operand, sign-extended.
        OpKind::Immediate8 => Operand::Immediate(instruction.immediate8() as i8 as u64),
        OpKind::Immediate16 => Operand::Immediate(instruction.immediate16() as i16 as u64),
        OpKind::Immediate32 => Operand::Immediate(instruction.immediate32() as i32 as u64),
        OpKind::Immediate8to16 => Operand::Immediate(instruction.immediate8to16() as u64),
        OpKind::Immediate8to32 => Operand::Immediate(instruction.immediate8to32() as u64),
        OpKind::Immediate8to64 => Operand::Immediate(instruction.immediate8to64() as u64),
        OpKind::Immediate32to64 => Operand::Immediate(instruction.immediate32to64() as u64),
        kind if is_source(kind) || is_destination(kind) || kind == OpKind::Memory => Operand::Memory,
        _ => return None,
    })
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
    if instruction.is_invalid() || !matches!(instruction.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
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

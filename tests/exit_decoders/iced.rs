//! What iced-x86 says of an instruction.

use iced_x86::{InstructionInfoFactory, Mnemonic, OpAccess};
use vm_device::exit::x86::instruction::{Base, Direction, MemoryOperand, Operand, Operation, VectorMove};
use vm_device::exit::x86::{AddressSize, Gpr, Register, Repeat, Rflags, Segment, Size, StringForm};

use crate::expected::{Expected, default_segment, element, within};
use crate::words::{gpr, index_of, operand, operation};

fn is_aligned(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(mnemonic, Movaps | Movapd | Movdqa | Movntps | Movntpd | Movntdq | Movntdqa)
        || matches!(mnemonic, Vmovaps | Vmovapd | Vmovdqa | Vmovntps | Vmovntpd | Vmovntdq | Vmovntdqa)
}

/// The segment of the memory operand. iced reports the prefixes 26, 2E, 36 and 3E in 64-bit mode too, where they are ignored.
fn segment(instruction: &iced_x86::Instruction, bitness: u32, base: Option<Base>) -> Segment {
    match instruction.memory_segment() {
        iced_x86::Register::FS => Segment::Fs,
        iced_x86::Register::GS => Segment::Gs,
        _ if bitness == 64 => default_segment(base),
        iced_x86::Register::ES => Segment::Es,
        iced_x86::Register::CS => Segment::Cs,
        iced_x86::Register::SS => Segment::Ss,
        _ => Segment::Ds,
    }
}

fn string(instruction: &iced_x86::Instruction, bitness: u32, compares: bool) -> Option<(StringForm, Gpr)> {
    let operands: Vec<_> = (0..instruction.op_count()).filter_map(|at| index_of(instruction.op_kind(at))).collect();
    let (_, address_size) = *operands.first()?;
    let has_source = operands.iter().any(|(index, _)| *index == Gpr::Rsi);
    let form = StringForm {
        repeat: match (instruction.has_rep_prefix(), instruction.has_repne_prefix()) {
            (false, false) => Repeat::Once,
            _ if !compares => Repeat::Count,
            (_, false) => Repeat::WhileEqual,
            (_, true) => Repeat::WhileNotEqual,
        },
        address_size,
        segment: if has_source { segment(instruction, bitness, None) } else { Segment::Ds },
    };
    let index = operands.iter().map(|(index, _)| *index).max_by_key(|index| *index as u8)?;
    Some((form, index))
}

fn address(instruction: &iced_x86::Instruction, bitness: u32) -> MemoryOperand {
    use iced_x86::Register as R;
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let bytes = match (base, index) {
        (R::None, R::None) => instruction.memory_displ_size() as usize,
        (R::EIP, _) => 4,
        (R::RIP, _) => 8,
        (R::None, register) | (register, _) => register.size(),
    };
    let address_size = match bytes {
        2 => AddressSize::Bits16,
        4 => AddressSize::Bits32,
        _ => AddressSize::Bits64,
    };
    // iced adds the next RIP.
    let is_relative = matches!(base, R::EIP | R::RIP);
    let relative_to = if is_relative { instruction.next_ip() } else { 0 };
    let base = if is_relative { Some(Base::Rip) } else { gpr(base).map(Base::Gpr) };
    MemoryOperand {
        segment: segment(instruction, bitness, base),
        base,
        index: gpr(index),
        scale: if index == R::None { 1 } else { instruction.memory_index_scale() as u8 },
        displacement: within(address_size, instruction.memory_displacement64().wrapping_sub(relative_to)),
        address_size,
    }
}

/// `None` for what this crate refuses as unsupported or as touching no memory.
pub(crate) fn expected(
    instruction: &iced_x86::Instruction,
    bitness: u32,
    info: &mut InstructionInfoFactory,
) -> Option<Expected> {
    let operation = operation(instruction)?;
    let (mut destination, mut source) = (operand(instruction, 0)?, None);
    if instruction.op_count() > 1 {
        source = Some(operand(instruction, 1)?);
    }
    if operation == Operation::Xchg && source == Some(Operand::Memory) {
        (destination, source) = (Operand::Memory, Some(destination));
    }
    let (destination, source) = match operation {
        Operation::Inc | Operation::Dec => (destination, Operand::Immediate(1)),
        Operation::Not | Operation::Neg => (destination, destination),
        Operation::CmpxchgPair => (destination, Operand::Register(Register::Low(Gpr::Rbx))),
        Operation::Push => (Operand::Stack, destination),
        Operation::Pop => (destination, Operand::Stack),
        _ => (destination, source?),
    };
    if destination != Operand::Memory && source != Operand::Memory {
        return None;
    }
    let info = info.info(instruction);
    let [mut reads, mut writes] = [false; 2];
    for memory in info.used_memory() {
        let access = memory.access();
        reads |= matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite);
        writes |=
            matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite);
    }
    let both_memory = destination == Operand::Memory && source == Operand::Memory && instruction.op_count() == 2;
    let direction = match (reads, writes) {
        _ if operation == Operation::Push => Direction::Read,
        _ if operation == Operation::Pop => Direction::Write,
        (true, true) if both_memory => Direction::Copy,
        (true, false) if both_memory => Direction::Compare,
        (true, true) => Direction::ReadModifyWrite,
        (true, false) => Direction::Read,
        (false, true) => Direction::Write,
        (false, false) => return None,
    };
    let bytes = instruction.memory_size().size();
    let size = element(operation, bytes)?;
    let register_size = match destination {
        Operand::Register(_) => Size::from_bytes(instruction.op_register(0).size())?,
        _ => size,
    };
    let modified = instruction.rflags_modified();
    let mut flags = Rflags::empty();
    for (bit, flag) in [
        (iced_x86::RflagsBits::CF, Rflags::CF),
        (iced_x86::RflagsBits::PF, Rflags::PF),
        (iced_x86::RflagsBits::AF, Rflags::AF),
        (iced_x86::RflagsBits::ZF, Rflags::ZF),
        (iced_x86::RflagsBits::SF, Rflags::SF),
        (iced_x86::RflagsBits::OF, Rflags::OF),
    ] {
        flags.set(flag, modified & bit != 0);
    }
    if matches!(operation, Operation::Bt | Operation::Bts | Operation::Btr | Operation::Btc) {
        // Undefined by Intel, unchanged by AMD.
        flags &= Rflags::CF;
    }
    let string = string(instruction, bitness, operation == Operation::Cmp);
    let vector = match (destination, source) {
        (Operand::Vector(register), _) | (_, Operand::Vector(register)) => Some(VectorMove {
            register,
            bytes: bytes as u8,
            aligned: is_aligned(instruction.mnemonic()),
            clears_upper: format!("{:?}", instruction.code()).starts_with("VEX_"),
        }),
        _ => None,
    };
    Some(Expected {
        operation,
        destination,
        source,
        size,
        bytes,
        register_size,
        sign: matches!(instruction.mnemonic(), Mnemonic::Movsx | Mnemonic::Movsxd),
        direction,
        locked: instruction.has_lock_prefix() || operation == Operation::Xchg,
        string: string.map(|(form, _)| form),
        vector,
        address: match string {
            Some((form, index)) => MemoryOperand {
                segment: if index == Gpr::Rdi { Segment::Es } else { form.segment },
                base: Some(Base::Gpr(index)),
                index: None,
                scale: 1,
                displacement: 0,
                address_size: form.address_size,
            },
            None => address(instruction, bitness),
        },
        flags,
        length: instruction.len(),
    })
}

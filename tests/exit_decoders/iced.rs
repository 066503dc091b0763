//! What iced-x86 says of an instruction.

use iced_x86::{InstructionInfoFactory, Mnemonic, OpAccess, OpKind};
use vm_device::exit::x86::instruction::{Base, Direction, MemoryOperand, Operand, Operation, VectorMove};
use vm_device::exit::x86::{AddressSize, Gpr, Register, Repeat, Rflags, Segment, Size, StringForm};

use crate::expected::{Expected, default_segment, element, within};

pub(crate) fn operation(instruction: &iced_x86::Instruction) -> Option<Operation> {
    let has_register = |kind: fn(iced_x86::Register) -> bool| (0..2).any(|index| kind(instruction.op_register(index)));
    Some(match instruction.mnemonic() {
        // SSE has instructions of the same names.
        Mnemonic::Movsd if has_register(iced_x86::Register::is_xmm) => Operation::MoveVector,
        Mnemonic::Cmpsd if has_register(iced_x86::Register::is_xmm) => return None,
        Mnemonic::Movd | Mnemonic::Movq if has_register(iced_x86::Register::is_mm) => return None,
        Mnemonic::Mov | Mnemonic::Movnti | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => Operation::Move,
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => Operation::Move,
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => Operation::Move,
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => Operation::Move,
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => Operation::Cmp,
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => Operation::Cmp,
        Mnemonic::Movbe => Operation::Movbe,
        Mnemonic::Add => Operation::Add,
        Mnemonic::Adc => Operation::Adc,
        Mnemonic::Sub => Operation::Sub,
        Mnemonic::Sbb => Operation::Sbb,
        Mnemonic::And => Operation::And,
        Mnemonic::Or => Operation::Or,
        Mnemonic::Xor => Operation::Xor,
        Mnemonic::Cmp => Operation::Cmp,
        Mnemonic::Test => Operation::Test,
        Mnemonic::Bt => Operation::Bt,
        Mnemonic::Bts => Operation::Bts,
        Mnemonic::Btr => Operation::Btr,
        Mnemonic::Btc => Operation::Btc,
        Mnemonic::Xchg => Operation::Xchg,
        Mnemonic::Xadd => Operation::Xadd,
        Mnemonic::Cmpxchg => Operation::Cmpxchg,
        Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b => Operation::CmpxchgPair,
        Mnemonic::Inc => Operation::Inc,
        Mnemonic::Dec => Operation::Dec,
        Mnemonic::Not => Operation::Not,
        Mnemonic::Neg => Operation::Neg,
        Mnemonic::Push => Operation::Push,
        Mnemonic::Pop => Operation::Pop,
        Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movaps | Mnemonic::Movapd | Mnemonic::Movss => {
            Operation::MoveVector
        }
        Mnemonic::Movdqu | Mnemonic::Movdqa | Mnemonic::Lddqu | Mnemonic::Movd | Mnemonic::Movq => {
            Operation::MoveVector
        }
        Mnemonic::Movntps | Mnemonic::Movntpd | Mnemonic::Movntdq | Mnemonic::Movntdqa => Operation::MoveVector,
        // EVEX has the same names.
        _ if !format!("{:?}", instruction.code()).starts_with("VEX_") => return None,
        Mnemonic::Vmovups | Mnemonic::Vmovupd | Mnemonic::Vmovaps | Mnemonic::Vmovapd | Mnemonic::Vmovss => {
            Operation::MoveVector
        }
        Mnemonic::Vmovsd | Mnemonic::Vmovdqu | Mnemonic::Vmovdqa | Mnemonic::Vlddqu | Mnemonic::Vmovd => {
            Operation::MoveVector
        }
        Mnemonic::Vmovq | Mnemonic::Vmovntps | Mnemonic::Vmovntpd | Mnemonic::Vmovntdq | Mnemonic::Vmovntdqa => {
            Operation::MoveVector
        }
        _ => return None,
    })
}

fn is_aligned(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(mnemonic, Movaps | Movapd | Movdqa | Movntps | Movntpd | Movntdq | Movntdqa)
        || matches!(mnemonic, Vmovaps | Vmovapd | Vmovdqa | Vmovntps | Vmovntpd | Vmovntdq | Vmovntdqa)
}

fn gpr(register: iced_x86::Register) -> Option<Gpr> {
    register.is_gpr().then(|| Gpr::from_number(register.full_register().number() as u8).unwrap())
}

fn operand(instruction: &iced_x86::Instruction, index: u32) -> Option<Operand> {
    use iced_x86::Register as R;
    Some(match instruction.op_kind(index) {
        OpKind::Register => match instruction.op_register(index) {
            R::AH => Operand::Register(Register::High(Gpr::Rax)),
            R::CH => Operand::Register(Register::High(Gpr::Rcx)),
            R::DH => Operand::Register(Register::High(Gpr::Rdx)),
            R::BH => Operand::Register(Register::High(Gpr::Rbx)),
            register if register.is_xmm() || register.is_ymm() => Operand::Vector(register.number() as u8),
            register => Operand::Register(Register::Low(gpr(register)?)),
        },
        OpKind::Immediate8 => Operand::Immediate(instruction.immediate8() as i8 as u64),
        OpKind::Immediate16 => Operand::Immediate(instruction.immediate16() as i16 as u64),
        OpKind::Immediate32 => Operand::Immediate(instruction.immediate32() as i32 as u64),
        OpKind::Immediate8to16 => Operand::Immediate(instruction.immediate8to16() as u64),
        OpKind::Immediate8to32 => Operand::Immediate(instruction.immediate8to32() as u64),
        OpKind::Immediate8to64 => Operand::Immediate(instruction.immediate8to64() as u64),
        OpKind::Immediate32to64 => Operand::Immediate(instruction.immediate32to64() as u64),
        OpKind::Memory => Operand::Memory,
        kind if index_of(kind).is_some() => Operand::Memory,
        _ => return None,
    })
}

/// The index register of an operand of a string instruction, and its size.
fn index_of(kind: OpKind) -> Option<(Gpr, AddressSize)> {
    Some(match kind {
        OpKind::MemorySegSI => (Gpr::Rsi, AddressSize::Bits16),
        OpKind::MemorySegESI => (Gpr::Rsi, AddressSize::Bits32),
        OpKind::MemorySegRSI => (Gpr::Rsi, AddressSize::Bits64),
        OpKind::MemoryESDI => (Gpr::Rdi, AddressSize::Bits16),
        OpKind::MemoryESEDI => (Gpr::Rdi, AddressSize::Bits32),
        OpKind::MemoryESRDI => (Gpr::Rdi, AddressSize::Bits64),
        _ => return None,
    })
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

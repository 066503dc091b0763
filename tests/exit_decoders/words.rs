//! The operations and operands of other decoders, in the words of this crate. `hosttest` compares with them too.

use iced_x86::{EncodingKind, Mnemonic, OpKind};
use vm_device::exit::x86::instruction::{Operand, Operation};
use vm_device::exit::x86::{AddressSize, Gpr, Register};

/// What iced-x86 calls an instruction; `None` for what the crate does not execute.
pub(crate) fn operation(instruction: &iced_x86::Instruction) -> Option<Operation> {
    // EVEX has the names of VEX.
    if !matches!(instruction.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
        return None;
    }
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

/// A general-purpose register of any size.
pub(crate) fn gpr(register: iced_x86::Register) -> Option<Gpr> {
    register.is_gpr().then(|| Gpr::from_number(register.full_register().number() as u8).unwrap())
}

/// An operand of an instruction of iced-x86; `None` for one that no executed instruction has.
pub(crate) fn operand(instruction: &iced_x86::Instruction, index: u32) -> Option<Operand> {
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
pub(crate) fn index_of(kind: OpKind) -> Option<(Gpr, AddressSize)> {
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

/// The operation of an opcode of yaxpeax-x86, whose three decoders have a type each. The function around it returns `None` for what
/// the crate does not execute.
macro_rules! yaxpeax_operation {
    ($value:expr, $opcode:ident) => {
        match $value {
            $opcode::MOV | $opcode::MOVNTI | $opcode::MOVZX | $opcode::MOVSX => Operation::Move,
            $opcode::MOVS | $opcode::STOS | $opcode::LODS => Operation::Move,
            $opcode::MOVSXD => Operation::Move,
            $opcode::MOVBE => Operation::Movbe,
            $opcode::MOVUPS
            | $opcode::MOVUPD
            | $opcode::MOVAPS
            | $opcode::MOVAPD
            | $opcode::MOVDQU
            | $opcode::MOVDQA
            | $opcode::MOVNTDQ
            | $opcode::MOVNTDQA
            | $opcode::MOVNTPS
            | $opcode::MOVNTPD
            | $opcode::LDDQU
            | $opcode::MOVD
            | $opcode::MOVQ
            | $opcode::MOVSS
            | $opcode::MOVSD => Operation::MoveVector,
            $opcode::VMOVUPS
            | $opcode::VMOVUPD
            | $opcode::VMOVAPS
            | $opcode::VMOVAPD
            | $opcode::VMOVDQU
            | $opcode::VMOVDQA
            | $opcode::VMOVNTDQ
            | $opcode::VMOVNTDQA
            | $opcode::VMOVNTPS
            | $opcode::VMOVNTPD
            | $opcode::VLDDQU
            | $opcode::VMOVD
            | $opcode::VMOVQ
            | $opcode::VMOVSS
            | $opcode::VMOVSD => Operation::MoveVector,
            $opcode::ADD => Operation::Add,
            $opcode::ADC => Operation::Adc,
            $opcode::SUB => Operation::Sub,
            $opcode::SBB => Operation::Sbb,
            $opcode::AND => Operation::And,
            $opcode::OR => Operation::Or,
            $opcode::XOR => Operation::Xor,
            $opcode::CMP | $opcode::CMPS | $opcode::SCAS => Operation::Cmp,
            $opcode::TEST => Operation::Test,
            $opcode::BT => Operation::Bt,
            $opcode::BTS => Operation::Bts,
            $opcode::BTR => Operation::Btr,
            $opcode::BTC => Operation::Btc,
            $opcode::XCHG => Operation::Xchg,
            $opcode::XADD => Operation::Xadd,
            $opcode::CMPXCHG => Operation::Cmpxchg,
            $opcode::CMPXCHG8B => Operation::CmpxchgPair,
            $opcode::CMPXCHG16B => Operation::CmpxchgPair,
            $opcode::INC => Operation::Inc,
            $opcode::DEC => Operation::Dec,
            $opcode::NOT => Operation::Not,
            $opcode::NEG => Operation::Neg,
            $opcode::PUSH => Operation::Push,
            $opcode::POP => Operation::Pop,
            _ => return None,
        }
    };
}

pub(crate) use yaxpeax_operation;

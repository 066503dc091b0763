//! From bytes to an [`Instruction`], by `yaxpeax-x86`.

use vm_device::exit::x86::{Gpr, Register, Size};
use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::long_mode::{self, DecodeError, InstDecoder, Opcode, RegSpec, register_class};

use super::{Extension, Failure, Instruction, Operand, Operation};

/// The longest instruction, in bytes.
const MAX_LENGTH: usize = 15;

/// Decodes the instruction at the start of `bytes`.
pub(in super::super) fn decode(bytes: &[u8]) -> Result<Instruction, Failure> {
    let bytes = bytes.get(..MAX_LENGTH).unwrap_or(bytes);
    if has_two_rex(bytes) {
        return Err(Failure::Malformed);
    }
    parts(bytes).and_then(Parts::assemble).map_err(|failure| match failure {
        Failure::Truncated if bytes.len() == MAX_LENGTH => Failure::Malformed,
        failure => failure,
    })
}

/// Whether there is a REX prefix before another one. A processor ignores the first; yaxpeax-x86 2.2 refuses some of these
/// pairs, and combines the bits of others.
fn has_two_rex(bytes: &[u8]) -> bool {
    let is_rex = |byte: &u8| byte & 0xf0 == 0x40;
    let is_legacy = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    bytes.iter().take_while(|byte| is_rex(byte) || is_legacy(byte)).filter(|byte| is_rex(byte)).count() > 1
}

/// Classes of mnemonics, by what they say about operands.
#[derive(Clone, Copy)]
enum Form {
    /// Its operands have the size of the access.
    Plain(Operation),
    /// Its memory operand has the operand size.
    BitTest(Operation),
    /// A move into a register that has the operand size.
    Extend(Extension),
    /// MOVSXD: the same, from half of it.
    ExtendDword,
}

/// An instruction in types that do not depend on the decoder.
struct Parts {
    form: Form,
    destination: Option<Operand>,
    source: Option<Operand>,
    memory_size: Option<Size>,
    operand_size_prefix: bool,
    rex_w: bool,
    length: u8,
}

impl Parts {
    fn assemble(self) -> Result<Instruction, Failure> {
        let operand_size = match self.operand_size_prefix {
            _ if self.rex_w => Size::Qword,
            true => Size::Word,
            false => Size::Dword,
        };
        // yaxpeax-x86 2.2 takes BT and its kin with an immediate for accesses of 8 bytes, and the destination of MOVSXD
        // always for 64 bits. Both follow from the operand size.
        let size = match self.form {
            Form::BitTest(_) => operand_size,
            Form::ExtendDword => operand_size.min(Size::Dword),
            _ => self.memory_size.ok_or(Failure::NoMemoryOperand)?,
        };
        let (operation, register_size, extension) = match self.form {
            Form::Plain(operation) | Form::BitTest(operation) => (operation, size, Extension::Zero),
            Form::Extend(extension) => (Operation::Move, operand_size, extension),
            Form::ExtendDword => (Operation::Move, operand_size, Extension::Sign),
        };
        let destination = self.destination.ok_or(Failure::Unsupported)?;
        let source = match operation {
            Operation::Inc | Operation::Dec => Operand::Immediate(1),
            Operation::Not | Operation::Neg => destination,
            _ => self.source.ok_or(Failure::Unsupported)?,
        };
        if destination != Operand::Memory && source != Operand::Memory {
            return Err(Failure::NoMemoryOperand);
        }
        Ok(Instruction { operation, destination, source, size, register_size, extension, length: self.length })
    }
}

fn register(register: RegSpec) -> Option<Operand> {
    let number = register.num();
    Some(Operand::Register(match register.class() {
        register_class::B if number >= 4 => Register::High(Gpr::from_number(number.wrapping_sub(4))?),
        register_class::B | register_class::W | register_class::D | register_class::Q | register_class::RB => {
            Register::Low(Gpr::from_number(number)?)
        }
        _ => return None,
    }))
}

fn operand(operand: long_mode::Operand) -> Option<Operand> {
    Some(match operand {
        long_mode::Operand::Register { reg } => register(reg)?,
        long_mode::Operand::ImmediateI8 { imm } => Operand::Immediate(imm as u64),
        long_mode::Operand::ImmediateI16 { imm } => Operand::Immediate(imm as u64),
        long_mode::Operand::ImmediateI32 { imm } => Operand::Immediate(imm as u64),
        long_mode::Operand::ImmediateI64 { imm } => Operand::Immediate(imm as u64),
        memory if memory.is_memory() => Operand::Memory,
        _ => return None,
    })
}

fn form(opcode: Opcode) -> Option<Form> {
    Some(match opcode {
        Opcode::MOV | Opcode::MOVNTI => Form::Plain(Operation::Move),
        Opcode::ADD => Form::Plain(Operation::Add),
        Opcode::ADC => Form::Plain(Operation::Adc),
        Opcode::SUB => Form::Plain(Operation::Sub),
        Opcode::SBB => Form::Plain(Operation::Sbb),
        Opcode::AND => Form::Plain(Operation::And),
        Opcode::OR => Form::Plain(Operation::Or),
        Opcode::XOR => Form::Plain(Operation::Xor),
        Opcode::CMP => Form::Plain(Operation::Cmp),
        Opcode::TEST => Form::Plain(Operation::Test),
        Opcode::XCHG => Form::Plain(Operation::Xchg),
        Opcode::XADD => Form::Plain(Operation::Xadd),
        Opcode::CMPXCHG => Form::Plain(Operation::Cmpxchg),
        Opcode::INC => Form::Plain(Operation::Inc),
        Opcode::DEC => Form::Plain(Operation::Dec),
        Opcode::NOT => Form::Plain(Operation::Not),
        Opcode::NEG => Form::Plain(Operation::Neg),
        Opcode::BT => Form::BitTest(Operation::Bt),
        Opcode::BTS => Form::BitTest(Operation::Bts),
        Opcode::BTR => Form::BitTest(Operation::Btr),
        Opcode::BTC => Form::BitTest(Operation::Btc),
        Opcode::MOVZX => Form::Extend(Extension::Zero),
        Opcode::MOVSX => Form::Extend(Extension::Sign),
        Opcode::MOVSXD => Form::ExtendDword,
        _ => return None,
    })
}

fn parts(bytes: &[u8]) -> Result<Parts, Failure> {
    let instruction = InstDecoder::default().decode_slice(bytes).map_err(|error| match error {
        DecodeError::ExhaustedInput => Failure::Truncated,
        DecodeError::IncompleteDecoder => Failure::Unsupported,
        _ => Failure::Malformed,
    })?;
    let prefixes = instruction.prefixes;
    Ok(Parts {
        form: form(instruction.opcode()).ok_or(Failure::Unsupported)?,
        destination: operand(instruction.operand(0)),
        source: operand(instruction.operand(1)),
        memory_size: instruction
            .mem_size()
            .and_then(|size| size.bytes_size())
            .and_then(|bytes| Size::from_bytes(bytes.into())),
        operand_size_prefix: prefixes.operand_size(),
        rex_w: prefixes.rex().is_some_and(|rex| rex.w()),
        length: instruction.len().to_const() as u8,
    })
}

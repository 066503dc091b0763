//! From bytes to an [`Instruction`]: an adapter to `yaxpeax-x86`, which has three decoders, each with types of its own.

use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::{long_mode, protected_mode, real_mode};

use super::{Bytes, DecodeError, Extension, Instruction, MAX_LENGTH, Operand, Operation};
use crate::exit::size::Size;
use crate::exit::x86::mode::{Mode, Segment};
use crate::exit::x86::port::StringForm;
use crate::exit::x86::registers::{Gpr, Register};

/// Decodes the instruction at the start of `bytes`, fetched at the guest's RIP. Bytes after it are ignored: a hypervisor may
/// always pass 15 bytes, the length of the longest instruction, or as many as it can fetch.
///
/// ```
/// use vm_device::exit::x86::instruction::{DecodeError, Extension, Operand, decode};
/// use vm_device::exit::x86::{Gpr, Mode, Register, Size};
///
/// // movsx eax, byte [rsi]
/// let instruction = decode(&[0x0f, 0xbe, 0x06, 0x90, 0x90], Mode::Bits64)?;
/// assert_eq!(instruction.length(), 3);
/// assert_eq!(instruction.size(), Size::Byte);
/// assert_eq!(instruction.destination(), Operand::Register(Register::Low(Gpr::Rax)));
/// assert_eq!(instruction.register_size(), (Size::Dword, Extension::Sign));
///
/// assert!(matches!(decode(&[0x0f, 0xbe], Mode::Bits64), Err(DecodeError::Truncated(_))));
/// # Ok::<(), DecodeError>(())
/// ```
///
/// # Errors
/// [`DecodeError`], if the bytes are no instruction, or none with a memory operand that this module knows.
pub fn decode(bytes: &[u8], mode: Mode) -> Result<Instruction, DecodeError> {
    let bytes = bytes.get(..MAX_LENGTH).unwrap_or(bytes);
    let parts = match mode {
        Mode::Bits16 => bits16(bytes),
        Mode::Bits32 => bits32(bytes),
        Mode::Bits64 if has_two_rex(bytes) => Err(Failure::Malformed),
        Mode::Bits64 => bits64(bytes),
    };
    parts.and_then(|parts| parts.assemble(mode)).map_err(|failure| {
        let bytes = Bytes::new(bytes);
        match failure {
            Failure::Truncated if bytes.as_slice().len() < MAX_LENGTH => DecodeError::Truncated(bytes),
            Failure::Truncated | Failure::Malformed => DecodeError::Malformed(bytes),
            Failure::Unsupported => DecodeError::Unsupported(bytes),
            Failure::NoMemoryOperand => DecodeError::NoMemoryOperand(bytes),
        }
    })
}

/// Whether there is a REX prefix before another one. A processor ignores the first; yaxpeax-x86 2.2 refuses some of these
/// pairs, and combines the bits of others.
fn has_two_rex(bytes: &[u8]) -> bool {
    let is_rex = |byte: &u8| byte & 0xf0 == 0x40;
    let is_legacy = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    bytes.iter().take_while(|byte| is_rex(byte) || is_legacy(byte)).filter(|byte| is_rex(byte)).count() > 1
}

enum Failure {
    Truncated,
    Malformed,
    Unsupported,
    NoMemoryOperand,
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
    /// A move between the memory at RSI, the memory at RDI, and RAX.
    String,
}

/// An instruction in types that do not depend on the decoder.
struct Parts {
    form: Form,
    destination: Option<Operand>,
    source: Option<Operand>,
    memory_size: Option<Size>,
    operand_size_prefix: bool,
    rex_w: bool,
    address_size_prefix: bool,
    lock: bool,
    repeat: bool,
    segment: Segment,
    length: u8,
}

impl Parts {
    fn assemble(self, mode: Mode) -> Result<Instruction, Failure> {
        let operand_size = match (mode, self.operand_size_prefix) {
            _ if self.rex_w => Size::Qword,
            (Mode::Bits16, false) | (Mode::Bits32 | Mode::Bits64, true) => Size::Word,
            _ => Size::Dword,
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
            Form::String => (Operation::Move, size, Extension::Zero),
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
        Ok(Instruction {
            operation,
            destination,
            source,
            size,
            register_size,
            extension,
            locked: self.lock,
            string: matches!(self.form, Form::String).then_some(StringForm {
                repeated: self.repeat,
                address_size: if self.address_size_prefix {
                    mode.overridden_address_size()
                } else {
                    mode.address_size()
                },
                segment: if source == Operand::Memory { self.segment } else { Segment::Ds },
            }),
            length: self.length,
            mode,
        })
    }
}

/// The adapter to one of the three decoders. `classes` and `immediates` are those that only 64-bit mode has.
macro_rules! adapter {
    ($name:ident, $isa:ident, rex_w: $rex_w:expr, classes: [$($class:ident),*], immediates: [$($immediate:ident),*]) => {
        fn $name(bytes: &[u8]) -> Result<Parts, Failure> {
            use $isa::{DecodeError, InstDecoder, Opcode, RegSpec, register_class};

            fn register(register: RegSpec) -> Option<Operand> {
                let number = register.num();
                Some(Operand::Register(match register.class() {
                    register_class::B if number >= 4 => Register::High(Gpr::from_number(number.wrapping_sub(4))?),
                    register_class::B | register_class::W | register_class::D $(| register_class::$class)* => {
                        Register::Low(Gpr::from_number(number)?)
                    }
                    _ => return None,
                }))
            }

            fn operand(operand: $isa::Operand) -> Option<Operand> {
                Some(match operand {
                    $isa::Operand::Register { reg } => register(reg)?,
                    $isa::Operand::ImmediateI8 { imm } => Operand::Immediate(imm as u64),
                    $isa::Operand::ImmediateI16 { imm } => Operand::Immediate(imm as u64),
                    $isa::Operand::ImmediateI32 { imm } => Operand::Immediate(imm as u64),
                    $($isa::Operand::$immediate { imm } => Operand::Immediate(imm as u64),)*
                    memory if memory.is_memory() => Operand::Memory,
                    _ => return None,
                })
            }

            let instruction = InstDecoder::default().decode_slice(bytes).map_err(|error| match error {
                DecodeError::ExhaustedInput => Failure::Truncated,
                DecodeError::IncompleteDecoder => Failure::Unsupported,
                _ => Failure::Malformed,
            })?;
            let prefixes = instruction.prefixes;
            Ok(Parts {
                form: match instruction.opcode() {
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
                    Opcode::MOVS | Opcode::STOS | Opcode::LODS => Form::String,
                    _ => return Err(Failure::Unsupported),
                },
                destination: operand(instruction.operand(0)),
                source: operand(instruction.operand(1)),
                memory_size: instruction
                    .mem_size()
                    .and_then(|size| size.bytes_size())
                    .and_then(|bytes| Size::from_bytes(bytes.into())),
                operand_size_prefix: prefixes.operand_size(),
                rex_w: $rex_w(&prefixes),
                address_size_prefix: prefixes.address_size(),
                lock: prefixes.lock(),
                repeat: prefixes.rep_any(),
                segment: match prefixes.segment() {
                    $isa::Segment::ES => Segment::Es,
                    $isa::Segment::CS => Segment::Cs,
                    $isa::Segment::SS => Segment::Ss,
                    $isa::Segment::DS => Segment::Ds,
                    $isa::Segment::FS => Segment::Fs,
                    $isa::Segment::GS => Segment::Gs,
                },
                length: instruction.len().to_const() as u8,
            })
        }
    };
}

adapter!(bits16, real_mode, rex_w: |_: &real_mode::Prefixes| false, classes: [], immediates: []);
adapter!(bits32, protected_mode, rex_w: |_: &protected_mode::Prefixes| false, classes: [], immediates: []);
adapter!(
    bits64, long_mode,
    rex_w: |prefixes: &long_mode::Prefixes| prefixes.rex().is_some_and(|rex| rex.w()),
    classes: [Q, RB],
    immediates: [ImmediateI64]
);

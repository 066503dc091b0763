//! The instruction that touched MMIO: what it is, and what it does.
//!
//! A nested page fault or EPT violation tells the address of an access and no more. Only the instruction says what is written,
//! or where a value that was read goes. So a hypervisor fetches the bytes of the instruction at the guest's RIP (or takes them
//! from the VMCB, with decode assists), [`decode`]s them, makes the access, and [executes](Instruction::execute) the rest:
//!
//! ```
//! use vm_device::exit::x86::instruction::{Direction, decode};
//! use vm_device::exit::x86::{Gpr, Mode, Registers, Rflags, Size};
//!
//! // or dword [rdi + 0x10], 0x80
//! let instruction = decode(&[0x81, 0x4f, 0x10, 0x80, 0x00, 0x00, 0x00], Mode::Bits64)?;
//! assert_eq!((instruction.size(), instruction.direction()), (Size::Dword, Direction::ReadModifyWrite));
//!
//! let registers = Registers { rip: 0x1000, ..Registers::default() };
//! // Here the device is read, and returns 0x8000_0001.
//! let outcome = instruction.execute(&registers, 0x8000_0001);
//! // Here the device is written.
//! assert_eq!(outcome.write, Some(0x8000_0081));
//! assert_eq!(outcome.registers.rip, 0x1007);
//! assert_eq!(outcome.registers.flags(), Rflags::SF | Rflags::PF);
//! # Ok::<(), vm_device::exit::x86::instruction::DecodeError>(())
//! ```
//!
//! # Which instructions
//! MOV (with memory and a general-purpose register or an immediate), MOVNTI, MOVZX, MOVSX, MOVSXD, ADD, ADC, SUB, SBB, AND,
//! OR, XOR, CMP, TEST, BT, BTS, BTR, BTC, XCHG, XADD, CMPXCHG, INC, DEC, NOT, NEG, and STOS, LODS, MOVS with REP. All other
//! ones are [`DecodeError::Unsupported`].
//!
//! # The decoder
//! The crate `yaxpeax-x86` takes the bytes apart. Fuzzing has found no input that makes it panic, but it has panic paths that
//! stay in a linked image, most of them in its decoding of x87 and EVEX instructions; this crate adds none. It is large: with
//! it this module is 390 KB of code, 170 KB if [`decode`] is called with a constant [`Mode`] (`x86_64-unknown-none`, optimised
//! for speed). Compiled without optimisation, one call of [`decode`] needs between 128 and 256 KiB of stack; optimised, no
//! frame of it is over 1.5 KiB.

use core::fmt;

use crate::exit::size::Size;
use crate::exit::x86::mode::Mode;
use crate::exit::x86::port::StringForm;
use crate::exit::x86::registers::{Register, Rflags};

mod arithmetic;
mod decode;
mod execute;

pub use decode::decode;
pub use execute::Outcome;

/// The longest instruction there is, in bytes (Intel SDM vol. 2A, 2.3.11).
pub const MAX_LENGTH: usize = 15;

/// What an instruction does with its operands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// The destination becomes the source: MOV, MOVNTI, MOVZX, MOVSX, MOVSXD, STOS, LODS, MOVS.
    Move,
    /// Adds the source.
    Add,
    /// Adds the source and the carry flag.
    Adc,
    /// Subtracts the source.
    Sub,
    /// Subtracts the source and the carry flag.
    Sbb,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Subtracts, and keeps only the flags.
    Cmp,
    /// Bitwise and, and keeps only the flags.
    Test,
    /// Copies a bit to the carry flag; the source is its number.
    Bt,
    /// The same, and sets the bit.
    Bts,
    /// The same, and clears the bit.
    Btr,
    /// The same, and inverts the bit.
    Btc,
    /// Exchanges destination and source.
    Xchg,
    /// Adds the source; the source becomes the old destination.
    Xadd,
    /// If RAX equals the destination, the destination becomes the source; else RAX becomes the destination.
    Cmpxchg,
    /// Adds 1; the carry flag is kept.
    Inc,
    /// Subtracts 1; the carry flag is kept.
    Dec,
    /// Inverts every bit.
    Not,
    /// Subtracts from 0.
    Neg,
}

impl Operation {
    /// The flags that the operation sets. Flags that the manual leaves undefined (AF after the bitwise operations) are set to
    /// 0, as processors do.
    ///
    /// ```
    /// use vm_device::exit::x86::Rflags;
    /// use vm_device::exit::x86::instruction::Operation;
    ///
    /// assert_eq!(Operation::Move.flags(), Rflags::empty());
    /// assert_eq!(Operation::Add.flags(), Rflags::STATUS);
    /// assert!(!Operation::Inc.flags().contains(Rflags::CF));
    /// ```
    pub const fn flags(self) -> Rflags {
        match self {
            Operation::Move | Operation::Xchg | Operation::Not => Rflags::empty(),
            Operation::Bt | Operation::Bts | Operation::Btr | Operation::Btc => Rflags::CF,
            Operation::Inc | Operation::Dec => Rflags::STATUS.difference(Rflags::CF),
            _ => Rflags::STATUS,
        }
    }

    /// Whether the result is dropped, and only the flags remain.
    const fn only_compares(self) -> bool {
        matches!(self, Operation::Cmp | Operation::Test | Operation::Bt)
    }
}

/// An operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operand {
    /// The memory that was touched.
    Memory,
    /// A general-purpose register, or its second byte.
    Register(Register),
    /// A number in the instruction, sign-extended to 64 bits.
    Immediate(u64),
}

/// How the value that was read is extended to a larger register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Extension {
    /// With zeros: MOVZX, and every register of the size of the memory.
    Zero,
    /// With copies of its sign: MOVSX, MOVSXD.
    Sign,
}

/// Which accesses an instruction makes to memory.
///
/// ```
/// use vm_device::exit::x86::instruction::Direction;
///
/// assert!(Direction::ReadModifyWrite.reads() && Direction::ReadModifyWrite.writes());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// One read.
    Read,
    /// One write.
    Write,
    /// A read, then a write of the same size to the same address.
    ReadModifyWrite,
    /// MOVS: a read at RSI, then a write at RDI. Only one of them need be MMIO: the exit says which. The hypervisor makes the
    /// other one, see [`Instruction::string`].
    Copy,
}

impl Direction {
    /// Whether the instruction reads memory.
    pub const fn reads(self) -> bool {
        !matches!(self, Direction::Write)
    }

    /// Whether the instruction writes memory.
    pub const fn writes(self) -> bool {
        !matches!(self, Direction::Read)
    }
}

/// A decoded instruction that has a memory operand.
///
/// ```
/// use vm_device::exit::x86::instruction::{Direction, Operation, decode};
/// use vm_device::exit::x86::{Mode, Size};
///
/// // lock add word [rbx], ax
/// let instruction = decode(&[0xf0, 0x66, 0x01, 0x03], Mode::Bits64)?;
/// assert_eq!((instruction.operation(), instruction.size()), (Operation::Add, Size::Word));
/// assert_eq!((instruction.direction(), instruction.length()), (Direction::ReadModifyWrite, 4));
/// assert!(instruction.is_locked());
/// # Ok::<(), vm_device::exit::x86::instruction::DecodeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    operation: Operation,
    destination: Operand,
    source: Operand,
    size: Size,
    register_size: Size,
    extension: Extension,
    locked: bool,
    string: Option<StringForm>,
    length: u8,
    mode: Mode,
}

impl Instruction {
    /// What it does.
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// The operand that receives the result. For CMP, TEST and BT, which have none: the first operand.
    pub const fn destination(&self) -> Operand {
        self.destination
    }

    /// The other operand. INC and DEC have the immediate 1, NOT and NEG their destination.
    pub const fn source(&self) -> Operand {
        self.source
    }

    /// The size of the access to memory.
    pub const fn size(&self) -> Size {
        self.size
    }

    /// The size of the register operand, larger than the access for MOVZX, MOVSX and MOVSXD; how the value read is
    /// extended to it is the second element.
    pub const fn register_size(&self) -> (Size, Extension) {
        (self.register_size, self.extension)
    }

    /// Which accesses it makes.
    pub const fn direction(&self) -> Direction {
        match (self.operation, self.destination, self.source) {
            (Operation::Move, Operand::Memory, Operand::Memory) => Direction::Copy,
            (Operation::Move, Operand::Memory, _) => Direction::Write,
            (operation, Operand::Memory, _) if !operation.only_compares() => Direction::ReadModifyWrite,
            _ => Direction::Read,
        }
    }

    /// Whether the read and the write are one atomic access: a LOCK prefix, or XCHG, which needs none.
    ///
    /// The manager makes two accesses all the same, a read and a write: a device that is to see one must see to that itself.
    pub const fn is_locked(&self) -> bool {
        self.locked || matches!(self.operation, Operation::Xchg)
    }

    /// For STOS, LODS and MOVS, where the operands are and whether a REP prefix repeats the instruction.
    ///
    /// [`StringForm::offset`] with [`Gpr::Rsi`](super::Gpr::Rsi) is the offset of the source in [`StringForm::segment`], with
    /// [`Gpr::Rdi`](super::Gpr::Rdi) that of the destination in ES. The operand of MOVS that is not MMIO is read or written
    /// there.
    pub const fn string(&self) -> Option<StringForm> {
        self.string
    }

    /// The length in bytes: 1 to 15.
    pub const fn length(&self) -> usize {
        self.length as usize
    }

    /// RIP after the instruction, if it is at `rip`.
    pub const fn next_rip(&self, rip: u64) -> u64 {
        self.mode.instruction_pointer(rip.wrapping_add(self.length as u64))
    }
}

/// The first bytes of what could not be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    bytes: [u8; MAX_LENGTH],
    length: u8,
}

impl Bytes {
    fn new(instruction: &[u8]) -> Self {
        let mut kept = Self::default();
        for (kept, byte) in kept.bytes.iter_mut().zip(instruction) {
            *kept = *byte;
        }
        kept.length = instruction.len().min(MAX_LENGTH) as u8;
        kept
    }

    /// The bytes, 15 at most.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_slice() {
            write!(f, " {byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({:02x?})", self.as_slice())
    }
}

/// Why bytes are no instruction that can be executed here. Carries the bytes.
///
/// ```
/// use vm_device::exit::x86::Mode;
/// use vm_device::exit::x86::instruction::{DecodeError, decode};
///
/// // `fld dword [rax]` touches memory, but not by a general-purpose register.
/// assert!(matches!(decode(&[0xd9, 0x00], Mode::Bits64), Err(DecodeError::Unsupported(_))));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// The instruction goes on after the last byte: fetch more of it.
    Truncated(Bytes),
    /// No processor executes them: an undefined opcode, operands or prefixes that do not go together, or more than 15
    /// bytes. Two encodings that processors accept and compilers do not emit are among them: the opcode 82, an alias of
    /// 80 outside 64-bit mode, and a REX prefix before another one.
    Malformed(Bytes),
    /// An instruction, but none of those this module [knows](self).
    Unsupported(Bytes),
    /// An instruction this module knows, in a form that does not touch memory: not the one that caused the exit.
    NoMemoryOperand(Bytes),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated(bytes) => write!(f, "the instruction goes on after{bytes}"),
            DecodeError::Malformed(bytes) => write!(f, "no instruction:{bytes}"),
            DecodeError::Unsupported(bytes) => write!(f, "an instruction that is not executed here:{bytes}"),
            DecodeError::NoMemoryOperand(bytes) => write!(f, "an instruction that touches no memory:{bytes}"),
        }
    }
}

impl core::error::Error for DecodeError {}

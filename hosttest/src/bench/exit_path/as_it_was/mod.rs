//! The path of an exit as it was before the crate had a decoder of its own: an adapter to `yaxpeax-x86`, and registers that are
//! returned instead of changed.
//!
//! A peer to be measured, cut down to 64-bit mode, and without the string instructions.

mod arithmetic;
mod decode;
mod execute;

pub(super) use decode::decode;
pub(super) use execute::complete;
use vm_device::exit::x86::{Register, Registers, Rflags, Size};

/// What an instruction does with its operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Move,
    Add,
    Adc,
    Sub,
    Sbb,
    And,
    Or,
    Xor,
    Cmp,
    Test,
    Bt,
    Bts,
    Btr,
    Btc,
    Xchg,
    Xadd,
    Cmpxchg,
    Inc,
    Dec,
    Not,
    Neg,
}

impl Operation {
    /// The flags that it sets.
    const fn flags(self) -> Rflags {
        match self {
            Self::Move | Self::Xchg | Self::Not => Rflags::empty(),
            Self::Bt | Self::Bts | Self::Btr | Self::Btc => Rflags::CF,
            Self::Inc | Self::Dec => Rflags::STATUS.difference(Rflags::CF),
            _ => Rflags::STATUS,
        }
    }

    const fn only_compares(self) -> bool {
        matches!(self, Self::Cmp | Self::Test | Self::Bt)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operand {
    Memory,
    Register(Register),
    Immediate(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Extension {
    Zero,
    Sign,
}

/// Why the bytes are no instruction with a memory operand.
#[derive(Debug)]
pub(super) enum Failure {
    Truncated,
    Malformed,
    Unsupported,
    NoMemoryOperand,
}

/// A decoded instruction, without the address of its operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    operation: Operation,
    destination: Operand,
    source: Operand,
    size: Size,
    register_size: Size,
    extension: Extension,
    length: u8,
}

/// The registers after an instruction, and what it writes to memory.
pub(super) struct Outcome {
    pub(super) registers: Registers,
    pub(super) write: Option<u64>,
}

impl Instruction {
    pub(super) const fn size(&self) -> Size {
        self.size
    }

    pub(super) const fn reads(&self) -> bool {
        !matches!((self.operation, self.destination), (Operation::Move, Operand::Memory))
    }

    const fn writes(&self) -> bool {
        matches!(self.destination, Operand::Memory) && !self.operation.only_compares()
    }

    pub(super) const fn length(&self) -> usize {
        self.length as usize
    }
}

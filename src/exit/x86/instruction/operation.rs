//! What an instruction does, and what with.

use crate::exit::x86::registers::{Register, Rflags};

/// What an instruction does with its operands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Operation {
    /// The destination becomes the source: MOV, MOVNTI, MOVZX, MOVSX, MOVSXD, STOS, LODS, MOVS.
    Move,
    /// The destination becomes the source with its bytes in reverse order.
    Movbe,
    /// The same with a vector register on one side: see [`VectorMove`](super::VectorMove).
    MoveVector,
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
    /// Subtracts, and keeps only the flags: CMP, CMPS, SCAS.
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
    /// CMPXCHG8B and CMPXCHG16B: the same with RDX and RAX, and RCX and RBX as the source. Only the zero flag changes.
    CmpxchgPair,
    /// Adds 1; the carry flag is kept.
    Inc,
    /// Subtracts 1; the carry flag is kept.
    Dec,
    /// Inverts every bit.
    Not,
    /// Subtracts from 0.
    Neg,
    /// Copies the source to the stack, below what is there.
    Push,
    /// Takes the destination's new value from the stack.
    Pop,
}

impl Operation {
    /// The flags that the operation sets. Of those that the manual leaves undefined, AF after the bitwise operations is set to
    /// 0, and all others than CF after BT and its kin are kept, as processors do.
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
            Operation::Move
            | Operation::Movbe
            | Operation::MoveVector
            | Operation::Xchg
            | Operation::Not
            | Operation::Push
            | Operation::Pop => Rflags::empty(),
            Operation::Bt | Operation::Bts | Operation::Btr | Operation::Btc => Rflags::CF,
            Operation::CmpxchgPair => Rflags::ZF,
            Operation::Inc | Operation::Dec => Rflags::STATUS.difference(Rflags::CF),
            _ => Rflags::STATUS,
        }
    }

    /// Whether the destination becomes something that does not depend on what it was.
    pub(super) const fn moves(self) -> bool {
        matches!(self, Operation::Move | Operation::Movbe | Operation::MoveVector | Operation::Pop)
    }

    /// Whether the destination stays as it is: the result is dropped, or goes to the stack.
    pub(super) const fn keeps_destination(self) -> bool {
        matches!(self, Operation::Cmp | Operation::Test | Operation::Bt | Operation::Push)
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
    /// The vector register with this number. Only with [`Operation::MoveVector`].
    Vector(u8),
    /// The top of the stack: where PUSH puts its source, and where POP takes it from.
    Stack,
}

/// How the value that was read is extended to a larger register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Extension {
    /// With zeros: MOVZX, and every register of the size of the memory.
    Zero,
    /// With copies of its sign: MOVSX, MOVSXD.
    Sign,
}

/// Which accesses an instruction makes to its operands in memory. The stack of PUSH and POP is not one of them.
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
    /// MOVS: a read at RSI, then a write at RDI.
    Copy,
    /// CMPS: a read at RSI, and a read at RDI.
    Compare,
}

impl Direction {
    /// Whether the instruction reads memory.
    pub const fn reads(self) -> bool {
        !matches!(self, Direction::Write)
    }

    /// Whether the instruction writes memory.
    pub const fn writes(self) -> bool {
        !matches!(self, Direction::Read | Direction::Compare)
    }
}

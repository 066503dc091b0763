//! What an opcode says of the instruction.

use super::operation::Operation;
use crate::exit::size::Size;

/// What is on the other side of the memory operand, and how it is encoded. The first ones are all that a ModRM byte and what
/// follows it decide in every mode alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Other {
    /// The register by the field `reg`.
    Register,
    /// The same, of one byte: without REX, 4 to 7 are AH, CH, DH and BH.
    ByteRegister,
    /// A register of the operand size, whatever the size of the memory operand.
    ZeroExtended,
    SignExtended,
    /// A number of the operand size, of 32 bits at most.
    Immediate,
    /// A number of one byte.
    Immediate8,
    /// 1: INC and DEC.
    One,
    /// Nothing: NOT and NEG.
    Itself,
    /// The stack.
    Stack,
    /// RCX and RBX.
    Pair,
    /// Memory too.
    Memory,
    /// A vector register by the field `reg`.
    Vector,
    /// There is no such instruction.
    Undefined,
    /// CALL or JMP.
    Branch,
    /// No instruction that is known here.
    Unsupported,
}

impl Other {
    /// Whether ModRM and what follows it say the rest.
    pub(super) const fn is_plain(self) -> bool {
        (self as u8) < Other::Stack as u8
    }
}

/// The size of the memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Width {
    /// The operand size.
    Operand,
    Byte,
    Word,
    /// The operand size, 4 bytes at most.
    Dword,
    /// The operand size, 4 bytes at least.
    DwordOrQword,
}

impl Width {
    #[inline(always)]
    pub(super) fn size(self, operand_size: Size) -> Size {
        match self {
            Width::Operand => operand_size,
            Width::Byte => Size::Byte,
            Width::Word => Size::Word,
            Width::Dword => operand_size.min(Size::Dword),
            Width::DwordOrQword => operand_size.max(Size::Dword),
        }
    }
}

/// What an opcode says of its instruction, with the field `reg` of its ModRM byte where that is a part of the opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Form {
    pub(super) operation: Operation,
    pub(super) other: Other,
    pub(super) width: Width,
    flags: u8,
}

impl Form {
    /// Memory is the source.
    const LOADS: u8 = 1 << 0;
    /// LOCK is allowed.
    const LOCKABLE: u8 = 1 << 1;
    /// There is no form with a register instead of memory.
    const MEMORY_ONLY: u8 = 1 << 2;
    /// The operand is at RSI or RDI.
    const STRING: u8 = 1 << 3;
    /// The memory operand may be elsewhere than its parts say.
    const MOVES_OPERAND: u8 = 1 << 4;
    /// The memory operand has to be aligned.
    const ALIGNED: u8 = 1 << 5;

    /// A form with memory as the destination.
    pub(super) const fn new(operation: Operation, other: Other, width: Width) -> Self {
        let lockable = match operation {
            Operation::Add | Operation::Adc | Operation::Sub | Operation::Sbb => true,
            Operation::And | Operation::Or | Operation::Xor => true,
            Operation::Bts | Operation::Btr | Operation::Btc => true,
            Operation::Xchg | Operation::Xadd | Operation::Cmpxchg | Operation::CmpxchgPair => true,
            Operation::Inc | Operation::Dec | Operation::Not | Operation::Neg => true,
            _ => false,
        };
        Self { operation, other, width, flags: if lockable { Self::LOCKABLE } else { 0 } }
    }

    /// What is no instruction that can be executed here.
    pub(super) const fn refused(other: Other) -> Self {
        Self::new(Operation::Move, other, Width::Operand)
    }

    const fn with(self, flags: u8) -> Self {
        Self { flags: self.flags | flags, ..self }
    }

    /// The same with memory as the source. A register is no destination for LOCK.
    pub(super) const fn loads(self) -> Self {
        Self { flags: self.flags & !Self::LOCKABLE, ..self }.with(Self::LOADS)
    }

    pub(super) const fn memory_only(self) -> Self {
        self.with(Self::MEMORY_ONLY)
    }

    pub(super) const fn string(self) -> Self {
        self.with(Self::STRING)
    }

    pub(super) const fn moves_operand(self) -> Self {
        self.with(Self::MOVES_OPERAND)
    }

    pub(super) const fn aligned(self) -> Self {
        self.with(Self::ALIGNED)
    }

    pub(super) const fn is_load(self) -> bool {
        self.flags & Self::LOADS != 0
    }

    pub(super) const fn is_lockable(self) -> bool {
        self.flags & Self::LOCKABLE != 0
    }

    pub(super) const fn is_memory_only(self) -> bool {
        self.flags & Self::MEMORY_ONLY != 0
    }

    pub(super) const fn is_string(self) -> bool {
        self.flags & Self::STRING != 0
    }

    pub(super) const fn is_operand_moved(self) -> bool {
        self.flags & Self::MOVES_OPERAND != 0
    }

    pub(super) const fn is_aligned(self) -> bool {
        self.flags & Self::ALIGNED != 0
    }
}

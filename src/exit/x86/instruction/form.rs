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
    /// A register of the operand size, whatever the size of the memory operand.
    ZeroExtended,
    SignExtended,
    /// A number in the instruction.
    Immediate,
    /// 1: INC and DEC.
    One,
    /// Nothing: NOT and NEG.
    Itself,
    /// The stack.
    Stack,
    /// RCX and RBX.
    Pair,
    /// RAX, with no ModRM byte: the memory operand is an absolute address, or that of a string instruction.
    Accumulator,
    /// Memory too, with no ModRM byte: MOVS and CMPS.
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

/// The size of the memory operand, and of the immediate if there is one.
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
    /// A byte, and an immediate of one.
    ByteWithByte,
    /// The operand size, and an immediate of a byte.
    OperandWithByte,
    /// The operand size, and an immediate of that size, 4 bytes at most.
    OperandWithOperand,
}

/// The sizes of memory operand and immediate, by width and operand size: in bits 1 and 0 the binary logarithm of the bytes of the one,
/// from bit 4 on the bytes of the other.
#[rustfmt::skip]
static SIZES: [u8; 32] = [
    0x00, 0x01, 0x02, 0x03,
    0x00, 0x00, 0x00, 0x00,
    0x01, 0x01, 0x01, 0x01,
    0x00, 0x01, 0x02, 0x02,
    0x02, 0x02, 0x02, 0x03,
    0x10, 0x10, 0x10, 0x10,
    0x10, 0x11, 0x12, 0x13,
    0x10, 0x21, 0x42, 0x43,
];

impl Width {
    /// The size of the memory operand, and the bytes of the immediate.
    #[inline(always)]
    pub(super) fn sizes(self, operand_size: Size) -> (Size, u8) {
        let place = (self as usize) << 2 | operand_size as usize;
        let sizes = SIZES.get(place).copied().unwrap_or_default();
        let size = match sizes & 3 {
            0 => Size::Byte,
            1 => Size::Word,
            2 => Size::Dword,
            _ => Size::Qword,
        };
        (size, sizes >> 4)
    }
}

/// With the number of a register, from 4 to 7: the second byte of the register with the number less 4.
pub(super) const HIGH: u8 = 1 << 4;

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
    /// The register is one byte.
    const BYTE_REGISTER: u8 = 1 << 6;

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
        let byte = matches!((other, width), (Other::Register, Width::Byte));
        let flags = if lockable { Self::LOCKABLE } else { 0 } | if byte { Self::BYTE_REGISTER } else { 0 };
        Self { operation, other, width, flags }
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

    /// The register with this number without REX: of those of one byte, 4 to 7 are AH, CH, DH and BH.
    #[inline(always)]
    pub(super) const fn register_without_rex(self, number: u8) -> u8 {
        const { assert!(Self::BYTE_REGISTER >> 2 == HIGH) };
        number | self.flags >> 2 & number << 2 & HIGH
    }

    pub(super) const fn has_modrm(self) -> bool {
        !matches!(self.other, Other::Accumulator | Other::Memory)
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

//! What a decoder says of an instruction, in the words of this crate.

use vm_device::exit::x86::instruction::{
    Base, Direction, Extension, Instruction, MemoryOperand, Operand, Operation, VectorMove,
};
use vm_device::exit::x86::{AddressSize, Gpr, Rflags, Segment, Size, StringForm};

/// All that a decoder says of an instruction.
#[derive(PartialEq, Debug)]
pub(crate) struct Expected {
    pub(crate) operation: Operation,
    pub(crate) destination: Operand,
    pub(crate) source: Operand,
    pub(crate) size: Size,
    pub(crate) bytes: usize,
    pub(crate) register_size: Size,
    pub(crate) sign: bool,
    pub(crate) direction: Direction,
    pub(crate) locked: bool,
    pub(crate) string: Option<StringForm>,
    pub(crate) vector: Option<VectorMove>,
    pub(crate) address: MemoryOperand,
    pub(crate) flags: Rflags,
    pub(crate) length: usize,
}

impl From<Instruction> for Expected {
    fn from(instruction: Instruction) -> Self {
        let address = instruction.address();
        Self {
            operation: instruction.operation(),
            destination: instruction.destination(),
            source: instruction.source(),
            size: instruction.size(),
            bytes: instruction.bytes(),
            register_size: instruction.register_size().0,
            sign: instruction.register_size().1 == Extension::Sign,
            direction: instruction.direction(),
            locked: instruction.is_locked(),
            string: instruction.string(),
            vector: instruction.vector(),
            address: MemoryOperand { displacement: within(address.address_size, address.displacement), ..address },
            flags: instruction.operation().flags(),
            length: instruction.length(),
        }
    }
}

/// What of a displacement counts.
pub(crate) fn within(address_size: AddressSize, displacement: u64) -> u64 {
    address_size.size().truncate(displacement)
}

/// The segment without a prefix that counts.
pub(crate) fn default_segment(base: Option<Base>) -> Segment {
    match base {
        Some(Base::Gpr(Gpr::Rsp | Gpr::Rbp)) => Segment::Ss,
        _ => Segment::Ds,
    }
}

/// The bytes of one element, for a memory operand of `bytes`.
pub(crate) fn element(operation: Operation, bytes: usize) -> Option<Size> {
    Size::from_bytes(match operation {
        Operation::MoveVector => bytes.min(8),
        Operation::CmpxchgPair => bytes / 2,
        _ => bytes,
    })
}

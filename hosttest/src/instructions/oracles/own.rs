//! The decoder of the crate.

use vm_device::exit::x86::instruction::{Extension, Instruction, Operation};
use vm_device::exit::x86::{Gpr, Mode, Registers, Repeat, Size};

use super::{Meaning, effective};

pub(crate) fn own(instruction: &Instruction, mode: Mode, registers: &Registers) -> Meaning {
    let (segment, offset) = instruction.operand(registers);
    let string = instruction.string();
    let both = instruction.destination() == instruction.source();
    let (size, extension) = instruction.register_size();
    let is_move = instruction.operation() == Operation::Move && string.is_none();
    Meaning {
        length: instruction.length(),
        operation: instruction.operation(),
        destination: instruction.destination(),
        source: match instruction.operation() {
            // RCX and RBX, which are not named.
            Operation::CmpxchgPair => instruction.destination(),
            _ => instruction.source(),
        },
        bytes: instruction.bytes(),
        extended: if is_move { (size, extension == Extension::Sign) } else { (Size::Byte, false) },
        is_locked: instruction.is_locked(),
        repeat: string.map_or(Repeat::Once, |string| string.repeat),
        operand: (effective(segment, mode), offset),
        string_source: string
            .filter(|_| both)
            .map(|string| (effective(string.segment, mode), string.offset(registers, Gpr::Rsi, instruction.size(), 0))),
    }
}

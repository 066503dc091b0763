//! What each decoder says of an instruction, in the same words.

pub(super) mod iced;
mod own;
#[path = "../../../../tests/exit_decoders/words.rs"]
mod words;
pub(super) mod yaxpeax;

use vm_device::exit::x86::instruction::{Operand, Operation};
use vm_device::exit::x86::{Mode, Registers, Repeat, Segment, Size};

pub(super) use own::own;

/// An instruction with its operands where they are with the registers of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Meaning {
    pub(super) length: usize,
    pub(super) operation: Operation,
    pub(super) destination: Operand,
    pub(super) source: Operand,
    /// The bytes of the operand in memory.
    pub(super) bytes: usize,
    /// The size of the register that a move extends into, and whether the sign is copied; of other instructions a byte.
    pub(super) extended: (Size, bool),
    pub(super) is_locked: bool,
    pub(super) repeat: Repeat,
    /// Segment and offset of the operand, of a string the one at RDI if there is one.
    pub(super) operand: (Segment, u64),
    /// That of the other operand of MOVS and CMPS, at RSI.
    pub(super) string_source: Option<(Segment, u64)>,
}

/// In 64-bit mode the segments but FS and GS are all the same.
fn effective(segment: Segment, mode: Mode) -> Segment {
    match segment {
        Segment::Fs | Segment::Gs => segment,
        _ if mode == Mode::Bits64 => Segment::Ds,
        _ => segment,
    }
}

/// How far the operand is from its address, where the bit that an instruction tests may lie outside of it.
fn bit_distance(operation: Operation, number: Operand, bytes: usize, registers: &Registers) -> u64 {
    match (operation, number, Size::from_bytes(bytes)) {
        (Operation::Bt | Operation::Bts | Operation::Btr | Operation::Btc, Operand::Register(register), Some(size)) => {
            let number = size.sign_extend(registers.read(register, size)) as i64;
            number.div_euclid(size.bits().into()).wrapping_mul(bytes as i64) as u64
        }
        _ => 0,
    }
}

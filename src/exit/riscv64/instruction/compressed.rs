//! Instructions of 2 bytes.
//!
//! The encodings are those of the RISC-V ISA manual vol. I, the chapters of the extensions "C" (RV64) and "Zcb".

use super::decode::{bits, opcode};
use super::error::DecodeError;
use super::{FOUR_BYTES, Instruction, Operation};
use crate::exit::size::Size;

/// The stack pointer.
const SP: u32 = 2;

/// The load or store that these 2 bytes are. Not both of the low bits are set.
#[inline]
pub(super) fn decode(parcel: u16) -> Result<Instruction, DecodeError> {
    use Operation::{Load, LoadUnsigned, Store};
    use Size::{Byte, Dword, Qword, Word};
    let word = u32::from(parcel);
    // Registers of 3 bits are x8 to x15.
    let base = 8 | bits(word, 7, 3);
    let register = 8 | bits(word, 2, 3);
    let (destination, source) = (bits(word, 7, 5), bits(word, 2, 5));
    // An offset has its bits 5:3 at 12:10, and the bits that are left at 6:5.
    let middle = bits(word, 10, 3) << 3;
    let dword = middle | bits(word, 6, 1) << 2 | bits(word, 5, 1) << 6;
    let qword = middle | bits(word, 5, 2) << 6;
    let byte = bits(word, 6, 1) | bits(word, 5, 1) << 1;
    let half = bits(word, 5, 1) << 1;
    // Relative to the stack pointer, a load has bit 5 of its offset at 12.
    let upper = bits(word, 12, 1) << 5;
    let (operation, size, register, base, offset) = match (bits(word, 0, 2), bits(word, 13, 3)) {
        (0, 0b010) => (Load, Dword, register, base, dword),
        (0, 0b011) => (Load, Qword, register, base, qword),
        (0, 0b100) => match (bits(word, 10, 3), bits(word, 6, 1)) {
            (0b000, _) => (LoadUnsigned, Byte, register, base, byte),
            (0b001, 0) => (LoadUnsigned, Word, register, base, half),
            (0b001, _) => (Load, Word, register, base, half),
            (0b010, _) => (Store, Byte, register, base, byte),
            (0b011, 0) => (Store, Word, register, base, half),
            _ => return Err(DecodeError::of(word)),
        },
        (0, 0b110) => (Store, Dword, register, base, dword),
        (0, 0b111) => (Store, Qword, register, base, qword),
        (2, 0b010) if destination != 0 => {
            (Load, Dword, destination, SP, upper | bits(word, 4, 3) << 2 | bits(word, 2, 2) << 6)
        }
        (2, 0b011) if destination != 0 => {
            (Load, Qword, destination, SP, upper | bits(word, 5, 2) << 3 | bits(word, 2, 3) << 6)
        }
        (2, 0b110) => (Store, Dword, source, SP, bits(word, 9, 4) << 2 | bits(word, 7, 2) << 6),
        (2, 0b111) => (Store, Qword, source, SP, middle | bits(word, 7, 3) << 6),
        _ => return Err(DecodeError::of(word)),
    };
    let width = (size as u32 | if operation == LoadUnsigned { 4 } else { 0 }) << 12;
    let operands = match operation {
        Load | LoadUnsigned => offset << 20 | register << 7 | opcode::LOAD,
        Store => (offset & !31) << 20 | register << 20 | (offset & 31) << 7 | opcode::STORE,
    };
    Ok(Instruction { word: (operands | base << 15 | width) & !FOUR_BYTES })
}

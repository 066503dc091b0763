//! Instructions of 4 bytes, and what `htinst` has of those of 2 and 4.
//!
//! The encodings are those of the RISC-V ISA manual vol. I, "RV32I" and "RV64I", "Load and Store Instructions", and of the
//! chapter "RV32/64G Instruction Set Listings".

use super::compressed;
use super::error::DecodeError;
use super::{Instruction, Location, Operation};
use crate::exit::size::Size;

/// The length of the longest instruction that is decoded, in bytes.
pub const MAX_LENGTH: usize = 4;

/// Opcodes: bits 6:0 of an instruction.
pub(super) mod opcode {
    pub(in super::super) const LOAD: u32 = 0x03;
    pub(in super::super) const LOAD_FP: u32 = 0x07;
    pub(in super::super) const CUSTOM_0: u32 = 0x0b;
    pub(in super::super) const MISC_MEM: u32 = 0x0f;
    pub(in super::super) const STORE: u32 = 0x23;
    pub(in super::super) const STORE_FP: u32 = 0x27;
    pub(in super::super) const CUSTOM_1: u32 = 0x2b;
    pub(in super::super) const AMO: u32 = 0x2f;
    pub(in super::super) const CUSTOM_2: u32 = 0x5b;
    pub(in super::super) const SYSTEM: u32 = 0x73;
    pub(in super::super) const CUSTOM_3: u32 = 0x7b;
}

/// `width` bits of an instruction, from bit `low` on.
#[inline]
pub(super) const fn bits(word: u32, low: u32, width: u32) -> u32 {
    word >> low & !(u32::MAX << width)
}

/// The load or store at the start of `bytes`, of a 64-bit guest (VSXL of `hstatus`, and UXL of `vsstatus` for its programs, are 2).
///
/// The low 2 bits of the first byte say how many it has: 4 if both are set, and 2 if not. Further bytes are ignored.
///
/// ```
/// use vm_device::exit::riscv64::instruction::{DecodeError, decode};
///
/// // `c.sw a0, 4(a1)`.
/// let instruction = decode(&[0xc8, 0xc1])?;
/// assert_eq!((instruction.register(), instruction.length()), (10, 2));
/// // `amoadd.w a0, a2, (a1)`.
/// let error = decode(&[0x2f, 0xa5, 0xc5, 0x00]).unwrap_err();
/// assert_eq!(error.to_string(), "an instruction that is not executed here: amoadd.w (0xc5a52f)");
/// # Ok::<(), DecodeError>(())
/// ```
///
/// # Errors
/// [`DecodeError`] if it is no load and no store, or one that is not executed here, or if `bytes` ends before it does.
#[inline]
pub fn decode(bytes: &[u8]) -> Result<Instruction, DecodeError> {
    let [first, second, rest @ ..] = bytes else { return Err(DecodeError::Truncated) };
    let parcel = u16::from_le_bytes([*first, *second]);
    if parcel & 3 != 3 {
        return compressed::decode(parcel);
    }
    let [third, fourth, ..] = rest else { return Err(DecodeError::Truncated) };
    let word = u32::from_le_bytes([*first, *second, *third, *fourth]);
    let (operation, size, register) = transfer(word)?;
    // Both offsets are signed, with their upper 7 bits at the top.
    let offset = match operation {
        Operation::Store => (word.cast_signed() >> 25 << 5) as i16 | bits(word, 7, 5) as i16,
        _ => (word.cast_signed() >> 20) as i16,
    };
    let location = Location::Register { base: bits(word, 15, 5) as u8, offset };
    Ok(Instruction { operation, size, register, length: 4, location })
}

/// The load or store that `htinst` holds, transformed: its offset is 0, and the number of its base register is the distance from the start of
/// the operand to the address that faulted. Bit 1 is clear if the instruction has 2 bytes.
///
/// The register holds nothing but a valid encoding or a custom one (RISC-V ISA manual vol. II, hypervisor extension, "Transformed
/// Instruction or Pseudoinstruction for mtinst or htinst").
#[inline]
pub(in super::super) fn transformed(htinst: u32) -> Result<Instruction, DecodeError> {
    if htinst & 1 == 0 {
        return Err(DecodeError::Malformed(htinst));
    }
    let word = htinst | 2;
    let (operation, size, register) = transfer(word).map_err(|error| match error {
        DecodeError::Unsupported(_) => DecodeError::Unsupported(htinst),
        _ => DecodeError::Malformed(htinst),
    })?;
    let offset = bits(word, 15, 5) as u8;
    let zeros = match operation {
        Operation::Store => bits(word, 7, 5) | bits(word, 25, 7),
        _ => bits(word, 20, 12),
    };
    if zeros != 0 || usize::from(offset) >= size.bytes() {
        return Err(DecodeError::Malformed(htinst));
    }
    let length = if htinst & 2 == 0 { 2 } else { 4 };
    Ok(Instruction { operation, size, register, length, location: Location::Fault { offset } })
}

/// Operation, size of the operand and register of a load or store.
#[inline]
fn transfer(word: u32) -> Result<(Operation, Size, u8), DecodeError> {
    let width = bits(word, 12, 3);
    let (operation, register) = match (bits(word, 0, 7), width) {
        (opcode::LOAD, 0..=3) => (Operation::Load, bits(word, 7, 5)),
        (opcode::LOAD, 4..=6) => (Operation::LoadUnsigned, bits(word, 7, 5)),
        (opcode::STORE, 0..=3) => (Operation::Store, bits(word, 20, 5)),
        _ => return Err(DecodeError::of(word)),
    };
    let size = match width & 3 {
        0 => Size::Byte,
        1 => Size::Word,
        2 => Size::Dword,
        _ => Size::Qword,
    };
    Ok((operation, size, register as u8))
}

//! Instructions of 4 bytes, and what `htinst` has of those of 2 and 4.
//!
//! The encodings are those of the RISC-V ISA manual vol. I, "RV32I" and "RV64I", "Load and Store Instructions", and of the
//! chapter "RV32/64G Instruction Set Listings".

use super::compressed;
use super::error::DecodeError;
use super::{FOUR_BYTES, FROM_BYTES, Instruction, STORE};

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
    if is_transfer(word) { Ok(Instruction { word }) } else { Err(DecodeError::of(word)) }
}

/// The load or store that `htinst` holds, transformed: its offset is 0, and the number of its base register is the distance from the start of
/// the operand to the address that faulted. Bit 1 is clear if the instruction has 2 bytes.
///
/// The register holds nothing but a valid encoding or a custom one (RISC-V ISA manual vol. II, hypervisor extension, "Transformed
/// Instruction or Pseudoinstruction for mtinst or htinst").
#[inline]
pub(in super::super) fn transformed(htinst: u32) -> Result<Instruction, DecodeError> {
    if htinst & FROM_BYTES == 0 {
        return Err(DecodeError::Malformed(htinst));
    }
    if !is_transfer(htinst | FOUR_BYTES) {
        return Err(match DecodeError::of(htinst | FOUR_BYTES) {
            DecodeError::Unsupported(_) => DecodeError::Unsupported(htinst),
            _ => DecodeError::Malformed(htinst),
        });
    }
    let instruction = Instruction { word: htinst & !FROM_BYTES };
    let offset = bits(htinst, 15, 5) as usize;
    let is_zero = if instruction.writes() { htinst & 0xfe00_0f80 == 0 } else { htinst & 0xfff0_0000 == 0 };
    if is_zero && offset < instruction.size().bytes() { Ok(instruction) } else { Err(DecodeError::Malformed(htinst)) }
}

/// Whether these 4 bytes are a load or a store of an integer register.
#[inline]
const fn is_transfer(word: u32) -> bool {
    // By the width, bits 14:12: 7 loads, and above them 4 stores.
    const WIDTHS: u32 = 0x0f7f;
    const _: () = assert!(opcode::STORE == opcode::LOAD | STORE);
    bits(word, 0, 7) & !STORE == opcode::LOAD && WIDTHS >> ((word & STORE) >> 2 | bits(word, 12, 3)) & 1 != 0
}

//! From bytes to an [`Instruction`].
//!
//! There are two ways. The [common](common) one takes the forms of 64-bit mode that compilers emit for MMIO, with no prefixes but
//! 66 and REX, and asks few questions. The [general](general) one takes everything.

use super::address::{NONE, RIP};
use super::error::{Bytes, DecodeError};
use super::form::Form;
use super::{Instruction, MAX_LENGTH};
use crate::exit::size::Size;
use crate::exit::x86::mode::{AddressSize, Mode, Segment};
use crate::exit::x86::port::Repeat;
use crate::sync::cold_path;

mod general;
mod opcodes;
mod vector;

/// Decodes the instruction at the start of `bytes`, fetched at the guest's RIP. Bytes after it are ignored: a hypervisor may
/// always pass 15 bytes, the length of the longest instruction, or as many as it can fetch. With 15 or more it is fastest.
///
/// ```
/// use vm_device::exit::x86::instruction::{DecodeError, Extension, Operand, decode};
/// use vm_device::exit::x86::{Gpr, Mode, Register, Size};
///
/// // movsx eax, byte [rsi]
/// let instruction = decode(&[0x0f, 0xbe, 0x06, 0x90, 0x90], Mode::Bits64)?;
/// assert_eq!(instruction.length(), 3);
/// assert_eq!(instruction.size(), Size::Byte);
/// assert_eq!(instruction.destination(), Operand::Register(Register::Low(Gpr::Rax)));
/// assert_eq!(instruction.register_size(), (Size::Dword, Extension::Sign));
///
/// assert!(matches!(decode(&[0x0f, 0xbe], Mode::Bits64), Err(DecodeError::Truncated(_))));
/// # Ok::<(), DecodeError>(())
/// ```
///
/// # Errors
/// [`DecodeError`], if the bytes are no instruction, or none with a memory operand that this module knows.
#[inline]
pub fn decode(bytes: &[u8], mode: Mode) -> Result<Instruction, DecodeError> {
    if mode == Mode::Bits64
        && let Some(all) = bytes.first_chunk()
        && let Some(instruction) = common(all)
    {
        return Ok(instruction);
    }
    let bytes = bytes.get(..MAX_LENGTH).unwrap_or(bytes);
    general::decode(bytes, mode).map_err(|failure| failure.error(bytes, mode))
}

/// Why bytes are refused, without the bytes.
#[derive(Clone, Copy)]
enum Failure {
    Truncated,
    Malformed,
    Unsupported,
    Branch,
    NoMemoryOperand,
}

impl Failure {
    #[cold]
    fn error(self, bytes: &[u8], mode: Mode) -> DecodeError {
        let kept = Bytes::new(bytes, mode);
        match self {
            Failure::Truncated if bytes.len() < MAX_LENGTH => DecodeError::Truncated(kept),
            Failure::Truncated | Failure::Malformed => DecodeError::Malformed(kept),
            Failure::Unsupported => DecodeError::Unsupported(kept),
            Failure::Branch => DecodeError::Branch(kept),
            Failure::NoMemoryOperand => DecodeError::NoMemoryOperand(kept),
        }
    }
}

/// What is known before ModRM.
#[derive(Clone, Copy)]
struct Start {
    /// The place of the byte after ModRM.
    at: usize,
    /// 0 if there is none: a REX prefix without any bit is 40.
    rex: u8,
    operand_size: Size,
    address_size: AddressSize,
    /// That of a prefix.
    segment: Option<Segment>,
    mode: Mode,
}

/// 64-bit mode, and no prefixes but 66 and REX, in this order. `None` for all else.
#[inline(always)]
fn common(bytes: &[u8; MAX_LENGTH]) -> Option<Instruction> {
    let mut word = u64::from_le_bytes(*bytes.first_chunk()?);
    let mut at = 2;
    let is_word = word as u8 == 0x66;
    if is_word {
        cold_path();
        word >>= 8;
        at += 1;
    }
    let mut rex = 0;
    if word & 0xf0 == 0x40 {
        rex = word as u8;
        cold_path();
        word >>= 8;
        at += 1;
    }
    let is_escape = word as u8 == 0x0f;
    if is_escape {
        cold_path();
        word >>= 8;
        at += 1;
    }
    let [opcode, modrm, ..] = word.to_le_bytes();
    let form = opcodes::form(is_escape, opcode, modrm);
    if !form.other.is_plain() || modrm >= 0xc0 {
        return None;
    }
    let operand_size = match (rex & 8 != 0, is_word) {
        (true, _) => Size::Qword,
        (false, true) => Size::Word,
        (false, false) => Size::Dword,
    };
    let address_size = AddressSize::Bits64;
    let start = Start { at, rex, operand_size, address_size, segment: None, mode: Mode::Bits64 };
    complete(bytes, modrm, form, start)
}

/// Takes what follows a ModRM byte with a memory operand. `None` only if `bytes` end before it.
#[inline(always)]
fn complete<const N: usize>(bytes: &[u8; N], modrm: u8, form: Form, start: Start) -> Option<Instruction> {
    let Start { mut at, rex, operand_size, address_size, .. } = start;
    let shape = Shape::new(modrm);
    let (mut base, mut index, mut scale) = (shape.base() | (rex & 1) << 3, NONE, 0);
    let mut count = shape.displacement();
    if address_size == AddressSize::Bits16 {
        (base, index, count) = word_address(modrm);
    } else if shape.has_sib() {
        let sib = *bytes.get(at)?;
        at += 1;
        base = sib & 7 | (rex & 1) << 3;
        scale = sib >> 6;
        let number = sib >> 3 & 7 | (rex & 2) << 2;
        index = if number == 4 { NONE } else { number };
        if sib & 7 == 5 && modrm < 0x40 {
            base = NONE;
            count = 4;
        }
    } else if start.mode != Mode::Bits64 && base & RIP != 0 {
        base = NONE;
    }
    let displacement = signed(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?), count);
    at += usize::from(count);

    let (size, count) = form.width.sizes(operand_size);
    let mut immediate = 0;
    if count != 0 {
        cold_path();
        immediate = signed(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into(), count) as i32;
        at += usize::from(count);
    }

    let mut register = modrm >> 3 & 7 | (rex & 4) << 1;
    if rex == 0 {
        register = form.register_without_rex(register);
    }
    Some(Instruction {
        displacement: displacement as u64,
        immediate,
        form,
        length: at as u8,
        register,
        base,
        index,
        scale,
        size,
        operand_size,
        bytes: size as u8,
        segment: start.segment,
        address_size,
        mode: start.mode,
        locked: false,
        repeat: Repeat::Once,
        vex: false,
    })
}

/// What a ModRM byte says of an address of 32 or 64 bits (Intel SDM vol. 2A, table 2-2): the base as it is stored, and from bit 5 on the
/// bytes of the displacement.
#[derive(Clone, Copy)]
struct Shape(u8);

static SHAPES: [Shape; 256] = {
    let mut shapes = [Shape(0); 256];
    let mut modrm = 0;
    while modrm < 0xc0 {
        let low = modrm as u8 & 7;
        let relative = modrm < 0x40 && low == 5;
        let displacement = [if relative { 4 } else { 0 }, 1, 4][modrm >> 6];
        let sib = if low == 4 { Shape::SIB } else { 0 };
        shapes[modrm] = Shape(low | if relative { RIP } else { 0 } | displacement << 5 | sib);
        modrm += 1;
    }
    shapes
};

impl Shape {
    /// A SIB byte follows.
    const SIB: u8 = 1 << 3;

    #[inline(always)]
    fn new(modrm: u8) -> Self {
        SHAPES.get(usize::from(modrm)).copied().unwrap_or(Shape(0))
    }

    fn base(self) -> u8 {
        self.0 & (RIP | 7)
    }

    fn displacement(self) -> u8 {
        self.0 >> 5
    }

    fn has_sib(self) -> bool {
        self.0 & Self::SIB != 0
    }
}

/// Base, index and bytes of displacement of a 16-bit address (Intel SDM vol. 2A, table 2-1).
fn word_address(modrm: u8) -> (u8, u8, u8) {
    const BX: u8 = 3;
    const BP: u8 = 5;
    const SI: u8 = 6;
    const DI: u8 = 7;
    let (base, index) = match modrm & 7 {
        0 => (BX, SI),
        1 => (BX, DI),
        2 => (BP, SI),
        3 => (BP, DI),
        4 => (SI, NONE),
        5 => (DI, NONE),
        6 if modrm < 0x40 => return (NONE, NONE, 2),
        6 => (BP, NONE),
        _ => (BX, NONE),
    };
    (base, index, modrm >> 6)
}

/// The low `count` bytes of `word`, sign-extended: 0, 1, 2 or 4 of them.
#[inline(always)]
fn signed(word: u64, count: u8) -> i64 {
    let bits = u32::from(count) * 8;
    // For 0 bytes by 64 altogether, which one shift cannot.
    let high = (word << 1).wrapping_shl(bits ^ 63);
    (high as i64).wrapping_shr(bits.wrapping_neg())
}

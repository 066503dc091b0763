//! The name of an instruction, for the text of an error.
//!
//! Errors are rare: the names are texts that are read from their start, small rather than fast.

use self::opcodes::{EVEX_MOVE, MAPS, VEX_ALONE};
use crate::exit::x86::mode::Mode;

mod opcodes;

/// All that EVEX adds to the moves of SSE.
const EVEX: &str = "an EVEX instruction (AVX-512)";
/// AMD's extension of family 15h, and the part of it that is in the third map of VEX.
const XOP: &str = "an XOP instruction";
const FMA4: &str = "an FMA4 instruction";
/// All that has the opcode 0F 0F: the last byte of the instruction tells which.
const AMD_3DNOW: &str = "a 3DNow! instruction";

/// The mnemonic of the instruction at the start of `bytes`, in lower case, with `cc` for a condition as in the titles of the
/// manuals. Of XOP, FMA4, 3DNow! and EVEX instructions, it is the name of the extension; the moves that EVEX has from SSE
/// are named.
///
/// `None` if no instruction has this opcode in this mode, or if the opcode is missing, or a ModRM byte that is part of it.
/// Nothing else is looked at: bytes that are no instruction because of a prefix, of VEX.L or of a register can have the
/// name of one. An instruction that has no memory operand is named only if its opcode has no other meaning.
pub(super) fn mnemonic(bytes: &[u8], mode: Mode) -> Option<&'static str> {
    let mut bytes = bytes.iter().copied();
    let (mut operand_size_prefix, mut repeat, mut rex) = (false, None, 0);
    let opcode = loop {
        let byte = bytes.next()?;
        match byte {
            0x66 => operand_size_prefix = true,
            0xf3 => repeat = Some(2),
            0xf2 => repeat = Some(3),
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67 | 0xf0 => {}
            0x40..=0x4f if mode == Mode::Bits64 => {
                rex = byte;
                continue;
            }
            opcode => break opcode,
        }
        // A REX prefix counts only directly before the opcode (Intel SDM vol. 2A, 2.2.1).
        rex = 0;
    };
    let mut form = Form {
        prefix: repeat.unwrap_or(u8::from(operand_size_prefix)),
        wide: rex >> 3 & 1,
        operand_size: match mode {
            _ if rex & 8 != 0 => 2,
            Mode::Bits16 => u8::from(operand_size_prefix),
            Mode::Bits32 | Mode::Bits64 => u8::from(!operand_size_prefix),
        },
        modrm: None,
    };

    let following = bytes.clone().next();
    // Outside 64-bit mode these opcodes are LES, LDS and BOUND, which have a memory operand (Intel SDM vol. 2A, 2.3.5).
    let is_vector_prefix = mode == Mode::Bits64 || following.is_none_or(|byte| byte >= 0xc0);
    let mut encoding = Encoding::Legacy;
    let (map, opcode) = match opcode {
        0x0f => match bytes.next()? {
            0x0f => return Some(AMD_3DNOW),
            0x38 => (2, bytes.next()?),
            0x3a => (3, bytes.next()?),
            opcode => (1, opcode),
        },
        // POP has 0 in ModRM.reg (AMD APM vol. 3, 1.9).
        0x8f if following.is_some_and(|byte| byte & 0x18 != 0) => return Some(XOP),
        0xc4 | 0xc5 | 0x62 if is_vector_prefix => {
            encoding = if opcode == 0x62 { Encoding::Evex } else { Encoding::Vex };
            let map = if opcode == 0xc5 { 1 } else { bytes.next()? & if opcode == 0x62 { 7 } else { 0x1f } };
            let payload = bytes.next()?;
            form.prefix = payload & 3;
            form.wide = if opcode == 0xc5 { 0 } else { payload >> 7 };
            // A general-purpose register has no 64 bits outside 64-bit mode, whatever VEX.W is.
            form.operand_size = if mode == Mode::Bits64 { form.wide * 2 } else { 0 };
            if opcode == 0x62 {
                bytes.next()?;
            }
            (map, bytes.next()?)
        }
        0x63 if mode != Mode::Bits64 => return Some("arpl"),
        // What 64-bit mode does not have (Intel SDM vol. 2D, table A-1: i64).
        0x06 | 0x07 | 0x0e | 0x16 | 0x17 | 0x1e | 0x1f | 0x27 | 0x2f | 0x37 | 0x3f | 0x60 | 0x61 | 0x82 | 0x9a
        | 0xce | 0xd4 | 0xd5 | 0xd6 | 0xea
            if mode == Mode::Bits64 =>
        {
            return None;
        }
        opcode => (0, opcode),
    };
    form.modrm = bytes.next();

    let name = form.name(map, opcode);
    let first = name.and_then(|name| name.bytes().next());
    match encoding {
        Encoding::Legacy if matches!(first, Some(b'!' | b'v')) => name?.get(1..),
        Encoding::Legacy => name,
        Encoding::Vex if !matches!(map, 1..=3) => None,
        Encoding::Vex if map == 3 && matches!(opcode, 0x5c..=0x5f | 0x68..=0x6f | 0x78..=0x7f) => Some(FMA4),
        Encoding::Vex => form.name(map + VEX_ALONE, opcode).or(name.filter(|_| first == Some(b'v'))),
        Encoding::Evex if map == 1 && opcode | 0x10 == 0x7f => form.choose(EVEX_MOVE),
        Encoding::Evex => name.filter(|name| name.starts_with("vmov")).or(Some(EVEX)),
    }
}

/// How the bytes before the opcode are arranged.
#[derive(Clone, Copy)]
enum Encoding {
    Legacy,
    Vex,
    Evex,
}

/// What tells the instructions with one opcode from each other.
struct Form {
    /// The mandatory prefix, in the order of VEX.pp: none, 66, F3, F2.
    prefix: u8,
    /// REX.W, VEX.W or EVEX.W.
    wide: u8,
    /// 16, 32 or 64 bits.
    operand_size: u8,
    modrm: Option<u8>,
}

impl Form {
    /// The name of this form of `opcode` in a line of [`MAPS`].
    fn name(&self, map: u8, opcode: u8) -> Option<&'static str> {
        let (mut left, mut rest) = (opcode, alternative(MAPS, b'\n', map)?);
        while !rest.is_empty() {
            let (entry, after) = cut(rest, b' ').unwrap_or((rest, ""));
            let (forms, count) = cut(entry, b'*').unwrap_or((entry, "1"));
            let count = count.bytes().fold(0u8, |count, digit| count.wrapping_mul(10).wrapping_add(digit & 0xf));
            match left.checked_sub(count) {
                Some(more) => (left, rest) = (more, after),
                None => return self.choose(forms),
            }
        }
        None
    }

    fn choose(&self, forms: &'static str) -> Option<&'static str> {
        // Without a ModRM byte, only a name that does not depend on it is found.
        let (is_register, reg) = match self.modrm {
            Some(modrm) => (u8::from(modrm >= 0xc0), modrm >> 3 & 7),
            None => (u8::MAX, u8::MAX),
        };
        let forms = alternative(forms, b':', is_register)?;
        let forms = alternative(forms, b';', reg)?;
        let forms = alternative(forms, b',', self.prefix)?;
        let has_three_sizes = forms.bytes().filter(|byte| *byte == b'/').count() == 2;
        let name = alternative(forms, b'/', if has_three_sizes { self.operand_size } else { self.wide })?;
        (name != "-").then_some(name)
    }
}

/// The element of a list with this number, or the only one.
fn alternative(list: &'static str, separator: u8, number: u8) -> Option<&'static str> {
    let Some((first, mut rest)) = cut(list, separator) else {
        return Some(list);
    };
    if number == 0 {
        return Some(first);
    }
    for _ in 1..number {
        rest = cut(rest, separator)?.1;
    }
    let chosen = cut(rest, separator).map_or(rest, |(chosen, _)| chosen);
    Some(if chosen.is_empty() { first } else { chosen })
}

/// What is before and after the first `separator`. Unlike those of `str`, it has no panic path in a linked image.
fn cut(text: &'static str, separator: u8) -> Option<(&'static str, &'static str)> {
    let at = text.bytes().position(|byte| byte == separator)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

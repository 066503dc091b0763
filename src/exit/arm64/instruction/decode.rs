//! A64 words taken apart (Arm ARM DDI 0487, C4.1, "Loads and Stores").

use super::names::unsupported;
use super::{Addressing, DecodeError, Extend, Form, Instruction, Target};
use crate::exit::arm64::mode::Mode;

/// The field of `width` bits from bit `low` on.
#[inline]
const fn field(word: u32, low: u32, width: u32) -> u8 {
    (word >> low & ((1 << width) - 1)) as u8
}

/// The same, of any width, as a signed number.
#[inline]
const fn signed(word: u32, low: u32, width: u32) -> i64 {
    ((word << (32 - low - width)) as i32 >> (32 - width)) as i64
}

const fn bit(word: u32, number: u32) -> bool {
    word >> number & 1 != 0
}

/// Rt, and Rd of everything else.
const fn rt(word: u32) -> u8 {
    field(word, 0, 5)
}

/// Rn, the base.
const fn rn(word: u32) -> u8 {
    field(word, 5, 5)
}

/// V: the registers are those of SIMD and floating point.
const fn is_vector(word: u32) -> bool {
    bit(word, 26)
}

const fn offset(word: u32, offset: i64) -> Addressing {
    Addressing::Offset { base: rn(word), offset }
}

/// Decodes the A64 instruction `word` of a guest in this `mode`.
///
/// # Errors
/// [`DecodeError`] if it is none that can be executed here.
#[inline]
pub fn decode(word: u32, mode: Mode) -> Result<Instruction, DecodeError> {
    if mode.is_aarch32() {
        return Err(DecodeError::Aarch32(word));
    }
    // Bits 29 to 27 and 25 to 24: all of the group but V.
    let instruction = match word >> 24 & 0b11_1011 {
        0b11_1000 | 0b11_1001 => single(word),
        0b10_1000 | 0b10_1001 => pair(word),
        0b01_1000 => literal(word),
        0b01_1001 if !is_vector(word) && word >> 10 & 0b1000_0000_0011 == 0 => weakly_ordered_unscaled(word),
        0b00_1000 if !is_vector(word) && word >> 21 & 0b101 == 0b100 => ordered(word),
        _ => None,
    };
    match instruction {
        Some(instruction) => Ok(instruction),
        None => Err(unsupported(word)),
    }
}

/// What `size`, V and `opc` say of an access of one register.
struct Access {
    scale: u8,
    target: Target,
    writes: bool,
    prefetch: bool,
}

/// Bits 31:30 `size`, 26 V, 23:22 `opc`. `None` if they are not allocated.
#[inline]
const fn access(word: u32) -> Option<Access> {
    let (size, opc) = (field(word, 30, 2), field(word, 22, 2));
    let (scale, target) = match (is_vector(word), opc, size) {
        (true, 0 | 1, _) => (size, Target::Vector),
        (true, _, 0) => (4, Target::Vector),
        (false, 0..=2, 3) | (false, 0..=1, _) => (size, Target::General { wide: size == 3, sign_extended: false }),
        (false, 2, _) => (size, Target::General { wide: true, sign_extended: true }),
        (false, 3, 0 | 1) => (size, Target::General { wide: false, sign_extended: true }),
        _ => return None,
    };
    let writes = if is_vector(word) { opc & 1 == 0 } else { opc == 0 };
    Some(Access { scale, target, writes, prefetch: !is_vector(word) && opc == 2 && size == 3 })
}

/// One register, and all its ways of addressing but literals.
#[inline]
fn single(word: u32) -> Option<Instruction> {
    let (base, imm9) = (rn(word), signed(word, 12, 9));
    let way = if bit(word, 24) { None } else { Some((bit(word, 21), field(word, 10, 2))) };
    // LDAPR lies among the atomic instructions: A = 1, R = 0, o3 = 1, opc = 100. Rs should be all ones; processors ignore it.
    if way == Some((true, 0b00)) {
        let is_ldapr = !is_vector(word) && word >> 12 & 0b1100_0000_1111 == 0b1000_0000_1100;
        return is_ldapr.then(|| general(word, Form::WeaklyOrdered, false));
    }
    let Access { scale, target, writes, prefetch } = access(word)?;
    let (form, addressing) = match way {
        None => (Form::Plain, offset(word, i64::from(word >> 10 & 0xfff) << scale)),
        Some((false, 0b00)) => (Form::Unscaled, offset(word, imm9)),
        Some((true, 0b10)) => (Form::Plain, index(word, scale)?),
        // There are no prefetches of these.
        _ if prefetch => return None,
        Some((false, 0b01)) => (Form::Plain, Addressing::PostIndex { base, offset: imm9 }),
        Some((false, 0b11)) => (Form::Plain, Addressing::PreIndex { base, offset: imm9 }),
        Some((false, _)) if !is_vector(word) => (Form::Unprivileged, offset(word, imm9)),
        _ => return None,
    };
    let form = if prefetch { Form::Prefetch } else { form };
    Some(Instruction { form, writes, scale, target, register: rt(word), second: None, addressing })
}

/// One general-purpose register of the size in bits 31:30, at the base.
const fn general(word: u32, form: Form, writes: bool) -> Instruction {
    let scale = field(word, 30, 2);
    let target = Target::General { wide: scale == 3, sign_extended: false };
    Instruction { form, writes, scale, target, register: rt(word), second: None, addressing: offset(word, 0) }
}

/// Bits 20:16 Rm, 15:13 `option`, 12 S.
#[inline]
const fn index(word: u32, scale: u8) -> Option<Addressing> {
    let extend = match field(word, 13, 3) {
        0b010 => Extend::Uxtw,
        0b011 => Extend::Uxtx,
        0b110 => Extend::Sxtw,
        0b111 => Extend::Sxtx,
        _ => return None,
    };
    let shift = if bit(word, 12) { scale } else { 0 };
    Some(Addressing::Index { base: rn(word), index: field(word, 16, 5), extend, shift })
}

/// Bits 31:30 `opc`, 26 V, 24:23 the way of addressing, 22 L, 21:15 offset, 14:10 Rt2.
#[inline]
fn pair(word: u32) -> Option<Instruction> {
    let (opc, loads, way) = (field(word, 30, 2), bit(word, 22), field(word, 23, 2));
    let (scale, target) = match (is_vector(word), opc) {
        (true, 0..=2) => (opc + 2, Target::Vector),
        (false, 0) => (2, Target::General { wide: false, sign_extended: false }),
        // LDPSW. The store is STGP, and neither is non-temporal.
        (false, 1) if loads && way != 0 => (2, Target::General { wide: true, sign_extended: true }),
        (false, 2) => (3, Target::General { wide: true, sign_extended: false }),
        _ => return None,
    };
    let (base, offset) = (rn(word), signed(word, 15, 7) << scale);
    Some(Instruction {
        form: if way == 0 { Form::NonTemporalPair } else { Form::Pair },
        writes: !loads,
        scale,
        target,
        register: rt(word),
        second: Some(field(word, 10, 5)),
        addressing: match way {
            0b01 => Addressing::PostIndex { base, offset },
            0b11 => Addressing::PreIndex { base, offset },
            _ => Addressing::Offset { base, offset },
        },
    })
}

/// Bits 31:30 `opc`, 26 V, 23:5 offset.
#[inline]
fn literal(word: u32) -> Option<Instruction> {
    let (form, scale, target) = match (is_vector(word), field(word, 30, 2)) {
        (true, opc @ 0..=2) => (Form::Plain, opc + 2, Target::Vector),
        (false, opc @ 0..=1) => (Form::Plain, opc + 2, Target::General { wide: opc == 1, sign_extended: false }),
        (false, 2) => (Form::Plain, 2, Target::General { wide: true, sign_extended: true }),
        (false, _) => (Form::Prefetch, 3, Target::General { wide: true, sign_extended: false }),
        _ => return None,
    };
    let addressing = Addressing::Literal { offset: signed(word, 5, 19) << 2 };
    Some(Instruction { form, writes: false, scale, target, register: rt(word), second: None, addressing })
}

/// LDAPUR and STLUR: as a single register, without prefetches.
#[inline]
fn weakly_ordered_unscaled(word: u32) -> Option<Instruction> {
    let Access { scale, target, writes, prefetch } = access(word)?;
    let addressing = offset(word, signed(word, 12, 9));
    let form = Form::WeaklyOrderedUnscaled;
    (!prefetch).then_some(Instruction { form, writes, scale, target, register: rt(word), second: None, addressing })
}

/// LDAR, STLR, LDLAR, STLLR: bits 22 L, 15 o0. Rs and Rt2 should be all ones; processors ignore them.
#[inline]
fn ordered(word: u32) -> Option<Instruction> {
    let form = if bit(word, 15) { Form::Ordered } else { Form::LimitedOrdered };
    Some(general(word, form, !bit(word, 22)))
}

//! The names of instructions: those that are executed, and those that touch memory and are not.

use core::fmt;

use super::{DecodeError, Form, Instruction, Target};

impl Instruction {
    /// The mnemonic, in lower case. All prefetches are `prfm`.
    pub const fn mnemonic(&self) -> &'static str {
        let (signed, scale) = match self.target {
            Target::General { sign_extended, .. } => (sign_extended, self.scale),
            Target::Vector => (false, 3),
        };
        match self.form {
            Form::Prefetch => "prfm",
            Form::Pair if self.writes => "stp",
            Form::Pair if signed => "ldpsw",
            Form::Pair => "ldp",
            Form::NonTemporalPair if self.writes => "stnp",
            Form::NonTemporalPair => "ldnp",
            Form::Plain => match (self.writes, signed, scale) {
                (true, _, 0) => "strb",
                (true, _, 1) => "strh",
                (true, ..) => "str",
                (_, false, 0) => "ldrb",
                (_, false, 1) => "ldrh",
                (_, false, _) => "ldr",
                (.., 0) => "ldrsb",
                (.., 1) => "ldrsh",
                _ => "ldrsw",
            },
            Form::Unscaled => match (self.writes, signed, scale) {
                (true, _, 0) => "sturb",
                (true, _, 1) => "sturh",
                (true, ..) => "stur",
                (_, false, 0) => "ldurb",
                (_, false, 1) => "ldurh",
                (_, false, _) => "ldur",
                (.., 0) => "ldursb",
                (.., 1) => "ldursh",
                _ => "ldursw",
            },
            Form::Unprivileged => match (self.writes, signed, scale) {
                (true, _, 0) => "sttrb",
                (true, _, 1) => "sttrh",
                (true, ..) => "sttr",
                (_, false, 0) => "ldtrb",
                (_, false, 1) => "ldtrh",
                (_, false, _) => "ldtr",
                (.., 0) => "ldtrsb",
                (.., 1) => "ldtrsh",
                _ => "ldtrsw",
            },
            Form::WeaklyOrderedUnscaled => match (self.writes, signed, scale) {
                (true, _, 0) => "stlurb",
                (true, _, 1) => "stlurh",
                (true, ..) => "stlur",
                (_, false, 0) => "ldapurb",
                (_, false, 1) => "ldapurh",
                (_, false, _) => "ldapur",
                (.., 0) => "ldapursb",
                (.., 1) => "ldapursh",
                _ => "ldapursw",
            },
            Form::Ordered => match (self.writes, scale) {
                (true, 0) => "stlrb",
                (true, 1) => "stlrh",
                (true, _) => "stlr",
                (_, 0) => "ldarb",
                (_, 1) => "ldarh",
                _ => "ldar",
            },
            Form::LimitedOrdered => match (self.writes, scale) {
                (true, 0) => "stllrb",
                (true, 1) => "stllrh",
                (true, _) => "stllr",
                (_, 0) => "ldlarb",
                (_, 1) => "ldlarh",
                _ => "ldlar",
            },
            Form::WeaklyOrdered => match scale {
                0 => "ldaprb",
                1 => "ldaprh",
                _ => "ldapr",
            },
        }
    }
}

impl fmt::Debug for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instruction(")?;
        f.write_str(self.mnemonic())?;
        write!(f, " {}, {:?}, {:?}, {:?})", self.register(), self.second_register(), self.target(), self.addressing())
    }
}

/// What a word is that is not executed here.
#[cold]
pub(super) const fn unsupported(word: u32) -> DecodeError {
    if of_unsupported(word).is_some() {
        DecodeError::Unsupported(word)
    } else if is_unallocated(word) {
        DecodeError::Unallocated(word)
    } else {
        DecodeError::NoMemoryOperand(word)
    }
}

const fn field(word: u32, low: u32, width: u32) -> u32 {
    word >> low & ((1 << width) - 1)
}

/// Whether the word is of the group "Loads and Stores", or of the group "Reserved".
const fn is_unallocated(word: u32) -> bool {
    field(word, 25, 4) & 0b0101 == 0b0100 || field(word, 25, 4) == 0 && field(word, 31, 1) == 0
}

/// The name of an instruction that touches memory and is not executed here (Arm ARM DDI 0487, C4.1).
pub(super) const fn of_unsupported(word: u32) -> Option<&'static str> {
    match (field(word, 25, 4), field(word, 31, 1)) {
        // Bits 27 and 25.
        (0b0100 | 0b0110 | 0b1100 | 0b1110, _) => load_or_store(word),
        (0b0010, 1) => Some("an instruction of SVE"),
        (0, 1) if field(word, 25, 7) == 0b111_0000 || field(word, 25, 7) == 0b101_0000 && field(word, 23, 1) == 0 => {
            Some("an instruction of SME")
        }
        _ => match word & !0x1f {
            0xd50b_7420 => Some("dc zva"),
            0xd50b_7460 => Some("dc gva"),
            0xd50b_7480 => Some("dc gzva"),
            _ => None,
        },
    }
}

const fn load_or_store(word: u32) -> Option<&'static str> {
    let (vector, size) = (field(word, 26, 1) == 1, field(word, 30, 2));
    match (word >> 24 & 0b11_1011, vector) {
        (0b00_1000, true) if size & 0b10 == 0 => structures(word),
        (0b00_1001, true) if size & 0b10 == 0 => structure(word),
        (0b00_1000, false) => exclusive(word),
        (0b00_1001, false) if field(word, 21, 1) == 0 && field(word, 10, 5) == 31 => {
            Some("an unprivileged exclusive or compare-and-swap")
        }
        (0b01_1001, _) => match (field(word, 21, 1), field(word, 10, 2)) {
            (0, 0b01) if size == 0 => Some(match (vector, field(word, 22, 2)) {
                (false, 3) => "set",
                (true, 3) => "setg",
                (false, _) => "cpyf",
                (true, _) => "cpy",
            }),
            (0, 0b10) => weakly_ordered(word),
            (0, 0b11) if !vector && word >> 13 == 0xd91f_0000 >> 13 => Some("gcsstr"),
            (1, op) if !vector => match (size, op) {
                (3, _) => tags(word),
                (0, 0b00) => match field(word, 12, 4) {
                    0b0001 => Some("ldclrp"),
                    0b0011 => Some("ldsetp"),
                    0b1000 => Some("swpp"),
                    _ => None,
                },
                (0 | 1, 0b01) => Some("an unprivileged atomic"),
                (0 | 1, 0b10 | 0b11) => Some("a read-check-write atomic"),
                _ => None,
            },
            _ => None,
        },
        (0b10_1000 | 0b10_1001, false) if size == 1 && field(word, 22, 1) == 0 && field(word, 23, 2) != 0 => {
            Some("stgp")
        }
        (0b10_1000 | 0b10_1001, _) if size == 3 => Some(if field(word, 22, 1) == 1 { "ldtp" } else { "sttp" }),
        (0b11_1000, _) if field(word, 21, 1) == 1 => match (field(word, 10, 2), vector) {
            (0b00, false) => atomic(word),
            (0b00, true) => Some("an atomic of floating point"),
            (0b01 | 0b11, false) if size == 3 => Some(if field(word, 23, 1) == 0 { "ldraa" } else { "ldrab" }),
            _ => None,
        },
        _ => None,
    }
}

/// Bits 23 o2, 22 L, 21 o1, 15 o0, 14:10 Rt2.
const fn exclusive(word: u32) -> Option<&'static str> {
    let (loads, ordered) = (field(word, 22, 1) == 1, field(word, 15, 1) == 1);
    let no_rt2 = field(word, 10, 5) == 31;
    match (field(word, 23, 1), field(word, 21, 1), field(word, 30, 2)) {
        (0, 0, _) => Some(match (loads, ordered) {
            (true, true) => "ldaxr",
            (true, false) => "ldxr",
            (false, true) => "stlxr",
            (false, false) => "stxr",
        }),
        (0, _, 2 | 3) => Some(match (loads, ordered) {
            (true, true) => "ldaxp",
            (true, false) => "ldxp",
            (false, true) => "stlxp",
            (false, false) => "stxp",
        }),
        // Both pairs begin with an even register.
        (0, ..) if no_rt2 && field(word, 16, 1) == 0 && field(word, 0, 1) == 0 => Some("casp"),
        (1, 1, _) if no_rt2 => Some("cas"),
        _ => None,
    }
}

/// Several structures: bits 23 post-index, 22 L, 20:16 Rm, 15:12 `opcode`.
const fn structures(word: u32) -> Option<&'static str> {
    let no_index = field(word, 23, 1) == 0 && field(word, 16, 5) != 0;
    if no_index || field(word, 21, 1) != 0 || field(word, 30, 2) > 1 {
        return None;
    }
    let loads = field(word, 22, 1) == 1;
    Some(match field(word, 12, 4) {
        0b0000 => {
            if loads {
                "ld4"
            } else {
                "st4"
            }
        }
        0b0100 => {
            if loads {
                "ld3"
            } else {
                "st3"
            }
        }
        // The elements of the others can not be of 8 bytes in a register of 8 bytes.
        0b1000 => {
            if loads {
                "ld2"
            } else {
                "st2"
            }
        }
        0b0010 | 0b0110 | 0b0111 | 0b1010 => {
            if loads {
                "ld1"
            } else {
                "st1"
            }
        }
        _ => return None,
    })
}

/// One structure: bits 23 post-index, 22 L, 21 R, 20:16 Rm, 15:13 `opcode`, 12 S, 11:10 size.
const fn structure(word: u32) -> Option<&'static str> {
    let (loads, second) = (field(word, 22, 1) == 1, field(word, 21, 1) == 1);
    let (opcode, s, size) = (field(word, 13, 3), field(word, 12, 1), field(word, 10, 2));
    // Post-index is the only one with Rm, but for the ordered ones of FEAT_LRCPC3.
    if field(word, 23, 1) == 0 && field(word, 16, 5) != 0 {
        return match (field(word, 16, 6), opcode, s, size) {
            (1, 0b100, 0, 0b01) => Some(if loads { "ldap1" } else { "stl1" }),
            _ => None,
        };
    }
    let allocated = match opcode {
        0b000 | 0b001 => true,
        0b010 | 0b011 => size & 1 == 0,
        0b100 | 0b101 => size == 0 || size == 1 && s == 0,
        _ => loads && s == 0,
    };
    if !allocated {
        return None;
    }
    Some(match (opcode, loads, second) {
        (0b110, _, false) => "ld1r",
        (0b110, _, true) => "ld2r",
        (0b111, _, false) => "ld3r",
        (0b111, _, true) => "ld4r",
        (0b000 | 0b010 | 0b100, true, false) => "ld1",
        (0b000 | 0b010 | 0b100, true, true) => "ld2",
        (0b000 | 0b010 | 0b100, false, false) => "st1",
        (0b000 | 0b010 | 0b100, false, true) => "st2",
        (_, true, false) => "ld3",
        (_, true, true) => "ld4",
        (_, false, false) => "st3",
        (_, false, true) => "st4",
    })
}

/// Memory tags: bits 23:22 `opc`, 20:12 offset, 11:10 `op2`.
const fn tags(word: u32) -> Option<&'static str> {
    match (field(word, 22, 2), field(word, 10, 2)) {
        (1, 0) => Some("ldg"),
        (_, 0) if field(word, 12, 9) != 0 => None,
        (0, 0) => Some("stzgm"),
        (2, 0) => Some("stgm"),
        (_, 0) => Some("ldgm"),
        (0, _) => Some("stg"),
        (1, _) => Some("stzg"),
        (2, _) => Some("st2g"),
        _ => Some("stz2g"),
    }
}

/// Those of FEAT_LRCPC3: bits 31:30 size, 23 writeback, 22 L, 20:12 an offset that is 0, or 15:12 `opc2`.
const fn weakly_ordered(word: u32) -> Option<&'static str> {
    let loads = field(word, 22, 1) == 1;
    match (field(word, 26, 1), field(word, 30, 2), field(word, 23, 1)) {
        (1, 0, _) | (1, _, 0) => Some(if loads { "ldapur" } else { "stlur" }),
        (0, 2 | 3, 0) if field(word, 12, 4) <= 1 => Some(if loads { "ldiapp" } else { "stilp" }),
        (0, 2 | 3, 1) if field(word, 12, 9) == 0 => Some(if loads { "ldapr" } else { "stlr" }),
        _ => None,
    }
}

/// Bits 31:30 size, 23 A, 22 R, 15 o3, 14:12 `opc`.
const fn atomic(word: u32) -> Option<&'static str> {
    match (field(word, 15, 1), field(word, 12, 3), field(word, 30, 2)) {
        (0, 0, _) => Some("ldadd"),
        (0, 1, _) => Some("ldclr"),
        (0, 2, _) => Some("ldeor"),
        (0, 3, _) => Some("ldset"),
        (0, 4, _) => Some("ldsmax"),
        (0, 5, _) => Some("ldsmin"),
        (0, 6, _) => Some("ldumax"),
        (0, _, _) => Some("ldumin"),
        (_, 0, _) => Some("swp"),
        (_, 1, 3) if field(word, 16, 8) == 0x3f => Some("st64b"),
        (_, 2, 3) if field(word, 21, 3) == 1 => Some("st64bv0"),
        (_, 3, 3) if field(word, 21, 3) == 1 => Some("st64bv"),
        (_, 5, 3) if field(word, 16, 8) == 0x3f => Some("ld64b"),
        (_, 1, 0 | 1) => Some("rcwclr"),
        (_, 2, 0 | 1) => Some("rcwswp"),
        (_, 3, 0 | 1) => Some("rcwset"),
        _ => None,
    }
}

//! What the oracles are known to get wrong: where they differ from the crate, and the processor does what the crate says.

use vm_device::exit::x86::instruction::Operation;
use vm_device::exit::x86::{Mode, Segment};

use super::cases::Case;
use super::oracles::Meaning;

/// A decoder beside that of the crate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Oracle {
    Iced,
    Yaxpeax,
}

/// A fault of an oracle.
struct Fault {
    oracle: Oracle,
    /// What it gets wrong, and what the processor does.
    reason: &'static str,
    applies: fn(&Seen) -> bool,
}

/// What a fault is known by.
struct Seen<'a> {
    mode: Mode,
    prefixes: Prefixes<'a>,
    own: Option<Meaning>,
    says: Option<Meaning>,
}

/// The prefixes of an instruction, and what follows them.
struct Prefixes<'a> {
    bytes: &'a [u8],
    opcode: &'a [u8],
}

impl<'a> Prefixes<'a> {
    fn new(bytes: &'a [u8], mode: Mode) -> Self {
        let is_prefix = |byte: &u8| {
            matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3) || is_rex(*byte, mode)
        };
        let length = bytes.iter().position(|byte| !is_prefix(byte)).unwrap_or(bytes.len());
        let (bytes, opcode) = bytes.split_at(length);
        Self { bytes, opcode }
    }

    fn has(&self, prefix: u8) -> bool {
        self.bytes.contains(&prefix)
    }
}

fn is_rex(byte: u8, mode: Mode) -> bool {
    mode == Mode::Bits64 && byte & 0xf0 == 0x40
}

impl Seen<'_> {
    /// Both say the same but for how long the operand in memory is, or where, if its address is cut too.
    fn only_bytes_differ(&self) -> bool {
        self.own.zip(self.says).is_some_and(|(own, says)| {
            Meaning { bytes: own.bytes, operand: self.cut(says.operand), ..says }
                == Meaning { operand: self.cut(own.operand), ..own }
        })
    }

    /// The operand with 16 bits of its offset, where there may be a difference above them.
    fn cut(&self, (segment, offset): (Segment, u64)) -> (Segment, u64) {
        let is_cut = self.mode == Mode::Bits16 && self.prefixes.has(0x67);
        (segment, if is_cut { offset & 0xffff } else { offset })
    }

    fn is_vex(&self) -> bool {
        matches!(self.prefixes.opcode, [0xc4 | 0xc5, ..])
    }
}

const FAULTS: &[Fault] = &[
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "refuses 82, an alias of 80 outside 64-bit mode",
        applies: |seen| matches!(seen.prefixes.opcode, [0x82, ..]) && seen.says.is_none(),
    },
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "takes BT, BTS, BTR, BTC with an immediate for 8 bytes, or for 2 with 66 and REX.W; they have the operand size",
        applies: |seen| matches!(seen.prefixes.opcode, [0x0f, 0xba, ..]) && seen.only_bytes_differ(),
    },
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "refuses a REX prefix before another prefix, or combines the bits of two; the processor ignores the first",
        applies: |seen| {
            let rex = seen.prefixes.bytes.iter().position(|byte| is_rex(*byte, seen.mode));
            rex.is_some_and(|rex| rex + 1 < seen.prefixes.bytes.len())
        },
    },
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "does not tell the prefix 3E from none; with BP or SP as the base it changes the segment from SS to DS",
        applies: |seen| {
            seen.mode != Mode::Bits64
                && seen.prefixes.has(0x3e)
                && seen.own.zip(seen.says).is_some_and(|(own, says)| {
                    own.operand.0 == Segment::Ds && says.operand.0 == Segment::Ss && own.length == says.length
                })
        },
    },
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "accepts 66, F2, F3 and LOCK before VEX; the processor does not",
        applies: |seen| {
            seen.is_vex() && seen.own.is_none() && [0x66, 0xf2, 0xf3, 0xf0].iter().any(|byte| seen.prefixes.has(*byte))
        },
    },
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "takes VMOVQ from memory for 16 bytes; it reads 8",
        applies: |seen| seen.is_vex() && seen.only_bytes_differ() && seen.own.is_some_and(|own| own.bytes == 8),
    },
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "takes MOVD from memory for 8 bytes; it reads 4",
        applies: |seen| {
            matches!(seen.prefixes.opcode, [0x0f, 0x6e, ..])
                && seen.only_bytes_differ()
                && seen.own.is_some_and(|own| own.bytes == 4)
        },
    },
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "takes MOVSXD with an operand of 2 bytes for 4",
        applies: |seen| {
            matches!(seen.prefixes.opcode, [0x63, ..])
                && seen.only_bytes_differ()
                && seen.own.is_some_and(|own| own.bytes == 2 && own.operation == Operation::Move)
        },
    },
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "cuts base and index of 32-bit addresses to 16 bits in 16-bit code",
        applies: |seen| {
            seen.own.zip(seen.says).is_some_and(|(own, says)| {
                own.operand != says.operand
                    && Meaning { operand: seen.cut(own.operand), ..own }
                        == Meaning { operand: seen.cut(says.operand), ..says }
            })
        },
    },
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "does not sign-extend an address of 32 bits without a register in 64-bit code",
        applies: |seen| {
            seen.mode == Mode::Bits64
                && seen.own.zip(seen.says).is_some_and(|(own, says)| {
                    let operand = (own.operand.0, own.operand.1 & 0xffff_ffff);
                    own.operand.1 >> 31 == 0x1_ffff_ffff && Meaning { operand, ..own } == says
                })
        },
    },
    Fault {
        oracle: Oracle::Yaxpeax,
        reason: "takes PUSH and POP with 66 and REX.W for 2 bytes; they move 8",
        applies: |seen| {
            matches!(seen.prefixes.opcode, [0xff | 0x8f, ..])
                && seen.prefixes.has(0x66)
                && seen.own.zip(seen.says).is_some_and(|(own, says)| own.bytes == 8 && says.bytes == 2)
        },
    },
];

/// Why the oracle differs, if that is known.
pub(super) fn name(oracle: Oracle, case: &Case, own: Option<Meaning>, says: Option<Meaning>) -> Option<&'static str> {
    let seen = Seen { mode: case.mode, prefixes: Prefixes::new(&case.bytes, case.mode), own, says };
    FAULTS.iter().find(|fault| fault.oracle == oracle && (fault.applies)(&seen)).map(|fault| fault.reason)
}

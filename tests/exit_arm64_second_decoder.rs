//! `exit::arm64::instruction::decode` agrees with yaxpeax-arm about every load and store.

use std::collections::BTreeSet;

use vm_device::exit::arm64::Mode;
use vm_device::exit::arm64::instruction::{Addressing, DecodeError, Extend, Form, Instruction, Target, decode};
use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Opcode, Operand, SIMDSizeCode, ShiftStyle, SizeCode};

/// EL1 with its own stack pointer, little-endian.
fn mode() -> Mode {
    Mode::new(5, 0)
}

/// What both decoders say of a load or a store: the mnemonic, the registers by their names, the address.
#[derive(PartialEq, Debug)]
struct Summary {
    mnemonic: String,
    registers: Vec<String>,
    addressing: Addressing,
}

impl From<Instruction> for Summary {
    fn from(instruction: Instruction) -> Self {
        let letter = match (instruction.form(), instruction.target(), instruction.size()) {
            (Form::Prefetch, ..) => "prefetch ",
            (_, Target::General { wide: true, .. }, _) => "x",
            (_, Target::General { wide: false, .. }, _) => "w",
            (_, Target::Vector, 1) => "b",
            (_, Target::Vector, 2) => "h",
            (_, Target::Vector, 4) => "s",
            (_, Target::Vector, 8) => "d",
            (_, Target::Vector, size) => {
                assert_eq!(size, 16);
                "q"
            }
        };
        let registers = std::iter::once(instruction.register()).chain(instruction.second_register());
        Self {
            mnemonic: instruction.mnemonic().to_owned(),
            registers: registers.map(|register| format!("{letter}{register}")).collect(),
            addressing: instruction.addressing(),
        }
    }
}

fn second(word: u32) -> Option<yaxpeax_arm::armv8::a64::Instruction> {
    let instruction = InstDecoder::default().decode(&mut U8Reader::new(&word.to_le_bytes())).ok()?;
    (instruction.opcode != Opcode::Invalid).then_some(instruction)
}

fn summary(instruction: &yaxpeax_arm::armv8::a64::Instruction) -> Option<Summary> {
    let mnemonic = match instruction.opcode.to_string().as_str() {
        "prfum" => "prfm".to_owned(),
        mnemonic => mnemonic.to_owned(),
    };
    let mut registers = Vec::new();
    let mut addressing = None;
    for operand in &instruction.operands {
        match *operand {
            Operand::Nothing => {}
            Operand::Register(SizeCode::X, number) => registers.push(format!("x{number}")),
            Operand::Register(SizeCode::W, number) => registers.push(format!("w{number}")),
            Operand::SIMDRegister(size, number) => {
                let letter = match size {
                    SIMDSizeCode::B => 'b',
                    SIMDSizeCode::H => 'h',
                    SIMDSizeCode::S => 's',
                    SIMDSizeCode::D => 'd',
                    SIMDSizeCode::Q => 'q',
                };
                registers.push(format!("{letter}{number}"));
            }
            Operand::PrefetchOp(number) => registers.push(format!("prefetch {number}")),
            Operand::RegPreIndex(base, offset, writeback) => {
                let (base, offset) = (base as u8, i64::from(offset));
                addressing = Some(if writeback {
                    Addressing::PreIndex { base, offset }
                } else {
                    Addressing::Offset { base, offset }
                });
            }
            Operand::RegPostIndex(base, offset) => {
                addressing = Some(Addressing::PostIndex { base: base as u8, offset: i64::from(offset) });
            }
            Operand::RegRegOffset(base, index, _, style, shift) => {
                let extend = match style {
                    ShiftStyle::UXTW => Extend::Uxtw,
                    ShiftStyle::LSL | ShiftStyle::UXTX => Extend::Uxtx,
                    ShiftStyle::SXTW => Extend::Sxtw,
                    ShiftStyle::SXTX => Extend::Sxtx,
                    _ => return None,
                };
                addressing = Some(Addressing::Index { base: base as u8, index: index as u8, extend, shift });
            }
            Operand::PCOffset(offset) => addressing = Some(Addressing::Literal { offset }),
            _ => return None,
        }
    }
    Some(Summary { mnemonic, registers, addressing: addressing? })
}

/// A generator of numbers (xorshift), the same ones in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }
}

/// Every load and store by the bits that say which one it is: 31 to 21 and 15 to 10, with registers and immediates at random
/// and at their ends.
fn loads_and_stores(mut check: impl FnMut(u32)) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for high in 0..1 << 11_u32 {
        // Bits 27 and 25 of the group.
        if high >> 6 & 1 == 0 || high >> 4 & 1 != 0 {
            continue;
        }
        for low in 0..1 << 6_u32 {
            let fixed = high << 21 | low << 10;
            for variable in [0, 0x0001_0000, 0x001f_03ff] {
                check(fixed | variable);
            }
            for _ in 0..6 {
                check(fixed | numbers.next() & 0x001f_03ff);
            }
        }
    }
}

/// What yaxpeax-arm 0.5 does not know, or refuses: younger than it, or left out of it.
const UNKNOWN_TO_THE_SECOND: &[(&str, &str)] = &[
    ("stgp", "FEAT_MTE: it has LDG and STG, and calls this one invalid"),
    ("ldapr", "FEAT_LRCPC3, with writeback"),
    ("stlr", "FEAT_LRCPC3, with writeback"),
    ("ldapur", "FEAT_LRCPC3, of vector registers"),
    ("stlur", "FEAT_LRCPC3, of vector registers"),
    ("ldiapp", "FEAT_LRCPC3"),
    ("stilp", "FEAT_LRCPC3"),
    ("ldap1", "FEAT_LRCPC3"),
    ("stl1", "FEAT_LRCPC3"),
    ("cpy", "FEAT_MOPS"),
    ("cpyf", "FEAT_MOPS"),
    ("set", "FEAT_MOPS"),
    ("setg", "FEAT_MOPS"),
    ("ld64b", "FEAT_LS64"),
    ("st64b", "FEAT_LS64"),
    ("st64bv", "FEAT_LS64_V"),
    ("st64bv0", "FEAT_LS64_ACCDATA"),
    ("ldclrp", "FEAT_LSE128"),
    ("ldsetp", "FEAT_LSE128"),
    ("swpp", "FEAT_LSE128"),
    ("rcwclr", "FEAT_THE"),
    ("rcwset", "FEAT_THE"),
    ("rcwswp", "FEAT_THE"),
    ("a read-check-write atomic", "FEAT_THE"),
    ("an atomic of floating point", "FEAT_LSFE"),
    ("an unprivileged exclusive or compare-and-swap", "FEAT_LSUI"),
    ("an unprivileged atomic", "FEAT_LSUI"),
    ("ldtp", "FEAT_LSUI"),
    ("sttp", "FEAT_LSUI"),
    ("gcsstr", "FEAT_GCS"),
];

const STRUCTURES: &[&str] = &["ld1", "ld2", "ld3", "ld4", "ld1r", "ld2r", "ld3r", "ld4r", "st1", "st2", "st3", "st4"];

/// Faults of yaxpeax-arm 0.5: encodings that the manual does not allocate, by the bits that show it, and what it makes of them.
const FAULTS_OF_THE_SECOND: &[(u32, u32, &[&str], &str)] = &[
    // Arm ARM DDI 0487, C4.1, "Advanced SIMD load/store multiple structures": bit 21 is 0.
    (0xbf20_0000, 0x0c20_0000, STRUCTURES, "bit 21 of structures"),
    // The same: bit 31 of all structures is 0.
    (0xbe00_0000, 0x8c00_0000, STRUCTURES, "bit 31 of structures"),
    // LDR and STR (register, SIMD&FP): option<1> = 0 is UNDEFINED.
    (0x3f20_4c00, 0x3c20_0800, &["ldr", "str"], "option of a vector register"),
];

#[test]
fn both_decoders_agree_about_every_load_and_store() {
    let mut agreed = BTreeSet::new();
    let mut named = BTreeSet::new();
    let mut faults = BTreeSet::new();
    loads_and_stores(|word| {
        let theirs = second(word);
        match (decode(word, mode()), theirs) {
            (Ok(instruction), Some(other)) => {
                assert_eq!(Some(Summary::from(instruction)), summary(&other), "{word:#010x}");
                agreed.insert(instruction.mnemonic());
            }
            (Err(error @ DecodeError::Unsupported(_)), Some(other)) => {
                let name = error.mnemonic().expect("it has a name");
                assert!(other.opcode.to_string().starts_with(name), "{word:#010x}: {name}, {}", other.opcode);
                named.insert(name);
            }
            (Err(error @ DecodeError::Unsupported(_)), None) => {
                let name = error.mnemonic().expect("it has a name");
                let known = UNKNOWN_TO_THE_SECOND.iter().find(|(unknown, _)| *unknown == name);
                named
                    .insert(known.unwrap_or_else(|| panic!("{word:#010x}: the second decoder does not know {name}")).0);
            }
            (Err(DecodeError::Unallocated(_)), Some(other)) => {
                let opcode = other.opcode.to_string();
                let fault = FAULTS_OF_THE_SECOND
                    .iter()
                    .find(|(mask, bits, opcodes, _)| word & mask == *bits && opcodes.contains(&opcode.as_str()));
                faults.insert(fault.unwrap_or_else(|| panic!("{word:#010x}: theirs is {opcode}")).3);
            }
            (Err(DecodeError::Unallocated(_)), None) => {}
            (ours, theirs) => panic!("{word:#010x}: {ours:?}, {theirs:?}"),
        }
    });
    assert_eq!(agreed.len(), MNEMONICS, "{agreed:?}");
    for (unknown, why) in UNKNOWN_TO_THE_SECOND {
        assert!(named.contains(unknown), "{unknown} did not come, {why}");
    }
    assert_eq!(faults.len(), FAULTS_OF_THE_SECOND.len(), "{faults:?}");
    for name in ["ldxr", "stlxp", "cas", "casp", "ldadd", "swp", "ld1", "st4", "ld3r", "ldg", "st2g", "ldraa", "ldrab"]
    {
        assert!(named.contains(name), "{name} did not come");
    }
}

/// LDR to LDRSW (9) in four forms, LDAR and STLR (6) in two, LDAPR (3), pairs (5), and PRFM.
const MNEMONICS: usize = 4 * 9 + 2 * 6 + 3 + 5 + 1;

#[test]
fn outside_of_loads_and_stores_nothing_touches_memory_by_a_register_alone() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for _ in 0..200_000 {
        let word = numbers.next();
        if word >> 25 & 0b0101 == 0b0100 {
            continue;
        }
        match decode(word, mode()) {
            Err(DecodeError::NoMemoryOperand(_)) => {
                if let Some(other) = second(word) {
                    let opcode = other.opcode.to_string();
                    assert!(!opcode.starts_with("ld") && !opcode.starts_with("st"), "{word:#010x}: {opcode}");
                }
            }
            Err(error @ DecodeError::Unsupported(_)) => {
                let name = error.mnemonic().expect("it has a name");
                assert!(name.starts_with("an instruction of S"), "{word:#010x}: {name}");
            }
            Err(DecodeError::Unallocated(_)) => {
                assert!(second(word).is_none_or(|other| other.opcode.to_string() == "udf"))
            }
            other => panic!("{word:#010x}: {other:?}"),
        }
    }
}

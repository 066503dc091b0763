//! Instructions that are not executed have the names that the manuals and iced-x86 give them.

use std::collections::BTreeSet;

use iced_x86::{CpuidFeature, Decoder, DecoderOptions, EncodingKind, Instruction, OpKind};
use vm_device::exit::x86::Mode;
use vm_device::exit::x86::instruction::decode;

const MODES: [(Mode, u32); 3] = [(Mode::Bits16, 16), (Mode::Bits32, 32), (Mode::Bits64, 64)];
const EVEX: &str = "an EVEX instruction (AVX-512)";

/// The name of an instruction that is not executed; `None` also for one that is.
fn name(bytes: &[u8], mode: Mode) -> Option<&'static str> {
    decode(bytes, mode).err()?.mnemonic()
}

/// What iced-x86 makes of the bytes, if it is an instruction.
fn other(bytes: &[u8], bits: u32) -> Option<Instruction> {
    Some(Decoder::new(bits, bytes, DecoderOptions::NONE).decode()).filter(|instruction| !instruction.is_invalid())
}

fn has_memory_operand(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|index| {
        matches!(
            instruction.op_kind(index),
            OpKind::Memory
                | OpKind::MemorySegSI
                | OpKind::MemorySegESI
                | OpKind::MemorySegRSI
                | OpKind::MemorySegDI
                | OpKind::MemorySegEDI
                | OpKind::MemorySegRDI
                | OpKind::MemoryESDI
                | OpKind::MemoryESEDI
                | OpKind::MemoryESRDI
        )
    })
}

/// The name in the words of this crate. All differences are here.
fn expected(instruction: &Instruction) -> String {
    let name = format!("{:?}", instruction.mnemonic()).to_lowercase();
    let code = instruction.code();
    let is = |feature| code.cpuid_features().contains(&feature);
    match code.encoding() {
        EncodingKind::D3NOW => return "a 3DNow! instruction".into(),
        EncodingKind::XOP => return "an XOP instruction".into(),
        EncodingKind::VEX if is(CpuidFeature::FMA4) => return "an FMA4 instruction".into(),
        // The moves that SSE does not have either are not named.
        EncodingKind::EVEX if !name.starts_with("vmov") || is(CpuidFeature::AVX512_FP16) => return EVEX.into(),
        _ => {}
    }
    match name.as_str() {
        // The manuals have one page for all conditions: SETcc, CMOVcc, CMPccXADD.
        conditional if conditional.starts_with("set") => "setcc".into(),
        conditional if conditional.starts_with("cmov") => "cmovcc".into(),
        conditional if conditional.starts_with("cmp") && conditional.ends_with("xadd") => "cmpccxadd".into(),
        // REX.W and VEX.W change the operand size of these, but not the name that the manual has for them.
        wide @ ("pcmpestri64" | "pcmpestrm64" | "vpcmpestri64" | "vpcmpestrm64") => wide.replace("64", ""),
        // Hints of extensions to come.
        "reservednop" => "nop".into(),
        _ => name,
    }
}

/// ModRM bytes: memory operands (with a SIB byte where there can be one), and registers.
fn modrm_bytes() -> impl Iterator<Item = u8> {
    (0..8).flat_map(|reg| [reg << 3 | 4, 0xc0 | reg << 3])
}

/// Every opcode of the maps before VEX, with every mandatory prefix.
fn legacy(mut check: impl FnMut(&[u8], Mode, u32)) {
    const REX_W: u8 = 0x48;
    let prefixes: [&[u8]; 6] = [&[], &[0x66], &[0xf3], &[0xf2], &[REX_W], &[0x66, REX_W]];
    for (mode, bits) in MODES {
        for prefix in prefixes.into_iter().filter(|prefix| bits == 64 || !prefix.contains(&REX_W)) {
            for escape in [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]] {
                for opcode in 0..=u8::MAX {
                    for modrm in modrm_bytes() {
                        check(&[prefix, escape, &[opcode, modrm, 0x50], &[0; 8]].concat(), mode, bits);
                    }
                }
            }
        }
    }
}

/// Every opcode of the maps of VEX, XOP and EVEX; of the other fields, the first combination that makes an instruction.
/// ModRM.reg is a part of the opcode only in the groups.
fn vector(mut check: impl FnMut(&[u8], Mode, u32)) {
    for (mode, bits) in MODES {
        for opcode in 0..=u8::MAX {
            let is_group = matches!(opcode, 0x01 | 0x02 | 0x12 | 0x49 | 0x71..=0x73 | 0xae | 0xf3);
            for modrm in modrm_bytes().filter(|modrm| is_group || modrm >> 3 & 7 == 1) {
                for low in 0..8 {
                    let (wide, prefix) = (low << 5 & 0x80, low & 3);
                    let rest = [&[opcode, modrm, 0x50][..], &[0; 8]].concat();
                    let mut first_valid = |starts: &mut dyn Iterator<Item = Vec<u8>>| {
                        let valid =
                            starts.map(|start| [&start, &rest[..]].concat()).find(|bytes| other(bytes, bits).is_some());
                        valid.into_iter().for_each(|bytes| check(&bytes, mode, bits));
                    };
                    // VEX.vvvv names no register, or one that no other operand is; outside 64-bit mode its first bit is 1.
                    let fields = || [0x78, 0x40].into_iter().flat_map(|vvvv| [vvvv, vvvv | 4]);
                    for map in 1..4 {
                        first_valid(&mut fields().map(|field| vec![0xc4, 0xe0 | map, wide | field | prefix]));
                    }
                    if wide == 0 {
                        first_valid(&mut fields().map(|field| vec![0xc5, 0x80 | field | prefix]));
                    }
                    if prefix == 0 {
                        for map in 8..11 {
                            first_valid(&mut fields().map(|field| vec![0x8f, 0xe0 | map, wide | field]));
                        }
                    }
                    let lengths = || (0..3).flat_map(|length| [length << 5 | 8, length << 5 | 9]);
                    for map in [1, 2, 3, 5, 6] {
                        first_valid(&mut [0x7c, 0x44].into_iter().flat_map(|field| {
                            lengths().map(move |last| vec![0x62, 0xf0 | map, wide | field | prefix, last])
                        }));
                    }
                }
            }
        }
    }
}

/// Whether the name of an instruction without a memory operand is right. It does not tell the operand size, the address size
/// or a far return.
fn is_right(name: &str, instruction: &Instruction) -> bool {
    const WITHOUT_SIZE: [&str; 9] = ["pusha", "popa", "pushf", "popf", "iret", "ret", "sysret", "sysexit", "getsec"];
    let expected = expected(instruction);
    match name {
        "jcc" => instruction.is_jcc_short_or_near(),
        // A move between registers alone, VMOVHLPS.
        EVEX => instruction.code().encoding() == EncodingKind::EVEX,
        "jcxz" => expected.ends_with("cxz"),
        _ => expected == name || WITHOUT_SIZE.contains(&name) && expected.starts_with(name),
    }
}

/// Compares the names of what is not executed, and returns how many there are.
fn compare(cases: impl FnOnce(&mut dyn FnMut(&[u8], Mode, u32))) -> usize {
    let mut names = BTreeSet::new();
    cases(&mut |bytes, mode, bits| {
        let (Some(instruction), Err(error)) = (other(bytes, bits), decode(bytes, mode)) else { return };
        let name = error.mnemonic();
        names.extend(name);
        if has_memory_operand(&instruction) {
            assert_eq!(name, Some(expected(&instruction).as_str()), "{bytes:02x?} in {mode:?}");
        } else if let Some(name) = name {
            assert!(
                is_right(name, &instruction),
                "{bytes:02x?} in {mode:?}: {name}, expected {}",
                expected(&instruction)
            );
        }
    });
    names.len()
}

#[test]
fn every_instruction_without_vex_is_named_as_by_the_second_decoder() {
    let names = compare(|check| legacy(check));
    assert!(names > 350, "{names}");
}

#[test]
fn every_vector_instruction_is_named_as_by_the_second_decoder() {
    let names = compare(|check| vector(check));
    assert!(names > 300, "{names}");
}

#[test]
fn names_are_those_of_the_manuals() {
    let cases: [(&[u8], Mode, Option<&str>); 31] = [
        (&[0xd9, 0x00], Mode::Bits64, Some("fld")),
        (&[0x0f, 0x58, 0x00], Mode::Bits64, Some("addps")),
        (&[0x66, 0x0f, 0x58, 0x00], Mode::Bits64, Some("addpd")),
        (&[0xf3, 0x66, 0x0f, 0x58, 0x00], Mode::Bits64, Some("addss")),
        (&[0xf3, 0xf2, 0x0f, 0x58, 0x00], Mode::Bits64, Some("addsd")),
        (&[0xc5, 0xf8, 0x58, 0x00], Mode::Bits64, Some("vaddps")),
        (&[0xc4, 0xe2, 0x71, 0x98, 0x00], Mode::Bits64, Some("vfmadd132ps")),
        (&[0xc4, 0xe2, 0xf1, 0x98, 0x00], Mode::Bits32, Some("vfmadd132pd")),
        (&[0xc4, 0xe2, 0x79, 0x18, 0x00], Mode::Bits64, Some("vbroadcastss")),
        (&[0xc4, 0xe2, 0x71, 0x92, 0x04, 0x10], Mode::Bits64, Some("vgatherdps")),
        (&[0xc4, 0xe2, 0x70, 0xf2, 0x00], Mode::Bits64, Some("andn")),
        (&[0x62, 0xf1, 0xfe, 0x48, 0x6f, 0x00], Mode::Bits64, Some("vmovdqu64")),
        (&[0x62, 0xf1, 0x7c, 0x48, 0x58, 0x00], Mode::Bits64, Some(EVEX)),
        (&[0x8f, 0xe9, 0x78, 0x80, 0x00], Mode::Bits64, Some("an XOP instruction")),
        (&[0xc4, 0xe3, 0x71, 0x68, 0x00, 0x10], Mode::Bits64, Some("an FMA4 instruction")),
        (&[0x0f, 0x0f, 0x00, 0x9e], Mode::Bits64, Some("a 3DNow! instruction")),
        (&[0xc5, 0x00], Mode::Bits32, Some("lds")),
        (&[0xc4, 0x00], Mode::Bits16, Some("les")),
        (&[0x62, 0x00], Mode::Bits32, Some("bound")),
        (&[0x63, 0x00], Mode::Bits32, Some("arpl")),
        (&[0x0f, 0x94, 0x00], Mode::Bits64, Some("setcc")),
        (&[0x0f, 0x01, 0x38], Mode::Bits64, Some("invlpg")),
        // VMCALL: ModRM is a part of the opcode.
        (&[0x0f, 0x01, 0xc1], Mode::Bits64, None),
        (&[0x48, 0x0f, 0xae, 0x00], Mode::Bits64, Some("fxsave64")),
        // A prefix behind REX takes its effect away.
        (&[0x48, 0x66, 0x0f, 0xae, 0x00], Mode::Bits64, Some("fxsave")),
        (&[0x6d], Mode::Bits16, Some("insw")),
        (&[0x66, 0x6d], Mode::Bits16, Some("insd")),
        (&[0x0f, 0x78, 0x00], Mode::Bits64, Some("vmread")),
        // VERR and VMREAD begin with a `v`, but not because of VEX.
        (&[0xc5, 0xf8, 0x78, 0x00], Mode::Bits64, None),
        (&[0x27], Mode::Bits32, Some("daa")),
        (&[0x27], Mode::Bits64, None),
    ];
    for (bytes, mode, expected) in cases {
        assert_eq!(name(bytes, mode), expected, "{bytes:02x?}");
    }
}

#[test]
fn bytes_that_end_early_have_a_name_as_soon_as_it_is_known() {
    assert_eq!(name(&[], Mode::Bits64), None);
    assert_eq!(name(&[0x66], Mode::Bits64), None);
    assert_eq!(name(&[0x0f], Mode::Bits64), None);
    assert_eq!(name(&[0x0f, 0x38], Mode::Bits64), None);
    // One of eight.
    assert_eq!(name(&[0x81], Mode::Bits64), None);
    assert_eq!(name(&[0x81, 0x38], Mode::Bits64), Some("cmp"));
    assert_eq!(name(&[0x89], Mode::Bits64), Some("mov"));
    for byte in [0xc4, 0xc5, 0x62] {
        assert_eq!(name(&[byte], Mode::Bits64), None);
        assert_eq!(name(&[byte], Mode::Bits32), None);
    }
}

#[test]
fn an_error_says_which_instruction_it_is() {
    let text = |bytes: &[u8]| decode(bytes, Mode::Bits64).unwrap_err().to_string();
    assert_eq!(text(&[0x0f, 0x58, 0x00]), "addps is not executed here: 0f 58 00");
    assert_eq!(text(&[0x0f, 0xff, 0x00]), "ud0 is not executed here: 0f ff 00");
    assert_eq!(text(&[0x0f, 0x04]), "an instruction without a name is not executed here: 0f 04");
}

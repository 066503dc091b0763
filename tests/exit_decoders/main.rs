//! `exit::x86::instruction::decode` agrees with two other decoders about every instruction, in every mode.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderError, DecoderOptions, InstructionInfoFactory, Mnemonic, OpKind};
use vm_device::exit::x86::Mode;
use vm_device::exit::x86::instruction::{DecodeError, decode};

use expected::Expected;
use yaxpeax::Partial;

mod expected;
mod iced;
mod words;
mod yaxpeax;

const MODES: [(Mode, u32); 3] = [(Mode::Bits16, 16), (Mode::Bits32, 32), (Mode::Bits64, 64)];

/// Where the processor decides against iced 1.22, as tried on an Intel processor (Intel SDM vol. 2B has no such form):
/// MOVNTI has no form with the prefixes 66, F2 and F3.
fn is_mistaken(instruction: &iced_x86::Instruction, bytes: &[u8]) -> bool {
    let prefixes = &bytes[..instruction.len()];
    instruction.mnemonic() == Mnemonic::Movnti && prefixes.iter().take(4).any(|byte| [0x66, 0xf2, 0xf3].contains(byte))
}

/// Compares both decoders on `bytes`. True if they agree on an instruction, false if they agree that there is none.
fn compare(bytes: &[u8], mode: Mode, bitness: u32, info: &mut InstructionInfoFactory) -> bool {
    let mut decoder = Decoder::new(bitness, bytes, DecoderOptions::NONE);
    let second = decoder.decode();
    let second_says = if second.is_invalid() { None } else { iced::expected(&second, bitness, info) };
    match (decode(bytes, mode), second_says) {
        (Ok(first), Some(second)) => {
            assert_eq!(Expected::from(first), second, "{mode:?} {bytes:02x?}");
            true
        }
        (Err(DecodeError::Malformed(_)), Some(_)) if is_mistaken(&second, bytes) => false,
        (Err(error), None) => {
            let is_branch = matches!(second.mnemonic(), Mnemonic::Call | Mnemonic::Jmp);
            let has_memory = second.op_kind(0) == OpKind::Memory;
            let agrees = match error {
                DecodeError::Truncated(_) => decoder.last_error() == DecoderError::NoMoreBytes,
                DecodeError::Malformed(_) => second.is_invalid(),
                DecodeError::Branch(_) => is_branch && has_memory || decoder.last_error() == DecoderError::NoMoreBytes,
                DecodeError::NoMemoryOperand(_) => second.is_invalid() || words::operation(&second).is_some(),
                _ => !(is_branch && has_memory),
            };
            assert!(agrees, "{mode:?} {bytes:02x?}: {error}, iced: {:?}", second.code());
            false
        }
        (first, second_says) => panic!("{mode:?} {bytes:02x?}: {first:?}, iced: {second_says:?}"),
    }
}

/// Where iced, the processor and the manual decide against yaxpeax-x86 2.2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fault {
    /// It refuses some pairs of REX prefixes, and combines the bits of others. A processor ignores the first (Intel SDM vol. 2A, 2.2.1).
    RexPair,
    /// It refuses the opcode 82, an alias of 80 outside 64-bit mode.
    Alias82,
    /// With 66 and REX.W it takes BT and its kin with an immediate, and PUSH, for 2 bytes. REX.W counts (vol. 2A, 2.2.1.2).
    OperandSizeAndRexW,
    /// It takes MOVSXD with 66 for a read of 4 bytes. Its operand has 2 (vol. 2B, MOVSXD).
    WordOfMovsxd,
    /// It takes any REX prefix, even an ignored one, for that of MOVQ, which is REX.W (vol. 2B, MOVD).
    QwordOfMovd,
    /// It does not sign-extend a displacement without base and index (vol. 2A, 2.2.1.3).
    UnsignedDisplacement,
    /// It takes VEX after F2 or F3 (vol. 2A, 2.3.2).
    RepeatBeforeVex,
    /// It takes the load VMOVQ (VEX.F3.0F 7E) for 16 bytes. Its operand has 8 (vol. 2B, MOVQ).
    BytesOfVmovq,
}

impl Fault {
    /// The fault that explains the difference, if there is one.
    fn of(bytes: &[u8], first: Option<&Partial>, third: Option<&Partial>) -> Option<Self> {
        const LEGACY: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];
        let is_rex = |byte: &&u8| **byte & 0xf0 == 0x40;
        let prefixes = bytes.iter().take_while(|byte| is_rex(byte) || LEGACY.contains(byte));
        let opcode = &bytes[prefixes.clone().count()..];
        if prefixes.clone().filter(is_rex).count() > 1 {
            return Some(Fault::RexPair);
        }
        let (first, third) = match (first, third) {
            (Some(first), Some(third)) => (first, third),
            (None, Some(_)) => {
                let has_repeat = prefixes.clone().any(|byte| [0xf2, 0xf3].contains(byte));
                return (has_repeat && matches!(opcode, [0xc4 | 0xc5, ..])).then_some(Fault::RepeatBeforeVex);
            }
            _ => return (opcode[0] == 0x82).then_some(Fault::Alias82),
        };
        let bytes_differ = first.bytes != third.bytes && *first == Partial { bytes: first.bytes, ..*third };
        match opcode {
            [0x0f, 0xba, ..] | [0xff, ..] if bytes_differ => Some(Fault::OperandSizeAndRexW),
            [0x63, ..] if bytes_differ => Some(Fault::WordOfMovsxd),
            [0x0f, 0x6e | 0x7e, ..] if bytes_differ => Some(Fault::QwordOfMovd),
            [0xc5, _, 0x7e, ..] | [0xc4, _, _, 0x7e, ..] if bytes_differ => Some(Fault::BytesOfVmovq),
            _ if third.base.is_none() && first.displacement as u32 as u64 == third.displacement => {
                Some(Fault::UnsignedDisplacement)
            }
            _ => None,
        }
    }
}

/// Compares with yaxpeax-x86: what it refuses is known to be no instruction, or a fault of its own.
fn compare_with_yaxpeax(bytes: &[u8], mode: Mode, faults: &mut BTreeSet<Fault>) {
    let first = decode(bytes, mode).ok().map(Partial::from);
    let third = yaxpeax::expected(bytes, mode);
    if first != third {
        let fault = Fault::of(bytes, first.as_ref(), third.as_ref());
        faults.insert(fault.unwrap_or_else(|| panic!("{mode:?} {bytes:02x?}: {first:?}, yaxpeax: {third:?}")));
    }
}

/// xorshift64: the same bytes in every run.
fn random(state: &mut u64) -> [u8; 8] {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_le_bytes()
}

/// What may come before an opcode: legacy prefixes, and in 64-bit mode REX behind them.
const PREFIXES: [&[u8]; 13] = [
    &[],
    &[0x66],
    &[0x67],
    &[0xf3],
    &[0xf2],
    &[0xf0],
    &[0x64],
    &[0x2e],
    &[0x66, 0x67],
    &[0x66, 0xf2],
    &[0x65, 0x3e],
    &[0xf2, 0xf3],
    &[0x66, 0xf0, 0xf3],
];
const REX: [&[u8]; 8] = [&[], &[0x40], &[0x48], &[0x45], &[0x4f], &[0x48, 0x2e], &[0x4f, 0x41], &[0x40, 0x48]];

/// Compares what follows each of `escapes` with every opcode and ModRM, after a few of the prefixes each time; over the 256 values of
/// ModRM every combination has its turn. Returns how many instructions both know.
fn agree_on_every_opcode(escapes: &[&[u8]], turns: usize, faults: &mut BTreeSet<Fault>) -> usize {
    let mut info = InstructionInfoFactory::new();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut agreed = 0;
    for (mode, bitness) in MODES {
        for (escape, opcode_and_modrm) in
            escapes.iter().flat_map(|escape| (0..0x1_0000_u32).map(move |at| (escape, at)))
        {
            let [modrm, opcode, ..] = opcode_and_modrm.to_le_bytes();
            for turn in 0..turns {
                let combinations = PREFIXES.len() * REX.len();
                let turn = (turns * usize::from(modrm.wrapping_mul(37)) + turn + usize::from(opcode)) % combinations;
                let rex = if mode == Mode::Bits64 { REX[turn / PREFIXES.len()] } else { &[] };
                let tail = [random(&mut state), random(&mut state)].concat();
                let mut bytes = [PREFIXES[turn % PREFIXES.len()], rex, escape, &[opcode, modrm], &tail].concat();
                bytes.truncate(15);
                agreed += usize::from(compare(&bytes, mode, bitness, &mut info));
                compare_with_yaxpeax(&bytes, mode, faults);
            }
        }
    }
    agreed
}

#[test]
fn the_decoders_agree_on_every_opcode_and_modrm() {
    use Fault::*;
    let mut faults = BTreeSet::new();
    let agreed = agree_on_every_opcode(&[&[], &[0x0f]], 2, &mut faults);
    let all = [RexPair, Alias82, OperandSizeAndRexW, WordOfMovsxd, QwordOfMovd, UnsignedDisplacement];
    assert_eq!(faults, BTreeSet::from(all), "a fault that is no longer there");
    assert!(agreed > 80_000, "instructions both decode: {agreed}");
}

#[test]
fn the_decoders_agree_on_every_opcode_of_the_other_maps() {
    let agreed = agree_on_every_opcode(&[&[0x0f, 0x38], &[0x0f, 0x3a]], 1, &mut BTreeSet::new());
    assert!(agreed > 500, "instructions both decode: {agreed}");
}

/// VEX with each bit inverted, and with each mandatory prefix.
#[test]
fn the_decoders_agree_on_every_opcode_after_vex() {
    let (mut info, mut faults) = (InstructionInfoFactory::new(), BTreeSet::new());
    let mut state = 0xda94_2042_e4dd_58b5;
    let mut agreed = 0;
    for opcode in 0..=0xff_u8 {
        for last in
            (0..8).flat_map(|bit| [0xf8 ^ 1 << bit, 0xfc ^ 1 << bit, 0x78 | bit, 0xf8 | bit, 0x78 | bit, 0xf8 | bit])
        {
            for first in [0xe1_u8, 0xe2, 0x61, 0xa1, 0xc1, 0xe3, 0xe0, 0xe9, 0x00].repeat(4) {
                let [modrm, which, turn, ..] = random(&mut state);
                let vex: &[u8] = if which & 1 == 0 { &[0xc5, last] } else { &[0xc4, first, last] };
                let prefix = if turn & 7 == 0 { PREFIXES[usize::from(turn >> 3) % PREFIXES.len()] } else { &[] };
                let tail = [random(&mut state), random(&mut state)].concat();
                let mut bytes = [prefix, vex, &[opcode, modrm], &tail].concat();
                bytes.truncate(15);
                let (mode, bitness) = MODES[usize::from(which >> 1) % 3];
                agreed += usize::from(compare(&bytes, mode, bitness, &mut info));
                compare_with_yaxpeax(&bytes, mode, &mut faults);
            }
        }
    }
    assert_eq!(
        faults,
        BTreeSet::from([Fault::RepeatBeforeVex, Fault::BytesOfVmovq]),
        "a fault that is no longer there"
    );
    assert!(agreed > 2_000, "instructions both decode: {agreed}");
}

#[test]
fn the_decoders_agree_on_random_bytes_of_every_length() {
    let mut info = InstructionInfoFactory::new();
    let mut state = 0x2545_f491_4f6c_dd1d;
    let mut agreed = 0;
    for round in 0..300_000 {
        let bytes = [random(&mut state), random(&mut state)].concat();
        let (mode, bitness) = MODES[round % 3];
        agreed += usize::from(compare(&bytes[..round % 16], mode, bitness, &mut info));
        compare_with_yaxpeax(&bytes[..round % 16], mode, &mut BTreeSet::new());
    }
    assert!(agreed > 40_000, "instructions both decode: {agreed}");
}

/// Fewer bytes than the instruction has are an instruction that goes on, and more bytes change nothing.
#[test]
fn truncated_instructions_are_reported_as_such() {
    let mut state = 0xda94_2042_e4dd_58b5;
    for round in 0..100_000 {
        let bytes = [random(&mut state), random(&mut state), random(&mut state)].concat();
        let (mode, _) = MODES[round % 3];
        let Ok(instruction) = decode(&bytes, mode) else { continue };
        assert_eq!(decode(&bytes[..instruction.length()], mode), Ok(instruction));
        for length in 0..instruction.length() {
            let error = decode(&bytes[..length], mode).unwrap_err();
            assert!(matches!(error, DecodeError::Truncated(_)), "{mode:?} {:02x?}: {error}", &bytes[..length]);
        }
    }
}

/// An opcode that a field of ModRM is a part of is not decided without it.
#[test]
fn half_an_opcode_is_truncated() {
    for bytes in [
        &[0x0f, 0xc7][..],
        &[0xf0, 0x48, 0x0f, 0xc7],
        &[0x8f],
        &[0xf7],
        &[0xff],
        &[0x0f],
        &[0x0f, 0x38],
        &[0xc5],
        &[0xc4, 0xe2],
    ] {
        for (mode, _) in MODES {
            // Outside 64-bit mode these could be decrements, and LES and LDS.
            if mode == Mode::Bits64 || !bytes.contains(&0x48) && !bytes.starts_with(&[0xc4]) {
                assert!(matches!(decode(bytes, mode), Err(DecodeError::Truncated(_))), "{mode:?} {bytes:02x?}");
            }
        }
    }
}

/// 15 bytes of prefixes are no instruction that goes on: no longer one exists.
#[test]
fn endless_prefixes_are_malformed() {
    for (mode, _) in MODES {
        assert!(matches!(decode(&[0x66; 14], mode), Err(DecodeError::Truncated(_))));
        assert!(matches!(decode(&[0x66; 15], mode), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode(&[0x66; 40], mode), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode(&[], mode), Err(DecodeError::Truncated(_))));
    }
    // add word [rip], imm16 with so many prefixes that the immediate lies beyond the 15th byte.
    let mut long = [0x66; 20];
    long[9..11].copy_from_slice(&[0x81, 0x05]);
    assert!(matches!(decode(&long[..14], Mode::Bits64), Err(DecodeError::Truncated(_))));
    assert!(matches!(decode(&long[..15], Mode::Bits64), Err(DecodeError::Malformed(_))));
    assert!(matches!(decode(&long, Mode::Bits64), Err(DecodeError::Malformed(_))));
}

#[test]
fn errors_show_the_bytes() {
    let error = decode(&[0x0f, 0x0b], Mode::Bits64).unwrap_err();
    assert_eq!(error.to_string(), "ud2 is not executed here: 0f 0b");
    let error = decode(&[0x48, 0x89, 0xd8], Mode::Bits64).unwrap_err();
    assert!(matches!(error, DecodeError::NoMemoryOperand(bytes) if bytes.as_slice() == [0x48, 0x89, 0xd8]));
}

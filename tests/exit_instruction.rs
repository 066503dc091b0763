//! Instructions in the modes that the machine a test runs on cannot execute, and what no processor shows: RIP, RF, the
//! order of accesses.

mod guest;

use guest::{Event, Memory, access};
use proptest::prelude::*;
use vm_device::exit::ExecuteError;
use vm_device::exit::x86::instruction::{DecodeError, Direction, Extension, Operand, Operation, decode};
use vm_device::exit::x86::{
    AddressSize, Gpr, MemoryAccessKind, Mode, Register, Registers, Repeat, Rflags, Segment, Size, StringForm,
};

use Mode::{Bits16, Bits32, Bits64};
use Size::{Byte, Dword, Qword, Word};

const MODES: [Mode; 3] = [Bits16, Bits32, Bits64];

fn low(gpr: Gpr) -> Operand {
    Operand::Register(Register::Low(gpr))
}

fn high(gpr: Gpr) -> Operand {
    Operand::Register(Register::High(gpr))
}

/// Encodings from the opcode tables (Intel SDM vol. 2), written down by hand: bytes, mode, operation, destination, source,
/// size. The whole of the bytes is the instruction.
#[test]
fn encodings_are_read_as_the_manual_has_them() {
    use Operand::{Immediate as Imm, Memory as Mem};
    use Operation::*;
    type Encoding = (&'static [u8], Mode, Operation, Operand, Operand, Size);
    let encodings: &[Encoding] = &[
        // mov [bx+si], al; the same with 66; 67: mov [eax], al
        (&[0x88, 0x00], Bits16, Move, Mem, low(Gpr::Rax), Byte),
        (&[0x89, 0x00], Bits16, Move, Mem, low(Gpr::Rax), Word),
        (&[0x66, 0x89, 0x00], Bits16, Move, Mem, low(Gpr::Rax), Dword),
        (&[0x67, 0x89, 0x00], Bits16, Move, Mem, low(Gpr::Rax), Word),
        // mov dh, [0x1234], of 16 and 32 bits of address
        (&[0x8a, 0x36, 0x34, 0x12], Bits16, Move, high(Gpr::Rdx), Mem, Byte),
        (&[0x8a, 0x35, 0x34, 0x12, 0, 0], Bits32, Move, high(Gpr::Rdx), Mem, Byte),
        // With REX the same number is SIL, and with REX.R R14B.
        (&[0x40, 0x8a, 0x30], Bits64, Move, low(Gpr::Rsi), Mem, Byte),
        (&[0x44, 0x8a, 0x30], Bits64, Move, low(Gpr::R14), Mem, Byte),
        // mov eax, [rip+0]; mov rax, [rip+0]; mov r9w, [rip+0]
        (&[0x8b, 0x05, 0, 0, 0, 0], Bits64, Move, low(Gpr::Rax), Mem, Dword),
        (&[0x48, 0x8b, 0x05, 0, 0, 0, 0], Bits64, Move, low(Gpr::Rax), Mem, Qword),
        (&[0x66, 0x44, 0x8b, 0x0d, 0, 0, 0, 0], Bits64, Move, low(Gpr::R9), Mem, Word),
        // mov al/ax/eax/rax, moffs and back
        (&[0xa0, 0, 1], Bits16, Move, low(Gpr::Rax), Mem, Byte),
        (&[0xa1, 0, 1, 2, 3], Bits32, Move, low(Gpr::Rax), Mem, Dword),
        (&[0x67, 0xa1, 0, 1], Bits32, Move, low(Gpr::Rax), Mem, Dword),
        (&[0xa2, 0, 1, 2, 3, 4, 5, 6, 7], Bits64, Move, Mem, low(Gpr::Rax), Byte),
        (&[0x48, 0xa3, 0, 1, 2, 3, 4, 5, 6, 7], Bits64, Move, Mem, low(Gpr::Rax), Qword),
        (&[0x67, 0x66, 0xa3, 0, 1, 2, 3], Bits64, Move, Mem, low(Gpr::Rax), Word),
        // mov byte/word/dword/qword [..], imm
        (&[0xc6, 0x07, 0xff], Bits16, Move, Mem, Imm(u64::MAX), Byte),
        (&[0xc7, 0x07, 0x34, 0x12], Bits16, Move, Mem, Imm(0x1234), Word),
        (&[0xc7, 0x07, 0x78, 0x56, 0x34, 0x12], Bits32, Move, Mem, Imm(0x1234_5678), Dword),
        (&[0x48, 0xc7, 0x07, 0, 0, 0, 0x80], Bits64, Move, Mem, Imm(0xffff_ffff_8000_0000), Qword),
        (&[0x0f, 0xc3, 0x07], Bits64, Move, Mem, low(Gpr::Rax), Dword),
        // and [..], imm8, sign-extended; or [..], imm32; xor ah, [..]
        (&[0x83, 0x27, 0xfe], Bits32, And, Mem, Imm(0xffff_ffff_ffff_fffe), Dword),
        (&[0x66, 0x83, 0x27, 0xfe], Bits64, And, Mem, Imm(0xffff_ffff_ffff_fffe), Word),
        (&[0x81, 0x0f, 1, 0, 0, 0x80], Bits64, Or, Mem, Imm(0xffff_ffff_8000_0001), Dword),
        (&[0x32, 0x27], Bits32, Xor, high(Gpr::Rax), Mem, Byte),
        (&[0x01, 0x07], Bits32, Add, Mem, low(Gpr::Rax), Dword),
        (&[0x10, 0x07], Bits32, Adc, Mem, low(Gpr::Rax), Byte),
        (&[0x2b, 0x07], Bits16, Sub, low(Gpr::Rax), Mem, Word),
        (&[0x1a, 0x07], Bits16, Sbb, low(Gpr::Rax), Mem, Byte),
        // cmp both ways, test
        (&[0x39, 0x07], Bits64, Cmp, Mem, low(Gpr::Rax), Dword),
        (&[0x3b, 0x07], Bits64, Cmp, low(Gpr::Rax), Mem, Dword),
        (&[0xf6, 0x07, 0x20], Bits64, Test, Mem, Imm(0x20), Byte),
        (&[0x85, 0x07], Bits64, Test, Mem, low(Gpr::Rax), Dword),
        // bt/bts/btr/btc [..], imm8 and register, in each operand size
        (&[0x0f, 0xba, 0x27, 0x1f], Bits64, Bt, Mem, Imm(0x1f), Dword),
        (&[0xf0, 0x48, 0x0f, 0xba, 0x2f, 0x3f], Bits64, Bts, Mem, Imm(0x3f), Qword),
        (&[0x0f, 0xba, 0x37, 0x03], Bits16, Btr, Mem, Imm(3), Word),
        (&[0x0f, 0xbb, 0x07], Bits32, Btc, Mem, low(Gpr::Rax), Dword),
        (&[0x66, 0x0f, 0xab, 0x07], Bits64, Bts, Mem, low(Gpr::Rax), Word),
        // xchg, xadd, cmpxchg
        (&[0x86, 0x27], Bits32, Xchg, Mem, high(Gpr::Rax), Byte),
        (&[0xf0, 0x0f, 0xc1, 0x0f], Bits64, Xadd, Mem, low(Gpr::Rcx), Dword),
        (&[0xf0, 0x48, 0x0f, 0xb1, 0x0f], Bits64, Cmpxchg, Mem, low(Gpr::Rcx), Qword),
        // inc, dec, not, neg
        (&[0xfe, 0x07], Bits64, Inc, Mem, Imm(1), Byte),
        (&[0xff, 0x0f], Bits16, Dec, Mem, Imm(1), Word),
        (&[0xf7, 0x17], Bits32, Not, Mem, Mem, Dword),
        (&[0x48, 0xf7, 0x1f], Bits64, Neg, Mem, Mem, Qword),
    ];
    for (bytes, mode, operation, destination, source, size) in encodings {
        let instruction = decode(bytes, *mode).unwrap();
        let decoded = (instruction.operation(), instruction.destination(), instruction.source(), instruction.size());
        assert_eq!(decoded, (*operation, *destination, *source, *size), "{mode:?} {bytes:02x?}");
        assert_eq!(instruction.length(), bytes.len(), "{mode:?} {bytes:02x?}");
        assert_eq!(instruction.register_size(), (*size, Extension::Zero));
        assert_eq!(instruction.string(), None);
        assert_eq!(instruction.is_locked(), bytes[0] == 0xf0 || *operation == Xchg);
    }
}

/// MOVZX, MOVSX and MOVSXD: bytes, mode, size of the access, size of the register, and RAX after `0x..8081` was read, from
/// all ones before.
#[test]
fn a_move_extends_what_it_reads_to_the_size_of_the_register() {
    use Extension::{Sign, Zero};
    for (bytes, mode, size, register_size, extension, rax) in [
        (&[0x0f, 0xb6, 0x07][..], Bits64, Byte, Dword, Zero, 0x81),
        (&[0x0f, 0xb6, 0x07], Bits16, Byte, Word, Zero, 0xffff_ffff_ffff_0081),
        (&[0x66, 0x0f, 0xb6, 0x07], Bits32, Byte, Word, Zero, 0xffff_ffff_ffff_0081),
        (&[0x0f, 0xb7, 0x07], Bits64, Word, Dword, Zero, 0x8081),
        (&[0x48, 0x0f, 0xb7, 0x07], Bits64, Word, Qword, Zero, 0x8081),
        (&[0x0f, 0xbe, 0x07], Bits64, Byte, Dword, Sign, 0xffff_ff81),
        (&[0x66, 0x0f, 0xbe, 0x07], Bits64, Byte, Word, Sign, 0xffff_ffff_ffff_ff81),
        (&[0x48, 0x0f, 0xbe, 0x07], Bits64, Byte, Qword, Sign, 0xffff_ffff_ffff_ff81),
        (&[0x0f, 0xbf, 0x07], Bits32, Word, Dword, Sign, 0xffff_8081),
        (&[0x48, 0x0f, 0xbf, 0x07], Bits64, Word, Qword, Sign, 0xffff_ffff_ffff_8081),
        (&[0x48, 0x63, 0x07], Bits64, Dword, Qword, Sign, 0xffff_ffff_c000_8081),
        (&[0x63, 0x07], Bits64, Dword, Dword, Sign, 0xc000_8081),
        (&[0x8b, 0x07], Bits64, Dword, Dword, Zero, 0xc000_8081),
        (&[0x66, 0x8b, 0x07], Bits64, Word, Word, Zero, 0xffff_ffff_ffff_8081),
        (&[0x8a, 0x07], Bits64, Byte, Byte, Zero, 0xffff_ffff_ffff_ff81),
        (&[0x8a, 0x27], Bits32, Byte, Byte, Zero, 0xffff_ffff_ffff_81ff),
    ] {
        let instruction = decode(bytes, mode).unwrap();
        assert_eq!(
            (instruction.size(), instruction.register_size()),
            (size, (register_size, extension)),
            "{bytes:02x?}"
        );
        assert_eq!(instruction.direction(), Direction::Read);
        let (mut registers, mut guest) = (Registers::default(), Memory::flat());
        registers.set(Gpr::Rax, u64::MAX);
        for (address, byte) in (0..).zip(0x1234_5678_c000_8081_u64.to_le_bytes()) {
            guest.set_byte(address, byte);
        }
        instruction.execute(&mut registers, &access(0, MemoryAccessKind::Read), &mut guest).unwrap();
        assert_eq!(registers.rax(), rax, "{mode:?} {bytes:02x?}");
    }
}

/// Address size, segment and repetition of strings, which the access sizes of `a4` and `a5` go with.
#[test]
fn strings_are_read_in_every_mode() {
    use AddressSize::*;
    let form = |repeats, address_size, segment| {
        let repeat = if repeats { Repeat::Count } else { Repeat::Once };
        StringForm { repeat, address_size, segment }
    };
    for (bytes, mode, size, direction, expected) in [
        (&[0xa4][..], Mode::Bits16, Byte, Direction::Copy, form(false, Bits16, Segment::Ds)),
        (&[0xf3, 0xa5], Mode::Bits16, Word, Direction::Copy, form(true, Bits16, Segment::Ds)),
        (&[0x67, 0x66, 0xf3, 0x26, 0xa5], Mode::Bits16, Dword, Direction::Copy, form(true, Bits32, Segment::Es)),
        (&[0x67, 0xf2, 0x2e, 0xa5], Mode::Bits32, Dword, Direction::Copy, form(true, Bits16, Segment::Cs)),
        (&[0xf3, 0x48, 0xab], Mode::Bits64, Qword, Direction::Write, form(true, Bits64, Segment::Ds)),
        (&[0x65, 0xaa], Mode::Bits64, Byte, Direction::Write, form(false, Bits64, Segment::Ds)),
        (&[0x65, 0xad], Mode::Bits64, Dword, Direction::Read, form(false, Bits64, Segment::Gs)),
        (&[0x67, 0x36, 0xa4], Mode::Bits64, Byte, Direction::Copy, form(false, Bits32, Segment::Ds)),
    ] {
        let instruction = decode(bytes, mode).unwrap();
        assert_eq!((instruction.size(), instruction.direction()), (size, direction), "{mode:?} {bytes:02x?}");
        assert_eq!(instruction.string(), Some(expected), "{mode:?} {bytes:02x?}");
        assert_eq!(instruction.length(), bytes.len());
    }
}

#[test]
fn rip_has_the_width_of_the_mode() {
    for (mode, next) in [(Bits16, 0), (Bits32, 0), (Bits64, 0x1_0000_0000)] {
        let instruction = decode(&[0x88, 0x07], mode).unwrap();
        assert_eq!(instruction.next_rip(0xffff_fffe), next);
        assert_eq!(instruction.next_rip(u64::MAX - 1), 0);
    }
}

/// A LOCK prefix is for a memory destination that is read and written (Intel SDM vol. 2A, LOCK).
#[test]
fn misplaced_locks_are_malformed() {
    for bytes in [
        &[0xf0, 0x89, 0x07][..],   // mov [..], eax
        &[0xf0, 0x03, 0x07],       // add eax, [..]
        &[0xf0, 0x39, 0x07],       // cmp [..], eax
        &[0xf0, 0x85, 0x07],       // test [..], eax
        &[0xf0, 0x0f, 0xa3, 0x07], // bt [..], eax
        &[0xf0, 0xaa],             // stosb
    ] {
        for mode in MODES {
            assert!(matches!(decode(bytes, mode), Err(DecodeError::Malformed(_))), "{bytes:02x?}");
        }
    }
}

#[test]
fn others_are_unsupported() {
    for bytes in [
        &[0x8c, 0x07][..],   // mov [..], es
        &[0x8e, 0x07],       // mov es, [..]
        &[0x0f, 0x13, 0x07], // movlps [..], xmm0
        &[0x0f, 0x6f, 0x07], // movq mm0, [..]
        &[0x6c],             // insb
        &[0x0f, 0xc7, 0x37], // vmptrld [..]
        &[0xd1, 0x27],       // shl [..], 1
    ] {
        for mode in MODES {
            assert!(matches!(decode(bytes, mode), Err(DecodeError::Unsupported(_))), "{bytes:02x?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Whatever the bytes and registers, there is an answer that agrees with itself.
    #[test]
    fn any_bytes_have_an_answer(
        bytes in prop::collection::vec(any::<u8>(), 0..20), gpr in any::<[u64; 16]>(), rip in any::<u64>(),
        rflags in any::<u64>(),
    ) {
        let registers = Registers { gpr, rip, rflags };
        for mode in MODES {
            let Ok(instruction) = decode(&bytes, mode) else { continue };
            let last = if mode == Bits64 { u64::MAX } else { 0xffff_ffff };
            let mut guest = Memory { last, vectors: Some([[0x5a; 32]; 16]), ..Memory::flat() };
            let mut after = registers;
            let outcome = instruction.execute(&mut after, &access(0, MemoryAccessKind::Read), &mut guest);
            if let Err(error) = outcome {
                prop_assert!(matches!(error, ExecuteError::Misaligned(_)));
                prop_assert_eq!((after, guest.events), (registers, vec![]));
                continue;
            }
            let is_done = instruction.string().is_none_or(|string| string.count(&registers) != 0);
            let has = |wanted: fn(&Event) -> bool| guest.events.iter().any(wanted);
            let direction = instruction.direction();
            let is_stack = matches!(instruction.operation(), Operation::Push | Operation::Pop);
            prop_assert_eq!(has(|event| matches!(event, Event::Write(..))), is_done && (direction.writes() || is_stack));
            prop_assert_eq!(has(|event| matches!(event, Event::Read(..))), is_done && (direction.reads() || is_stack));
            // Only the flags it sets, and RF, change.
            let changed = Rflags::from_bits_retain(rflags ^ after.rflags);
            prop_assert!((instruction.operation().flags() | Rflags::RF).contains(changed));
        }
    }
}

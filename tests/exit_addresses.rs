//! Where the memory operand of an instruction is, for each way that the manual has to say it (Intel SDM vol. 2A, 2.1.5 and 2.2.1).

use vm_device::exit::x86::instruction::{Base, Instruction, MemoryOperand, decode};
use vm_device::exit::x86::{AddressSize, Gpr, Mode, Registers, Segment};

use Gpr::*;
use Mode::{Bits16, Bits32, Bits64};

/// Every register has a value that is told apart from the others in each part of it.
fn registers() -> Registers {
    Registers {
        gpr: core::array::from_fn(|number| 0x1111_1111_1111_1111_u64.wrapping_mul(number as u64 + 1)),
        rip: 0x7fff_1000,
        rflags: 2,
    }
}

fn operand(bytes: &[u8], mode: Mode) -> (Segment, u64) {
    let instruction = decode(bytes, mode).unwrap();
    assert_eq!(instruction.length(), bytes.len(), "{mode:?} {bytes:02x?}");
    instruction.operand(&registers())
}

fn value(gpr: Gpr) -> u64 {
    registers().get(gpr)
}

/// Table 2-1, row by row: no displacement, one of 8 bits (-2), one of 16 (0x1234).
#[test]
fn addresses_of_16_bits_are_those_of_the_table() {
    let rows = [
        (Some(Rbx), Some(Rsi), Segment::Ds),
        (Some(Rbx), Some(Rdi), Segment::Ds),
        (Some(Rbp), Some(Rsi), Segment::Ss),
        (Some(Rbp), Some(Rdi), Segment::Ss),
        (Some(Rsi), None, Segment::Ds),
        (Some(Rdi), None, Segment::Ds),
        (Some(Rbp), None, Segment::Ss),
        (Some(Rbx), None, Segment::Ds),
    ];
    for (prefix, mode) in [(&[][..], Bits16), (&[0x67][..], Bits32)] {
        for (row, (base, index, segment)) in (0_u8..).zip(rows) {
            let sum = [base, index].into_iter().flatten().map(value).fold(0, u64::wrapping_add);
            let offset = |displacement: u64| (segment, sum.wrapping_add(displacement) & 0xffff);
            let bytes = |kind: u8, tail: &[u8]| [prefix, &[0x8a, kind << 6 | row], tail].concat();
            let plain = match row {
                6 => (bytes(0, &[0xcd, 0xab]), (Segment::Ds, 0xabcd)),
                _ => (bytes(0, &[]), offset(0)),
            };
            let expected =
                [plain, (bytes(1, &[0xfe]), offset(-2_i64 as u64)), (bytes(2, &[0x34, 0x12]), offset(0x1234))];
            for (bytes, expected) in expected {
                assert_eq!(operand(&bytes, mode), expected, "{mode:?} {bytes:02x?}");
            }
        }
    }
}

/// Table 2-2 in each mode, with REX.B: no displacement, one of 8 bits, one of 32 bits. What wraps is cut to 32 bits.
#[test]
fn addresses_of_32_and_64_bits_are_those_of_the_table() {
    for (prefix, mode, bits) in [(&[0x67][..], Bits16, 32), (&[], Bits32, 32), (&[0x67], Bits64, 32), (&[], Bits64, 64)]
    {
        let cut = |offset: u64| offset & u64::MAX >> (64 - bits);
        for number in 0..if mode == Bits64 { 16_u8 } else { 8 } {
            let (rex, row) = (0x40 | number >> 3, number & 7);
            // 4 is for SIB, and 5 without displacement for none.
            if row == 4 {
                continue;
            }
            let base = Gpr::from_number(number).unwrap();
            let segment = if base == Rbp { Segment::Ss } else { Segment::Ds };
            for (kind, tail, displacement) in [
                (0, &[][..], 0),
                (1, &[0x80][..], -128_i64),
                (2, &[0, 0, 0, 0x80], i32::MIN.into()),
                (2, &[1, 0, 0, 0x70], 0x7000_0001),
            ] {
                if kind == 0 && row == 5 {
                    continue;
                }
                let rex: &[u8] = if mode == Bits64 { &[rex] } else { &[] };
                let bytes = [prefix, rex, &[0x8b, kind << 6 | row], tail].concat();
                let expected = cut(value(base).wrapping_add_signed(displacement));
                assert_eq!(operand(&bytes, mode), (segment, expected), "{mode:?} {bytes:02x?}");
            }
        }
    }
}

/// Table 2-3: every base, index and scale, with REX.X and REX.B. RSP is no index, R12 is one; 5 without displacement is no base,
/// with REX.B or without.
#[test]
fn a_sib_byte_has_base_index_and_scale() {
    for (mode, rexes) in [(Bits32, 0x40..=0x40), (Bits64, 0x40..=0x43)] {
        for (rex, sib) in rexes.flat_map(|rex| (0..=0xff_u8).map(move |sib| (rex, sib))) {
            for (kind, tail, displacement) in [(0_u8, &[][..], 0_i64), (1, &[0xf0], -16), (2, &[0, 0, 1, 0], 0x1_0000)]
            {
                let (low, middle) = (sib & 7 | (rex & 1) << 3, sib >> 3 & 7 | (rex & 2) << 2);
                let has_no_base = sib & 7 == 5 && kind == 0;
                let base = Gpr::from_number(low).filter(|_| !has_no_base);
                let index = Gpr::from_number(middle).filter(|index| *index != Rsp);
                let (tail, displacement) =
                    if has_no_base { (&[0, 0, 0, 0x80][..], i32::MIN.into()) } else { (tail, displacement) };
                let rex: &[u8] = if mode == Bits64 { &[rex] } else { &[] };
                let bytes = [rex, &[0x8b, kind << 6 | 4, sib], tail].concat();
                let instruction = decode(&bytes, mode).unwrap();
                let segment = if matches!(base, Some(Rsp | Rbp)) { Segment::Ss } else { Segment::Ds };
                let parts = MemoryOperand {
                    segment,
                    base: base.map(Base::Gpr),
                    index,
                    scale: if index.is_some() { 1 << (sib >> 6) } else { 1 },
                    displacement: displacement as u64,
                    address_size: mode.address_size(),
                };
                assert_eq!(instruction.address(), parts, "{mode:?} {bytes:02x?}");
                let scaled = index.map_or(0, value).wrapping_mul(1 << (sib >> 6));
                let sum = base.map_or(0, value).wrapping_add(scaled).wrapping_add_signed(displacement);
                let expected = if mode == Bits64 { sum } else { sum & 0xffff_ffff };
                assert_eq!(operand(&bytes, mode), (segment, expected), "{mode:?} {bytes:02x?}");
            }
        }
    }
}

/// From the end of the instruction, also if an immediate follows the displacement; with 67, in 32 bits. REX.B changes nothing. Outside
/// 64-bit mode the same encoding is an absolute address.
#[test]
fn addresses_relative_to_rip_start_behind_the_whole_instruction() {
    let rip = registers().rip;
    for (bytes, expected) in [
        (&[0x8b, 0x05, 0x10, 0, 0, 0][..], rip + 6 + 0x10),
        (&[0x49, 0x8b, 0x05, 0xfe, 0xff, 0xff, 0xff], rip + 7 - 2),
        (&[0x81, 0x0d, 0x10, 0, 0, 0, 1, 2, 3, 4], rip + 10 + 0x10),
        (&[0x83, 0x0d, 0x10, 0, 0, 0, 1], rip + 7 + 0x10),
        (&[0xf6, 0x05, 0x10, 0, 0, 0, 1], rip + 7 + 0x10),
        (&[0x66, 0xc7, 0x05, 0x10, 0, 0, 0, 1, 2], rip + 9 + 0x10),
        (&[0xc5, 0xf8, 0x10, 0x05, 0x10, 0, 0, 0], rip + 8 + 0x10),
        (&[0x8b, 0x05, 0, 0, 0, 0x80], (rip + 6).wrapping_add_signed(i32::MIN.into())),
        (&[0x67, 0x8b, 0x05, 0, 0, 0, 0x80], (rip + 7).wrapping_sub(0x8000_0000) & 0xffff_ffff),
        (&[0x67, 0x8b, 0x05, 0, 0, 0, 0x40], (rip + 7 + 0x4000_0000) & 0xffff_ffff),
    ] {
        assert_eq!(operand(bytes, Bits64), (Segment::Ds, expected), "{bytes:02x?}");
        assert_eq!(decode(bytes, Bits64).unwrap().address().base, Some(Base::Rip));
    }
    assert_eq!(operand(&[0x8b, 0x05, 0, 0, 0, 0x80], Bits32), (Segment::Ds, 0x8000_0000));
    let below_4_gib = decode(&[0x67, 0x8b, 0x05, 0xff, 0xff, 0xff, 0x7f], Bits64).unwrap();
    let near_the_end = Registers { rip: 0xffff_fff0, ..registers() };
    assert_eq!(below_4_gib.operand(&near_the_end), (Segment::Ds, 0x7fff_fff6));
    let beyond = decode(&[0x8b, 0x05, 0xff, 0xff, 0xff, 0x7f], Bits64).unwrap();
    assert_eq!(beyond.operand(&near_the_end), (Segment::Ds, 0x1_7fff_fff5));
}

#[test]
fn absolute_addresses_have_the_address_size() {
    for (bytes, mode, expected) in [
        (&[0xa0, 0xcd, 0xab][..], Bits16, 0xabcd),
        (&[0x67, 0xa1, 0xef, 0xcd, 0xab, 0x89], Bits16, 0x89ab_cdef),
        (&[0xa2, 0xef, 0xcd, 0xab, 0x89], Bits32, 0x89ab_cdef),
        (&[0x67, 0xa3, 0xcd, 0xab], Bits32, 0xabcd),
        (&[0xa1, 8, 7, 6, 5, 4, 3, 2, 0xf1], Bits64, 0xf102_0304_0506_0708),
        (&[0x67, 0xa1, 0xef, 0xcd, 0xab, 0x89], Bits64, 0x89ab_cdef),
    ] {
        assert_eq!(operand(bytes, mode), (Segment::Ds, expected), "{mode:?} {bytes:02x?}");
    }
}

/// The last of several prefixes counts. In 64-bit mode those of ES, CS, SS and DS are as if they were not there.
#[test]
fn a_prefix_changes_the_segment() {
    let all = [
        (0x26, Segment::Es),
        (0x2e, Segment::Cs),
        (0x36, Segment::Ss),
        (0x3e, Segment::Ds),
        (0x64, Segment::Fs),
        (0x65, Segment::Gs),
    ];
    for mode in [Bits16, Bits32, Bits64] {
        for (prefix, segment) in all {
            // mov al, [bp + 0] or [rbp + 0]; stosb; lodsb; movsb
            let rbp = [prefix, 0x8a, if mode == Bits16 { 0x46 } else { 0x45 }, 0];
            let counts = mode != Bits64 || matches!(segment, Segment::Fs | Segment::Gs);
            assert_eq!(operand(&rbp, mode).0, if counts { segment } else { Segment::Ss }, "{mode:?} {prefix:02x}");
            let last = [&[0x2e], &rbp[..]].concat();
            assert_eq!(operand(&last, mode).0, if counts { segment } else { Segment::Ss }, "{mode:?} {prefix:02x}");
            let of_the_source = if counts { segment } else { Segment::Ds };
            assert_eq!(operand(&[prefix, 0xaa], mode).0, Segment::Es);
            assert_eq!(operand(&[prefix, 0xac], mode).0, of_the_source);
            assert_eq!(operand(&[prefix, 0xa4], mode).0, Segment::Es);
            let form = |bytes: &[u8]| decode(bytes, mode).unwrap().string().unwrap();
            assert_eq!(form(&[prefix, 0xa4]).segment, of_the_source);
            assert_eq!(form(&[prefix, 0xa6]).segment, of_the_source);
        }
    }
    assert_eq!(operand(&[0x65, 0x3e, 0x8a, 0x07], Bits64).0, Segment::Gs);
    assert_eq!(operand(&[0x64, 0x65, 0x8a, 0x07], Bits64).0, Segment::Gs);
}

#[test]
fn strings_use_the_index_registers_at_the_address_size() {
    for (bytes, mode, index, size) in [
        (&[0xaa][..], Bits16, Rdi, AddressSize::Bits16),
        (&[0x67, 0xaa], Bits16, Rdi, AddressSize::Bits32),
        (&[0xac], Bits32, Rsi, AddressSize::Bits32),
        (&[0x67, 0xac], Bits32, Rsi, AddressSize::Bits16),
        (&[0xa5], Bits64, Rdi, AddressSize::Bits64),
        (&[0x67, 0xa7], Bits64, Rdi, AddressSize::Bits32),
        (&[0xae], Bits64, Rdi, AddressSize::Bits64),
    ] {
        assert_eq!(operand(bytes, mode).1, size.size().truncate(value(index)), "{mode:?} {bytes:02x?}");
    }
}

/// A bit number in a register is signed, and has the operand size; an immediate one stays in the operand.
#[test]
fn a_bit_by_its_number_is_in_the_element_that_has_it() {
    let with = |instruction: &Instruction, number: u64| {
        let mut registers = registers();
        registers.set(Rcx, number);
        registers.set(Rdi, 0x1000);
        instruction.operand(&registers).1
    };
    for (bytes, bits) in
        [(&[0x66, 0x0f, 0xab, 0x0f][..], 16), (&[0x0f, 0xb3, 0x0f], 32), (&[0x48, 0x0f, 0xa3, 0x0f], 64)]
    {
        let instruction = decode(bytes, Bits64).unwrap();
        let bytes = bits / 8;
        assert_eq!(with(&instruction, 0), 0x1000);
        assert_eq!(with(&instruction, bits - 1), 0x1000);
        assert_eq!(with(&instruction, bits), 0x1000 + bytes);
        assert_eq!(with(&instruction, 10 * bits + 3), 0x1000 + 10 * bytes);
        assert_eq!(with(&instruction, u64::MAX), 0x1000 - bytes);
        assert_eq!(with(&instruction, (bits as i64 * -3) as u64), 0x1000 - 3 * bytes);
        assert_eq!(with(&instruction, (bits as i64 * -3 - 1) as u64), 0x1000 - 4 * bytes);
    }
    // Only the low half of the register counts.
    assert_eq!(with(&decode(&[0x0f, 0xbb, 0x0f], Bits64).unwrap(), 0xffff_ffff_0000_0020), 0x1004);
    // bts word [di], cx wraps at 64 KiB.
    assert_eq!(with(&decode(&[0x0f, 0xab, 0x0d], Bits16).unwrap(), 0x8000), 0);
    assert_eq!(with(&decode(&[0x0f, 0xba, 0x2f, 0xff], Bits64).unwrap(), 0), 0x1000);
}

#[test]
fn pop_with_rsp_as_the_base_starts_from_the_stack_after_it() {
    let rsp = value(Rsp);
    assert_eq!(operand(&[0x8f, 0x04, 0x24], Bits64), (Segment::Ss, rsp + 8));
    assert_eq!(operand(&[0x66, 0x8f, 0x44, 0x24, 0x10], Bits64), (Segment::Ss, rsp + 2 + 0x10));
    assert_eq!(operand(&[0x67, 0x8f, 0x04, 0x24], Bits64), (Segment::Ss, (rsp & 0xffff_ffff) + 8));
    assert_eq!(operand(&[0x8f, 0x04, 0x24], Bits32), (Segment::Ss, (rsp & 0xffff_ffff) + 4));
    assert_eq!(operand(&[0x8f, 0x07], Bits64), (Segment::Ds, value(Rdi)));
    assert_eq!(operand(&[0xff, 0x34, 0x24], Bits64), (Segment::Ss, rsp));
    assert_eq!(operand(&[0x41, 0x8f, 0x04, 0x24], Bits64), (Segment::Ds, value(R12)));
}

#[test]
fn the_sum_wraps_at_the_address_size() {
    let mut registers = registers();
    registers.set(Rbx, 0xffff_ffff_ffff_ffff);
    registers.set(Rsi, 3);
    let at = |bytes: &[u8], mode| decode(bytes, mode).unwrap().operand(&registers).1;
    assert_eq!(at(&[0x8a, 0x00], Bits16), 2);
    assert_eq!(at(&[0x8a, 0x04, 0x33], Bits32), 2);
    assert_eq!(at(&[0x67, 0x8a, 0x04, 0x33], Bits64), 2);
    assert_eq!(at(&[0x8a, 0x04, 0x33], Bits64), 2);
    assert_eq!(at(&[0x8a, 0x43, 0xff], Bits64), u64::MAX - 1);
    assert_eq!(at(&[0x67, 0x8a, 0x43, 0xff], Bits64), 0xffff_fffe);
}

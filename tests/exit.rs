//! Exit information of both vendors against tables written down from the manuals, and the registers after port accesses
//! against a model that goes one element at a time.

use proptest::prelude::*;
use vm_device::GuestAddress;
use vm_device::exit::x86::{
    AddressSize, ExitError, Gpr, MemoryAccess, MemoryAccessKind, Mode, PortAccess, PortDirection, Register, Registers,
    Repeat, Rflags, Segment, Size, StringForm, svm, vmx,
};

fn repeat(by_count: bool) -> Repeat {
    if by_count { Repeat::Count } else { Repeat::Once }
}

const MODES: [Mode; 3] = [Mode::Bits16, Mode::Bits32, Mode::Bits64];
const SEGMENTS: [Segment; 6] = [Segment::Es, Segment::Cs, Segment::Ss, Segment::Ds, Segment::Fs, Segment::Gs];
const ADDRESS_SIZES: [AddressSize; 3] = [AddressSize::Bits16, AddressSize::Bits32, AddressSize::Bits64];

/// Every value of `EXITINFO1` below bit 16, in every mode (AMD APM vol. 2, 15.10.2).
#[test]
fn every_ioio_intercept_is_read_as_the_manual_says() {
    for (information, mode) in (0..0x1_0000_u64).flat_map(|information| MODES.map(|mode| (information, mode))) {
        let bit = |number: u32| information >> number & 1 != 0;
        let size = match (bit(4), bit(5), bit(6)) {
            (true, false, false) => Ok(Size::Byte),
            (false, true, false) => Ok(Size::Word),
            (false, false, true) => Ok(Size::Dword),
            _ => Err(()),
        };
        let address_size = match (bit(7), bit(8), bit(9)) {
            (true, false, false) => Ok(Some(AddressSize::Bits16)),
            (false, true, false) => Ok(Some(AddressSize::Bits32)),
            (false, false, true) => Ok(Some(AddressSize::Bits64)),
            (false, false, false) => Ok(None),
            _ => Err(()),
        };
        let exitinfo1 = information | 0xfedc_0000;
        let expected = match (size, bit(2), address_size, SEGMENTS.get((information >> 10 & 7) as usize)) {
            (Err(()), ..) => Err(ExitError::Size(exitinfo1)),
            (Ok(size), false, ..) => Ok((size, None)),
            (Ok(_), true, Err(()), _) => Err(ExitError::AddressSize(exitinfo1)),
            (Ok(size), true, Ok(None), _) => Ok((size, Some((mode.address_size(), Segment::Ds)))),
            (Ok(size), true, Ok(Some(address_size)), Some(segment)) => Ok((size, Some((address_size, *segment)))),
            (Ok(_), true, Ok(Some(_)), None) => Err(ExitError::Segment(exitinfo1)),
        };
        let expected = expected.map(|(size, string)| PortAccess {
            port: 0xfedc,
            size,
            direction: if bit(0) { PortDirection::In } else { PortDirection::Out },
            string: string.map(|(address_size, segment)| StringForm { repeat: repeat(bit(3)), address_size, segment }),
            next_rip: 0x1234,
        });
        assert_eq!(svm::port_access(exitinfo1, 0x1234, mode), expected, "{exitinfo1:#x}");
        // Nothing above bit 31 is defined, and nothing of it is used.
        let undefined = svm::port_access(exitinfo1 | 0xffff_ffff << 32, 0x1234, mode);
        assert_eq!(undefined.is_ok(), expected.is_ok());
        assert!(undefined.is_err() || undefined == expected);
    }
}

/// Every exit qualification below bit 16 with every address size and segment, in every mode (Intel SDM vol. 3C, tables
/// 28-5 and 28-8).
#[test]
fn every_io_qualification_is_read_as_the_manual_says() {
    for (low, information) in (0..0x100_u64).flat_map(|low| (0..64_u32).map(move |information| (low, information))) {
        let bit = |number: u32| low >> number & 1 != 0;
        let (address_size, segment) = (information & 7, information >> 3);
        // The undefined bits of both are set.
        let qualification = low | 0xabcd_ff00 | 0xffff_ffff << 32;
        let information = address_size << 7 | segment << 15 | !(7 << 7 | 7 << 15);
        let size = match low & 7 {
            0 => Some(Size::Byte),
            1 => Some(Size::Word),
            3 => Some(Size::Dword),
            _ => None,
        };
        for mode in MODES {
            let expected = |string| PortAccess {
                port: 0xabcd,
                size: size.unwrap(),
                direction: if bit(3) { PortDirection::In } else { PortDirection::Out },
                string,
                next_rip: 0x1002,
            };
            let exit = vmx::IoExit {
                qualification,
                instruction_information: Some(information),
                instruction_length: 2,
                rip: 0x1000,
            };
            let access = vmx::port_access(exit, mode);
            let without = vmx::port_access(vmx::IoExit { instruction_information: None, ..exit }, mode);
            let form = |address_size, segment| StringForm { repeat: repeat(bit(5)), address_size, segment };
            if size.is_none() {
                assert_eq!(access, Err(ExitError::Size(qualification)));
                assert_eq!(without, Err(ExitError::Size(qualification)));
                continue;
            }
            if !bit(4) {
                assert_eq!(access, Ok(expected(None)));
                assert_eq!(without, access);
                continue;
            }
            assert_eq!(without, Ok(expected(Some(form(mode.address_size(), Segment::Ds)))));
            let address_size = ADDRESS_SIZES.get(address_size as usize);
            let segment = if bit(3) { Some(&Segment::Es) } else { SEGMENTS.get(segment as usize) };
            match (address_size, segment) {
                (None, _) => assert_eq!(access, Err(ExitError::AddressSize(information.into()))),
                (_, None) => assert_eq!(access, Err(ExitError::Segment(information.into()))),
                (Some(address_size), Some(segment)) => {
                    assert_eq!(access, Ok(expected(Some(form(*address_size, *segment)))));
                }
            }
        }
    }
}

/// The next RIP wraps in 64 bits in 64-bit mode, and in 32 bits outside.
#[test]
fn next_rip_wraps_with_the_mode() {
    let exit = |rip| vmx::IoExit { qualification: 0, instruction_information: None, instruction_length: 2, rip };
    let next = |rip, mode| vmx::port_access(exit(rip), mode).unwrap().next_rip;
    assert_eq!(next(u64::MAX, Mode::Bits64), 1);
    assert_eq!(next(0xffff_ffff, Mode::Bits64), 0x1_0000_0001);
    assert_eq!(next(0xffff_ffff, Mode::Bits32), 1);
    assert_eq!(next(0xffff, Mode::Bits16), 0x1_0001);
}

/// Nested page faults, every combination of the defined bits (AMD APM vol. 2, 15.25.6).
#[test]
fn every_nested_page_fault_is_read_as_the_manual_says() {
    for number in 0..1_u64 << 9 {
        let bit = |index: u32| number >> index & 1 != 0;
        let defined = [0, 1, 2, 3, 4, 6, 32, 33, 37];
        let exitinfo1 =
            (0..9).filter(|index| bit(*index)).fold(0, |bits, index| bits | 1_u64 << defined[index as usize]);
        let kind = match (bit(1), bit(4)) {
            (_, true) => MemoryAccessKind::Fetch,
            (true, false) => MemoryAccessKind::Write,
            (false, false) => MemoryAccessKind::Read,
        };
        let expected = MemoryAccess { address: GuestAddress(0xfed0_0004), kind, mapped: bit(0), page_walk: bit(7) };
        assert_eq!(svm::memory_access(exitinfo1, 0xfed0_0004), expected, "{exitinfo1:#x}");
    }
}

/// EPT violations, every combination of the defined bits (Intel SDM vol. 3C, table 28-7).
#[test]
fn every_ept_violation_is_read_as_the_manual_says() {
    for qualification in 0..1_u64 << 17 {
        let bit = |number: u32| qualification >> number & 1 != 0;
        let kind = match (bit(0), bit(1), bit(2)) {
            (_, _, true) => MemoryAccessKind::Fetch,
            (_, true, _) => MemoryAccessKind::Write,
            _ => MemoryAccessKind::Read,
        };
        let expected = MemoryAccess {
            address: GuestAddress(u64::MAX),
            kind,
            mapped: bit(3) || bit(4) || bit(5),
            page_walk: !(bit(7) && bit(8)),
        };
        assert_eq!(vmx::memory_access(qualification, u64::MAX), expected, "{qualification:#x}");
    }
}

/// The names are those of the manual: each at its bit.
#[test]
fn flags_have_the_bits_of_the_manuals() {
    assert_eq!(svm::IoioInfo::all().bits(), 0b11_1111_1101);
    assert_eq!(svm::NestedPageFault::all().bits(), 0x23_0000_005f);
    assert_eq!(vmx::IoQualification::all().bits(), 0b111_1000);
    assert_eq!(vmx::EptViolation::all().bits(), 0x1_ffff);
    assert_eq!((svm::VMEXIT_IOIO, svm::VMEXIT_NPF, vmx::IO_INSTRUCTION, vmx::EPT_VIOLATION), (0x7b, 0x400, 30, 48));
    // CF, PF, AF, ZF, SF, DF, OF, RF (Intel SDM vol. 1, figure 3-8).
    assert_eq!(Rflags::all().bits(), 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 11 | 1 << 16);
}

#[test]
fn modes_follow_from_the_code_segment() {
    assert_eq!(Mode::new(true, true, false), Mode::Bits64);
    assert_eq!(Mode::new(true, false, true), Mode::Bits32);
    assert_eq!(Mode::new(true, false, false), Mode::Bits16);
    // L is no attribute outside long mode.
    assert_eq!(Mode::new(false, true, true), Mode::Bits32);
    assert_eq!(Mode::new(false, false, false), Mode::Bits16);
}

/// Address size and segment from the prefixes of the instruction, where the processor does not report them.
#[test]
fn prefixes_say_address_size_and_segment() {
    let outsb = |mode| svm::port_access(0x03f8_0014, 0, mode).unwrap();
    let form = |bytes: &[u8], mode| {
        let form = outsb(mode).with_prefixes(bytes, mode).string.unwrap();
        (form.address_size, form.segment)
    };
    assert_eq!(form(&[0x6e], Mode::Bits16), (AddressSize::Bits16, Segment::Ds));
    assert_eq!(form(&[0xf3, 0x67, 0x2e, 0x6e], Mode::Bits16), (AddressSize::Bits32, Segment::Cs));
    assert_eq!(form(&[0x26, 0x66, 0x67, 0x6f], Mode::Bits32), (AddressSize::Bits16, Segment::Es));
    assert_eq!(form(&[0x26, 0x36, 0x6e], Mode::Bits32), (AddressSize::Bits32, Segment::Ss));
    assert_eq!(form(&[0x65, 0x3e, 0x67, 0x6e], Mode::Bits64), (AddressSize::Bits32, Segment::Gs));
    assert_eq!(form(&[0x64, 0x48, 0x67, 0x6f], Mode::Bits64), (AddressSize::Bits64, Segment::Fs));
    assert_eq!(form(&[], Mode::Bits64), (AddressSize::Bits64, Segment::Ds));
}

/// Every register by its number, whole and in part.
#[test]
fn registers_merge_as_the_processor_does() {
    for (number, gpr) in Gpr::ALL.into_iter().enumerate() {
        let mut registers = Registers { gpr: [0x1122_3344_5566_7788; 16], ..Registers::default() };
        let written = |registers: &Registers| {
            let others = registers.gpr.iter().enumerate().filter(|(other, _)| *other != number);
            assert!(others.into_iter().all(|(_, value)| *value == 0x1122_3344_5566_7788));
            registers.gpr[number]
        };
        assert_eq!(Gpr::from_number(number as u8), Some(gpr));
        registers.write(Register::Low(gpr), Size::Byte, 0xaaaa_aaaa_aaaa_aaaa);
        assert_eq!(written(&registers), 0x1122_3344_5566_77aa);
        registers.write(Register::High(gpr), Size::Byte, 0xbbbb_bbbb_bbbb_bbbb);
        assert_eq!(written(&registers), 0x1122_3344_5566_bbaa);
        assert_eq!(registers.read(Register::High(gpr), Size::Byte), 0xbb);
        registers.write(Register::Low(gpr), Size::Word, 0xcccc_cccc_cccc_cccc);
        assert_eq!(written(&registers), 0x1122_3344_5566_cccc);
        registers.write(Register::Low(gpr), Size::Dword, 0xdddd_dddd_dddd_dddd);
        assert_eq!(written(&registers), 0xdddd_dddd);
        registers.write(Register::Low(gpr), Size::Qword, u64::MAX);
        assert_eq!(written(&registers), u64::MAX);
        assert_eq!(registers.read(Register::Low(gpr), Size::Word), 0xffff);
    }
    assert_eq!(Gpr::from_number(16), None);
}

#[test]
fn in_merges_out_reads_and_both_resume() {
    let registers = Registers {
        gpr: [0x1122_3344_5566_7788; 16],
        rip: 0x7c00,
        rflags: (Rflags::RF | Rflags::CF | Rflags::DF).bits() | 0x202,
    };
    for (size, exitinfo1, merged, output) in [
        (Size::Byte, 0x10, 0x1122_3344_5566_77ff, 0x88),
        (Size::Word, 0x20, 0x1122_3344_5566_ffff, 0x7788),
        (Size::Dword, 0x40, 0xffff_ffff, 0x5566_7788),
    ] {
        let out = svm::port_access(exitinfo1, 0x7c01, Mode::Bits16).unwrap();
        let input = PortAccess { direction: PortDirection::In, ..out };
        assert_eq!(out.size, size);
        assert_eq!(out.output(&registers), output);
        let resumed = Registers { rip: 0x7c01, rflags: (Rflags::CF | Rflags::DF).bits() | 0x202, ..registers };
        assert_eq!(out.complete(&registers, u64::MAX), resumed);
        let mut after_input = resumed;
        after_input.gpr[0] = merged;
        assert_eq!(input.complete(&registers, u64::MAX), after_input);
        assert_eq!(input.count(&registers), 1);
        assert_eq!(input.element(&registers, 0), None);
    }
}

/// INS and OUTS as the pseudocode of the manual has them: one element at a time.
fn model(access: &PortAccess, mut registers: Registers, elements: u64) -> (Registers, Vec<u64>) {
    let string = access.string.unwrap();
    let bits = string.address_size.size().bits();
    let index = if access.direction == PortDirection::In { 7 } else { 6 };
    let low = |value: u64| if bits == 64 { value } else { value % (1 << bits) };
    let merged = |old: u64, value: u64| match bits {
        16 => old / 0x1_0000 * 0x1_0000 + value % 0x1_0000,
        _ => low(value),
    };
    let mut offsets = Vec::new();
    let bytes = access.size.bytes() as u64;
    let mut complete = string.repeat.repeats() && low(registers.gpr[1]) == 0;
    for _ in 0..elements {
        if complete {
            break;
        }
        let offset = low(registers.gpr[index]);
        offsets.push(offset);
        let down = registers.rflags & 0x400 != 0;
        let next = if down { offset.wrapping_sub(bytes) } else { offset.wrapping_add(bytes) };
        registers.gpr[index] = merged(registers.gpr[index], next);
        if string.repeat.repeats() {
            registers.gpr[1] = merged(registers.gpr[1], low(registers.gpr[1]).wrapping_sub(1));
        }
        complete = !string.repeat.repeats() || low(registers.gpr[1]) == 0;
    }
    if complete {
        registers.rip = access.next_rip;
        registers.rflags &= !0x1_0000;
    }
    (registers, offsets)
}

fn registers() -> impl Strategy<Value = Registers> {
    // Offsets and counts at both ends of every size.
    let value = prop_oneof![
        any::<u64>(),
        0..8_u64,
        (0xfff0..0x1_0010_u64),
        (0xffff_fff0..0x1_0000_0010_u64),
        (u64::MAX - 15..=u64::MAX),
        any::<u64>().prop_map(|value| value & !0xffff),
        any::<u64>().prop_map(|value| value & !0xffff_ffff | 3),
    ];
    (prop::array::uniform16(value), any::<u64>(), any::<u64>()).prop_map(|(gpr, rip, rflags)| Registers {
        gpr,
        rip,
        rflags,
    })
}

proptest! {
    #[test]
    fn strings_advance_as_the_model(
        registers in registers(), low in 0..0x400_u64, segment in 0..6_u64, elements in 0..40_u64, next_rip in any::<u64>(),
    ) {
        // STR, one size, one address size; any direction, REP.
        let size = [0x10, 0x20, 0x40][low as usize % 3];
        let address_size = [0x80, 0x100, 0x200][low as usize / 3 % 3];
        let exitinfo1 = low & 0b1001 | 0b100 | size | address_size | segment << 10 | 0x60_0000;
        let access = svm::port_access(exitinfo1, next_rip, Mode::Bits64).unwrap();
        let (expected, offsets) = model(&access, registers, elements);
        prop_assert_eq!(access.complete_string(&registers, elements), expected);
        prop_assert_eq!(access.complete(&registers, 0), model(&access, registers, 1).0);
        prop_assert!(offsets.len() as u64 <= access.count(&registers));
        for (element, offset) in offsets.into_iter().enumerate() {
            let segment = if access.direction == PortDirection::In { Segment::Es } else { SEGMENTS[segment as usize] };
            prop_assert_eq!(access.element(&registers, element as u64), Some((segment, offset)));
        }
    }

    /// However a burst is cut, the registers after it are the same.
    #[test]
    fn strings_may_be_cut_anywhere(registers in registers(), low in 0..2_u64, first in 0..20_u64, second in 0..20_u64) {
        let access = svm::port_access(low & 1 | 0x124, 0x1000, Mode::Bits32).unwrap();
        let access = PortAccess { string: access.string.map(|form| StringForm { repeat: Repeat::Count, ..form }), ..access };
        let cut = access.complete_string(&access.complete_string(&registers, first), second);
        prop_assert_eq!(cut, access.complete_string(&registers, first + second));
    }

    /// No value of any argument panics.
    #[test]
    fn no_value_panics(
        a in any::<u64>(), b in any::<u64>(), information in any::<Option<u32>>(), length in any::<u32>(),
        registers in registers(), elements in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        for mode in MODES {
            let exit = vmx::IoExit {
                qualification: a, instruction_information: information, instruction_length: length, rip: b,
            };
            for access in [svm::port_access(a, b, mode), vmx::port_access(exit, mode)] {
                if let Err(error) = access {
                    prop_assert!(error.to_string().contains("0x"));
                }
                let Ok(access) = access.map(|access| access.with_prefixes(&bytes, mode)) else { continue };
                let _ = access.complete(&registers, elements);
                let _ = access.complete_string(&registers, elements);
                let _ = access.element(&registers, elements);
                prop_assert!(access.output(&registers) <= 0xffff_ffff);
            }
            svm::memory_access(a, b);
            vmx::memory_access(a, b);
        }
    }
}

#[test]
fn sizes_know_their_bytes_and_bits() {
    for (size, bytes) in [(Size::Byte, 1), (Size::Word, 2), (Size::Dword, 4), (Size::Qword, 8)] {
        assert_eq!((size.bytes(), size.bits() as usize), (bytes, 8 * bytes));
        assert_eq!(Size::from_bytes(bytes), Some(size));
        assert_eq!(size.of(&mut [0; 8]).len(), bytes);
        assert_eq!(size.truncate(u64::MAX), u64::MAX >> (64 - size.bits()));
        assert_eq!(size.sign_extend(size.truncate(u64::MAX)), u64::MAX);
        assert_eq!(size.sign_extend(1 << (size.bits() - 1) >> 1), 1 << (size.bits() - 1) >> 1);
    }
    assert!([0, 3, 5, 6, 7, 9, 16, usize::MAX].into_iter().all(|bytes| Size::from_bytes(bytes).is_none()));
}

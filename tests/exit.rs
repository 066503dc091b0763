//! Exit information of both vendors against tables written down from the manuals, and the registers after port accesses
//! against a model that goes one element at a time.

mod guest;

use std::convert::Infallible;

use guest::{Event, Fault, Memory, Page};
use proptest::prelude::*;
use vm_device::GuestAddress;
use vm_device::exit::x86::{
    AddressSize, ExitError, Gpr, MAX_BURST, MemoryAccess, MemoryAccessKind, Mode, PortAccess, PortDirection, Register,
    Registers, Repeat, Rflags, Segment, Size, StringForm, X86Guest, svm, vmx,
};
use vm_device::exit::{ExecuteError, Guest, PAGE};

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
            mode,
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
                mode,
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
    // CF, PF, AF, ZF, SF, TF, DF, OF, RF (Intel SDM vol. 1, figure 3-8).
    assert_eq!(Rflags::all().bits(), 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 16);
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
        let form = outsb(mode).with_prefixes(bytes).string.unwrap();
        (form.address_size, form.segment)
    };
    assert_eq!(form(&[0x6e], Mode::Bits16), (AddressSize::Bits16, Segment::Ds));
    assert_eq!(form(&[0xf3, 0x67, 0x2e, 0x6e], Mode::Bits16), (AddressSize::Bits32, Segment::Cs));
    assert_eq!(form(&[0x26, 0x66, 0x67, 0x6f], Mode::Bits32), (AddressSize::Bits16, Segment::Es));
    assert_eq!(form(&[0x26, 0x36, 0x6e], Mode::Bits32), (AddressSize::Bits32, Segment::Ss));
    assert_eq!(form(&[0x65, 0x3e, 0x67, 0x6e], Mode::Bits64), (AddressSize::Bits32, Segment::Gs));
    // A REX prefix before another prefix is ignored, and ends nothing.
    assert_eq!(form(&[0x64, 0x48, 0x67, 0x6f], Mode::Bits64), (AddressSize::Bits32, Segment::Fs));
    assert_eq!(form(&[0x40, 0x65, 0x4f, 0x6e], Mode::Bits64), (AddressSize::Bits64, Segment::Gs));
    // Outside 64-bit mode it is an instruction.
    assert_eq!(form(&[0x48, 0x67, 0x6f], Mode::Bits32), (AddressSize::Bits32, Segment::Ds));
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
        let completed = |access: PortAccess| {
            let mut after = registers;
            access.complete(&mut after, u64::MAX);
            after
        };
        assert_eq!(completed(out), resumed);
        let mut after_input = resumed;
        after_input.gpr[0] = merged;
        assert_eq!(completed(input), after_input);

        let (mut guest, mut after) = (Memory::flat(), registers);
        out.execute(&mut after, &mut guest).unwrap();
        assert_eq!(after, resumed);
        assert_eq!(guest.accesses(), [Event::Output(0, size, output.to_le_bytes()[..size.bytes()].to_vec())]);
        guest.port = 0x5a;
        let mut after = registers;
        input.execute(&mut after, &mut guest).unwrap();
        let [Event::Input(0, read, data)] = &guest.accesses()[..] else { panic!("one input") };
        let mut value = [0; 8];
        value[..data.len()].copy_from_slice(data);
        let mut expected = resumed;
        expected.write(Register::Low(Gpr::Rax), size, u64::from_le_bytes(value));
        assert_eq!((*read, after), (size, expected));
        // A port that fails leaves the registers.
        guest.port_fails = true;
        for access in [input, out] {
            let mut after = registers;
            assert_eq!(access.execute(&mut after, &mut guest), Err(ExecuteError::Fault(Fault::Port(0))));
            assert_eq!(after, registers);
        }
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

/// The highest linear address.
fn last(mode: Mode) -> u64 {
    if mode == Mode::Bits64 { u64::MAX } else { 0xffff_ffff }
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

/// An access of a string instruction: STR, one size, one address size; any direction, REP and segment.
fn string_access(low: u64, segment: u64, mode: Mode) -> PortAccess {
    let size = [0x10, 0x20, 0x40][low as usize % 3];
    let address_size = [0x80, 0x100, 0x200][low as usize / 3 % 3];
    svm::port_access(low & 0b1001 | 0b100 | size | address_size | segment << 10 | 0x60_0000, 0x7777, mode).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Each call does some elements, in order, as the model does them one at a time.
    #[test]
    fn strings_are_executed_as_the_model_does(
        registers in registers(), low in 0..0x400_u64, segment in 0..6_u64, mode in 0..3_usize, base in any::<u64>(),
        trap in any::<bool>(), interrupt in 0..3_u32,
    ) {
        let access = string_access(low, segment, MODES[mode]);
        let is_in = access.direction == PortDirection::In;
        let segment = if is_in { Segment::Es } else { SEGMENTS[segment as usize] };
        let mut guest = Memory { interrupt: Some(interrupt), last: last(MODES[mode]), ..Memory::flat() };
        guest.bases[segment as usize] = base;
        let linear = |guest: &Memory, offset: u64, byte: u64| {
            (base.wrapping_add(offset) & guest.last).wrapping_add(byte) & guest.last
        };
        let mut registers = registers;
        registers.rflags = if trap { registers.rflags | 0x100 } else { registers.rflags & !0x100 };
        for call in 0..4 {
            let size = access.size.bytes();
            let (_, offsets) = model(&access, registers, MAX_BURST);
            for (number, byte) in offsets.iter().flat_map(|offset| (0..size as u64).map(move |byte| (*offset, byte))) {
                let address = linear(&guest, number, byte);
                guest.set_byte(address, (address as u8).wrapping_mul(3));
            }
            let before = registers;
            prop_assert_eq!(access.execute(&mut registers, &mut guest), Ok(()));
            let data: Vec<u8> = guest
                .accesses()
                .into_iter()
                .flat_map(|event| match event {
                    Event::Input(0x60, _, data) if is_in => data,
                    Event::Output(0x60, _, data) if !is_in => data,
                    other => panic!("{other:?}"),
                })
                .collect();
            let elements = (data.len() / size) as u64;
            prop_assert_eq!(registers, model(&access, before, elements).0, "{} elements", elements);
            prop_assert_eq!(elements == 0, offsets.is_empty());
            let most = if trap || call >= interrupt { 1 } else { MAX_BURST };
            prop_assert!(elements <= most);
            for (offset, element) in offsets.into_iter().zip(data.chunks(size)) {
                for (byte, value) in (0..).zip(element) {
                    prop_assert_eq!(guest.byte(linear(&guest, offset, byte)), Some(*value));
                }
            }
            if registers.rip == access.next_rip {
                break;
            }
        }
    }

    /// A fault of the next element leaves everything; one of a later element ends the burst before it.
    #[test]
    fn a_string_stops_before_what_faults(
        low in 0..0x400_u64, at in 0..0x40_u64, count in 1..100_u64, down in any::<bool>(), limited in any::<bool>(),
    ) {
        let access = string_access(low | 8, 3, Mode::Bits32);
        let index = if access.direction == PortDirection::In { Gpr::Rdi } else { Gpr::Rsi };
        let bytes = access.size.bytes() as u64;
        // RAM in one page, and nothing on both sides of it.
        let mut guest = Memory { last: last(Mode::Bits32), ..Memory::default() };
        guest.map(0x5000, Page::Ram(vec![0x5a; PAGE as usize]));
        if limited {
            guest.limit = Some(0x5fff - 7);
        }
        let end = guest.limit.unwrap_or(0x5fff) + 1;
        let start = if down { 0x5000 + at } else { end - at };
        let mut registers = Registers { rip: 0x100, rflags: if down { 0x400 } else { 0 }, ..Registers::default() };
        registers.set(Gpr::Rcx, count);
        registers.set(index, start);
        // How many elements lie whole in the page.
        let fitting = if start + bytes > end { 0 } else if down { 1 + at / bytes } else { at / bytes };
        let before = registers;
        let mut done = 0;
        let stopped = loop {
            let outcome = access.execute(&mut registers, &mut guest);
            done += guest.accesses().iter().map(|event| match event {
                Event::Input(.., data) | Event::Output(.., data) => data.len() as u64 / bytes,
                _ => 0,
            }).sum::<u64>();
            prop_assert_eq!(registers, model(&access, before, done).0);
            if outcome.is_err() || registers.rip == access.next_rip {
                break outcome;
            }
        };
        prop_assert_eq!(done, fitting.min(count));
        prop_assert_eq!(stopped.is_err(), fitting < count);
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
                let Ok(access) = access.map(|access| access.with_prefixes(&bytes)) else { continue };
                access.complete(&mut registers.clone(), elements);
                let _ = access.execute(&mut registers.clone(), &mut Memory::flat());
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

/// A port that gives nothing does not show what was in RAX, as if it had read that.
#[test]
fn a_silent_port_reads_as_zeros() {
    let mut guest = Memory { port_is_silent: true, ..Memory::flat() };
    let mut registers = Registers::default();
    registers.set(Gpr::Rax, 0x1122_3344_5566_7788);
    svm::port_access(0x60_0041, 0x102, Mode::Bits64).unwrap().execute(&mut registers, &mut guest).unwrap();
    assert_eq!(registers.rax(), 0);
}

/// Without [`PortAccess::execute`] the elements of a string are counted one by one, and RIP stays until none is left.
#[test]
fn a_string_that_is_completed_is_counted_by_elements() {
    for (direction, index) in [(PortDirection::In, Gpr::Rdi), (PortDirection::Out, Gpr::Rsi)] {
        let access = repeated(direction, Size::Word);
        let mut registers = string_registers(index, 0x5000, 2);
        for (offset, count, rip) in [(0x5002, 1, 0x100), (0x5004, 0, 0x102), (0x5004, 0, 0x102)] {
            access.complete(&mut registers, 0xffff);
            let expected = Registers { rip, ..string_registers(index, offset, count) };
            assert_eq!(registers, expected);
        }
        let once =
            PortAccess { string: access.string.map(|form| StringForm { repeat: Repeat::Once, ..form }), ..access };
        let mut registers = string_registers(index, 0x5000, 2);
        once.complete(&mut registers, 0xffff);
        assert_eq!(registers, Registers { rip: 0x102, ..string_registers(index, 0x5002, 2) });
    }
}

/// `rep outsb`, `rep insw` and the like of 64-bit code at the port 0x60.
fn repeated(direction: PortDirection, size: Size) -> PortAccess {
    let exitinfo1 = 0x60_0e0c | (size.bytes() as u64) << 4 | u64::from(direction == PortDirection::In);
    svm::port_access(exitinfo1, 0x102, Mode::Bits64).unwrap()
}

fn string_registers(index: Gpr, offset: u64, count: u64) -> Registers {
    let mut registers = Registers { rip: 0x100, ..Registers::default() };
    registers.set(index, offset);
    registers.set(Gpr::Rcx, count);
    registers
}

/// NVMM could not take the memory operand of string I/O from MMIO, and gave the guest up.
#[test]
fn nvmm_outsb_from_mmio_reads_the_device() {
    let mut guest = Memory::flat();
    let device = guest.map(0x5000, Page::Device((0..=255).cycle().take(PAGE as usize).collect()));
    let mut registers = string_registers(Gpr::Rsi, 0x5010, 3);
    repeated(PortDirection::Out, Size::Byte).execute(&mut registers, &mut guest).unwrap();
    let reads = (0x10..0x13).map(|byte| Event::Read(device + u64::from(byte), vec![byte]));
    let expected: Vec<_> = reads.chain([Event::Output(0x60, Size::Byte, vec![0x10, 0x11, 0x12])]).collect();
    assert_eq!(guest.accesses(), expected);
    assert_eq!((registers.get(Gpr::Rsi), registers.get(Gpr::Rcx), registers.rip), (0x5013, 0, 0x102));
}

/// Each element of `INS` goes where it belongs, in order, after one read of the port.
#[test]
fn ins_into_mmio_writes_every_element() {
    // The first element ends where the segment ends.
    let mut guest = Memory { limit: Some(0x5ff3), ..Memory::flat() };
    let device = guest.map(0x5000, Page::Device(vec![0; PAGE as usize]));
    let mut registers = string_registers(Gpr::Rdi, 0x5ff0, 2);
    registers.rflags = Rflags::DF.bits();
    repeated(PortDirection::In, Size::Dword).execute(&mut registers, &mut guest).unwrap();
    let Event::Input(0x60, Size::Dword, data) = &guest.events[1] else { panic!("{:?}", guest.events) };
    let written = [
        Event::Input(0x60, Size::Dword, data.clone()),
        Event::Write(device + 0xff0, data[..4].to_vec()),
        Event::Write(device + 0xfec, data[4..].to_vec()),
    ];
    assert_eq!(guest.accesses(), written);
    assert_eq!((registers.get(Gpr::Rdi), registers.get(Gpr::Rcx), registers.rip), (0x5fe8, 0, 0x102));
}

/// An element of string I/O over two pages has a part in each: RAM, a device, or nothing.
#[test]
fn an_element_of_string_io_may_cross_a_page() {
    let ram = || Page::Ram(vec![0x11; PAGE as usize]);
    let device = || Page::Device(vec![0x22; PAGE as usize]);
    for (pages, read) in [
        ([ram(), device()], [0x11, 0x22, 0x22, 0x22]),
        ([device(), ram()], [0x22, 0x11, 0x11, 0x11]),
        ([device(), Page::Nothing], [0x22, 0xff, 0xff, 0xff]),
        ([device(), device()], [0x22; 4]),
    ] {
        let mut guest = Memory { last: u64::MAX, ..Memory::default() };
        for (number, page) in (5..).zip(pages) {
            guest.map(number * PAGE, page);
        }
        let mut registers = string_registers(Gpr::Rsi, 0x5fff, 1);
        repeated(PortDirection::Out, Size::Dword).execute(&mut registers, &mut guest).unwrap();
        assert_eq!(guest.accesses().last(), Some(&Event::Output(0x60, Size::Dword, read.to_vec())));
        assert_eq!((registers.get(Gpr::Rsi), registers.rip), (0x6003, 0x102));

        let mut registers = string_registers(Gpr::Rdi, 0x5fff, 1);
        let before = guest.byte(0x5ffe);
        repeated(PortDirection::In, Size::Dword).execute(&mut registers, &mut guest).unwrap();
        let Some(Event::Input(.., data)) = guest.events.iter().find(|event| matches!(event, Event::Input(..))).cloned()
        else {
            panic!("no input")
        };
        assert_eq!((guest.byte(0x5ffe), guest.byte(0x5fff)), (before, Some(data[0])));
        for (linear, byte) in (0x6000..).zip(&data[1..]) {
            let is_kept = guest.byte(linear) == Some(*byte);
            assert!(is_kept || guest.byte(linear) == Some(0xff));
        }
    }
    // A fault in the second page comes before the port is read.
    let mut guest = Memory { last: u64::MAX, ..Memory::default() };
    guest.map(0x5000, ram());
    let (mut registers, before) = (string_registers(Gpr::Rdi, 0x5fff, 1), guest.state());
    let fault = Err(ExecuteError::Fault(Fault::Page(0x6000, MemoryAccessKind::Write)));
    assert_eq!(repeated(PortDirection::In, Size::Word).execute(&mut registers, &mut guest), fault);
    assert_eq!((registers, guest.state()), (string_registers(Gpr::Rdi, 0x5fff, 1), before));
}

/// What was transferred before a device failed is counted, and no more.
#[test]
fn a_failure_in_a_burst_counts_what_was_done() {
    for direction in [PortDirection::In, PortDirection::Out] {
        let index = if direction == PortDirection::In { Gpr::Rdi } else { Gpr::Rsi };
        let mut guest = Memory { failing: Some(0x5007), ..Memory::flat() };
        let mut registers = string_registers(index, 0x5000, 10);
        let outcome = repeated(direction, Size::Word).execute(&mut registers, &mut guest);
        assert_eq!(outcome, Err(ExecuteError::Fault(Fault::Failed(0x5007))));
        assert_eq!((registers.get(index), registers.get(Gpr::Rcx), registers.rip), (0x5006, 7, 0x100));
        let transferred = guest.accesses().into_iter().find_map(|event| match event {
            Event::Input(.., data) | Event::Output(.., data) => Some(data.len()),
            _ => None,
        });
        assert_eq!(transferred, Some(if direction == PortDirection::In { 20 } else { 6 }));
        // At the first element nothing is done.
        let mut registers = string_registers(index, 0x5006, 10);
        assert!(repeated(direction, Size::Word).execute(&mut registers, &mut guest).is_err());
        assert_eq!(registers, string_registers(index, 0x5006, 10));
        assert!(guest.accesses().iter().all(|event| !matches!(event, Event::Output(..))));
    }
}

/// A sector of a disk: 256 words, in bursts, whose data comes in the order of the port.
#[test]
fn a_sector_comes_in_bursts() {
    let mut guest = Memory::flat();
    let mut registers = string_registers(Gpr::Rdi, 0x5f80, 256);
    let mut calls = Vec::new();
    while registers.rip != 0x102 {
        repeated(PortDirection::In, Size::Word).execute(&mut registers, &mut guest).unwrap();
        calls.push(256 - registers.get(Gpr::Rcx));
    }
    assert_eq!(calls, [64, 128, 192, 256]);
    let data: Vec<u8> = guest
        .events
        .clone()
        .into_iter()
        .flat_map(|event| if let Event::Input(.., data) = event { data } else { Vec::new() })
        .collect();
    let stored: Vec<u8> = (0x5f80..0x6180).filter_map(|linear| guest.byte(linear)).collect();
    assert_eq!(stored, data);
}

/// Outside 64-bit mode the byte after the last of 4 GiB is the first, in 64-bit mode it is the next.
#[test]
fn an_element_wraps_at_4_gib_outside_64_bit_mode() {
    for (mode, next) in [(Mode::Bits32, 0), (Mode::Bits64, 0x1_0000_0000)] {
        let mut guest = Memory { last: last(mode), ..Memory::flat() };
        // `outsw` with a 32-bit address size.
        let access = svm::port_access(0x60_0d24, 0x101, mode).unwrap();
        guest.set_byte(0xffff_ffff, 0x12);
        guest.set_byte(next, 0x34);
        let mut registers = string_registers(Gpr::Rsi, 0xffff_ffff, 0);
        access.execute(&mut registers, &mut guest).unwrap();
        assert_eq!(guest.accesses(), [Event::Output(0x60, Size::Word, vec![0x12, 0x34])]);
        assert_eq!(registers.get(Gpr::Rsi), 1);
    }
}

/// A guest that says nothing of bursts: each element of a string is an access of its own.
#[derive(Default)]
struct Single(Vec<(u16, Vec<u8>)>);

impl Guest for Single {
    type Fault = Infallible;
    fn translate(&mut self, address: u64, _: MemoryAccessKind) -> Result<GuestAddress, Infallible> {
        Ok(GuestAddress(address))
    }
    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Infallible> {
        data.fill(address.0 as u8);
        Ok(())
    }
    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Infallible> {
        self.0.push((address.0 as u16, data.to_vec()));
        Ok(())
    }
}

impl X86Guest for Single {
    fn linear(&mut self, _: Segment, offset: u64, _: usize, _: MemoryAccessKind) -> Result<u64, Infallible> {
        Ok(offset)
    }
    fn input(&mut self, port: u16, data: &mut [u8]) -> Result<(), Infallible> {
        data.fill(self.0.len() as u8);
        self.0.push((port, data.to_vec()));
        Ok(())
    }
    fn output(&mut self, port: u16, data: &[u8]) -> Result<(), Infallible> {
        self.0.push((port, data.to_vec()));
        Ok(())
    }
}

#[test]
fn a_string_is_one_access_after_another_where_the_guest_has_no_bursts() {
    let mut guest = Single::default();
    let mut registers = string_registers(Gpr::Rdi, 0x100, 2);
    repeated(PortDirection::In, Size::Word).execute(&mut registers, &mut guest).unwrap();
    let read = [(0x60, vec![0, 0]), (0x60, vec![1, 1])];
    assert_eq!(guest.0, [&read[..], &[(0x100, vec![0, 0]), (0x102, vec![1, 1])]].concat());

    let mut guest = Single::default();
    let mut registers = string_registers(Gpr::Rsi, 0x100, 2);
    repeated(PortDirection::Out, Size::Dword).execute(&mut registers, &mut guest).unwrap();
    assert_eq!(guest.0, [(0x60, vec![0; 4]), (0x60, vec![4; 4])]);
}

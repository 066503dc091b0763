//! Data aborts of Arm: every field of the syndrome, addresses, states, and what is refused.

mod arm64;

use arm64::{AR, CM, E0E, EA, EE, EL1H, FNV, Machine, Refusal, S1PTW, SF, SSE, WNR};
use arm64::{Event, big, described, little, syndrome, transfer};
use vm_device::GuestAddress;
use vm_device::exit::arm64::{Cause, DataAbort, Exit, ExitError, Mode, Registers, Stage2Fault, data_abort};
use vm_device::exit::{ExecuteError, MemoryAccessKind, Size};

fn abort(esr: u64) -> Result<DataAbort, ExitError> {
    data_abort(Exit { esr, far: 0xffff_0000_0000_5018, hpfar: 0x9_0000 })
}

fn numbered() -> Registers {
    let x = core::array::from_fn(|number| 0x1111_1111_0000_0000 | number as u64);
    Registers { x, sp: 0x7000, pc: 0x8000, spsr: EL1H }
}

#[test]
fn each_field_of_a_valid_syndrome_is_read_from_its_own_bits() {
    for (sas, size) in [Size::Byte, Size::Word, Size::Dword, Size::Qword].into_iter().enumerate() {
        for register in 0..32 {
            for flags in 0..16_u64 {
                let bits = [SSE, SF, AR, WNR].iter().enumerate().filter(|(at, _)| flags >> at & 1 != 0);
                let bits: u64 = bits.map(|(_, bit)| bit).sum();
                let transfer = transfer(described(sas as u64, register, bits), 0x5018, 0x900_0000);
                assert_eq!((transfer.size, u64::from(transfer.register.number)), (size, register));
                let read =
                    [transfer.register.sign_extended, transfer.register.wide, transfer.ordered, transfer.writes()];
                assert_eq!(read.map(u64::from), [flags & 1, flags >> 1 & 1, flags >> 2 & 1, flags >> 3]);
                let kind = if bits & WNR != 0 { MemoryAccessKind::Write } else { MemoryAccessKind::Read };
                assert_eq!((transfer.fault.kind, transfer.fault.length), (kind, 4));
            }
        }
    }
}

/// Seen in axvisor: it takes SAS and SRT without a look at ISV, and writes register 0 for a post-index store. Such stores come
/// from real drivers.
#[test]
fn a_syndrome_that_is_not_valid_gives_no_register_and_no_size() {
    // `str w3, [x2], #4`: the processor leaves SAS and SRT at 0, and other bits at anything.
    for bits in [0, 0b11 << 22, 0x1f << 16, SSE, SF, AR] {
        let abort = abort(syndrome(WNR | bits)).expect("an access");
        let DataAbort::Instruction(fault) = abort else { panic!("{abort:?}") };
        assert_eq!((fault.address, fault.kind), (Some(GuestAddress(0x900_0018)), MemoryAccessKind::Write));
        assert_eq!(abort.fault(), &fault);
    }
}

/// `ld64b`, `st64b` and its kin move eight registers, and the syndrome is valid and has the first of them (FEAT_LS64): SAS and
/// SRT alone would make one access of 8 bytes of it.
#[test]
fn an_access_of_64_bytes_is_no_access_of_8() {
    for kind in 1..=3_u64 {
        for bits in [0, WNR] {
            let abort = abort(described(3, 4, SF | bits | kind << 11)).expect("an access");
            assert!(matches!(abort, DataAbort::Instruction(_)), "{abort:?}");
        }
    }
}

#[test]
fn the_address_is_of_hpfar_but_for_its_low_twelve_bits() {
    let address =
        |far, hpfar| data_abort(Exit { esr: described(2, 0, 0), far, hpfar }).map(|abort| abort.fault().address);
    assert_eq!(address(0xffff_ffff_ffff_ffff, 0x9_0000), Ok(Some(GuestAddress(0x900_0fff))));
    assert_eq!(address(0, 0), Ok(Some(GuestAddress(0))));
    // 36 bits of page number; 40 with FEAT_LPA; 44 with FEAT_D128. NS (63) and the reserved bits are no part of it.
    assert_eq!(address(0xfff, 0xff_ffff_fff0), Ok(Some(GuestAddress(0xffff_ffff_ffff))));
    assert_eq!(address(0xfff, 0xfff_ffff_fff0), Ok(Some(GuestAddress(0xf_ffff_ffff_ffff))));
    assert_eq!(address(0xfff, 0xffff_ffff_fff0), Ok(Some(GuestAddress(0xff_ffff_ffff_ffff))));
    assert_eq!(address(0x123, 0xffff_0000_0000_000f), Ok(Some(GuestAddress(0x123))));
}

#[test]
fn a_permission_fault_has_a_virtual_address_only() {
    for code in 0x04..=0x0f {
        let abort = abort(described(0, 0, 0) & !0x3f | code).expect("an access");
        let (cause, address) = match code {
            0x04..=0x07 => (Cause::Translation, Some(GuestAddress(0x900_0018))),
            0x08..=0x0b => (Cause::AccessFlag, Some(GuestAddress(0x900_0018))),
            _ => (Cause::Permission, None),
        };
        assert_eq!((abort.fault().cause, abort.fault().address), (cause, address));
        assert_eq!(abort.fault().virtual_address, 0xffff_0000_0000_5018);
    }
    for code in [0x2a, 0x2b] {
        let abort = abort(described(0, 0, 0) & !0x3f | code).expect("a translation fault of level -2 or -1");
        assert_eq!(abort.fault().cause, Cause::Translation);
    }
}

#[test]
fn what_is_no_access_to_a_device_is_refused_for_what_it_is() {
    let class = |class: u64| described(0, 0, 0) & !(0x3f << 26) | class << 26;
    for number in (0..0x40).filter(|number| *number != 0x24) {
        let error = abort(class(number)).unwrap_err();
        let esr = class(number);
        let expected = if number == 0x25 { ExitError::SameLevel(esr) } else { ExitError::NoDataAbort(esr) };
        assert_eq!(error, expected);
        assert_eq!(error.esr(), esr);
        assert!(error.to_string().ends_with(&format!("syndrome {esr:#x}")));
    }
    for bits in [0, 1 << 24] {
        let esr = syndrome(bits);
        assert_eq!(abort(esr | EA), Err(ExitError::ExternalAbort(esr | EA)));
        assert_eq!(abort(esr | FNV), Err(ExitError::NoAddress(esr | FNV)));
    }
    let named = [
        (0x00, "address size fault"),
        (0x03, "address size fault"),
        (0x11, "tag check fault"),
        (0x22, "granule protection fault"),
        (0x28, "granule protection fault"),
        (0x29, "address size fault"),
        (0x30, "TLB conflict"),
        (0x31, "unsupported atomic hardware update"),
        (0x34, "implementation defined lockdown"),
        (0x35, "unsupported exclusive or atomic access"),
        (0x3f, "reserved status code"),
    ];
    for (code, name) in named {
        let esr = described(0, 0, 0) & !0x3f | code;
        assert_eq!(abort(esr), Err(ExitError::OtherFault(esr)));
        assert_eq!(
            ExitError::OtherFault(esr).to_string(),
            format!("no access to a device, but {name}: syndrome {esr:#x}")
        );
    }
    for code in [0x10, 0x13, 0x14, 0x17, 0x18, 0x1b, 0x1c, 0x1f] {
        let esr = described(0, 0, 0) & !0x3f | code;
        // FnV comes with these alone.
        assert_eq!(abort(esr | FNV), Err(ExitError::ExternalAbort(esr | FNV)));
    }
    let esr = described(0, 0, 0) & !0x3f | 0x21;
    assert_eq!(abort(esr), Err(ExitError::Alignment(esr)));
    // Every status code is an access or an error.
    let accesses = (0..0x40).filter(|code| abort(described(0, 0, 0) & !0x3f | code).is_ok());
    assert_eq!(accesses.collect::<Vec<_>>(), (0x04..=0x0f).chain([0x2a, 0x2b]).collect::<Vec<_>>());
}

/// HPFAR_EL2 is valid for the walk after every fault, and has the page alone: FAR_EL2 is of the access that needed the walk, and
/// so is WnR, as a rule. A walk that may not write is refused by permission.
#[test]
fn an_access_of_the_page_walk_is_told_with_its_page() {
    for (status, cause, kind) in [
        (0x07, Cause::Translation, MemoryAccessKind::Read),
        (0x2b, Cause::Translation, MemoryAccessKind::Read),
        (0x0a, Cause::AccessFlag, MemoryAccessKind::Read),
        (0x0f, Cause::Permission, MemoryAccessKind::Write),
    ] {
        for bits in [0, WNR, CM, CM | WNR, 1 << 24 | WNR] {
            let esr = syndrome(S1PTW | bits) & !0x3f | status;
            let fault = Stage2Fault {
                address: Some(GuestAddress(0x900_0000)),
                virtual_address: 0xffff_0000_0000_5018,
                kind,
                cause,
                length: 4,
            };
            assert_eq!(abort(esr), Ok(DataAbort::PageWalk(fault)));
            assert_eq!(abort(esr).unwrap().fault(), &fault);
        }
    }
    // An external abort of the walk is no access of it.
    let esr = syndrome(S1PTW) & !0x3f | 0x17;
    assert_eq!(abort(esr), Err(ExitError::ExternalAbort(esr)));
}

#[test]
fn cache_maintenance_completes_as_nothing() {
    for bits in [0, WNR, 1 << 24 | WNR] {
        let abort = abort(syndrome(CM | bits)).expect("it completes");
        assert!(matches!(abort, DataAbort::CacheMaintenance(_)), "{abort:?}");
        let mut registers = numbered();
        abort.skip(&mut registers);
        assert_eq!(registers, Registers { pc: 0x8004, ..numbered() });
    }
}

#[test]
fn a_load_fills_its_register_by_size_sign_and_width() {
    let loaded = |size, bits| {
        let mut registers = numbered();
        transfer(described(size, 3, bits), 0x5018, 0).complete(&mut registers, little(), 0xf1f2_f3f4_85f6_87f8);
        assert_eq!(Registers { x: numbered().x, ..registers }, Registers { pc: 0x8004, ..numbered() });
        registers.x[3]
    };
    assert_eq!([loaded(0, 0), loaded(0, SF)], [0xf8, 0xf8]);
    assert_eq!([loaded(0, SSE), loaded(0, SSE | SF)], [0xffff_fff8, 0xffff_ffff_ffff_fff8]);
    assert_eq!([loaded(1, 0), loaded(1, SF)], [0x87f8, 0x87f8]);
    assert_eq!([loaded(1, SSE), loaded(1, SSE | SF)], [0xffff_87f8, 0xffff_ffff_ffff_87f8]);
    assert_eq!([loaded(2, 0), loaded(2, SF)], [0x85f6_87f8, 0x85f6_87f8]);
    assert_eq!([loaded(2, SSE), loaded(2, SSE | SF)], [0x85f6_87f8, 0xffff_ffff_85f6_87f8]);
    assert_eq!(loaded(3, SF), 0xf1f2_f3f4_85f6_87f8);
}

#[test]
fn the_zero_register_stores_zeros_and_drops_what_is_loaded() {
    let mut registers = numbered();
    assert_eq!(transfer(described(3, 31, WNR | SF), 0x5018, 0).output(&registers, little()), 0);
    transfer(described(3, 31, SF), 0x5018, 0).complete(&mut registers, little(), u64::MAX);
    assert_eq!(registers, Registers { pc: 0x8004, ..numbered() });
}

#[test]
fn every_register_is_stored_by_its_number_and_cut_to_the_size() {
    for number in 0..31 {
        for (sas, mask) in [(0, 0xff), (1, 0xffff), (2, 0xffff_ffff), (3, u64::MAX)] {
            let transfer = transfer(described(sas, number, WNR), 0x5018, 0);
            let mut registers = numbered();
            assert_eq!(transfer.output(&registers, little()), (0x1111_1111_0000_0000 | number) & mask);
            transfer.complete(&mut registers, little(), u64::MAX);
            assert_eq!(registers, Registers { pc: 0x8004, ..numbered() });
        }
    }
}

#[test]
fn the_bytes_of_a_big_endian_guest_are_reversed_both_ways() {
    let mut registers = Registers { spsr: EL1H, ..Registers::default() };
    registers.x[1] = 0x1122_3344_5566_7788;
    let bytes: [&[u8]; 4] =
        [&[0x88], &[0x77, 0x88], &[0x55, 0x66, 0x77, 0x88], &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]];
    for (sas, bytes) in bytes.into_iter().enumerate() {
        let store = transfer(described(sas as u64, 1, WNR | SF), 0x5018, 0);
        assert_eq!(&store.output(&registers, big()).to_le_bytes()[..bytes.len()], bytes);
        let mut input = [0xee; 8];
        input[..bytes.len()].copy_from_slice(bytes);
        let load = transfer(described(sas as u64, 2, SF), 0x5018, 0);
        load.complete(&mut registers, big(), u64::from_le_bytes(input));
        assert_eq!(registers.x[2], registers.x[1] & (u64::MAX >> (64 - 8 * bytes.len())));
    }
    // The sign is that of the number, not of the first byte.
    transfer(described(1, 2, SSE | SF), 0x5018, 0).complete(&mut registers, big(), 0x80_7f);
    assert_eq!(registers.x[2], 0x7f80);
}

#[test]
fn the_order_of_bytes_is_that_of_the_level_or_of_aarch32_itself() {
    for (spsr, sctlr, expected) in [
        (0x0, EE, false),
        (0x0, E0E, true),
        (0x4, EE, true),
        (0x5, EE, true),
        (0x5, E0E, false),
        (0x5, 0, false),
        // E of AArch64 is reserved.
        (0x205, 0, false),
        (0x1d3, EE | E0E, false),
        (0x3d3, 0, true),
        (0x210, 0, true),
    ] {
        assert_eq!(Mode::new(spsr, sctlr).is_big_endian(), expected, "{spsr:#x} {sctlr:#x}");
    }
}

#[test]
fn the_level_and_the_stack_pointer_are_those_of_the_mode() {
    for (spsr, aarch32, level, sp_el0) in [
        (0x0, false, 0, true),
        (0x4, false, 1, true),
        (0x5, false, 1, false),
        (0x10, true, 0, true),
        (0x13, true, 1, false),
    ] {
        let mode = Mode::new(spsr, 0);
        assert_eq!((mode.is_aarch32(), mode.level()), (aarch32, level));
        assert!(aarch32 || mode.uses_sp_el0() == sp_el0);
    }
}

/// Arm ARM DDI 0487, D1.20.1, the table of the mapping, written down by hand: R13 and R14 of each mode.
#[test]
fn registers_of_aarch32_lie_where_the_manual_maps_them() {
    let modes = [
        (0x10, 13, 14),
        (0x11, 29, 30),
        (0x12, 17, 16),
        (0x13, 19, 18),
        (0x17, 21, 20),
        (0x1b, 23, 22),
        // System mode has the registers of user mode.
        (0x1f, 13, 14),
    ];
    for (bits, sp, lr) in modes {
        let mode = Mode::new(bits, 0);
        assert_eq!((mode.aarch32_register(13), mode.aarch32_register(14)), (Some(sp), Some(lr)));
        for number in 0..=7 {
            assert_eq!(mode.aarch32_register(number), Some(number));
        }
        for number in 8..=12 {
            let banked = if bits == 0x11 { number + 16 } else { number };
            assert_eq!(mode.aarch32_register(number), Some(banked));
        }
        assert_eq!(mode.aarch32_register(15), None);
        assert_eq!(mode.aarch32_register(255), None);
    }
    assert_eq!(little().aarch32_register(0), None);
}

/// Seen in Linux, c0f0963464c2: the number was mapped a second time. The processor has done so.
#[test]
fn the_register_of_an_aarch32_guest_is_not_mapped_again() {
    // `ldr lr, [r0]` in supervisor mode: LR_svc is X18, and SRT says so.
    let mut registers = Registers { spsr: 0x1d3, pc: 0x8000, ..Registers::default() };
    transfer(described(2, 18, 0), 0x5018, 0).complete(&mut registers, Mode::new(0x1d3, 0), 0x1234);
    assert_eq!((registers.x[18], registers.pc), (0x1234, 0x8004));
}

#[test]
fn the_program_counter_goes_on_by_the_length_of_the_instruction() {
    const IL: u64 = 1 << 25;
    let thumb = 0x1f3;
    for (esr, length) in [(described(0, 0, 0), 4), (described(0, 0, 0) & !IL, 2)] {
        for (spsr, pc, after) in [
            (EL1H, 0x8000, 0x8000 + length),
            (EL1H, u64::MAX - length + 1, 0),
            (thumb, 0xffff_fffc, (0xffff_fffc + length) & 0xffff_ffff),
            (thumb, 0xffff_fffe, (0xffff_fffe + length) & 0xffff_ffff),
        ] {
            let mut registers = Registers { pc, spsr, ..Registers::default() };
            transfer(esr, 0x5018, 0).complete(&mut registers, Mode::new(spsr, 0), 0);
            assert_eq!(registers.pc, after);
        }
    }
}

#[test]
fn the_process_state_goes_on_with_the_program_counter() {
    let after = |spsr| {
        let mut registers = Registers { spsr, ..Registers::default() };
        registers.advance(4);
        registers.spsr
    };
    // BTYPE and SS of AArch64; the flags, PAN, UAO and SSBS stay.
    assert_eq!(after(0xf0e0_1fc5 | 0b11 << 10), 0xf0c0_13c5);
    // The IT state of T32: `ITETE EQ` (cond 0000, mask 0101 then on).
    let it = |it: u64| 0x33 | (it & 0b1111_1100) << 8 | (it & 0b11) << 25;
    assert_eq!(after(it(0b0000_1011)), it(0b0001_0110));
    assert_eq!(after(it(0b0001_0110)), it(0b0000_1100));
    assert_eq!(after(it(0b0000_1100)), it(0b0001_1000));
    assert_eq!(after(it(0b0001_1000)), it(0));
    assert_eq!(after(it(0)), it(0));
    // The condition stays while there is one.
    assert_eq!(after(it(0b1110_0100)), it(0b1110_1000));
    assert_eq!(after(it(0b1111_1000)), it(0));
}

#[test]
fn a_described_access_is_made_at_its_own_address_without_a_translation() {
    let mut guest = Machine::default();
    guest.fill(0x900_0018, &[0x90]);
    let mut registers = numbered();
    let load = transfer(described(0, 3, 0), 0x5018, 0x900_0000);
    assert_eq!(load.execute(&mut registers, little(), &mut guest), Ok(()));
    assert_eq!((registers.x[3], registers.pc), (0x90, 0x8004));
    let store = transfer(described(3, 4, WNR | SF), 0x5018, 0x900_0000);
    assert_eq!(store.execute(&mut registers, big(), &mut guest), Ok(()));
    let written = vec![0x11, 0x11, 0x11, 0x11, 0, 0, 0, 4];
    assert_eq!(guest.events, [Event::Read(0x900_0018, 1), Event::Write(0x900_0018, written)]);
}

#[test]
fn a_described_access_across_a_page_is_made_in_two_pieces() {
    let mut guest = Machine::with_pages(&[(0x5000, 0x900_0000), (0x6000, 0x20_0000)]);
    let mut registers = numbered();
    registers.x[4] = 0x0807_0605_0403_0201;
    let store = transfer(described(3, 4, WNR | SF), 0x5ffd, 0x900_0000);
    assert_eq!(store.execute(&mut registers, little(), &mut guest), Ok(()));
    assert_eq!(
        guest.accesses(),
        [Event::Write(0x900_0ffd, vec![1, 2, 3]), Event::Write(0x20_0000, vec![4, 5, 6, 7, 8]),]
    );
    let mut after = registers;
    let load = transfer(described(3, 5, SF), 0x5ffd, 0x900_0000);
    assert_eq!(load.execute(&mut after, little(), &mut guest), Ok(()));
    assert_eq!((after.x[5], after.pc), (0x0807_0605_0403_0201, 0x8008));
    // The other order of bytes has other bytes in each piece.
    assert_eq!(load.execute(&mut after, big(), &mut guest), Ok(()));
    assert_eq!(after.x[5], 0x0102_0304_0506_0708);
}

#[test]
fn a_fault_of_the_second_piece_leaves_everything_as_it_was() {
    let mut guest = Machine::with_pages(&[(0x5000, 0x900_0000)]);
    let mut registers = numbered();
    for esr in [described(3, 4, WNR | SF), described(3, 4, SF)] {
        let result = transfer(esr, 0x5ffd, 0x900_0000).execute(&mut registers, little(), &mut guest);
        assert_eq!(result, Err(ExecuteError::Fault(Refusal::Unmapped(0x6000))));
        assert_eq!((registers, guest.accesses()), (numbered(), vec![]));
    }
    guest.pages.insert(0x6000, 0x20_0000);
    guest.stops = Some(0x20_0000);
    let result = transfer(described(3, 4, SF), 0x5ffd, 0x900_0000).execute(&mut registers, little(), &mut guest);
    assert_eq!((result, registers), (Err(ExecuteError::Fault(Refusal::Stop(0x20_0000))), numbered()));
}

#[test]
fn an_access_without_a_physical_address_is_translated() {
    let mut guest = Machine::with_pages(&[(0x5000, 0x30_0000)]);
    let esr = described(1, 4, WNR) & !0x3f | 0x0f;
    let mut registers = numbered();
    assert_eq!(transfer(esr, 0x5018, 0x900_0000).execute(&mut registers, little(), &mut guest), Ok(()));
    assert_eq!(guest.events, [Event::Translate(0x5018, MemoryAccessKind::Write), Event::Write(0x30_0018, vec![4, 0]),]);
}

#[test]
fn an_access_at_the_end_of_the_address_space_goes_on_at_its_start() {
    let mut guest = Machine::with_pages(&[(0xffff_ffff_ffff_f000, 0x20_0000), (0, 0x900_0000)]);
    let mut registers = numbered();
    let store = transfer(described(2, 4, WNR), u64::MAX, 0x20_0000);
    assert_eq!(store.execute(&mut registers, little(), &mut guest), Ok(()));
    assert_eq!(guest.accesses(), [Event::Write(0x20_0fff, vec![4]), Event::Write(0x900_0000, vec![0, 0, 0])]);
}

/// An AArch32 guest has no address above 4 GiB: what goes on there goes on at 0.
#[test]
fn an_access_of_aarch32_wraps_at_4_gib() {
    let mut guest = Machine::with_pages(&[(0xffff_f000, 0x20_0000), (0, 0x900_0000)]);
    let mut registers = Registers { spsr: 0x1d3, ..numbered() };
    let store = transfer(described(2, 4, WNR), 0xffff_ffff, 0x20_0000);
    assert_eq!(store.execute(&mut registers, Mode::new(0x1d3, 0), &mut guest), Ok(()));
    assert_eq!(guest.accesses(), [Event::Write(0x20_0fff, vec![4]), Event::Write(0x900_0000, vec![0, 0, 0])]);
}

#[test]
fn only_the_first_address_of_a_page_may_be_the_second_piece() {
    assert!(transfer(described(1, 0, 0), 0x5000, 0).may_begin_earlier());
    assert!(!transfer(described(0, 0, 0), 0x5000, 0).may_begin_earlier());
    assert!(!transfer(described(3, 0, 0), 0x5001, 0).may_begin_earlier());
}

#[test]
fn no_numbers_make_an_exit_panic() {
    let mut number = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        number
    };
    for _ in 0..100_000 {
        let esr = if next() & 1 == 0 { next() } else { 0x24 << 26 | next() & 0x3ff_ffff };
        match data_abort(Exit { esr, far: next(), hpfar: next() }) {
            Ok(DataAbort::Transfer(transfer)) => {
                let mode = Mode::new(next(), next());
                let mut registers = Registers { pc: next(), spsr: next(), ..Registers::default() };
                let _ = transfer.output(&registers, mode);
                transfer.complete(&mut registers, mode, next());
            }
            Ok(abort) => abort.skip(&mut Registers { pc: next(), spsr: next(), ..Registers::default() }),
            Err(error) => assert!(!error.to_string().is_empty() && error.esr() == esr),
        }
    }
}

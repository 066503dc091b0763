//! STOS, LODS, MOVS, CMPS and SCAS on a guest whose memory has devices in it.

mod guest;

use guest::{Event, Fault, Memory, Page, access};
use vm_device::exit::x86::instruction::decode;
use vm_device::exit::x86::{Gpr, MAX_BURST, MemoryAccess, MemoryAccessKind, Mode, Registers, Rflags};
use vm_device::exit::{ExecuteError, PAGE};

const REP: u8 = 0xf3;
const REPNE: u8 = 0xf2;

fn device() -> Page {
    Page::Device((0..PAGE).map(|byte| (byte % 251) as u8).collect())
}

fn ram(byte: u8) -> Page {
    Page::Ram(vec![byte; PAGE as usize])
}

fn guest(pages: impl IntoIterator<Item = Page>) -> Memory {
    let mut guest = Memory { last: u64::MAX, ..Memory::default() };
    for (number, page) in (5..).zip(pages) {
        guest.map(number * PAGE, page);
    }
    guest
}

fn registers(rsi: u64, rdi: u64, count: u64) -> Registers {
    let mut registers = Registers { rip: 0x100, ..Registers::default() };
    registers.set(Gpr::Rax, 0x1122_3344_5566_7788);
    registers.set(Gpr::Rsi, rsi);
    registers.set(Gpr::Rdi, rdi);
    registers.set(Gpr::Rcx, count);
    registers
}

/// RSI, RDI, RCX and RIP.
fn state(registers: &Registers) -> [u64; 4] {
    [registers.get(Gpr::Rsi), registers.get(Gpr::Rdi), registers.get(Gpr::Rcx), registers.rip]
}

/// An exit whose address belongs to no operand.
fn nowhere() -> MemoryAccess {
    MemoryAccess { page_walk: true, ..access(0, MemoryAccessKind::Write) }
}

fn execute(bytes: &[u8], registers: &mut Registers, guest: &mut Memory) -> Result<(), ExecuteError<Fault>> {
    decode(bytes, Mode::Bits64).unwrap().execute(registers, &nowhere(), guest)
}

/// Either side of MOVS may be a device, or both: each element is read where it is, and written where it goes, before the next.
#[test]
fn movs_has_a_device_on_either_side_or_on_both() {
    for (source, destination) in
        [(device(), ram(0)), (ram(0x5a), device()), (device(), device()), (device(), Page::Nothing)]
    {
        let mut guest = guest([source, destination]);
        let (from, to) = (guest.mapped[&5] * PAGE, guest.mapped[&6] * PAGE);
        let moved: Vec<u8> = (0x5010..0x501c).filter_map(|linear| guest.byte(linear)).collect();
        let mut after = registers(0x5010, 0x6020, 3);
        execute(&[REP, 0xa5], &mut after, &mut guest).unwrap();
        assert_eq!(state(&after), [0x501c, 0x602c, 0, 0x102]);
        let expected: Vec<_> =
            [Event::Translate(0x5010, MemoryAccessKind::Read), Event::Translate(0x6020, MemoryAccessKind::Write)]
                .into_iter()
                .chain((0..3).flat_map(|number| {
                    let element = moved[4 * number..][..4].to_vec();
                    let at = 4 * number as u64;
                    [Event::Read(from + 0x10 + at, element.clone()), Event::Write(to + 0x20 + at, element)]
                }))
                .collect();
        assert_eq!(guest.events, expected);
    }
}

/// The exit says where the operand of STOS, LODS and SCAS is, and nothing about the two of MOVS and CMPS.
#[test]
fn the_exit_places_an_operand_that_is_the_only_one() {
    for (opcode, is_only) in [(0xaa, true), (0xac, true), (0xae, true), (0xa4, false), (0xa6, false)] {
        let mut guest = guest([device()]);
        for (place, is_there) in [(0x10, true), (0x11, false)] {
            let exit = access(guest.mapped[&5] * PAGE + place, MemoryAccessKind::Write);
            let instruction = decode(&[opcode], Mode::Bits64).unwrap();
            instruction.execute(&mut registers(0x5010, 0x5010, 0), &exit, &mut guest).unwrap();
            let translates = guest.events.iter().any(|event| matches!(event, Event::Translate(..)));
            assert_eq!(translates, !(is_only && is_there), "{opcode:x}");
        }
    }
}

/// A fault of the write is found before the source is read.
#[test]
fn movs_reads_nothing_if_it_cannot_write() {
    let mut guest = guest([device()]);
    let mut after = registers(0x5010, 0x6020, 3);
    let outcome = execute(&[REP, 0xa4], &mut after, &mut guest);
    assert_eq!(outcome, Err(ExecuteError::Fault(Fault::Page(0x6020, MemoryAccessKind::Write))));
    assert_eq!((state(&after), guest.accesses()), ([0x5010, 0x6020, 3, 0x100], vec![]));
}

/// A burst ends where either operand leaves its page; an element over two pages is a burst of its own.
#[test]
fn bursts_end_with_the_page() {
    let mut guest = guest([device(), device(), ram(0), ram(0)]);
    let bytes: Vec<u8> = (0x5ff1..0x5ff1 + 12 * 4).filter_map(|linear| guest.byte(linear)).collect();
    let mut after = registers(0x5ff1, 0x7ffc - 4 * 4, 12);
    let mut counts = Vec::new();
    while after.rip == 0x100 {
        execute(&[REP, 0xa5], &mut after, &mut guest).unwrap();
        counts.push(after.get(Gpr::Rcx));
    }
    // Three whole in the first page of the source, one over its end; the rest of the destination's page; and the rest.
    assert_eq!(counts, [9, 8, 7, 0]);
    let moved: Vec<u8> = (0x7fec..0x7fec + 12 * 4).filter_map(|linear| guest.byte(linear)).collect();
    assert_eq!(moved, bytes);
}

/// At most so many elements in one call, in both directions.
#[test]
fn bursts_have_a_limit() {
    for (flags, start, end) in [(Rflags::empty(), 0x5000, 0x5000 + 100), (Rflags::DF, 0x5fff, 0x5fff - 100)] {
        let mut guest = guest([device()]);
        let mut after = Registers { rflags: flags.bits(), ..registers(0, start, 100) };
        execute(&[REP, 0xaa], &mut after, &mut guest).unwrap();
        assert_eq!((after.get(Gpr::Rcx), after.rip), (100 - MAX_BURST, 0x100));
        execute(&[REP, 0xaa], &mut after, &mut guest).unwrap();
        assert_eq!(state(&after), [0, end, 0, 0x102]);
        assert_eq!(guest.accesses().len(), 100);
    }
}

/// An interrupt that waits ends the burst after the element that is under way, and a guest that single-steps does one.
#[test]
fn an_interrupt_or_a_trap_ends_the_burst() {
    for left in 0..4 {
        let mut guest = Memory { interrupt: Some(left), ..guest([device()]) };
        let mut after = registers(0, 0x5000, 10);
        execute(&[REP, 0xab], &mut after, &mut guest).unwrap();
        let done = u64::from(left) + 1;
        assert_eq!(state(&after), [0, 0x5000 + 4 * done, 10 - done, 0x100]);
    }
    let mut guest = guest([device()]);
    let mut after = Registers { rflags: Rflags::TF.bits(), ..registers(0, 0x5000, 10) };
    execute(&[REP, 0xab], &mut after, &mut guest).unwrap();
    assert_eq!(state(&after), [0, 0x5004, 9, 0x100]);
}

/// A device that fails in the middle: what was done is done and counted, and the guest stands before the rest.
#[test]
fn a_failure_in_the_middle_counts_what_was_done() {
    // stosw, lodsw, movsw, scasw, cmpsw, the last two among equal elements.
    for opcode in [0xab_u8, 0xad, 0xa5, 0xaf, 0xa7] {
        let mut guest = guest([ram(0x88), ram(0x88)]);
        let failing = if opcode == 0xad { 5 } else { 6 };
        guest.failing = Some(guest.mapped[&failing] * PAGE + 7);
        let mut after = registers(0x5000, 0x6000, 10);
        after.set(Gpr::Rax, 0xffff_ffff_ffff_8888);
        after.rflags = Rflags::RF.bits() | Rflags::CF.bits();
        let before = after;
        let outcome = execute(&[REP, 0x66, opcode], &mut after, &mut guest);
        assert_eq!(outcome, Err(ExecuteError::Fault(Fault::Failed(guest.failing.unwrap()))));
        let uses = |index| match (opcode, index) {
            (0xa5 | 0xa7, _) | (0xad, Gpr::Rsi) | (0xab | 0xaf, Gpr::Rdi) => 6,
            _ => 0,
        };
        assert_eq!(state(&after), [0x5000 + uses(Gpr::Rsi), 0x6000 + uses(Gpr::Rdi), 7, 0x100], "{opcode:x}");
        // The flags are those from before, and the loaded value that of the last element that was done.
        assert_eq!((after.rflags, after.rax()), (before.rflags, 0xffff_ffff_ffff_8888));
    }
}

/// REPE ends at the first elements that differ, REPNE at the first that are equal, both at the end of the count. The flags are
/// those of the last comparison.
#[test]
fn comparisons_end_where_the_manual_says() {
    for (prefix, opcode, at, count, done, is_equal) in [
        (REP, 0xae, Some(5), 20, 6, false),
        (REP, 0xae, None, 20, 20, true),
        (REPNE, 0xae, Some(5), 20, 1, true),
        (REP, 0xa6, Some(70), 100, 71, false),
        (REP, 0xa6, None, 100, 100, true),
        (REPNE, 0xa6, None, 100, 1, true),
        (REP, 0xa6, Some(99), 100, 100, false),
    ] {
        let mut guest = guest([ram(0x88), device()]);
        for linear in 0x6000..0x7000 {
            guest.set_byte(linear, 0x88);
        }
        if let Some(at) = at {
            guest.set_byte(0x6000 + at, 0x99);
        }
        let mut after = registers(0x5000, 0x6000, count);
        let mut calls = 0;
        while after.rip == 0x100 {
            execute(&[prefix, opcode], &mut after, &mut guest).unwrap();
            calls += 1;
        }
        let rsi = if opcode == 0xa6 { 0x5000 + done } else { 0x5000 };
        assert_eq!(state(&after), [rsi, 0x6000 + done, count - done, 0x102]);
        assert_eq!(calls, done.div_ceil(MAX_BURST));
        // 0x88 - 0x99 borrows, from bit 3 too, and is negative; 0x88 - 0x88 is zero, whose parity is even.
        let flags = if is_equal { Rflags::ZF | Rflags::PF } else { Rflags::CF | Rflags::SF | Rflags::AF };
        assert_eq!(after.flags(), flags, "{prefix:x} {opcode:x}");
    }
}

/// A count of 0 changes RIP alone, whatever lies at the operands.
#[test]
fn a_count_of_0_changes_rip_alone() {
    for opcode in [0xa4, 0xa6, 0xaa, 0xac, 0xae] {
        for (prefix, count) in [(&[][..], 0), (&[0x67], 0xabcd_0000_0000)] {
            let mut guest = guest([]);
            let mut after =
                Registers { rflags: Rflags::RF.bits() | Rflags::CF.bits(), ..registers(u64::MAX, u64::MAX, count) };
            let expected = Registers { rip: 0x102 + prefix.len() as u64, rflags: Rflags::CF.bits(), ..after };
            execute(&[prefix, &[REP, opcode]].concat(), &mut after, &mut guest).unwrap();
            assert_eq!((after, guest.events), (expected, vec![]));
        }
    }
}

/// Offsets wrap at 64 KiB with 16-bit addresses, counts and pointers keep their upper halves, and ES and the segment of the
/// source have bases of their own.
#[test]
fn offsets_of_16_bits_wrap_within_their_segments() {
    let mut guest = Memory { last: 0xffff_ffff, ..Memory::flat() };
    guest.bases[0] = 0x2_0000;
    guest.bases[3] = 0x4_0000;
    for offset in 0..8 {
        guest.set_byte(0x4_fffc_u64 + offset % 4 - if offset < 4 { 0 } else { 0xfffc }, 0x10 + offset as u8);
    }
    let mut after = registers(0xaaaa_fffc, 0xbbbb_fffe, 0xcccc_0004);
    let instruction = decode(&[REP, 0xa5], Mode::Bits16).unwrap();
    while after.rip == 0x100 {
        instruction.execute(&mut after, &nowhere(), &mut guest).unwrap();
    }
    assert_eq!(state(&after), [0xaaaa_0004, 0xbbbb_0006, 0xcccc_0000, 0x102]);
    let moved: Vec<_> = [0x2_fffe, 0x2_ffff, 0x2_0000, 0x2_0001, 0x2_0002, 0x2_0003, 0x2_0004, 0x2_0005]
        .map(|linear| guest.byte(linear))
        .to_vec();
    assert_eq!(moved, (0x10..0x18).map(Some).collect::<Vec<_>>());
}

/// A segment's limit in the middle ends the burst before it, and faults when the guest comes back.
#[test]
fn a_limit_in_the_middle_ends_the_burst() {
    let mut guest = Memory { limit: Some(0x5007), ..guest([device()]) };
    let mut after = registers(0, 0x5000, 10);
    let outcome = loop {
        let outcome = execute(&[REP, 0x66, 0xab], &mut after, &mut guest);
        if outcome.is_err() {
            break outcome;
        }
    };
    assert_eq!(outcome, Err(ExecuteError::Fault(Fault::Limit(vm_device::exit::x86::Segment::Es, 0x5008))));
    assert_eq!((state(&after), guest.accesses().len()), ([0, 0x5008, 6, 0x100], 4));
}

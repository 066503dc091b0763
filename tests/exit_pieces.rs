//! Instructions whose operands lie in RAM, in a device, in nothing, or across pages of them.

mod guest;

use guest::{Event, Fault, Memory, Page, access};
use vm_device::exit::x86::instruction::decode;
use vm_device::exit::x86::{AddressSize, Gpr, MemoryAccess, MemoryAccessKind, Mode, Registers, Rflags, svm, vmx};
use vm_device::exit::{ExecuteError, PAGE};

/// Where the second page of an operand begins.
const SECOND: u64 = 0x6000;

fn ram() -> Page {
    Page::Ram((0..PAGE).map(|byte| (byte % 251) as u8).collect())
}

fn device() -> Page {
    Page::Device((0..PAGE).map(|byte| !(byte % 241) as u8).collect())
}

/// A guest with pages from 0x5000 on, and its vector registers.
fn guest(pages: impl IntoIterator<Item = Page>) -> Memory {
    let vectors = core::array::from_fn(|register| core::array::from_fn(|byte| (16 * register + byte) as u8));
    let mut guest = Memory { last: u64::MAX, vectors: Some(vectors), ..Memory::default() };
    for (number, page) in (5..).zip(pages) {
        guest.map(number * PAGE, page);
    }
    guest
}

fn bytes(guest: &mut Memory, linear: u64, length: u64) -> Vec<u8> {
    (linear..linear + length).map(|linear| guest.byte(linear).expect("it is mapped")).collect()
}

/// The exit that an access at a linear address makes: it tells the guest physical address.
fn exit(guest: &Memory, linear: u64, kind: MemoryAccessKind) -> MemoryAccess {
    access(guest.mapped[&(linear / PAGE)] * PAGE + linear % PAGE, kind)
}

/// RDI, where the operands are, and values in the other registers.
fn registers(rdi: u64) -> Registers {
    let mut registers = Registers { rip: 0x100, rflags: 2, ..Registers::default() };
    registers.gpr = core::array::from_fn(|number| 0x0102_0304_0506_0708 * (number as u64 + 1));
    registers.set(Gpr::Rdi, rdi);
    registers
}

fn execute(
    bytes: &[u8],
    registers: &mut Registers,
    exit: &MemoryAccess,
    guest: &mut Memory,
) -> Result<(), ExecuteError<Fault>> {
    decode(bytes, Mode::Bits64).unwrap().execute(registers, exit, guest)
}

/// An instruction with a memory operand at RDI: what it is of, its length, whether it reads and writes, and what it makes
/// of the operand.
struct Case {
    bytes: &'static [u8],
    length: usize,
    kind: MemoryAccessKind,
    after: fn(Vec<u8>, &Registers) -> Vec<u8>,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

const CASES: &[Case] = {
    use MemoryAccessKind::{Read, Write};
    &[
        // mov ax, eax, rax, [rdi]
        Case { bytes: &[0x66, 0x8b, 0x07], length: 2, kind: Read, after: |memory, _| memory },
        Case { bytes: &[0x8b, 0x07], length: 4, kind: Read, after: |memory, _| memory },
        Case { bytes: &[0x48, 0x8b, 0x07], length: 8, kind: Read, after: |memory, _| memory },
        // mov [rdi], ax, eax, rax
        Case {
            bytes: &[0x66, 0x89, 0x07],
            length: 2,
            kind: Write,
            after: |_, before| before.rax().to_le_bytes()[..2].to_vec(),
        },
        Case {
            bytes: &[0x89, 0x07],
            length: 4,
            kind: Write,
            after: |_, before| before.rax().to_le_bytes()[..4].to_vec(),
        },
        Case {
            bytes: &[0x48, 0x89, 0x07],
            length: 8,
            kind: Write,
            after: |_, before| before.rax().to_le_bytes().to_vec(),
        },
        // add [rdi], ax, eax, rax
        Case {
            bytes: &[0x66, 0x01, 0x07],
            length: 2,
            kind: Write,
            after: |memory, before| number(&memory).wrapping_add(before.rax()).to_le_bytes()[..2].to_vec(),
        },
        Case {
            bytes: &[0x01, 0x07],
            length: 4,
            kind: Write,
            after: |memory, before| number(&memory).wrapping_add(before.rax()).to_le_bytes()[..4].to_vec(),
        },
        Case {
            bytes: &[0x48, 0x01, 0x07],
            length: 8,
            kind: Write,
            after: |memory, before| number(&memory).wrapping_add(before.rax()).to_le_bytes().to_vec(),
        },
        // movups xmm1, [rdi]; movups [rdi], xmm1; vmovups ymm1, [rdi]; vmovups [rdi], ymm1
        Case { bytes: &[0x0f, 0x10, 0x0f], length: 16, kind: Read, after: |memory, _| memory },
        Case { bytes: &[0x0f, 0x11, 0x0f], length: 16, kind: Write, after: |_, _| (16..32).collect() },
        Case { bytes: &[0xc5, 0xfc, 0x10, 0x0f], length: 32, kind: Read, after: |memory, _| memory },
        Case { bytes: &[0xc5, 0xfc, 0x11, 0x0f], length: 32, kind: Write, after: |_, _| (16..48).collect() },
        // cmpxchg8b [rdi], of a pair that is not equal
        Case { bytes: &[0x0f, 0xc7, 0x0f], length: 8, kind: Write, after: |memory, _| memory },
    ]
};

/// Every split point of every case, with each pair of what the pages may be: exactly the bytes of the operand are read and
/// written, in order, where each belongs.
#[test]
fn an_operand_over_two_pages_has_its_bytes_in_each() {
    let pages = [ram, device, || Page::Nothing];
    for (first, second) in pages.into_iter().flat_map(|first| pages.map(|second| (first, second))) {
        for case in CASES {
            for split in 1..case.length as u64 {
                let mut guest = guest([first(), second()]);
                let operand = SECOND - split;
                let memory = bytes(&mut guest, operand, case.length as u64);
                let mut expected = guest.clone();
                let mut after = registers(operand);
                // The exit names whichever of the pages is not RAM.
                let exit = exit(&guest, SECOND, case.kind);
                execute(case.bytes, &mut after, &exit, &mut guest).unwrap();
                if case.kind == MemoryAccessKind::Write {
                    let written = (case.after)(memory.clone(), &registers(operand));
                    for (linear, byte) in (operand..).zip(written) {
                        expected.set_byte(linear, byte);
                    }
                }
                assert_eq!(guest.pages, expected.pages, "{:02x?} {split}", case.bytes);
                check_loaded(case, &after, &guest, &memory);
                check_order(&guest, operand, split, case);
            }
        }
    }
}

/// What a load has left in its register.
fn check_loaded(case: &Case, after: &Registers, guest: &Memory, memory: &[u8]) {
    if case.kind != MemoryAccessKind::Read {
        return;
    }
    match case.length {
        length @ ..=8 => assert_eq!(after.rax().to_le_bytes()[..length], *memory),
        length => assert_eq!(guest.vectors.unwrap()[1][..length], *memory),
    }
}

/// Both pages are translated, the first one first, before anything is read or written; reads come before writes, and each
/// of them goes up.
fn check_order(guest: &Memory, operand: u64, split: u64, case: &Case) {
    let [Event::Translate(first, kind), Event::Translate(second, _), accesses @ ..] = &guest.events[..] else {
        panic!("{:?}", guest.events)
    };
    assert_eq!((*first, *second, *kind), (operand, SECOND, case.kind));
    let at = |linear: u64| guest.mapped[&(linear / PAGE)] * PAGE + linear % PAGE;
    let order: Vec<_> = accesses
        .iter()
        .map(|event| match event {
            Event::Read(address, data) => (false, *address, data.len() as u64),
            Event::Write(address, data) => (true, *address, data.len() as u64),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(order.is_sorted_by_key(|(is_write, ..)| *is_write));
    for writes in [false, true] {
        let mut next = operand;
        for (_, address, length) in order.iter().filter(|(is_write, ..)| *is_write == writes) {
            assert_eq!(*address, at(next));
            next += length;
        }
        assert!(next == operand || next == operand + case.length as u64, "{order:?}, split at {split}");
    }
}

/// A page that is not mapped behind RAM or a device: the guest gets its fault, and no part of the operand is accessed.
#[test]
fn a_fault_in_the_second_piece_leaves_everything() {
    for first in [ram, device] {
        for case in CASES {
            for split in 1..case.length as u64 {
                let mut guest = guest([first()]);
                let before = guest.state();
                let operand = SECOND - split;
                let exit = exit(&guest, operand, case.kind);
                let mut after = registers(operand);
                let outcome = execute(case.bytes, &mut after, &exit, &mut guest);
                assert_eq!(outcome, Err(ExecuteError::Fault(Fault::Page(SECOND, case.kind))), "{:02x?}", case.bytes);
                assert_eq!(after, registers(operand));
                assert_eq!(guest.accesses(), []);
                assert_eq!(guest.state(), before);
            }
        }
    }
}

/// A device that fails leaves the registers, also if it is the second piece of what is written.
#[test]
fn a_failing_device_leaves_the_registers() {
    for case in CASES {
        for failing in [0, case.length as u64 - 1] {
            let mut guest = guest([device(), device()]);
            guest.failing = Some(exit(&guest, SECOND - 1 + failing, case.kind).address.0);
            let exit = exit(&guest, SECOND - 1, case.kind);
            let mut after = registers(SECOND - 1);
            let before = guest.vectors;
            let outcome = execute(case.bytes, &mut after, &exit, &mut guest);
            assert!(matches!(outcome, Err(ExecuteError::Fault(Fault::Failed(_)))), "{:02x?}", case.bytes);
            assert_eq!((after, guest.vectors), (registers(SECOND - 1), before));
        }
    }
}

/// An operand in one page is in the page that the exit named. That page is not translated again.
#[test]
fn an_operand_in_one_page_is_where_the_exit_says() {
    for case in CASES {
        let mut guest = guest([device(), device()]);
        let operand = SECOND - case.length as u64;
        // The exit may name any byte of the operand.
        let exit = exit(&guest, SECOND - 1, case.kind);
        execute(case.bytes, &mut registers(operand), &exit, &mut guest).unwrap();
        assert!(guest.events.iter().all(|event| !matches!(event, Event::Translate(..))), "{:02x?}", case.bytes);
        assert!(guest.events.iter().all(|event| match event {
            Event::Read(address, _) | Event::Write(address, _) => address / PAGE == exit.address.0 / PAGE,
            _ => false,
        }));
    }
}

/// The guest's other processors may change an instruction after it made the exit. What the guest's page tables allow to read is
/// not written because of that.
#[test]
fn an_exit_of_another_kind_tells_nothing_about_the_operand() {
    for case in CASES.iter().filter(|case| case.kind == MemoryAccessKind::Write) {
        let mut guest = guest([device()]);
        let read = exit(&guest, 0x5000, MemoryAccessKind::Read);
        let page_walk = MemoryAccess { page_walk: true, ..exit(&guest, 0x5000, MemoryAccessKind::Write) };
        let fetch = exit(&guest, 0x5000, MemoryAccessKind::Fetch);
        for exit in [read, page_walk, fetch] {
            guest.events.clear();
            execute(case.bytes, &mut registers(0x5000), &exit, &mut guest).unwrap();
            assert_eq!(guest.events[0], Event::Translate(0x5000, MemoryAccessKind::Write));
        }
    }
}

/// What the guest's other processors put in the place of the instruction may have its operand elsewhere. Such an operand is not
/// taken for the one of the exit, unless it has the same place in its page.
#[test]
fn an_exit_elsewhere_in_a_page_tells_nothing_about_the_operand() {
    for case in CASES {
        let last = case.length as u64 - 1;
        for (distance, is_told) in [(0, true), (last, true), (last + 1, false), (PAGE - 1, false)] {
            let mut guest = guest([device(), device()]);
            let operand = SECOND + 0x40;
            // The exit was of the other page.
            let exit = exit(&guest, 0x5000 + (0x40 + distance) % PAGE, case.kind);
            execute(case.bytes, &mut registers(operand), &exit, &mut guest).unwrap();
            let translates = guest.events[0] == Event::Translate(operand, case.kind);
            assert_eq!(translates, !is_told, "{:02x?} {distance}", case.bytes);
        }
    }
}

/// Outside 64-bit mode the linear address after 0xffff_ffff is 0.
#[test]
fn an_operand_wraps_at_4_gib_outside_64_bit_mode() {
    for (mode, next) in [(Mode::Bits32, 0), (Mode::Bits64, 0x1_0000_0000)] {
        let mut guest = Memory { last: if mode == Mode::Bits64 { u64::MAX } else { 0xffff_ffff }, ..Memory::default() };
        guest.map(0xffff_f000, device());
        guest.map(next, device());
        let exit = exit(&guest, 0xffff_fffe, MemoryAccessKind::Write);
        // mov [rdi], eax
        let mut after = registers(0xffff_fffe);
        decode(&[0x89, 0x07], mode).unwrap().execute(&mut after, &exit, &mut guest).unwrap();
        let rax = registers(0).rax().to_le_bytes();
        assert_eq!(bytes(&mut guest, 0xffff_fffe, 2), rax[..2]);
        assert_eq!(bytes(&mut guest, next, 2), rax[2..4]);
    }
}

/// Linux and Xen once gave an operand over RAM and a device to the device, whole: the bytes in RAM were lost, and the device
/// saw an access beyond its page.
#[test]
fn page_crossing_mmio_of_linux_and_xen_leaves_each_page_its_bytes() {
    let mut guest = guest([ram(), device()]);
    let exit = exit(&guest, SECOND, MemoryAccessKind::Write);
    // mov dword [rdi], 0x44332211, one byte of it in RAM
    execute(&[0xc7, 0x07, 0x11, 0x22, 0x33, 0x44], &mut registers(SECOND - 1), &exit, &mut guest).unwrap();
    assert_eq!(guest.byte(SECOND - 1), Some(0x11));
    assert_eq!(guest.accesses(), [Event::Write(exit.address.0, vec![0x22, 0x33, 0x44])]);
}

/// PUSH reads its operand before the stack is touched, and RSP is as it was if the stack cannot be written.
#[test]
fn push_from_mmio_stores_on_the_stack() {
    let mut guest = guest([ram(), device()]);
    let exit = exit(&guest, SECOND + 0x10, MemoryAccessKind::Read);
    // push qword [rdi + 0x10], over the start of the RAM
    let mut after = registers(SECOND);
    after.set(Gpr::Rsp, 0x5008);
    let pushed = bytes(&mut guest, SECOND + 0x10, 8);
    execute(&[0xff, 0x77, 0x10], &mut after, &exit, &mut guest).unwrap();
    assert_eq!((after.get(Gpr::Rsp), after.rip), (0x5000, 0x103));
    assert_eq!(bytes(&mut guest, 0x5000, 8), pushed);
    // The next one has no stack.
    let before = (after, guest.state());
    let outcome = execute(&[0xff, 0x77, 0x10], &mut after, &exit, &mut guest);
    assert_eq!(outcome, Err(ExecuteError::Fault(Fault::Page(0x4ff8, MemoryAccessKind::Write))));
    guest.accesses();
    assert_eq!((after, guest.state()), before);
    // pop word [rdi] puts two bytes into the device.
    execute(&[0x66, 0x8f, 0x07], &mut after, &exit, &mut guest).unwrap();
    assert_eq!(guest.accesses().last(), Some(&Event::Write(exit.address.0 - 0x10, pushed[..2].to_vec())));
    assert_eq!(after.get(Gpr::Rsp), 0x5002);
}

/// Where neither operand is mapped, the fault is that of the one that is read.
#[test]
fn what_is_read_faults_before_what_is_written() {
    for (code, fault) in [([0xff, 0x37], 0x8000), ([0x8f, 0x07], 0x9000)] {
        let mut guest = guest([]);
        let mut after = registers(0x8000);
        after.set(Gpr::Rsp, 0x9000);
        let outcome = execute(&code, &mut after, &access(0x8000, MemoryAccessKind::Fetch), &mut guest);
        assert_eq!(outcome, Err(ExecuteError::Fault(Fault::Page(fault, MemoryAccessKind::Read))));
    }
}

/// What is pushed and popped lies in SS, and the other operand in the segment of its own.
#[test]
fn the_top_of_the_stack_is_in_the_stack_segment() {
    use MemoryAccessKind::{Read, Write};
    // push dword fs:[edi] and pop dword fs:[edi] in 32-bit code.
    for (code, top, kinds) in [([0x64, 0xff, 0x37], 0x8ffc, [Read, Write]), ([0x64, 0x8f, 0x07], 0x9000, [Write, Read])]
    {
        let mut guest =
            Memory { last: 0xffff_ffff, bases: [0, 1, 2, 3, 4, 5].map(|base| base << 20), ..Memory::flat() };
        let mut after = registers(0x8000);
        after.set(Gpr::Rsp, 0x9000);
        let instruction = decode(&code, Mode::Bits32).unwrap();
        instruction.execute(&mut after, &access(0x8000, MemoryAccessKind::Fetch), &mut guest).unwrap();
        let translations = [Event::Translate(0x40_8000, kinds[0]), Event::Translate(0x20_0000 + top, kinds[1])];
        assert!(translations.iter().all(|event| guest.events.contains(event)), "{:?}", guest.events);
    }
}

/// The bus sees a write of CMPXCHG, CMPXCHG8B and CMPXCHG16B in any case: of what was read, if the comparison failed.
#[test]
fn a_comparison_that_fails_writes_what_was_read() {
    for code in [&[0xf0, 0x0f, 0xb1, 0x0f][..], &[0xf0, 0x0f, 0xc7, 0x0f], &[0xf0, 0x48, 0x0f, 0xc7, 0x0f]] {
        let mut guest = guest([device()]);
        let exit = exit(&guest, 0x5010, MemoryAccessKind::Write);
        execute(code, &mut registers(0x5010), &exit, &mut guest).unwrap();
        let (reads, writes): (Vec<_>, Vec<_>) =
            guest.accesses().into_iter().partition(|event| matches!(event, Event::Read(..)));
        let read: Vec<_> = reads
            .into_iter()
            .map(|event| if let Event::Read(address, data) = event { Event::Write(address, data) } else { event })
            .collect();
        assert_eq!(writes, read, "{code:02x?}");
        assert!(!writes.is_empty());
    }
}

/// A guest whose stack has another address size than its code.
struct Stack(Memory, AddressSize);

mod stack {
    use vm_device::GuestAddress;
    use vm_device::exit::Guest;
    use vm_device::exit::x86::{AddressSize, MemoryAccessKind, Mode, Segment, X86Guest};

    use super::{Fault, Stack};

    impl Guest for Stack {
        type Fault = Fault;
        fn translate(&mut self, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, Fault> {
            self.0.translate(address, kind)
        }
        fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Fault> {
            self.0.read(address, data)
        }
        fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Fault> {
            self.0.write(address, data)
        }
    }

    impl X86Guest for Stack {
        fn linear(
            &mut self,
            segment: Segment,
            offset: u64,
            length: usize,
            kind: MemoryAccessKind,
        ) -> Result<u64, Fault> {
            self.0.linear(segment, offset, length, kind)
        }
        fn stack_address_size(&mut self, mode: Mode) -> AddressSize {
            assert_ne!(mode, Mode::Bits64);
            self.1
        }
        fn input(&mut self, _: u16, _: &mut [u8]) -> Result<(), Fault> {
            unreachable!()
        }
        fn output(&mut self, _: u16, _: &[u8]) -> Result<(), Fault> {
            unreachable!()
        }
    }
}

/// RSP has the width of the stack segment outside 64-bit mode, and wraps there.
#[test]
fn the_stack_pointer_has_the_width_of_the_stack() {
    // push dword [edi] and pop dword [edi] in 32-bit code.
    for (stack, rsp, pushed, is_push) in [
        (AddressSize::Bits16, 0xaaaa_bbbb_cccc_0002, 0xaaaa_bbbb_cccc_fffe, true),
        (AddressSize::Bits16, 0xaaaa_bbbb_cccc_fffc, 0xaaaa_bbbb_cccc_0000, false),
        (AddressSize::Bits32, 2, 0xffff_fffe, true),
        (AddressSize::Bits32, 0xffff_fffc, 0, false),
    ] {
        let mut guest = Stack(Memory { last: 0xffff_ffff, ..Memory::flat() }, stack);
        let device = guest.0.map(0x5000, device());
        let mut after = registers(0x5000);
        after.set(Gpr::Rsp, rsp);
        let code: &[u8] = if is_push { &[0xff, 0x37] } else { &[0x8f, 0x07] };
        let kind = if is_push { MemoryAccessKind::Read } else { MemoryAccessKind::Write };
        decode(code, Mode::Bits32).unwrap().execute(&mut after, &access(device, kind), &mut guest).unwrap();
        assert_eq!(after.get(Gpr::Rsp), pushed, "{stack:?} {is_push}");
        let top = stack.size().truncate(if is_push { pushed } else { rsp });
        assert!(
            guest.0.events.contains(&Event::Translate(
                top,
                if is_push { MemoryAccessKind::Write } else { MemoryAccessKind::Read }
            ))
        );
    }
}

/// IncludeOS#111: a guest's memcpy used MOVAPS on a device, and ended.
#[test]
fn includeos_111_movaps_moves_16_bytes_to_and_from_a_device() {
    let mut guest = guest([device()]);
    let exit = exit(&guest, 0x5010, MemoryAccessKind::Write);
    // movaps xmm2, [rdi]; movaps [rdi + 0x10], xmm2
    let read = bytes(&mut guest, 0x5010, 16);
    let mut after = registers(0x5010);
    execute(&[0x0f, 0x28, 0x17], &mut after, &exit, &mut guest).unwrap();
    let mut expected = [0; 32];
    expected[..16].copy_from_slice(&read);
    // SSE keeps what lies above.
    expected[16..].copy_from_slice(&core::array::from_fn::<u8, 16, _>(|byte| 48 + byte as u8));
    assert_eq!(guest.vectors.unwrap()[2], expected);
    execute(&[0x0f, 0x29, 0x57, 0x10], &mut after, &exit, &mut guest).unwrap();
    assert_eq!(bytes(&mut guest, 0x5020, 16), read);
    assert_eq!(after.rip, 0x107);
}

/// illumos-kvm#15: MOVNTDQ into the frame buffer ended the guest.
#[test]
fn illumos_kvm_15_movntdq_stores_16_bytes() {
    let mut guest = guest([device()]);
    let exit = exit(&guest, 0x5020, MemoryAccessKind::Write);
    // movntdq [rdi], xmm1
    execute(&[0x66, 0x0f, 0xe7, 0x0f], &mut registers(0x5020), &exit, &mut guest).unwrap();
    let parts =
        [Event::Write(exit.address.0, (16..24).collect()), Event::Write(exit.address.0 + 8, (24..32).collect())];
    assert_eq!(guest.accesses(), parts);
}

#[test]
fn vector_moves_clear_and_keep_what_the_manual_says() {
    // The bytes that are loaded, cleared, and kept: movd, movq, movss, movsd, movups; the same with VEX, and ymm.
    for (code, loaded, cleared) in [
        (&[0x66, 0x0f, 0x6e, 0x0f][..], 4, 16),
        (&[0xf3, 0x0f, 0x7e, 0x0f], 8, 16),
        (&[0xf3, 0x0f, 0x10, 0x0f], 4, 16),
        (&[0xf2, 0x0f, 0x10, 0x0f], 8, 16),
        (&[0x0f, 0x10, 0x0f], 16, 16),
        (&[0xc5, 0xf9, 0x6e, 0x0f], 4, 32),
        (&[0xc5, 0xfa, 0x7e, 0x0f], 8, 32),
        (&[0xc5, 0xf8, 0x10, 0x0f], 16, 32),
        (&[0xc5, 0xfc, 0x10, 0x0f], 32, 32),
    ] {
        let mut guest = guest([device()]);
        let exit = exit(&guest, 0x5003, MemoryAccessKind::Read);
        let mut expected = guest.vectors.unwrap();
        expected[1][..cleared].fill(0);
        expected[1][..loaded].copy_from_slice(&bytes(&mut guest, 0x5003, loaded as u64));
        execute(code, &mut registers(0x5003), &exit, &mut guest).unwrap();
        assert_eq!(guest.vectors, Some(expected), "{code:02x?}");
    }
}

/// What has to be aligned is not accessed if it is not, nor is what would need a vector register that is not there.
#[test]
fn what_cannot_be_moved_touches_nothing() {
    for (code, alignment) in [
        (&[0x0f, 0x28, 0x0f][..], 16),         // movaps xmm1, [rdi]
        (&[0x66, 0x0f, 0x7f, 0x0f], 16),       // movdqa [rdi], xmm1
        (&[0x66, 0x0f, 0x38, 0x2a, 0x0f], 16), // movntdqa xmm1, [rdi]
        (&[0xc5, 0xfc, 0x28, 0x0f], 32),       // vmovaps ymm1, [rdi]
        (&[0xc5, 0xfd, 0xe7, 0x0f], 32),       // vmovntdq [rdi], ymm1
        (&[0xf0, 0x48, 0x0f, 0xc7, 0x0f], 16), // lock cmpxchg16b [rdi]
    ] {
        let mut guest = guest([device()]);
        let before = guest.state();
        let exit = exit(&guest, 0x5000, MemoryAccessKind::Write);
        for offset in 0..2 * alignment {
            let mut after = registers(0x5000 + offset);
            let outcome = execute(code, &mut after, &exit, &mut guest);
            if offset % alignment == 0 {
                assert_eq!(outcome, Ok(()), "{code:02x?}");
                guest = before.clone();
            } else {
                assert_eq!(outcome, Err(ExecuteError::Misaligned(0x5000 + offset)), "{code:02x?}");
                assert_eq!((after, &guest.events), (registers(0x5000 + offset), &Vec::new()));
            }
        }
    }
    let mut guest = Memory { vectors: None, ..guest([device()]) };
    let exit = exit(&guest, 0x5000, MemoryAccessKind::Write);
    let mut after = registers(0x5000);
    for code in [[0x0f, 0x10, 0x0f], [0x0f, 0x11, 0x0f]] {
        assert_eq!(execute(&code, &mut after, &exit, &mut guest), Err(ExecuteError::NoVectorRegisters));
    }
    assert_eq!((after, guest.events), (registers(0x5000), Vec::new()));
}

/// From the numbers of an exit to the registers after it, on both vendors' processors.
#[test]
fn the_numbers_of_an_exit_lead_to_the_registers_after_it() {
    let mut guest = guest([device()]);
    let address = exit(&guest, 0x5004, MemoryAccessKind::Read).address.0;
    let value = number(&bytes(&mut guest, 0x5004, 4));
    for access in [svm::memory_access(0x1_0000_0004, address), vmx::memory_access(0x181, address)] {
        // mov ecx, [rdi + 4]
        let mut after = registers(0x5000);
        execute(&[0x8b, 0x4f, 0x04], &mut after, &access, &mut guest).unwrap();
        assert_eq!((after.get(Gpr::Rcx), after.rip), (value, 0x103));
    }
    for access in [svm::memory_access(0x1_0000_0006, address), vmx::memory_access(0x182, address)] {
        // lock xadd [rdi + 4], ecx
        let before = number(&bytes(&mut guest, 0x5004, 4));
        let mut after = registers(0x5000);
        execute(&[0xf0, 0x0f, 0xc1, 0x4f, 0x04], &mut after, &access, &mut guest).unwrap();
        let sum = before.wrapping_add(registers(0).get(Gpr::Rcx)) & 0xffff_ffff;
        assert_eq!((after.get(Gpr::Rcx), number(&bytes(&mut guest, 0x5004, 4))), (before, sum));
        assert!(!guest.events.iter().any(|event| matches!(event, Event::Translate(..))));
    }
}

/// An instruction that is complete clears RF, and keeps the flags it does not set.
#[test]
fn a_complete_instruction_clears_rf() {
    let mut guest = guest([device()]);
    let exit = exit(&guest, 0x5000, MemoryAccessKind::Write);
    let mut after = Registers { rflags: (Rflags::RF | Rflags::STATUS | Rflags::DF).bits(), ..registers(0x5000) };
    // mov [rdi], al; not dword [rdi]
    execute(&[0x88, 0x07], &mut after, &exit, &mut guest).unwrap();
    execute(&[0xf7, 0x17], &mut after, &exit, &mut guest).unwrap();
    assert_eq!(after.flags(), Rflags::STATUS | Rflags::DF);
}

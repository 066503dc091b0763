//! Single accesses: every width, every boundary.

use kvm_ioctls::Kvm;
use vm_device::{AccessSizes, GuestAddress, IoRange, IoResource, IoType, IrqResource};

use super::scenario::{DEVICE_MEMORY, Failure, LIMIT, Room, Scenario, expect, manager};
use super::shown::keep_map;
use super::verdict::{run_guest, run_to_verdict};
use crate::check;
use crate::devices::pci::DummyHostBridge;
use crate::devices::scratch::{Call, Scratch};
use crate::devices::verdict::Verdict;
use crate::guest_side::mmio::Width as _;
use crate::guest_side::{long_mode, mmio, pass, port, real_mode};
use crate::vmm::machine::{Machine, TOP_WINDOW};
use crate::vmm::memory::PAGE;
use crate::vmm::paging::LARGE_PAGE;
use crate::vmm::run::Tally;
use crate::vmm::vcpu::Ring;

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "access/example-2019",
        about: "the dummy host bridge of the 2019 design, in real mode",
        run: example,
    },
    Scenario { name: "access/ring-0", about: "ports and MMIO from ring 0 of long mode", run: ring_0 },
    Scenario { name: "access/ports", about: "port reads and writes of 1, 2 and 4 bytes", run: ports },
    Scenario { name: "access/mmio", about: "MMIO reads and writes of 1, 2, 4 and 8 bytes", run: memory },
    Scenario { name: "access/odd-lengths", about: "MMIO across a page, in pieces of 1 to 7 bytes", run: odd_lengths },
    Scenario {
        name: "access/page-crossing",
        about: "MMIO across a page from one device into another, and a hole",
        run: page_crossing,
    },
    Scenario {
        name: "access/straddling",
        about: "accesses over the end of a device, into another and into a hole",
        run: straddling,
    },
    Scenario { name: "access/last-port", about: "accesses over the end of the port space", run: last_port },
    Scenario {
        name: "access/top-of-memory",
        about: "accesses at the top of the guest physical space",
        run: top_of_memory,
    },
    Scenario { name: "access/unclaimed", about: "reads that no device answers give all ones", run: unclaimed },
    Scenario { name: "access/sizes", about: "sizes that a device refuses, and sizes that are split", run: sizes },
    Scenario { name: "access/read-modify-write", about: "OR, LOCK XADD and XCHG on MMIO", run: read_modify_write },
];

const PORT: u16 = 0x500;
const MMIO: u64 = DEVICE_MEMORY;

fn example(kvm: &Kvm) -> Result<Tally, Failure> {
    let room = Room::new();
    let (manager, verdict, bridge) = (manager(&room), Verdict::new(), DummyHostBridge::new());
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;
    manager.register_device(&bridge, None, &[IoResource::pio(0xcf8, 8)], &[IrqResource::Any])?;
    let mut vcpu = Machine::new(kvm)?.start_real_mode(real_mode::config_address())?;
    let tally = run_to_verdict(&mut vcpu, &mut &manager, &verdict, LIMIT)?;
    keep_map(&manager);
    expect("the configuration address", bridge.config_address(), 0x8000_0800u32)?;
    Ok(tally)
}

fn ring_0(kvm: &Kvm) -> Result<Tally, Failure> {
    let room = Room::new();
    let (manager, verdict, scratch) = (manager(&room), Verdict::new(), Scratch::<8>::new("scratch"));
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;
    manager.register_device(&scratch, None, &[IoResource::mmio(MMIO, 8), IoResource::pio(PORT, 4)], &[])?;
    let mut vcpu = Machine::new(kvm)?.start(0, Ring::Kernel, long_mode::port_and_memory::<PORT>, MMIO)?;
    let tally = run_to_verdict(&mut vcpu, &mut manager.dispatcher(0)?, &verdict, LIMIT)?;
    keep_map(&manager);
    let port = |call: Call| Call { range_index: 1, ..call.port() };
    let calls = [port(Call::write(0, 4)), port(Call::read(0, 1)), Call::write(0, 8), Call::read(4, 4)];
    expect("the calls", scratch.take_calls(), calls)?;
    Ok(tally)
}

fn ports(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        port::write(PORT, 0x11u8);
        port::write(PORT + 1, 0x3322u16);
        port::write(PORT + 4, 0x8877_6655u32);
        check!(port::read::<u8>(PORT), 0x11u8);
        check!(port::read::<u16>(PORT + 1), 0x3322u16);
        check!(port::read::<u32>(PORT), 0x0033_2211u32);
        check!(port::read::<u32>(PORT + 4), 0x8877_6655u32);
        check!(port::read::<u16>(PORT + 5), 0x7766u16);
        pass()
    }
    let room = Room::new();
    let (manager, verdict, scratch) = (manager(&room), Verdict::new(), Scratch::<8>::new("scratch"));
    manager.register_device(&scratch, None, &[IoResource::pio(PORT, 8)], &[])?;
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    let writes = [(0, 1), (1, 2), (4, 4)].map(|(offset, length)| Call::write(offset, length).port());
    let reads = [(0, 1), (1, 2), (0, 4), (4, 4), (5, 2)].map(|(offset, length)| Call::read(offset, length).port());
    expect("the calls", scratch.take_calls(), [&writes[..], &reads].concat())?;
    expect("the bytes", scratch.bytes(), [0x11, 0x22, 0x33, 0, 0x55, 0x66, 0x77, 0x88])?;
    Ok(tally)
}

fn memory(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        mmio::write(MMIO, 0x11u8);
        mmio::write(MMIO + 1, 0x3322u16);
        mmio::write(MMIO + 3, 0x7766_5544u32);
        mmio::write(MMIO + 8, 0x8877_6655_4433_2211u64);
        check!(mmio::read::<u8>(MMIO), 0x11u8);
        check!(mmio::read::<u16>(MMIO + 1), 0x3322u16);
        check!(mmio::read::<u32>(MMIO + 3), 0x7766_5544u32);
        check!(mmio::read::<u64>(MMIO + 8), 0x8877_6655_4433_2211u64);
        check!(mmio::read::<u64>(MMIO + 4), 0x4433_2211_0077_6655u64);
        pass()
    }
    let room = Room::new();
    let (manager, verdict, scratch) = (manager(&room), Verdict::new(), Scratch::<16>::new("scratch"));
    manager.register_device(&scratch, None, &[IoResource::mmio(MMIO, 16)], &[])?;
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    let writes = [(0, 1), (1, 2), (3, 4), (8, 8)].map(|(offset, length)| Call::write(offset, length));
    let reads = [(0, 1), (1, 2), (3, 4), (8, 8), (4, 8)].map(|(offset, length)| Call::read(offset, length));
    expect("the calls", scratch.take_calls(), [&writes[..], &reads].concat())?;
    Ok(tally)
}

fn odd_lengths(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        const VALUE: u64 = 0x8877_6655_4433_2211;
        let end = MMIO + PAGE;
        for before in 1..8 {
            mmio::write(end - before, VALUE + before);
            check!(mmio::read::<u64>(end - before), VALUE + before);
        }
        for before in 1..4 {
            mmio::write(end - before, VALUE as u32 + before as u32);
            check!(mmio::read::<u32>(end - before), VALUE as u32 + before as u32);
        }
        pass()
    }
    let room = Room::new();
    let (manager, verdict, scratch) =
        (manager(&room), Verdict::new(), Scratch::<{ 2 * PAGE as usize }>::new("scratch"));
    manager.register_device(&scratch, None, &[IoResource::mmio(MMIO, 2 * PAGE)], &[])?;
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    let mut calls = Vec::new();
    for (width, befores) in [(8, 1..8), (4, 1..4)] {
        for before in befores {
            let pieces = [(PAGE - before, before as usize), (PAGE, (width - before) as usize)];
            calls.extend(pieces.map(|(offset, length)| Call::write(offset, length)));
            calls.extend(pieces.map(|(offset, length)| Call::read(offset, length)));
        }
    }
    expect("the calls", scratch.take_calls(), calls)?;
    Ok(tally)
}

fn page_crossing(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        let end = MMIO + PAGE;
        mmio::write(end - 4, 0x8877_6655_4433_2211u64);
        check!(mmio::read::<u64>(end - 4), 0x8877_6655_4433_2211u64);
        check!(mmio::read::<u16>(end - 1), 0x5544u16);
        // The second device ends in the middle of nowhere.
        let end = end + PAGE;
        mmio::write(end - 2, 0xddcc_bbaau32);
        check!(mmio::read::<u32>(end - 2), 0xffff_bbaau32);
        pass()
    }
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let (low, high) = (Scratch::<{ PAGE as usize }>::new("low"), Scratch::<{ PAGE as usize }>::new("high"));
    manager.register_device(&low, None, &[IoResource::mmio(MMIO, PAGE)], &[])?;
    manager.register_device(&high, None, &[IoResource::mmio(MMIO + PAGE, PAGE)], &[])?;
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    let last = PAGE - 4;
    expect(
        "the lower device's calls",
        low.take_calls(),
        [Call::write(last, 4), Call::read(last, 4), Call::read(PAGE - 1, 1)],
    )?;
    let crossing = [Call::write(0, 4), Call::read(0, 4), Call::read(0, 1)];
    let into_hole = [Call::write(PAGE - 2, 2), Call::read(PAGE - 2, 2)];
    expect("the upper device's calls", high.take_calls(), [&crossing[..], &into_hole].concat())?;
    expect("accesses to the hole", tally.unclaimed, 2u64)?;
    Ok(tally)
}

fn straddling(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        // Two devices of four ports or bytes side by side, and a hole after them.
        for straddle in [PORT + 1, PORT + 3, PORT + 5, PORT + 7] {
            port::write(straddle, 0x1234_5678u32);
            check!(port::read::<u32>(straddle), u32::MAX);
        }
        check!(port::read::<u16>(PORT + 3), u16::MAX);
        check!(port::read::<u16>(PORT - 1), u16::MAX);
        check!(port::read::<u32>(PORT), 0u32);
        check!(port::read::<u32>(PORT + 4), 0u32);
        for straddle in [MMIO + 1, MMIO + 3, MMIO + 5, MMIO + 7] {
            mmio::write(straddle, 0x1234_5678u32);
            check!(mmio::read::<u32>(straddle), u32::MAX);
        }
        check!(mmio::read::<u64>(MMIO), u64::MAX);
        check!(mmio::read::<u64>(MMIO + 4), u64::MAX);
        check!(mmio::read::<u32>(MMIO), 0u32);
        check!(mmio::read::<u32>(MMIO + 4), 0u32);
        pass()
    }
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let (low, high) = (Scratch::<4>::new("low"), Scratch::<4>::new("high"));
    for (device, offset) in [(&low, 0), (&high, 4)] {
        let ranges = [IoResource::mmio(MMIO + u64::from(offset), 4), IoResource::pio(PORT + offset, 4)];
        manager.register_device(device, None, &ranges, &[])?;
    }
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    // Neither saw anything of the straddling accesses.
    let calls = [Call { range_index: 1, ..Call::read(0, 4).port() }, Call::read(0, 4)];
    expect("the lower device's calls", low.take_calls(), calls)?;
    expect("the upper device's calls", high.take_calls(), calls)?;
    expect("straddling accesses", tally.straddling, 20u64)?;
    Ok(tally)
}

fn last_port(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        port::write(0xfffc, 0x4433_2211u32);
        check!(port::read::<u8>(0xffff), 0x44u8);
        check!(port::read::<u16>(0xfffe), 0x4433u16);
        port::write(0xffff, 0xaaaau16);
        port::write(0xfffe, 0xaaaa_aaaau32);
        check!(port::read::<u16>(0xffff), u16::MAX);
        check!(port::read::<u32>(0xfffd), u32::MAX);
        check!(port::read::<u32>(0xffff), u32::MAX);
        check!(port::read::<u32>(0xfffc), 0x4433_2211u32);
        pass()
    }
    let room = Room::new();
    let (manager, verdict, scratch) = (manager(&room), Verdict::new(), Scratch::<4>::new("last"));
    manager.register_device(&scratch, None, &[IoResource::pio(0xfffc, 4)], &[])?;
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    let calls = [Call::write(0, 4), Call::read(3, 1), Call::read(2, 2), Call::read(0, 4)].map(Call::port);
    expect("the calls", scratch.take_calls(), calls)?;
    expect("straddling accesses", tally.straddling, 5u64)?;
    Ok(tally)
}

fn top_of_memory(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        const END: u64 = TOP_WINDOW + LARGE_PAGE;
        mmio::write(END - 4, 0x4433_2211u32);
        check!(mmio::read::<u32>(END - 4), 0x4433_2211u32);
        check!(mmio::read::<u8>(END - 1), 0x44u8);
        mmio::write(END - 8, 0u64);
        check!(mmio::read::<u64>(END - 8), u64::MAX);
        check!(mmio::read::<u32>(END - 5), u32::MAX);
        check!(mmio::read::<u32>(END - 8), u32::MAX);
        check!(mmio::read::<u32>(END - 4), 0x4433_2211u32);
        pass()
    }
    let machine = Machine::new(kvm)?;
    let room = Room::new();
    let (manager, verdict, scratch) = (manager(&room), Verdict::new(), Scratch::<4>::new("top"));
    let highest = machine.vm().highest_address();
    let range = IoRange::new(GuestAddress(highest.0 - 3), highest)?;
    manager.register_device(&scratch, None, &[IoResource::at(IoType::Mmio, range)], &[])?;
    let tally = run_guest(&machine, &manager, &verdict, guest, 0)?;
    let calls = [Call::write(0, 4), Call::read(0, 4), Call::read(3, 1), Call::read(0, 4)];
    expect("the calls", scratch.take_calls(), calls)?;
    expect("straddling accesses", tally.straddling, 3u64)?;
    expect("unclaimed accesses", tally.unclaimed, 1u64)?;
    Ok(tally)
}

fn unclaimed(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        for port in [0u16, 0x4ff, PORT, 0xcf8, 0xfffc] {
            port::write(port, 0u32);
            check!(port::read::<u8>(port), u8::MAX);
            check!(port::read::<u16>(port), u16::MAX);
            check!(port::read::<u32>(port), u32::MAX);
        }
        for address in [MMIO, MMIO + 0x123, TOP_WINDOW] {
            mmio::write(address, 0u64);
            check!(mmio::read::<u8>(address), u8::MAX);
            check!(mmio::read::<u16>(address), u16::MAX);
            check!(mmio::read::<u32>(address), u32::MAX);
            check!(mmio::read::<u64>(address), u64::MAX);
        }
        check!(mmio::read::<u64>(MMIO + PAGE - 3), u64::MAX);
        pass()
    }
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    expect("unclaimed accesses", tally.unclaimed, 5 * 4 + 3 * 5 + 2u64)?;
    expect("accesses", tally.exits, tally.unclaimed + 1)?;
    Ok(tally)
}

fn sizes(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        // Only aligned dwords.
        mmio::write(MMIO, 0x4433_2211u32);
        mmio::write(MMIO, 0xaau8);
        mmio::write(MMIO + 2, 0xaaaa_aaaau32);
        mmio::write(MMIO, u64::MAX);
        check!(mmio::read::<u32>(MMIO), 0x4433_2211u32);
        check!(mmio::read::<u8>(MMIO), u8::MAX);
        check!(mmio::read::<u16>(MMIO), u16::MAX);
        check!(mmio::read::<u64>(MMIO), u64::MAX);
        check!(mmio::read::<u32>(MMIO + 1), u32::MAX);
        // Only bytes, which others are made of.
        port::write(PORT, 0x4433_2211u32);
        check!(port::read::<u16>(PORT + 1), 0x3322u16);
        pass()
    }
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let (dwords, bytes) = (Scratch::<8>::new("dwords"), Scratch::<4>::new("bytes"));
    let only_dwords = IoResource::mmio(MMIO, 8).sizes(AccessSizes::DWORD | AccessSizes::ALIGNED);
    manager.register_device(&dwords, None, &[only_dwords], &[])?;
    let only_bytes = IoResource::pio(PORT, 4).sizes(AccessSizes::BYTE | AccessSizes::SPLIT);
    manager.register_device(&bytes, None, &[only_bytes], &[])?;
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    expect("the dwords", dwords.take_calls(), [Call::write(0, 4), Call::read(0, 4)])?;
    let writes = [0, 1, 2, 3].map(|offset| Call::write(offset, 1).port());
    let reads = [1, 2].map(|offset| Call::read(offset, 1).port());
    expect("the bytes", bytes.take_calls(), [&writes[..], &reads].concat())?;
    expect("refused accesses", tally.refused, 7u64)?;
    Ok(tally)
}

fn read_modify_write(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        mmio::write(MMIO, 0x1000_0000_0000_0001u64);
        u8::or(MMIO, 0x80);
        u16::or(MMIO + 2, 0x0101);
        u32::or(MMIO + 4, 0x22);
        check!(mmio::read::<u64>(MMIO), 0x1000_0022_0101_0081u64);
        u64::or(MMIO, 1 << 63);
        check!(u32::exchange(MMIO, 7), 0x0101_0081u32);
        check!(u64::add(MMIO, 1), 0x9000_0022_0000_0007u64);
        check!(mmio::read::<u64>(MMIO), 0x9000_0022_0000_0008u64);
        pass()
    }
    let room = Room::new();
    let (manager, verdict, scratch) = (manager(&room), Verdict::new(), Scratch::<8>::new("scratch"));
    manager.register_device(&scratch, None, &[IoResource::mmio(MMIO, 8)], &[])?;
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    let mut calls = vec![Call::write(0, 8)];
    for (offset, length) in [(0, 1), (2, 2), (4, 4)] {
        calls.extend([Call::read(offset, length), Call::write(offset, length)]);
    }
    calls.push(Call::read(0, 8));
    for length in [8, 4, 8] {
        calls.extend([Call::read(0, length), Call::write(0, length)]);
    }
    calls.push(Call::read(0, 8));
    expect("the calls", scratch.take_calls(), calls)?;
    Ok(tally)
}

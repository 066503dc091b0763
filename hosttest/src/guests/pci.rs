//! Base address registers and bridges, which the guest programs as firmware and systems do, and as these should not.

use kvm_ioctls::Kvm;
use vm_device::devices::pci::{Bar, Bridge, Config, Function, HostBridge, Slot};
use vm_device::{IoRange, IoType, Placement};

use super::scenario::{DEVICE_MEMORY, Failure, Room, Scenario, expect, manager};
use super::verdict::run_guest;
use crate::check;
use crate::devices::pci::{BAR0, COMMAND, CONFIG_ADDRESS, CONFIG_DATA, MEMORY_ENABLE, PORTS_ENABLE, config_address};
use crate::devices::scratch::Scratch;
use crate::devices::verdict::Verdict;
use crate::devices::witness::{Seen, WITNESS_PORT, Witness};
use crate::guest_side::{mmio, pass, port};
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::memory::PAGE;
use crate::vmm::run::Tally;

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "pci/bar",
        about: "a BAR sized with decoding off and on, at 0, over RAM, where ROM is, on top of another",
        run: bar,
    },
    Scenario {
        name: "pci/swap",
        about: "two BARs that change places, in every order of the writes that make them",
        run: swap,
    },
    Scenario {
        name: "pci/bridge",
        about: "a bridge's windows moved, resized and closed, with BARs inside and outside of them",
        run: bridge,
    },
];

const FIRST: u64 = DEVICE_MEMORY;
const SECOND: u64 = DEVICE_MEMORY + PAGE;
/// What a BAR of one page reads when it was written with all ones.
const SIZED: u64 = 0xffff_f000;
/// ROM and interrupt controllers are there on a PC, and nothing for devices.
const NOT_FOR_DEVICES: IoRange = IoRange::of::<0xfec0_0000, 0xffff_ffff>();
const A: u32 = 0xaaaa_5555;
const B: u32 = 0xbbbb_6666;
const OPEN_BUS: u32 = u32::MAX;

/// Lets the data register be a dword of the configuration space of function 0 of a device.
#[inline(always)]
fn select(bus: u32, device: u32, register: u32) {
    port::write(CONFIG_ADDRESS, config_address(bus, device, register));
}

/// Reads a dword of the configuration space of function 0 of a device.
#[inline(always)]
pub(super) fn read_config(bus: u32, device: u32, register: u32) -> u32 {
    select(bus, device, register);
    port::read(CONFIG_DATA)
}

/// Writes one.
#[inline(always)]
pub(super) fn write_config(bus: u32, device: u32, register: u32, value: u32) {
    select(bus, device, register);
    port::write(CONFIG_DATA, value);
}

/// Lets the host look at the ranges.
#[inline(always)]
fn look() {
    port::write(WITNESS_PORT, 0u8);
}

/// Two cards of a page of memory each, in the slots 1 and 2. Whatever the guest does with their addresses, the 4 bytes at
/// their beginning are [`A`] and [`B`].
fn run_with_two_cards(kvm: &Kvm, guest: extern "C" fn(u64)) -> Result<(Tally, Vec<Vec<Seen>>), Failure> {
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    manager.reserve(IoType::Mmio, Placement::Fixed(NOT_FOR_DEVICES))?;
    let (host, witness) = (HostBridge::new("pci", &manager), Witness::new(&manager));
    let cards = ["a", "b"].map(Scratch::<16>::new);
    let functions = [1, 2].map(|device| Function::new(Config::new(0x1234, device).bar(0, Bar::memory(PAGE))));
    manager.register_device(&host, None, &[HostBridge::PORTS], &[])?;
    manager.register_device(&witness, None, &[Witness::resource()], &[])?;
    for ((card, function), slot) in cards.iter().zip(&functions).zip([1, 2]) {
        let id = manager.register_device(card, None, &function.requests(), &[])?;
        host.bus().plug(function, Slot::new(slot, 0), id)?;
        witness.watch(id, 0);
    }
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    let bytes = cards.each_ref().map(|card| card.bytes().first_chunk().copied().map(u32::from_le_bytes));
    expect("what the cards hold", bytes, [Some(A), Some(B)])?;
    Ok((tally, witness.take_seen()))
}

/// Both cards are decoded at their places, and hold their values.
#[inline(always)]
fn start_two_cards() {
    check!(read_config(0, 1, 0), 0x0001_1234u32);
    check!(read_config(0, 2, 0), 0x0002_1234u32);
    write_config(0, 1, BAR0, FIRST as u32);
    write_config(0, 2, BAR0, SECOND as u32);
    check!(mmio::read::<u32>(FIRST), OPEN_BUS);
    write_config(0, 1, COMMAND, MEMORY_ENABLE);
    write_config(0, 2, COMMAND, MEMORY_ENABLE);
    mmio::write(FIRST, A);
    mmio::write(SECOND, B);
}

fn bar(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        const RAM: u64 = DATA + PAGE;
        // Decoding is off: all ones, in whichever place they are, are in nobody's way.
        write_config(0, 1, BAR0, u32::MAX);
        write_config(0, 2, BAR0, u32::MAX);
        check!(read_config(0, 1, BAR0), SIZED);
        look();
        start_two_cards();
        look();

        // Sized while it is decoded: it answers nowhere, and comes back.
        write_config(0, 1, BAR0, u32::MAX);
        check!(read_config(0, 1, BAR0), SIZED);
        check!(mmio::read::<u32>(FIRST), OPEN_BUS);
        look();
        write_config(0, 1, BAR0, FIRST as u32);
        check!(mmio::read::<u32>(FIRST), A);

        // At 0, and over RAM, which stays what it was.
        write_config(0, 1, BAR0, 0);
        check!(mmio::read::<u32>(FIRST), OPEN_BUS);
        look();
        mmio::write(RAM, 0x1234_5678u32);
        write_config(0, 1, BAR0, RAM as u32);
        check!(mmio::read::<u32>(RAM), 0x1234_5678u32);
        mmio::write(RAM, 0x8765_4321u32);
        check!(mmio::read::<u32>(RAM), 0x8765_4321u32);
        look();

        // On top of the other one, which was there before, and goes away without being asked to make room.
        write_config(0, 1, BAR0, SECOND as u32);
        check!(read_config(0, 1, BAR0), SECOND as u32);
        check!(mmio::read::<u32>(SECOND), B);
        look();
        write_config(0, 2, BAR0, FIRST as u32);
        check!(mmio::read::<u32>(SECOND), A);
        check!(mmio::read::<u32>(FIRST), B);
        look();

        // The other way round, by the command register.
        write_config(0, 2, BAR0, SECOND as u32);
        check!(mmio::read::<u32>(SECOND), A);
        write_config(0, 1, COMMAND, 0);
        check!(mmio::read::<u32>(SECOND), B);
        look();
        write_config(0, 2, COMMAND, 0);
        check!(mmio::read::<u32>(SECOND), OPEN_BUS);
        check!(read_config(0, 2, BAR0), SECOND as u32);
        look();
        pass()
    }
    let (tally, seen) = run_with_two_cards(kvm, guest)?;
    let expected = [
        [Seen::Unplaced, Seen::Unplaced],
        [Seen::Decoded(FIRST), Seen::Decoded(SECOND)],
        [Seen::Waiting(SIZED), Seen::Decoded(SECOND)],
        [Seen::Waiting(0), Seen::Decoded(SECOND)],
        [Seen::Waiting(DATA + PAGE), Seen::Decoded(SECOND)],
        [Seen::Waiting(SECOND), Seen::Decoded(SECOND)],
        [Seen::Decoded(SECOND), Seen::Decoded(FIRST)],
        [Seen::Unplaced, Seen::Decoded(SECOND)],
        [Seen::Unplaced, Seen::Unplaced],
    ];
    expect("the ranges of the cards", seen, expected.map(Vec::from))?;
    Ok(tally)
}

/// How many orders there are of three writes to each of two functions, and of one write to each.
const ORDERS: usize = 20 + 2;

fn swap(kvm: &Kvm) -> Result<Tally, Failure> {
    /// The write number `step` by which a function gets another place: decoding off, the address, decoding on.
    #[inline(always)]
    fn write(device: u32, step: u32, place: u64) {
        match step {
            0 => write_config(0, device, COMMAND, 0),
            1 => write_config(0, device, BAR0, place as u32),
            _ => write_config(0, device, COMMAND, MEMORY_ENABLE),
        }
    }
    extern "C" fn guest(_: u64) {
        start_two_cards();
        let (mut at_first, mut at_second) = (1, 2);
        // In the order of its bits, from the lowest: whose write is the next.
        for order in 0..1u32 << 6 {
            if order.count_ones() != 3 {
                continue;
            }
            let (mut ones, mut zeros) = (0, 0);
            for write_number in 0..6 {
                if order >> write_number & 1 == 1 {
                    write(at_first, ones, SECOND);
                    ones += 1;
                } else {
                    write(at_second, zeros, FIRST);
                    zeros += 1;
                }
            }
            core::mem::swap(&mut at_first, &mut at_second);
            check!(mmio::read::<u32>(FIRST), if at_first == 1 { A } else { B });
            check!(mmio::read::<u32>(SECOND), if at_first == 1 { B } else { A });
            look();
        }
        // With decoding on all the time.
        for first_writes_first in [false, true] {
            let (one, other) = if first_writes_first { (at_first, at_second) } else { (at_second, at_first) };
            write(one, 1, if first_writes_first { SECOND } else { FIRST });
            write(other, 1, if first_writes_first { FIRST } else { SECOND });
            core::mem::swap(&mut at_first, &mut at_second);
            check!(mmio::read::<u32>(FIRST), if at_first == 1 { A } else { B });
            check!(mmio::read::<u32>(SECOND), if at_first == 1 { B } else { A });
            look();
        }
        pass()
    }
    let (tally, seen) = run_with_two_cards(kvm, guest)?;
    let swapped = [Seen::Decoded(SECOND), Seen::Decoded(FIRST)];
    let back = [Seen::Decoded(FIRST), Seen::Decoded(SECOND)];
    expect("the ranges of the cards", seen, [swapped, back].repeat(ORDERS / 2))?;
    // Before decoding was on for the first time.
    expect("unclaimed accesses", tally.unclaimed, 1u64)?;
    Ok(tally)
}

const MIB: u64 = 1 << 20;
/// Two places for a window of memory. The first card lies in its first MiB, the second in the second.
const WINDOW: u64 = DEVICE_MEMORY + 0x100 * MIB;
const ELSEWHERE: u64 = WINDOW + 0x10 * MIB;
const IN_WINDOW: u64 = 0x3000;
/// The window of ports, and a BAR of ports in it.
const PORTS: u16 = 0x5010;

const BRIDGE: u32 = 3;
const BUSES: u32 = 0x18;
const PORT_WINDOW: u32 = 0x1c;
const MEMORY_WINDOW: u32 = 0x20;
const BAR1: u32 = BAR0 + 4;
const ENABLE: u32 = PORTS_ENABLE | MEMORY_ENABLE;

fn bridge(kvm: &Kvm) -> Result<Tally, Failure> {
    /// Base and limit in one write.
    #[inline(always)]
    fn open(base: u64, size: u64) {
        write_config(0, BRIDGE, MEMORY_WINDOW, (base >> 16) as u32 | (base + size - MIB) as u32);
    }
    extern "C" fn guest(_: u64) {
        const SECOND_CARD: u64 = WINDOW + MIB;
        const THERE: u64 = ELSEWHERE + IN_WINDOW;
        const HERE: u64 = WINDOW + IN_WINDOW;
        // The bus behind the bridge has no number as yet.
        check!(read_config(1, 0, 0), u32::MAX);
        write_config(0, BRIDGE, BUSES, 0x01_01_00);
        check!(read_config(1, 0, 0), 0x0001_1234u32);
        check!(read_config(1, 1, 0), 0x0002_1234u32);
        write_config(1, 0, BAR0, HERE as u32);
        write_config(1, 0, BAR1, u32::from(PORTS));
        write_config(1, 1, BAR0, SECOND_CARD as u32);
        write_config(1, 0, COMMAND, ENABLE);
        write_config(1, 1, COMMAND, ENABLE);
        write_config(0, BRIDGE, COMMAND, ENABLE);
        // The windows are closed.
        check!(mmio::read::<u32>(HERE), OPEN_BUS);
        look();

        open(WINDOW, 2 * MIB);
        mmio::write(HERE, A);
        mmio::write(SECOND_CARD, B);
        check!(mmio::read::<u32>(HERE), A);
        look();
        // Base 0x5000, limit 0x5fff; the status register above is not written.
        select(0, BRIDGE, PORT_WINDOW);
        port::write(CONFIG_DATA, 0x5050u16);
        check!(port::read::<u32>(PORTS), A);
        look();

        // The window goes elsewhere, without what is in it, and what is in it follows.
        open(ELSEWHERE, 2 * MIB);
        check!(mmio::read::<u32>(HERE), OPEN_BUS);
        check!(mmio::read::<u32>(THERE), OPEN_BUS);
        look();
        write_config(1, 0, BAR0, THERE as u32);
        check!(mmio::read::<u32>(THERE), A);
        look();
        // A BAR goes first, and the window follows.
        write_config(1, 0, BAR0, HERE as u32);
        check!(mmio::read::<u32>(HERE), OPEN_BUS);
        open(WINDOW, 2 * MIB);
        check!(mmio::read::<u32>(HERE), A);
        check!(mmio::read::<u32>(SECOND_CARD), B);

        // Smaller, and larger again: by its limit alone.
        select(0, BRIDGE, MEMORY_WINDOW);
        port::write(CONFIG_DATA + 2, (WINDOW >> 16) as u16);
        check!(mmio::read::<u32>(HERE), A);
        check!(mmio::read::<u32>(SECOND_CARD), OPEN_BUS);
        look();
        port::write(CONFIG_DATA + 2, (SECOND_CARD >> 16) as u16);
        check!(mmio::read::<u32>(SECOND_CARD), B);

        // Closed by the command register, and open again.
        write_config(0, BRIDGE, COMMAND, 0);
        check!(mmio::read::<u32>(HERE), OPEN_BUS);
        check!(port::read::<u32>(PORTS), OPEN_BUS);
        look();
        write_config(0, BRIDGE, COMMAND, ENABLE);
        check!(mmio::read::<u32>(HERE), A);
        check!(mmio::read::<u32>(SECOND_CARD), B);
        check!(port::read::<u32>(PORTS), A);
        look();
        pass()
    }
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let (host, witness) = (HostBridge::new("pci", &manager), Witness::new(&manager));
    let bridge = Bridge::new("bridge", 0x1b36, 1);
    let cards = ["a", "b"].map(Scratch::<16>::new);
    let functions = [
        Function::new(Config::new(0x1234, 1).bar(0, Bar::memory(PAGE)).bar(1, Bar::ports(16))),
        Function::new(Config::new(0x1234, 2).bar(0, Bar::memory(PAGE))),
    ];
    manager.register_device(&host, None, &[HostBridge::PORTS], &[])?;
    manager.register_device(&witness, None, &[Witness::resource()], &[])?;
    let bridge_id = manager.register_device(&bridge, None, &bridge.requests(), &[])?;
    host.bus().plug(bridge.function(), Slot::new(BRIDGE as u8, 0), bridge_id)?;
    let mut ids = Vec::new();
    for ((card, function), slot) in cards.iter().zip(&functions).zip([0, 1]) {
        let id = manager.register_device(card, Some(bridge_id), &function.requests(), &[])?;
        bridge.bus().plug(function, Slot::new(slot, 0), id)?;
        ids.push(id);
    }
    let watched = [(ids[0], 0), (ids[0], 1), (ids[1], 0), (bridge_id, 1)];
    watched.into_iter().for_each(|(id, index)| witness.watch(id, index));

    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    let (here, there, second) = (WINDOW + IN_WINDOW, ELSEWHERE + IN_WINDOW, WINDOW + MIB);
    let ports = Seen::Decoded(PORTS.into());
    let no_ports = Seen::Waiting(PORTS.into());
    let expected = [
        [Seen::Waiting(here), no_ports, Seen::Waiting(second), Seen::Unplaced],
        [Seen::Decoded(here), no_ports, Seen::Decoded(second), Seen::Decoded(WINDOW)],
        [Seen::Decoded(here), ports, Seen::Decoded(second), Seen::Decoded(WINDOW)],
        [Seen::Waiting(here), ports, Seen::Waiting(second), Seen::Decoded(ELSEWHERE)],
        [Seen::Decoded(there), ports, Seen::Waiting(second), Seen::Decoded(ELSEWHERE)],
        [Seen::Decoded(here), ports, Seen::Waiting(second), Seen::Decoded(WINDOW)],
        [Seen::Waiting(here), no_ports, Seen::Waiting(second), Seen::Unplaced],
        [Seen::Decoded(here), ports, Seen::Decoded(second), Seen::Decoded(WINDOW)],
    ];
    expect("the ranges behind the bridge, and its window", witness.take_seen(), expected.map(Vec::from))?;
    Ok(tally)
}

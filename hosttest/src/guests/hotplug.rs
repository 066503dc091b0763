//! Devices that come under another address, or go, while the guest runs.

use kvm_ioctls::Kvm;
use vm_device::{GuestAddress, IoResource, IoType, IrqResource};

use super::scenario::{DEVICE_MEMORY, Failure, Room, Scenario, expect, manager};
use super::verdict::run_guest;
use crate::check;
use crate::devices::eject::Eject;
use crate::devices::pci::{BAR0, COMMAND, CONFIG_ADDRESS, CONFIG_DATA, MEMORY_ENABLE, PciBus, config_address};
use crate::devices::scratch::{Call, Scratch};
use crate::devices::verdict::Verdict;
use crate::guest_side::{mmio, pass, port};
use crate::vmm::machine::Machine;
use crate::vmm::memory::PAGE;
use crate::vmm::run::Tally;

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario { name: "hotplug/bar", about: "a BAR moved by the guest through the host bridge", run: bar },
    Scenario { name: "hotplug/eject", about: "a device removed by the guest through an eject register", run: eject },
];

const OLD: u64 = DEVICE_MEMORY;
const NEW: u64 = DEVICE_MEMORY + 0x10_0000;
const TAKEN: u64 = DEVICE_MEMORY + 0x20_0000;
const EJECT: u16 = 0xae08;

fn read_config(register: u32) -> u32 {
    port::write(CONFIG_ADDRESS, config_address(1, register));
    port::read(CONFIG_DATA)
}

fn write_config(register: u32, value: u32) {
    port::write(CONFIG_ADDRESS, config_address(1, register));
    port::write(CONFIG_DATA, value);
}

fn bar(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        check!(read_config(0), 0x1110_1234u32);
        check!(read_config(BAR0), OLD as u32);
        check!(read_config(COMMAND), 0u32);
        // Reserved, but not decoded.
        check!(mmio::read::<u32>(OLD), u32::MAX);
        write_config(COMMAND, MEMORY_ENABLE);
        mmio::write(OLD + 8, 0x1234_5678u32);
        check!(mmio::read::<u32>(OLD + 8), 0x1234_5678u32);

        write_config(BAR0, NEW as u32);
        check!(read_config(BAR0), NEW as u32);
        check!(mmio::read::<u32>(OLD + 8), u32::MAX);
        check!(mmio::read::<u32>(NEW + 8), 0x1234_5678u32);

        // Where another device is, it cannot go, and stays where it was.
        write_config(BAR0, TAKEN as u32);
        check!(read_config(BAR0), NEW as u32);
        check!(mmio::read::<u32>(NEW + 8), 0x1234_5678u32);
        check!(mmio::read::<u32>(TAKEN + 8), 0u32);

        write_config(COMMAND, 0);
        check!(mmio::read::<u32>(NEW + 8), u32::MAX);
        write_config(BAR0, OLD as u32);
        write_config(COMMAND, MEMORY_ENABLE);
        check!(mmio::read::<u32>(OLD + 8), 0x1234_5678u32);
        pass()
    }
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let (bus, card, other) = (PciBus::new(&manager), Scratch::<16>::new("card"), Scratch::<16>::new("other"));
    let bus_id = manager.register_device(&bus, None, &[PciBus::resource()], IrqResource::None)?;
    let memory = IoResource::mmio(OLD, PAGE).reserved();
    let card_id = manager.register_device(&card, Some(bus_id), &[memory], IrqResource::None)?;
    manager.register_device(&other, Some(bus_id), &[IoResource::mmio(TAKEN, PAGE)], IrqResource::None)?;
    bus.plug(card_id);
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    expect("moves made and refused", bus.moves(), (5u32, 1u32))?;
    let (read, write) = (Call::read(8, 4), Call::write(8, 4));
    expect("the calls of the card", card.take_calls(), [write, read, read, read, read])?;
    expect("the calls of the other", other.take_calls(), [read])?;
    let found = manager.find_by_address(GuestAddress(OLD + PAGE - 1), IoType::Mmio);
    expect("the device at the old address", found, Some((card_id, 0usize)))?;
    Ok(tally)
}

fn eject(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        mmio::write(OLD, 0x42u8);
        check!(mmio::read::<u8>(OLD), 0x42u8);
        check!(port::read::<u8>(EJECT), 1u8);
        port::write(EJECT, 1u8);
        check!(port::read::<u8>(EJECT), 0u8);
        check!(mmio::read::<u8>(OLD), u8::MAX);
        mmio::write(OLD, 0u8);
        // Again: there is nothing left to remove, and nothing happens.
        port::write(EJECT, 1u8);
        check!(mmio::read::<u64>(OLD), u64::MAX);
        pass()
    }
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let (eject, card) = (Eject::new(&manager), Scratch::<16>::new("card"));
    manager.register_device(&eject, None, &[IoResource::pio(EJECT, 1)], IrqResource::None)?;
    let id = manager.register_device(&card, None, &[IoResource::mmio(OLD, PAGE)], IrqResource::None)?;
    eject.plug(id);
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    expect("the calls of the card", card.take_calls(), [Call::write(0, 1), Call::read(0, 1)])?;
    expect("unclaimed accesses", tally.unclaimed, 3u64)?;
    expect("the card in the topology", manager.find_by_path("/card"), None)?;
    // What it had is free again.
    manager.register_device(&card, None, &[IoResource::mmio(OLD, PAGE)], IrqResource::None)?;
    Ok(tally)
}

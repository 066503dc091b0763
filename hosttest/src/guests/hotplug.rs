//! Devices that go while the guest runs.

use kvm_ioctls::Kvm;
use vm_device::IoResource;

use super::scenario::{DEVICE_MEMORY, Failure, Room, Scenario, expect, manager};
use super::verdict::run_guest;
use crate::check;
use crate::devices::eject::Eject;
use crate::devices::scratch::{Call, Scratch};
use crate::devices::verdict::Verdict;
use crate::guest_side::{mmio, pass, port};
use crate::vmm::machine::Machine;
use crate::vmm::memory::PAGE;
use crate::vmm::run::Tally;

/// The guests of this topic.
pub const ALL: &[Scenario] =
    &[Scenario { name: "hotplug/eject", about: "a device removed by the guest through an eject register", run: eject }];

const CARD: u64 = DEVICE_MEMORY;
const EJECT: u16 = 0xae08;

fn eject(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        mmio::write(CARD, 0x42u8);
        check!(mmio::read::<u8>(CARD), 0x42u8);
        check!(port::read::<u8>(EJECT), 1u8);
        port::write(EJECT, 1u8);
        check!(port::read::<u8>(EJECT), 0u8);
        check!(mmio::read::<u8>(CARD), u8::MAX);
        mmio::write(CARD, 0u8);
        // Again: there is nothing left to remove, and nothing happens.
        port::write(EJECT, 1u8);
        check!(mmio::read::<u64>(CARD), u64::MAX);
        pass()
    }
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let (eject, card) = (Eject::new(&manager), Scratch::<16>::new("card"));
    manager.register_device(&eject, None, &[IoResource::pio(EJECT, 1)], &[])?;
    let id = manager.register_device(&card, None, &[IoResource::mmio(CARD, PAGE)], &[])?;
    eject.plug(id);
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    expect("the calls of the card", card.take_calls(), [Call::write(0, 1), Call::read(0, 1)])?;
    expect("unclaimed accesses", tally.unclaimed, 3u64)?;
    expect("the card in the topology", manager.find_by_path("/card").ok(), None)?;
    // What it had is free again.
    manager.register_device(&card, None, &[IoResource::mmio(CARD, PAGE)], &[])?;
    Ok(tally)
}

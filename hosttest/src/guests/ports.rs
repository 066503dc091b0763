//! Ports of which a machine has some inside of others, or narrower than what is written to them.

use kvm_ioctls::Kvm;
use vm_device::devices::pci::{Config, Function, HostBridge, Slot};
use vm_device::{IoResource, IoType, Straddling};

use super::scenario::{Failure, Room, Scenario, expect, manager};
use super::verdict::run_guest;
use crate::check;
use crate::devices::pci::{CONFIG_ADDRESS, CONFIG_DATA};
use crate::devices::scratch::{Call, Scratch};
use crate::devices::verdict::Verdict;
use crate::guest_side::{pass, port};
use crate::vmm::machine::Machine;
use crate::vmm::run::Tally;

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "ports/reset_register",
        about: "a byte at 0xcf9 inside the dword at 0xcf8: each access reaches the one that holds it whole",
        run: reset_register,
    },
    Scenario {
        name: "ports/split",
        about: "words to a POST port of one byte, and a dword over two devices, taken apart",
        run: split,
    },
];

/// The reset control register of a PC (Intel 290550, PIIX3, 2.5.3).
const RESET: u16 = 0xcf9;
/// Where firmware writes how far its power-on self-test is.
const POST: u16 = 0x80;
/// Two devices of two ports each.
const LOW: u16 = 0x90;
const HIGH: u16 = 0x92;

fn reset_register(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        port::write(CONFIG_ADDRESS, 0x8000_0000u32);
        check!(port::read::<u32>(CONFIG_DATA), 0x1237_8086u32);
        port::write(RESET, 0x06u8);
        check!(port::read::<u8>(RESET), 0x06u8);
        // The address register is as it was, although a byte of its ports was written.
        check!(port::read::<u32>(CONFIG_ADDRESS), 0x8000_0000u32);
        check!(port::read::<u32>(CONFIG_DATA), 0x1237_8086u32);
        port::write(CONFIG_ADDRESS, 0x8000_0808u32);
        check!(port::read::<u8>(RESET), 0x06u8);
        check!(port::read::<u32>(CONFIG_ADDRESS), 0x8000_0808u32);
        // Words that hold the byte and more are not the register's.
        port::write(RESET, 0x1111u16);
        port::write(CONFIG_ADDRESS, 0x2222u16);
        check!(port::read::<u8>(RESET), 0x06u8);
        pass()
    }
    let room = Room::new();
    let (manager, verdict) = (manager(&room), Verdict::new());
    let (host, reset) = (HostBridge::new("pci", &manager), Scratch::<1>::new("reset"));
    let chipset = Function::new(Config::i440fx());
    let id = manager.register_device(&host, None, &[HostBridge::PORTS], &[])?;
    host.bus().plug(&chipset, Slot::new(0, 0), id)?;
    manager.register_device(&reset, Some(id), &[IoResource::pio(RESET, 1)], &[])?;
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    let (read, write) = (Call::read(0, 1).port(), Call::write(0, 1).port());
    expect("the calls of the reset register", reset.take_calls(), [write, read, read, read])?;
    expect("accesses that reached nothing", (tally.unclaimed, tally.straddling, tally.refused), (0u64, 0u64, 0u64))?;
    Ok(tally)
}

fn split(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        port::write(POST, 0x12u8);
        port::write(POST, 0xff34u16);
        check!(port::read::<u16>(POST), 0xff34u16);
        port::write(POST, 0xffff_ff56u32);
        check!(port::read::<u32>(POST), 0xffff_ff56u32);
        // From the port before, at an odd address.
        port::write(POST - 1, 0x78ffu16);
        check!(port::read::<u8>(POST), 0x78u8);
        port::write(LOW, 0x4433_2211u32);
        check!(port::read::<u16>(LOW), 0x2211u16);
        check!(port::read::<u16>(HIGH), 0x4433u16);
        check!(port::read::<u32>(LOW), 0x4433_2211u32);
        pass()
    }
    let room = Room::new();
    let manager = manager(&room).with_straddling(IoType::Pio, Straddling::Split);
    let verdict = Verdict::new();
    let (post, low, high) = (Scratch::<1>::new("post"), Scratch::<2>::new("low"), Scratch::<2>::new("high"));
    manager.register_device(&post, None, &[IoResource::pio(POST, 1)], &[])?;
    manager.register_device(&low, None, &[IoResource::pio(LOW, 2)], &[])?;
    manager.register_device(&high, None, &[IoResource::pio(HIGH, 2)], &[])?;
    let tally = run_guest(&Machine::new(kvm)?, &manager, &verdict, guest, 0)?;
    let (read, write) = (|length| Call::read(0, length).port(), |length| Call::write(0, length).port());
    let calls = [write(1), write(1), read(1), write(1), read(1), write(1), read(1)];
    expect("the calls of the POST port", post.take_calls(), calls)?;
    for device in [&low, &high] {
        expect("the calls of a half", device.take_calls(), [write(2), read(2), read(2)])?;
    }
    Ok(tally)
}

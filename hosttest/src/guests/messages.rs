//! Messages of a PCI function, which the guest masks and unmasks.

use std::thread;

use kvm_ioctls::Kvm;
use vm_device::devices::pci::{Bar, Config, Function, HostBridge, InBar, Slot};

use super::pci::{read_config, write_config};
use super::scenario::{DEVICE_MEMORY, Failure, LIMIT, Room, Scenario, expect, manager};
use super::verdict::run_to_verdict;
use crate::devices::messenger::{Messenger, PENDING, SIGNAL_MSI, SIGNAL_MSIX, TABLE};
use crate::devices::pci::{BAR0, BUS_MASTER_ENABLE, COMMAND, MEMORY_ENABLE};
use crate::devices::verdict::Verdict;
use crate::guest_side::interrupts::{enable, wait_for};
use crate::guest_side::{mmio, pass};
use crate::vmm::irq::KvmIrqchip;
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::memory::PAGE;
use crate::vmm::run::{Tally, run};
use crate::vmm::vcpu::Ring;
use crate::{check, interrupt_handler};

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "messages/msi",
        about: "two messages of MSI, masked and unmasked through configuration space",
        run: msi,
    },
    Scenario {
        name: "messages/msi-x",
        about: "a message of MSI-X that one processor masks and unmasks while another has it signalled",
        run: msix,
    },
];

/// The vector of message 0; that of message 1 is the next.
const VECTOR: u8 = 0x42;
/// Where the handlers count, one word each.
const COUNT: u64 = DATA;
/// The number of the last signal, and what the handler has found there.
const SIGNALLED: u64 = DATA + 0x10;
const SEEN: u64 = DATA + 0x18;
/// Not 0 once the message of MSI-X can be signalled.
const STARTED: u64 = DATA + 0x20;
/// How often the message of MSI-X is signalled.
const SIGNALS: u64 = 2000;

const MSI: u32 = 0x50;
const MSIX: u32 = 0x70;
const MEMORY: u64 = DEVICE_MEMORY;
/// Where messages for processor 0 are written (Intel SDM vol. 3A, 11.11.1).
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;

interrupt_handler!(
    /// Counts message 0, and notes which signal was the last one before.
    first:
    "inc qword ptr [{count}]",
    "mov rax, qword ptr [{signalled}]",
    "mov qword ptr [{seen}], rax";
    count = const COUNT, signalled = const SIGNALLED, seen = const SEEN
);

interrupt_handler!(
    /// Counts message 1.
    second: "inc qword ptr [{count}]"; count = const COUNT + 8
);

/// Runs a guest that finds the card in slot 1, and on processor 1 `other`, if there is one, until the card was told to make all
/// [`SIGNALS`].
fn run_with_card(kvm: &Kvm, guest: extern "C" fn(u64), other: Option<extern "C" fn(u64)>) -> Result<Tally, Failure> {
    let machine = Machine::with_irqchip(kvm)?;
    machine.set_interrupt_gate(VECTOR, first as *const () as u64);
    machine.set_interrupt_gate(VECTOR + 1, second as *const () as u64);
    let irqchip = KvmIrqchip::new();
    irqchip.connect(machine.vm());
    let room = Room::new();
    let manager = manager(&room).with_interrupt_controller(&irqchip);
    let (host, card, verdict) = (HostBridge::new("pci", &manager), Messenger::<2>::new("card"), Verdict::new());
    let function = Function::new(Config::new(0x1234, 1).bar(0, Bar::memory(PAGE)))
        .with_msi(MSI as u8, card.msi())
        .with_msix(MSIX as u8, card.msix(), InBar::new(0, TABLE), InBar::new(0, PENDING));
    manager.register_device(&host, None, &[HostBridge::PORTS], &[])?;
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;
    let id = manager.register_device(&card, None, &function.requests(), &[])?;
    host.bus().plug(&function, Slot::new(1, 0), id)?;

    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let other = other.map(|other| machine.start(1, Ring::User, other, 0)).transpose()?;
    let has_signalled = || u64::from(card.signals()) >= SIGNALS;
    let (passed, ended) = thread::scope(|scope| {
        let (manager, has_signalled) = (&manager, &has_signalled);
        let other = other.map(|mut vcpu| {
            scope.spawn(move || -> Result<Tally, Failure> {
                Ok(run(&mut vcpu, &mut manager.dispatcher(1)?, LIMIT, has_signalled)?)
            })
        });
        let passed = manager
            .dispatcher(0)
            .map_err(Failure::from)
            .and_then(|mut accesses| Ok(run_to_verdict(&mut vcpu, &mut accesses, &verdict, LIMIT)?));
        let ended = other.map(|other| other.join().unwrap_or_else(|_| Err(Failure("the other processor".into()))));
        (passed, ended)
    });
    let tally = passed?;
    ended.transpose()?;
    expect("signals that were refused", card.refused(), 0u32)?;
    expect("whether the pin may be used", function.may_use_pin(), false)?;
    Ok(tally)
}

/// The card is decoded, and may write messages.
#[inline(always)]
fn start_card() {
    check!(read_config(0, 1, 0), 0x0001_1234u32);
    write_config(0, 1, BAR0, MEMORY as u32);
    write_config(0, 1, COMMAND, MEMORY_ENABLE | BUS_MASTER_ENABLE);
}

fn msi(kvm: &Kvm) -> Result<Tally, Failure> {
    /// Message control, in its dword: enabled, with two messages allocated.
    const ENABLE: u32 = 1 << 16 | 1 << 20;
    extern "C" fn guest(_: u64) {
        enable();
        start_card();
        check!(read_config(0, 1, 0x34) & 0xff, MSIX);
        check!(read_config(0, 1, MSIX) >> 8 & 0xff, MSI);
        write_config(0, 1, MSI + 4, MESSAGE_ADDRESS);
        write_config(0, 1, MSI + 8, 0);
        write_config(0, 1, MSI + 0xc, VECTOR.into());
        // Not enabled as yet: it is remembered.
        mmio::write(MEMORY + SIGNAL_MSI, 0u32);
        check!(mmio::read::<u64>(COUNT), 0u64);
        write_config(0, 1, MSI, ENABLE);
        check!(wait_for(COUNT, 1), true);
        // Message 1 alone is masked, and signalled twice.
        write_config(0, 1, MSI + 0x10, 0b10);
        mmio::write(MEMORY + SIGNAL_MSI, 1u32);
        mmio::write(MEMORY + SIGNAL_MSI, 1u32);
        mmio::write(MEMORY + SIGNAL_MSI, 0u32);
        check!(wait_for(COUNT, 2), true);
        check!(read_config(0, 1, MSI + 0x14), 0b10u32);
        check!(mmio::read::<u64>(COUNT + 8), 0u64);
        write_config(0, 1, MSI + 0x10, 0);
        check!(wait_for(COUNT + 8, 1), true);
        check!(read_config(0, 1, MSI + 0x14), 0u32);
        // Nothing comes once more.
        for _ in 0..100 {
            check!(read_config(0, 1, MSI + 0x14), 0u32);
        }
        check!(mmio::read::<u64>(COUNT), 2u64);
        check!(mmio::read::<u64>(COUNT + 8), 1u64);
        pass()
    }
    run_with_card(kvm, guest, None)
}

fn msix(kvm: &Kvm) -> Result<Tally, Failure> {
    const ENABLE: u32 = 1 << 31;
    const FUNCTION_MASK: u32 = 1 << 30;
    const VECTOR_CONTROL: u64 = MEMORY + 12;
    extern "C" fn guest(_: u64) {
        enable();
        start_card();
        mmio::write(MEMORY, u64::from(MESSAGE_ADDRESS));
        mmio::write(MEMORY + 8, u32::from(VECTOR));
        check!(mmio::read::<u32>(VECTOR_CONTROL), 1u32);
        write_config(0, 1, MSIX, ENABLE);
        // The other processor begins.
        mmio::write(STARTED, 1u64);
        while mmio::read::<u64>(SIGNALLED) < SIGNALS {
            mmio::write(VECTOR_CONTROL, 0u32);
            write_config(0, 1, MSIX, ENABLE | FUNCTION_MASK);
            mmio::write(VECTOR_CONTROL, 1u32);
            write_config(0, 1, MSIX, ENABLE);
        }
        mmio::write(VECTOR_CONTROL, 0u32);
        // Whatever came when: the last signal has interrupted, and none is pending.
        check!(wait_for(SEEN, SIGNALS), true);
        check!(mmio::read::<u64>(MEMORY + u64::from(PENDING)), 0u64);
        check!(mmio::read::<u64>(COUNT) <= SIGNALS, true);
        pass()
    }
    extern "C" fn other(_: u64) {
        while mmio::read::<u64>(STARTED) == 0 {}
        for signal in 1..=SIGNALS {
            mmio::write(SIGNALLED, signal);
            mmio::write(MEMORY + SIGNAL_MSIX, 0u32);
        }
        loop {
            core::hint::spin_loop();
        }
    }
    run_with_card(kvm, guest, Some(other))
}

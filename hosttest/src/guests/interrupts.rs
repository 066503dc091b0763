//! Interrupts that reach a handler of the guest.

use kvm_ioctls::Kvm;
use vm_device::{DeviceManager, Gsi, InterruptController, InterruptError, IoResource, IrqResource};

use super::recorded::Recorded;
use super::scenario::{self, Failure, Room, Scenario, expect};
use super::verdict::run_guest;
use crate::devices::interrupter::{ASSERT, Interrupter, MESSAGE, PULSE};
use crate::devices::verdict::Verdict;
use crate::guest_side::interrupts::{Trigger, enable, route, wait_for};
use crate::guest_side::{mmio, pass, port};
use crate::vmm::irq::KvmIrqchip;
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::run::Tally;
use crate::{check, interrupt_handler};

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario { name: "interrupts/edge", about: "edges, each delivered once to a handler", run: edge },
    Scenario {
        name: "interrupts/shared-level",
        about: "two devices on a level-triggered line, which stays asserted for both",
        run: shared_level,
    },
    Scenario { name: "interrupts/message", about: "a message-signalled interrupt", run: message },
    Scenario {
        name: "interrupts/removal",
        about: "a device removed by the guest while it asserts its line",
        run: removal,
    },
];

const VECTOR: u8 = 0x41;
/// Where the handlers count.
const COUNT: u64 = DATA;
const FIRST: u16 = 0x500;
const SECOND: u16 = 0x510;

interrupt_handler!(
    /// Counts.
    count: "inc qword ptr [{count}]"; count = const COUNT
);

/// How often [`quiet_later`] is called before it quiets the second device.
const CALLS: u64 = 5;

interrupt_handler!(
    /// Counts, and lets the first device deassert the line; but the second, when it alone asserts it, only from the call
    /// number [`CALLS`] on.
    quiet_later:
    "inc qword ptr [{count}]",
    "mov dx, {first}",
    "in al, dx",
    "test al, al",
    "jnz 2f",
    "cmp qword ptr [{count}], {calls}",
    "jb 3f",
    "mov dx, {second}",
    "2:",
    "xor eax, eax",
    "out dx, al",
    "3:";
    count = const COUNT, calls = const CALLS, first = const FIRST, second = const SECOND
);

fn manager<'d>(room: &'d Room<'d>, controller: &'d dyn InterruptController) -> DeviceManager<'d> {
    scenario::manager(room).with_interrupt_controller(controller)
}

fn connect(machine: &Machine) -> KvmIrqchip {
    let irqchip = KvmIrqchip::new();
    irqchip.connect(machine.vm());
    irqchip
}

fn edge(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(gsi: u64) {
        enable();
        route(gsi as u32, VECTOR, Trigger::Edge);
        for interrupts in 1..=10 {
            port::write(FIRST, PULSE);
            check!(wait_for(COUNT, interrupts), true);
        }
        check!(mmio::read::<u64>(COUNT), 10u64);
        pass()
    }
    let machine = Machine::with_irqchip(kvm)?;
    machine.set_interrupt_gate(VECTOR, count as *const () as u64);
    let irqchip = connect(&machine);
    let room = Room::new();
    let (manager, verdict, device) = (manager(&room, &irqchip), Verdict::new(), Interrupter::new("timer"));
    let id = manager.register_device(&device, None, &[IoResource::pio(FIRST, 8)], &[IrqResource::Any])?;
    let gsi = manager.irq(id, 0).and_then(|irq| irq.gsi).map_or(0, |gsi| gsi.0);
    let tally = run_guest(&machine, &manager, &verdict, guest, gsi.into())?;
    expect("the refusal of an interrupt", device.refused(), None::<InterruptError>)?;
    expect("accesses: one for each edge, and the verdict's", tally.exits, 11u64)?;
    Ok(tally)
}

const SHARED: Gsi = Gsi(20);

fn shared_level(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        enable();
        // While the IOAPIC masks the line, both devices come to assert it.
        port::write(FIRST, ASSERT);
        port::write(SECOND, ASSERT);
        check!(mmio::read::<u64>(COUNT), 0u64);
        route(SHARED.0, VECTOR, Trigger::Level);
        // The first call quiets the first device. Only because the line stays asserted for the second, there are more.
        check!(wait_for(COUNT, CALLS), true);
        check!(port::read::<u8>(FIRST), 0u8);
        check!(port::read::<u8>(SECOND), 0u8);
        // With no device asserting it, it is quiet: at once, or one call later where the local APIC does not wait.
        let calls = mmio::read::<u64>(COUNT);
        check!(calls <= CALLS + 1, true);
        for _ in 0..100 {
            check!(port::read::<u8>(SECOND), 0u8);
        }
        check!(mmio::read::<u64>(COUNT), calls);
        // And asserted again, it interrupts again.
        port::write(SECOND, ASSERT);
        check!(wait_for(COUNT, calls + 1), true);
        check!(port::read::<u8>(SECOND), 0u8);
        check!(mmio::read::<u64>(COUNT) <= calls + 2, true);
        pass()
    }
    let machine = Machine::with_irqchip(kvm)?;
    machine.set_interrupt_gate(VECTOR, quiet_later as *const () as u64);
    let irqchip = connect(&machine);
    let controller = Recorded::new(&irqchip);
    let room = Room::new();
    let (manager, verdict) = (manager(&room, &controller), Verdict::new());
    let (first, second) = (Interrupter::new("first"), Interrupter::new("second"));
    manager.register_device(&first, None, &[IoResource::pio(FIRST, 8)], &[IrqResource::Shared(SHARED)])?;
    manager.register_device(&second, None, &[IoResource::pio(SECOND, 8)], &[IrqResource::Shared(SHARED)])?;
    let tally = run_guest(&machine, &manager, &verdict, guest, 0)?;
    // Two devices made one assertion, which ended when both had taken theirs back; then one came alone.
    let levels = [true, false, true, false].map(|asserted| (SHARED, asserted));
    expect("the levels of the line", controller.levels(), levels)?;
    expect("the refusal of an interrupt", first.refused().or(second.refused()), None::<InterruptError>)?;
    Ok(tally)
}

fn message(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        enable();
        // The data of a message is the vector, for an edge with fixed delivery (Intel SDM vol. 3A, 11.11.2).
        port::write(FIRST + 4, u32::from(VECTOR));
        port::write(FIRST, MESSAGE);
        check!(wait_for(COUNT, 1), true);
        port::write(FIRST, MESSAGE);
        check!(wait_for(COUNT, 2), true);
        check!(mmio::read::<u64>(COUNT), 2u64);
        pass()
    }
    let machine = Machine::with_irqchip(kvm)?;
    machine.set_interrupt_gate(VECTOR, count as *const () as u64);
    let irqchip = connect(&machine);
    let room = Room::new();
    let (manager, verdict, device) = (manager(&room, &irqchip), Verdict::new(), Interrupter::new("network"));
    manager.register_device(&device, None, &[IoResource::pio(FIRST, 8)], &[])?;
    let tally = run_guest(&machine, &manager, &verdict, guest, 0)?;
    expect("the refusal of an interrupt", device.refused(), None::<InterruptError>)?;
    Ok(tally)
}

fn removal(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        enable();
        port::write(FIRST, ASSERT);
        port::write(SECOND, 1u8);
        check!(port::read::<u8>(FIRST), u8::MAX);
        // No device asserts the line any more, so that unmasking it brings nothing.
        route(SHARED.0, VECTOR, Trigger::Level);
        for _ in 0..100 {
            check!(port::read::<u8>(SECOND), 0u8);
        }
        check!(mmio::read::<u64>(COUNT), 0u64);
        pass()
    }
    let machine = Machine::with_irqchip(kvm)?;
    machine.set_interrupt_gate(VECTOR, count as *const () as u64);
    let irqchip = connect(&machine);
    let controller = Recorded::new(&irqchip);
    let room = Room::new();
    let (manager, verdict, device) = (manager(&room, &controller), Verdict::new(), Interrupter::new("device"));
    let eject = crate::devices::eject::Eject::new(&manager);
    let id = manager.register_device(&device, None, &[IoResource::pio(FIRST, 8)], &[IrqResource::Fixed(SHARED)])?;
    eject.plug(id);
    manager.register_device(&eject, None, &[IoResource::pio(SECOND, 1)], &[])?;
    let tally = run_guest(&machine, &manager, &verdict, guest, 0)?;
    expect("the levels of the line", controller.levels(), [(SHARED, true), (SHARED, false)])?;
    Ok(tally)
}

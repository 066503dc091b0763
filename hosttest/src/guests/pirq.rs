//! Interrupt pins of slots, which the guest routes to lines, and moves while they are asserted.

use kvm_ioctls::Kvm;
use vm_device::devices::pci::{Config, Function, HostBridge, Slot};
use vm_device::{DeviceManager, Gsi, IoRange, IoResource, IrqResource, SystemAllocator};

use super::recorded::Recorded;
use super::scenario::{ABOVE_RAM, Failure, Room, Scenario, expect};
use super::verdict::run_guest;
use crate::devices::interrupter::{ASSERT, DEASSERT};
use crate::devices::pci::{CONFIG_ADDRESS, CONFIG_DATA, config_address};
use crate::devices::pin_card::PinCard;
use crate::devices::verdict::Verdict;
use crate::guest_side::interrupts::{Trigger, enable, masked, redirection, route, wait_for};
use crate::guest_side::{mmio, pass, port};
use crate::vmm::irq::KvmIrqchip;
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::run::Tally;
use crate::{check, interrupt_handler};

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "pirq/moved-asserted",
        about: "an asserted pin that the guest routes to a line, to another line, and to none",
        run: moved_asserted,
    },
    Scenario {
        name: "pirq/two-on-one-line",
        about: "pins of two slots, which the guest routes to one line, and one of them away",
        run: two_on_one_line,
    },
];

const FIRST: u16 = 0x500;
const SECOND: u16 = 0x510;
/// The slots of the two devices, whose pins lead to the inputs PIRQA# and PIRQB#.
const SLOTS: [u8; 2] = [5, 2];
/// The slot of the function that has the router.
const ROUTER: u8 = 1;
/// The router's registers of the two inputs, once they are [selected](select_router).
const ROUTE_FIRST: u16 = CONFIG_DATA;
const ROUTE_SECOND: u16 = CONFIG_DATA + 1;
/// In such a register: its pins lead nowhere.
const NOT_ROUTED: u8 = 1 << 7;

/// The lines that pins are routed to, each with its vector, and where its handler counts.
const OLD: u8 = 10;
const OLD_VECTOR: u8 = 0x45;
const AT_OLD: u64 = DATA;
const NEW: u8 = 11;
const NEW_VECTOR: u8 = 0x46;
const AT_NEW: u64 = DATA + 8;

interrupt_handler!(
    /// Counts, and masks the line, which the device asserts still.
    at_old:
    "inc qword ptr [{count}]",
    "mov eax, 0xfec00000",
    "mov dword ptr [rax], {register}",
    "mov dword ptr [rax + 0x10], {masked}";
    count = const AT_OLD, register = const redirection(OLD as u32), masked = const masked(OLD_VECTOR)
);

interrupt_handler!(
    /// As the other.
    at_new:
    "inc qword ptr [{count}]",
    "mov eax, 0xfec00000",
    "mov dword ptr [rax], {register}",
    "mov dword ptr [rax + 0x10], {masked}";
    count = const AT_NEW, register = const redirection(NEW as u32), masked = const masked(NEW_VECTOR)
);

/// Lets the data register be the registers of the router (PIIX3, 0x60 to 0x63).
fn select_router() {
    port::write(CONFIG_ADDRESS, config_address(0, ROUTER.into(), 0x60));
}

/// Lets the IOAPIC deliver the old line, as before the handler has masked it.
fn unmask_old() {
    route(OLD.into(), OLD_VECTOR, Trigger::Level);
}

/// The same with the new line.
fn unmask_new() {
    route(NEW.into(), NEW_VECTOR, Trigger::Level);
}

/// Waits long enough for an interrupt to come, and returns how often the handler has counted there.
fn settled(count: u64) -> u64 {
    for _ in 0..100 {
        port::read::<u8>(ROUTE_FIRST);
    }
    mmio::read(count)
}

extern "C" fn move_asserted(_: u64) {
    enable();
    select_router();
    unmask_old();
    unmask_new();
    // The pin leads nowhere.
    check!(port::read::<u8>(ROUTE_FIRST), NOT_ROUTED);
    port::write(FIRST, ASSERT);
    check!(settled(AT_OLD), 0u64);
    check!(settled(AT_NEW), 0u64);
    // It gets a line, and another one.
    port::write(ROUTE_FIRST, OLD);
    check!(port::read::<u8>(ROUTE_FIRST), OLD);
    check!(wait_for(AT_OLD, 1), true);
    let at_old = settled(AT_OLD);
    check!(mmio::read::<u64>(AT_NEW), 0u64);
    port::write(ROUTE_FIRST, NEW);
    check!(wait_for(AT_NEW, 1), true);
    let at_new = settled(AT_NEW);
    // The old line is quiet, though it is not masked now.
    unmask_old();
    check!(settled(AT_OLD), at_old);
    // So is the new one when the pin has left it.
    port::write(ROUTE_FIRST, NOT_ROUTED);
    unmask_new();
    check!(settled(AT_NEW), at_new);
    // No pin gets the coprocessor's line.
    port::write(ROUTE_FIRST, 13u8);
    // All the while the device has asserted its pin: a line is told at once.
    port::write(ROUTE_FIRST, OLD);
    check!(wait_for(AT_OLD, at_old + 1), true);
    let at_old = settled(AT_OLD);
    port::write(FIRST, DEASSERT);
    unmask_old();
    check!(settled(AT_OLD), at_old);
    check!(mmio::read::<u64>(AT_NEW), at_new);
    pass()
}

extern "C" fn share_a_line(_: u64) {
    enable();
    select_router();
    unmask_old();
    unmask_new();
    port::write(ROUTE_FIRST, OLD);
    port::write(ROUTE_SECOND, OLD);
    port::write(FIRST, ASSERT);
    check!(wait_for(AT_OLD, 1), true);
    port::write(SECOND, ASSERT);
    let at_old = settled(AT_OLD);
    // The second holds the line when the first has let it go, and the first when the second goes elsewhere.
    port::write(FIRST, DEASSERT);
    unmask_old();
    check!(wait_for(AT_OLD, at_old + 1), true);
    let at_old = settled(AT_OLD);
    port::write(FIRST, ASSERT);
    port::write(ROUTE_SECOND, NEW);
    check!(wait_for(AT_NEW, 1), true);
    let at_new = settled(AT_NEW);
    unmask_old();
    check!(wait_for(AT_OLD, at_old + 1), true);
    let at_old = settled(AT_OLD);
    // Each line is quiet without its device.
    port::write(FIRST, DEASSERT);
    unmask_old();
    check!(settled(AT_OLD), at_old);
    port::write(SECOND, DEASSERT);
    unmask_new();
    check!(settled(AT_NEW), at_new);
    pass()
}

/// Two devices whose pins lead to the first two inputs of a router. Compares the levels that the lines must have had.
fn run_with_two_pins(kvm: &Kvm, guest: extern "C" fn(u64), levels: &[(u8, bool)]) -> Result<Tally, Failure> {
    let machine = Machine::with_irqchip(kvm)?;
    machine.set_interrupt_gate(OLD_VECTOR, at_old as *const () as u64);
    machine.set_interrupt_gate(NEW_VECTOR, at_new as *const () as u64);
    let irqchip = KvmIrqchip::new();
    irqchip.connect(machine.vm());
    let (room, controller) = (Room::new(), Recorded::new(&irqchip));
    let allocator = SystemAllocator::new(ABOVE_RAM).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
    let manager = DeviceManager::new(&room, allocator).with_interrupt_controller(&controller);
    let (verdict, first, second) = (Verdict::new(), PinCard::new("first"), PinCard::new("second"));
    let router = Function::new(Config::piix3());
    let host = HostBridge::new("pci", &manager).with_pirq_router(&router);
    let host_id = manager.register_device(&host, None, &[HostBridge::PORTS], &[])?;
    host.bus().plug(&router, Slot::new(ROUTER, 0), host_id)?;
    for ((card, at), slot) in [(&first, FIRST), (&second, SECOND)].into_iter().zip(SLOTS) {
        let id = manager.register_device(card, None, &[IoResource::pio(at, 8)], &[IrqResource::Unrouted])?;
        host.bus().plug(card.function(), Slot::new(slot, 0), id)?;
    }
    let tally = run_guest(&machine, &manager, &verdict, guest, 0)?;
    let levels: Vec<_> = levels.iter().map(|(line, asserted)| (Gsi((*line).into()), *asserted)).collect();
    expect("the levels of the lines", controller.levels(), levels)?;
    Ok(tally)
}

fn moved_asserted(kvm: &Kvm) -> Result<Tally, Failure> {
    // The new line is asserted before the old one is let go.
    let levels = [(OLD, true), (NEW, true), (OLD, false), (NEW, false), (OLD, true), (OLD, false)];
    run_with_two_pins(kvm, move_asserted, &levels)
}

fn two_on_one_line(kvm: &Kvm) -> Result<Tally, Failure> {
    // The pin that goes elsewhere leaves the line to the other.
    let levels = [(OLD, true), (NEW, true), (OLD, false), (NEW, false)];
    run_with_two_pins(kvm, share_a_line, &levels)
}

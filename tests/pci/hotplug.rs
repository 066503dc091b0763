//! Cards that are pulled out while their driver uses them, and plugged in while the guest runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use vm_device::devices::pci::{PinLines, Serial};
use vm_device::devices::time::HandClock;
use vm_device::{Gsi, IrqResource, UnregisterError};

use super::controller::*;
use super::fixture::Line;
use super::machine::*;
use super::serial::{BASE, DATA, IER, IIR, RECEIVED, SCR};

type Port<'d> = Serial<'d, Line, HandClock>;

fn port<'d>(line: &Line) -> Port<'d> {
    Serial::in_memory("serial", line.clone(), HandClock::new())
}

fn plug<'d>(manager: &'d DeviceManager<'d>, bus: &Bus<'d>, port: &'d Port<'d>, device: u8) -> InstanceId {
    let id = manager.register_device(port, None, &port.requests(), &[IrqResource::Unrouted]).unwrap();
    bus.plug(port.function(), Slot::new(device, 0), id).unwrap();
    id
}

fn pull<'d>(manager: &'d DeviceManager<'d>, bus: &Bus<'d>, port: &'d Port<'d>, id: InstanceId) {
    assert!(bus.unplug(port.function()));
    // A vCPU that is inside the card was preempted: it is asked again.
    while let Err(error) = manager.unregister_device(id) {
        assert_eq!(error, UnregisterError::InUse { device: "serial" });
    }
}

/// Stops the other threads at the end, and where an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A manager with a host bridge whose pins lead to the lines from 16 on.
macro_rules! machine {
    ($pic:ident, $manager:ident, $guest:ident, $host:ident) => {
        let ($pic, storage) = (Controller::default(), Storage::<4, 8, 4>::new());
        let $manager = DeviceManager::new(&storage, with_lines()).with_interrupt_controller(&$pic);
        let $host = HostBridge::new("pci", &$manager).with_lines(PinLines::new(Gsi(16), 4));
        let ranges = [HostBridge::PORTS, HostBridge::ecam(ECAM, 0)];
        $manager.register_device(&$host, None, &ranges, &[]).unwrap();
        let $guest = Guest(&$manager);
    };
}

/// The driver finds a port and sets it up.
fn start(guest: Guest<'_>, device: u32, base: u64) {
    assert_eq!(guest.config(0, device, 0), 0x037e_1590);
    guest.set(0, device, BAR0 + 4, base as u32);
    guest.set(0, device, COMMAND, MEMORY_ON);
    guest.0.write(GuestAddress(base + IER), &[RECEIVED], IoType::Mmio).unwrap();
}

#[test]
fn a_card_that_is_pulled_out_leaves_nothing_behind() {
    let lines = [Line::default(), Line::default()];
    let ports = [port(&lines[0]), port(&lines[1])];
    machine!(pic, manager, guest, host);
    let (bus, other) = (host.bus(), plug(&manager, host.bus(), &ports[1], 7));
    // More often than there is room for devices, ranges and lines.
    for turn in 0..20 {
        let id = plug(&manager, bus, &ports[0], 3);
        start(guest, 3, BASE);
        start(guest, 7, BASE + 0x1000);
        // Both share line 19, and interrupt.
        for (line, port) in lines.iter().zip(&ports) {
            line.send(b"x");
            port.poll();
        }
        assert_eq!((pic.changes(), manager.irq(id, 0).unwrap().gsi), (vec![(19, true)], Some(Gsi(19))), "turn {turn}");
        assert!(bus.unplug(ports[0].function()));
        // The configuration space is gone, in both mechanisms, and the pin is not asserted any more.
        let mut data = [0; 4];
        manager.read(GuestAddress(ECAM + (3 << 15)), &mut data, IoType::Mmio).unwrap();
        assert_eq!((guest.config(0, 3, 0), data), (u32::MAX, [0xff; 4]));
        assert_eq!(guest.config(0, 7, 0), 0x037e_1590);
        guest.set(0, 3, COMMAND, 0);
        ports[0].poll();
        assert_eq!(pic.changes(), [], "the other asserts the line");
        assert_eq!(guest.memory(BASE + 0x1000 + DATA), Some(b'x'));
        assert_eq!(pic.changes(), [(19, false)]);
        manager.unregister_device(id).unwrap();
        // The memory is open bus; what the card does now reaches nobody.
        assert_eq!((guest.memory(BASE), guest.memory(BASE + IIR)), (None, None));
        ports[0].poll();
        assert_eq!((pic.changes(), pic.asserted()), (vec![], 0));
    }
    pull(&manager, bus, &ports[1], other);
    assert_eq!(manager.walk().count(), 1, "the host bridge alone");
    assert_eq!(manager.address_map(IoType::Mmio).count(), 1);
}

#[test]
fn a_card_that_is_pulled_out_sends_no_message() {
    let line = Line::default();
    let port = port(&line);
    machine!(pic, manager, guest, host);
    let id = plug(&manager, host.bus(), &port, 3);
    start(guest, 3, BASE);
    guest.set(0, 3, COMMAND, MEMORY_ON | BUS_MASTER);
    program_message(guest, 3);
    guest.set(0, 3, MSI, MSI_ENABLE);
    line.send(b"x");
    port.poll();
    assert_eq!(pic.messages(), [MESSAGE]);
    assert_eq!(guest.memory(BASE + DATA), Some(b'x'));
    assert!(host.bus().unplug(port.function()));
    line.send(b"y");
    port.poll();
    assert_eq!(guest.memory(BASE + DATA), Some(b'y'), "its memory is there until it is unregistered");
    assert_eq!(pic.messages(), []);
    manager.unregister_device(id).unwrap();
    // In another slot it is as after power-on.
    plug(&manager, host.bus(), &port, 5);
    assert_eq!(guest.config(0, 5, MSI), 0x0180_0005);
    start(guest, 5, BASE);
    line.send(b"z");
    port.poll();
    assert_eq!((pic.messages(), pic.asserted()), (vec![], bits([17])));
}

#[test]
fn an_interrupt_from_before_the_card_was_plugged_in_counts_and_one_from_before_it_was_pulled_out_does_not() {
    let card = Card::with_pin(1);
    machine!(pic, manager, guest, host);
    let id = manager.register_device(&card, None, &card.0.requests(), &[IrqResource::Unrouted]).unwrap();
    manager.reroute(id, 0, Some(Gsi(19))).unwrap();
    card.0.set_interrupt(true);
    assert_eq!(pic.asserted(), 0, "it is not plugged in");
    host.bus().plug(&card.0, Slot::new(3, 0), id).unwrap();
    assert_eq!((guest.config(0, 3, COMMAND) >> 19 & 1, pic.asserted()), (1, bits([19])));
    assert!(host.bus().unplug(&card.0));
    assert_eq!(pic.asserted(), 0);
    host.bus().plug(&card.0, Slot::new(3, 0), id).unwrap();
    assert_eq!((guest.config(0, 3, COMMAND) >> 19 & 1, pic.asserted()), (0, 0));
}

#[test]
fn a_card_behind_a_bridge_comes_and_goes_while_its_window_is_open() {
    let line = Line::default();
    let (port, bridge) = (port(&line), Bridge::new("bridge", 0x1b36, 1));
    machine!(pic, manager, guest, host);
    let bridge_id = manager.register_device(&bridge, None, &bridge.requests(), &[]).unwrap();
    host.bus().plug(bridge.function(), Slot::new(2, 0), bridge_id).unwrap();
    for (register, value) in [(BUSES, 0x01_01_00), (MEMORY_WINDOW, 0xc000_c000), (COMMAND, MEMORY_ON)] {
        guest.set(0, 2, register, value);
    }
    for turn in 0..10 {
        assert_eq!(guest.config(1, 4, 0), u32::MAX);
        let interrupts = [IrqResource::Unrouted];
        let id = manager.register_device(&port, Some(bridge_id), &port.requests(), &interrupts).unwrap();
        bridge.bus().plug(port.function(), Slot::new(4, 0), id).unwrap();
        assert_eq!(guest.config(1, 4, 0), 0x037e_1590);
        guest.set(1, 4, BAR0 + 4, BASE as u32);
        guest.set(1, 4, COMMAND, MEMORY_ON);
        guest.0.write(GuestAddress(BASE + IER), &[RECEIVED], IoType::Mmio).unwrap();
        line.send(b"x");
        port.poll();
        // INTA# of device 4 is INTA# of the bridge in slot 2.
        assert_eq!(pic.changes(), [(18, true)], "turn {turn}");
        pull(&manager, bridge.bus(), &port, id);
        assert_eq!((guest.config(1, 4, 0), pic.changes()), (u32::MAX, vec![(18, false)]));
        // The window is there, and nobody answers in it.
        assert_eq!(guest.memory(BASE), Some(0xff));
    }
}

/// One vCPU is the driver of a card that another thread pulls out and plugs in: it finds the card as it set it up, or gone.
#[test]
fn a_driver_uses_a_card_that_comes_and_goes() {
    let (rounds, least) = if cfg!(miri) { (3, 0) } else { (200, 1) };
    let line = Line::default();
    let port = port(&line);
    machine!(pic, manager, guest, host);
    let (stop, used) = (AtomicBool::new(false), AtomicUsize::new(0));
    let at = |register: u32| GuestAddress(ECAM + (3 << 15) + u64::from(register));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _end = Stop(&stop);
            let mut vcpu = manager.dispatcher(0).unwrap();
            while !stop.load(SeqCst) {
                for (register, value) in [(BAR0 + 4, BASE as u32), (COMMAND, MEMORY_ON)] {
                    vcpu.write(at(register), &value.to_le_bytes(), IoType::Mmio).unwrap();
                }
                let mut data = [0; 4];
                vcpu.read(at(0), &mut data, IoType::Mmio).unwrap();
                assert!([0x037e_1590, u32::MAX].contains(&u32::from_le_bytes(data)));
                for value in 0..20 {
                    // An error: the card is gone.
                    let _ = vcpu.write(GuestAddress(BASE + IER), &[RECEIVED], IoType::Mmio);
                    let _ = vcpu.write(GuestAddress(BASE + SCR), &[value], IoType::Mmio);
                    let mut byte = [0];
                    if vcpu.read(GuestAddress(BASE + SCR), &mut byte, IoType::Mmio).is_ok() {
                        // 0: another card, in the same place.
                        assert!([value, 0].contains(&byte[0]), "{byte:?}");
                        used.fetch_add(1, SeqCst);
                    }
                    let _ = vcpu.read(GuestAddress(BASE + DATA), &mut byte, IoType::Mmio);
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                line.send(b"x");
                port.poll();
                thread::yield_now();
            }
        });
        let end = Stop(&stop);
        for _ in 0..rounds {
            let id = plug(&manager, host.bus(), &port, 3);
            let before = used.load(SeqCst);
            for _ in 0..10_000 {
                if used.load(SeqCst) >= before + least {
                    break;
                }
                thread::yield_now();
            }
            pull(&manager, host.bus(), &port, id);
        }
        drop(end);
    });
    assert!(used.load(SeqCst) >= least * rounds / 2, "{used:?}");
    assert_eq!((pic.asserted(), manager.walk().count()), (0, 1));
    assert_eq!((guest.config(0, 3, 0), guest.memory(BASE)), (u32::MAX, None));
    // It works as on the first day.
    plug(&manager, host.bus(), &port, 3);
    start(guest, 3, BASE);
    line.send(b"y");
    port.poll();
    assert_eq!(pic.asserted(), bits([19]));
}

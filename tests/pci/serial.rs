//! A serial port as a function, as the driver of Linux uses it: by its pin on a shared line, and by a message.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use vm_device::devices::pci::{PinLines, Serial};
use vm_device::devices::time::HandClock;
use vm_device::{Gsi, IrqResource};

use super::controller::*;
use super::fixture::Line;
use super::machine::*;

// Registers, and bits of the interrupt enable register.
pub(crate) const DATA: u64 = 0;
pub(crate) const IER: u64 = 1;
pub(crate) const IIR: u64 = 2;
pub(crate) const LSR: u64 = 5;
pub(crate) const SCR: u64 = 7;
pub(crate) const RECEIVED: u8 = 1;
const EMPTY: u8 = 2;

pub(crate) const BASE: u64 = 0xc000_0000;
const PORT: u64 = 0xc000;

/// A machine with HPE's port in slot 4, in memory at [`BASE`], and another vendor's in slot 8, at the ports from [`PORT`] on. Both
/// pins lead to line 16.
macro_rules! ports {
    ($pic:ident, $manager:ident, $guest:ident, $host:ident, $clock:ident, $near:ident: $near_line:ident,
        $other:ident: $other_line:ident) => {
        let ($pic, storage, $clock) = (Controller::default(), Storage::<16, 48, 4>::new(), HandClock::new());
        let $manager = DeviceManager::new(&storage, with_lines()).with_interrupt_controller(&$pic);
        let $host = HostBridge::new("pci", &$manager).with_lines(PinLines::new(Gsi(16), 4));
        let [$near_line, $other_line] = [Line::default(), Line::default()];
        let $near = Serial::in_memory("near", $near_line.clone(), &$clock);
        let $other = Serial::on_ports("other", 0x1b36, 0x0002, $other_line.clone(), &$clock);
        $manager.register_device(&$host, None, &[HostBridge::PORTS], &[]).unwrap();
        let ids = [
            $manager.register_device(&$near, None, &$near.requests(), &[IrqResource::Unrouted]).unwrap(),
            $manager.register_device(&$other, None, &$other.requests(), &[IrqResource::Unrouted]).unwrap(),
        ];
        $host.bus().plug($near.function(), Slot::new(4, 0), ids[0]).unwrap();
        $host.bus().plug($other.function(), Slot::new(8, 0), ids[1]).unwrap();
        let $guest = Guest(&$manager);
        $guest.set(0, 4, BAR0 + 4, BASE as u32);
        $guest.set(0, 4, COMMAND, MEMORY_ON | BUS_MASTER);
        $guest.set(0, 8, BAR0, PORT as u32);
        $guest.set(0, 8, COMMAND, PORTS_ON);
    };
}

fn write<'d>(manager: &'d DeviceManager<'d>, register: u64, value: u8) {
    manager.write(GuestAddress(BASE + register), &[value], IoType::Mmio).unwrap();
}

fn read<'d>(manager: &'d DeviceManager<'d>, register: u64) -> u8 {
    Guest(manager).memory(BASE + register).unwrap()
}

#[test]
fn a_driver_finds_the_ids_and_registers_that_it_has_in_its_list() {
    ports!(pic, manager, guest, host, clock, near: line, other: other_line);
    let _ = (&host, &pic);
    assert_eq!([0x00, 0x08, 0x3c].map(|register| guest.config(0, 4, register)), [0x037e_1590, 0x0700_0200, 0x0100]);
    assert_eq!([0x00, 0x08, 0x3c].map(|register| guest.config(0, 8, register)), [0x0002_1b36, 0x0700_0200, 0x0100]);
    assert_eq!([0x10, 0x14, 0x18].map(|register| guest.sized(4, register)), [0, 0xffff_f000, 0]);
    assert_eq!([0x10, 0x14, 0x18].map(|register| guest.sized(8, register)), [0xffff_fff9, 0, 0]);
    // Each has one message, with 64 bits of address and a mask.
    for device in [4, 8] {
        assert_eq!((guest.config(0, device, 0x34), guest.config(0, device, MSI)), (MSI, 0x0180_0005));
    }
    for (register, value) in [(SCR, 0x5a), (DATA, b'a')] {
        write(&manager, register, value);
        guest.out(PORT + register, &[value + 1]);
    }
    assert_eq!((read(&manager, SCR), guest.port(PORT + SCR)), (0x5a, Some(0x5b)));
    assert_eq!((line.sent(), other_line.sent()), (b"a".to_vec(), b"b".to_vec()));
    manager.write_string(PORT as u16, 1, b"Hello").unwrap();
    assert_eq!(other_line.sent(), b"Hello");
    // A dword has four registers, one behind the last has none.
    let mut data = [0xff; 4];
    manager.read(GuestAddress(BASE + 4), &mut data, IoType::Mmio).unwrap();
    assert_eq!(data, [0, 0x60, 0xb0, 0x5a]);
    manager.read(GuestAddress(BASE + 6), &mut data, IoType::Mmio).unwrap();
    assert_eq!(data, [0xb0, 0x5a, 0, 0]);
    assert_eq!(guest.memory(BASE + 0xfff), Some(0));
    assert_eq!(clock.asked_for(), None);
    assert!(other.function().may_use_pin() && near.function().may_use_pin());
}

#[test]
fn two_ports_share_a_line_and_each_says_whether_it_interrupts() {
    ports!(pic, manager, guest, host, clock, near: line, other: other_line);
    let _ = (&host, &clock);
    let status = || [4, 8].map(|device| guest.config(0, device, COMMAND) >> 19 & 1);
    write(&manager, IER, RECEIVED);
    guest.out(PORT + IER, &[RECEIVED]);
    assert_eq!((status(), pic.changes()), ([0, 0], vec![]));
    line.send(b"x");
    near.poll();
    other_line.send(b"y");
    other.poll();
    assert_eq!((status(), pic.changes()), ([1, 1], vec![(16, true)]));
    assert_eq!((read(&manager, IIR), read(&manager, DATA), read(&manager, IIR)), (4, b'x', 1));
    assert_eq!((status(), pic.changes()), ([0, 1], vec![]));
    assert_eq!(guest.port(PORT + DATA), Some(b'y'));
    assert_eq!((status(), pic.changes()), ([0, 0], vec![(16, false)]));
    // A reset of the machine while it interrupts.
    line.send(b"z");
    near.poll();
    assert_eq!(pic.changes(), [(16, true)]);
    manager.reset().unwrap();
    assert_eq!(
        (status(), pic.changes(), near.function().register(COMMAND as usize)),
        ([0, 0], vec![(16, false)], 0x0210_0000)
    );
    assert_eq!(guest.memory(BASE), None);
}

#[test]
fn each_reason_to_interrupt_is_one_message() {
    ports!(pic, manager, guest, host, clock, near: line, other: _other_line);
    let _ = (&host, &other);
    program_message(guest, 4);
    guest.set(0, 4, MSI, MSI_ENABLE);
    // The transmitter is empty when that is enabled.
    write(&manager, IER, EMPTY | RECEIVED);
    assert_eq!(pic.messages(), [MESSAGE]);
    line.send(b"x");
    near.poll();
    assert_eq!(pic.messages(), [], "it has interrupted and was not served");
    assert_eq!([IIR, DATA, IIR, IIR].map(|register| read(&manager, register)), [4, b'x', 2, 1]);
    for byte in *b"abc" {
        write(&manager, DATA, byte);
        assert_eq!((pic.messages(), read(&manager, IIR)), (vec![MESSAGE], 2));
    }
    assert_eq!(line.sent(), b"abc");
    // The time-out of the receiver, by the clock alone.
    write(&manager, IIR, 0xc1);
    line.send(b"t");
    near.poll();
    assert_eq!(pic.messages(), []);
    let deadline = clock.asked_for().unwrap();
    assert_eq!(manager.tick(clock.advance(deadline - 1)), Some(deadline));
    assert_eq!(pic.messages(), []);
    assert_eq!(manager.tick(clock.advance(1)), None);
    assert_eq!((pic.messages(), read(&manager, IIR), read(&manager, DATA)), (vec![MESSAGE], 0xcc, b't'));
    assert_eq!(pic.changes(), [], "the pin was not used");
}

#[test]
fn a_registration_is_a_power_on() {
    ports!(pic, manager, guest, host, clock, near: line, other: _other_line);
    let _ = (&clock, &other, &pic);
    write(&manager, SCR, 0x5a);
    write(&manager, IER, RECEIVED);
    line.send(b"x");
    near.poll();
    assert!(host.bus().unplug(near.function()));
    manager.unregister_device(manager.find_by_path("/near").unwrap()).unwrap();
    assert_eq!(guest.memory(BASE), None);
    let id = manager.register_device(&near, None, &near.requests(), &[IrqResource::Unrouted]).unwrap();
    host.bus().plug(near.function(), Slot::new(4, 0), id).unwrap();
    guest.set(0, 4, BAR0 + 4, BASE as u32);
    guest.set(0, 4, COMMAND, MEMORY_ON);
    assert_eq!([IER, IIR, LSR, SCR].map(|register| read(&manager, register)), [0, 1, 0x60, 0]);
    assert_eq!(pic.asserted(), 0);
}

#[test]
fn a_driver_misses_no_byte_that_another_thread_brings() {
    const BYTES: usize = if cfg!(miri) { 20 } else { 3_000 };
    for by_message in [false, true] {
        ports!(pic, manager, guest, host, clock, near: line, other: _other_line);
        let _ = (&clock, &other, &host);
        if by_message {
            program_message(guest, 4);
            guest.set(0, 4, MSI, MSI_ENABLE);
        }
        write(&manager, IER, RECEIVED);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..BYTES {
                    line.send(&[number as u8]);
                    near.poll();
                }
                done.store(true, SeqCst);
            });
            // It reads as long as there is something to read, and then waits for an interrupt.
            let mut next = 0;
            while next != BYTES {
                let is_over = done.load(SeqCst);
                let is_interrupted = if by_message { !pic.messages().is_empty() } else { pic.asserted() != 0 };
                assert!(is_interrupted || !is_over || next == BYTES, "byte {next} was told by no interrupt");
                while is_interrupted && read(&manager, IIR) == 4 {
                    assert_eq!(read(&manager, DATA), next as u8);
                    next += 1;
                }
                thread::yield_now();
            }
        });
        assert_eq!(pic.asserted(), 0);
    }
}

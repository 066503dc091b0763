//! Interrupt pins: where they lead, and that they follow what the guest programs.

use std::thread;

use vm_device::devices::pci::{Pin, PinLines};
use vm_device::{Gsi, IrqResource};

use super::controller::*;
use super::machine::*;

const LINES: PinLines = PinLines::new(Gsi(16), 4);

/// A host bridge, on a board that `$board` says, and cards in slots of bus 0, `name: PIN => DEVICE NUMBER`.
macro_rules! board {
    ($controller:ident, $manager:ident, $guest:ident, $host:ident: $board:ident($($value:expr)?)
        $(, $card:ident $id:ident: $pin:expr => $number:expr)* $(,)?) => {
        let ($controller, storage) = (Controller::default(), Storage::<16, 48, 4>::new());
        let $manager = DeviceManager::new(&storage, with_lines()).with_interrupt_controller(&$controller);
        let piix3 = Function::new(Config::piix3());
        let $host = board!(@board HostBridge::new("pci", &$manager), piix3, $board $(, $value)?);
        let host_id = $manager.register_device(&$host, None, &[HostBridge::PORTS], &[]).unwrap();
        $host.bus().plug(&piix3, Slot::new(1, 0), host_id).unwrap();
        $(
            let $card = Card::with_pin($pin);
            let $id = $manager.register_device(&$card, None, &$card.0.requests(), &[IrqResource::Unrouted]).unwrap();
            $host.bus().plug(&$card.0, Slot::new($number, 0), $id).unwrap();
        )*
        $host.route();
        let $guest = Guest(&$manager);
    };
    (@board $host:expr, $piix3:ident, with_pirq_router) => { $host.with_pirq_router(&$piix3) };
    (@board $host:expr, $piix3:ident, with_lines, $value:expr) => { $host.with_lines($value) };
}

/// The router's registers, in the function in slot 1.
const ROUTES: u32 = 0x60;

fn route(guest: Guest<'_>, input: u64, value: u8) {
    guest.select(0, 1, ROUTES);
    guest.out(0xcfc + input, &[value]);
}

fn line(manager: &DeviceManager<'_>, id: InstanceId) -> Option<u32> {
    manager.irq(id, 0).unwrap().gsi.map(|gsi| gsi.0)
}

#[test]
fn a_pin_leads_through_bridges_turned_by_each_device() {
    for by_router in [false, true] {
        let storage = Storage::<16, 48, 4>::new();
        let manager = DeviceManager::new(&storage, with_lines());
        let piix3 = Function::new(Config::piix3());
        let host = HostBridge::new("pci", &manager);
        let host = if by_router { host.with_pirq_router(&piix3) } else { host.with_lines(LINES) };
        let bridges = [Bridge::new("outer", 0x1b36, 1), Bridge::new("inner", 0x1b36, 1)];
        let cards = [Card::with_pin(2), Card::with_pin(1), Card::with_pin(3), Card::with_pin(0)];
        let id = manager.register_device(&host, None, &[HostBridge::PORTS], &[]).unwrap();
        host.bus().plug(&piix3, Slot::new(1, 0), id).unwrap();
        host.bus().plug(bridges[0].function(), Slot::new(2, 0), id).unwrap();
        bridges[0].bus().plug(bridges[1].function(), Slot::new(6, 0), id).unwrap();
        let ids = [
            plug_card(&manager, &cards[0], host.bus(), 5),
            plug_card(&manager, &cards[1], bridges[0].bus(), 5),
            plug_card(&manager, &cards[2], bridges[1].bus(), 7),
            // It has no pin.
            plug_card(&manager, &cards[3], bridges[1].bus(), 8),
        ];
        let guest = Guest(&manager);
        for (input, value) in [5, 6, 7, 9].into_iter().enumerate() {
            route(guest, input as u64, value);
        }
        host.route();
        // INTA# of 5 behind the bridge in 2 is its INTB#. INTC# of 7 is INTB# of 6, which is INTD# of 2.
        let expected = if by_router { [Some(6), Some(7), Some(5), None] } else { [Some(18), Some(19), Some(17), None] };
        assert_eq!(ids.map(|id| line(&manager, id)), expected);
        // A write to the function alone finds the same.
        ids.iter().for_each(|id| manager.reroute(*id, 0, None).unwrap());
        guest.set(0, 2, BUSES, 0x02_01_00);
        guest.set(1, 6, BUSES, 0x02_02_01);
        for (bus, device) in [(0, 5), (1, 5), (2, 7), (2, 8)] {
            guest.set(bus, device, 0x3c, 0);
        }
        assert_eq!(ids.map(|id| line(&manager, id)), expected, "by writes");
    }
}

fn plug_card<'d>(manager: &'d DeviceManager<'d>, card: &'d Card<'d>, bus: &Bus<'d>, device: u8) -> InstanceId {
    let id = manager.register_device(card, None, &card.0.requests(), &[IrqResource::Unrouted]).unwrap();
    bus.plug(&card.0, Slot::new(device, 0), id).unwrap();
    id
}

#[test]
fn a_write_to_the_router_moves_all_interrupts_of_the_input() {
    // Devices 2, 6 and 3 with INTA#: PIRQB# twice, and PIRQC#.
    board!(pic, manager, guest, host: with_pirq_router(), one a: 1 => 2, two b: 1 => 6, three c: 1 => 3);
    let lines = || [a, b, c].map(|id| line(&manager, id));
    assert_eq!(lines(), [None; 3], "after power-on");
    [&one, &two, &three].into_iter().for_each(|card| card.0.set_interrupt(true));
    assert_eq!(pic.changes(), []);
    route(guest, 1, 10);
    assert_eq!((lines(), pic.changes()), ([Some(10), Some(10), None], vec![(10, true)]));
    // The third shares the line, by another input.
    route(guest, 2, 10);
    assert_eq!((lines(), pic.changes()), ([Some(10); 3], vec![]));
    one.0.set_interrupt(false);
    two.0.set_interrupt(false);
    assert_eq!(pic.changes(), [], "wired-OR");
    route(guest, 2, 11);
    assert_eq!((lines(), pic.changes()), ([Some(10), Some(10), Some(11)], vec![(11, true), (10, false)]));
    // Four registers in one access. Of the bits, 4 to 6 are not there; a line of the board's own cannot be had.
    guest.set(0, 1, ROUTES, 0x0d7b_5aff);
    assert_eq!(guest.config(0, 1, ROUTES), 0x0d0b_0a8f);
    assert_eq!((lines(), pic.changes()), ([Some(10), Some(10), Some(11)], vec![]));
    guest.set(0, 1, ROUTES, 0x8080_0d80);
    assert_eq!((lines(), pic.changes()), ([None; 3], vec![(11, false)]));
    for (device, expected) in [(2, Some(Gsi(5))), (3, None), (6, Some(Gsi(5)))] {
        route(guest, 1, 5);
        assert_eq!(host.line(Slot::new(device, 0), Pin::A), expected);
    }
    manager.reset().unwrap();
    assert_eq!((guest.config(0, 1, ROUTES), lines()), (0x8080_8080, [None; 3]));
}

#[test]
fn a_pin_is_quiet_while_the_command_register_or_messages_forbid_it() {
    board!(pic, manager, guest, host: with_lines(LINES), card id: 1 => 3);
    let _ = (host.line(Slot::new(3, 0), Pin::A), id);
    let status = || guest.config(0, 3, COMMAND) >> 19 & 1;
    assert_eq!((status(), pic.asserted()), (0, 0));
    card.0.set_interrupt(true);
    assert_eq!((status(), pic.asserted()), (1, bits([19])));
    for (register, value, asserted) in [
        (COMMAND, INTERRUPT_DISABLE, 0),
        (COMMAND, BUS_MASTER, bits([19])),
        (MSI, MSI_ENABLE, 0),
        (COMMAND, INTERRUPT_DISABLE, 0),
        (MSI, 0, 0),
        (COMMAND, 0, bits([19])),
    ] {
        guest.set(0, 3, register, value);
        assert_eq!((status(), pic.asserted()), (1, asserted), "{register:#x} = {value:#x}");
    }
    // What the device does meanwhile counts when the pin may be used again.
    guest.set(0, 3, COMMAND, INTERRUPT_DISABLE);
    card.0.set_interrupt(false);
    card.0.set_interrupt(true);
    assert_eq!((status(), pic.asserted()), (1, 0));
    card.0.set_interrupt(false);
    guest.set(0, 3, COMMAND, 0);
    assert_eq!((status(), pic.asserted()), (0, 0));
    // The status register cannot be written.
    guest.set(0, 3, COMMAND, u32::MAX);
    assert_eq!(status(), 0);
}

#[test]
fn one_message_stands_for_the_pin_whenever_it_would_be_asserted() {
    board!(pic, manager, guest, host: with_lines(LINES), card id: 1 => 3);
    let _ = (&host, id);
    let set = |asserted| card.0.set_interrupt(asserted);
    guest.set(0, 3, COMMAND, BUS_MASTER);
    program_message(guest, 3);
    guest.set(0, 3, MSI, MSI_ENABLE);
    assert_eq!(pic.messages(), []);
    [true, true, false, false, true].into_iter().for_each(set);
    assert_eq!((pic.messages(), pic.changes()), (vec![MESSAGE; 2], vec![]));
    // Enabled while there is an interrupt: the guest may have seen it at the pin.
    guest.set(0, 3, MSI, 0);
    assert_eq!((pic.messages(), pic.changes()), (vec![], vec![(19, true)]));
    guest.set(0, 3, MSI, MSI_ENABLE);
    assert_eq!((pic.messages(), pic.changes()), (vec![MESSAGE], vec![(19, false)]));
    guest.set(0, 3, MSI, MSI_ENABLE);
    assert_eq!(pic.messages(), [], "it was enabled before");
    // Masked it is pending, and not any more when the interrupt is gone.
    let pending = || guest.config(0, 3, MSI + 0x14);
    set(false);
    guest.set(0, 3, MSI + 0x10, 1);
    set(true);
    assert_eq!((pending(), pic.messages()), (1, vec![]));
    set(false);
    assert_eq!(pending(), 0);
    guest.set(0, 3, MSI + 0x10, 0);
    assert_eq!(pic.messages(), []);
    // No bus master, no message.
    guest.set(0, 3, COMMAND, 0);
    set(true);
    assert_eq!((pending(), pic.messages()), (1, vec![]));
    guest.set(0, 3, COMMAND, BUS_MASTER);
    assert_eq!((pending(), pic.messages()), (0, vec![MESSAGE]));
    card.0.reset(&manager);
    assert_eq!((card.0.register(4), card.0.register(MSI as usize)), (0x0210_0000, 0x0180_0005));
    assert_eq!((pic.messages(), pic.asserted()), (vec![], 0));
}

#[test]
fn what_the_controller_refuses_is_told_again() {
    board!(pic, manager, guest, host: with_pirq_router(), card id: 1 => 2, other other_id: 1 => 3);
    let _ = (&host, &other, other_id);
    route(guest, 1, 10);
    let refused = |act: &dyn Fn()| {
        pic.refuse(true);
        act();
        pic.refuse(false);
        pic.changes()
    };
    // By the device's next call.
    assert_eq!(refused(&|| card.0.set_interrupt(true)), []);
    card.0.set_interrupt(true);
    assert_eq!(pic.changes(), [(10, true)]);
    // By the guest's next write.
    assert_eq!(refused(&|| card.0.set_interrupt(false)), []);
    guest.set(0, 2, 0x3c, 0);
    assert_eq!(pic.changes(), [(10, false)]);
    // An asserted interrupt stays where it is, until a write of any configuration space.
    card.0.set_interrupt(true);
    assert_eq!(pic.changes(), [(10, true)]);
    assert_eq!(refused(&|| route(guest, 1, 11)), []);
    assert_eq!((guest.config(0, 1, ROUTES) >> 8 & 0xff, line(&manager, id)), (11, Some(10)));
    guest.set(0, 3, 0x3c, 0);
    assert_eq!((line(&manager, id), pic.changes()), (Some(11), vec![(11, true), (10, false)]));
    // A message too.
    guest.set(0, 2, COMMAND, BUS_MASTER);
    program_message(guest, 2);
    guest.set(0, 2, MSI, MSI_ENABLE);
    assert_eq!(pic.messages(), [MESSAGE]);
    card.0.set_interrupt(false);
    let _ = pic.changes();
    assert_eq!((refused(&|| card.0.set_interrupt(true)), pic.messages()), (vec![], vec![]));
    guest.set(0, 2, 0x3c, 0);
    assert_eq!(pic.messages(), [MESSAGE]);
}

#[test]
fn a_board_that_routes_nothing_leaves_interrupts_where_they_are() {
    let (pic, storage) = (Controller::default(), Storage::<16, 48, 4>::new());
    let manager = DeviceManager::new(&storage, with_lines()).with_interrupt_controller(&pic);
    let (unwired, wired) =
        (HostBridge::new("pci", &manager), HostBridge::new("other", &manager).with_lines(PinLines::new(Gsi(16), 4)));
    let (card, own) = (Card::with_pin(1), (Function::new(CARD.interrupt_pin(1)), Numbered("own")));
    let shared = [IrqResource::Shared(Gsi(9))];
    let host_id = manager.register_device(&unwired, None, &[HostBridge::PORTS], &[]).unwrap();
    let card_id = manager.register_device(&card, None, &card.0.requests(), &shared).unwrap();
    let own_id = manager.register_device(&own.1, None, &own.0.requests(), &shared).unwrap();
    unwired.bus().plug(&card.0, Slot::new(3, 0), card_id).unwrap();
    // A device that drives its line itself is not connected with its function.
    wired.bus().plug(&own.0, Slot::new(3, 0), own_id).unwrap();
    let guest = Guest(&manager);
    guest.set(0, 3, 0x3c, 9);
    [&unwired, &wired].into_iter().for_each(HostBridge::route);
    assert_eq!([card_id, own_id].map(|id| line(&manager, id)), [Some(9); 2]);
    assert_eq!(unwired.line(Slot::new(3, 0), Pin::A), None);
    card.0.set_interrupt(true);
    assert_eq!(pic.asserted(), bits([9]));
    assert!(unwired.bus().unplug(&card.0) && host_id != card_id);
    assert_eq!(pic.asserted(), 0);
}

#[test]
fn a_function_without_a_pin_interrupts_by_its_message_alone() {
    board!(pic, manager, guest, host: with_lines(LINES), card id: 0 => 3);
    let _ = &host;
    card.0.set_interrupt(true);
    assert_eq!((line(&manager, id), pic.changes()), (None, vec![]));
    guest.set(0, 3, COMMAND, BUS_MASTER);
    program_message(guest, 3);
    guest.set(0, 3, MSI, MSI_ENABLE);
    assert_eq!(pic.messages(), [MESSAGE]);
}

#[test]
fn registers_of_the_chipset_are_as_after_reset() {
    let (isa, power) = (Function::new(Config::piix3()), Function::new(Config::piix4_power()));
    let values = [0x00, 0x04, 0x08, 0x3c, 0x4c, 0x60, 0x68].map(|offset| isa.register(offset));
    assert_eq!(values, [0x7000_8086, 0x0200_0007, 0x0601_0000, 0, 0x0003_004d, 0x8080_8080, 0x0200]);
    let values = [0x00, 0x08, 0x3c, 0x40, 0x58, 0x80, 0x90, 0xd0].map(|offset| power.register(offset));
    assert_eq!(values, [0x7113_8086, 0x0680_0003, 0x0100, 1, 1 << 25, 0, 0, 0]);
    board!(pic, manager, guest, host: with_pirq_router());
    let _ = &pic;
    let ones = |register| {
        guest.set(0, 1, register, u32::MAX);
        guest.config(0, 1, register)
    };
    // It always decodes, and is always a bus master.
    assert_eq!([COMMAND, 0x4c, 0x60, 0x68].map(ones), [0x0200_0547, 0x01f7_007f, 0x8f8f_8f8f, 0xfe00]);
    guest.set(0, 1, COMMAND, 0);
    assert_eq!(guest.config(0, 1, COMMAND), 0x0200_0007);
    let id = manager.register_device(&Numbered("power"), None, &[], &[]).unwrap();
    host.bus().plug(&power, Slot::new(1, 3), id).unwrap();
    // What SeaBIOS writes: the base of the ports, and that they are enabled.
    guest.set(0, 1, 0x340, 0x601);
    guest.select(0, 1, 0x380);
    guest.out(0xcfc, &[1]);
    assert_eq!([0x340, 0x380].map(|register| guest.config(0, 1, register)), [0x601, 1]);
}

#[test]
fn lines_end_as_the_registers_that_vcpus_write_at_once() {
    let rounds = if cfg!(miri) { 5 } else { 300 };
    board!(pic, manager, guest, host: with_pirq_router(), one a: 1 => 2, two b: 1 => 6);
    let _ = &host;
    for round in 0..rounds {
        guest.select(0, 1, ROUTES);
        thread::scope(|scope| {
            for number in 0..2_u8 {
                let manager = &manager;
                scope.spawn(move || {
                    for value in [10 + number, 0x80, 5 + number, 14 + number] {
                        manager.write(GuestAddress(0xcfd), &[value], IoType::Pio).unwrap();
                    }
                });
            }
            scope.spawn(|| (0..6).for_each(|turn| one.0.set_interrupt(turn % 2 == 0)));
        });
        let register = guest.config(0, 1, ROUTES) >> 8 & 0xff;
        assert_eq!([a, b].map(|id| line(&manager, id)), [Some(register); 2], "round {round}");
        assert_eq!(pic.asserted(), 0, "round {round}");
        two.0.set_interrupt(true);
        assert_eq!(pic.asserted(), bits([register]), "round {round}");
        two.0.set_interrupt(false);
    }
}

#[test]
fn a_pin_ends_as_the_registers_and_the_device_say() {
    let rounds = if cfg!(miri) { 5 } else { 300 };
    board!(pic, manager, guest, host: with_lines(LINES), card id: 1 => 3);
    let _ = (&host, id);
    for round in 0..rounds {
        guest.select(0, 3, COMMAND);
        thread::scope(|scope| {
            for number in 0..2_u32 {
                let (manager, card) = (&manager, &card);
                scope.spawn(move || {
                    for turn in 0..6 {
                        let value = if turn % 2 == number { INTERRUPT_DISABLE } else { 0 };
                        manager.write(GuestAddress(0xcfc), &value.to_le_bytes(), IoType::Pio).unwrap();
                    }
                    for turn in 0..6 {
                        card.0.set_interrupt(turn % 2 == number);
                    }
                });
            }
        });
        let dword = guest.config(0, 3, COMMAND);
        let asserted = dword & INTERRUPT_DISABLE == 0 && dword >> 19 & 1 == 1;
        assert_eq!(pic.asserted(), if asserted { bits([19]) } else { 0 }, "round {round}: {dword:#x}");
    }
}

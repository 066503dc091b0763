//! Base address registers: sizing, places, and registers in the way of each other.

use super::machine::*;

const EACH_SIZED: [(u32, u32); 8] = [
    (BAR0, 0xffff_f000),
    (0x14, 0xffff_ffe1),
    (0x18, 0x0000_000c),
    (0x1c, 0xffff_fffe),
    (0x20, 0xffff_fff4),
    (0x24, 0xffff_ffff),
    (ROM, 0xffff_0001),
    (0x28, 0),
];

#[test]
fn every_kind_of_register_is_sized_with_decoding_off() {
    machine!(manager, guest, host, card: ALL_KINDS => 3);
    for (register, ones) in EACH_SIZED {
        assert_eq!(guest.sized(3, register), ones, "{register:#x}");
        assert!((0..5).all(|index| state(&manager, card, index) == UNPLACED), "{register:#x}");
    }
}

#[test]
fn every_kind_of_register_is_sized_with_decoding_on() {
    machine!(manager, guest, host, card: ALL_KINDS => 3);
    let registers = [
        (BAR0, 0xc000_0000),
        (0x14, 0xc000),
        (0x1c, 0x10),
        (0x20, 0xc100_0000),
        (ROM, 0xc200_0001),
        (COMMAND, PORTS_ON | MEMORY_ON),
    ];
    registers.iter().for_each(|(register, value)| guest.set(0, 3, *register, *value));
    let places = [0xc000_0000, 0xc000, 0x10_0000_0000, 0xc100_0000, 0xc200_0000];
    let lie_there = || (0..5).zip(places).for_each(|(index, at)| assert_eq!(state(&manager, card, index), decoded(at)));
    lie_there();
    for (register, ones) in EACH_SIZED {
        assert_eq!(guest.sized(3, register), ones, "{register:#x}");
        lie_there();
    }
    assert_eq!(guest.memory(0xc000_0fff), Some(0));
    assert_eq!(guest.port(0xc01f), Some(1));
    assert_eq!(guest.memory(0x10_0000_0000), Some(2));
    assert_eq!((guest.memory(0xc100_000f), guest.memory(0xc100_0010)), (Some(3), None));
    assert_eq!(guest.memory(0xc200_ffff), Some(4));
}

#[test]
fn a_register_that_is_being_sized_is_decoded_where_it_says() {
    machine!(manager, guest, host, card: ALL_KINDS => 3);
    // The large one lies above 4 GiB, out of the way of the others.
    guest.set(0, 3, 0x1c, 0x10);
    guest.set(0, 3, COMMAND, PORTS_ON | MEMORY_ON);
    guest.set(0, 3, BAR0, u32::MAX);
    assert_eq!(state(&manager, card, 0), decoded(0xffff_f000));
    // Beyond the last port there is nothing to decode.
    guest.set(0, 3, 0x14, u32::MAX);
    assert_eq!(state(&manager, card, 1), UNPLACED);
    // Both halves of a register of 64 bits, one after the other: where the first of them says, another range is.
    guest.set(0, 3, 0x20, u32::MAX);
    assert_eq!(state(&manager, card, 3), waiting(0xffff_fff0));
    guest.set(0, 3, 0x24, u32::MAX);
    assert_eq!(state(&manager, card, 3), decoded(u64::MAX - 0xf));
}

#[test]
fn a_rom_needs_both_enable_bits() {
    machine!(manager, guest, host, card: ALL_KINDS => 3);
    guest.set(0, 3, ROM, 0xc200_0001);
    assert_eq!(state(&manager, card, 4), UNPLACED);
    guest.set(0, 3, COMMAND, MEMORY_ON);
    assert_eq!(state(&manager, card, 4), decoded(0xc200_0000));
    guest.set(0, 3, ROM, 0xc200_0000);
    assert_eq!(state(&manager, card, 4), UNPLACED);
    guest.set(0, 3, ROM, 0xc200_0001);
    guest.set(0, 3, COMMAND, PORTS_ON);
    assert_eq!(state(&manager, card, 4), UNPLACED);
}

#[test]
fn of_two_registers_with_one_address_the_first_is_decoded_and_the_other_waits() {
    let page = Config::new(0x1234, 1).bar(0, Bar::memory(0x1000));
    machine!(manager, guest, host, a: page => 1, b: page => 2);
    for device in [1, 2] {
        guest.set(0, device, BAR0, 0xc000_0000);
        guest.set(0, device, COMMAND, MEMORY_ON);
    }
    assert_eq!((state(&manager, a, 0), state(&manager, b, 0)), (decoded(0xc000_0000), waiting(0xc000_0000)));
    guest.set(0, 1, COMMAND, 0);
    assert_eq!((state(&manager, a, 0), state(&manager, b, 0)), (UNPLACED, decoded(0xc000_0000)));
    guest.set(0, 1, COMMAND, MEMORY_ON);
    assert_eq!((state(&manager, a, 0), state(&manager, b, 0)), (waiting(0xc000_0000), decoded(0xc000_0000)));
    guest.set(0, 2, BAR0, 0xd000_0000);
    assert_eq!((state(&manager, a, 0), state(&manager, b, 0)), (decoded(0xc000_0000), decoded(0xd000_0000)));
}

#[test]
fn a_register_of_0_waits_over_reserved_ram_and_leaves_it_alone() {
    machine!(manager, guest, host, card: Config::new(0x1234, 1).bar(0, Bar::memory(0x1000)) => 1);
    let ram = Placement::Fixed(IoRange::of::<0, 0x7fff_ffff>());
    manager.reserve(IoType::Mmio, ram).unwrap();
    guest.set(0, 1, COMMAND, MEMORY_ON);
    assert_eq!(state(&manager, card, 0), waiting(0));
    assert_eq!(guest.memory(0), None);
    for value in [0x7fff_f000, 0x1000] {
        guest.set(0, 1, BAR0, value);
        assert_eq!(state(&manager, card, 0), waiting(value.into()));
    }
    guest.set(0, 1, BAR0, 0x8000_0000);
    assert_eq!((state(&manager, card, 0), guest.memory(0x8000_0000)), (decoded(0x8000_0000), Some(0)));
}

#[test]
fn two_registers_change_places_in_every_order_of_writes() {
    let (one, other) = (0xc000_0000_u32, 0xd000_0000_u32);
    // With decoding off meanwhile, with it on all the time, and with it off for one of the two.
    for off in [vec![], vec![1], vec![2], vec![1, 2]] {
        let writes = [(1, BAR0, other), (2, BAR0, one)];
        for order in orders(&writes) {
            let page = Config::new(0x1234, 1).bar(0, Bar::memory(0x1000));
            machine!(manager, guest, host, a: page => 1, b: page => 2);
            for (device, at) in [(1, one), (2, other)] {
                guest.set(0, device, BAR0, at);
                guest.set(0, device, COMMAND, MEMORY_ON);
            }
            off.iter().for_each(|device| guest.set(0, *device, COMMAND, 0));
            order.iter().for_each(|(device, register, value)| guest.set(0, *device, *register, *value));
            off.iter().for_each(|device| guest.set(0, *device, COMMAND, MEMORY_ON));
            let found = (state(&manager, a, 0), state(&manager, b, 0));
            assert_eq!(found, (decoded(other.into()), decoded(one.into())), "{order:?}, off: {off:?}");
        }
    }
}

#[test]
fn three_registers_of_one_function_change_places_in_every_order_of_writes() {
    let places = [0xc000_0000_u32, 0xd000_0000, 0xe000_0000];
    let config =
        Config::new(0x1234, 1).bar(0, Bar::memory(0x1000)).bar(1, Bar::memory(0x1000)).bar(2, Bar::memory(0x1000));
    for order in orders(&[0, 1, 2]) {
        machine!(manager, guest, host, card: config => 1);
        (0..3).for_each(|bar| guest.set(0, 1, BAR0 + 4 * bar, places[bar as usize]));
        guest.set(0, 1, COMMAND, MEMORY_ON);
        order.iter().for_each(|bar| guest.set(0, 1, BAR0 + 4 * bar, places[(*bar as usize + 1) % 3]));
        let found = [0, 1, 2].map(|bar| state(&manager, card, bar));
        assert_eq!(found, [1, 2, 0].map(|place| decoded(places[place].into())), "{order:?}");
    }
}

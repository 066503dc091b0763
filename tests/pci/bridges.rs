//! Bridges: bus numbers, windows, and what lies behind them.

use super::machine::*;

/// A window of memory from `first` to `last`, both in MiB.
const fn mib(first: u32, last: u32) -> u32 {
    first << 4 | last << 20
}

#[test]
fn configuration_cycles_go_to_the_bus_by_its_number() {
    bridged!(manager, guest, outer, near, inner, far);
    let [card, bridge] = [0x0002_1234, 0x0001_1b36];
    // Without numbers nothing is forwarded.
    assert_eq!([guest.config(0, 2, 0), guest.config(1, 5, 0), guest.config(2, 7, 0)], [bridge, !0, !0]);
    number_buses(guest);
    assert_eq!([guest.config(1, 5, 0), guest.config(1, 6, 0), guest.config(2, 7, 0)], [card, bridge, card]);
    // Type 0 on bus 0 does not reach what is behind, and no bus is reached twice.
    assert_eq!([guest.config(0, 5, 0), guest.config(2, 5, 0), guest.config(3, 7, 0)], [!0; 3]);
    // A bus that the outer bridge does not forward is not reached, and is again under another number.
    guest.set(0, 2, BUSES, 0x01_01_00);
    assert_eq!([guest.config(1, 6, 0), guest.config(2, 7, 0)], [bridge, !0]);
    guest.set(0, 2, BUSES, 0x20_10_00);
    guest.set(0x10, 6, BUSES, 0x20_20_10);
    assert_eq!([guest.config(0x10, 5, 0), guest.config(0x20, 7, 0), guest.config(2, 7, 0)], [card, card, !0]);
    // The header of a bridge is of type 1, and its class says so.
    assert_eq!((guest.config(0, 2, 0x0c) >> 16, guest.config(0, 2, 8) >> 8), (1, 0x06_0400));
    let _ = (outer, near, inner, far);
}

#[test]
fn a_window_is_closed_after_reset_and_when_its_base_is_above_its_limit() {
    bridged!(manager, guest, outer, near, inner, far);
    number_buses(guest);
    assert!((0..3).all(|index| state(&manager, outer, index) == UNPLACED));
    guest.set(0, 2, MEMORY_WINDOW, mib(0xc00, 0xc01));
    guest.set(0, 2, PORT_WINDOW, 0x2010);
    guest.set(0, 2, 0x28, 8);
    guest.set(0, 2, 0x2c, 8);
    guest.set(0, 2, PREFETCHABLE_WINDOW, mib(0, 1));
    let places = [0, 1, 2].map(|index| manager.range(outer, index).unwrap().place().unwrap());
    let expected = [
        IoRange::of::<0x1000, 0x2fff>(),
        IoRange::of::<0xc000_0000, 0xc01f_ffff>(),
        IoRange::of::<0x8_0000_0000, 0x8_001f_ffff>(),
    ];
    assert_eq!(places, expected);
    // What nobody behind the bridge claims is all ones.
    assert_eq!((guest.memory(0xc000_0000), guest.port(0x1000)), (Some(0xff), Some(0xff)));
    // The bridge's command register closes windows of a kind.
    guest.set(0, 2, COMMAND, PORTS_ON);
    let states = [0, 1, 2].map(|index| state(&manager, outer, index));
    assert_eq!(states, [decoded(0x1000), UNPLACED, UNPLACED]);
    guest.set(0, 2, COMMAND, PORTS_ON | MEMORY_ON);
    guest.set(0, 2, MEMORY_WINDOW, mib(0xc01, 0xc00));
    guest.set(0, 2, PORT_WINDOW, 0x1020);
    guest.set(0, 2, 0x2c, 7);
    assert!((0..3).all(|index| state(&manager, outer, index) == UNPLACED));
    let _ = (near, inner, far);
}

#[test]
fn a_window_is_reprogrammed_with_a_range_inside() {
    bridged!(manager, guest, outer, near, inner, far);
    number_buses(guest);
    guest.set(1, 5, BAR0, 0xc010_0000);
    guest.set(1, 5, 0x14, 0x1020);
    assert_eq!((state(&manager, near, 0), state(&manager, near, 1)), (waiting(0xc010_0000), waiting(0x1020)), "closed");
    guest.set(0, 2, MEMORY_WINDOW, mib(0xc00, 0xc01));
    guest.set(0, 2, PORT_WINDOW, 0x1010);
    let both = || (state(&manager, near, 0), state(&manager, near, 1));
    assert_eq!(both(), (decoded(0xc010_0000), decoded(0x1020)));
    assert_eq!((guest.memory(0xc010_0000), guest.memory(0xc000_0000)), (Some(0), Some(0xff)));
    let steps = [
        ("grown below", mib(0xbff, 0xc01), true),
        ("shrunk at its end", mib(0xbff, 0xc00), false),
        ("grown at its end", mib(0xbff, 0xc01), true),
        ("shrunk at its base", mib(0xc01, 0xc01), true),
        ("moved away", mib(0xd00, 0xd01), false),
        ("moved back", mib(0xc00, 0xc01), true),
        ("closed", mib(0xc02, 0xc01), false),
        ("opened", mib(0xc01, 0xfff), true),
    ];
    for (step, window, holds) in steps {
        guest.set(0, 2, MEMORY_WINDOW, window);
        let expected = if holds { decoded(0xc010_0000) } else { waiting(0xc010_0000) };
        assert_eq!(both(), (expected, decoded(0x1020)), "{step}");
        let seen = guest.memory(0xc010_0000);
        assert_eq!(seen == Some(0), holds, "{step}: {seen:?}");
    }
    // The bridge's decoding, and the function's.
    guest.set(0, 2, COMMAND, 0);
    assert_eq!(both(), (waiting(0xc010_0000), waiting(0x1020)));
    guest.set(1, 5, COMMAND, MEMORY_ON);
    guest.set(0, 2, COMMAND, PORTS_ON | MEMORY_ON);
    assert_eq!(both(), (decoded(0xc010_0000), UNPLACED));
    let _ = (inner, far);
}

#[test]
fn a_prefetchable_range_lies_in_either_window_of_memory() {
    bridged!(manager, guest, outer, near, inner, far);
    number_buses(guest);
    guest.set(0, 2, MEMORY_WINDOW, mib(0xc00, 0xc00));
    guest.set(0, 2, 0x28, 8);
    guest.set(0, 2, 0x2c, 8);
    guest.set(0, 2, PREFETCHABLE_WINDOW, mib(0, 0));
    guest.set(1, 5, 0x18, 0x1000);
    guest.set(1, 5, 0x1c, 8);
    assert_eq!((state(&manager, near, 2), guest.memory(0x8_0000_1000)), (decoded(0x8_0000_1000), Some(2)));
    guest.set(1, 5, 0x1c, 0);
    assert_eq!(state(&manager, near, 2), waiting(0x1000));
    guest.set(1, 5, 0x18, 0xc000_1000);
    assert_eq!((state(&manager, near, 2), guest.memory(0xc000_1000)), (decoded(0xc000_1000), Some(2)));
    let _ = (outer, inner, far);
}

#[test]
fn a_bridge_behind_a_bridge_forwards_what_both_windows_hold_in_every_order_of_writes() {
    let writes = [
        (0, 2, MEMORY_WINDOW, mib(0xc00, 0xc0f)),
        (1, 6, MEMORY_WINDOW, mib(0xc04, 0xc05)),
        (2, 7, BAR0, 0xc041_0000),
        (1, 5, BAR0, 0xc001_0000),
    ];
    for order in orders(&writes) {
        bridged!(manager, guest, outer, near, inner, far);
        number_buses(guest);
        for (bus, device, register, value) in &order {
            guest.set(*bus, *device, *register, *value);
        }
        let found = [(outer, 1), (inner, 1), (far, 0), (near, 0)].map(|(id, index)| state(&manager, id, index));
        assert_eq!(found, [0xc000_0000, 0xc040_0000, 0xc041_0000, 0xc001_0000].map(decoded), "{order:?}");
        assert_eq!((guest.memory(0xc041_0000), guest.memory(0xc001_0000)), (Some(0), Some(0)));
        // The outer window alone is taken away, and comes back elsewhere and then where it was.
        guest.set(0, 2, MEMORY_WINDOW, mib(0xd00, 0xd0f));
        let found = [(outer, 1), (inner, 1), (far, 0), (near, 0)].map(|(id, index)| state(&manager, id, index).0);
        assert_eq!(found, [RangeState::Decoded, RangeState::Waiting, RangeState::Waiting, RangeState::Waiting]);
        guest.set(0, 2, MEMORY_WINDOW, mib(0xc04, 0xc04));
        let found = [(inner, 1), (far, 0), (near, 0)].map(|(id, index)| state(&manager, id, index).0);
        assert_eq!(found, [RangeState::Waiting; 3], "the inner window is larger than the outer");
        guest.set(0, 2, MEMORY_WINDOW, mib(0xc04, 0xc05));
        let found = [(inner, 1), (far, 0), (near, 0)].map(|(id, index)| state(&manager, id, index).0);
        assert_eq!(found, [RangeState::Decoded, RangeState::Decoded, RangeState::Waiting]);
    }
}

#[test]
fn a_reset_of_the_machine_leaves_no_register_of_any_function_as_the_guest_has_set_it() {
    bridged!(manager, guest, outer, near, inner, far);
    let registers = |guest: Guest<'_>| {
        let functions = [(0, 2), (1, 5), (1, 6), (2, 7)];
        functions.map(|(bus, device)| {
            [COMMAND, BAR0, BUSES, MEMORY_WINDOW].map(|register| guest.config(bus, device, register))
        })
    };
    number_buses(guest);
    for (bus, device) in [(0, 2), (1, 6)] {
        guest.set(bus, device, MEMORY_WINDOW, mib(0xc00, 0xc01));
    }
    guest.set(1, 5, BAR0, 0xc000_0000);
    guest.set(2, 7, BAR0, 0xc010_0000);
    assert_eq!((state(&manager, near, 0), state(&manager, far, 0)), (waiting(0xc000_0000), decoded(0xc010_0000)));
    let programmed = registers(guest);
    manager.reset().unwrap();
    assert_eq!(guest.inp(0xcf8), [0; 4]);
    for (id, index) in [(outer, 1), (near, 0), (inner, 1), (far, 0)] {
        assert_eq!(state(&manager, id, index), UNPLACED);
    }
    assert_eq!(guest.config(0, 2, BUSES), 0, "the outer bridge forwards nothing");
    // With numbers again, what lies behind it is seen to have been reset too.
    guest.set(0, 2, BUSES, 0x02_01_00);
    let command = |bus, device| guest.config(bus, device, COMMAND) & 0xffff;
    assert_eq!([command(1, 5), guest.config(1, 5, BAR0), guest.config(1, 6, BUSES)], [0; 3]);
    guest.set(1, 6, BUSES, 0x02_02_01);
    assert_eq!([command(2, 7), guest.config(2, 7, BAR0)], [0; 2]);
    assert_ne!(programmed, registers(guest));
}

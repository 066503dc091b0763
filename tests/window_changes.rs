//! Windows move, and change their size and their state. The ranges in them stay, or wait.

mod fixture;

use fixture::states::*;
use fixture::{at, manager, observe, range, try_register};
use vm_device::{GuestUsize, IoResource, IoType, RangeState, Relocation};

use RangeState::{Decoded, Reserved, Unplaced, Waiting};

#[test]
fn a_window_gets_its_place_before_what_waits_longer_inside() {
    manager!(let manager);
    let mut reader = Reader::new(&manager);
    let bus = try_register(&manager, &BUS, &[IoResource::mmio(0x1000, 0x1000).window().unplaced()]).unwrap();
    let window = IoResource::mmio(0x1000, 0x800).window().waiting();
    let bridge = below(&manager, bus, &BRIDGE, window);
    let leaf = below(&manager, bridge, &FIRST, IoResource::mmio(0x1100, 4).waiting());
    let holder = try_register(&manager, &SECOND, &[IoResource::mmio(0x1000, 4)]).unwrap();
    // The leaf has waited longest, then the window of the bridge, then that of the bus.
    change(&manager, Relocation::new(bridge, 0).unplaced());
    change(&manager, want(bridge, 0x1000));
    change(&manager, want(bus, 0x1000));
    assert_eq!(states(&manager, [bus, bridge, leaf]), [Waiting; 3]);
    assert_eq!(reader.bytes([0x1100, 0x1000]), [OPEN, 2]);
    manager.unregister_device(holder).unwrap();
    assert_eq!(states(&manager, [bus, bridge, leaf]), [Decoded; 3]);
    assert_eq!(reader.bytes([0x1100, 0x1104, 0x17ff, 0x1800]), [1, 5, 5, 4]);
}

#[test]
fn what_a_changed_window_still_holds_stays_and_the_rest_waits() {
    let (to, resized) = (
        |id, address| Relocation::new(id, 0).to(at(address)),
        |id, size| Relocation::new(id, 0).resized(GuestUsize(size)),
    );
    // The change, the states of the bus, the bridge, the leaf and the side, and what is read at the leaf's place and the side's.
    type Change<'a> = &'a dyn Fn(&Nest) -> Relocation;
    let changes: [(&str, Change<'_>, [RangeState; 4], [u8; 2]); 11] = [
        ("grows", &|nest| resized(nest.bus, 0x2000), [Decoded; 4], [1, 2]),
        ("shrinks", &|nest| resized(nest.bus, 0x800), [Decoded, Decoded, Decoded, Waiting], [1, OPEN]),
        ("shrinks more", &|nest| resized(nest.bus, 0x7ff), [Decoded, Waiting, Waiting, Waiting], [4, OPEN]),
        ("moves up", &|nest| to(nest.bus, 0x1001), [Decoded, Waiting, Waiting, Decoded], [4, 2]),
        ("moves away", &|nest| to(nest.bus, 0x8000), [Decoded, Waiting, Waiting, Waiting], [OPEN, OPEN]),
        ("moves down", &|nest| to(nest.bus, 0x0800), [Decoded, Decoded, Decoded, Waiting], [1, OPEN]),
        (
            "is reserved",
            &|nest| Relocation::new(nest.bus, 0).reserved(),
            [Reserved, Waiting, Waiting, Waiting],
            [OPEN; 2],
        ),
        (
            "is unplaced",
            &|nest| Relocation::new(nest.bus, 0).unplaced(),
            [Unplaced, Waiting, Waiting, Waiting],
            [OPEN; 2],
        ),
        ("inner shrinks", &|nest| resized(nest.bridge, 0x100), [Decoded, Decoded, Waiting, Decoded], [4, 2]),
        (
            "inner is reserved",
            &|nest| Relocation::new(nest.bridge, 0).reserved(),
            [Decoded, Reserved, Waiting, Decoded],
            [4, 2],
        ),
        ("inner moves", &|nest| to(nest.bridge, 0x1010), [Decoded, Waiting, Waiting, Decoded], [4, 2]),
    ];
    for (what, change_of, expected, bytes) in changes {
        manager!(let manager);
        let mut reader = Reader::new(&manager);
        let nest = Nest::new(&manager);
        assert_eq!(reader.bytes([0x1100, 0x1800]), [1, 2]);
        let before = observe(&manager, &[]);
        let relocation = change_of(&nest);
        if what == "inner moves" {
            // The window of the bridge would lie over the leaf of the bus: it waits there.
            change(&manager, relocation.waiting());
        } else {
            change(&manager, relocation);
        }
        assert_eq!(nest.states(&manager), expected, "{what}");
        assert_eq!(reader.bytes([0x1100, 0x1800]), bytes, "{what}");
        // All of it comes back with the windows.
        let window = Relocation::new(nest.bus, 0).to(at(0x1000)).resized(GuestUsize(0x1000)).decoded();
        let inner = Relocation::new(nest.bridge, 0).to(at(0x1000)).resized(GuestUsize(0x800)).decoded();
        manager.relocate(&mut [inner, window]).unwrap();
        assert_eq!(observe(&manager, &[]), before, "{what}");
        assert_eq!(reader.bytes([0x1100, 0x1800, 0x1200, 0x1900]), [1, 2, 5, 4], "{what}");
    }
}

#[test]
fn what_a_window_still_holds_keeps_its_place_from_what_waits_for_it() {
    manager!(let manager);
    let mut reader = Reader::new(&manager);
    let nest = Nest::new(&manager);
    let waits = below(&manager, nest.bus, &THIRD, IoResource::mmio(0x1808, 0x10).waiting());
    let window = Relocation::new(nest.bus, 0);
    change(&manager, window.to(at(0x0800)).resized(GuestUsize(0x2000)));
    assert_eq!((states(&manager, [nest.side, waits]), reader.bytes([0x1808])), ([Decoded, Waiting], [2]));
    // Where both wait, the one that began to first comes first.
    change(&manager, window.reserved());
    assert_eq!((states(&manager, [nest.side, waits]), reader.bytes([0x1808])), ([Waiting; 2], [OPEN]));
    change(&manager, window.decoded());
    assert_eq!(states(&manager, [nest.side, waits]), [Waiting, Decoded]);
    assert_eq!(reader.bytes([0x1808]), [3]);
}

#[test]
fn what_is_named_with_a_window_is_changed_with_it_or_nothing_is() {
    manager!(let manager);
    let mut reader = Reader::new(&manager);
    let nest = Nest::new(&manager);
    let to = |id, address| Relocation::new(id, 0).to(at(address));
    let all = [(nest.bus, 0x8000), (nest.bridge, 0x8000), (nest.leaf, 0x8100), (nest.side, 0x8800)];
    for order in orders(4) {
        let mut there: Vec<_> = order.iter().map(|n| to(all[*n].0, all[*n].1)).collect();
        manager.relocate(&mut there).unwrap();
        assert_eq!(nest.states(&manager), [Decoded; 4]);
        assert_eq!(reader.bytes([0x8100, 0x8200, 0x8800, 0x8900, 0x1100]), [1, 5, 2, 4, OPEN]);
        let mut back: Vec<_> = order.iter().map(|n| to(all[*n].0, all[*n].1 - 0x7000)).collect();
        manager.relocate(&mut back).unwrap();
        assert_eq!(reader.bytes([0x1100, 0x1200, 0x1800, 0x1900, 0x8100]), [1, 5, 2, 4, OPEN]);
    }
    // Named, and nothing asked of it: to stay where it is, strictly.
    let before = observe(&manager, &[]);
    let error = manager.relocate(&mut [Relocation::new(nest.side, 0), to(nest.bus, 0x8000)]).unwrap_err();
    let words =
        "range 0 of \"second\" to 0x1800: [0x1800, 0x180f] lies outside [0x8000, 0x8fff], the window of \"bus\" (#0)";
    assert_eq!(error.to_string(), words);
    assert_eq!(observe(&manager, &[]), before);
    // Unplaced together with its window, it does not come back.
    manager.relocate(&mut [Relocation::new(nest.side, 0).unplaced(), Relocation::new(nest.bus, 0).unplaced()]).unwrap();
    assert_eq!(nest.states(&manager), [Unplaced, Waiting, Waiting, Unplaced]);
    change(&manager, to(nest.bus, 0x1000));
    assert_eq!(nest.states(&manager), [Decoded, Decoded, Decoded, Unplaced]);
    assert_eq!(reader.bytes([0x1100, 0x1800]), [1, 4]);
}

#[test]
fn a_reserved_range_is_reserved_again_after_it_waited_for_its_window() {
    manager!(let manager);
    let mut reader = Reader::new(&manager);
    let bus = try_register(&manager, &BUS, &[IoResource::mmio(0x1000, 0x1000).window()]).unwrap();
    let id = below(&manager, bus, &FIRST, IoResource::mmio(0x1800, 0x10).reserved());
    let window = Relocation::new(bus, 0);
    // A reserved window holds reserved ranges.
    change(&manager, window.reserved());
    assert_eq!(states(&manager, [bus, id]), [Reserved; 2]);
    change(&manager, window.unplaced());
    assert_eq!(states(&manager, [bus, id]), [Unplaced, Waiting]);
    change(&manager, window.to(at(0x1000)).reserved());
    assert_eq!(states(&manager, [bus, id]), [Reserved; 2]);
    change(&manager, window.unplaced());
    change(&manager, window.to(at(0x1000)));
    assert_eq!((states(&manager, [bus, id]), reader.bytes([0x1800])), ([Decoded, Reserved], [4]));
    // If it is asked to be decoded meanwhile, it is.
    change(&manager, window.unplaced());
    change(&manager, Relocation::new(id, 0).waiting());
    assert_eq!(states(&manager, [bus, id]), [Unplaced, Waiting]);
    change(&manager, window.to(at(0x1000)));
    assert_eq!((states(&manager, [bus, id]), reader.bytes([0x1800])), ([Decoded; 2], [1]));
}

#[test]
fn a_reserved_window_that_is_resized_while_it_waits_is_reserved_again() {
    manager!(let manager);
    let bus = try_register(&manager, &BUS, &[IoResource::mmio(0x1000, 0x1000).window()]).unwrap();
    let bridge = below(&manager, bus, &BRIDGE, IoResource::mmio(0x1800, 0x100).window().reserved());
    change(&manager, Relocation::new(bus, 0).unplaced());
    change(&manager, Relocation::new(bridge, 0).resized(GuestUsize(0x200)));
    assert_eq!(states(&manager, [bus, bridge]), [Unplaced, Waiting]);
    change(&manager, Relocation::new(bus, 0).to(at(0x1000)));
    let bridge = manager.range(bridge, 0).unwrap();
    assert_eq!((bridge.range, bridge.state), (range(0x1800, 0x19ff), Reserved));
}

#[test]
fn a_range_is_placed_in_a_window_that_comes_back_with_the_one_around_it() {
    manager!(let manager);
    let outer = try_register(&manager, &BUS, &[IoResource::mmio(0x1_0000, 0x1_0000).window()]).unwrap();
    let inner = below(&manager, outer, &BRIDGE, IoResource::mmio(0x1_0000, 0x8000).window());
    let leaf = below(&manager, inner, &FIRST, IoResource::mmio(0x1_0000, 0x10));
    // The inner window is not named: it stays in the outer one, and holds the new place.
    let grow = Relocation::new(outer, 0).resized(GuestUsize(0x2_0000));
    manager.relocate(&mut [grow, Relocation::new(leaf, 0).to(at(0x1_4000))]).unwrap();
    assert_eq!(manager.range(inner, 0).unwrap().state, RangeState::Decoded);
    assert_eq!(manager.find_by_address(at(0x1_4000), IoType::Mmio), Some((leaf, 0)));
    // It does not, and then nothing has changed.
    let shrink = Relocation::new(outer, 0).resized(GuestUsize(0x4000));
    assert!(manager.relocate(&mut [shrink, Relocation::new(leaf, 0).to(at(0x1_0000))]).is_err());
    assert_eq!(manager.find_by_address(at(0x1_4000), IoType::Mmio), Some((leaf, 0)));
}

#[test]
fn a_device_whose_removal_is_not_finished_keeps_its_place_in_a_window_that_still_holds_it() {
    manager!(let manager);
    let bus = try_register(&manager, &BUS, &[IoResource::mmio(0x10_0000, 0x2000).window()]).unwrap();
    let place = IoResource::mmio(0x10_1000, 0x1000);
    let gone = below(&manager, bus, &FIRST, place);
    let next = below(&manager, bus, &SECOND, place.waiting());
    manager.unregister_device_deferred(gone).unwrap();
    let resize = |size| change(&manager, Relocation::new(bus, 0).resized(GuestUsize(size)));
    resize(0x3000);
    assert_eq!(states(&manager, [gone, next]), [RangeState::Decoded, RangeState::Waiting]);
    // No access reaches it there.
    assert_eq!(fixture::read(&manager, 0x10_1000), Ok(BUS.value));
    // A place that it has lost does not come back.
    resize(0x1000);
    assert_eq!(states(&manager, [gone, next]), [RangeState::Waiting, RangeState::Waiting]);
    resize(0x2000);
    assert_eq!(states(&manager, [gone, next]), [RangeState::Waiting, RangeState::Decoded]);
    assert_eq!(manager.collect(), 0);
    assert_eq!(state(&manager, next), RangeState::Decoded);
}

//! The four states of a range, and what moves ranges between them: each change, what it makes room for, and what accesses reach.

mod fixture;

use fixture::states::*;
use fixture::{Acting, Constant, Observed, at, manager, nth_name, observe, range, try_register};
use vm_device::{
    Access, Device, DeviceManager, GuestUsize, InstanceId, IoResource, IoType, Owner, RangeError, RangeRefusal,
    RangeState, RegisterError, Rejected, RelocateError, Relocation, Resources,
};

use RangeState::{Decoded, Reserved, Unplaced, Waiting};

const STATES: [RangeState; 4] = [Decoded, Reserved, Unplaced, Waiting];

fn in_state(request: IoResource, state: RangeState) -> IoResource {
    match state {
        Decoded => request,
        Reserved => request.reserved(),
        Unplaced => request.unplaced(),
        Waiting => request.waiting(),
    }
}

fn into_state(relocation: Relocation, state: RangeState) -> Relocation {
    match state {
        Decoded => relocation.decoded(),
        Reserved => relocation.reserved(),
        Unplaced => relocation.unplaced(),
        Waiting => relocation.waiting(),
    }
}

/// The two ends of a space: the address of a range of 4 there, and another one that is free.
fn ends(io_type: IoType) -> [(u64, u64); 2] {
    let top = io_type.last_address().0 - 3;
    [(0, top), (top, 0)]
}

#[test]
fn a_range_goes_from_each_state_to_each() {
    for io_type in [IoType::Pio, IoType::Mmio, IoType::PhysicalMmio] {
        for (here, there) in ends(io_type) {
            for (from, to, moves) in
                STATES.iter().flat_map(|from| STATES.iter().flat_map(|to| [(*from, *to, false), (*from, *to, true)]))
            {
                manager!(let manager);
                let mut reader = Reader::new(&manager);
                // What waits at the place of a decoded one.
                let request = IoResource::fixed(io_type, at(here), GuestUsize(4));
                let holder = (from == Waiting).then(|| try_register(&manager, &SECOND, &[request]).unwrap());
                let id = try_register(&manager, &FIRST, &[in_state(request, from)]).unwrap();
                let reaches = |reader: &mut Reader<'_>, address| match io_type {
                    IoType::PhysicalMmio => OPEN,
                    _ => reader.byte(io_type, address),
                };
                let one = if io_type == IoType::PhysicalMmio { OPEN } else { 1 };
                assert_eq!(state(&manager, id), from);
                let before = match from {
                    Decoded => one,
                    Waiting if io_type != IoType::PhysicalMmio => 2,
                    _ => OPEN,
                };
                assert_eq!(reaches(&mut reader, here), before);

                let relocation = into_state(Relocation::new(id, 0), to);
                let relocation = if moves { relocation.to(at(there)) } else { relocation };
                let got = manager.relocate(&mut [relocation]);
                let what = format!("{io_type} from {from} to {to} at {here:#x}, moves: {moves}");
                let refusal = match (from, to, moves) {
                    (Unplaced, Decoded | Reserved | Waiting, false) => Some(RangeRefusal::NoAddress),
                    (Waiting, Decoded | Reserved, false) => Some(RangeRefusal::Overlap {
                        wanted: range(here, here + 3),
                        taken: range(here, here + 3),
                        owner: Owner::Device { id: holder.unwrap(), name: "second" },
                    }),
                    _ => None,
                };
                if let Some(refusal) = refusal {
                    let to = if from == Unplaced { at(0) } else { at(here) };
                    assert_eq!(got, Err(RelocateError::Range { device: "first", index: 0, to, refusal }), "{what}");
                    assert_eq!(state(&manager, id), from, "{what}");
                    assert_eq!(reaches(&mut reader, here), before, "{what}");
                    continue;
                }
                assert_eq!(got, Ok(()), "{what}");
                let now = match (from, to, moves) {
                    (Waiting, Waiting, false) => Waiting,
                    // It waits for nothing.
                    (_, Waiting, _) => Decoded,
                    (_, to, _) => to,
                };
                let place = match (now, moves) {
                    (Unplaced, _) => 0,
                    (_, true) => there,
                    (_, false) => here,
                };
                let assigned = manager.range(id, 0).unwrap();
                assert_eq!((assigned.range, assigned.state), (range(place, place + 3), now), "{what}");
                assert_eq!(assigned.place(), now.is_placed().then_some(assigned.range), "{what}");
                let expected = if now == Decoded { one } else { OPEN };
                if moves || now != Waiting {
                    assert_eq!(
                        reaches(&mut reader, place + 3),
                        if now == Unplaced && holder.is_some() && here == 0 && io_type != IoType::PhysicalMmio {
                            2
                        } else {
                            expected
                        },
                        "{what}"
                    );
                }
                // It is in the way where it has addresses, and only there.
                for (address, taken) in
                    [(here, holder.is_some() || now.is_placed() && !moves), (there, now.is_placed() && moves)]
                {
                    let reserved = manager.reserve(io_type, range(address, address));
                    assert_eq!(reserved.is_err(), taken, "{what}: {address:#x}");
                }
            }
        }
    }
}

#[test]
fn an_unplaced_range_is_in_nobodys_way_whatever_address_it_is_given() {
    manager!(let manager);
    let mut reader = Reader::new(&manager);
    manager.reserve(IoType::Mmio, range(0, 0xfff)).unwrap();
    let request = IoResource::mmio(0x1000, 0x100).unplaced();
    let [first, second] = [&FIRST, &SECOND].map(|device| try_register(&manager, device, &[request]).unwrap());
    // At 0, over what the VMM has reserved, and both at one address.
    for address in [0, 0x1000, u64::MAX - 0xff] {
        for id in [first, second] {
            change(&manager, Relocation::new(id, 0).to(at(address)).unplaced());
            assert_eq!(manager.range(id, 0).unwrap().to_string(), "mmio [0x0, 0xff] (unplaced)");
        }
        assert_eq!(reader.bytes([address]), [OPEN]);
        assert_eq!(manager.find_by_address(at(address), IoType::Mmio), None);
    }
    // Both decoded at one address: one waits. At 0 both do.
    for id in [first, second] {
        change(&manager, want(id, 0x1000));
    }
    assert_eq!((states(&manager, [first, second]), reader.bytes([0x1000])), ([Decoded, Waiting], [1]));
    for id in [first, second] {
        change(&manager, want(id, 0xf80));
    }
    assert_eq!((states(&manager, [first, second]), reader.bytes([0xf80, 0x1000])), ([Waiting; 2], [OPEN; 2]));
    assert_eq!(manager.address_map(IoType::Mmio).count(), 1);
    manager.release(IoType::Mmio, range(0, 0xfff)).unwrap();
    assert_eq!((states(&manager, [first, second]), reader.bytes([0xf80, 0x107f])), ([Decoded, Waiting], [1; 2]));
}

/// Firmware and Windows do so with base address registers.
#[test]
fn ranges_change_places_in_any_order_of_single_writes() {
    let devices = [&FIRST, &SECOND, &THIRD];
    for io_type in [IoType::Pio, IoType::Mmio] {
        let places = [0, 4, io_type.last_address().0 - 3];
        for count in [2, 3] {
            for (order, decoding_off) in
                orders(count).into_iter().flat_map(|order| [(order.clone(), false), (order, true)])
            {
                manager!(let manager);
                let mut reader = Reader::new(&manager);
                let ids: Vec<_> = (0..count)
                    .map(|n| {
                        let request = IoResource::fixed(io_type, at(places[n]), GuestUsize(4));
                        try_register(&manager, devices[n], &[request]).unwrap()
                    })
                    .collect();
                assert_eq!(reader.byte(io_type, places[0]), 1);
                for n in &order {
                    if decoding_off {
                        change(&manager, Relocation::new(ids[*n], 0).unplaced());
                        assert_eq!(state(&manager, ids[*n]), Unplaced);
                    }
                    change(&manager, want(ids[*n], places[(n + 1) % count]));
                }
                for (n, id) in ids.iter().enumerate() {
                    let place = places[(n + 1) % count];
                    assert_eq!(state(&manager, *id), Decoded, "{order:?}");
                    assert_eq!(reader.byte(io_type, place + 3), devices[n].value, "{order:?}");
                }
            }
        }
    }
}

/// Rejects what it is given.
struct Rejecting;

impl Device<'_> for Rejecting {
    fn name(&self) -> &str {
        "rejecting"
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
    fn set_resources(&self, _: &Resources<'_, '_>) -> Result<(), Rejected> {
        Err(Rejected::new(0))
    }
}

#[test]
fn whatever_frees_a_place_gives_it_to_what_waits_for_it() {
    const HOLDER: Constant = Constant { name: "holder", value: 9 };
    type Free<'a> = &'a dyn Fn(&DeviceManager<'_>, InstanceId, InstanceId);
    let to = |id, address| Relocation::new(id, 0).to(at(address));
    let frees: [(&str, Free<'_>); 6] = [
        ("a move", &|manager, holder, _| change(manager, to(holder, 0x9000))),
        ("a move by one", &|manager, holder, _| change(manager, to(holder, 0x1100))),
        ("an unplace", &|manager, holder, _| change(manager, Relocation::new(holder, 0).unplaced())),
        ("a wait", &|manager, holder, other| {
            change(manager, want(holder, 0x8000));
            assert_eq!(states(manager, [holder, other]), [Waiting, Decoded]);
        }),
        ("a reservation elsewhere", &|manager, holder, _| change(manager, to(holder, 0x9000).reserved())),
        ("a swap", &|manager, holder, other| {
            manager.relocate(&mut [to(holder, 0x8000), to(other, 0x9000)]).unwrap();
        }),
    ];
    for (what, free) in frees {
        manager!(let manager);
        let mut reader = Reader::new(&manager);
        let holder = try_register(&manager, &HOLDER, &[IoResource::mmio(0x1000, 0x100)]).unwrap();
        let other = try_register(&manager, &SECOND, &[IoResource::mmio(0x8000, 0x100)]).unwrap();
        let id = try_register(&manager, &FIRST, &[IoResource::mmio(0x1080, 0x80).waiting()]).unwrap();
        assert_eq!((state(&manager, id), reader.bytes([0x1080])), (Waiting, [9]));
        free(&manager, holder, other);
        assert_eq!((state(&manager, id), reader.bytes([0x1080, 0x10ff])), (Decoded, [1; 2]), "{what}");
    }
    // Removals, in their three ways.
    for way in 0..3 {
        manager!(let manager);
        let mut reader = Reader::new(&manager);
        let bus = try_register(&manager, &BUS, &[IoResource::mmio(0x1000, 0x1000).window()]).unwrap();
        if way != 0 {
            manager.unregister_device(bus).unwrap();
        }
        let holder = match way {
            0 => {
                below(&manager, bus, &HOLDER, IoResource::mmio(0x1000, 0x100));
                bus
            }
            _ => try_register(&manager, &HOLDER, &[IoResource::mmio(0x1000, 0x100)]).unwrap(),
        };
        let id = try_register(&manager, &FIRST, &[IoResource::mmio(0x1000, 4).waiting()]).unwrap();
        assert_eq!((state(&manager, id), reader.bytes([0x1000])), (Waiting, [9]));
        match way {
            0 => manager.unregister_subtree(holder).unwrap(),
            1 => manager.unregister_device(holder).unwrap(),
            _ => {
                manager.unregister_device_deferred(holder).unwrap();
                // Not before what it had is given back.
                assert_eq!((state(&manager, id), reader.bytes([0x1000])), (Waiting, [OPEN]));
                assert_eq!(manager.collect(), 0);
            }
        }
        assert_eq!((state(&manager, id), reader.bytes([0x1000, 0x1003])), (Decoded, [1; 2]), "{way}");
    }
    // The VMM gives a range back.
    manager!(let manager);
    let mut reader = Reader::new(&manager);
    manager.reserve(IoType::Mmio, range(0x1000, 0x1003)).unwrap();
    let id = try_register(&manager, &FIRST, &[IoResource::mmio(0x1000, 4).waiting()]).unwrap();
    assert_eq!((state(&manager, id), reader.bytes([0x1000])), (Waiting, [OPEN]));
    manager.release(IoType::Mmio, range(0x1000, 0x1003)).unwrap();
    assert_eq!((state(&manager, id), reader.bytes([0x1000])), (Decoded, [1]));
}

#[test]
fn a_registration_that_is_undone_gives_its_place_to_what_waits_for_it() {
    struct Waits<'d>(&'d DeviceManager<'d>, InstanceId);
    impl<'d> Device<'d> for Waits<'d> {
        fn name(&self) -> &str {
            "waits"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
        fn set_resources(&self, _: &Resources<'_, 'd>) -> Result<(), Rejected> {
            // While the place is taken for this device, another one wants it.
            change(self.0, want(self.1, 0x1000));
            assert_eq!(state(self.0, self.1), Waiting);
            Err(Rejected::new(0))
        }
    }
    manager!(let manager);
    let id = try_register(&manager, &FIRST, &[IoResource::mmio(0x8000, 4)]).unwrap();
    let device = Waits(&manager, id);
    let mut reader = Reader::new(&manager);
    let got = try_register(&manager, &device, &[IoResource::mmio(0x1000, 0x10)]);
    assert_eq!(got, Err(RegisterError::Rejected { device: "waits", code: 0 }));
    assert_eq!((state(&manager, id), reader.bytes([0x1000, 0x8000])), (Decoded, [1, OPEN]));
    // One that waits itself is forgotten with the registration.
    let got = try_register(&manager, &Rejecting, &[IoResource::mmio(0x1000, 4).waiting()]);
    assert_eq!(got, Err(RegisterError::Rejected { device: "rejecting", code: 0 }));
    change(&manager, Relocation::new(id, 0).unplaced());
    assert_eq!((manager.address_map(IoType::Mmio).count(), reader.bytes([0x1000])), (0, [OPEN]));
}

#[test]
fn what_a_device_waits_for_comes_before_it_is_registered_too() {
    manager!(let manager);
    let mut reader = Reader::new(&manager);
    let request = IoResource::mmio(0x1000, 4);
    let holder = try_register(&manager, &SECOND, &[request]).unwrap();
    let taken = manager.take("first", None, &[request.waiting()], &[]).unwrap();
    assert_eq!((taken.range(0).unwrap().state, reader.bytes([0x1000])), (Waiting, [2]));
    manager.unregister_device(holder).unwrap();
    assert_eq!((taken.range(0).unwrap().state, reader.bytes([0x1000])), (Decoded, [OPEN]));
    let id = taken.register(&FIRST).unwrap();
    assert_eq!((state(&manager, id), reader.bytes([0x1000])), (Decoded, [1]));
}

#[test]
fn of_the_ranges_that_wait_for_a_place_the_one_that_has_waited_longest_gets_it() {
    let devices: Vec<_> = (0..6).map(|n| Constant { name: nth_name(n), value: n as u8 }).collect();
    for order in orders(4) {
        manager!(let manager);
        let mut reader = Reader::new(&manager);
        let request = IoResource::mmio(0x1000, 0x10);
        let ids: Vec<_> = (0..4).map(|n| try_register(&manager, &devices[n], &[request.unplaced()]).unwrap()).collect();
        let holder = try_register(&manager, &devices[5], &[request]).unwrap();
        for n in &order {
            change(&manager, want(ids[*n], 0x1000));
        }
        // To ask for the same again takes no time away.
        change(&manager, Relocation::new(ids[order[0]], 0).waiting());
        change(&manager, want(ids[order[0]], 0x1000));
        // To ask for something else does: the second is the last now.
        change(&manager, want(ids[order[1]], 0x1004));
        change(&manager, Relocation::new(holder, 0).unplaced());
        for n in [0, 2, 3, 1] {
            let id = ids[order[n]];
            assert_eq!((state(&manager, id), reader.bytes([0x1004])), (Decoded, [order[n] as u8]), "{order:?}");
            change(&manager, Relocation::new(id, 0).unplaced());
        }
        assert_eq!(reader.bytes([0x1004]), [OPEN]);
    }
}

/// The places and the order of what waits.
#[test]
fn a_transaction_that_fails_changes_no_place_and_no_order() {
    let devices: Vec<_> = (0..3).map(|n| Constant { name: nth_name(n), value: 0x10 + n as u8 }).collect();
    manager!(let manager: <12, 16, 2>);
    let mut reader = Reader::new(&manager);
    let window = IoResource::mmio(0x1_0000, 0x1000).window();
    let bus = try_register(&manager, &BUS, &[window]).unwrap();
    let bridge = below(&manager, bus, &BRIDGE, IoResource::mmio(0x1_0000, 0x800).window());
    let inside = below(&manager, bridge, &SECOND, IoResource::mmio(0x1_0100, 4));
    let kept = below(&manager, bridge, &THIRD, IoResource::mmio(0x1_0200, 4).reserved());
    let holder = try_register(&manager, &SECOND, &[IoResource::mmio(0x1000, 0x10)]).unwrap();
    let ids: [_; 3] = std::array::from_fn(|n| {
        try_register(&manager, &devices[n], &[IoResource::mmio(0x1000, 0x10).waiting()]).unwrap()
    });
    manager.reserve(IoType::Mmio, range(0x5000, 0x5000)).unwrap();
    let fails = Relocation::new(holder, 0).to(at(0x5000));
    let step = |id| Relocation::new(id, 0);
    let attempts: Vec<Vec<Relocation>> = vec![
        vec![step(ids[0]).unplaced()],
        vec![step(ids[1]).to(at(0x2000))],
        vec![step(ids[0]).to(at(0x2000)).waiting(), step(ids[2]).to(at(0x2000)).waiting()],
        vec![step(ids[2]).to(at(0x3000)).reserved(), step(ids[0]).to(at(0x2000)), step(ids[1]).unplaced()],
        vec![step(ids[0]).unplaced(), step(ids[1]).unplaced(), step(ids[2]).unplaced()],
        vec![step(bus).unplaced()],
        vec![step(bus).to(at(0x2_0000)), step(bridge).to(at(0x2_0000)), step(inside).to(at(0x2_0100))],
        vec![step(bus).to(at(0x2_0000)), step(inside).unplaced(), step(ids[1]).to(at(0x4000))],
        vec![step(bus).reserved(), step(bridge).reserved(), step(kept).unplaced()],
        vec![step(bridge).resized(GuestUsize(0x1000)), step(inside).to(at(0x1_0f00)), step(kept).decoded()],
        vec![step(bridge).waiting().to(at(0x8000)), step(kept).waiting()],
    ];
    // At the first step that is made, and at the last one.
    let deep = below(&manager, bridge, &FIRST, IoResource::mmio(0x1_0300, 4));
    let fails_late = Relocation::new(deep, 0).to(at(0x9_0000));
    let before: Observed<'_> = observe(&manager, &[]);
    for attempt in attempts {
        for (reversed, late) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut steps = attempt.clone();
            steps.push(if late { fails_late } else { fails });
            if reversed {
                steps.reverse();
            }
            let error = manager.relocate(&mut steps).unwrap_err();
            let RelocateError::Range { to, .. } = error else { panic!("{error}") };
            assert!([at(0x5000), at(0x9_0000), at(0x1_0f00)].contains(&to), "{error}");
            assert_eq!(observe(&manager, &[]), before, "{attempt:?}");
            assert_eq!(reader.bytes([0x1000, 0x1_0100, 0x1_0200, 0x1_0300, 0x1_0900]), [2, 2, 5, 1, 4]);
        }
    }
    change(&manager, step(holder).unplaced());
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!((state(&manager, id), reader.bytes([0x1000])), (Decoded, [0x10 + n as u8]));
        change(&manager, step(id).unplaced());
    }
}

#[test]
fn a_transaction_of_hundreds_of_steps_is_the_same_in_any_order() {
    const COUNT: usize = 256;
    const PER_DEVICE: usize = 16;
    let devices: Vec<_> = (0..COUNT / PER_DEVICE).map(|n| Constant { name: nth_name(n), value: n as u8 }).collect();
    let mut outcomes = Vec::new();
    for turn in 0..4 {
        manager!(let manager: <16, 256, 2>);
        let mut reader = Reader::new(&manager);
        let mut steps = Vec::new();
        for (n, device) in devices.iter().enumerate() {
            let requests: Vec<_> =
                (0..PER_DEVICE).map(|i| IoResource::mmio(((n * PER_DEVICE + i) * 4) as u64, 4)).collect();
            let id = try_register(&manager, device, &requests).unwrap();
            // Each to the place that is a third of the way on.
            let place = |i: usize| ((n * PER_DEVICE + i + COUNT / 3) % COUNT * 4) as u64;
            steps.extend((0..PER_DEVICE).map(|i| Relocation::new(id, i).to(at(place(i)))));
        }
        match turn {
            0 => {}
            1 => steps.reverse(),
            // Two strides that have no divisor in common with the count.
            _ => steps = (0..COUNT).map(|i| steps[i * [85, 151][turn - 2] % COUNT]).collect(),
        }
        let mut twice = steps.clone();
        twice.push(steps[COUNT / 2]);
        let before = observe(&manager, &[]);
        assert!(matches!(manager.relocate(&mut twice), Err(RelocateError::NamedTwice { .. })));
        assert_eq!(observe(&manager, &[]), before);
        manager.relocate(&mut steps).unwrap();
        for number in 0..COUNT {
            let owner = (number + COUNT - COUNT / 3) % COUNT / PER_DEVICE;
            assert_eq!(reader.bytes([number as u64 * 4 + 3]), [owner as u8], "{number}");
        }
        // All of them wait for one place, and one has it.
        for step in &mut steps {
            *step = step.to(at(0)).waiting();
        }
        manager.relocate(&mut steps).unwrap();
        let placed = manager.address_map(IoType::Mmio).count();
        assert_eq!((placed, reader.bytes([4])), (1, [OPEN]));
        outcomes.push(observe(&manager, &[]).devices);
    }
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "another one has got the place");
}

#[test]
fn each_reason_against_a_change_says_what_to_do() {
    manager!(let manager);
    let nest = Nest::new(&manager);
    let request = IoResource::any(IoType::Pio, GuestUsize(8)).aligned(8).unplaced();
    let ports = try_register(&manager, &THIRD, &[request]).unwrap();
    let step = |id| Relocation::new(id, 0);
    let before = observe(&manager, &[]);
    let cases = [
        (vec![step(ports).waiting()], "range 0 of \"third\" to 0x0: no address was given: `fixed` or `to` gives one"),
        (vec![step(ports).reserved()], "range 0 of \"third\" to 0x0: no address was given: `fixed` or `to` gives one"),
        (
            vec![step(nest.leaf).resized(GuestUsize(8))],
            "range 0 of \"first\" to 0x1100: only a window can change its size",
        ),
        (vec![step(nest.bus).resized(GuestUsize(0))], "range 0 of \"bus\" to 0x1000: the range at 0x1000 is empty"),
        (
            vec![step(nest.leaf).decoded(), step(nest.bridge).reserved()],
            "range 0 of \"first\" to 0x1100: no window of \"bridge\" (#1), the bus above the device, is decoded now: a range \
             that may wait for one is asked for with `.waiting()`",
        ),
        (
            vec![step(nest.side).to(at(0x2000))],
            "range 0 of \"second\" to 0x2000: [0x2000, 0x200f] lies outside [0x1000, 0x1fff], the window of \"bus\" (#0)",
        ),
        (
            vec![step(ports).to(at(4)).waiting()],
            "range 0 of \"third\" to 0x4: 0x4 is no multiple of 0x8, the alignment that the range was asked for with; 0x0 is",
        ),
        (
            vec![step(ports).to(at(0xfffc)).waiting()],
            "range 0 of \"third\" to 0xfffc: the range [0xfffc, 0x10003] passes 0xffff, the last address of its space",
        ),
    ];
    for (mut steps, words) in cases {
        assert_eq!(manager.relocate(&mut steps).unwrap_err().to_string(), words);
        assert_eq!(observe(&manager, &[]), before);
    }
    // The same of a registration. What may lie anywhere waits for nothing.
    let any = IoResource::any(IoType::Mmio, GuestUsize(4));
    let got = try_register(&manager, &FIRST, &[any.waiting()]).unwrap_err();
    let words = "mmio request 0 of \"first\": no address was given: `fixed` or `to` gives one";
    assert_eq!(got.to_string(), words);
    let beyond = RangeRefusal::Invalid(RangeError::BeyondSpace { range: range(0xfffe, 0x1_0001), last: at(0xffff) });
    let got = try_register(&manager, &FIRST, &[IoResource::pio(0xfffe, 4).waiting()]);
    assert_eq!(got, Err(RegisterError::Range { device: "first", index: 0, io_type: IoType::Pio, refusal: beyond }));
    change(&manager, step(nest.bus).reserved());
    let got = manager.register_device(&THIRD, Some(nest.bus), &[any], &[]).unwrap_err();
    let words = "mmio request 0 of \"third\": no window of \"bus\" (#0), the bus above the device, is decoded now: a range that \
                 may wait for one is asked for with `.waiting()`";
    assert_eq!(got.to_string(), words);
    // A reserved one needs none that is decoded.
    manager.register_device(&THIRD, Some(nest.bus), &[any.reserved()], &[]).unwrap();
}

/// A device may change its own range from its own callback, and those of others.
#[test]
fn a_callback_lets_ranges_wait_and_places_them() {
    manager!(let manager);
    let act = |access: &Access<'_>, data: &mut [u8]| {
        let other = manager.find_by_path("/first").unwrap();
        let own = access.base().0;
        change(&manager, want(other, own));
        assert_eq!(state(&manager, other), Waiting);
        change(&manager, want(manager.find_by_path("/acting").unwrap(), own + 0x100));
        assert_eq!(state(&manager, other), Decoded);
        data.fill(7);
    };
    let acting = Acting { name: "acting", act: &act };
    try_register(&manager, &acting, &[IoResource::mmio(0x1000, 4)]).unwrap();
    try_register(&manager, &FIRST, &[IoResource::mmio(0x2000, 4)]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    let mut byte = |address| {
        let mut data = [0];
        let _ = vcpu.read(at(address), &mut data, IoType::Mmio);
        data[0]
    };
    assert_eq!([byte(0x2000), byte(0x1000), byte(0x1000), byte(0x1100)], [1, 7, 1, 7]);
}

#[test]
fn the_states_of_two_managers_are_their_own() {
    manager!(let one);
    manager!(let other);
    let request = IoResource::mmio(0x1000, 4);
    let holder = try_register(&one, &FIRST, &[request]).unwrap();
    let waits = try_register(&one, &SECOND, &[request.waiting()]).unwrap();
    let elsewhere = try_register(&other, &THIRD, &[request.waiting()]).unwrap();
    assert_eq!(states(&one, [holder, waits]), [Decoded, Waiting]);
    assert_eq!(state(&other, elsewhere), Decoded);
    other.unregister_device(elsewhere).unwrap();
    assert_eq!(states(&one, [holder, waits]), [Decoded, Waiting]);
    one.unregister_device(holder).unwrap();
    assert_eq!(state(&one, waits), Decoded);
}

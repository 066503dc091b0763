//! The innermost range that holds a whole access answers it, wherever its first and its last byte belong.

mod fixture;

use fixture::nest::{
    Answered, Asked, Log, NEST, Nested, Places, Relay, SPAN, innermost, is_touched, register_nest, same, value, written,
};
use fixture::{Constant, manager, try_register};
use vm_device::{AccessSizes, GuestAddress, GuestUsize, IoError, IoResource, IoType, Relocation};

/// The answer by looking at all ranges.
fn expected(places: &Places, asked: Asked) -> Answered {
    let Asked { io_type, write, address, element, length } = asked;
    let (each, top) = (if element == 0 { length } else { element }, io_type.last_address().0);
    let open_bus = if write { written(length) } else { vec![0xff; length] };
    let last = match address.checked_add(each as u64 - 1).filter(|last| *last <= top) {
        Some(last) => last,
        None if address > top => return (Err(IoError::Unclaimed), open_bus, vec![]),
        None => return (Err(IoError::Straddling), open_bus, vec![]),
    };
    let Some((number, base)) = innermost(places, address, last) else {
        let error = if is_touched(places, address, last) { IoError::Straddling } else { IoError::Unclaimed };
        return (Err(error), open_bus, vec![]);
    };
    let read = |at: usize| value(number, address + (at % each) as u64);
    let data: Vec<u8> = if write { written(length) } else { (0..length).map(read).collect() };
    let calls = data.chunks(each).map(|data| (number, write, address, base, data.to_vec())).collect();
    (Ok(()), data, calls)
}

/// Asks for accesses of many lengths around the places.
fn check(relay: &Relay<'_>, io_type: IoType, places: &Places) {
    let first = places.iter().map(|place| place.1).min().unwrap().saturating_sub(2);
    let last = places.iter().map(|place| place.2).max().unwrap().saturating_add(2);
    for address in first..=last {
        for (length, write) in [1, 2, 3, 4, 8, 16, 33].into_iter().flat_map(|length| [(length, false), (length, true)])
        {
            let asked = Asked { io_type, write, address, element: 0, length };
            same(asked, &relay.ask(asked), &expected(places, asked));
            if io_type == IoType::Pio && length <= 4 && address <= 0xffff {
                let asked = Asked { element: length, length: 3 * length, ..asked };
                same(asked, &relay.ask(asked), &expected(places, asked));
            }
        }
    }
}

#[test]
fn the_innermost_range_that_holds_a_whole_access_answers_it() {
    for io_type in [IoType::Pio, IoType::Mmio] {
        let top = io_type.last_address().0;
        for origin in [0, 0x1000, top - (SPAN - 1)] {
            let log = Log::default();
            manager!(let manager);
            let devices = [0, 1, 2, 3, 4].map(|number| Nested { number, log: &log });
            let relay = Relay::new(&manager, &log);
            relay.register();
            let (_, places) = register_nest(&manager, &devices, io_type, origin, AccessSizes::ANY);
            check(&relay, io_type, &places);
        }
    }
}

#[test]
fn the_innermost_range_is_found_where_windows_and_what_lies_in_them_have_moved() {
    for io_type in [IoType::Pio, IoType::Mmio] {
        let top = io_type.last_address().0;
        let log = Log::default();
        manager!(let manager);
        let devices = [0, 1, 2, 3, 4].map(|number| Nested { number, log: &log });
        let relay = Relay::new(&manager, &log);
        relay.register();
        let (ids, mut places) = register_nest(&manager, &devices, io_type, 0x1000, AccessSizes::ANY);
        let to = |number: usize, address: u64| Relocation::new(ids[number], 0).to(GuestAddress(address));
        // The whole nest but the range beside it, to the end of the space, and to the start.
        for origin in [top - 0x1f, 0, 0x1080] {
            let mut moves: Vec<_> = (0..4).map(|number| to(number, origin + NEST[number].0)).collect();
            manager.relocate(&mut moves).unwrap();
            for number in 0..4 {
                places[number] = (number, origin + NEST[number].0, origin + NEST[number].1);
            }
            let near = |place: &&(usize, u64, u64)| place.0 < 4;
            check(&relay, io_type, &places.iter().filter(near).copied().collect());
        }
        // The byte, to the end of the inner window.
        manager.relocate(&mut [to(2, 0x108f)]).unwrap();
        places[2] = (2, 0x108f, 0x108f);
        places[4] = (4, 0x10a0, 0x10a3);
        manager.relocate(&mut [to(4, 0x10a0)]).unwrap();
        check(&relay, io_type, &places);
        // The inner window is no longer decoded, and what lies in it waits.
        manager.relocate(&mut [Relocation::new(ids[1], 0).reserved()]).unwrap();
        let without = places.iter().filter(|place| ![1, 2].contains(&place.0)).copied().collect();
        check(&relay, io_type, &without);
        manager.relocate(&mut [Relocation::new(ids[1], 0).decoded()]).unwrap();
        check(&relay, io_type, &places);
        // It is smaller, and larger than before.
        manager.relocate(&mut [Relocation::new(ids[1], 0).resized(GuestUsize(8))]).unwrap();
        let smaller = (1, 0x1084, 0x108b);
        let without: Vec<_> = places.iter().filter(|place| ![1, 2].contains(&place.0)).copied().collect();
        check(&relay, io_type, &without.iter().copied().chain([smaller]).collect());
        manager.relocate(&mut [Relocation::new(ids[1], 0).resized(GuestUsize(0x18))]).unwrap();
        places[1] = (1, 0x1084, 0x109b);
        check(&relay, io_type, &places);
        for number in [4, 3, 2, 1] {
            manager.unregister_device(ids[number]).unwrap();
            places.pop();
            check(&relay, io_type, &places);
        }
    }
}

/// The register at 0xcf8 takes four bytes, and the one at 0xcf9 one.
#[test]
fn the_reset_register_lies_inside_the_configuration_address() {
    const BRIDGE: Constant = Constant { name: "bridge", value: 1 };
    const RESET: Constant = Constant { name: "reset", value: 2 };
    manager!(let manager);
    let bridge = try_register(&manager, &BRIDGE, &[IoResource::pio(0xcf8, 8).window()]).unwrap();
    let request = [IoResource::pio(0xcf9, 1)];
    manager.register_device(&RESET, Some(bridge), &request, &[]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    for (port, length, answer) in
        [(0xcf8, 4, 1), (0xcf9, 1, 2), (0xcf8, 2, 1), (0xcf9, 2, 1), (0xcfc, 4, 1), (0xcf8, 1, 1)]
    {
        let mut data = [0; 4];
        for _ in 0..2 {
            assert_eq!(
                vcpu.read(GuestAddress(port), &mut data[..length], IoType::Pio),
                Ok(()),
                "{length} at {port:#x}"
            );
            assert!(data[..length].iter().all(|byte| *byte == answer), "{length} at {port:#x}");
        }
    }
    assert_eq!(vcpu.read(GuestAddress(0xcfe), &mut [0; 4], IoType::Pio), Err(IoError::Straddling));
}

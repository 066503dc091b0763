//! Single accesses, at the edges where one way of dispatch could differ from another.

mod fixture;

use fixture::{Acting, Constant, manager, nth_name, within_limit};
use vm_device::{Access, GuestAddress, GuestUsize, IoError, IoRange, IoResource, IoType, OpenBus, Relocation};

const DEVICE: Constant = Constant { name: "device", value: 0x5a };

#[test]
fn a_physical_access_is_not_dispatched_where_the_last_one_was_mmio() {
    manager!(let manager);
    manager.register_device(&DEVICE, None, &[IoResource::mmio(0x1000, 4)], &[]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    let (mut data, at) = ([0; 1], GuestAddress(0x1000));
    assert_eq!(vcpu.read(at, &mut data, IoType::Mmio), Ok(()));
    assert_eq!(vcpu.read(at, &mut data, IoType::PhysicalMmio), Err(IoError::NotDispatched));
    assert_eq!(data, [0xff]);
    assert_eq!(vcpu.write(at, &data, IoType::PhysicalMmio), Err(IoError::NotDispatched));
}

#[test]
fn a_hint_is_taken_only_while_it_is_true() {
    for io_type in [IoType::Pio, IoType::Mmio] {
        hints_come_and_go::<0>(io_type);
        hints_come_and_go::<1>(io_type);
        hints_come_and_go::<3>(io_type);
        hints_come_and_go::<256>(io_type);
    }
}

/// With as many hints: none, one for all addresses, two of three, or different ones for most of what is read here.
fn hints_come_and_go<const HINTS: usize>(io_type: IoType) {
    const FIRST: Constant = Constant { name: "first", value: 1 };
    const SECOND: Constant = Constant { name: "second", value: 2 };
    const BUS: Constant = Constant { name: "bus", value: 3 };
    const CHILD: Constant = Constant { name: "child", value: 4 };
    manager!(let manager);
    let mut vcpu = manager.dispatcher_with_hints::<HINTS, HINTS>(0).unwrap();
    // Twice: what the first one finds is there for the second.
    let mut read = |address: u64| {
        [0, 1].map(|_| {
            let mut data = [0];
            vcpu.read(GuestAddress(address), &mut data, io_type).map(|()| data[0])
        })
    };
    let unclaimed = [Err(IoError::Unclaimed); 2];
    let at = |space, base, size| [IoResource::fixed(space, GuestAddress(base), GuestUsize(size))];
    manager.register_device(&DEVICE, None, &at(io_type, 0x800, 4), &[]).unwrap();
    let first = manager.register_device(&FIRST, None, &at(io_type, 0x100, 4), &[]).unwrap();
    assert_eq!(
        [read(0x100), read(0x103), read(0x800), read(0x100)],
        [[Ok(1); 2], [Ok(1); 2], [Ok(0x5a); 2], [Ok(1); 2]]
    );

    // Moved away, and back.
    let relocate = |relocation: Relocation| manager.relocate(&mut [relocation]).unwrap();
    relocate(Relocation::new(first, 0).to(GuestAddress(0x104)));
    assert_eq!([read(0x100), read(0x104)], [unclaimed, [Ok(1); 2]]);
    relocate(Relocation::new(first, 0).to(GuestAddress(0x100)));
    assert_eq!([read(0x100), read(0x104)], [[Ok(1); 2], unclaimed]);
    // No longer decoded.
    relocate(Relocation::new(first, 0).reserved());
    assert_eq!(read(0x100), unclaimed);
    relocate(Relocation::new(first, 0).decoded());
    assert_eq!(read(0x100), [Ok(1); 2]);
    // Gone, and its slot in use for another place, and for a larger range.
    manager.unregister_device(first).unwrap();
    assert_eq!(read(0x100), unclaimed);
    let second = manager.register_device(&SECOND, None, &at(io_type, 0x200, 8), &[]).unwrap();
    assert_eq!([read(0x100), read(0x200), read(0x207), read(0x208)], [unclaimed, [Ok(2); 2], [Ok(2); 2], unclaimed]);
    manager.unregister_device(second).unwrap();
    // In use for the same addresses in the other space.
    let other = if io_type == IoType::Pio { IoType::Mmio } else { IoType::Pio };
    let third = manager.register_device(&SECOND, None, &at(other, 0x200, 4), &[]).unwrap();
    assert_eq!(read(0x200), unclaimed);
    manager.unregister_device(third).unwrap();
    let physical = at(IoType::PhysicalMmio, 0x200, 4);
    let third = manager.register_device(&SECOND, None, &physical, &[]).unwrap();
    assert_eq!(read(0x200), unclaimed);
    manager.unregister_device(third).unwrap();

    // The slot becomes that of a window, and a child comes, moves, and goes in it.
    let window = at(io_type, 0x100, 0x40).map(IoResource::window);
    let bus = manager.register_device(&BUS, None, &window, &[]).unwrap();
    assert_eq!([read(0x100), read(0x110)], [[Ok(3); 2]; 2]);
    let child = manager.register_device(&CHILD, Some(bus), &at(io_type, 0x110, 4), &[]).unwrap();
    assert_eq!([read(0x100), read(0x110), read(0x114)], [[Ok(3); 2], [Ok(4); 2], [Ok(3); 2]]);
    relocate(Relocation::new(child, 0).to(GuestAddress(0x114)));
    assert_eq!([read(0x100), read(0x110), read(0x114)], [[Ok(3); 2], [Ok(3); 2], [Ok(4); 2]]);
    manager
        .relocate(&mut [
            Relocation::new(bus, 0).to(GuestAddress(0x140)),
            Relocation::new(child, 0).to(GuestAddress(0x150)),
        ])
        .unwrap();
    assert_eq!([read(0x114), read(0x140), read(0x150), read(0x154)], [unclaimed, [Ok(3); 2], [Ok(4); 2], [Ok(3); 2]]);
    relocate(Relocation::new(child, 0).reserved());
    assert_eq!([read(0x140), read(0x150)], [[Ok(3); 2]; 2]);
    manager.unregister_device(child).unwrap();
    assert_eq!([read(0x140), read(0x150)], [[Ok(3); 2]; 2]);
    manager.unregister_subtree(bus).unwrap();
    assert_eq!([read(0x140), read(0x150), read(0x800)], [unclaimed, unclaimed, [Ok(0x5a); 2]]);
}

#[test]
fn a_hint_does_not_stretch_a_range() {
    manager!(let manager);
    let mut vcpu = manager.dispatcher_with_hints::<1, 1>(0).unwrap();
    let straddling = [Err(IoError::Straddling); 2];
    for (io_type, base) in [(IoType::Pio, 0), (IoType::Pio, 0xfffe), (IoType::Mmio, 0), (IoType::Mmio, u64::MAX - 1)] {
        let resource = [IoResource::fixed(io_type, GuestAddress(base), GuestUsize(2))];
        let id = manager.register_device(&DEVICE, None, &resource, &[]).unwrap();
        let mut read = |address: u64, length: usize| {
            [0, 1].map(|_| {
                vcpu.read(GuestAddress(base), &mut [0], io_type).unwrap();
                vcpu.read(GuestAddress(address), &mut [0; 16][..length], io_type)
            })
        };
        for length in [1, 2] {
            assert_eq!(read(base, length), [Ok(()); 2]);
        }
        assert_eq!(read(base + 1, 1), [Ok(()); 2]);
        for length in [2, 4, 8, 16] {
            assert_eq!(read(base + 1, length), straddling, "{io_type} {base:#x} {length}");
        }
        assert_eq!(read(base, 3), straddling);
        if base > 0 {
            assert_eq!(read(base - 1, 1), [Err(IoError::Unclaimed); 2]);
            for length in [2, 3, 4, 16] {
                assert_eq!(read(base - 1, length), straddling, "{io_type} {base:#x} {length}");
            }
        }
        manager.unregister_device(id).unwrap();
    }
    let all = [IoResource::at(IoType::Mmio, IoRange::ALL_MEMORY)];
    manager.register_device(&DEVICE, None, &all, &[]).unwrap();
    for _ in 0..2 {
        for address in [0, u64::MAX / 2, u64::MAX] {
            assert_eq!(vcpu.read(GuestAddress(address), &mut [0], IoType::Mmio), Ok(()));
        }
        assert_eq!(vcpu.read(GuestAddress(u64::MAX), &mut [0; 2], IoType::Mmio), Err(IoError::Straddling));
    }
}

#[test]
fn each_space_has_its_own_open_bus_value() {
    manager!(let manager, with_open_bus(IoType::Pio, OpenBus(0)), with_open_bus(IoType::PhysicalMmio, OpenBus(7)));
    let mut vcpu = manager.dispatcher(0).unwrap();
    for (io_type, expected) in [(IoType::Pio, 0), (IoType::Mmio, 7), (IoType::PhysicalMmio, 7)] {
        for length in 0..40 {
            let mut data = vec![0x55; length];
            assert!(manager.read(GuestAddress(0), &mut data, io_type).is_err());
            assert!(data.iter().all(|byte| *byte == expected));
            data.fill(0x55);
            assert!(vcpu.read(GuestAddress(0), &mut data, io_type).is_err());
            assert!(data.iter().all(|byte| *byte == expected));
        }
    }
    let mut data = [0x55; 4];
    assert_eq!(manager.read_string(0, 2, &mut data), Err(IoError::Unclaimed));
    assert_eq!(data, [0; 4]);
}

#[test]
fn an_access_longer_than_eight_bytes_is_one_call() {
    manager!(let manager);
    manager.register_device(&DEVICE, None, &[IoResource::mmio(0x1000, 0x1000)], &[]).unwrap();
    let mut data = vec![0; 0x1000];
    assert_eq!(manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio), Ok(()));
    assert!(data.iter().all(|byte| *byte == 0x5a));
    assert_eq!(manager.read(GuestAddress(0x1001), &mut data, IoType::Mmio), Err(IoError::Straddling));
    assert!(data.iter().all(|byte| *byte == 0xff));
}

#[test]
fn addresses_behind_the_last_port_are_unclaimed() {
    manager!(let manager);
    manager.register_device(&DEVICE, None, &[IoResource::pio(0, 0x1_0000)], &[]).unwrap();
    let mut data = [0; 2];
    for address in [0x1_0000, 0x1_0001, 1 << 32, u64::MAX] {
        assert_eq!(manager.read(GuestAddress(address), &mut data[..1], IoType::Pio), Err(IoError::Unclaimed));
        assert_eq!(data, [0xff, 0]);
    }
    assert_eq!(manager.read(GuestAddress(0xffff), &mut data, IoType::Pio), Err(IoError::Straddling));
    assert_eq!(manager.read(GuestAddress(0xffff), &mut data[..1], IoType::Pio), Ok(()));
    assert_eq!(data, [0x5a, 0xff]);
}

#[test]
fn a_window_has_the_last_address_of_its_space_behind_a_child() {
    const BUS: Constant = Constant { name: "bus", value: 3 };
    for (io_type, last) in [(IoType::Pio, 0xffff), (IoType::Mmio, u64::MAX)] {
        manager!(let manager);
        let at = |base, size| [IoResource::fixed(io_type, GuestAddress(base), GuestUsize(size))];
        let window = at(last - 0xf, 0x10).map(IoResource::window);
        let bus = manager.register_device(&BUS, None, &window, &[]).unwrap();
        manager.register_device(&DEVICE, Some(bus), &at(last - 4, 4), &[]).unwrap();
        for (address, expected) in [(last - 5, 3), (last - 4, 0x5a), (last - 1, 0x5a), (last, 3)] {
            let mut data = [0];
            assert_eq!(manager.read(GuestAddress(address), &mut data, io_type), Ok(()), "{address:#x}");
            assert_eq!(data, [expected], "{address:#x}");
        }
    }
}

#[test]
fn an_access_past_the_last_byte_of_memory_straddles() {
    manager!(let manager);
    let top = IoResource::mmio(u64::MAX - 7, 8);
    manager.register_device(&DEVICE, None, &[top], &[]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    let mut data = [0; 8];
    assert_eq!(vcpu.read(GuestAddress(u64::MAX - 7), &mut data, IoType::Mmio), Ok(()));
    for offset in 0..7 {
        let outcome = vcpu.read(GuestAddress(u64::MAX - offset), &mut data, IoType::Mmio);
        assert_eq!((outcome, data), (Err(IoError::Straddling), [0xff; 8]));
    }
}

#[test]
fn a_search_through_any_number_of_ranges_finds_what_the_allocator_has_there() {
    within_limit(search_through_any_number_of_ranges);
}

fn search_through_any_number_of_ranges() {
    const RANGES: usize = 320;
    // Up to both ends of the space, the middle left out.
    const PORTS: u64 = 512;
    let port = |n: u64| if n < PORTS { n } else { 0x1_0000 - 2 * PORTS + n };
    let answers_with_its_base = |access: &Access<'_>, data: &mut [u8]| data.fill(access.base().0 as u8);
    let devices: Vec<_> = (0..32).map(|n| Acting { name: nth_name(n), act: &answers_with_its_base }).collect();
    manager!(let manager: <32, RANGES, 1>);
    let mut vcpu = manager.dispatcher(0).unwrap();
    let mut check = || {
        for n in 0..2 * PORTS {
            let address = GuestAddress(port(n));
            let owner = manager.find_by_address(address, IoType::Pio);
            let base = owner.map(|(id, index)| manager.range(id, index).unwrap().range.first().0 as u8);
            let mut data = [0];
            let outcome = vcpu.read(address, &mut data, IoType::Pio);
            assert_eq!((outcome.is_ok(), data[0]), (base.is_some(), base.unwrap_or(0xff)), "{address}");
        }
    };
    check();
    // A bus with every second device in its window, which their ranges split, and the others beside it.
    let window = IoResource::pio(0, PORTS as u32).window();
    let bus = manager.register_device(&devices[0], None, &[window], &[]).unwrap();
    let mut ids = Vec::new();
    for (n, device) in (0..).zip(&devices[1..17]) {
        let requests: Vec<_> = (0..16)
            .map(|i| {
                let (first, inside) = ((n / 2 * 16 + i) * 4, n % 2 == 0);
                let first = port(if inside { first } else { 2 * PORTS - 4 - first } + 1);
                IoResource::pio(first as u16, if i % 3 == 0 { 3 } else { 1 })
            })
            .collect();
        let parent = (n % 2 == 0).then_some(bus);
        ids.push(manager.register_device(device, parent, &requests, &[]).unwrap());
        check();
    }
    // The last port of all has an owner.
    assert!(manager.find_by_address(GuestAddress(0xffff), IoType::Pio).is_some());
    for id in ids.into_iter().rev().chain([bus]) {
        manager.unregister_device(id).unwrap();
        check();
    }
}

#[test]
fn a_hint_does_not_lead_to_a_child_that_a_move_of_its_window_has_turned_off() {
    const BUS: Constant = Constant { name: "bus", value: 3 };
    const CHILD: Constant = Constant { name: "child", value: 4 };
    manager!(let manager);
    let mut vcpu = manager.dispatcher(0).unwrap();
    let mut read = |address: u64| {
        let mut data = [0];
        vcpu.read(GuestAddress(address), &mut data, IoType::Mmio).map(|()| data[0])
    };
    let window = IoResource::mmio(0x1000, 0x100).window();
    let bus = manager.register_device(&BUS, None, &[window], &[]).unwrap();
    let child = manager.register_device(&CHILD, Some(bus), &[IoResource::mmio(0x1010, 4)], &[]).unwrap();
    assert_eq!([read(0x1010), read(0x1010)], [Ok(4); 2]);
    let mut moves = [
        Relocation::new(bus, 0).to(GuestAddress(0x2000)),
        Relocation::new(child, 0).to(GuestAddress(0x2010)).reserved(),
    ];
    manager.relocate(&mut moves).unwrap();
    // The child's hint is about the old place.
    assert_eq!([read(0x1010), read(0x2010)], [Err(IoError::Unclaimed), Ok(3)]);
}

//! Every limit: what is at it, and what is one more.

mod fixture;

use fixture::{Constant, DEVICES, NEW, Platform, RANGES, bounded, is_refused, manager, nth_name, range};
use vm_device::{
    Gsi, GuestAddress, GuestUsize, IoResource, IoType, IrqRefusal, IrqResource, MAX_RANGES_PER_DEVICE, MAX_SHARING,
    MAX_WINDOW_DEPTH, Owner, RangeRefusal, RegisterError, Relocation,
};

/// Devices named by their numbers.
fn numbered(count: usize) -> Vec<Constant> {
    (0..count).map(|number| Constant { name: nth_name(number), value: 0x11 }).collect()
}

#[test]
fn a_manager_full_of_devices_refuses_another_and_keeps_nothing_of_it() {
    let devices = numbered(DEVICES);
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let ids: Vec<_> = devices.iter().map(|device| manager.register_device(device, None, &[], &[]).unwrap()).collect();
    let error = RegisterError::TooManyDevices { device: "new", capacity: DEVICES };
    let words = "there is no room for \"new\": all 40 devices are in use, as many as `DEVICES` says";
    is_refused(&manager, error, words, || {
        manager.register_device(&NEW, None, &[IoResource::pio(0, 1)], &[IrqResource::Any])
    });
    manager.unregister_device(ids[7]).unwrap();
    let id = manager.register_device(&NEW, None, &[IoResource::pio(0, 1)], &[IrqResource::Any]).unwrap();
    assert!(!ids.contains(&id));
}

/// ACRN: a full table is an error.
#[test]
fn a_manager_full_of_ranges_refuses_every_request() {
    let devices = numbered(3);
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    // Every second port.
    for (n, device) in (0..).zip(&devices) {
        let requests: Vec<_> = (0..16).map(|i| IoResource::pio((n * 16 + i) * 2 + 1, 1)).collect();
        manager.register_device(device, None, &requests, &[]).unwrap();
    }
    let full = RangeRefusal::Full { capacity: RANGES };
    for request in [IoResource::pio(0, 1), IoResource::mmio(0x1000, 1), IoResource::any(IoType::Pio, GuestUsize(1))] {
        let error = RegisterError::Range { device: "new", index: 0, io_type: request.io_type(), refusal: full };
        let words = format!(
            "{} request 0 of \"new\": all 48 ranges are in use, as many as `RANGES` says, those of the VMM included",
            request.io_type()
        );
        is_refused(&manager, error, &words, || manager.register_device(&NEW, None, &[request], &[IrqResource::Any]));
    }
    // In the middle of everything, one goes and one comes.
    manager.unregister_device(manager.find_by_path("/1").unwrap()).unwrap();
    let requests: Vec<_> = (0..16).map(|i| IoResource::pio((16 + i) * 2, 2)).collect();
    manager.register_device(&NEW, None, &requests, &[]).unwrap();
    let mut data = [0; 2];
    for port in 0..96 {
        let outcome = manager.read(GuestAddress(port), &mut data[..1], IoType::Pio);
        assert_eq!(outcome.is_ok(), (32..64).contains(&port) || port % 2 == 1, "{port:#x}");
    }
}

#[test]
fn a_window_takes_the_room_of_one_range() {
    let devices = numbered(DEVICES);
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    // The VMM's ports take room too.
    const RESERVED: usize = 16;
    for port in 0..RESERVED as u64 {
        manager.reserve(IoType::Pio, range(port, port)).unwrap();
    }
    let mut parent = None;
    let mut count = 0_usize;
    // Windows in windows, as deep as they nest, and each gives its child all that it has.
    let nested = MAX_WINDOW_DEPTH + 1;
    let page = |count: usize| 0x1000 * (count / nested + 1) as u64;
    let got = loop {
        if count.is_multiple_of(nested) {
            parent = None;
        }
        let all = IoResource::mmio(page(count), 0x1000).window();
        match manager.register_device(&devices[count], parent, &[all], &[]) {
            Ok(id) => (parent, count) = (Some(id), count + 1),
            Err(error) => break error,
        }
    };
    assert_eq!(count, RANGES - RESERVED);
    let refusal = RangeRefusal::Full { capacity: RANGES };
    assert!(matches!(got, RegisterError::Range { refusal: r, .. } if r == refusal));
    // The innermost answers, whichever goes.
    for left in (0..count).rev() {
        let address = GuestAddress(page(left) + 0xfff);
        let innermost = manager.find_by_address(address, IoType::Mmio);
        assert_eq!(innermost.map(|(id, _)| manager.device(id).unwrap().depth), Some(left % nested));
        assert_eq!(manager.read(address, &mut [0], IoType::Mmio), Ok(()));
        manager.unregister_device(innermost.unwrap().0).unwrap();
    }
    assert!(manager.read(GuestAddress(page(0)), &mut [0], IoType::Mmio).is_err());
}

#[test]
fn no_more_windows_are_around_a_range_than_the_limit() {
    let devices = numbered(MAX_WINDOW_DEPTH + 1);
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let all = [IoResource::at(IoType::Mmio, range(0x1000, u64::MAX)).window()];
    let mut parent = None;
    for device in &devices {
        // A bus without a window does not count, nor does one with a window of the other space.
        parent = Some(manager.register_device(device, parent, &all, &[]).unwrap());
        let between = [IoResource::pio(manager.walk().count() as u16, 1)];
        parent = Some(manager.register_device(device, parent, &between, &[]).unwrap());
    }
    let bus = manager.device(parent.unwrap()).unwrap().parent.unwrap();
    let owner = Owner::Device { id: bus, name: "8" };
    let refusal = RangeRefusal::TooDeep { bus: owner };
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Mmio, refusal };
    let words = format!(
        "mmio request 0 of \"new\": more than 8 buses above the device have a window for the space, from \"8\" ({bus}) up"
    );
    // Whatever state is asked for: the range could never be placed.
    let place = IoResource::mmio(0x1000, 1);
    for request in [place, place.reserved(), place.waiting(), place.unplaced()] {
        is_refused(&manager, error, &words, || manager.register_device(&NEW, parent, &[request], &[]));
    }
    manager.register_device(&NEW, parent, &[IoResource::pio(0x100, 1)], &[]).unwrap();
    let innermost = manager.find_by_address(GuestAddress(u64::MAX), IoType::Mmio);
    assert_eq!(innermost, Some((bus, 0)));
    let depths: Vec<_> = manager.address_map(IoType::Mmio).map(|mapped| mapped.depth).collect();
    assert!(depths.into_iter().eq(0..=MAX_WINDOW_DEPTH));
}

#[test]
fn no_device_has_more_ranges_than_the_limit() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    Platform::new(&manager);
    let requests: Vec<_> = (0..=MAX_RANGES_PER_DEVICE as u16).map(|port| IoResource::pio(port, 1)).collect();
    let (asked, limit) = (MAX_RANGES_PER_DEVICE + 1, MAX_RANGES_PER_DEVICE);
    let error = RegisterError::TooManyRanges { device: "new", asked, limit };
    let words = "\"new\" asks for 17 ranges; a device can have 16";
    is_refused(&manager, error, words, || manager.register_device(&NEW, None, &requests, &[]));
    let id = manager.register_device(&NEW, None, &requests[1..], &[]).unwrap();
    assert_eq!(manager.range(id, MAX_RANGES_PER_DEVICE - 1).unwrap().range, range(16, 16));
    assert_eq!(manager.find_by_address(GuestAddress(16), IoType::Pio), Some((id, 15)));
    assert!(manager.range(id, MAX_RANGES_PER_DEVICE).is_none());
}

#[test]
fn no_line_is_shared_by_more_devices_than_the_limit() {
    let devices = numbered(MAX_SHARING);
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    for device in &devices {
        manager.register_device(device, None, &[], &[IrqResource::Shared(Gsi(8))]).unwrap();
    }
    let error = RegisterError::Irq { device: "new", index: 0, refusal: IrqRefusal::LineFull { gsi: Gsi(8) } };
    let words = "interrupt request 0 of \"new\": 29 interrupts share GSI 8, as many as can";
    is_refused(&manager, error, words, || {
        manager.register_device(&NEW, None, &[IoResource::pio(0, 1)], &[IrqResource::Shared(Gsi(8))])
    });
    let first = manager.find_by_path("/0").unwrap();
    manager.unregister_device(first).unwrap();
    manager.register_device(&NEW, None, &[], &[IrqResource::Shared(Gsi(8))]).unwrap();
}

#[test]
fn a_transaction_moves_as_many_ranges_as_there_are() {
    let devices = numbered(3);
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let mut moves = Vec::new();
    for (n, device) in (0..).zip(&devices) {
        let requests: Vec<_> = (0..12).map(|i| IoResource::pio(n * 12 + i, 1)).collect();
        let id = manager.register_device(device, None, &requests, &[]).unwrap();
        // All one up: each to where the next one is.
        moves.extend((0..12).map(|i| Relocation::new(id, i).to(GuestAddress(n as u64 * 12 + i as u64 + 1))));
    }
    assert_eq!(manager.relocate(&mut moves), Ok(()));
    for (number, device) in (0..).zip(["0", "1", "2"]) {
        let id = manager.find_by_path(&format!("/{device}")).unwrap();
        for index in 0..12 {
            let address = GuestAddress(number * 12 + index as u64 + 1);
            assert_eq!(manager.find_by_address(address, IoType::Pio), Some((id, index)));
            assert!(manager.read(address, &mut [0], IoType::Pio).is_ok());
        }
    }
    assert!(manager.read(GuestAddress(0), &mut [0], IoType::Pio).is_err());
    assert_eq!(manager.relocate(&mut []), Ok(()));
}

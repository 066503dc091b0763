//! Resources that are taken before their device exists.

#[macro_use]
mod fixture;

use fixture::{BUS, CHILD, Constant, Recorder, SERIAL, at, range, read, register, try_register};
use vm_device::{
    Gsi, GuestUsize, IoResource, IoType, IrqResource, RangeState, RegisterError, RelocateError, Relocation,
    UnregisterError,
};

const DISK: Constant = Constant { name: "disk", value: 7 };

fn page() -> IoResource {
    IoResource::mmio(0x1000, 0x1000)
}

#[test]
fn what_is_taken_is_nobody_elses_and_is_the_devices_once_it_is_registered() {
    manager!(let manager);
    let taken = manager.take("disk", None, &[page()], &[IrqResource::Fixed(Gsi(7))]).unwrap();
    assert_eq!((taken.range(0).unwrap().range, taken.irq(0).gsi()), (range(0x1000, 0x1fff), Some(Gsi(7))));
    assert_eq!(taken.range(1), None);

    // It is held, and not reached.
    assert!(try_register(&manager, &SERIAL, &[page()]).is_err());
    assert!(manager.reserve_irq(Some(Gsi(7))).is_err());
    assert_eq!(manager.find_by_address(at(0x1000), IoType::Mmio), Some((taken.id(), 0)));
    assert!(read(&manager, 0x1000).is_err());

    let id = taken.id();
    assert_eq!(taken.register(&DISK), Ok(id));
    assert_eq!(read(&manager, 0x1000), Ok(7));
    assert_eq!(manager.irq(id, 0).map(|irq| irq.gsi), Some(Some(Gsi(7))));
    manager.unregister_device(id).unwrap();
    assert!(manager.take("disk", None, &[page()], &[IrqResource::Fixed(Gsi(7))]).is_ok());
}

#[test]
fn what_is_dropped_is_given_back_and_placed_where_another_waits_for_it() {
    manager!(let manager);
    let taken = manager.take("disk", None, &[page()], &[IrqResource::Fixed(Gsi(7))]).unwrap();
    let waiting = try_register(&manager, &SERIAL, &[page().waiting()]).unwrap();
    assert_eq!(manager.range(waiting, 0).unwrap().state, RangeState::Waiting);
    drop(taken);
    assert_eq!(manager.range(waiting, 0).unwrap().state, RangeState::Decoded);
    assert!(read(&manager, 0x1000).is_ok());
    assert_eq!(manager.walk().count(), 1);
    assert_eq!(manager.reserve_irq(Some(Gsi(7))), Ok(Gsi(7)));
}

#[test]
fn a_device_of_another_name_is_refused_and_everything_is_given_back() {
    manager!(let manager);
    let taken = manager.take("disk", None, &[page()], &[]).unwrap();
    let error = taken.register(&SERIAL).unwrap_err();
    assert_eq!(error, RegisterError::OtherName { device: "serial", taken: "disk" });
    let words = "\"serial\" cannot have what was taken for \"disk\": a device keeps the name";
    assert_eq!(error.to_string(), words);
    assert_eq!(manager.walk().count(), 0);
    assert_eq!(manager.address_map(IoType::Mmio).count(), 0);
}

#[test]
fn until_its_device_is_registered_nothing_else_can_be_done_with_it() {
    manager!(let manager);
    let window = IoResource::mmio(0, 0x10_0000).window();
    let bus = try_register(&manager, &BUS, &[window]).unwrap();
    let taken = manager.take("disk", Some(bus), &[page()], &[]).unwrap();
    let id = taken.id();
    assert_eq!(manager.unregister_device(id), Err(UnregisterError::Busy { device: "disk" }));
    assert_eq!(manager.unregister_device_deferred(id), Err(UnregisterError::Busy { device: "disk" }));
    assert_eq!(manager.unregister_subtree(bus), Err(UnregisterError::Busy { device: "disk" }));
    let error = RelocateError::Busy { device: "disk" };
    assert_eq!(manager.relocate(&mut [Relocation::new(id, 0).unplaced()]), Err(error));
    let error = RegisterError::NoSuchParent { device: "child", parent: id };
    assert_eq!(manager.register_device(&CHILD, Some(id), &[], &[]), Err(error));
    drop(taken);
    assert_eq!(manager.unregister_device(bus), Ok(()));
}

#[test]
fn what_is_taken_moves_with_the_window_around_it() {
    manager!(let manager);
    let window = IoResource::mmio(0, 0x10_0000).window();
    let bus = try_register(&manager, &BUS, &[window]).unwrap();
    let device = Recorder::new("disk", 0);
    let taken = manager.take("disk", Some(bus), &[page()], &[]).unwrap();
    let away = |to| manager.relocate(&mut [Relocation::new(bus, 0).to(at(to))]);
    away(0x100_0000).unwrap();
    assert_eq!(taken.range(0).unwrap().state, RangeState::Waiting);
    // Others get the addresses meanwhile: as a registered range that waits, it has none.
    let other = register(&manager, &SERIAL, 0x1000);
    manager.unregister_device(other).unwrap();
    let id = taken.register(&device).unwrap();
    assert_eq!(device.assigned()[0].state, RangeState::Waiting);
    assert!(read(&manager, 0x1000).is_err());
    away(0).unwrap();
    assert_eq!(manager.range(id, 0).unwrap().state, RangeState::Decoded);
    assert!(read(&manager, 0x1000).is_ok());
}

#[test]
fn what_cannot_be_taken_is_an_error_that_names_it() {
    manager!(let manager);
    let first = manager.take("disk", None, &[page()], &[]).unwrap();
    let none = &[];
    let refused = |name, request| manager.take(name, None, &[request], none).err().unwrap().to_string();
    let words = format!(
        "mmio request 0 of \"net\": [0x1000, 0x1fff] overlaps [0x1000, 0x1fff], which belongs to \"disk\" ({})",
        first.id(),
    );
    assert_eq!(refused("net", page()), words);
    let other = IoResource::any(IoType::Mmio, GuestUsize(1));
    assert!(manager.take("disk", None, &[other], none).is_ok(), "another device may have the name");
    assert!(manager.take("a/b", None, &[other], none).is_err());
}

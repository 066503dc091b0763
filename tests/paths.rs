//! Siblings of one name, and the paths that tell them apart.

mod fixture;

use fixture::{BUS, Constant, Recorder, at, manager, register, register_below, try_register};
use vm_device::{GuestAddress, IoResource, PathError, Relocation};

const SERIAL: Constant = Constant { name: "serial", value: 1 };
const OTHER: Constant = Constant { name: "serial2", value: 2 };

const NOT_FOUND: Result<vm_device::InstanceId, PathError> = Err(PathError::NotFound);
const AMBIGUOUS: Result<vm_device::InstanceId, PathError> = Err(PathError::Ambiguous);

/// rust-vmm 2019: the name is the key of a device, so that two serial ports need two names.
#[test]
fn of_several_siblings_of_one_name_an_address_names_one() {
    manager!(let manager);
    let bus = try_register(&manager, &BUS, &[]).unwrap();
    let port = |port| manager.register_device(&SERIAL, Some(bus), &[IoResource::pio(port, 8)], &[]).unwrap();
    let com1 = port(0x3f8);
    assert_eq!(manager.find_by_path("/bus/serial"), Ok(com1));
    assert_eq!(manager.find_by_path("/bus/serial@3f8"), Ok(com1), "the address does no harm where it is not needed");
    assert_eq!(manager.path(com1).to_string(), "/bus/serial");
    let com2 = port(0x2f8);
    assert_eq!(manager.find_by_path("/bus/serial"), AMBIGUOUS);
    for (id, path) in [(com1, "/bus/serial@3f8"), (com2, "/bus/serial@2f8")] {
        assert_eq!(manager.find_by_path(path), Ok(id));
        assert_eq!(manager.path(id).to_string(), path);
        assert_eq!(format!("{:?}", manager.path(id)), path);
    }
    for part in [
        "serial@",
        "serial@0",
        "serial@3f",
        "serial@f8",
        "serial@13f8",
        "serial@03f8",
        "serial@0x3f8",
        "serial@3F8",
        "serial@3f8@",
        "serial@3f8/",
        "seria",
        "serial2",
        "@3f8",
        "",
        "/",
        "serial@-3f8",
        "serial@3f8\u{e9}",
        "\u{e9}",
    ] {
        assert_eq!(manager.find_by_path(&format!("/bus/{part}")), NOT_FOUND, "{part}");
    }
    for path in ["", "/", "bus", "bus/serial", "//bus", "/serial", "/serial@3f8", "/bus@0", "@", "/@"] {
        assert_eq!(manager.find_by_path(path), NOT_FOUND, "{path}");
    }
    let words = "several siblings have this path: the first address of a device tells them apart, as in \"serial@3f8\"";
    assert_eq!(PathError::Ambiguous.to_string(), words);
    assert_eq!(PathError::NotFound.to_string(), "no device has this path");
    // Names that begin alike are different ones.
    let other = register_below(&manager, bus, &OTHER, 0);
    assert_eq!(manager.path(other).to_string(), "/bus/serial2");
    manager.unregister_device(com1).unwrap();
    assert_eq!(manager.find_by_path("/bus/serial"), Ok(com2));
    assert_eq!((manager.path(com2).to_string(), manager.path(com1).to_string()), ("/bus/serial".into(), "#1".into()));
}

#[test]
fn the_first_and_the_last_address_are_part_of_paths_as_any_other_is() {
    manager!(let manager);
    let ids = [0, u64::MAX, 0x1_0000_0000]
        .map(|first| try_register(&manager, &SERIAL, &[IoResource::mmio(first, 1)]).unwrap());
    for (id, path) in ids.into_iter().zip(["/serial@0", "/serial@ffffffffffffffff", "/serial@100000000"]) {
        assert_eq!((manager.path(id).to_string().as_str(), manager.find_by_path(path)), (path, Ok(id)));
    }
    assert_eq!(manager.find_by_path("/serial@00"), NOT_FOUND);
    assert_eq!(manager.find_by_path("/serial@1ffffffffffffffff"), NOT_FOUND);
}

#[test]
fn the_address_is_that_of_the_first_range_that_has_a_place() {
    manager!(let manager);
    let first = Recorder::new("disk", 0);
    let ranges = [IoResource::mmio(0x1000, 0x1000).unplaced(), IoResource::mmio(0x8000, 4).reserved()];
    let id = try_register(&manager, &first, &ranges).unwrap();
    let second = register(&manager, &first, 0x3000);
    let path = |id| manager.path(id).to_string();
    assert_eq!((path(id), path(second)), ("/disk@8000".into(), "/disk@3000".into()));
    manager.relocate(&mut [Relocation::new(id, 0).to(at(0x1000)).decoded()]).unwrap();
    assert_eq!((path(id), manager.find_by_path("/disk@8000")), ("/disk@1000".into(), NOT_FOUND));
    assert_eq!(manager.find_by_path("/disk@1000"), Ok(id));
}

#[test]
fn siblings_that_nothing_tells_apart_are_not_found_by_paths() {
    manager!(let manager);
    let bare = [(); 2].map(|()| try_register(&manager, &SERIAL, &[]).unwrap());
    for id in bare {
        assert_eq!(manager.path(id).to_string(), "/serial");
    }
    // One address in two spaces.
    let (port, memory) = (IoResource::pio(0x10, 1), IoResource::mmio(0x10, 1));
    let placed = [port, memory].map(|range| try_register(&manager, &SERIAL, &[range]).unwrap());
    for id in placed {
        assert_eq!(manager.path(id).to_string(), "/serial@10");
    }
    assert_eq!((manager.find_by_path("/serial"), manager.find_by_path("/serial@10")), (AMBIGUOUS, AMBIGUOUS));
    // Nor is what is below them.
    let below = register_below(&manager, bare[0], &OTHER, 0x100);
    assert_eq!(manager.find_by_path(&manager.path(below).to_string()), AMBIGUOUS);
}

#[test]
fn a_path_is_shown_as_it_is_when_it_is_shown() {
    manager!(let manager);
    let id = register(&manager, &SERIAL, 0);
    let path = manager.path(id);
    assert_eq!(path.to_string(), "/serial");
    register(&manager, &SERIAL, 0x10);
    assert_eq!(path.to_string(), "/serial@0");
    manager.relocate(&mut [Relocation::new(id, 0).to(GuestAddress(0xabc))]).unwrap();
    assert_eq!(path.to_string(), "/serial@abc");
    manager.unregister_device_deferred(id).unwrap();
    assert_eq!(path.to_string(), "/serial@abc", "until the removal is finished");
    assert_eq!(manager.collect(), 0);
    assert_eq!(path.to_string(), "#0");
}

//! Registrations that are refused: the error names both parties, and leaves everything as it was.

mod fixture;

use fixture::{BUS, CHILD, Constant, DEVICES, NEW, Platform, RANGES, bounded, is_refused, manager, range};
use vm_device::{
    Access, Device, Gsi, GuestAddress, GuestUsize, IoRange, IoResource, IoType, IrqError, IrqRefusal, IrqResource,
    MAX_LINES, Owner, RangeError, RangeRefusal, RegisterError, Rejected, Resources, SystemAllocator,
};

const UNNAMED: Constant = Constant { name: "", value: 5 };
const PATH: Constant = Constant { name: "a/b", value: 6 };
const UNIT: Constant = Constant { name: "a@b", value: 7 };

#[test]
fn a_name_that_is_none_is_refused() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    Platform::new(&manager);
    for device in [&UNNAMED, &PATH, &UNIT] {
        let error = RegisterError::InvalidName { device: device.name };
        let words = format!("\"{}\" is no name for a device: it is empty or contains a '/' or a '@'", device.name);
        is_refused(&manager, error, &words, || manager.register_device(device, None, &[], &[]));
    }
}

#[test]
fn a_parent_that_is_gone_or_going_is_refused() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let Platform { child, stale, .. } = Platform::new(&manager);
    let error = RegisterError::NoSuchParent { device: "new", parent: stale };
    let words = "#3, which is to be the parent of \"new\", is not registered, or not completely";
    is_refused(&manager, error, words, || manager.register_device(&NEW, Some(stale), &[], &[]));
    manager.unregister_device_deferred(child).unwrap();
    let error = RegisterError::NoSuchParent { device: "new", parent: child };
    let got = manager.register_device(&NEW, Some(child), &[], &[]);
    assert_eq!(got, Err(error));
}

/// vm-device: an invalid range is an error value. rust-vmm 2019: a failure at request 0 is not swallowed.
#[test]
fn a_range_that_cannot_be_had_is_refused_and_nothing_is_kept() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let Platform { bus, child, serial, .. } = Platform::new(&manager);
    let fine = IoResource::pio(0x10, 1);
    let any = |size, align| IoResource::any(IoType::Mmio, GuestUsize(size)).aligned(align);
    let overlap = |wanted, taken, owner| RangeRefusal::Overlap { wanted, taken, owner };
    let owned = |id, name| Owner::Device { id, name };
    let window = range(0x1_0000, 0x1_ffff);
    let wanted = range(0x3ff, 0x400);
    let no_room = |size, align, within| RangeRefusal::NoRoom { size: GuestUsize(size), align, within };
    let cases = [
        (
            IoResource::pio(0x3ff, 2),
            overlap(wanted, range(0x3f8, 0x3ff), owned(serial, "serial")),
            "pio request 1 of \"new\": [0x3ff, 0x400] overlaps [0x3f8, 0x3ff], which belongs to \"serial\" (#2)",
        ),
        (
            IoResource::pio(0x3f7, 2),
            overlap(range(0x3f7, 0x3f8), range(0x3f8, 0x3ff), owned(serial, "serial")),
            "pio request 1 of \"new\": [0x3f7, 0x3f8] overlaps [0x3f8, 0x3ff], which belongs to \"serial\" (#2)",
        ),
        (
            // In the window of a bus that is not above the device.
            IoResource::mmio(0x1_0000, 1),
            overlap(range(0x1_0000, 0x1_0000), window, owned(bus, "bus")),
            "mmio request 1 of \"new\": [0x10000, 0x10000] overlaps [0x10000, 0x1ffff], which belongs to \"bus\" (#0)",
        ),
        (
            IoResource::fixed(IoType::PhysicalMmio, GuestAddress(0x1f_ffff), GuestUsize(2)),
            overlap(range(0x1f_ffff, 0x20_0000), range(0x10_0000, 0x1f_ffff), Owner::Vmm),
            "physical mmio request 1 of \"new\": [0x1fffff, 0x200000] overlaps [0x100000, 0x1fffff], which belongs to \
             the VMM",
        ),
        (
            IoResource::mmio(0x5000, 0),
            RangeRefusal::Invalid(RangeError::Empty { base: GuestAddress(0x5000) }),
            "mmio request 1 of \"new\": the range at 0x5000 is empty",
        ),
        (
            IoResource::mmio(u64::MAX, 2),
            RangeRefusal::Invalid(RangeError::Wraps { base: GuestAddress(u64::MAX), size: GuestUsize(2) }),
            "mmio request 1 of \"new\": the range of 0x2 bytes at 0xffffffffffffffff passes the end of the 64-bit \
             address space",
        ),
        (
            IoResource::pio(0xffff, 2),
            RangeRefusal::Invalid(RangeError::BeyondSpace {
                range: range(0xffff, 0x1_0000),
                last: GuestAddress(0xffff),
            }),
            "pio request 1 of \"new\": the range [0xffff, 0x10000] passes 0xffff, the last address of its space",
        ),
        (
            IoResource::mmio(0xfff, 2),
            RangeRefusal::OutsidePool { wanted: range(0xfff, 0x1000), pool: range(0x1000, u64::MAX) },
            "mmio request 1 of \"new\": [0xfff, 0x1000] lies outside the pool [0x1000, 0xffffffffffffffff]",
        ),
        (any(0, 1), RangeRefusal::Empty, "mmio request 1 of \"new\": a range of size 0 cannot be allocated"),
        (
            any(1, 3),
            RangeRefusal::BadAlignment { align: 3 },
            "mmio request 1 of \"new\": the alignment 0x3 is no power of two",
        ),
        (
            any(0x10, 0x10).within(range(0x1_0000, 0x1_ffff)),
            no_room(0x10, 0x10, window),
            "mmio request 1 of \"new\": no free range of size 0x10, aligned to 0x10, lies within [0x10000, 0x1ffff]",
        ),
    ];
    for (request, refusal, words) in cases {
        let error = RegisterError::Range { device: "new", index: 1, io_type: request.io_type(), refusal };
        is_refused(&manager, error, words, || {
            manager.register_device(&NEW, None, &[fine, request], &[IrqResource::Any])
        });
    }
    // At the first request, with good ones behind it.
    let refusal = overlap(wanted, range(0x3f8, 0x3ff), owned(serial, "serial"));
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Pio, refusal };
    let words = "pio request 0 of \"new\": [0x3ff, 0x400] overlaps [0x3f8, 0x3ff], which belongs to \"serial\" (#2)";
    let requests = [IoResource::pio(0x3ff, 2), fine];
    is_refused(&manager, error, words, || manager.register_device(&NEW, None, &requests, &[IrqResource::Any]));
    // Below the bus, among siblings.
    let refusal = overlap(range(0x1_80ff, 0x1_8100), range(0x1_8000, 0x1_80ff), owned(child, "child"));
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Mmio, refusal };
    let words =
        "mmio request 0 of \"new\": [0x180ff, 0x18100] overlaps [0x18000, 0x180ff], which belongs to \"child\" (#1)";
    is_refused(&manager, error, words, || {
        manager.register_device(&NEW, Some(bus), &[IoResource::mmio(0x1_80ff, 2)], &[])
    });
    // A window's own device has no place in it.
    let twice = [IoResource::mmio(0x4000, 0x100).window(), IoResource::mmio(0x4008, 1)];
    let refusal = RangeRefusal::OverlapsOwnRequest { wanted: range(0x4008, 0x4008), taken: range(0x4000, 0x40ff) };
    let error = RegisterError::Range { device: "new", index: 1, io_type: IoType::Mmio, refusal };
    let words =
        "mmio request 1 of \"new\": [0x4008, 0x4008] overlaps [0x4000, 0x40ff], which the device itself has asked for";
    is_refused(&manager, error, words, || manager.register_device(&NEW, None, &twice, &[]));
}

#[test]
fn a_space_that_the_allocator_was_not_given_has_nothing_to_ask_for() {
    manager!(let manager: <DEVICES, RANGES, 1> = SystemAllocator::new(IoRange::ALL_MEMORY));
    let refusal = RangeRefusal::NoPorts;
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Pio, refusal };
    let words = "pio request 0 of \"new\": the allocator was given no ports: `with_ports` gives it some";
    is_refused(&manager, error, words, || manager.register_device(&NEW, None, &[IoResource::pio(1, 1)], &[]));
    let error = RegisterError::Irq { device: "new", index: 0, refusal: IrqRefusal::Pool(IrqError::NoPool) };
    let words = "interrupt request 0 of \"new\": the allocator was given no lines: `with_irqs` gives it some";
    for irq in [IrqResource::Any, IrqResource::Fixed(Gsi(1)), IrqResource::Shared(Gsi(1))] {
        is_refused(&manager, error, words, || manager.register_device(&NEW, None, &[], &[irq]));
    }
}

/// They cannot be refused where they are given, in a constant: every request says what is wrong with them.
#[test]
fn every_request_says_what_is_wrong_with_the_bounds_of_ports_and_lines() {
    let lines = |first, last| IrqError::BadBounds { first: Gsi(first), last: Gsi(last) };
    let cases = [
        (
            lines(6, 5),
            "the lines that the allocator was given by `with_irqs` are reversed: the last, GSI 5, lies before the first, \
             GSI 6",
        ),
        (
            lines(1, MAX_LINES + 1),
            "the lines that the allocator was given by `with_irqs`, GSI 1 to GSI 1025, are more than 1024",
        ),
    ];
    for (error, words) in cases {
        let IrqError::BadBounds { first, last } = error else { unreachable!() };
        manager!(let manager: <DEVICES, RANGES, 1> = bounded().with_irqs(first.0, last.0));
        let words = format!("interrupt request 0 of \"new\": {words}");
        let error = RegisterError::Irq { device: "new", index: 0, refusal: IrqRefusal::Pool(error) };
        for irq in [IrqResource::Any, IrqResource::Fixed(first), IrqResource::Shared(last)] {
            is_refused(&manager, error, &words, || {
                manager.register_device(&NEW, None, &[IoResource::pio(0, 1)], &[irq])
            });
        }
        manager.register_device(&NEW, None, &[], &[]).unwrap();
    }
    let bounds = range(0xff00, 0x1_0000);
    manager!(let manager: <DEVICES, RANGES, 1> = bounded().with_ports(bounds));
    let refusal = RangeRefusal::BeyondPorts { bounds };
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Pio, refusal };
    let words = "pio request 0 of \"new\": the ports that the allocator was given by `with_ports`, [0xff00, 0x10000], pass \
                 port 0xffff";
    is_refused(&manager, error, words, || manager.register_device(&NEW, None, &[IoResource::pio(0xff00, 1)], &[]));
}

/// What is asked for besides the range itself is not ignored.
#[test]
fn a_fixed_range_against_its_own_alignment_or_limits_is_refused() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    Platform::new(&manager);
    let limits = range(0x4000, 0x5fff);
    let cases = [
        (
            IoResource::mmio(0x5008, 0x10).aligned(0x10),
            RangeRefusal::Misaligned { wanted: GuestAddress(0x5008), alignment: GuestUsize(0x10) },
            "0x5008 is no multiple of 0x10, the alignment that the range was asked for with; 0x5000 is",
        ),
        (
            IoResource::at(IoType::PhysicalMmio, range(0x7fff_ffff_ffff_ffff, u64::MAX)).aligned(1 << 63),
            RangeRefusal::Misaligned { wanted: GuestAddress(0x7fff_ffff_ffff_ffff), alignment: GuestUsize(1 << 63) },
            "0x7fffffffffffffff is no multiple of 0x8000000000000000, the alignment that the range was asked for with; 0x0 \
             is",
        ),
        (
            IoResource::mmio(0x5000, 0x10).aligned(0),
            RangeRefusal::BadAlignment { align: 0 },
            "the alignment 0x0 is no power of two",
        ),
        (
            IoResource::mmio(0x5000, 0x1001).within(limits),
            RangeRefusal::OutsideLimits { wanted: range(0x5000, 0x6000), limits },
            "[0x5000, 0x6000] lies outside [0x4000, 0x5fff], the limits that it was asked for with",
        ),
    ];
    for (request, refusal, words) in cases {
        let error = RegisterError::Range { device: "new", index: 0, io_type: request.io_type(), refusal };
        let words = format!("{} request 0 of \"new\": {words}", request.io_type());
        is_refused(&manager, error, &words, || manager.register_device(&NEW, None, &[request], &[]));
    }
    let fine = IoResource::mmio(0x5000, 0x1000).aligned(0x1000).within(limits).last_fit();
    assert_eq!((fine.alignment(), fine.limits()), (0x1000, Some(limits)));
    let id = manager.register_device(&NEW, None, &[fine], &[]).unwrap();
    assert_eq!(manager.range(id, 0).unwrap().range, range(0x5000, 0x5fff));
}

/// The error says how to mend that.
#[test]
fn a_range_of_a_bus_that_is_no_window_is_in_the_way_of_its_children() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let requests = [IoResource::mmio(0x2000, 0x1000), IoResource::pio(0x40, 0x10).window()];
    let bus = manager.register_device(&BUS, None, &requests, &[]).unwrap();
    let child = manager.register_device(&CHILD, Some(bus), &[], &[]).unwrap();
    let owner = Owner::Device { id: bus, name: "bus" };
    // For a child as for what is below a child.
    for parent in [bus, child] {
        let (wanted, taken) = (range(0x2800, 0x28ff), range(0x2000, 0x2fff));
        let refusal = RangeRefusal::NotInWindow { wanted, taken, bus: owner };
        let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Mmio, refusal };
        let words = "mmio request 0 of \"new\": [0x2800, 0x28ff] overlaps [0x2000, 0x2fff], which belongs to \"bus\" (#0), \
                     a bus above the device, and is not a window: ask for that range with `.window()`";
        is_refused(&manager, error, words, || {
            manager.register_device(&NEW, Some(parent), &[IoResource::at(IoType::Mmio, wanted)], &[])
        });
    }
    // Beside the bus there is nothing to hint at.
    let (wanted, taken) = (range(0x2800, 0x28ff), range(0x2000, 0x2fff));
    let refusal = RangeRefusal::Overlap { wanted, taken, owner };
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Mmio, refusal };
    let words = "mmio request 0 of \"new\": [0x2800, 0x28ff] overlaps [0x2000, 0x2fff], which belongs to \"bus\" (#0)";
    is_refused(&manager, error, words, || {
        manager.register_device(&NEW, None, &[IoResource::at(IoType::Mmio, wanted)], &[])
    });
}

#[test]
fn a_range_below_a_bus_with_windows_lies_in_one_of_them() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let requests =
        [IoResource::mmio(0x2000, 0x1000), IoResource::mmio(0x4000, 0x1000).window(), IoResource::pio(0x40, 4)];
    let bus = manager.register_device(&BUS, None, &requests, &[]).unwrap();
    let child = manager.register_device(&CHILD, Some(bus), &[IoResource::mmio(0x4800, 0x10)], &[]).unwrap();
    let (owner, window) = (Owner::Device { id: bus, name: "bus" }, range(0x4000, 0x4fff));
    for parent in [bus, child] {
        // Across its end, beside it, in another range of the bus, around it.
        for (first, last) in [(0x4fff, 0x5000), (0x3fff, 0x4000), (0x6000, 0x6003), (0x2800, 0x28ff), (0x3000, 0x5fff)]
        {
            let wanted = range(first, last);
            let refusal = RangeRefusal::OutsideWindow { wanted, window, owner };
            let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Mmio, refusal };
            let words = format!(
                "mmio request 0 of \"new\": {wanted} lies outside [0x4000, 0x4fff], the window of \"bus\" (#0)"
            );
            is_refused(&manager, error, &words, || {
                manager.register_device(&NEW, Some(parent), &[IoResource::at(IoType::Mmio, wanted)], &[])
            });
        }
        // The bus has no window for ports.
        let beside = [IoResource::pio(0x44, 4)];
        let id = manager.register_device(&NEW, Some(parent), &beside, &[]).unwrap();
        manager.unregister_device(id).unwrap();
    }
    let (wanted, taken) = (range(0x4808, 0x480b), range(0x4800, 0x480f));
    let refusal = RangeRefusal::NotInWindow { wanted, taken, bus: Owner::Device { id: child, name: "child" } };
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Mmio, refusal };
    let words = "mmio request 0 of \"new\": [0x4808, 0x480b] overlaps [0x4800, 0x480f], which belongs to \"child\" (#1), \
                 a bus above the device, and is not a window: ask for that range with `.window()`";
    is_refused(&manager, error, words, || {
        manager.register_device(&NEW, Some(child), &[IoResource::at(IoType::Mmio, wanted)], &[])
    });
}

#[test]
fn a_line_that_cannot_be_had_is_refused_and_nothing_is_kept() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let Platform { bus, serial, .. } = Platform::new(&manager);
    let owner = Owner::Device { id: serial, name: "serial" };
    let error = RegisterError::Irq { device: "new", index: 0, refusal: IrqRefusal::Taken { gsi: Gsi(5), owner } };
    let words = "interrupt request 0 of \"new\": GSI 5 belongs to \"serial\" (#2): to share it, both ask for `IrqResource::Shared`";
    for irq in [IrqResource::Fixed(Gsi(5)), IrqResource::Shared(Gsi(5))] {
        is_refused(&manager, error, words, || manager.register_device(&NEW, None, &[IoResource::pio(0, 1)], &[irq]));
    }
    let owner = Owner::Device { id: bus, name: "bus" };
    let error = RegisterError::Irq { device: "new", index: 0, refusal: IrqRefusal::Taken { gsi: Gsi(7), owner } };
    let words = "interrupt request 0 of \"new\": GSI 7 belongs to \"bus\" (#0): to share it, both ask for `IrqResource::Shared`";
    is_refused(&manager, error, words, || {
        manager.register_device(&NEW, None, &[IoResource::pio(0, 1)], &[IrqResource::Fixed(Gsi(7))])
    });
    for gsi in [Gsi(4), Gsi(9), Gsi(u32::MAX)] {
        let refusal = IrqRefusal::Pool(IrqError::OutsidePool { gsi, first: Gsi(5), last: Gsi(8) });
        let error = RegisterError::Irq { device: "new", index: 0, refusal };
        let words = format!("interrupt request 0 of \"new\": {gsi} is none of the allocator's lines, GSI 5 to GSI 8");
        is_refused(&manager, error, &words, || manager.register_device(&NEW, None, &[], &[IrqResource::Shared(gsi)]));
    }
    // Lines 6 and 8 are left, and then none.
    let [a, b] = ["a", "b"].map(|name| Constant { name, value: 0 });
    for (device, gsi) in [(&a, 6), (&b, 8)] {
        let id = manager.register_device(device, None, &[], &[IrqResource::Any]).unwrap();
        assert_eq!(manager.irq(id, 0).unwrap().gsi, Some(Gsi(gsi)));
    }
    let refusal = IrqRefusal::Pool(IrqError::NoneFree { first: Gsi(5), last: Gsi(8) });
    let error = RegisterError::Irq { device: "new", index: 0, refusal };
    let words = "interrupt request 0 of \"new\": all of the allocator's lines, GSI 5 to GSI 8, are in use";
    is_refused(&manager, error, words, || {
        manager.register_device(&NEW, None, &[IoResource::pio(0, 1)], &[IrqResource::Any])
    });
}

#[test]
fn a_device_that_rejects_what_it_was_given_leaves_nothing_behind() {
    struct Refusing;
    impl Device<'_> for Refusing {
        fn name(&self) -> &str {
            "refusing"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {
            panic!("never registered");
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
        fn set_resources(&self, resources: &Resources<'_, '_>) -> Result<(), Rejected> {
            // What it does before it refuses is undone too.
            let _ = resources.irq(0).assert();
            Err(Rejected::new(0))
        }
    }
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let Platform { bus, .. } = Platform::new(&manager);
    let requests = [IoResource::any(IoType::Mmio, GuestUsize(0x100)).window(), IoResource::pio(0, 1)];
    let error = RegisterError::Rejected { device: "refusing", code: 0 };
    let words = "\"refusing\" does not accept its resources (code 0)";
    is_refused(&manager, error, words, || {
        manager.register_device(&Refusing, Some(bus), &requests, &[IrqResource::Shared(Gsi(7))])
    });
    is_refused(&manager, error, words, || manager.register_device(&Refusing, None, &requests, &[IrqResource::Any]));
}

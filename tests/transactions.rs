//! Every error of the three transactions: it names both parties, and it leaves everything as it was.

mod fixture;

use fixture::{Constant, manager, observe, range};
use vm_device::{
    Access, Device, DeviceManager, Fit, Gsi, GuestAddress, GuestUsize, InstanceId, IoRange, IoResource, IoType,
    IrqError, IrqResource, MAX_LINES, MAX_RANGES_PER_DEVICE, MAX_RELOCATIONS, MAX_SHARING, Owner, Placement, PoolError,
    RangeError, RangeRefusal, RegisterError, Rejected, RelocateError, Relocation, Resources, SystemAllocator,
    UnregisterError,
};

const DEVICES: usize = 40;
const RANGES: usize = 48;
/// How often a refusal is repeated: until a leak would have filled the manager. An interpreter has no time for that.
const REPEATED: usize = if cfg!(miri) { 2 } else { 2 * RANGES };
type Manager<'d> = DeviceManager<'d, DEVICES, RANGES, 1>;

fn allocator() -> SystemAllocator<DEVICES, RANGES> {
    SystemAllocator::new(range(0x1000, u64::MAX)).with_ports(range(0, 0xfff)).with_irqs(5, 8)
}

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
        let _ = resources.irq().assert();
        Err(Rejected)
    }
}

const BUS: Constant = Constant { name: "bus", value: 1 };
const CHILD: Constant = Constant { name: "child", value: 2 };
const SERIAL: Constant = Constant { name: "serial", value: 3 };
const NEW: Constant = Constant { name: "new", value: 4 };
const UNNAMED: Constant = Constant { name: "", value: 5 };
const PATH: Constant = Constant { name: "a/b", value: 6 };

/// A platform that has something in the way of everything.
struct Platform {
    bus: InstanceId,
    child: InstanceId,
    serial: InstanceId,
    /// Of a device that is gone.
    stale: InstanceId,
}

fn build<'d>(manager: &'d Manager<'d>) -> Platform {
    let window = IoResource::mmio(0x1_0000, 0x1_0000).window();
    let bus = manager.register_device(&BUS, None, &[window], IrqResource::Shared(Gsi(7))).unwrap();
    let requests = [IoResource::mmio(0x1_8000, 0x100), IoResource::mmio(0x1_9000, 0x100)];
    let child = manager.register_device(&CHILD, Some(bus), &requests, IrqResource::Shared(Gsi(7))).unwrap();
    let serial = manager.register_device(&SERIAL, None, &[IoResource::pio(0x3f8, 8)], IrqResource::Fixed(Gsi(5)));
    let stale = manager.register_device(&NEW, None, &[], IrqResource::None).unwrap();
    manager.unregister_device(stale).unwrap();
    manager.reserve(IoType::Mmio, range(0x10_0000, 0x1f_ffff)).unwrap();
    Platform { bus, child, serial: serial.unwrap(), stale }
}

/// That a registration is refused in this way, each time, with these words, and changes nothing.
#[track_caller]
fn refuses<'d>(
    manager: &'d Manager<'d>,
    device: &'d dyn Device<'d>,
    parent: Option<InstanceId>,
    requests: &[IoResource],
    irq: IrqResource,
    error: RegisterError<'d>,
    words: &str,
) {
    let before = observe(manager, &[]);
    // More often than there is room for anything: nothing leaks.
    for _ in 0..REPEATED {
        assert_eq!(manager.register_device(device, parent, requests, irq), Err(error));
    }
    assert_eq!(observe(manager, &[]), before);
    assert_eq!(error.to_string(), words);
}

#[test]
fn names() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let Platform { bus, serial, .. } = build(&manager);
    let error = RegisterError::InvalidName { device: "" };
    let words = "\"\" is no name for a device: it is empty or contains a '/'";
    refuses(&manager, &UNNAMED, None, &[], IrqResource::None, error, words);
    let error = RegisterError::InvalidName { device: "a/b" };
    let words = "\"a/b\" is no name for a device: it is empty or contains a '/'";
    refuses(&manager, &PATH, None, &[], IrqResource::None, error, words);
    let error = RegisterError::NameTaken { device: "serial", holder: serial };
    let words = "the parent of \"serial\" has a child of that name, #2";
    refuses(&manager, &SERIAL, None, &[], IrqResource::None, error, words);
    // The same name on another bus is another path.
    let second = manager.register_device(&SERIAL, Some(bus), &[], IrqResource::None).unwrap();
    assert_eq!(manager.find_by_path("/bus/serial"), Some(second));
}

#[test]
fn parents() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let Platform { child, stale, .. } = build(&manager);
    let error = RegisterError::NoSuchParent { device: "new", parent: stale };
    let words = "#3, which is to be the parent of \"new\", is not registered, or not completely";
    refuses(&manager, &NEW, Some(stale), &[], IrqResource::None, error, words);
    manager.unregister_device_deferred(child).unwrap();
    let error = RegisterError::NoSuchParent { device: "new", parent: child };
    let got = manager.register_device(&NEW, Some(child), &[], IrqResource::None);
    assert_eq!(got, Err(error));
}

#[test]
fn ranges() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let Platform { bus, child, serial, .. } = build(&manager);
    let fine = IoResource::pio(0x10, 1);
    let any = |size, align| IoResource::any(IoType::Mmio, GuestUsize(size)).aligned(align);
    let overlap = |wanted, taken, owner| RangeRefusal::Overlap { wanted, taken, owner };
    let owned = |id, name| Owner::Device { id, name };
    let window = range(0x1_0000, 0x1_ffff);
    let wanted = range(0x3ff, 0x400);
    let no_room = |size, align, within| RangeRefusal::Pool(PoolError::NoRoom { size: GuestUsize(size), align, within });
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
            RangeRefusal::Pool(PoolError::OutsidePool { wanted: range(0xfff, 0x1000), pool: range(0x1000, u64::MAX) }),
            "mmio request 1 of \"new\": [0xfff, 0x1000] lies outside the pool [0x1000, 0xffffffffffffffff]",
        ),
        (
            any(0, 1),
            RangeRefusal::Pool(PoolError::Empty),
            "mmio request 1 of \"new\": a range of size 0 cannot be allocated",
        ),
        (
            any(1, 3),
            RangeRefusal::Pool(PoolError::BadAlignment { align: 3 }),
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
        refuses(&manager, &NEW, None, &[fine, request], IrqResource::Any, error, words);
    }
    // Below the bus, among siblings.
    let refusal = overlap(range(0x1_80ff, 0x1_8100), range(0x1_8000, 0x1_80ff), owned(child, "child"));
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Mmio, refusal };
    let words =
        "mmio request 0 of \"new\": [0x180ff, 0x18100] overlaps [0x18000, 0x180ff], which belongs to \"child\" (#1)";
    refuses(&manager, &NEW, Some(bus), &[IoResource::mmio(0x1_80ff, 2)], IrqResource::None, error, words);
    // A window's own device has no place in it.
    let twice = [IoResource::mmio(0x4000, 0x100).window(), IoResource::mmio(0x4008, 1)];
    let refusal = RangeRefusal::AskedTwice { wanted: range(0x4008, 0x4008), taken: range(0x4000, 0x40ff) };
    let error = RegisterError::Range { device: "new", index: 1, io_type: IoType::Mmio, refusal };
    let words =
        "mmio request 1 of \"new\": [0x4008, 0x4008] overlaps [0x4000, 0x40ff], which the device itself has asked for";
    refuses(&manager, &NEW, None, &twice, IrqResource::None, error, words);
}

#[test]
fn a_space_that_the_allocator_was_not_given() {
    manager!(let manager: <DEVICES, RANGES, 1> = SystemAllocator::new(IoRange::ALL_MEMORY));
    let refusal = RangeRefusal::Pool(PoolError::NoPool);
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Pio, refusal };
    let words = "pio request 0 of \"new\": the allocator was given no ports: `with_ports` gives it some";
    refuses(&manager, &NEW, None, &[IoResource::pio(1, 1)], IrqResource::None, error, words);
    let error = RegisterError::Irq { device: "new", error: IrqError::NoPool };
    let words = "the interrupt line of \"new\": the allocator was given no lines: `with_irqs` gives it some";
    for irq in [IrqResource::Any, IrqResource::Fixed(Gsi(1)), IrqResource::Shared(Gsi(1))] {
        refuses(&manager, &NEW, None, &[], irq, error, words);
    }
}

/// They cannot be refused where they are given, in a constant: every request says what is wrong with them.
#[test]
fn impossible_bounds_of_ports_and_lines() {
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
        manager!(let manager: <DEVICES, RANGES, 1> = allocator().with_irqs(first.0, last.0));
        let words = format!("the interrupt line of \"new\": {words}");
        let error = RegisterError::Irq { device: "new", error };
        for irq in [IrqResource::Any, IrqResource::Fixed(first), IrqResource::Shared(last)] {
            refuses(&manager, &NEW, None, &[IoResource::pio(0, 1)], irq, error, &words);
        }
        manager.register_device(&NEW, None, &[], IrqResource::None).unwrap();
    }
    let bounds = range(0xff00, 0x1_0000);
    manager!(let manager: <DEVICES, RANGES, 1> = allocator().with_ports(bounds));
    let refusal = RangeRefusal::Pool(PoolError::BeyondPorts { bounds });
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Pio, refusal };
    let words = "pio request 0 of \"new\": the ports that the allocator was given by `with_ports`, [0xff00, 0x10000], pass \
                 port 0xffff";
    refuses(&manager, &NEW, None, &[IoResource::pio(0xff00, 1)], IrqResource::None, error, words);
}

/// What is asked for besides the range itself is not ignored.
#[test]
fn fixed_ranges_that_are_not_as_asked() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    build(&manager);
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
            RangeRefusal::Pool(PoolError::BadAlignment { align: 0 }),
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
        refuses(&manager, &NEW, None, &[request], IrqResource::None, error, &words);
    }
    let fine = IoResource::mmio(0x5000, 0x1000).aligned(0x1000).within(limits).last_fit();
    assert_eq!((fine.alignment(), fine.limits()), (0x1000, Some(limits)));
    let id = manager.register_device(&NEW, None, &[fine], IrqResource::None).unwrap();
    assert_eq!(manager.range(id, 0).unwrap().range, range(0x5000, 0x5fff));
}

/// A bus whose range is not a window is in the way of its children, and the error says how to mend that.
#[test]
fn a_place_on_a_bus_without_a_window() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let requests = [IoResource::mmio(0x2000, 0x1000), IoResource::mmio(0x4000, 0x1000).window()];
    let bus = manager.register_device(&BUS, None, &requests, IrqResource::None).unwrap();
    let child = manager.register_device(&CHILD, Some(bus), &[], IrqResource::None).unwrap();
    let owner = Owner::Device { id: bus, name: "bus" };
    // For a child as for what is below a child.
    for parent in [bus, child] {
        let (wanted, taken) = (range(0x2800, 0x28ff), range(0x2000, 0x2fff));
        let refusal = RangeRefusal::NotInWindow { wanted, taken, bus: owner, is_window: false };
        let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Mmio, refusal };
        let words = "mmio request 0 of \"new\": [0x2800, 0x28ff] overlaps [0x2000, 0x2fff], which belongs to \"bus\" (#0), \
                     a bus above the device, and is not a window: ask for that range with `.window()`";
        refuses(&manager, &NEW, Some(parent), &[IoResource::at(IoType::Mmio, wanted)], IrqResource::None, error, words);
        let (wanted, taken) = (range(0x4fff, 0x5000), range(0x4000, 0x4fff));
        let refusal = RangeRefusal::NotInWindow { wanted, taken, bus: owner, is_window: true };
        let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Mmio, refusal };
        let words = "mmio request 0 of \"new\": [0x4fff, 0x5000] is not wholly inside [0x4000, 0x4fff], the window of \
                     \"bus\" (#0), a bus above the device";
        refuses(&manager, &NEW, Some(parent), &[IoResource::at(IoType::Mmio, wanted)], IrqResource::None, error, words);
    }
    // Beside the bus there is nothing to hint at.
    let (wanted, taken) = (range(0x2800, 0x28ff), range(0x2000, 0x2fff));
    let refusal = RangeRefusal::Overlap { wanted, taken, owner };
    let error = RegisterError::Range { device: "new", index: 0, io_type: IoType::Mmio, refusal };
    let words = "mmio request 0 of \"new\": [0x2800, 0x28ff] overlaps [0x2000, 0x2fff], which belongs to \"bus\" (#0)";
    refuses(&manager, &NEW, None, &[IoResource::at(IoType::Mmio, wanted)], IrqResource::None, error, words);
}

#[test]
fn more_ranges_than_a_device_can_have() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    build(&manager);
    let requests: Vec<_> = (0..=MAX_RANGES_PER_DEVICE as u16).map(|port| IoResource::pio(port, 1)).collect();
    let (asked, limit) = (MAX_RANGES_PER_DEVICE + 1, MAX_RANGES_PER_DEVICE);
    let error = RegisterError::TooManyRanges { device: "new", asked, limit };
    let words = "\"new\" asks for 17 ranges; a device can have 16";
    refuses(&manager, &NEW, None, &requests, IrqResource::None, error, words);
    let id = manager.register_device(&NEW, None, &requests[1..], IrqResource::None).unwrap();
    assert_eq!(manager.range(id, MAX_RANGES_PER_DEVICE - 1).unwrap().range, range(16, 16));
    assert_eq!(manager.find_by_address(GuestAddress(16), IoType::Pio), Some((id, 15)));
    assert!(manager.range(id, MAX_RANGES_PER_DEVICE).is_none());
}

#[test]
fn interrupt_lines() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let Platform { bus, serial, .. } = build(&manager);
    let owner = Owner::Device { id: serial, name: "serial" };
    let error = RegisterError::IrqTaken { device: "new", gsi: Gsi(5), owner };
    let words =
        "GSI 5, which \"new\" asks for, belongs to \"serial\" (#2): to share it, both ask for `IrqResource::Shared`";
    for irq in [IrqResource::Fixed(Gsi(5)), IrqResource::Shared(Gsi(5))] {
        refuses(&manager, &NEW, None, &[IoResource::pio(0, 1)], irq, error, words);
    }
    let owner = Owner::Device { id: bus, name: "bus" };
    let error = RegisterError::IrqTaken { device: "new", gsi: Gsi(7), owner };
    let words =
        "GSI 7, which \"new\" asks for, belongs to \"bus\" (#0): to share it, both ask for `IrqResource::Shared`";
    refuses(&manager, &NEW, None, &[IoResource::pio(0, 1)], IrqResource::Fixed(Gsi(7)), error, words);
    for gsi in [Gsi(4), Gsi(9), Gsi(u32::MAX)] {
        let error =
            RegisterError::Irq { device: "new", error: IrqError::OutsidePool { gsi, first: Gsi(5), last: Gsi(8) } };
        let words = format!("the interrupt line of \"new\": {gsi} is none of the allocator's lines, GSI 5 to GSI 8");
        refuses(&manager, &NEW, None, &[], IrqResource::Shared(gsi), error, &words);
    }
    // Lines 6 and 8 are left, and then none.
    for (device, gsi) in [(&PATH_A, 6), (&PATH_B, 8)] {
        let id = manager.register_device(device, None, &[], IrqResource::Any).unwrap();
        assert_eq!(manager.device(id).unwrap().gsi, Some(Gsi(gsi)));
    }
    let error = RegisterError::Irq { device: "new", error: IrqError::NoneFree { first: Gsi(5), last: Gsi(8) } };
    let words = "the interrupt line of \"new\": all of the allocator's lines, GSI 5 to GSI 8, are in use";
    refuses(&manager, &NEW, None, &[IoResource::pio(0, 1)], IrqResource::Any, error, words);
}

const PATH_A: Constant = Constant { name: "a", value: 7 };
const PATH_B: Constant = Constant { name: "b", value: 8 };

#[test]
fn a_line_of_the_vmm_is_nobody_elses() {
    let mut allocator = allocator();
    allocator.allocate_irq(Some(Gsi(6))).unwrap();
    manager!(let manager: <DEVICES, RANGES, 1> = allocator);
    let error = RegisterError::IrqTaken { device: "new", gsi: Gsi(6), owner: Owner::Vmm };
    let words = "GSI 6, which \"new\" asks for, belongs to the VMM";
    for irq in [IrqResource::Fixed(Gsi(6)), IrqResource::Shared(Gsi(6))] {
        refuses(&manager, &NEW, None, &[], irq, error, words);
    }
}

#[test]
fn lines_are_shared_by_so_many() {
    let devices: Vec<_> = (0..MAX_SHARING).map(Numbered::new).collect();
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    for device in &devices {
        manager.register_device(device, None, &[], IrqResource::Shared(Gsi(8))).unwrap();
    }
    let error = RegisterError::TooManySharing { device: "new", gsi: Gsi(8) };
    let words = "GSI 8 has no room for \"new\": 30 devices share it, as many as can";
    refuses(&manager, &NEW, None, &[IoResource::pio(0, 1)], IrqResource::Shared(Gsi(8)), error, words);
    let first = manager.find_by_path("/0").unwrap();
    manager.unregister_device(first).unwrap();
    manager.register_device(&NEW, None, &[], IrqResource::Shared(Gsi(8))).unwrap();
}

struct Numbered(String);

impl Numbered {
    fn new(number: usize) -> Self {
        Self(number.to_string())
    }
}

impl Device<'_> for Numbered {
    fn name(&self) -> &str {
        &self.0
    }
    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(0x11);
    }
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

#[test]
fn full_of_devices() {
    let devices: Vec<_> = (0..DEVICES).map(Numbered::new).collect();
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let ids: Vec<_> =
        devices.iter().map(|device| manager.register_device(device, None, &[], IrqResource::None).unwrap()).collect();
    let error = RegisterError::TooManyDevices { device: "new", capacity: DEVICES };
    let words = "there is no room for \"new\": all 40 devices are in use, as many as `DEVICES` says";
    refuses(&manager, &NEW, None, &[IoResource::pio(0, 1)], IrqResource::Any, error, words);
    manager.unregister_device(ids[7]).unwrap();
    let id = manager.register_device(&NEW, None, &[IoResource::pio(0, 1)], IrqResource::Any).unwrap();
    assert!(!ids.contains(&id));
}

#[test]
fn full_of_ranges() {
    let devices: Vec<_> = (0..3).map(Numbered::new).collect();
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    // Every second port.
    for (n, device) in (0..).zip(&devices) {
        let requests: Vec<_> = (0..16).map(|i| IoResource::pio((n * 16 + i) * 2 + 1, 1)).collect();
        manager.register_device(device, None, &requests, IrqResource::None).unwrap();
    }
    let full = RangeRefusal::Pool(PoolError::Full { capacity: RANGES });
    for request in [IoResource::pio(0, 1), IoResource::mmio(0x1000, 1), IoResource::any(IoType::Pio, GuestUsize(1))] {
        let error = RegisterError::Range { device: "new", index: 0, io_type: request.io_type(), refusal: full };
        let words = format!(
            "{} request 0 of \"new\": all 48 ranges are in use, as many as `RANGES` says, those of the VMM included",
            request.io_type()
        );
        refuses(&manager, &NEW, None, &[request], IrqResource::Any, error, &words);
    }
    // In the middle of everything, one goes and one comes.
    manager.unregister_device(manager.find_by_path("/1").unwrap()).unwrap();
    let requests: Vec<_> = (0..16).map(|i| IoResource::pio((16 + i) * 2, 2)).collect();
    manager.register_device(&NEW, None, &requests, IrqResource::None).unwrap();
    let mut data = [0; 2];
    for port in 0..96 {
        let outcome = manager.read(GuestAddress(port), &mut data[..1], IoType::Pio);
        assert_eq!(outcome.is_ok(), (32..64).contains(&port) || port % 2 == 1, "{port:#x}");
    }
}

#[test]
fn a_window_takes_the_room_of_one_range() {
    let devices: Vec<_> = (0..DEVICES).map(Numbered::new).collect();
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    // The VMM's ports take room too.
    const RESERVED: usize = 16;
    for port in 0..RESERVED as u64 {
        manager.reserve(IoType::Pio, range(port, port)).unwrap();
    }
    let mut parent = None;
    let mut depth = 0;
    // Windows in windows, and each gives its child all that it has.
    let got = loop {
        let all = IoResource::at(IoType::Mmio, range(0x1000, u64::MAX)).window();
        match manager.register_device(&devices[depth], parent, &[all], IrqResource::None) {
            Ok(id) => (parent, depth) = (Some(id), depth + 1),
            Err(error) => break error,
        }
    };
    assert_eq!(depth, RANGES - RESERVED);
    let refusal = RangeRefusal::Pool(PoolError::Full { capacity: RANGES });
    assert!(matches!(got, RegisterError::Range { refusal: r, .. } if r == refusal));
    // The innermost answers, whichever goes.
    for left in (0..depth).rev() {
        let innermost = manager.find_by_address(GuestAddress(u64::MAX), IoType::Mmio);
        assert_eq!(innermost.map(|(id, _)| manager.device(id).unwrap().depth), Some(left));
        assert_eq!(manager.read(GuestAddress(u64::MAX), &mut [0], IoType::Mmio), Ok(()));
        manager.unregister_device(innermost.unwrap().0).unwrap();
    }
    assert!(manager.read(GuestAddress(u64::MAX), &mut [0], IoType::Mmio).is_err());
}

#[test]
fn a_device_that_rejects_what_it_was_given() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let Platform { bus, .. } = build(&manager);
    let requests = [IoResource::any(IoType::Mmio, GuestUsize(0x100)).window(), IoResource::pio(0, 1)];
    let error = RegisterError::Rejected { device: "refusing" };
    let words = "\"refusing\" does not accept its resources";
    refuses(&manager, &Refusing, Some(bus), &requests, IrqResource::Shared(Gsi(7)), error, words);
    refuses(&manager, &Refusing, None, &requests, IrqResource::Any, error, words);
}

/// That a removal is refused in this way and changes nothing.
#[track_caller]
fn stays<'d>(manager: &'d Manager<'d>, id: InstanceId, deferred: bool, error: UnregisterError<'d>, words: &str) {
    let before = observe(manager, &[]);
    let got = if deferred { manager.unregister_device_deferred(id) } else { manager.unregister_device(id) };
    assert_eq!(got, Err(error));
    assert_eq!(observe(manager, &[]), before);
    assert_eq!(error.to_string(), words);
}

#[test]
fn removals() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let Platform { bus, child, stale, .. } = build(&manager);
    for deferred in [false, true] {
        let error = UnregisterError::NotFound { id: stale };
        stays(&manager, stale, deferred, error, "no device has the id #3");
        let error = UnregisterError::HasChildren { device: "bus", child: "child" };
        stays(
            &manager,
            bus,
            deferred,
            error,
            "the bus \"bus\" has children, \"child\" for one: `unregister_subtree` removes all of it",
        );
    }
    assert_eq!(manager.unregister_subtree(stale), Err(UnregisterError::NotFound { id: stale }));
    manager.unregister_device_deferred(child).unwrap();
    let error = UnregisterError::Busy { device: "child" };
    for deferred in [false, true] {
        stays(&manager, child, deferred, error, "\"child\" is just being registered or removed by somebody else");
    }
    assert_eq!(manager.unregister_subtree(bus), Err(error));
    assert_eq!(manager.collect(), 0);
    manager.unregister_device(bus).unwrap();
    // What else can be refused needs a callback that runs: tests/reentrancy.rs.
    let error = UnregisterError::InOwnCallback { device: "bus" };
    assert_eq!(
        error.to_string(),
        "\"bus\" is removed from within its own callback by `unregister_device_deferred` only"
    );
    let error = UnregisterError::InUse { device: "bus" };
    assert_eq!(error.to_string(), "a callback of \"bus\" has not ended; was it to be removed from within it?");
}

#[test]
fn a_subtree_goes_in_one_act() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let Platform { bus, child, serial, .. } = build(&manager);
    let mut vcpu = manager.dispatcher().unwrap();
    assert_eq!(vcpu.read(GuestAddress(0x1_8000), &mut [0], IoType::Mmio), Ok(()));
    manager.unregister_subtree(bus).unwrap();
    for id in [bus, child] {
        assert_eq!(manager.unregister_device(id), Err(UnregisterError::NotFound { id }));
    }
    for address in [0x1_8000, 0x1_0000] {
        assert!(vcpu.read(GuestAddress(address), &mut [0], IoType::Mmio).is_err());
    }
    assert_eq!(manager.walk().map(|info| info.id).collect::<Vec<_>>(), [serial]);
    // What stands behind it is as it was.
    assert_eq!(manager.read(GuestAddress(0x3f8), &mut [0], IoType::Pio), Ok(()));
    assert_eq!(manager.unregister_device(serial), Ok(()));
    // Everything it had is free.
    let all = IoResource::at(IoType::Mmio, range(0x1000, 0xf_ffff));
    manager.register_device(&BUS, None, &[all], IrqResource::Fixed(Gsi(7))).unwrap();
}

/// That a relocation is refused in this way and changes nothing.
#[track_caller]
fn remains<'d>(manager: &'d Manager<'d>, moves: &[Relocation], error: RelocateError<'d>, words: &str) {
    let before = observe(manager, &[]);
    for _ in 0..REPEATED {
        assert_eq!(manager.relocate(moves), Err(error));
    }
    assert_eq!(observe(manager, &[]), before);
    assert_eq!(error.to_string(), words);
}

#[test]
fn relocations() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let Platform { bus, child, serial, stale } = build(&manager);
    let fine = Relocation::new(serial, 0).to(GuestAddress(0x2f8)).decoded(false);
    let to = |id, index, to| Relocation::new(id, index).to(GuestAddress(to));

    let error = RelocateError::NotFound { id: stale };
    remains(&manager, &[fine, to(stale, 0, 0)], error, "no device has the id #3");
    let error = RelocateError::NoSuchRange { device: "child", index: 2 };
    remains(&manager, &[fine, to(child, 2, 0)], error, "\"child\" has no range 2");
    let error = RelocateError::NoSuchRange { device: "child", index: usize::MAX };
    assert_eq!(manager.relocate(&[to(child, usize::MAX, 0)]), Err(error));
    let error = RelocateError::NamedTwice { device: "serial", index: 0 };
    let words = "range 0 of \"serial\" is named twice in one transaction";
    remains(&manager, &[fine, to(serial, 0, 0)], error, words);

    let refused = |device, index, to, refusal| RelocateError::Range { device, index, to: GuestAddress(to), refusal };
    let refusal = RangeRefusal::Overlap {
        wanted: range(0x1_9001, 0x1_9100),
        taken: range(0x1_9000, 0x1_90ff),
        owner: Owner::Device { id: child, name: "child" },
    };
    let error = refused("child", 0, 0x1_9001, refusal);
    let words = "range 0 of \"child\" to 0x19001: [0x19001, 0x19100] overlaps [0x19000, 0x190ff], which belongs to \"child\" (#1)";
    remains(&manager, &[fine, to(child, 0, 0x1_9001)], error, words);
    let refusal = RangeRefusal::Overlap {
        wanted: range(0x10_0000, 0x10_00ff),
        taken: range(0x10_0000, 0x1f_ffff),
        owner: Owner::Vmm,
    };
    let error = refused("child", 1, 0x10_0000, refusal);
    let words = "range 1 of \"child\" to 0x100000: [0x100000, 0x1000ff] overlaps [0x100000, 0x1fffff], which belongs to the VMM";
    remains(&manager, &[to(child, 0, 0x2000), fine, to(child, 1, 0x10_0000)], error, words);
    let refusal = RangeRefusal::WindowInUse {
        inside: range(0x1_8000, 0x1_80ff),
        owner: Owner::Device { id: child, name: "child" },
    };
    let error = refused("bus", 0, 0x2_0000, refusal);
    let words = "range 0 of \"bus\" to 0x20000: the window holds [0x18000, 0x180ff], which belongs to \"child\" (#1)";
    remains(&manager, &[fine, to(bus, 0, 0x2_0000)], error, words);
    let invalid = RangeRefusal::Invalid(RangeError::Wraps { base: GuestAddress(u64::MAX), size: GuestUsize(0x100) });
    let error = refused("child", 0, u64::MAX, invalid);
    let words = "range 0 of \"child\" to 0xffffffffffffffff: the range of 0x100 bytes at 0xffffffffffffffff passes the \
                 end of the 64-bit address space";
    remains(&manager, &[fine, to(child, 0, u64::MAX)], error, words);
    let beyond = RangeError::BeyondSpace { range: range(0xfff9, 0x1_0000), last: GuestAddress(0xffff) };
    let error = refused("serial", 0, 0xfff9, RangeRefusal::Invalid(beyond));
    let words =
        "range 0 of \"serial\" to 0xfff9: the range [0xfff9, 0x10000] passes 0xffff, the last address of its space";
    remains(&manager, &[to(child, 0, 0x2000), to(serial, 0, 0xfff9)], error, words);
    let outside = PoolError::OutsidePool { wanted: range(0xfff, 0x10fe), pool: range(0x1000, u64::MAX) };
    let error = refused("child", 0, 0xfff, RangeRefusal::Pool(outside));
    let words = "range 0 of \"child\" to 0xfff: [0xfff, 0x10fe] lies outside the pool [0x1000, 0xffffffffffffffff]";
    remains(&manager, &[to(child, 1, 0x1_8000), to(child, 0, 0xfff)], error, words);

    manager.unregister_device_deferred(child).unwrap();
    let error = RelocateError::Busy { device: "child" };
    remains(&manager, &[fine, to(child, 0, 0x2000)], error, "\"child\" is just being registered or removed");
}

#[test]
fn more_ranges_than_a_transaction_can_move() {
    let devices: Vec<_> = (0..3).map(Numbered::new).collect();
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let mut moves = Vec::new();
    for (n, device) in (0..).zip(&devices) {
        let requests: Vec<_> = (0..12).map(|i| IoResource::pio(n * 12 + i, 1)).collect();
        let id = manager.register_device(device, None, &requests, IrqResource::None).unwrap();
        // All one up: each to where the next one is.
        moves.extend((0..12).map(|i| Relocation::new(id, i).to(GuestAddress(n as u64 * 12 + i as u64 + 1))));
    }
    let error = RelocateError::TooMany { asked: 36, limit: MAX_RELOCATIONS };
    remains(&manager, &moves, error, "36 ranges in one transaction; it can move 32");
    // From the top, so that the first ones stay.
    let split = moves.len() - MAX_RELOCATIONS;
    assert_eq!(manager.relocate(&moves[split..]), Ok(()));
    assert_eq!(manager.find_by_address(GuestAddress(split as u64), IoType::Pio), None);
    assert!(manager.read(GuestAddress(36), &mut [0], IoType::Pio).is_ok());
    assert_eq!(manager.relocate(&[]), Ok(()));
}

#[test]
fn what_the_vmm_takes_and_gives_back() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let Platform { bus, serial, .. } = build(&manager);
    let before = observe(&manager, &[]);
    for (io_type, wanted, owner) in [
        (IoType::Pio, range(0x3ff, 0x3ff), Owner::Device { id: serial, name: "serial" }),
        (IoType::PhysicalMmio, range(0x1_0000, 0x1_0000), Owner::Device { id: bus, name: "bus" }),
        (IoType::Mmio, range(0x1f_ffff, u64::MAX), Owner::Vmm),
    ] {
        let got = manager.reserve(io_type, wanted);
        assert!(matches!(got, Err(RangeRefusal::Overlap { owner: o, .. }) if o == owner), "{got:?}");
    }
    for (io_type, taken) in [
        (IoType::Pio, range(0x3f8, 0x3ff)),
        (IoType::Mmio, range(0x10_0000, 0x1f_fffe)),
        (IoType::Mmio, range(0x10_0001, 0x1f_ffff)),
        (IoType::Pio, range(0, 0)),
    ] {
        let refusal = RangeRefusal::Pool(PoolError::NotAllocated { range: taken });
        assert_eq!(manager.release(io_type, taken), Err(refusal));
    }
    assert_eq!(observe(&manager, &[]), before);
    assert_eq!(manager.release(IoType::PhysicalMmio, range(0x10_0000, 0x1f_ffff)), Ok(()));
    let any = Placement::Any { size: GuestUsize(1), align: 1, within: None, fit: Fit::Last };
    assert_eq!(allocator().allocate_io(IoType::Pio, any), Ok(range(0xfff, 0xfff)));
}

#[test]
fn more_handles_than_there_is_room_for() {
    manager!(let manager: <DEVICES, RANGES, 1> = allocator());
    let _vcpu = manager.dispatcher().unwrap();
    let error = manager.dispatcher().err().unwrap();
    assert_eq!(error.to_string(), "all 1 dispatchers are in use, as many as `VCPUS` says");
}

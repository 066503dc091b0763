//! Defects that systems of this kind have had, each under the name of the system and of its report.

mod fixture;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use fixture::{Constant, Manager, Recorder, at, manager, observe, range, try_register};
use spin::Mutex;
use vm_device::{
    Access, AccessSizes, Device, GuestUsize, HeavyBarrier, InstanceId, IoError, IoRange, IoResource, IoType,
    IrqResource, Owner, PoolError, RangeError, RangeRefusal, RegisterError, Rejected, RelocateError, Relocation,
    Resources, SystemAllocator, UnregisterError,
};

const ONE: Constant = Constant { name: "one", value: 1 };
const TWO: Constant = Constant { name: "two", value: 2 };
const THREE: Constant = Constant { name: "three", value: 3 };

/// The calls that a device with 8 registers has had since it was last asked: whether it was written to, where, and how
/// many bytes.
fn calls(device: &Recorder) -> Vec<(bool, u64, usize)> {
    let calls = device.take();
    let calls = calls.iter().map(|call| (call.write, call.address - call.base, call.length));
    calls.inspect(|(_, offset, length)| assert!(offset + *length as u64 <= 8, "past the device's registers")).collect()
}

// Registration.

#[test]
fn rust_vmm_2019_failure_at_resource_0_is_not_swallowed() {
    manager!(let manager);
    try_register(&manager, &ONE, &[IoResource::pio(0x10, 8)]).unwrap();
    let before = observe(&manager, &[]);
    for good_ones_behind in 0..3 {
        let mut requests = vec![IoResource::pio(0x17, 1)];
        requests.extend((0..good_ones_behind).map(|i| IoResource::pio(0x40 + i, 1)));
        let got = try_register(&manager, &TWO, &requests);
        assert!(matches!(got, Err(RegisterError::Range { device: "two", index: 0, .. })), "{got:?}");
        assert_eq!(observe(&manager, &[]), before);
    }
}

#[test]
fn rust_vmm_2019_rollback_frees_every_range() {
    manager!(let manager);
    try_register(&manager, &ONE, &[IoResource::pio(0x10, 8)]).unwrap();
    let good = [IoResource::pio(0x40, 1), IoResource::mmio(0x1000, 16), IoResource::pio(0x41, 1)];
    for length in 1..=good.len() {
        let mut requests = good[..length].to_vec();
        requests.push(IoResource::pio(0x10, 1));
        assert!(try_register(&manager, &TWO, &requests).is_err());
        // Each of them can be had at once.
        let id = try_register(&manager, &TWO, &good).unwrap();
        manager.unregister_device(id).unwrap();
    }
}

#[test]
fn rust_vmm_2019_a_device_without_ranges_overlaps_nothing() {
    manager!(let manager);
    let ids = [&ONE, &TWO, &THREE].map(|device| try_register(&manager, device, &[]).unwrap());
    assert_eq!(manager.walk().map(|info| info.id).collect::<Vec<_>>(), ids);
    assert_eq!(ids.map(|id| manager.unregister_device(id)), [Ok(()); 3]);
}

const fn filler(name: &'static str) -> Constant {
    Constant { name, value: 0 }
}

static FILLERS: [Constant; 7] =
    [filler("a"), filler("b"), filler("c"), filler("d"), filler("e"), filler("f"), filler("g")];

#[test]
fn rust_vmm_2019_a_device_that_exists_already_leaks_no_id() {
    manager!(let manager);
    let first = try_register(&manager, &ONE, &[]).unwrap();
    for _ in 0..100 {
        let got = try_register(&manager, &ONE, &[]);
        assert_eq!(got, Err(RegisterError::NameTaken { device: "one", holder: first }));
    }
    // As many more as there is room for.
    for device in &FILLERS {
        try_register(&manager, device, &[]).unwrap();
    }
    assert_eq!(manager.walk().count(), 8);
}

#[test]
fn rust_vmm_2019_a_bus_does_not_vanish_under_its_children() {
    manager!(let manager);
    let bus = try_register(&manager, &ONE, &[IoResource::pio(0, 16).window()]).unwrap();
    let child = manager.register_device(&TWO, Some(bus), &[IoResource::pio(4, 1)], IrqResource::None).unwrap();
    let refused = UnregisterError::HasChildren { device: "one", child: "two" };
    assert_eq!(manager.unregister_device(bus), Err(refused));
    assert_eq!(manager.unregister_device_deferred(bus), Err(refused));
    assert_eq!(manager.device(child).unwrap().parent, Some(bus));
    assert_eq!(manager.find_by_path("/one/two"), Some(child));
    manager.unregister_subtree(bus).unwrap();
    assert_eq!(manager.device(child).map(|info| info.name), None);
}

#[test]
fn rust_vmm_2019_allocator_takes_and_frees_both_ends_of_a_pool() {
    // The pool's last byte could not be freed; an unaligned end gave away what lies behind it; a range from 1 leaked.
    for pool in [range(0, 0xff), range(1, 0x101), range(u64::MAX - 0xfe, u64::MAX), IoRange::ALL_MEMORY] {
        manager!(let manager = SystemAllocator::new(pool));
        let (first, last) = (pool.first().0, pool.last().0);
        for _ in 0..3 {
            for wanted in [range(first, first), range(last, last), range(1.max(first), 8 + first), pool] {
                let id = try_register(&manager, &ONE, &[IoResource::at(IoType::Mmio, wanted)]).unwrap();
                manager.unregister_device(id).unwrap();
            }
        }
        let any = IoResource::any(IoType::Mmio, GuestUsize(0x40)).aligned(0x40);
        for request in [any, any.last_fit()] {
            let id = try_register(&manager, &ONE, &[request]).unwrap();
            let given = manager.range(id, 0).unwrap().range;
            assert!(pool.contains_range(given) && given.first().0.is_multiple_of(0x40), "{given}");
            manager.unregister_device(id).unwrap();
        }
    }
}

#[test]
fn vm_allocator_0_1_4_a_range_that_starts_at_1_is_freed() {
    manager!(let manager);
    for _ in 0..3 {
        manager.reserve(IoType::Mmio, range(1, 0x10)).unwrap();
        manager.release(IoType::Mmio, range(1, 0x10)).unwrap();
        let not_allocated = PoolError::NotAllocated { range: range(1, 0x10) };
        assert_eq!(manager.release(IoType::Mmio, range(1, 0x10)), Err(RangeRefusal::Pool(not_allocated)));
    }
    assert_eq!(manager.address_map(IoType::Mmio).count(), 0);
    let all_but_one = IoResource::any(IoType::Mmio, GuestUsize(u64::MAX)).last_fit();
    let id = try_register(&manager, &ONE, &[all_but_one]).unwrap();
    assert_eq!(manager.range(id, 0).unwrap().range, range(1, u64::MAX));
    assert_eq!(manager.unregister_device(id), Ok(()));
}

#[test]
fn dbs_device_overlaps_with_different_bases_are_refused() {
    manager!(let manager);
    let id = try_register(&manager, &ONE, &[IoResource::mmio(0x1000, 0x100)]).unwrap();
    for (first, last) in [(0xfff, 0x1000), (0x10ff, 0x10ff), (0x1001, 0x1001), (0, u64::MAX), (0xfff, 0x1100)] {
        let got = try_register(&manager, &TWO, &[IoResource::at(IoType::Mmio, range(first, last))]);
        let refusal = RangeRefusal::Overlap {
            wanted: range(first, last),
            taken: range(0x1000, 0x10ff),
            owner: Owner::Device { id, name: "one" },
        };
        assert_eq!(got, Err(RegisterError::Range { device: "two", index: 0, io_type: IoType::Mmio, refusal }));
    }
}

#[test]
fn crosvm_an_overlap_on_the_last_byte_of_u64_is_seen() {
    manager!(let manager);
    let last = range(u64::MAX, u64::MAX);
    try_register(&manager, &ONE, &[IoResource::at(IoType::Mmio, last)]).unwrap();
    for wanted in [last, range(u64::MAX - 1, u64::MAX), IoRange::ALL_MEMORY] {
        let got = try_register(&manager, &TWO, &[IoResource::at(IoType::Mmio, wanted)]);
        assert!(matches!(
            got,
            Err(RegisterError::Range { refusal: RangeRefusal::Overlap { taken, .. }, .. }) if taken == last
        ));
    }
    try_register(&manager, &TWO, &[IoResource::at(IoType::Mmio, range(0, u64::MAX - 1))]).unwrap();
    let mut data = [0];
    for (address, expected) in [(u64::MAX, 1), (u64::MAX - 1, 2), (0, 2)] {
        manager.read(at(address), &mut data, IoType::Mmio).unwrap();
        assert_eq!(data, [expected]);
    }
}

#[test]
fn vm_device_an_invalid_range_is_an_error_value() {
    manager!(let manager);
    for (request, error) in [
        (IoResource::pio(0x10, 0), RangeError::Empty { base: at(0x10) }),
        (IoResource::pio(0xffff, 2), RangeError::BeyondSpace { range: range(0xffff, 0x1_0000), last: at(0xffff) }),
        (IoResource::mmio(2, u64::MAX), RangeError::Wraps { base: at(2), size: GuestUsize(u64::MAX) }),
    ] {
        let got = try_register(&manager, &ONE, &[request]);
        assert!(matches!(
            got,
            Err(RegisterError::Range { refusal: RangeRefusal::Invalid(e), .. }) if e == error
        ));
    }
}

#[test]
fn vm_device_all_65536_ports_can_be_asked_for() {
    manager!(let manager);
    let id = try_register(&manager, &ONE, &[IoResource::pio(0, 0x1_0000)]).unwrap();
    assert_eq!(manager.range(id, 0).unwrap().range, IoRange::ALL_PORTS);
    for port in [0, 1, 0x7fff, 0xffff] {
        assert_eq!(manager.read(at(port), &mut [0], IoType::Pio), Ok(()));
    }
    assert!(try_register(&manager, &TWO, &[IoResource::pio(0xffff, 1)]).is_err());
}

#[test]
fn acrn_a_full_table_is_an_error() {
    manager!(let manager);
    let ports: Vec<_> = (0..16).map(|port| IoResource::pio(port, 1)).collect();
    try_register(&manager, &ONE, &ports).unwrap();
    let got = try_register(&manager, &TWO, &[IoResource::pio(16, 1)]);
    let refusal = RangeRefusal::Pool(PoolError::Full { capacity: 16 });
    assert_eq!(got, Err(RegisterError::Range { device: "two", index: 0, io_type: IoType::Pio, refusal }));
    assert!((0..16).all(|port| manager.read(at(port), &mut [0], IoType::Pio).is_ok()));
}

// Identity.

#[test]
fn cloud_hypervisor_1810_identity_is_the_id_and_not_the_pointer() {
    // Devices without a size may all have one address.
    struct Null(());
    impl Device<'_> for Null {
        fn name(&self) -> &str {
            "null"
        }
        fn read(&self, access: &Access<'_>, data: &mut [u8]) {
            data.fill(access.base().0 as u8);
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }
    let nulls = [const { Null(()) }; 2];
    manager!(let manager);
    let buses = [&ONE, &TWO].map(|bus| try_register(&manager, bus, &[]).unwrap());
    let mut ids = Vec::new();
    for ((null, bus), port) in nulls.iter().zip(buses).zip([0x10, 0x20]) {
        ids.push(manager.register_device(null, Some(bus), &[IoResource::pio(port, 1)], IrqResource::None).unwrap());
    }
    manager.unregister_device(ids[0]).unwrap();
    assert_eq!(manager.read(at(0x10), &mut [0], IoType::Pio), Err(IoError::Unclaimed));
    assert_eq!(manager.read(at(0x20), &mut [0], IoType::Pio), Ok(()));
    assert_eq!(manager.find_by_address(at(0x20), IoType::Pio), Some((ids[1], 0)));
}

#[test]
fn tgoskits_1335_ids_are_not_reused() {
    manager!(let manager);
    let mut ever = std::collections::HashSet::new();
    let stale = try_register(&manager, &ONE, &[]).unwrap();
    manager.unregister_device(stale).unwrap();
    for _ in 0..if cfg!(miri) { 20 } else { 1000 } {
        let id = try_register(&manager, &ONE, &[IoResource::pio(0, 1)]).unwrap();
        assert!(ever.insert(id) && id != stale);
        // The old id names nobody, least of all the new device.
        let not_found = UnregisterError::NotFound { id: stale };
        assert_eq!(manager.unregister_device(stale), Err(not_found));
        assert_eq!(manager.unregister_subtree(stale), Err(not_found));
        assert_eq!(manager.unregister_device_deferred(stale), Err(not_found));
        assert_eq!(manager.relocate(&[Relocation::new(stale, 0)]), Err(RelocateError::NotFound { id: stale }));
        assert!(manager.device(stale).is_none() && manager.range(stale, 0).is_none());
        let below = manager.register_device(&TWO, Some(stale), &[], IrqResource::None);
        assert_eq!(below, Err(RegisterError::NoSuchParent { device: "two", parent: stale }));
        manager.unregister_device(id).unwrap();
    }
}

// Accesses.

#[test]
fn firecracker_6207_1822_6183_straddling_and_odd_accesses_do_not_reach_past_a_device() {
    let device = Recorder::new("calls", 0);
    manager!(let manager);
    try_register(&manager, &device, &[IoResource::mmio(0x1000, 8)]).unwrap();
    let mut vcpu = manager.dispatcher().unwrap();
    for address in 0xff0..0x1018 {
        for length in 1..=16 {
            let mut data = vec![0x55; length];
            let (first, last) = (address, address + length as u64 - 1);
            let inside = first >= 0x1000 && last <= 0x1007;
            let outside = last < 0x1000 || first > 0x1007;
            let expected = match (inside, outside) {
                (true, _) => Ok(()),
                (_, true) => Err(IoError::Unclaimed),
                _ => Err(IoError::Straddling),
            };
            assert_eq!(manager.read(at(address), &mut data, IoType::Mmio), expected);
            assert!(inside || data.iter().all(|byte| *byte == 0xff));
            assert_eq!(manager.write(at(address), &data, IoType::Mmio), expected);
            assert_eq!(vcpu.read(at(address), &mut data, IoType::Mmio), expected);
            assert_eq!(calls(&device).len(), if inside { 3 } else { 0 });
        }
    }
}

#[test]
fn firecracker_1822_a_device_is_spared_the_sizes_it_does_not_know() {
    let device = Recorder::new("calls", 0);
    manager!(let manager);
    let dwords = IoResource::mmio(0, 8).sizes(AccessSizes::DWORD | AccessSizes::ALIGNED);
    try_register(&manager, &device, &[dwords]).unwrap();
    for offset in 0..8 {
        for length in 1..=8 - offset as usize {
            let mut data = vec![0x55; length];
            let accepted = length == 4 && offset % 4 == 0;
            let expected = if accepted { Ok(()) } else { Err(IoError::RefusedSize) };
            assert_eq!(manager.read(at(offset), &mut data, IoType::Mmio), expected);
            assert!(accepted || data.iter().all(|byte| *byte == 0xff));
            assert_eq!(manager.write(at(offset), &data, IoType::Mmio), expected);
        }
    }
    assert!(calls(&device).iter().all(|(_, offset, length)| *length == 4 && offset % 4 == 0));
}

#[test]
fn cloud_hypervisor_7415_8237_8817_every_failed_read_is_all_ones() {
    let device = Recorder::new("calls", 0);
    manager!(let manager);
    let words = IoResource::pio(0x10, 4).sizes(AccessSizes::WORD);
    let physical = IoResource::fixed(IoType::PhysicalMmio, at(0x1000), GuestUsize(0x1000));
    let off = IoResource::mmio(0x3000, 0x100).not_decoded();
    try_register(&manager, &device, &[words, physical, off]).unwrap();
    let mut vcpu = manager.dispatcher().unwrap();
    for (io_type, address, error) in [
        (IoType::Pio, 0x9, IoError::Unclaimed),
        (IoType::Pio, 0xf, IoError::Straddling),
        (IoType::Pio, 0x10, IoError::RefusedSize),
        (IoType::Pio, 0xffff, IoError::Straddling),
        (IoType::Pio, 0x1_0000, IoError::Unclaimed),
        (IoType::Mmio, 0x1000, IoError::Unclaimed),
        (IoType::PhysicalMmio, 0x1000, IoError::NotDispatched),
        (IoType::Mmio, 0x3000, IoError::Unclaimed),
        (IoType::Mmio, u64::MAX, IoError::Straddling),
    ] {
        // Neither what was in the buffer nor zeros.
        for stale in [0, 0x55] {
            let mut data = [stale; 4];
            assert_eq!(manager.read(at(address), &mut data, io_type), Err(error), "{address:#x}");
            assert_eq!(data, [0xff; 4]);
            data.fill(stale);
            assert_eq!(vcpu.read(at(address), &mut data, io_type), Err(error));
            assert_eq!(data, [0xff; 4]);
        }
    }
    assert_eq!(calls(&device), []);
}

#[test]
fn cloud_hypervisor_8817_a_device_that_answers_a_part_leaves_the_rest_all_ones() {
    struct Lazy;
    impl Device<'_> for Lazy {
        fn name(&self) -> &str {
            "lazy"
        }
        fn read(&self, _: &Access<'_>, data: &mut [u8]) {
            data[0] = 0;
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }
    manager!(let manager);
    try_register(&manager, &Lazy, &[IoResource::pio(0, 8)]).unwrap();
    let mut data = [0x55; 4];
    assert_eq!(manager.read(at(0), &mut data, IoType::Pio), Ok(()));
    assert_eq!(data, [0, 0xff, 0xff, 0xff]);
    assert_eq!(manager.read_string(0, 2, &mut data), Ok(()));
    assert_eq!(data, [0, 0xff, 0, 0xff]);
}

// String I/O.

#[test]
fn rust_vmm_kvm_371_an_element_and_a_count_are_not_one_size() {
    let device = Recorder::new("calls", 0);
    manager!(let manager);
    try_register(&manager, &device, &[IoResource::pio(0x20, 8)]).unwrap();
    let mut data = [0; 4];
    // `in eax`, `rep insb` of 4, `rep insw` of 2 and `rep insd` of 1 all carry 4 bytes.
    manager.read(at(0x20), &mut data, IoType::Pio).unwrap();
    assert_eq!(calls(&device), [(false, 0, 4)]);
    for element in [1, 2, 4] {
        manager.read_string(0x20, element, &mut data).unwrap();
        assert_eq!(calls(&device), vec![(false, 0, element); 4 / element]);
        assert_eq!(data, [0, 1, 2, 3], "the elements lie in the order in which they were read");
        manager.write_string(0x20, element, &data).unwrap();
        assert_eq!(calls(&device), vec![(true, 0, element); 4 / element]);
    }
}

#[test]
fn cloud_hypervisor_8102_rep_ins_is_checked_per_element() {
    let device = Recorder::new("calls", 0);
    manager!(let manager);
    // Like the data port of fw_cfg: two ports, of which the second takes bytes. A burst is far longer than both.
    try_register(&manager, &device, &[IoResource::pio(0x510, 2).sizes(AccessSizes::BYTE | AccessSizes::WORD)]).unwrap();
    let mut vcpu = manager.dispatcher().unwrap();
    let mut data = [0; 64];
    for _ in 0..2 {
        assert_eq!(vcpu.read_string(0x511, 1, &mut data), Ok(()));
        assert_eq!(calls(&device), vec![(false, 1, 1); 64]);
        assert_eq!(vcpu.write_string(0x511, 1, &data), Ok(()));
        assert_eq!(calls(&device), vec![(true, 1, 1); 64]);
    }
    // What one element could not do, no burst can.
    assert_eq!(vcpu.read_string(0x511, 2, &mut data), Err(IoError::Straddling));
    assert_eq!(data, [0xff; 64]);
    assert_eq!(vcpu.write_string(0x50f, 2, &data), Err(IoError::Straddling));
    assert_eq!(vcpu.read_string(0xffff, 2, &mut data), Err(IoError::Straddling));
    assert_eq!(vcpu.read_string(0x512, 1, &mut data), Err(IoError::Unclaimed));
    assert_eq!(vcpu.read_string(0x510, 3, &mut data[..6]), Err(IoError::Straddling));
    for (element, length) in [(0, 4), (4, 0), (4, 6), (1, 0), (usize::MAX, 4)] {
        assert_eq!(vcpu.read_string(0x510, element, &mut data[..length]), Err(IoError::InvalidLength));
        assert_eq!(vcpu.write_string(0x510, element, &data[..length]), Err(IoError::InvalidLength));
    }
    assert_eq!(calls(&device), []);
}

// Relocation.

#[test]
fn cloud_hypervisor_8203_8572_allocator_and_dispatch_agree_after_a_move() {
    manager!(let manager);
    let id = try_register(&manager, &ONE, &[IoResource::mmio(0x1000, 0x1000)]).unwrap();
    let other = try_register(&manager, &TWO, &[IoResource::mmio(0x4000, 0x1000)]).unwrap();
    for to in [0x3000, 0x2800, 0x5000, 0, u64::MAX - 0xfff] {
        manager.relocate(&[Relocation::new(id, 0).to(at(to))]).unwrap();
        let place = range(to, to + 0xfff);
        assert_eq!(manager.range(id, 0).unwrap().range, place);
        assert!(manager.address_map(IoType::Mmio).any(|mapped| mapped.assigned.range == place));
        assert_eq!(manager.find_by_address(at(to), IoType::Mmio), Some((id, 0)));
        assert_eq!(manager.read(at(to + 0xfff), &mut [0], IoType::Mmio), Ok(()));
        // The new place is taken, and the old ones are free: for the allocator too.
        assert!(try_register(&manager, &THREE, &[IoResource::mmio(to, 1)]).is_err());
        let old = try_register(&manager, &THREE, &[IoResource::mmio(0x1000, 0x1000)]).unwrap();
        manager.unregister_device(old).unwrap();
    }
    // A move that fails leaves both where they were.
    for to in [0x3fff, 0x4fff] {
        assert!(manager.relocate(&[Relocation::new(id, 0).to(at(to))]).is_err());
        assert_eq!(manager.read(at(u64::MAX), &mut [0], IoType::Mmio), Ok(()));
        assert_eq!(manager.find_by_address(at(0x4000), IoType::Mmio), Some((other, 0)));
    }
}

#[test]
fn cloud_hypervisor_8695_two_bars_change_places() {
    manager!(let manager);
    let one = try_register(&manager, &ONE, &[IoResource::mmio(0x1000, 0x100)]).unwrap();
    let two =
        try_register(&manager, &TWO, &[IoResource::mmio(0x2000, 0x100), IoResource::mmio(0x3000, 0x100)]).unwrap();
    let to = |id, index, base| Relocation::new(id, index).to(at(base));
    let mut vcpu = manager.dispatcher().unwrap();
    let mut seen = |address| {
        let mut data = [0];
        vcpu.read(at(address), &mut data, IoType::Mmio).unwrap();
        data[0]
    };
    assert_eq!((seen(0x1000), seen(0x2000)), (1, 2));
    manager.relocate(&[to(one, 0, 0x2000), to(two, 0, 0x1000)]).unwrap();
    assert_eq!((seen(0x1000), seen(0x2000), seen(0x3000)), (2, 1, 2));
    // Three in a ring, two of one device.
    manager.relocate(&[to(one, 0, 0x3000), to(two, 0, 0x2000), to(two, 1, 0x1000)]).unwrap();
    assert_eq!((seen(0x1000), seen(0x2000), seen(0x3000)), (2, 2, 1));
    assert_eq!(manager.find_by_address(at(0x1000), IoType::Mmio), Some((two, 1)));
}

#[test]
fn firecracker_6087_6088_a_relocation_from_within_an_access() {
    /// A function whose BAR the guest moves by writing its new base to the BAR's own register, as with a PCI bridge.
    struct Bar<'d>(&'d Manager<'d>, Mutex<Option<InstanceId>>);
    impl<'d> Device<'d> for Bar<'d> {
        fn name(&self) -> &str {
            "bar"
        }
        fn read(&self, access: &Access<'_>, data: &mut [u8]) {
            data.fill(access.base().0 as u8);
        }
        fn write(&self, access: &Access<'_>, data: &[u8]) {
            // Its own lock is held meanwhile, as devices are wont to.
            let id = self.1.lock();
            let to = at(data[0].into());
            self.0.relocate(&[Relocation::new(id.unwrap(), 0).to(to)]).unwrap();
            let mut again = [0];
            self.0.nested(access).read(to, &mut again, IoType::Mmio).unwrap();
            assert_eq!(again[0], data[0]);
        }
    }
    manager!(let manager);
    let bar = Bar(&manager, Mutex::new(None));
    *bar.1.lock() = Some(try_register(&manager, &bar, &[IoResource::mmio(0x10, 8)]).unwrap());
    let mut vcpu = manager.dispatcher().unwrap();
    for (old, new) in [(0x10, 0x40), (0x40, 0x44), (0x44, 0x10)] {
        vcpu.write(at(old), &[new], IoType::Mmio).unwrap();
        let mut data = [0];
        vcpu.read(at(new.into()), &mut data, IoType::Mmio).unwrap();
        assert_eq!(data, [new]);
    }
    assert_eq!(vcpu.read(at(0x44), &mut [0], IoType::Mmio), Err(IoError::Unclaimed));
}

// Locks and re-entrancy.

#[test]
fn cloud_hypervisor_8028_6775_832_no_lock_is_held_across_a_callback() {
    struct Curious<'d>(&'d Manager<'d>);
    impl Curious<'_> {
        fn look_around(&self) {
            let manager = self.0;
            let observed = observe(manager, &[]);
            assert!(!observed.devices.is_empty());
            manager.reserve(IoType::Mmio, range(0x9000, 0x9fff)).unwrap();
            manager.release(IoType::Mmio, range(0x9000, 0x9fff)).unwrap();
            let id = try_register(manager, &TWO, &[IoResource::any(IoType::Pio, GuestUsize(1))]).unwrap();
            manager.unregister_device(id).unwrap();
            assert_eq!(manager.collect(), 0);
        }
    }
    impl<'d> Device<'d> for Curious<'d> {
        fn name(&self) -> &str {
            // Asked for at the registration.
            let _ = self.0.walk().count();
            "curious"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {
            // An observation reads; once is enough.
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {
            self.look_around();
        }
        fn set_resources(&self, _: &Resources<'_, 'd>) -> Result<(), Rejected> {
            self.look_around();
            Ok(())
        }
    }
    manager!(let manager);
    let curious = Curious(&manager);
    try_register(&manager, &curious, &[IoResource::mmio(0, 4)]).unwrap();
    manager.write(at(0), &[0], IoType::Mmio).unwrap();
    manager.dispatcher().unwrap().write(at(0), &[0], IoType::Mmio).unwrap();
    // Iterators hold nothing between their steps either.
    for info in manager.walk() {
        assert!(manager.device(info.id).is_some());
        for mapped in manager.address_map(IoType::Mmio) {
            assert!(manager.find_by_address(mapped.assigned.range.first(), IoType::Mmio).is_some());
        }
    }
}

#[test]
fn qemu_cve_2021_3750_2023_0330_a_device_that_writes_to_itself_is_bounded_and_notices() {
    /// A controller that copies, and whose target may be its own registers.
    struct Dma<'d> {
        manager: &'d Manager<'d>,
        busy: AtomicBool,
        refused: AtomicUsize,
    }
    impl<'d> Device<'d> for Dma<'d> {
        fn name(&self) -> &str {
            "dma"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
        fn write(&self, access: &Access<'_>, data: &[u8]) {
            if self.busy.swap(true, Ordering::Acquire) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            assert_eq!(self.manager.nested(access).write(access.address(), data, IoType::Mmio), Ok(()));
            assert_eq!(self.manager.write(access.address(), data, IoType::Mmio), Ok(()));
            self.busy.store(false, Ordering::Release);
        }
    }
    manager!(let manager);
    let dma = Dma { manager: &manager, busy: AtomicBool::new(false), refused: AtomicUsize::new(0) };
    let id = try_register(&manager, &dma, &[IoResource::mmio(0, 4)]).unwrap();
    manager.write(at(0), &[0], IoType::Mmio).unwrap();
    manager.dispatcher().unwrap().write(at(0), &[0], IoType::Mmio).unwrap();
    assert_eq!(dma.refused.load(Ordering::Relaxed), 4);
    manager.unregister_device(id).unwrap();
}

// Removal, and what other vCPUs see.

#[test]
fn linux_cve_2021_47060_a_removal_needs_no_memory_and_leaves_the_others() {
    manager!(let manager);
    let bus = try_register(&manager, &ONE, &[IoResource::mmio(0, 0x1000).window()]).unwrap();
    let inside: Vec<_> = (0..15).map(|i| IoResource::mmio(i * 0x10 + 0x10, 8)).collect();
    let child = manager.register_device(&TWO, Some(bus), &inside, IrqResource::None).unwrap();
    // Full to the last place.
    let full = try_register(&manager, &THREE, &[IoResource::mmio(0x2000, 1)]);
    assert!(matches!(full, Err(RegisterError::Range { refusal: RangeRefusal::Pool(PoolError::Full { .. }), .. })));
    manager.unregister_device(child).unwrap();
    for address in [0, 0x10, 0x68, 0xfff] {
        let mut data = [0];
        assert_eq!(manager.read(at(address), &mut data, IoType::Mmio), Ok(()));
        assert_eq!(data, [1], "the bus answers again");
    }
    manager.unregister_device(bus).unwrap();
}

#[test]
fn firecracker_6062_6092_cloud_hypervisor_8369_no_guest_finds_a_half_registered_device() {
    struct Late {
        configured: AtomicBool,
        early: AtomicUsize,
    }
    impl<'d> Device<'d> for Late {
        fn name(&self) -> &str {
            "late"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {
            if !self.configured.load(Ordering::Relaxed) {
                self.early.fetch_add(1, Ordering::Relaxed);
            }
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
        fn set_resources(&self, _: &Resources<'_, 'd>) -> Result<(), Rejected> {
            thread::yield_now();
            self.configured.store(true, Ordering::Relaxed);
            Ok(())
        }
    }
    manager!(let manager);
    let late = Late { configured: AtomicBool::new(false), early: AtomicUsize::new(0) };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut vcpu = manager.dispatcher().unwrap();
            while !done.load(Ordering::Relaxed) {
                let _ = vcpu.read(at(0), &mut [0], IoType::Mmio);
            }
        });
        for _ in 0..if cfg!(miri) { 5 } else { 300 } {
            late.configured.store(false, Ordering::Relaxed);
            let id = try_register(&manager, &late, &[IoResource::mmio(0, 1)]).unwrap();
            thread::yield_now();
            while let Err(error) = manager.unregister_device(id) {
                assert_eq!(error, UnregisterError::InUse { device: "late" });
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(late.early.load(Ordering::Relaxed), 0);
}

#[test]
fn kvm_7788255aba65_who_has_seen_a_registration_reaches_the_device() {
    manager!(let manager);
    let seen = AtomicUsize::new(0);
    let rounds = if cfg!(miri) { 5 } else { 300 };
    thread::scope(|scope| {
        let (manager, seen) = (&manager, &seen);
        scope.spawn(move || {
            let mut vcpu = manager.dispatcher().unwrap();
            for round in 1..=rounds {
                while seen.load(Ordering::Relaxed) != 2 * round - 1 {
                    // A miss just before, which is remembered nowhere.
                    let _ = vcpu.read(at(0x100), &mut [0], IoType::Mmio);
                    thread::yield_now();
                }
                std::sync::atomic::fence(Ordering::Acquire);
                assert_eq!(vcpu.read(at(0), &mut [0], IoType::Mmio), Ok(()));
                seen.store(2 * round, Ordering::Release);
            }
        });
        for round in 1..=rounds {
            let id = try_register(manager, &ONE, &[IoResource::mmio(0, 1)]).unwrap();
            seen.store(2 * round - 1, Ordering::Release);
            while seen.load(Ordering::Acquire) != 2 * round {
                thread::yield_now();
            }
            manager.unregister_device(id).unwrap();
        }
    });
}

#[test]
fn jailhouse_a_reader_does_not_wait_for_a_writer_that_stopped_half_way() {
    static STOPPED: AtomicBool = AtomicBool::new(false);
    static GO_ON: AtomicBool = AtomicBool::new(false);
    fn stop() {
        STOPPED.store(true, Ordering::SeqCst);
        while !GO_ON.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    }
    // SAFETY: no dispatch of this test goes through a `Dispatcher`, and only those rely on the barrier.
    let barrier = unsafe { HeavyBarrier::new(stop) };
    manager!(let manager, with_asymmetric_fence(barrier));
    let gone = try_register(&manager, &ONE, &[IoResource::mmio(0, 1)]).unwrap();
    try_register(&manager, &TWO, &[IoResource::mmio(0x10, 1)]).unwrap();
    thread::scope(|scope| {
        // It stops after its publication. `manager::tests` has one that stops in the midst of it, with the lock held.
        let writer = scope.spawn(|| manager.unregister_device(gone));
        while !STOPPED.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..100 {
                assert_eq!(manager.read(at(0), &mut [0], IoType::Mmio), Err(IoError::Unclaimed));
                assert_eq!(manager.read(at(0x10), &mut [0], IoType::Mmio), Ok(()));
            }
            assert!(!writer.is_finished());
        }));
        GO_ON.store(true, Ordering::SeqCst);
        outcome.unwrap();
    });
    assert_eq!(manager.collect(), 0);
}

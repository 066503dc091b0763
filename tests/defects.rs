//! Defects that systems of this kind have had in registration, relocation and removal, each under the name of the system
//! and of its report. What other tests would test again stands there, with the same names.

mod fixture;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use fixture::{Constant, at, manager, range, try_register};
use spin::Mutex;
use vm_device::{
    Access, Device, DeviceManager, GuestUsize, HeavyBarrier, InstanceId, IoError, IoRange, IoResource, IoType, Owner,
    RangeRefusal, RegisterError, Relocation, SystemAllocator,
};

const ONE: Constant = Constant { name: "one", value: 1 };
const TWO: Constant = Constant { name: "two", value: 2 };
const THREE: Constant = Constant { name: "three", value: 3 };

// Registration.

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
        let not_allocated = RangeRefusal::NotAllocated { range: range(1, 0x10) };
        assert_eq!(manager.release(IoType::Mmio, range(1, 0x10)), Err(not_allocated));
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
fn vm_device_all_65536_ports_can_be_asked_for() {
    manager!(let manager);
    let id = try_register(&manager, &ONE, &[IoResource::pio(0, 0x1_0000)]).unwrap();
    assert_eq!(manager.range(id, 0).unwrap().range, IoRange::ALL_PORTS);
    for port in [0, 1, 0x7fff, 0xffff] {
        assert_eq!(manager.read(at(port), &mut [0], IoType::Pio), Ok(()));
    }
    assert!(try_register(&manager, &TWO, &[IoResource::pio(0xffff, 1)]).is_err());
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
        ids.push(manager.register_device(null, Some(bus), &[IoResource::pio(port, 1)], &[]).unwrap());
    }
    manager.unregister_device(ids[0]).unwrap();
    assert_eq!(manager.read(at(0x10), &mut [0], IoType::Pio), Err(IoError::Unclaimed));
    assert_eq!(manager.read(at(0x20), &mut [0], IoType::Pio), Ok(()));
    assert_eq!(manager.find_by_address(at(0x20), IoType::Pio), Some((ids[1], 0)));
}

// Relocation.

#[test]
fn cloud_hypervisor_8203_8572_allocator_and_dispatch_agree_after_a_move() {
    manager!(let manager);
    let id = try_register(&manager, &ONE, &[IoResource::mmio(0x1000, 0x1000)]).unwrap();
    let other = try_register(&manager, &TWO, &[IoResource::mmio(0x4000, 0x1000)]).unwrap();
    for to in [0x3000, 0x2800, 0x5000, 0, u64::MAX - 0xfff] {
        manager.relocate(&mut [Relocation::new(id, 0).to(at(to))]).unwrap();
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
        assert!(manager.relocate(&mut [Relocation::new(id, 0).to(at(to))]).is_err());
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
    let mut vcpu = manager.dispatcher(0).unwrap();
    let mut seen = |address| {
        let mut data = [0];
        vcpu.read(at(address), &mut data, IoType::Mmio).unwrap();
        data[0]
    };
    assert_eq!((seen(0x1000), seen(0x2000)), (1, 2));
    manager.relocate(&mut [to(one, 0, 0x2000), to(two, 0, 0x1000)]).unwrap();
    assert_eq!((seen(0x1000), seen(0x2000), seen(0x3000)), (2, 1, 2));
    // Three in a ring, two of one device.
    manager.relocate(&mut [to(one, 0, 0x3000), to(two, 0, 0x2000), to(two, 1, 0x1000)]).unwrap();
    assert_eq!((seen(0x1000), seen(0x2000), seen(0x3000)), (2, 2, 1));
    assert_eq!(manager.find_by_address(at(0x1000), IoType::Mmio), Some((two, 1)));
}

#[test]
fn firecracker_6087_6088_a_relocation_from_within_an_access() {
    /// A function of a PCI bridge: the guest moves its BAR by writing the new base to the BAR's own register.
    struct Bar<'d>(&'d DeviceManager<'d>, Mutex<Option<InstanceId>>);
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
            self.0.relocate(&mut [Relocation::new(id.unwrap(), 0).to(to)]).unwrap();
            let mut again = [0];
            self.0.nested(access).read(to, &mut again, IoType::Mmio).unwrap();
            assert_eq!(again[0], data[0]);
        }
    }
    manager!(let manager);
    let bar = Bar(&manager, Mutex::new(None));
    *bar.1.lock() = Some(try_register(&manager, &bar, &[IoResource::mmio(0x10, 8)]).unwrap());
    let mut vcpu = manager.dispatcher(0).unwrap();
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
fn qemu_cve_2021_3750_2023_0330_a_device_that_writes_to_itself_is_bounded_and_notices() {
    /// A controller that copies, perhaps into its own registers.
    struct Dma<'d> {
        manager: &'d DeviceManager<'d>,
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
    manager.dispatcher(0).unwrap().write(at(0), &[0], IoType::Mmio).unwrap();
    assert_eq!(dma.refused.load(Ordering::Relaxed), 4);
    manager.unregister_device(id).unwrap();
}

// Removal, and what other vCPUs see.

#[test]
fn linux_cve_2021_47060_a_removal_needs_no_memory_and_leaves_the_others() {
    manager!(let manager);
    let bus = try_register(&manager, &ONE, &[IoResource::mmio(0, 0x1000).window()]).unwrap();
    let inside: Vec<_> = (0..15).map(|i| IoResource::mmio(i * 0x10 + 0x10, 8)).collect();
    let child = manager.register_device(&TWO, Some(bus), &inside, &[]).unwrap();
    // Full to the last place.
    let full = try_register(&manager, &THREE, &[IoResource::mmio(0x2000, 1)]);
    assert!(matches!(full, Err(RegisterError::Range { refusal: RangeRefusal::Full { .. }, .. })));
    manager.unregister_device(child).unwrap();
    for address in [0, 0x10, 0x68, 0xfff] {
        let mut data = [0];
        assert_eq!(manager.read(at(address), &mut data, IoType::Mmio), Ok(()));
        assert_eq!(data, [1], "the bus answers again");
    }
    manager.unregister_device(bus).unwrap();
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

//! Which devices a manager has, and which it gives back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use spin::Mutex;
use vm_device::owned::{BuildError, Builder, Capacities, OwnedManager, RemovedDevice, SharedDevice, WeakManager};
use vm_device::{
    Access, AccessDirection, AccessObserver, Device, Gsi, GuestAddress, InstanceId, InterruptController,
    InterruptError, IoError, IoResource, IoType, IrqRefusal, IrqResource, ObservedAccess, OpenBus, Owner, PlacedRange,
    RangeListener, RangeRefusal, RegisterError, Rejected, Relocation, Resources, Straddling, UnregisterError,
};

use super::fixture::{at, everything, range, read, unwinds, wait_for, within_limit};
use super::{Acting, Counted, Lined, SMALL, Slow, manager, read_by, register};

/// Whether two are the same device.
fn same(one: &SharedDevice, other: &Arc<impl Device<'static>>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

/// C39.
#[test]
fn a_removal_gives_the_device_back_when_its_callbacks_have_ended() {
    within_limit(|| {
        let manager = manager();
        let slow = Arc::new(Slow::default());
        let id = register(&manager, slow.clone(), 0x1000);
        thread::scope(|scope| {
            let mut vcpu = manager.dispatcher(0).unwrap();
            scope.spawn(move || read_by(&mut vcpu, 0x1000));
            wait_for(&slow.inside);
            let removal = scope.spawn(|| manager.unregister_device(id));
            assert!(!removal.is_finished());
            slow.let_go.store(true, SeqCst);
            assert!(same(&removal.join().unwrap().ok().unwrap(), &slow));
        });
        assert_eq!(Arc::strong_count(&slow), 1);
        assert_eq!(manager.unregister_device(id).err(), Some(UnregisterError::NotFound { id }));
        assert!(manager.device(id).is_none());
    });
}

/// C39.
#[test]
fn collect_gives_back_what_was_removed_deferred() {
    let manager = manager();
    let weak = manager.downgrade();
    let acting = Arc::new(Acting {
        manager: weak,
        act: |manager: &OwnedManager, access: &Access<'_>| {
            let id = access.device().unwrap();
            let own = manager.nested(access).unregister_device(id).err();
            assert_eq!(own, Some(UnregisterError::InOwnCallback { device: "acting".into() }));
            manager.unregister_device_deferred(id).unwrap();
            let collected = manager.collect();
            assert_eq!((collected.devices.len(), collected.left), (0, 1));
        },
    });
    let id = register(&manager, acting.clone(), 0x1000);
    manager.write(at(0x1000), &[1], IoType::Mmio).unwrap();
    assert_eq!(Arc::strong_count(&acting), 2);
    let collected = manager.collect();
    assert_eq!(collected.left, 0);
    assert_eq!(collected.devices.iter().map(|removed| removed.id).collect::<Vec<_>>(), [id]);
    assert!(same(&collected.devices[0].device, &acting));
    assert!(manager.collect().devices.is_empty());
}

#[test]
fn a_registration_that_finishes_a_removal_leaves_the_device_for_collect() {
    let (manager, dropped) = (manager(), Arc::default());
    let id = register(&manager, Counted::new("first", &dropped), 0x1000);
    manager.unregister_device_deferred(id).unwrap();
    // It gets what the first one had.
    register(&manager, Counted::new("second", &dropped), 0x1000);
    assert_eq!(dropped.load(SeqCst), 0);
    assert_eq!(manager.collect().devices[0].device.name(), "first");
    assert_eq!(dropped.load(SeqCst), 1);
}

#[test]
fn a_subtree_is_given_back_whole() {
    let (manager, dropped) = (manager(), Arc::default());
    let bus = register(&manager, Counted::new("bus", &dropped), 0x1000);
    let other = register(&manager, Counted::new("other", &dropped), 0x2000);
    let child = |parent, name| manager.register_device(Counted::new(name, &dropped), Some(parent), &[], &[]).unwrap();
    let below = child(bus, "below");
    let leaf = child(below, "leaf");
    assert_eq!(
        manager.unregister_device(bus).err(),
        Some(UnregisterError::HasChildren { device: "bus".into(), child: "below".into() })
    );
    let removed = manager.unregister_subtree(bus).unwrap();
    let given: Vec<_> = removed.iter().map(|removed| (removed.id, removed.device.name())).collect();
    assert_eq!(given, [(bus, "bus"), (below, "below"), (leaf, "leaf")]);
    assert_eq!(dropped.load(SeqCst), 0);
    drop(removed);
    assert_eq!(dropped.load(SeqCst), 3);
    assert_eq!(manager.walk().iter().map(|info| info.id).collect::<Vec<_>>(), [other]);
}

/// Rejects its resources, by a code or by unwinding.
struct Picky {
    unwinds: bool,
    dropped: Arc<AtomicUsize>,
}

impl Device<'_> for Picky {
    fn name(&self) -> &str {
        "picky"
    }
    fn set_resources(&self, _: &Resources<'_, '_>) -> Result<(), Rejected> {
        assert!(!self.unwinds, "as it was told");
        Err(Rejected::new(19))
    }
}

impl Drop for Picky {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_failed_registration_keeps_nothing() {
    let manager = manager();
    let dropped = Arc::<AtomicUsize>::default();
    let picky = |unwinds| Arc::new(Picky { unwinds, dropped: dropped.clone() });
    let memory = [IoResource::mmio(0x1000, 4)];
    let rejected = manager.register_device(picky(false), None, &memory, &[]);
    assert_eq!(rejected, Err(RegisterError::Rejected { device: "picky".into(), code: 19 }));
    assert_eq!(dropped.load(SeqCst), 1);
    assert!(unwinds(|| manager.register_device(picky(true), None, &memory, &[])));
    assert_eq!(dropped.load(SeqCst), 2);
    let unnamed = manager.register_device(Counted::new("a/b", &dropped), None, &memory, &[]);
    assert_eq!(unnamed, Err(RegisterError::InvalidName { device: "a/b".into() }));
    assert_eq!(dropped.load(SeqCst), 3);
    assert!(manager.walk().is_empty() && manager.address_map(IoType::Mmio).is_empty());
    assert!(manager.collect().devices.is_empty());

    // Both parties are named, and the names outlive the manager.
    let id = register(&manager, Counted::new("first", &dropped), 0x1000);
    let refused = manager.register_device(Counted::new("second", &dropped), None, &memory, &[]);
    drop(manager);
    let taken = range(0x1000, 0x1003);
    let owner = Owner::Device { id, name: "first".into() };
    let refusal = RangeRefusal::Overlap { wanted: taken, taken, owner };
    assert_eq!(
        refused,
        Err(RegisterError::Range { device: "second".into(), index: 0, io_type: IoType::Mmio, refusal })
    );
}

#[test]
fn what_was_taken_is_given_back_or_registered() {
    let (manager, dropped) = (manager(), Arc::default());
    let memory = [IoResource::mmio(0x1000, 4)];
    let taken = manager.take("disk", None, &memory, &[IrqResource::Any]).unwrap();
    assert_eq!(taken.range(0).unwrap().range, range(0x1000, 0x1003));
    assert_eq!(taken.irq(0).gsi().unwrap().0, 5);
    let info = manager.walk();
    assert_eq!((info[0].name.as_str(), info[0].id, info[0].device.is_none()), ("disk", taken.id(), true));
    let busy = manager.unregister_device(taken.id()).err();
    assert_eq!(busy, Some(UnregisterError::Busy { device: "disk".into() }));
    drop(taken);
    assert!(manager.walk().is_empty());

    let taken = manager.take("disk", None, &memory, &[]).unwrap();
    let id = taken.id();
    assert_eq!(taken.register(Counted::new("disk", &dropped)), Ok(id));
    assert_eq!(read(&manager, 0x1000), Ok(7));
    manager.unregister_device(id).unwrap();
    let other = manager.take("disk", None, &memory, &[]).unwrap().register(Counted::new("net", &dropped));
    assert_eq!(other, Err(RegisterError::OtherName { device: "net".into(), taken: "disk".into() }));
    assert_eq!(dropped.load(SeqCst), 2);
    assert!(manager.walk().is_empty());
}

/// Looks at its manager, and registers another device, while it is dropped.
struct Busy(Option<OwnedManager>);

impl Device<'_> for Busy {
    fn name(&self) -> &str {
        "busy"
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(manager) = self.0.take() {
            assert!(!manager.map().contains("busy"));
            let weak = manager.downgrade();
            let next = Arc::new(Acting { manager: weak, act: |_: &OwnedManager, _: &Access<'_>| {} });
            let id = manager.register_device(next, None, &[], &[]).unwrap();
            manager.unregister_device(id).unwrap();
            assert_eq!(read(&manager, 0x1000), Err(IoError::Unclaimed));
        }
    }
}

#[test]
fn a_device_may_call_the_manager_while_it_is_dropped() {
    within_limit(|| {
        let manager = manager();
        let busy = || Arc::new(Busy(Some(manager.clone())));
        drop(manager.unregister_device(register(&manager, busy(), 0x1000)).unwrap());
        let id = register(&manager, busy(), 0x1000);
        manager.unregister_device_deferred(id).unwrap();
        drop(manager.collect());
        let id = register(&manager, busy(), 0x1000);
        drop(manager.unregister_subtree(id).unwrap());
        // By the call that refuses it.
        assert!(manager.register_device(busy(), Some(id), &[], &[]).is_err());
    });
}

#[test]
fn capacities_are_those_that_were_asked_for() {
    let build = |devices, ranges, vcpus| OwnedManager::new(Capacities { devices, ranges, vcpus }, everything());
    let refused = |field, asked, least| Some(BuildError::Capacity { field, asked, least, most: 65_534 });
    assert_eq!(build(0, 1, 1).err(), refused("devices", 0, 1));
    assert_eq!(build(65_535, 1, 1).err(), refused("devices", 65_535, 1));
    assert_eq!(build(1, 65_535, 1).err(), refused("ranges", 65_535, 0));
    assert_eq!(build(1, 1, usize::MAX).err(), refused("vcpus", usize::MAX, 0));

    // What is kept for handles is rounded up, and the capacities are not.
    let (manager, dropped) = (build(3, 5, 0).unwrap(), Arc::default());
    let device = || Counted::new("device", &dropped);
    let lines = |count| vec![IrqResource::Any; count];
    manager.register_device(device(), None, &[], &lines(3)).unwrap();
    let refused = manager.register_device(device(), None, &[], &lines(1));
    let no_line = IrqRefusal::TooManyLines { capacity: 3, owed: 0 };
    assert_eq!(refused, Err(RegisterError::Irq { device: "device".into(), index: 0, refusal: no_line }));
    let refused = manager.register_device(device(), None, &[], &[IrqResource::Unrouted; 3]);
    let no_room = IrqRefusal::TooManyInterrupts { capacity: 5 };
    assert_eq!(refused, Err(RegisterError::Irq { device: "device".into(), index: 2, refusal: no_room }));
    let ranges: Vec<_> = (0..6).map(|number| IoResource::mmio(number * 0x10, 4)).collect();
    let refused = manager.register_device(device(), None, &ranges, &[]);
    assert!(matches!(refused, Err(RegisterError::Range { index: 5, refusal: RangeRefusal::Full { capacity: 5 }, .. })));
    manager.register_device(device(), None, &ranges[..5], &[]).unwrap();
    manager.register_device(device(), None, &[], &[]).unwrap();
    let refused = manager.register_device(device(), None, &[], &[]);
    assert_eq!(refused, Err(RegisterError::TooManyDevices { device: "device".into(), capacity: 3 }));
    assert!((0..5).all(|number| read(&manager, number * 0x10) == Ok(7)));
    assert!(manager.dispatcher(0).is_err());

    // An interpreter has no time for the largest.
    let most = if cfg!(miri) { 64 } else { 65_534 };
    let largest = build(most, most, most).unwrap();
    largest.register_device(device(), None, &ranges, &lines(8)).unwrap();
    assert_eq!(read_by(&mut largest.dispatcher(0).unwrap(), 0x50), Ok(7));
}

#[derive(Default)]
struct Log(spin::Mutex<Vec<String>>);

impl RangeListener for Log {
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        self.0.lock().push(format!("{} at {}", range.device.name(), range.range));
        Ok(())
    }
    fn leaving(&self, range: &PlacedRange<'_>) {
        self.0.lock().push(format!("{} leaves {}", range.device.name(), range.range));
    }
}

impl AccessObserver for Log {
    fn observe(&self, access: &ObservedAccess<'_>) {
        let is_read = access.direction == AccessDirection::Read;
        self.0.lock().push(format!("read {is_read} {:?}", access.outcome));
    }
}

#[test]
fn a_manager_is_built_with_what_it_shares() {
    let (listener, observer) = (Arc::new(Log::default()), Arc::new(Log::default()));
    let builder = Builder::new(SMALL, everything())
        .with_listener(listener.clone())
        .with_observer(observer.clone())
        .with_open_bus(IoType::Pio, OpenBus(0x11))
        .with_open_bus(IoType::PhysicalMmio, OpenBus(0x22))
        .with_straddling(IoType::Mmio, Straddling::Split)
        .with_removal_spins(10);
    let manager = builder.build().unwrap();
    let (mut port, mut memory) = ([0; 1], [0; 1]);
    let _ = manager.read(at(0x80), &mut port, IoType::Pio);
    let _ = manager.read(at(0x80), &mut memory, IoType::Mmio);
    assert_eq!((port, memory), ([0x11], [0x22]));

    let dropped = Arc::default();
    let memory = IoResource::fixed(IoType::PhysicalMmio, at(0x8000), vm_device::GuestUsize(0x1000));
    let requests = [memory, IoResource::mmio(0x1000, 4)];
    let id = manager.register_device(Counted::new("video", &dropped), None, &requests, &[]).unwrap();
    assert_eq!(manager.read(at(0x1002), &mut [0; 4], IoType::Mmio), Err(IoError::Partial { delivered: 2 }));
    manager.relocate(&mut [Relocation::new(id, 0).to(GuestAddress(0x9000))]).unwrap();
    drop(manager);
    let placed = ["video at [0x8000, 0x8fff]", "video leaves [0x8000, 0x8fff]", "video at [0x9000, 0x9fff]"];
    let told = listener.0.lock();
    assert_eq!(
        (&told[..3], &told[3..]),
        (&placed.map(String::from)[..], &["video leaves [0x9000, 0x9fff]".into()][..])
    );
    assert_eq!(observer.0.lock().first().map(String::as_str), Some("read true Err(Unclaimed)"));
    drop(told);
    assert_eq!((Arc::strong_count(&listener), Arc::strong_count(&observer), dropped.load(SeqCst)), (1, 1, 1));

    // The spin limit is that of the builder.
    let manager = Builder::new(SMALL, everything()).with_removal_spins(10).build().unwrap();
    let acting = Acting {
        manager: manager.downgrade(),
        act: |manager: &OwnedManager, access: &Access<'_>| {
            let in_use = manager.unregister_device(access.device().unwrap()).err();
            assert_eq!(in_use, Some(UnregisterError::InUse { device: "acting".into() }));
        },
    };
    let acting = Arc::new(acting);
    register(&manager, acting.clone(), 0x1000);
    manager.write(at(0x1000), &[1], IoType::Mmio).unwrap();
    // The device is still the manager's.
    assert_eq!(Arc::strong_count(&acting), 2);
}

/// Ids and names of what was given back.
fn given<'a>(removed: impl IntoIterator<Item = &'a RemovedDevice>) -> Vec<(InstanceId, &'a str)> {
    removed.into_iter().map(|removed| (removed.id, removed.device.name())).collect()
}

#[test]
fn what_was_removed_deferred_is_given_back_by_collect_alone() {
    let (manager, dropped) = (manager(), Arc::default());
    let bus = register(&manager, Counted::new("bus", &dropped), 0x1000);
    let child = manager.register_device(Counted::new("child", &dropped), Some(bus), &[], &[]).unwrap();
    manager.unregister_device_deferred(child).unwrap();
    assert!(manager.device(child).is_some());
    // This finishes the removal.
    let other = register(&manager, Counted::new("other", &dropped), 0x2000);
    assert!(manager.device(child).is_none() && manager.device(other).is_some());
    assert_eq!(manager.unregister_device(child).err(), Some(UnregisterError::NotFound { id: child }));
    assert_eq!(given(&manager.unregister_subtree(bus).unwrap()), [(bus, "bus")]);
    assert_eq!(given(&manager.collect().devices), [(child, "child")]);
}

#[test]
fn collect_takes_nothing_of_a_removal_that_is_under_way() {
    let seen = Arc::new(Mutex::new((WeakManager::new(), Vec::new())));
    let controller = Arc::new(Collecting(seen.clone()));
    let manager = Builder::new(SMALL, everything()).with_interrupt_controller(controller).build().unwrap();
    seen.lock().0 = manager.downgrade();
    let bus = Lined::default();
    let top = manager.register_device(Arc::new(bus.clone()), None, &[], &[IrqResource::Any]).unwrap();
    let child = manager.register_device(Counted::new("child", &Arc::default()), Some(top), &[], &[]).unwrap();
    bus.line().assert().unwrap();
    assert_eq!(given(&manager.unregister_subtree(top).unwrap()), [(top, "lined"), (child, "child")]);
    assert_eq!(seen.lock().1, [0]);
}

/// Collects when a line is let go.
struct Collecting(Arc<Mutex<(WeakManager, Vec<usize>)>>);

impl InterruptController for Collecting {
    fn set_level(&self, _: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let manager = self.0.lock().0.upgrade();
        if let Some(manager) = manager.filter(|_| !asserted) {
            let collected = manager.collect().devices.len();
            self.0.lock().1.push(collected);
        }
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Ok(())
    }
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Ok(())
    }
}

/// While it is registered, it has the manager tell the listener; then it does not accept what it has.
struct Rejecting(WeakManager);

impl Device<'static> for Rejecting {
    fn name(&self) -> &str {
        "rejecting"
    }
    fn set_resources(&self, _: &Resources<'_, 'static>) -> Result<(), Rejected> {
        let manager = self.0.upgrade().unwrap();
        let waiting = IoResource::mmio(0x1000, 4).waiting();
        let waiter = manager.register_device(Counted::new("waiter", &Arc::default()), None, &[waiting], &[]).unwrap();
        manager.unregister_device_deferred(waiter).unwrap();
        Err(Rejected::new(1))
    }
}

#[test]
fn a_rejected_device_is_never_given_back() {
    let manager = manager();
    let rejecting = Arc::new(Rejecting(manager.downgrade()));
    assert!(manager.register_device(rejecting.clone(), None, &[IoResource::mmio(0x1000, 4)], &[]).is_err());
    assert_eq!(manager.collect().devices.len(), 1);
    assert_eq!(Arc::strong_count(&rejecting), 1);
}

/// A registration that another thread undoes as soon as it can.
#[test]
fn a_device_is_given_back_however_early_it_is_removed() {
    let (manager, rounds) = (manager(), if cfg!(miri) { 10 } else { 30_000 });
    let given_back = AtomicUsize::new(0);
    thread::scope(|scope| {
        let registering = scope.spawn(|| {
            for _ in 0..rounds {
                let taken = manager.take("early", None, &[], &[]).unwrap();
                let id = taken.register(Counted::new("early", &Arc::default())).unwrap();
                while manager.device(id).is_some() {
                    thread::yield_now();
                }
            }
        });
        while !registering.is_finished() {
            for info in manager.walk() {
                given_back.fetch_add(manager.unregister_device(info.id).is_ok().into(), SeqCst);
            }
        }
    });
    assert_eq!(given_back.load(SeqCst), rounds);
}

#[test]
fn ids_are_not_those_of_the_manager_before() {
    // Of a size that no other test has.
    let build = || OwnedManager::new(Capacities { devices: 300, ranges: 300, vcpus: 0 }, everything()).unwrap();
    let first = build();
    let old = register(&first, Counted::new("first", &Arc::default()), 0x1000);
    drop(first);
    let second = build();
    let new = register(&second, Counted::new("second", &Arc::default()), 0x1000);
    assert_ne!(old, new);
    assert_eq!(second.unregister_device(old).err(), Some(UnregisterError::NotFound { id: old }));
}

//! The concurrency contract: tests that hold its sentences, each under the numbers of those.

mod fixture;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use vm_device::{
    Access, Device, DispatcherError, GuestAddress, HeavyBarrier, IoError, IoRange, IoResource, IoType, RegisterError,
    Rejected, RelocateError, Relocation, Resources, UnregisterError,
};

use fixture::{Constant, Held, manager, read, read_both_ways, register, while_inside, within_limit};

/// How often what has to meet by chance is repeated.
const ROUNDS: usize = if cfg!(miri) { 5 } else { 20_000 };

const FIRST: Constant = Constant { name: "first", value: 1 };
const SECOND: Constant = Constant { name: "second", value: 2 };

/// C5.
/// KVM 7788255aba65: what has seen a registration reaches the device.
#[test]
fn every_access_after_a_registration_reaches_the_device() {
    manager!(let manager, with_removal_spins(u32::MAX));
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let (reply, replied) = mpsc::channel();
        let manager = &manager;
        scope.spawn(move || {
            let mut vcpu = manager.dispatcher(0).unwrap();
            while let Ok(present) = told.recv() {
                let expected = if present { Ok(1) } else { Err(IoError::Unclaimed) };
                let mut data = [0];
                let outcome = vcpu.read(GuestAddress(0), &mut data, IoType::Mmio).map(|()| data[0]);
                assert_eq!((outcome, read(manager, 0)), (expected, expected));
                reply.send(()).unwrap();
            }
        });
        for _ in 0..ROUNDS / 20 {
            let id = register(manager, &FIRST, 0);
            tell.send(true).unwrap();
            replied.recv().unwrap();
            manager.unregister_device(id).unwrap();
            tell.send(false).unwrap();
            replied.recv().unwrap();
        }
        drop(tell);
    });
}

/// C6.
/// Firecracker 6062 and 6092, Cloud Hypervisor 8369: no guest finds a half-registered device.
#[test]
fn no_access_reaches_a_device_before_it_knows_its_resources() {
    struct Configured {
        ready: AtomicBool,
        too_early: AtomicBool,
    }
    impl<'d> Device<'d> for Configured {
        fn name(&self) -> &str {
            "configured"
        }
        fn read(&self, _: &Access<'_>, data: &mut [u8]) {
            self.too_early.fetch_or(!self.ready.load(Ordering::SeqCst), Ordering::SeqCst);
            data.fill(1);
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
        fn set_resources(&self, _: &Resources<'_, 'd>) -> Result<(), Rejected> {
            thread::yield_now();
            self.ready.store(true, Ordering::SeqCst);
            Ok(())
        }
    }
    manager!(let manager, with_removal_spins(u32::MAX));
    let device = Configured { ready: AtomicBool::new(false), too_early: AtomicBool::new(false) };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let _ = read_both_ways(&manager, 0);
            }
        });
        for _ in 0..ROUNDS / 20 {
            let id = register(&manager, &device, 0);
            manager.unregister_device(id).unwrap();
            device.ready.store(false, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(!device.too_early.load(Ordering::SeqCst));
}

/// C7, C11, C18.
#[test]
fn a_removal_returns_when_no_callback_is_running_and_none_can_begin() {
    within_limit(|| {
        for handle in [false, true] {
            manager!(let manager, with_removal_spins(u32::MAX));
            let held = Held::new("held");
            let id = register(&manager, &held, 0);
            thread::scope(|scope| {
                let mut removal = None;
                while_inside(&manager, &held, 0, handle, || {
                    removal = Some(scope.spawn(|| {
                        manager.unregister_device(id).unwrap();
                        assert!(!held.is_inside());
                        assert_eq!(read(&manager, 0), Err(IoError::Unclaimed));
                    }));
                    thread::sleep(Duration::from_millis(20));
                    // Others have the lock while it waits.
                    let other = register(&manager, &FIRST, 0x10);
                    assert_eq!(manager.unregister_device(other), Ok(()));
                    assert!(removal.as_ref().is_some_and(|removal| !removal.is_finished()));
                });
            });
        }
    });
}

/// C7.
#[test]
fn an_access_and_a_removal_that_meet_see_each_other() {
    /// Notes calls that run while it is not registered. All orders are relaxed, so that they add no fence.
    struct Watched {
        registered: AtomicBool,
        strays: AtomicUsize,
    }
    impl Watched {
        fn look(&self) {
            if !self.registered.load(Ordering::Relaxed) {
                self.strays.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    impl Device<'_> for Watched {
        fn name(&self) -> &str {
            "watched"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {
            self.look();
            (0..10).for_each(|_| std::hint::spin_loop());
            self.look();
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }
    manager!(let manager, with_removal_spins(u32::MAX));
    let device = Watched { registered: AtomicBool::new(false), strays: AtomicUsize::new(0) };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut vcpu = manager.dispatcher(0).unwrap();
            while !done.load(Ordering::Relaxed) {
                let _ = vcpu.read(GuestAddress(0), &mut [0], IoType::Mmio);
            }
        });
        for _ in 0..ROUNDS {
            device.registered.store(true, Ordering::Relaxed);
            let id = register(&manager, &device, 0);
            thread::yield_now();
            manager.unregister_device(id).unwrap();
            device.registered.store(false, Ordering::Relaxed);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(device.strays.load(Ordering::Relaxed), 0);
}

/// C8.
/// TGOSKits 1335: ids are not used again.
#[test]
fn an_id_of_a_removed_device_is_an_error_for_good() {
    let others = ["a", "b", "c", "d", "e", "f", "g"].map(|name| Constant { name, value: 3 });
    manager!(let manager);
    let old = register(&manager, &FIRST, 0);
    manager.unregister_device(old).unwrap();
    // As often as it takes until every index has been used again.
    for _ in 0..20 {
        let id = register(&manager, &FIRST, 0);
        assert_ne!(id, old);
        manager.unregister_device(id).unwrap();
    }
    // One of them has the old one's index.
    for other in &others {
        manager.register_device(other, None, &[], &[]).unwrap();
    }
    let new = register(&manager, &SECOND, 0);
    let not_found = Err(UnregisterError::NotFound { id: old });
    assert_eq!(manager.unregister_device(old), not_found);
    assert_eq!(manager.unregister_subtree(old), not_found);
    assert_eq!(manager.unregister_device_deferred(old), not_found);
    let mut moves = [Relocation::new(old, 0).to(GuestAddress(8))];
    assert_eq!(manager.relocate(&mut moves), Err(RelocateError::NotFound { id: old }));
    let below = manager.register_device(&FIRST, Some(old), &[], &[]);
    assert_eq!(below, Err(RegisterError::NoSuchParent { device: "first", parent: old }));
    assert_eq!(read(&manager, 0), Ok(2));
    assert!(manager.device(old).is_none() && manager.range(old, 0).is_none() && manager.device(new).is_some());
}

/// C8.
#[test]
fn a_handles_hints_never_lead_to_a_removed_or_moved_device() {
    manager!(let manager, with_removal_spins(u32::MAX));
    let mut vcpu = manager.dispatcher(0).unwrap();
    let mut see = |expected: Result<u8, IoError>| {
        let mut data = [0];
        let outcome = vcpu.read(GuestAddress(0), &mut data, IoType::Mmio);
        assert_eq!((outcome, data[0]), (expected.map(drop), expected.unwrap_or(0xff)));
    };
    for _ in 0..ROUNDS.min(100) {
        // In the same slot, at the same address.
        for device in [&FIRST, &SECOND] {
            let id = register(&manager, device, 0);
            see(Ok(device.value));
            see(Ok(device.value));
            manager.relocate(&mut [Relocation::new(id, 0).to(GuestAddress(8))]).unwrap();
            see(Err(IoError::Unclaimed));
            manager.relocate(&mut [Relocation::new(id, 0).to(GuestAddress(0))]).unwrap();
            see(Ok(device.value));
            manager.unregister_device(id).unwrap();
            see(Err(IoError::Unclaimed));
        }
    }
}

/// C10.
#[test]
fn a_removal_that_waits_too_long_gives_up_and_changes_nothing() {
    for handle in [false, true] {
        manager!(let manager, with_removal_spins(1000));
        let held = Held::new("held");
        let id = register(&manager, &held, 0);
        while_inside(&manager, &held, 0, handle, || {
            assert_eq!(manager.unregister_device(id), Err(UnregisterError::InUse { device: "held" }));
            assert_eq!(manager.unregister_subtree(id), Err(UnregisterError::InUse { device: "held" }));
        });
        // It is let go by now, and still there.
        assert_eq!(read(&manager, 0), Ok(7));
        assert_eq!(manager.unregister_device(id), Ok(()));
    }
}

/// C9, C17.
#[test]
fn nothing_but_a_removal_of_the_same_device_waits_for_a_callback() {
    within_limit(|| {
        for handle in [false, true] {
            manager!(let manager, with_removal_spins(u32::MAX));
            let held = Held::new("held");
            let id = register(&manager, &held, 0);
            while_inside(&manager, &held, 0, handle, || {
                let other = register(&manager, &FIRST, 0x10);
                assert_eq!(read(&manager, 0x10), Ok(1));
                manager.relocate(&mut [Relocation::new(other, 0).to(GuestAddress(0x20))]).unwrap();
                manager.relocate(&mut [Relocation::new(id, 0).to(GuestAddress(0x10))]).unwrap();
                manager.unregister_device(other).unwrap();
                manager.reserve(IoType::Mmio, IoRange::of::<0x40, 0x4f>()).unwrap();
                assert_eq!(manager.walk().count(), 1);
                assert!(held.is_inside());
            });
            assert_eq!(held.base_at_the_end(), 0, "a running callback keeps its base");
            assert_eq!(read(&manager, 0), Err(IoError::Unclaimed));
        }
    });
}

/// C14, C15.
#[test]
fn a_deferred_removal_does_not_wait_and_frees_nothing_before_the_callbacks_have_ended() {
    within_limit(|| {
        for handle in [false, true] {
            manager!(let manager, with_removal_spins(u32::MAX));
            let held = Held::new("held");
            let id = register(&manager, &held, 0);
            while_inside(&manager, &held, 0, handle, || {
                assert_eq!(manager.unregister_device_deferred(id), Ok(()));
                assert_eq!(read(&manager, 0), Err(IoError::Unclaimed), "no access enters any more");
                assert_eq!(manager.collect(), 1);
                let below = manager.register_device(&FIRST, Some(id), &[], &[]);
                assert_eq!(below, Err(RegisterError::NoSuchParent { device: "first", parent: id }));
                let taken = manager.register_device(&FIRST, None, &[IoResource::mmio(0, 4)], &[]);
                assert!(matches!(taken, Err(RegisterError::Range { .. })));
                assert!(held.is_inside());
            });
            assert_eq!(manager.collect(), 0);
            assert!(manager.device(id).is_none());
            register(&manager, &FIRST, 0);
        }
    });
}

/// C21.
#[test]
fn there_are_as_many_handles_as_the_manager_has_room_for_and_a_dropped_one_can_be_had_again() {
    manager!(let manager, with_removal_spins(u32::MAX));
    let first = manager.dispatcher(0).unwrap();
    let _second = manager.dispatcher(0).unwrap();
    let error = manager.dispatcher(0).err().unwrap();
    assert_eq!(error, DispatcherError::Exhausted { capacity: 2 });
    assert_eq!(error.to_string(), "all 2 dispatchers are in use, as many as `VCPUS` says");
    register(&manager, &FIRST, 0);
    assert_eq!(read(&manager, 0), Ok(1), "without one it works as well");
    drop(first);
    assert!(manager.dispatcher(0).is_ok());
}

/// C22.
#[test]
fn a_removal_executes_the_heavy_barrier_once_and_nothing_else_does() {
    static EXECUTED: AtomicUsize = AtomicUsize::new(0);
    fn execute() {
        EXECUTED.fetch_add(1, Ordering::SeqCst);
    }
    // SAFETY: no other thread dispatches.
    let barrier = unsafe { HeavyBarrier::new(execute) };
    manager!(let manager, with_removal_spins(u32::MAX), with_asymmetric_fence(barrier));
    let executed = || EXECUTED.swap(0, Ordering::SeqCst);
    let id = register(&manager, &FIRST, 0);
    let mut vcpu = manager.dispatcher(0).unwrap();
    vcpu.read(GuestAddress(0), &mut [0], IoType::Mmio).unwrap();
    manager.relocate(&mut [Relocation::new(id, 0).to(GuestAddress(8))]).unwrap();
    assert_eq!(executed(), 0);
    manager.unregister_device(id).unwrap();
    assert_eq!(executed(), 1);
    let id = register(&manager, &FIRST, 0);
    manager.unregister_device_deferred(id).unwrap();
    assert_eq!((executed(), manager.collect(), executed()), (0, 0, 1), "`collect` executes it for a deferred removal");
    assert_eq!((manager.collect(), executed()), (0, 0));
    let id = register(&manager, &FIRST, 0);
    manager.register_device(&SECOND, Some(id), &[], &[]).unwrap();
    manager.unregister_subtree(id).unwrap();
    assert_eq!(executed(), 1);
}

/// C10.
#[test]
#[cfg_attr(miri, ignore = "an interpreter takes minutes for a million turns")]
fn a_removal_gives_up_though_no_patience_was_set() {
    within_limit(|| {
        manager!(let manager);
        let held = Held::new("held");
        let id = register(&manager, &held, 0);
        while_inside(&manager, &held, 0, true, || {
            assert_eq!(manager.unregister_device(id), Err(UnregisterError::InUse { device: "held" }));
        });
    });
}

//! Removals against what may come in their way: changes of the subtree, guests that hammer what is gone, and code of the
//! embedder that calls the manager or unwinds.

mod fixture;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use vm_device::{
    Access, DeviceManager, GuestAddress, HeavyBarrier, InstanceId, IoError, IoResource, IoType, UnregisterError,
};

use fixture::{
    Acting, Constant, Held, LetGo, manager, read, register, register_below, unwinds, wait_for, while_inside,
    within_limit,
};

const BUS: Constant = Constant { name: "bus", value: 1 };
const FIRST: Constant = Constant { name: "first", value: 2 };
const SECOND: Constant = Constant { name: "second", value: 3 };

/// C12.
#[test]
fn a_subtree_is_not_removed_from_within_any_of_its_callbacks() {
    within_limit(|| {
        manager!(let manager, with_removal_spins(u32::MAX));
        let (held, outcomes) = (Held::new("held"), spin::Mutex::new(Vec::new()));
        let remove = |access: &Access<'_>, _: &mut [u8]| {
            let bus = manager.find_by_path("/bus").unwrap();
            outcomes.lock().push(manager.nested(access).unregister_subtree(bus));
        };
        let outside = Acting { name: "outside", act: &remove };
        let remove_from_outside = |access: &Access<'_>, _: &mut [u8]| {
            remove(access, &mut []);
            manager.nested(access).read(GuestAddress(0x40), &mut [0], IoType::Mmio).unwrap();
        };
        let last = Acting { name: "last", act: &remove_from_outside };
        let bus = register(&manager, &BUS, 0);
        register_below(&manager, bus, &held, 0x10);
        let first = register_below(&manager, bus, &FIRST, 0x20);
        register_below(&manager, first, &last, 0x30);
        register(&manager, &outside, 0x40);
        thread::scope(|scope| {
            // A callback runs in a device that the walk reaches first, and the removal does not wait for it.
            scope.spawn(|| read(&manager, 0x10));
            wait_for(&held.inside);
            read(&manager, 0x30).unwrap();
            let own = Err(UnregisterError::InOwnCallback { device: "last" });
            assert_eq!(*outcomes.lock(), [own, own]);
            assert_eq!(manager.walk().count(), 5);
            held.let_go();
        });
    });
}

/// Removes a bus with "first" and `held` on it from another thread, and runs `change` while that waits for `held`.
fn a_subtree_that_changes<'d>(
    manager: &'d DeviceManager<'d>,
    held: &'d Held,
    next: &'d Held,
    change: impl FnOnce(InstanceId, InstanceId) + Send,
) -> Result<(), UnregisterError<&'d str>> {
    let bus = register(manager, &BUS, 0);
    let first = register_below(manager, bus, &FIRST, 0x10);
    register_below(manager, bus, held, 0x20);
    thread::scope(|scope| {
        scope.spawn(|| read(manager, 0x20));
        wait_for(&held.inside);
        let removal = scope.spawn(move || {
            loop {
                match manager.unregister_subtree(bus) {
                    // It has met the removal of "first".
                    Err(UnregisterError::Busy { .. }) => thread::yield_now(),
                    outcome => return outcome,
                }
            }
        });
        thread::sleep(Duration::from_millis(20));
        change(bus, first);
        scope.spawn(|| read(manager, 0x30));
        wait_for(&next.inside);
        held.let_go();
        let outcome = removal.join().unwrap();
        next.let_go();
        outcome
    })
}

/// C10.
#[test]
fn a_subtree_is_waited_for_whole_with_one_patience_though_a_device_of_it_is_removed_meanwhile() {
    within_limit(|| {
        manager!(let manager, with_removal_spins(if cfg!(miri) { 1000 } else { 4_000_000 }));
        let (held, next) = (Held::new("held"), Held::new("next"));
        let outcome = a_subtree_that_changes(&manager, &held, &next, |bus, first| {
            register_below(&manager, bus, &next, 0x30);
            manager.unregister_device(first).unwrap();
        });
        assert!(matches!(outcome, Err(UnregisterError::InUse { device: "held" | "next" })), "{outcome:?}");
        assert_eq!((manager.walk().count(), read(&manager, 0)), (3, Ok(1)), "nothing has changed");
        assert_eq!(manager.unregister_subtree(manager.find_by_path("/bus").unwrap()), Ok(()));
    });
}

/// C10.
#[test]
fn a_device_registered_below_one_that_was_waited_for_is_waited_for_too() {
    within_limit(|| {
        manager!(let manager, with_removal_spins(if cfg!(miri) { 1000 } else { 4_000_000 }));
        let (held, next) = (Held::new("held"), Held::new("next"));
        let outcome = a_subtree_that_changes(&manager, &held, &next, |_, first| {
            register_below(&manager, first, &next, 0x30);
        });
        assert!(matches!(outcome, Err(UnregisterError::InUse { device: "held" | "next" })), "{outcome:?}");
        assert_eq!((manager.walk().count(), read(&manager, 0)), (4, Ok(1)), "nothing has changed");
        assert_eq!(manager.unregister_subtree(manager.find_by_path("/bus").unwrap()), Ok(()));
    });
}

/// C13.
#[test]
fn vcpus_that_hammer_an_address_delay_no_removal_once_nothing_is_there() {
    // More than there are processors: a protection stands for as long as its thread does not run.
    const VCPUS: usize = if cfg!(miri) { 2 } else { 32 };
    within_limit(|| {
        manager!(let manager: <4, 4, VCPUS>);
        for moves in [false, true] {
            let [started, hammering] = [0; 2].map(AtomicUsize::new);
            let [go, stop] = [false; 2].map(AtomicBool::new);
            let requests = [IoResource::mmio(0x1000, 4)];
            let id = manager.register_device(&FIRST, None, &requests, &[]).unwrap();
            thread::scope(|scope| {
                for _ in 0..VCPUS {
                    scope.spawn(|| {
                        let mut vcpu = manager.dispatcher(0).unwrap();
                        // It learns the hint.
                        vcpu.read(GuestAddress(0x1000), &mut [0], IoType::Mmio).unwrap();
                        started.fetch_add(1, SeqCst);
                        wait_for(&go);
                        hammering.fetch_add(1, SeqCst);
                        while !stop.load(SeqCst) {
                            let _ = vcpu.read(GuestAddress(0x1000), &mut [0], IoType::Mmio);
                        }
                    });
                }
                while started.load(SeqCst) < VCPUS {
                    thread::yield_now();
                }
                if moves {
                    let away = vm_device::Relocation::new(id, 0).to(GuestAddress(0x2000));
                    manager.relocate(&mut [away]).unwrap();
                }
                manager.unregister_device_deferred(id).unwrap();
                go.store(true, SeqCst);
                while hammering.load(SeqCst) < VCPUS {
                    thread::yield_now();
                }
                // Each hint has led nowhere once by now, or will: no more than that.
                while manager.collect() != 0 {
                    thread::yield_now();
                }
                assert!(manager.device(id).is_none());
                stop.store(true, SeqCst);
            });
        }
    });
}

/// The heavy barrier of this manager looks a device up: it would wait for itself if the writers' lock were held.
mod looks_up {
    use super::*;

    static EXECUTED: AtomicUsize = AtomicUsize::new(0);
    manager!(static MANAGER, with_asymmetric_fence(
        // SAFETY: no other thread dispatches.
        unsafe {
            HeavyBarrier::new(|| {
                assert!(MANAGER.find_by_path("/bus").is_ok());
                EXECUTED.fetch_add(1, SeqCst);
            })
        },
    ));

    /// C2, C22.
    #[test]
    fn the_heavy_barrier_runs_without_the_lock_that_writers_hold() {
        within_limit(|| {
            let bus = register(&MANAGER, &BUS, 0);
            let add = || register_below(&MANAGER, bus, &FIRST, 0x10);
            MANAGER.unregister_device(add()).unwrap();
            assert_eq!(EXECUTED.swap(0, SeqCst), 1);
            MANAGER.unregister_device_deferred(add()).unwrap();
            assert_eq!((MANAGER.collect(), EXECUTED.swap(0, SeqCst)), (0, 1));
            MANAGER.unregister_device_deferred(add()).unwrap();
            // A registration collects, and the place of the old device is free for the new one.
            MANAGER.unregister_device(add()).unwrap();
            assert_eq!(EXECUTED.swap(0, SeqCst), 2);
            add();
            MANAGER.unregister_subtree(bus).unwrap();
            assert_eq!(EXECUTED.swap(0, SeqCst), 1);
        });
    }
}

/// The heavy barrier of this manager unwinds as long as it is told to.
mod unwinding {
    use super::*;

    static FAILS: AtomicBool = AtomicBool::new(true);
    static RETURNED: AtomicUsize = AtomicUsize::new(0);
    manager!(static MANAGER, with_asymmetric_fence(
        // SAFETY: no other thread dispatches.
        unsafe {
            HeavyBarrier::new(|| {
                assert!(!FAILS.load(SeqCst), "the barrier could not be executed");
                RETURNED.fetch_add(1, SeqCst);
            })
        },
    ));

    /// C22, C27.
    #[test]
    fn a_heavy_barrier_that_unwinds_has_not_happened_and_collect_executes_it() {
        let remove: [fn(InstanceId) -> bool; 3] = [
            |id| unwinds(|| MANAGER.unregister_device(id)),
            |id| unwinds(|| MANAGER.unregister_subtree(id)),
            // It executes no barrier itself.
            |id| MANAGER.unregister_device_deferred(id).is_ok(),
        ];
        for (remove, subtree) in remove.into_iter().zip([false, true, false]) {
            let id = register(&MANAGER, &BUS, 0);
            if subtree {
                register_below(&MANAGER, id, &FIRST, 0x10);
            }
            FAILS.store(true, SeqCst);
            assert!(remove(id));
            // Unreachable, and nothing of it free, as long as the barrier does not return.
            assert!(unwinds(|| MANAGER.collect()) && unwinds(|| register(&MANAGER, &SECOND, 0)));
            assert_eq!((read(&MANAGER, 0), MANAGER.device(id).is_some()), (Err(IoError::Unclaimed), true));
            assert_eq!(MANAGER.unregister_subtree(id), Err(UnregisterError::Busy { device: "bus" }));
            assert_eq!(RETURNED.load(SeqCst), 0);
            FAILS.store(false, SeqCst);
            assert_eq!((MANAGER.collect(), RETURNED.swap(0, SeqCst)), (0, 1));
            assert_eq!(MANAGER.walk().count(), 0);
        }
    }
}

/// C22.
#[test]
fn several_deferred_removals_share_one_barrier_and_what_comes_meanwhile_has_its_own() {
    static EXECUTED: AtomicUsize = AtomicUsize::new(0);
    static DEVICES: [Constant; 3] = [BUS, FIRST, SECOND];
    manager!(static MANAGER, with_asymmetric_fence(
        // SAFETY: no other thread dispatches.
        unsafe {
            HeavyBarrier::new(|| {
                if EXECUTED.fetch_add(1, SeqCst) == 0 {
                    // This removal comes after the barrier has begun.
                    let late = MANAGER.find_by_path("/second").unwrap();
                    MANAGER.unregister_device_deferred(late).unwrap();
                    assert_eq!(MANAGER.collect(), 3, "the barrier of the first two has not returned");
                }
            })
        },
    ));
    within_limit(|| {
        let ids: Vec<_> =
            DEVICES.iter().zip([0, 8, 16]).map(|(device, base)| register(&MANAGER, device, base)).collect();
        MANAGER.unregister_device_deferred(ids[0]).unwrap();
        MANAGER.unregister_device_deferred(ids[1]).unwrap();
        assert_eq!(MANAGER.collect(), 1, "the third has not been fenced");
        assert_eq!(EXECUTED.load(SeqCst), 1);
        assert_eq!((MANAGER.collect(), EXECUTED.load(SeqCst)), (0, 2));
    });
}

/// C10, C15.
#[test]
fn a_removal_looks_for_callbacks_in_every_range() {
    within_limit(|| {
        for address in [0, 8, 0x10] {
            manager!(let manager, with_removal_spins(1000));
            let held = Held::new("held");
            let requests = [0, 8, 0x10].map(|base| IoResource::mmio(base, 4));
            let id = manager.register_device(&held, None, &requests, &[]).unwrap();
            while_inside(&manager, &held, address, false, || {
                assert_eq!(manager.unregister_device(id), Err(UnregisterError::InUse { device: "held" }));
                manager.unregister_device_deferred(id).unwrap();
                assert_eq!(manager.collect(), 1, "a callback is running in the range at {address:#x}");
            });
            assert_eq!(manager.collect(), 0);
            // Every slot is vacant again.
            manager.register_device(&FIRST, None, &requests, &[]).unwrap();
            assert_eq!([0, 8, 0x10].map(|address| read(&manager, address)), [Ok(2); 3]);
        }
    });
}

/// C10.
#[test]
fn a_subtree_is_looked_at_whole() {
    within_limit(|| {
        for inside in 0..3 {
            manager!(let manager, with_removal_spins(1000));
            let devices = ["bus", "child", "grandchild"].map(Held::new);
            let bus = register(&manager, &devices[0], 0);
            let child = register_below(&manager, bus, &devices[1], 8);
            register_below(&manager, child, &devices[2], 0x10);
            let held = &devices[inside];
            while_inside(&manager, held, 8 * inside as u64, false, || {
                assert_eq!(manager.unregister_subtree(bus), Err(UnregisterError::InUse { device: held.name }));
                assert_eq!(manager.walk().count(), 3, "nothing has changed");
            });
            assert_eq!(read(&manager, 8 * inside as u64), Ok(7));
            assert_eq!(manager.unregister_subtree(bus), Ok(()));
        }
    });
}

/// C9.
#[test]
fn a_removal_waits_for_a_callback_that_another_managers_callback_made() {
    within_limit(|| {
        manager!(let outer);
        manager!(let inner, with_removal_spins(1000));
        let held = Held::new("held");
        let id = register(&inner, &held, 0);
        let act = |access: &Access<'_>, _: &mut [u8]| {
            let mut data = [0];
            assert_eq!(inner.nested(access).read(GuestAddress(0), &mut data, IoType::Mmio), Ok(()));
            assert_eq!(data, [7]);
        };
        let bridge = Acting { name: "bridge", act: &act };
        register(&outer, &bridge, 0);
        thread::scope(|scope| {
            scope.spawn(|| outer.dispatcher(0).unwrap().read(GuestAddress(0), &mut [0], IoType::Mmio).unwrap());
            wait_for(&held.inside);
            let _let_go = LetGo(&held);
            assert_eq!(inner.unregister_device(id), Err(UnregisterError::InUse { device: "held" }));
            inner.unregister_device_deferred(id).unwrap();
            assert_eq!(inner.collect(), 1);
        });
        assert_eq!(inner.collect(), 0);
    });
}

/// C12.
/// Devices of two managers have the same place in each.
#[test]
fn a_callback_removes_another_managers_device_through_nested() {
    manager!(let own);
    manager!(let other);
    let id = register(&other, &FIRST, 0);
    let outcome = spin::Mutex::new(None);
    let act = |access: &Access<'_>, _: &mut [u8]| *outcome.lock() = Some(other.nested(access).unregister_device(id));
    let acting = Acting { name: "acting", act: &act };
    register(&own, &acting, 0);
    read(&own, 0).unwrap();
    assert_eq!(*outcome.lock(), Some(Ok(())));
}

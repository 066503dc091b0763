//! Resets of all devices: their order, what they wait for, and what waits for them.

mod fixture;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use fixture::{
    Acting, Constant, Held, LetGo, Observed, manager, observe, read, register, register_below, try_register, unwinds,
    wait_for, while_inside, within_limit,
};
use spin::Mutex;
use vm_device::{Access, Device, DeviceManager, InstanceId, ResetError, UnregisterError};

const OTHER: Constant = Constant { name: "other", value: 1 };

/// Does anything when it is reset.
struct Resetting<'d> {
    name: &'static str,
    act: &'d (dyn Fn() + Sync + 'd),
}

impl Device<'_> for Resetting<'_> {
    fn name(&self) -> &str {
        self.name
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
    fn reset(&self) {
        (self.act)();
    }
}

/// The names of devices in the order of their resets.
#[derive(Default)]
struct Order(Mutex<Vec<&'static str>>);

impl Order {
    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Notes its reset, and does what it is told to.
struct Noted<'d> {
    name: &'static str,
    order: &'d Order,
    act: &'d (dyn Fn() + Sync + 'd),
}

impl<'d> Noted<'d> {
    fn new(name: &'static str, order: &'d Order) -> Self {
        Self { name, order, act: &|| {} }
    }
}

impl Device<'_> for Noted<'_> {
    fn name(&self) -> &str {
        self.name
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
    fn reset(&self) {
        self.order.0.lock().push(self.name);
        (self.act)();
    }
}

/// C33.
#[test]
fn each_device_is_reset_once_a_bus_before_what_is_on_it_and_siblings_in_their_order() {
    manager!(let manager);
    let order = Order::default();
    let [bus, first, inner, leaf, second, last, gone] =
        ["bus", "first", "inner", "leaf", "second", "last", "gone"].map(|name| Noted::new(name, &order));
    let gone = register(&manager, &gone, 0x60);
    let bus = register(&manager, &bus, 0);
    register(&manager, &last, 0x50);
    register_below(&manager, bus, &first, 0x10);
    let inner = register_below(&manager, bus, &inner, 0x20);
    register_below(&manager, bus, &second, 0x40);
    // Its index is that of the device that was removed.
    manager.unregister_device(gone).unwrap();
    register_below(&manager, inner, &leaf, 0x30);
    let before: Observed<'_> = observe(&manager, &[]);
    for _ in 0..2 {
        assert_eq!(manager.reset(), Ok(()));
        assert_eq!(order.take(), ["bus", "first", "inner", "leaf", "second", "last"]);
    }
    assert_eq!(observe(&manager, &[]), before);
    manager.unregister_device_deferred(inner).unwrap_err();
    manager.unregister_subtree(bus).unwrap();
    assert_eq!((manager.reset(), order.take()), (Ok(()), vec!["last"]));
}

#[test]
fn what_is_not_registered_is_not_reset() {
    manager!(let manager);
    assert_eq!(manager.reset(), Ok(()), "there is no device");
    let order = Order::default();
    let [leaving, plain] = ["leaving", "plain"].map(|name| Noted::new(name, &order));
    let taken = manager.take("taken", None, &[], &[]).unwrap();
    let leaving = register(&manager, &leaving, 0);
    register(&manager, &plain, 0x10);
    manager.unregister_device_deferred(leaving).unwrap();
    assert_eq!((manager.reset(), order.take()), (Ok(()), vec!["plain"]));
    drop(taken);
    manager!(let [first, second]);
    register(&first, &OTHER, 0);
    assert_eq!(second.reset(), Ok(()), "the storage is the other manager's");
}

/// C33.
#[test]
fn from_within_a_callback_nothing_is_reset() {
    manager!(let manager, with_removal_spins(1000));
    let order = Order::default();
    let outcomes = Mutex::new(Vec::new());
    let plainly = |_: &Access<'_>, _: &mut [u8]| outcomes.lock().push(manager.reset());
    let nested = |access: &Access<'_>, data: &mut [u8]| {
        outcomes.lock().push(manager.nested(access).reset());
        // One level deeper, it is in a callback of both.
        manager.nested(access).read(fixture::at(0x20), data, vm_device::IoType::Mmio).unwrap();
    };
    let devices = [Acting { name: "plainly", act: &plainly }, Acting { name: "nested", act: &nested }];
    let innermost = |access: &Access<'_>, _: &mut [u8]| outcomes.lock().push(manager.nested(access).reset());
    let innermost = Acting { name: "innermost", act: &innermost };
    let noted = Noted::new("noted", &order);
    register(&manager, &noted, 0x30);
    for (device, address) in devices.iter().zip([0, 0x10]) {
        register(&manager, device, address);
    }
    register(&manager, &innermost, 0x20);
    for by_handle in [false, true] {
        let outcome_of = |address| {
            match by_handle {
                false => read(&manager, address),
                true => read(manager.dispatcher(0).unwrap(), address),
            }
            .unwrap();
            std::mem::take(&mut *outcomes.lock())
        };
        assert_eq!(outcome_of(0), [Err(ResetError::InUse { device: "plainly" })]);
        let own = |device| Err(ResetError::InOwnCallback { device });
        assert_eq!(outcome_of(0x10), [own("nested"), own("innermost")]);
    }
    assert_eq!(order.take(), [""; 0]);
    assert_eq!((manager.reset(), order.take()), (Ok(()), vec!["noted"]));
    let words = "a callback of \"x\" has not ended; was the reset called from within it?";
    assert_eq!(ResetError::InUse { device: "x" }.to_string(), words);
    let words = "from within a callback of \"x\" nothing is reset: a `PowerControl` resets when it has ended";
    assert_eq!(ResetError::InOwnCallback { device: "x" }.to_string(), words);
    assert_eq!(ResetError::<&str>::UnderWay.to_string(), "another reset is under way");
}

#[test]
fn a_callback_resets_the_devices_of_another_manager_through_nested() {
    let order = Order::default();
    manager!(let other, with_removal_spins(1000));
    manager!(let manager, with_removal_spins(1000));
    let noted = Noted::new("noted", &order);
    register(&other, &noted, 0);
    let outcome = Mutex::new(None);
    let act = |access: &Access<'_>, _: &mut [u8]| *outcome.lock() = Some(other.nested(access).reset());
    let acting = Acting { name: "acting", act: &act };
    register(&manager, &acting, 0);
    read(&manager, 0).unwrap();
    assert_eq!((*outcome.lock(), order.take()), (Some(Ok(())), vec!["noted"]));
}

/// C33.
#[test]
fn a_reset_waits_for_a_callback_that_is_running_in_any_device() {
    within_limit(|| {
        let order = Order::default();
        for by_handle in [false, true] {
            let (held, noted) = (Held::new("held"), Noted::new("noted", &order));
            manager!(let manager, with_removal_spins(1000));
            register(&manager, &noted, 0x10);
            let bus = try_register(&manager, &OTHER, &[]).unwrap();
            let id = register_below(&manager, bus, &held, 0);
            while_inside(&manager, &held, 0, by_handle, || {
                for _ in 0..2 {
                    assert_eq!(manager.reset(), Err(ResetError::InUse { device: "held" }));
                }
                // No access reaches it any more, but it is still at work.
                manager.unregister_device_deferred(id).unwrap();
                assert_eq!(manager.reset(), Err(ResetError::InUse { device: "held" }));
                assert_eq!(order.take(), [""; 0]);
            });
            assert_eq!((manager.reset(), order.take()), (Ok(()), vec!["noted"]));

            // With patience it succeeds.
            let held = Held::new("held");
            manager!(let manager, with_removal_spins(u32::MAX));
            register(&manager, &held, 0);
            register(&manager, &noted, 0x10);
            let has_begun = AtomicBool::new(false);
            while_inside(&manager, &held, 0, by_handle, || {
                thread::scope(|scope| {
                    let reset = scope.spawn(|| {
                        has_begun.store(true, SeqCst);
                        let outcome = manager.reset();
                        assert!(!held.is_inside());
                        outcome
                    });
                    wait_for(&has_begun);
                    thread::yield_now();
                    assert_eq!(order.take(), [""; 0]);
                    held.let_go();
                    assert_eq!(reset.join().unwrap(), Ok(()));
                });
            });
            assert_eq!(order.take(), ["noted"]);
        }
    });
}

/// C33.
#[test]
fn there_is_one_reset_at_a_time() {
    within_limit(|| {
        manager!(let manager, with_removal_spins(1000));
        let outcomes = Mutex::new(Vec::new());
        let (inside, let_go) = (Barrier::new(2), Barrier::new(2));
        let again = || {
            outcomes.lock().push(manager.reset());
            inside.wait();
            let_go.wait();
        };
        let device = Resetting { name: "again", act: &again };
        register(&manager, &device, 0);
        thread::scope(|scope| {
            let reset = scope.spawn(|| manager.reset());
            inside.wait();
            assert_eq!(manager.reset(), Err(ResetError::UnderWay));
            let_go.wait();
            assert_eq!(reset.join().unwrap(), Ok(()));
        });
        assert_eq!(*outcomes.lock(), [Err(ResetError::UnderWay)]);
        // It has ended, and the next one can begin.
        thread::scope(|scope| {
            let reset = scope.spawn(|| manager.reset());
            inside.wait();
            let_go.wait();
            assert_eq!(reset.join().unwrap(), Ok(()));
        });
    });
}

/// C34.
#[test]
fn a_removal_waits_for_a_reset_of_the_device_and_for_no_other() {
    within_limit(|| {
        manager!(let manager, with_removal_spins(1000));
        let held = Held::new("held");
        let hold =
            || Device::read(&held, &Access::new(vm_device::IoType::Mmio, fixture::at(0), fixture::at(0), 0), &mut [0]);
        let device = Resetting { name: "held", act: &hold };
        let bus = register(&manager, &OTHER, 0);
        let id = register_below(&manager, bus, &device, 0x10);
        let other = register(&manager, &OTHER, 0x20);
        thread::scope(|scope| {
            let reset = scope.spawn(|| manager.reset());
            wait_for(&held.inside);
            let _let_go = LetGo(&held);
            let in_use = Err(UnregisterError::InUse { device: "held" });
            assert_eq!((manager.unregister_device(id), manager.unregister_subtree(bus)), (in_use, in_use));
            assert_eq!(manager.unregister_device(other), Ok(()));
            assert!(read(&manager, 0x10).is_ok(), "the device is still there");
            held.let_go();
            assert_eq!(reset.join().unwrap(), Ok(()));
        });
        assert_eq!(manager.unregister_subtree(bus), Ok(()));
    });
}

/// C34.
#[test]
fn a_deferred_removal_is_finished_after_the_reset_of_the_device() {
    manager!(let manager, with_removal_spins(1000));
    let order = Order::default();
    let remove = || {
        let own = manager.find_by_path("/leaving").unwrap();
        assert_eq!(manager.unregister_device(own), Err(UnregisterError::InUse { device: "leaving" }));
        assert_eq!(manager.unregister_device_deferred(own), Ok(()));
        assert_eq!(manager.collect(), 1, "the call of the device is under way");
        assert_eq!(manager.walk().count(), 3);
    };
    let [first, last] = ["first", "last"].map(|name| Noted::new(name, &order));
    let leaving = Noted { act: &remove, ..Noted::new("leaving", &order) };
    for (device, address) in [&first, &leaving, &last].into_iter().zip([0, 0x10, 0x20]) {
        register(&manager, device, address);
    }
    assert_eq!((manager.reset(), order.take()), (Ok(()), vec!["first", "leaving", "last"]));
    assert_eq!((manager.collect(), manager.walk().count()), (0, 2));
}

#[test]
fn devices_that_come_and_go_during_a_reset_do_not_disturb_it() {
    manager!(let manager, with_removal_spins(1000));
    let order = Order::default();
    let rounds = AtomicUsize::new(0);
    let new = Noted::new("new", &order);
    let change = || {
        // What is behind it goes, and so does what is before it.
        for path in ["/behind", "/bus/before"] {
            manager.unregister_subtree(manager.find_by_path(path).unwrap()).unwrap();
        }
        let bus = manager.find_by_path("/bus").unwrap();
        assert_eq!(manager.unregister_subtree(bus), Err(UnregisterError::InUse { device: "changing" }));
        register(&manager, &new, 0x100);
        register_below(&manager, bus, &new, 0x110);
        rounds.fetch_add(1, SeqCst);
    };
    let [bus, before, behind, below, last] =
        ["bus", "before", "behind", "below", "last"].map(|name| Noted::new(name, &order));
    let changing = Noted { act: &change, ..Noted::new("changing", &order) };
    let bus = register(&manager, &bus, 0);
    register_below(&manager, bus, &before, 0x10);
    register_below(&manager, bus, &changing, 0x20);
    let behind = register(&manager, &behind, 0x30);
    register_below(&manager, behind, &below, 0x40);
    register(&manager, &last, 0x50);
    assert_eq!((manager.reset(), order.take()), (Ok(()), vec!["bus", "before", "changing", "last"]));
    assert_eq!(rounds.load(SeqCst), 1);
}

/// C27, C33.
#[test]
fn a_device_that_unwinds_ends_the_reset_and_leaves_nothing_stuck() {
    manager!(let manager, with_removal_spins(1000));
    let order = Order::default();
    let defect = AtomicBool::new(true);
    let panics = || assert!(!defect.load(SeqCst), "a defect of the device");
    let [first, last] = ["first", "last"].map(|name| Noted::new(name, &order));
    let panicking = Noted { act: &panics, ..Noted::new("panicking", &order) };
    register(&manager, &first, 0);
    let id = register(&manager, &panicking, 0x10);
    register(&manager, &last, 0x20);
    assert!(unwinds(|| manager.reset()));
    assert_eq!(order.take(), ["first", "panicking"]);
    defect.store(false, SeqCst);
    assert_eq!((manager.reset(), order.take()), (Ok(()), vec!["first", "panicking", "last"]));
    defect.store(true, SeqCst);
    assert!(unwinds(|| manager.reset()));
    assert_eq!(manager.unregister_device(id), Ok(()));
    order.take();
    assert_eq!((manager.reset(), order.take()), (Ok(()), vec!["first", "last"]));
}

/// Removes, registers and accesses a device again and again until the other threads have ended.
fn churn<'d>(manager: &'d DeviceManager<'d>, device: &'d dyn Device<'d>, bus: InstanceId, ended: &AtomicUsize) {
    while ended.load(SeqCst) < 2 {
        let id = register_below(manager, bus, device, 0x10);
        let _ = read(manager, 0x10);
        while manager.unregister_device(id).is_err() {}
    }
}

#[test]
fn resets_on_two_threads_and_a_device_that_comes_and_goes() {
    const RESETS: usize = if cfg!(miri) { 5 } else { 2000 };
    within_limit(|| {
        manager!(let manager: <4, 4, 2>);
        let (inside, calls, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let alone = || {
            assert_eq!(inside.fetch_add(1, SeqCst), 0, "two resets of a device at once");
            calls.fetch_add(1, SeqCst);
            inside.fetch_sub(1, SeqCst);
        };
        let [bus, coming, last] = ["bus", "coming", "last"].map(|name| Resetting { name, act: &alone });
        let bus = register(&manager, &bus, 0);
        register(&manager, &last, 0x20);
        thread::scope(|scope| {
            scope.spawn(|| churn(&manager, &coming, bus, &ended));
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..RESETS {
                        while let Err(error) = manager.reset() {
                            assert_eq!(error, ResetError::UnderWay);
                        }
                    }
                    ended.fetch_add(1, SeqCst);
                });
            }
        });
        assert!(calls.load(SeqCst) >= 2 * 2 * RESETS, "two devices stay");
        assert_eq!(manager.unregister_subtree(bus), Ok(()));
    });
}

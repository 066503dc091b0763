//! Devices are told the time.

mod fixture;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use spin::Mutex;
use vm_device::{Device, DeviceManager, InstanceId};

use fixture::{Constant, manager, read, register, register_below, unwinds, wait_for, within_limit};

/// Keeps what it is told, does what a test wants, and asks to be told again after so many nanoseconds.
struct Timed<'t> {
    name: &'static str,
    period: Option<u64>,
    told: &'t Mutex<Vec<(&'static str, u64)>>,
    act: &'t (dyn Fn() + Sync),
}

impl Device<'_> for Timed<'_> {
    fn name(&self) -> &str {
        self.name
    }
    fn tick(&self, now: u64) -> Option<u64> {
        self.told.lock().push((self.name, now));
        (self.act)();
        self.period.map(|period| now.saturating_add(period))
    }
}

fn nothing() {}

/// C43.
#[test]
fn each_device_is_told_once_and_the_earliest_time_is_returned() {
    manager!(let manager);
    assert_eq!(manager.tick(0), None);
    let told = Mutex::default();
    let timed = |name, period| Timed { name, period, told: &told, act: &nothing };
    let (bus, slow, fast, none) =
        (timed("bus", None), timed("slow", Some(100)), timed("fast", Some(7)), timed("none", None));
    let id = register(&manager, &bus, 0);
    register(&manager, &none, 0x10);
    assert_eq!(manager.tick(1), None);
    register_below(&manager, id, &slow, 0x20);
    assert_eq!(manager.tick(2), Some(102));
    let fast = register_below(&manager, id, &fast, 0x30);
    told.lock().clear();
    assert_eq!(manager.tick(3), Some(10));
    assert_eq!(*told.lock(), ["bus", "slow", "fast", "none"].map(|name| (name, 3)));
    manager.unregister_device(fast).unwrap();
    assert_eq!((manager.tick(u64::MAX), manager.tick(4)), (Some(u64::MAX), Some(104)));
    // A device that is taken, or removed, is not told.
    let taken = manager.take("taken", None, &[], &[]).unwrap();
    manager.unregister_subtree(id).unwrap();
    told.lock().clear();
    assert_eq!((manager.tick(5), told.lock().clone()), (None, vec![("none", 5)]));
    drop(taken);
}

/// A device that removes the one behind it, registers another, and removes itself when its call has ended.
#[test]
fn devices_come_and_go_while_others_are_told() {
    manager!(let manager);
    let told = Mutex::default();
    let ids = Mutex::new(Vec::<InstanceId>::new());
    let new = Constant { name: "new", value: 1 };
    let change = || {
        let ids = ids.lock();
        manager.unregister_device(ids[1]).unwrap();
        manager.unregister_device_deferred(ids[0]).unwrap();
        // The call of the first one has not ended.
        assert_eq!(manager.collect(), 1);
        register(&manager, &new, 0x40);
    };
    let changing = Timed { name: "changing", period: Some(1), told: &told, act: &change };
    let [gone, last] = ["gone", "last"].map(|name| Timed { name, period: Some(5), told: &told, act: &nothing });
    let registered =
        [register(&manager, &changing, 0), register(&manager, &gone, 0x10), register(&manager, &last, 0x20)];
    ids.lock().extend(registered);
    assert_eq!(manager.tick(1), Some(2));
    assert_eq!(*told.lock(), [("changing", 1), ("last", 1)]);
    assert_eq!(manager.collect(), 0);
    assert_eq!(manager.walk().map(|info| info.name).collect::<Vec<_>>(), ["last", "new"]);
}

/// C43.
#[test]
fn a_removal_waits_for_the_call_and_no_access_does() {
    within_limit(|| {
        manager!(let manager, with_removal_spins(u32::MAX));
        let (told, inside, let_go) = (Mutex::default(), AtomicBool::new(false), AtomicBool::new(false));
        let stand = || {
            inside.store(true, SeqCst);
            wait_for(&let_go);
        };
        let (standing, plain) =
            (Timed { name: "standing", period: None, told: &told, act: &stand }, Constant { name: "plain", value: 3 });
        let id = register(&manager, &standing, 0);
        register(&manager, &plain, 0x10);
        let manager: &DeviceManager<'_> = &manager;
        thread::scope(|scope| {
            scope.spawn(|| manager.tick(1));
            wait_for(&inside);
            assert_eq!(read(manager, 0x10), Ok(3));
            let removal = scope.spawn(|| manager.unregister_device(id));
            assert!(!removal.is_finished());
            let_go.store(true, SeqCst);
            removal.join().unwrap().unwrap();
        });
    });
}

#[test]
fn a_device_that_unwinds_leaves_nothing_stuck() {
    manager!(let manager);
    let (told, unwind) = (Mutex::default(), || panic!("as it was told"));
    let device = Timed { name: "unwinding", period: None, told: &told, act: &unwind };
    let id = register(&manager, &device, 0);
    assert!(unwinds(|| manager.tick(1)) && unwinds(|| manager.tick(2)));
    assert_eq!(told.lock().len(), 2);
    manager.unregister_device(id).unwrap();
    assert_eq!(manager.tick(3), None);
}

//! The end of a manager.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use spin::Mutex;
use vm_device::owned::{Builder, OwnedDispatcher, OwnedManager, WeakManager};
use vm_device::{
    Access, Device, Gsi, GuestAddress, GuestUsize, HeavyBarrier, InterruptController, InterruptError, IoError,
    IoResource, IoType, PlacedRange, RangeListener, Rejected,
};

use super::fixture::{at, everything, read, unwinds, wait_for, within_limit};
use super::{Acting, Counted, SMALL, SetAtEnd, Slow, manager, read_by, register, register_lined};

/// C40.
#[test]
fn the_end_waits_for_nobody_and_the_next_dispatcher_drops_the_rest() {
    within_limit(|| {
        let (manager, dropped) = (manager(), Arc::<AtomicUsize>::default());
        let slow = Arc::new(Slow::default());
        register(&manager, slow.clone(), 0x1000);
        register(&manager, Counted::new("idle", &dropped), 0x2000);
        let (mut first, mut second) = (manager.dispatcher(0).unwrap(), manager.dispatcher(1).unwrap());
        assert_eq!(read_by(&mut second, 0x2000), Ok(7));
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let outcome = read_by(&mut first, 0x1000);
                (first, outcome)
            });
            wait_for(&slow.inside);
            let _let_go = SetAtEnd(&slow.let_go, true);
            drop(manager);
            // No access reaches a device any more, by a hint or a search. The idle one is dropped.
            assert_eq!(read_by(&mut second, 0x2000), Err(IoError::Unclaimed));
            assert_eq!(read_by(&mut second, 0x1001), Err(IoError::Unclaimed));
            assert_eq!((dropped.load(SeqCst), Arc::strong_count(&slow)), (1, 2));
            slow.let_go.store(true, SeqCst);
            let (first, outcome) = inside.join().unwrap();
            assert_eq!(outcome, Ok(0xff));
            assert_eq!(Arc::strong_count(&slow), 2);
            drop(second);
            assert_eq!(Arc::strong_count(&slow), 1);
            drop(first);
        });
    });
}

#[test]
fn a_device_may_end_the_manager_from_its_own_callback() {
    within_limit(|| {
        let owner = Arc::new(Mutex::new(None));
        let manager = manager();
        let end = {
            let owner = owner.clone();
            move |_: &OwnedManager, _: &Access<'_>| drop(owner.lock().take())
        };
        let acting = Arc::new(Acting { manager: manager.downgrade(), act: end });
        register(&manager, acting.clone(), 0x1000);
        let mut vcpu = manager.dispatcher(0).unwrap();
        *owner.lock() = Some(manager);
        vcpu.write(at(0x1000), &[1], IoType::Mmio).unwrap();
        assert_eq!(vcpu.write(at(0x1000), &[1], IoType::Mmio), Err(IoError::Unclaimed));
        assert!(acting.manager.upgrade().is_none());
        drop(vcpu);
        assert_eq!(Arc::strong_count(&acting), 1);

        // Without a handle, the access itself keeps the manager.
        let manager = self::manager();
        let weak = manager.downgrade();
        let end = {
            let owner = owner.clone();
            move |_: &OwnedManager, _: &Access<'_>| drop(owner.lock().take())
        };
        let acting = Arc::new(Acting { manager: weak.clone(), act: end });
        register(&manager, acting.clone(), 0x1000);
        *owner.lock() = Some(manager);
        weak.upgrade().unwrap().write(at(0x1000), &[1], IoType::Mmio).unwrap();
        assert!(weak.upgrade().is_none());
        assert_eq!(Arc::strong_count(&acting), 1);
    });
}

#[test]
fn clones_are_one_manager_which_ends_with_the_last() {
    let (manager, dropped) = (manager(), Arc::<AtomicUsize>::default());
    let weak = manager.downgrade();
    let clone = manager.clone();
    register(&manager, Counted::new("device", &dropped), 0x1000);
    drop(manager);
    assert_eq!(read(&clone, 0x1000), Ok(7));
    let upgraded = weak.upgrade().unwrap();
    drop(clone);
    assert_eq!((read(&upgraded, 0x1000), dropped.load(SeqCst)), (Ok(7), 0));
    drop(upgraded);
    assert_eq!(dropped.load(SeqCst), 1);
    assert!(
        weak.upgrade().is_none()
            && WeakManager::new().upgrade().is_none()
            && WeakManager::default().upgrade().is_none()
    );
}

#[test]
fn a_bus_and_its_children_end_together() {
    let (manager, dropped) = (manager(), Arc::<AtomicUsize>::default());
    let window = [IoResource::mmio(0x1000, 0x1000).window()];
    let bus = manager.register_device(Counted::new("bus", &dropped), None, &window, &[]).unwrap();
    let child = [IoResource::mmio(0x1100, 4)];
    let child = manager.register_device(Counted::new("child", &dropped), Some(bus), &child, &[]).unwrap();
    manager.unregister_device_deferred(child).unwrap();
    manager.register_device(Counted::new("other", &dropped), Some(bus), &[], &[]).unwrap();
    drop(manager);
    assert_eq!(dropped.load(SeqCst), 3);
}

#[test]
fn what_is_forgotten_does_not_keep_the_manager_from_ending() {
    let (manager, dropped) = (manager(), Arc::<AtomicUsize>::default());
    let taken = manager.take("never", None, &[IoResource::mmio(0x1000, 4)], &[]).unwrap();
    register(&manager, Counted::new("device", &dropped), 0x2000);
    // It is an owner too.
    drop(manager);
    assert_eq!(dropped.load(SeqCst), 0);
    drop(taken);
    assert_eq!(dropped.load(SeqCst), 1);
}

/// Tells, when it is dropped, whether its manager is there, and whether its line does anything.
struct Last {
    lined: super::Lined,
    manager: WeakManager,
    said: Arc<Mutex<Vec<String>>>,
}

impl Device<'static> for Last {
    fn name(&self) -> &str {
        "last"
    }
    fn set_resources(&self, resources: &vm_device::Resources<'_, 'static>) -> Result<(), vm_device::Rejected> {
        self.lined.set_resources(resources)
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        let manager = self.manager.upgrade().is_some();
        self.said.lock().push(format!("{manager} {:?}", self.lined.line().assert()));
    }
}

#[test]
fn a_device_that_is_dropped_with_its_manager_finds_neither_manager_nor_line() {
    let manager = manager();
    let said = Arc::<Mutex<Vec<String>>>::default();
    let last = Last { lined: super::Lined::default(), manager: manager.downgrade(), said: said.clone() };
    manager.register_device(Arc::new(last), None, &[], &[vm_device::IrqResource::Any]).unwrap();
    drop(manager);
    assert_eq!(*said.lock(), ["false Err(Removed)"]);
}

#[test]
fn two_managers_on_two_threads_are_made_and_dropped() {
    let rounds = if cfg!(miri) { 3 } else { 300 };
    let work = |value: usize| {
        for _ in 0..rounds {
            let (manager, dropped) = (manager(), Arc::<AtomicUsize>::default());
            let id = register(&manager, Counted::new(&format!("device {value}"), &dropped), 0x1000);
            let mut vcpu = manager.dispatcher(0).unwrap();
            assert_eq!(read_by(&mut vcpu, 0x1000), Ok(7));
            assert_eq!(manager.path(id), format!("/device {value}"));
            drop(manager);
            assert_eq!(read_by(&mut vcpu, 0x1000), Err(IoError::Unclaimed));
            assert_eq!(dropped.load(SeqCst), 1);
        }
    };
    thread::scope(|scope| (0..2).for_each(|value| drop(scope.spawn(move || work(value)))));
}

/// Has a handle of its own, and ends the manager when it is written to.
struct Handled {
    _handle: OwnedDispatcher,
    owner: Arc<Mutex<Option<OwnedManager>>>,
    dropped: Arc<AtomicUsize>,
}

impl Device<'_> for Handled {
    fn name(&self) -> &str {
        "handled"
    }
    fn write(&self, _: &Access<'_>, _: &[u8]) {
        drop(self.owner.lock().take());
    }
}

impl Drop for Handled {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_device_with_a_handle_of_its_own_is_dropped() {
    for in_its_callback in [false, true] {
        let (manager, owner, dropped) = (manager(), Arc::new(Mutex::new(None)), Arc::<AtomicUsize>::default());
        let handled =
            Handled { _handle: manager.dispatcher(1).unwrap(), owner: owner.clone(), dropped: dropped.clone() };
        register(&manager, Arc::new(handled), 0x1000);
        let mut vcpu = manager.dispatcher(0).unwrap();
        *owner.lock() = Some(manager);
        if in_its_callback {
            vcpu.write(at(0x1000), &[1], IoType::Mmio).unwrap();
            assert_eq!(dropped.load(SeqCst), 0);
        } else {
            drop(owner.lock().take());
        }
        drop(vcpu);
        assert_eq!((dropped.load(SeqCst), in_its_callback), (1, in_its_callback));
    }
}

#[test]
fn a_handle_that_is_dropped_after_the_end_drops_what_nobody_is_in_any_more() {
    within_limit(|| {
        let (manager, slow) = (manager(), Arc::new(Slow::default()));
        register(&manager, slow.clone(), 0x1000);
        let (mut first, second) = (manager.dispatcher(0).unwrap(), manager.dispatcher(1).unwrap());
        thread::scope(|scope| {
            let inside = scope.spawn(move || read_by(&mut first, 0x1000));
            wait_for(&slow.inside);
            let _let_go = SetAtEnd(&slow.let_go, true);
            drop(manager);
            slow.let_go.store(true, SeqCst);
            // The thread drops the first handle, and keeps none.
            inside.join().unwrap().unwrap();
        });
        assert_eq!(Arc::strong_count(&slow), 1);
        drop(second);
    });
}

/// Unwinds when a line is let go, or when a range leaves.
struct Unwinding;

impl InterruptController for Unwinding {
    fn set_level(&self, _: Gsi, asserted: bool) -> Result<(), InterruptError> {
        assert!(asserted, "as it was told");
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Ok(())
    }
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Ok(())
    }
}

impl RangeListener for Unwinding {
    fn placed(&self, _: &PlacedRange<'_>) -> Result<(), Rejected> {
        Ok(())
    }
    fn leaving(&self, _: &PlacedRange<'_>) {
        panic!("as it was told");
    }
}

fn unwinding_barrier() {
    panic!("as it was told");
}

#[test]
fn the_end_may_unwind_and_every_device_is_dropped_all_the_same() {
    // SAFETY: it never returns.
    let barrier = unsafe { HeavyBarrier::new(unwinding_barrier) };
    let builders = [
        Builder::new(SMALL, everything()).with_interrupt_controller(Arc::new(Unwinding)),
        Builder::new(SMALL, everything()).with_listener(Arc::new(Unwinding)),
        Builder::new(SMALL, everything()).with_asymmetric_fence(barrier),
    ];
    for builder in builders {
        let (manager, dropped) = (builder.build().unwrap(), Arc::<AtomicUsize>::default());
        let memory = IoResource::fixed(IoType::PhysicalMmio, at(0x8000), GuestUsize(0x1000));
        manager.register_device(Counted::new("memory", &dropped), None, &[memory], &[]).unwrap();
        let lined = register_lined(&manager);
        let _ = lined.line().assert();
        let vcpu = manager.dispatcher(0).unwrap();
        assert!(unwinds(move || drop(manager)));
        drop(vcpu);
        assert_eq!((dropped.load(SeqCst), Arc::strong_count(&lined.0)), (1, 1));
        assert_eq!(lined.line().assert(), Err(InterruptError::Removed));
    }
}

//! Interrupt lines that are kept for longer than their manager.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use spin::Mutex;
use vm_device::owned::{Builder, Capacities, OwnedManager};
use vm_device::{
    Gsi, GuestAddress, GuestUsize, InterruptController, InterruptError, IoResource, IoType, IrqResource, PlacedRange,
    RangeListener, Rejected,
};

use super::fixture::{everything, wait_for, within_limit};
use super::{Lined, SMALL, SetAtEnd, register_lined};

/// Keeps what it was told. A call stands still while it is held.
#[derive(Default)]
struct Controller {
    told: Mutex<Vec<(Gsi, bool)>>,
    inside: AtomicBool,
    held: AtomicBool,
    refuses: AtomicBool,
}

impl InterruptController for Controller {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        if self.refuses.load(SeqCst) {
            return Err(InterruptError::Refused);
        }
        self.told.lock().push((gsi, asserted));
        self.inside.store(true, SeqCst);
        while self.held.load(SeqCst) {
            thread::yield_now();
        }
        Ok(())
    }
    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        self.set_level(gsi, true)
    }
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.set_level(Gsi(address.0 as u32), data != 0)
    }
}

/// A manager of a size that no other test of this file has, with its controller.
fn with_controller(devices: usize) -> (OwnedManager, Arc<Controller>) {
    let controller = Arc::new(Controller::default());
    let capacities = Capacities { devices, ..SMALL };
    let manager = Builder::new(capacities, everything()).with_interrupt_controller(controller.clone()).build();
    (manager.unwrap(), controller)
}

/// What each method of a line says.
fn uses(lined: &Lined) -> [Result<(), InterruptError>; 4] {
    let line = lined.line();
    [line.assert(), line.deassert(), line.pulse(), line.message(GuestAddress(1), 1)]
}

/// C41.
#[test]
fn a_line_does_nothing_when_its_manager_has_ended() {
    let (manager, controller) = with_controller(20);
    let lined = register_lined(&manager);
    assert_eq!(uses(&lined), [Ok(()); 4]);
    lined.line().assert().unwrap();
    controller.told.lock().clear();
    drop(manager);
    // The line that was asserted is let go.
    assert_eq!(*controller.told.lock(), [(Gsi(5), false)]);
    assert_eq!((uses(&lined), lined.line().gsi()), ([Err(InterruptError::Removed); 4], None));
    assert_eq!(Arc::strong_count(&controller), 1);

    // The next manager of the size has the same gates and lines.
    let (next, other) = with_controller(20);
    let second = register_lined(&next);
    assert_eq!((uses(&lined), lined.line().gsi()), ([Err(InterruptError::Removed); 4], None));
    assert!(other.told.lock().is_empty());
    assert_eq!(second.line().gsi(), Some(Gsi(5)));
    assert_eq!(second.line().assert(), Ok(()));
    assert_eq!(*other.told.lock(), [(Gsi(5), true)]);
    assert_eq!(lined.line().deassert(), Err(InterruptError::Removed));
    assert_eq!(other.told.lock().len(), 1);
}

#[test]
fn a_line_of_a_device_that_never_was_does_nothing_when_its_manager_has_ended() {
    let (manager, _) = with_controller(40);
    let taken = manager.take("never", None, &[], &[IrqResource::Any]).unwrap();
    let line = taken.irq(0);
    assert_eq!(line.gsi(), Some(Gsi(5)));
    drop((taken, manager));
    let (next, controller) = with_controller(40);
    let _second = register_lined(&next);
    assert_eq!(line.assert(), Err(InterruptError::Removed));
    assert!(controller.told.lock().is_empty());
}

/// C41.
#[test]
fn a_manager_ends_while_a_line_calls_the_controller() {
    within_limit(|| {
        let (manager, controller) = with_controller(80);
        let lined = register_lined(&manager);
        controller.held.store(true, SeqCst);
        thread::scope(|scope| {
            let call = scope.spawn(|| lined.line().assert());
            wait_for(&controller.inside);
            let _let_go = SetAtEnd(&controller.held, false);
            drop(manager);
            // The call has the controller, and the lines: another manager gets others.
            assert_eq!(Arc::strong_count(&controller), 2);
            let (next, other) = with_controller(80);
            let second = register_lined(&next);
            assert_eq!(second.line().assert(), Ok(()));
            assert_eq!(*other.told.lock(), [(Gsi(5), true)]);
            assert_eq!(uses(&lined), [Err(InterruptError::Removed); 4]);
            controller.held.store(false, SeqCst);
            assert_eq!(call.join().unwrap(), Ok(()));
            assert_eq!(Arc::strong_count(&controller), 1);
            assert_eq!(second.line().deassert(), Ok(()));
            assert_eq!(*other.told.lock(), [(Gsi(5), true), (Gsi(5), false)]);
        });
        assert_eq!(*controller.told.lock(), [(Gsi(5), true)]);
    });
}

#[test]
fn levels_of_one_manager_are_not_those_of_the_next() {
    let (manager, controller) = with_controller(160);
    let lined: Vec<_> = (0..4).map(|_| register_lined(&manager)).collect();
    assert!(lined.iter().all(|lined| lined.line().assert().is_ok()));
    // The controller takes none of the deassertions.
    controller.refuses.store(true, SeqCst);
    drop(manager);
    assert_eq!(controller.told.lock().len(), 4);
    let (next, controller) = with_controller(160);
    let again: Vec<_> = (0..4).map(|_| register_lined(&next)).collect();
    assert!(again.iter().all(|lined| lined.line().assert().is_ok()));
    let told: Vec<_> = (5..9).map(|gsi| (Gsi(gsi), true)).collect();
    assert_eq!(*controller.told.lock(), told);
}

#[test]
fn a_manager_without_a_controller_says_so() {
    let manager = OwnedManager::new(SMALL, everything()).unwrap();
    assert_eq!(register_lined(&manager).line().assert(), Err(InterruptError::NoController));
}

/// Keeps what it was told of which device.
#[derive(Default)]
struct Listener(Mutex<Vec<&'static str>>);

impl RangeListener for Listener {
    fn placed(&self, _: &PlacedRange<'_>) -> Result<(), Rejected> {
        self.0.lock().push("placed");
        Ok(())
    }
    fn leaving(&self, range: &PlacedRange<'_>) {
        assert_eq!(range.device.name(), "lined");
        self.0.lock().push("leaves");
    }
}

#[test]
fn the_listener_hears_of_the_end_of_a_device_whose_line_calls_the_controller() {
    within_limit(|| {
        let (controller, listener) = (Arc::new(Controller::default()), Arc::new(Listener::default()));
        let builder = Builder::new(SMALL, everything()).with_listener(listener.clone());
        let manager = builder.with_interrupt_controller(controller.clone()).build().unwrap();
        let lined = Lined::default();
        let memory = IoResource::fixed(IoType::PhysicalMmio, GuestAddress(0x8000), GuestUsize(0x1000));
        manager.register_device(Arc::new(lined.clone()), None, &[memory], &[IrqResource::Any]).unwrap();
        controller.held.store(true, SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| lined.line().assert());
            wait_for(&controller.inside);
            let _let_go = SetAtEnd(&controller.held, false);
            drop(manager);
            assert_eq!(*listener.0.lock(), ["placed", "leaves"]);
        });
    });
}

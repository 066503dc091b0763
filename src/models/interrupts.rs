//! Models of interrupt handles: what the controller is told, against removals, rejections and other sources.

use super::*;
use crate::IrqResource;

/// An interrupt controller that knows the level it was told last.
struct Controller {
    /// Written by each call, of which there is one at a time.
    calls: UnsafeCell<()>,
    level: AtomicBool,
}

// SAFETY: as for `Probe`.
unsafe impl Sync for Controller {}

impl Controller {
    fn new() -> &'static Self {
        share(Self { calls: UnsafeCell::new(()), level: AtomicBool::new(false) })
    }

    fn level(&self) -> bool {
        self.level.load(Ordering::Relaxed)
    }
}

impl InterruptController for Controller {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        assert_eq!(gsi, Gsi(5));
        self.calls.with_mut(|_| self.level.store(asserted, Ordering::Relaxed));
        // Another thread may find here that the controller is being told.
        thread::yield_now();
        Ok(())
    }

    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Ok(())
    }

    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Ok(())
    }
}

/// Two devices that share line 5.
fn two_sources(controller: &'static Controller) -> (&'static Manager, [(InstanceId, &'static Probe); 2]) {
    let manager = share(unshared_manager::<2, 2>().with_interrupt_controller(controller));
    let sources = [b'a', b'b'].map(|letter| {
        let probe = Probe::new(letter);
        let id = manager.register_device(probe, None, &[], &[IrqResource::Shared(Gsi(5))]).unwrap();
        (id, probe)
    });
    (manager, sources)
}

#[test]
fn a_removal_deasserts_and_no_handle_asserts_after_it() {
    explore("a_removal_deasserts_and_no_handle_asserts_after_it", 4, || {
        let controller = Controller::new();
        let manager = share(unshared_manager::<1, 2>().with_interrupt_controller(controller));
        let a = Probe::new(b'a');
        let id = manager.register_device(a, None, &[], &[IrqResource::Any]).unwrap();
        let line = a.line();
        let device = thread::spawn(move || {
            let result = line.assert();
            assert!(matches!(result, Ok(()) | Err(InterruptError::Removed)), "{result:?}");
        });
        manager.unregister_device(id).unwrap();
        controller.calls.with_mut(|_| assert!(!controller.level()));
        assert_eq!(line.assert(), Err(InterruptError::Removed));
        device.join().unwrap();
        assert!(!controller.level());
    });
}

/// A device that refuses its resources, and has given its line to another thread before.
struct Refusing(Mutex<Option<thread::JoinHandle<()>>>);

impl Device<'static> for Refusing {
    fn name(&self) -> &str {
        "refusing"
    }

    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}

    fn write(&self, _: &Access<'_>, _: &[u8]) {}

    fn set_resources(&self, resources: &Resources<'_, 'static>) -> Result<(), Rejected> {
        let line = resources.irq(0);
        *self.0.lock().unwrap() = Some(thread::spawn(move || {
            let result = line.assert();
            assert!(matches!(result, Ok(()) | Err(InterruptError::Removed)), "{result:?}");
        }));
        Err(Rejected::new(0))
    }
}

#[test]
fn a_rejection_deasserts_and_no_handle_asserts_after_it() {
    explore("a_rejection_deasserts_and_no_handle_asserts_after_it", 4, || {
        let controller = Controller::new();
        let manager = share(unshared_manager::<1, 2>().with_interrupt_controller(controller));
        let refusing = share(Refusing(Mutex::new(None)));
        assert!(manager.register_device(refusing, None, &[], &[IrqResource::Any]).is_err());
        controller.calls.with_mut(|_| assert!(!controller.level()));
        let device = refusing.0.lock().unwrap().take().unwrap();
        device.join().unwrap();
        assert!(!controller.level());
    });
}

/// Either the controller has taken the level, or another caller tells it.
fn told(result: Result<(), InterruptError>) {
    assert!(matches!(result, Ok(()) | Err(InterruptError::Pending)), "{result:?}");
}

/// C23.
#[test]
fn the_level_told_last_is_the_true_one() {
    explore("the_level_told_last_is_the_true_one", 4, || {
        let controller = Controller::new();
        let (_, [(_, a), (_, b)]) = two_sources(controller);
        a.line().assert().unwrap();
        let device = thread::spawn(move || told(a.line().deassert()));
        told(b.line().assert());
        told(b.line().deassert());
        told(b.line().assert());
        device.join().unwrap();
        assert!(controller.level());
    });
}

#[test]
fn removing_one_source_leaves_the_other_asserted() {
    explore("removing_one_source_leaves_the_other_asserted", 4, || {
        let controller = Controller::new();
        let (manager, [(id, a), (_, b)]) = two_sources(controller);
        a.line().assert().unwrap();
        let device = thread::spawn(move || told(b.line().assert()));
        manager.unregister_device(id).unwrap();
        device.join().unwrap();
        assert!(controller.level());
    });
}

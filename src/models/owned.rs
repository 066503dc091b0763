//! Models of an owned manager's interrupt controller, which is taken away while it is called.

use super::*;
use crate::owned::ControllerCell;

/// An interrupt controller whose end is a write: a call that it does not come after is a race.
struct Controller {
    calls: UnsafeCell<u32>,
    ends: Arc<AtomicUsize>,
}

// SAFETY: as for `Probe`.
unsafe impl Sync for Controller {}
// SAFETY: as above.
unsafe impl Send for Controller {}

impl InterruptController for Controller {
    fn set_level(&self, _: Gsi, _: bool) -> Result<(), InterruptError> {
        self.calls.with(|_| ());
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Ok(())
    }
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Ok(())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.calls.with_mut(|_| self.ends.fetch_add(1, Ordering::Relaxed));
    }
}

/// Calls the controller on as many threads, and takes it away meanwhile.
fn take_away(name: &str, callers: usize) {
    explore(name, 3, move || {
        let ends = Arc::new(AtomicUsize::new(0));
        let cell = share(ControllerCell::new());
        let controller = Controller { calls: UnsafeCell::new(0), ends: Arc::clone(&ends) };
        // SAFETY: nobody else has the cell.
        unsafe { cell.open(Arc::new(controller)) };
        let callers: Vec<_> = (0..callers).map(|_| thread::spawn(|| cell.set_level(Gsi(5), true))).collect();
        cell.close();
        for caller in callers {
            let outcome = caller.join().unwrap();
            assert!([Ok(()), Err(InterruptError::Removed)].contains(&outcome), "{outcome:?}");
        }
        assert_eq!(cell.set_level(Gsi(5), false), Err(InterruptError::Removed));
        assert_eq!(ends.load(Ordering::Relaxed), 1);
        // It can be given another.
        let controller = Controller { calls: UnsafeCell::new(0), ends: Arc::clone(&ends) };
        // SAFETY: it has none.
        unsafe { cell.open(Arc::new(controller)) };
        assert_eq!(cell.set_level(Gsi(5), false), Ok(()));
        cell.close();
        assert_eq!(ends.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_controller_is_dropped_once_when_its_last_call_has_ended() {
    take_away("a_controller_is_dropped_once_when_its_last_call_has_ended", 1);
}

#[test]
fn of_two_calls_the_last_drops_the_controller() {
    take_away("of_two_calls_the_last_drops_the_controller", 2);
}

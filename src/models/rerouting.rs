//! Models of interrupts that move to other lines, and of ends of interrupts: against drives, removals and each other.

use super::*;
use crate::{IrqResource, RerouteError};

/// An interrupt controller that knows the levels of lines 5 and 6 that it was told last.
struct Controller {
    levels: [AtomicBool; 2],
}

impl Controller {
    fn new() -> &'static Self {
        share(Self { levels: [AtomicBool::new(false), AtomicBool::new(false)] })
    }

    fn levels(&self) -> [bool; 2] {
        self.levels.each_ref().map(|level| level.load(Ordering::Relaxed))
    }
}

impl InterruptController for Controller {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let line = usize::from(gsi == Gsi(6));
        self.levels[line].store(asserted, Ordering::Relaxed);
        // An interrupt that ends from here on lets go what was just told.
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

/// A device with an interrupt on line 5, which others may share.
fn source(manager: &'static Manager, letter: u8) -> (InstanceId, &'static Probe) {
    let probe = Probe::new(letter);
    let id = manager.register_device(probe, None, &[], &[IrqResource::Shared(Gsi(5))]).unwrap();
    (id, probe)
}

/// Either the controller has taken the level, or another caller tells it.
fn told(result: Result<(), InterruptError>) {
    assert!(matches!(result, Ok(()) | Err(InterruptError::Pending)), "{result:?}");
}

/// C37.
#[test]
fn a_drive_during_a_move_is_on_the_new_line_afterwards() {
    explore("a_drive_during_a_move_is_on_the_new_line_afterwards", 4, || {
        let controller = Controller::new();
        let manager = share(unshared_manager::<2, 2>().with_interrupt_controller(controller));
        let (id, a) = source(manager, b'a');
        let line = a.line();
        let device = thread::spawn(move || told(line.assert()));
        manager.reroute(id, 0, Some(Gsi(6))).unwrap();
        device.join().unwrap();
        assert_eq!(controller.levels(), [false, true]);
    });
}

/// C37.
#[test]
fn a_deassertion_during_a_move_leaves_both_lines_low() {
    explore("a_deassertion_during_a_move_leaves_both_lines_low", 4, || {
        let controller = Controller::new();
        let manager = share(unshared_manager::<2, 2>().with_interrupt_controller(controller));
        let (id, a) = source(manager, b'a');
        let line = a.line();
        line.assert().unwrap();
        let device = thread::spawn(move || told(line.deassert()));
        manager.reroute(id, 0, Some(Gsi(6))).unwrap();
        device.join().unwrap();
        assert_eq!(controller.levels(), [false, false]);
    });
}

/// C37. The place that the move has left is another device's at once.
#[test]
fn a_drive_does_not_reach_the_next_source_in_the_place_that_was_left() {
    explore("a_drive_does_not_reach_the_next_source_in_the_place_that_was_left", 4, || {
        let controller = Controller::new();
        let manager = share(unshared_manager::<2, 2>().with_interrupt_controller(controller));
        let (id, a) = source(manager, b'a');
        let line = a.line();
        let device = thread::spawn(move || told(line.assert()));
        manager.reroute(id, 0, Some(Gsi(6))).unwrap();
        let (_, b) = source(manager, b'b');
        told(b.line().assert());
        told(b.line().deassert());
        device.join().unwrap();
        assert_eq!(controller.levels(), [false, true]);
    });
}

#[test]
fn a_removal_during_a_move_leaves_both_lines_low() {
    explore("a_removal_during_a_move_leaves_both_lines_low", 4, || {
        let controller = Controller::new();
        let manager = share(unshared_manager::<2, 2>().with_interrupt_controller(controller));
        let (id, a) = source(manager, b'a');
        a.line().assert().unwrap();
        let mover = thread::spawn(move || {
            let moved = manager.reroute(id, 0, Some(Gsi(6)));
            assert!(
                matches!(moved, Ok(()) | Err(RerouteError::NotFound { .. } | RerouteError::Busy { .. })),
                "{moved:?}"
            );
        });
        manager.unregister_device(id).unwrap();
        mover.join().unwrap();
        assert_eq!((controller.levels(), manager.collect()), ([false, false], 0));
    });
}

/// C38. The controller lets the line go when the interrupt ends, whatever it was told before.
#[test]
fn a_line_that_is_asserted_when_its_interrupt_ends_is_told_again() {
    explore("a_line_that_is_asserted_when_its_interrupt_ends_is_told_again", 4, || {
        let controller = Controller::new();
        let manager = share(unshared_manager::<2, 2>().with_interrupt_controller(controller));
        let (_, a) = source(manager, b'a');
        let line = a.line();
        let device = thread::spawn(move || told(line.assert()));
        // The device may have come into the controller by now.
        thread::yield_now();
        controller.levels[0].store(false, Ordering::Relaxed);
        told(manager.end_of_interrupt(Gsi(5)));
        device.join().unwrap();
        assert_eq!(controller.levels(), [true, false]);
    });
}

/// C38.
#[test]
fn an_end_against_a_deassertion_leaves_the_line_low() {
    explore("an_end_against_a_deassertion_leaves_the_line_low", 4, || {
        let controller = Controller::new();
        let manager = share(unshared_manager::<2, 2>().with_interrupt_controller(controller));
        let (_, a) = source(manager, b'a');
        let line = a.line();
        line.assert().unwrap();
        let device = thread::spawn(move || told(line.deassert()));
        told(manager.end_of_interrupt(Gsi(5)));
        device.join().unwrap();
        assert_eq!(controller.levels(), [false, false]);
    });
}

/// C7, C38.
#[test]
fn an_end_against_a_removal_leaves_the_line_low() {
    explore("an_end_against_a_removal_leaves_the_line_low", 4, || {
        let controller = Controller::new();
        let manager = share(unshared_manager::<2, 2>().with_interrupt_controller(controller));
        let (id, a) = source(manager, b'a');
        a.line().assert().unwrap();
        let ender = thread::spawn(move || {
            let ended = manager.end_of_interrupt(Gsi(5));
            assert!(matches!(ended, Ok(()) | Err(InterruptError::Pending | InterruptError::NoLine)), "{ended:?}");
        });
        // The end may be under way: then the removal gives up.
        while manager.unregister_device(id).is_err() {
            thread::yield_now();
        }
        ender.join().unwrap();
        assert_eq!(controller.levels(), [false, false]);
        // What the device had is as new.
        let (_, b) = source(manager, b'b');
        told(b.line().assert());
        assert_eq!(controller.levels(), [true, false]);
    });
}

//! What happens to a line when its device goes.

mod fixture;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use fixture::{Log, OnLevel, Source, Told, manager, wait_for, within_limit};
use vm_device::{
    Access, Device, DeviceManager, Gsi, GuestAddress, InstanceId, InterruptError, IrqLine, IrqRefusal, IrqResource,
    Owner, RegisterError, Rejected, Resources,
};

const SHARED: IrqResource = IrqResource::Shared(Gsi(7));

#[test]
fn unregistering_takes_the_assertion_back() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let [id_a, id_b] = [&a, &b].map(|device| manager.register_device(device, None, &[], &[SHARED]).unwrap());
    a.line().assert().unwrap();
    b.line().assert().unwrap();
    log.take();
    manager.unregister_device(id_a).unwrap();
    assert_eq!(log.take(), [], "the other still asserts it");
    manager.unregister_device(id_b).unwrap();
    assert_eq!(log.take(), [Told::Level(7, false)]);
    // The next device begins with a line that is not asserted.
    manager.register_device(&a, None, &[], &[IrqResource::Fixed(Gsi(7))]).unwrap();
    a.line().assert().unwrap();
    assert_eq!(log.take(), [Told::Level(7, true)]);
}

#[test]
fn a_shared_line_stays_taken_while_one_of_its_devices_is_registered() {
    manager!(let manager);
    let [a, b, c] = ["a", "b", "c"].map(Source::new);
    let ids = [&a, &b].map(|device| manager.register_device(device, None, &[], &[SHARED]).unwrap());
    for (id, other) in [(ids[0], &b), (ids[1], &a)] {
        manager.unregister_device(id).unwrap();
        if manager.walk().next().is_some() {
            assert!(matches!(
                manager.register_device(&c, None, &[], &[IrqResource::Fixed(Gsi(7))]),
                Err(RegisterError::Irq { refusal: IrqRefusal::Taken { owner: Owner::Device { name, .. }, .. }, .. })
                    if name == other.name
            ));
        }
    }
    assert!(manager.register_device(&c, None, &[], &[IrqResource::Fixed(Gsi(7))]).is_ok());
}

#[test]
fn a_subtree_takes_its_assertions_back() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let bus = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
    manager.register_device(&b, Some(bus), &[], &[IrqResource::Any]).unwrap();
    a.line().assert().unwrap();
    b.line().assert().unwrap();
    log.take();
    manager.unregister_subtree(bus).unwrap();
    assert_eq!(log.take(), [Told::Level(5, false), Told::Level(7, false)]);
}

#[test]
fn a_deferred_removal_takes_the_assertion_back_when_it_is_collected() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let a = Source::new("a");
    let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
    a.line().assert().unwrap();
    manager.unregister_device_deferred(id).unwrap();
    assert_eq!(a.line().deassert(), Err(InterruptError::Removed), "from now on the device has no say");
    assert_eq!(manager.collect(), 0);
    assert_eq!(log.take(), [Told::Level(7, true), Told::Level(7, false)]);
}

/// C8.
#[test]
fn a_handle_kept_after_the_removal_does_nothing() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let id = manager.register_device(&a, None, &[], &[IrqResource::Fixed(Gsi(6))]).unwrap();
    let kept = a.line();
    manager.unregister_device(id).unwrap();
    // Neither before nor after another device has the same place and the same line.
    for other in [false, true] {
        if other {
            manager.register_device(&b, None, &[], &[IrqResource::Fixed(Gsi(6))]).unwrap();
            b.line().assert().unwrap();
            assert_eq!(log.take(), [Told::Level(6, true)]);
        }
        let removed = Err(InterruptError::Removed);
        assert_eq!([kept.assert(), kept.deassert(), kept.pulse(), kept.message(GuestAddress(0), 0)], [removed; 4]);
        assert_eq!(log.take(), []);
    }
    let free = IrqLine::DISCONNECTED;
    assert_eq!([free.assert(), free.deassert(), free.pulse()], [Err(InterruptError::Removed); 3]);
    assert_eq!(free.gsi(), None);
}

#[test]
fn a_rejected_registration_takes_the_assertion_back() {
    /// Asserts its line and rejects it then.
    struct Rejecting<'d>(Source<'d>);
    impl<'d> Device<'d> for Rejecting<'d> {
        fn name(&self) -> &str {
            self.0.name
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
        fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
            self.0.set_resources(resources)?;
            assert_eq!(self.0.line().assert(), Ok(()));
            Err(Rejected::new(0))
        }
    }
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let device = Rejecting(Source::new("rejecting"));
    let got = manager.register_device(&device, None, &[], &[SHARED]);
    assert_eq!(got, Err(RegisterError::Rejected { device: "rejecting", code: 0 }));
    assert_eq!(log.take(), [Told::Level(7, true), Told::Level(7, false)]);
    assert_eq!(device.0.line().assert(), Err(InterruptError::Removed));
    assert_eq!(log.take(), []);
}

/// Removes a device, waiting or deferred, and collects.
fn remove<'d>(manager: &'d DeviceManager<'d>, id: InstanceId, deferred: bool) -> usize {
    match deferred {
        false => manager.unregister_device(id).unwrap(),
        true => manager.unregister_device_deferred(id).unwrap(),
    }
    manager.collect()
}

/// C25.
#[test]
fn a_deassertion_refused_at_a_removal_is_told_again_by_collect_and_keeps_the_line_until_it_is_taken() {
    for deferred in [false, true] {
        let log = Log::default();
        manager!(let manager, with_interrupt_controller(&log));
        let (a, b) = (Source::new("a"), Source::new("b"));
        let id = manager.register_device(&a, None, &[], &[IrqResource::Any]).unwrap();
        a.line().assert().unwrap();
        log.take();
        log.refuse(true);
        assert_eq!(remove(&manager, id, deferred), 1, "a line is left that may still be asserted");
        assert!(manager.device(id).is_none());
        log.take();
        assert_eq!((manager.collect(), log.take()), (1, vec![Told::Level(5, false)]));
        // No device is given the line as a free one.
        let other = manager.register_device(&b, None, &[], &[IrqResource::Any]).unwrap();
        assert_eq!((b.line().gsi(), log.take()), (Some(Gsi(6)), vec![Told::Level(5, false)]));
        log.refuse(false);
        assert_eq!((manager.collect(), log.take()), (0, vec![Told::Level(5, false)]));
        assert_eq!((manager.collect(), log.take()), (0, vec![]));
        manager.unregister_device(other).unwrap();
        manager.register_device(&b, None, &[], &[IrqResource::Any]).unwrap();
        assert_eq!(b.line().gsi(), Some(Gsi(5)), "the line is free");
        b.line().assert().unwrap();
        assert_eq!(log.take(), [Told::Level(5, true)]);
    }
}

/// A manager for one device has room for the state of one line.
#[test]
fn lines_that_the_controller_has_not_taken_back_leave_no_room_for_others() {
    let log = Log::default();
    manager!(let manager: <1, 1, 1>, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let id = manager.register_device(&a, None, &[], &[IrqResource::Any]).unwrap();
    a.line().assert().unwrap();
    log.refuse(true);
    let _ = manager.unregister_device(id);
    let error = manager.register_device(&b, None, &[], &[IrqResource::Any]).unwrap_err();
    let refusal = IrqRefusal::TooManyLines { capacity: 1, owed: 1 };
    assert_eq!(error, RegisterError::Irq { device: "b", index: 0, refusal });
    let words = "interrupt request 0 of \"b\": all 1 lines are in use, as many as `DEVICES` says; the controller has to \
                 take the deassertion of 1 of them, lines of removed devices, which `collect` tells it again";
    assert_eq!(error.to_string(), words);
    log.refuse(false);
    manager.collect();
    assert!(manager.register_device(&b, None, &[], &[IrqResource::Any]).is_ok());
}

/// C24, C25.
#[test]
fn a_line_whose_deassertion_was_refused_goes_on_with_the_next_device_that_asks_for_it() {
    for (irq, asserts) in [(SHARED, false), (SHARED, true), (IrqResource::Fixed(Gsi(7)), false)] {
        let log = Log::default();
        manager!(let manager, with_interrupt_controller(&log));
        let (a, b) = (Source::new("a"), Source::new("b"));
        let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
        a.line().assert().unwrap();
        log.refuse(true);
        assert_eq!(remove(&manager, id, false), 1);
        manager.register_device(&b, None, &[], &[irq]).unwrap();
        assert_eq!(manager.collect(), 1, "it is the device's now, and still to be told");
        log.refuse(false);
        log.take();
        let (outcome, told) = match asserts {
            true => (b.line().assert(), vec![]),
            false => (b.line().deassert(), vec![Told::Level(7, false)]),
        };
        assert_eq!((outcome, log.take()), (Ok(()), told));
    }
}

/// C25.
#[test]
fn a_deassertion_refused_at_the_removal_of_a_sharer_is_told_again_by_collect() {
    for deferred in [false, true] {
        let log = Log::default();
        manager!(let manager, with_interrupt_controller(&log));
        let (a, b) = (Source::new("a"), Source::new("b"));
        let [id, _] = [&a, &b].map(|device| manager.register_device(device, None, &[], &[SHARED]).unwrap());
        a.line().assert().unwrap();
        log.refuse(true);
        assert_eq!(remove(&manager, id, deferred), 1, "no device asserts it, and it is asserted");
        log.refuse(false);
        log.take();
        assert_eq!((manager.collect(), log.take()), (0, vec![Told::Level(7, false)]));
        assert_eq!((b.line().deassert(), log.take()), (Ok(()), vec![]));
    }
}

/// C25.
/// There is no room for the device, which is seen before the line is taken over.
#[test]
fn a_registration_that_fails_leaves_a_line_that_it_would_have_taken_over_as_it_was() {
    let log = Log::default();
    manager!(let manager: <1, 1, 1>, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
    a.line().assert().unwrap();
    log.refuse(true);
    manager.unregister_device(id).unwrap();
    let id = manager.register_device(&b, None, &[], &[]).unwrap();
    let full = RegisterError::TooManyDevices { device: "a", capacity: 1 };
    assert_eq!(manager.register_device(&a, None, &[], &[SHARED]), Err(full));
    assert_eq!(manager.collect(), 1, "the line is owed as before");
    manager.unregister_device(id).unwrap();
    log.refuse(false);
    log.take();
    // Another line, in the same place, begins without an assertion that is not its own.
    manager.register_device(&b, None, &[], &[IrqResource::Fixed(Gsi(5))]).unwrap();
    assert_eq!(log.take(), [Told::Level(7, false)]);
    assert_eq!((b.line().assert(), log.take()), (Ok(()), vec![Told::Level(5, true)]));
}

/// C25.
/// While one caller collects, another registers a device on the line that is being told.
#[test]
fn a_line_that_is_told_again_can_be_had_meanwhile() {
    within_limit(|| {
        let [refuses, held, inside] = [false; 3].map(AtomicBool::new);
        // It refuses, and stands still in a call as long as it is held.
        let controller = OnLevel(|_| {
            while held.load(SeqCst) {
                inside.store(true, SeqCst);
                thread::yield_now();
            }
            if refuses.load(SeqCst) { Err(InterruptError::Refused) } else { Ok(()) }
        });
        manager!(let manager, with_interrupt_controller(&controller));
        let (a, b) = (Source::new("a"), Source::new("b"));
        let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
        a.line().assert().unwrap();
        refuses.store(true, SeqCst);
        manager.unregister_device(id).unwrap();
        held.store(true, SeqCst);
        let outcome = thread::scope(|scope| {
            scope.spawn(|| manager.collect());
            wait_for(&inside);
            let outcome = manager.register_device(&b, None, &[], &[IrqResource::Fixed(Gsi(7))]).map(drop);
            refuses.store(false, SeqCst);
            held.store(false, SeqCst);
            outcome
        });
        assert_eq!((outcome, b.line().gsi()), (Ok(()), Some(Gsi(7))));
        assert_eq!((b.line().deassert(), manager.collect()), (Ok(()), 0));
    });
}

//! What devices do to the interrupt controller, through the handles they are given.

mod fixture;

use std::sync::Barrier;
use std::sync::atomic::Ordering::{self, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::Duration;

use spin::Mutex;
use vm_device::{
    Access, Device, Gsi, GuestAddress, InstanceId, InterruptController, InterruptError, IoResource, IoType, IrqLine,
    IrqResource, Owner, RegisterError, Rejected, Resources,
};

use fixture::{Log, Manager, OnLevel, Source, Told, manager, unwinds, wait_for, wait_until, within_limit};

const SHARED: IrqResource = IrqResource::Shared(Gsi(7));

/// C23.
#[test]
fn a_shared_line_is_asserted_while_any_source_asserts_it() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    for device in [&a, &b] {
        manager.register_device(device, None, &[], SHARED).unwrap();
        assert_eq!(device.line().gsi(), Some(Gsi(7)));
    }
    for (line, assert, told) in [
        (a.line(), true, Some(true)),
        (a.line(), true, None),
        (b.line(), true, None),
        (a.line(), false, None),
        (a.line(), false, None),
        (b.line(), false, Some(false)),
        (b.line(), false, None),
        (b.line(), true, Some(true)),
        (b.line(), false, Some(false)),
    ] {
        assert_eq!(if assert { line.assert() } else { line.deassert() }, Ok(()));
        assert_eq!(log.take(), told.map(|level| Told::Level(7, level)).into_iter().collect::<Vec<_>>());
    }
    assert_eq!(a.line().pulse(), Err(InterruptError::SharedLine));
    assert_eq!(log.take(), []);
}

#[test]
fn unregistering_takes_the_assertion_back() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let [id_a, id_b] = [&a, &b].map(|device| manager.register_device(device, None, &[], SHARED).unwrap());
    a.line().assert().unwrap();
    b.line().assert().unwrap();
    log.take();
    manager.unregister_device(id_a).unwrap();
    assert_eq!(log.take(), [], "the other still asserts it");
    manager.unregister_device(id_b).unwrap();
    assert_eq!(log.take(), [Told::Level(7, false)]);
    // The line begins anew for the next.
    manager.register_device(&a, None, &[], IrqResource::Fixed(Gsi(7))).unwrap();
    a.line().assert().unwrap();
    assert_eq!(log.take(), [Told::Level(7, true)]);
}

#[test]
fn a_shared_line_stays_taken_while_one_of_its_devices_is_registered() {
    manager!(let manager);
    let [a, b, c] = ["a", "b", "c"].map(Source::new);
    let ids = [&a, &b].map(|device| manager.register_device(device, None, &[], SHARED).unwrap());
    for (id, other) in [(ids[0], &b), (ids[1], &a)] {
        manager.unregister_device(id).unwrap();
        if manager.walk().next().is_some() {
            assert!(matches!(
                manager.register_device(&c, None, &[], IrqResource::Fixed(Gsi(7))),
                Err(RegisterError::IrqTaken { owner: Owner::Device { name, .. }, .. }) if name == other.name
            ));
        }
    }
    assert!(manager.register_device(&c, None, &[], IrqResource::Fixed(Gsi(7))).is_ok());
}

#[test]
fn a_subtree_takes_its_assertions_back() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let bus = manager.register_device(&a, None, &[], SHARED).unwrap();
    manager.register_device(&b, Some(bus), &[], IrqResource::Any).unwrap();
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
    let id = manager.register_device(&a, None, &[], SHARED).unwrap();
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
    let id = manager.register_device(&a, None, &[], IrqResource::Fixed(Gsi(6))).unwrap();
    let kept = a.line();
    manager.unregister_device(id).unwrap();
    // Neither before nor after another device has the same place and the same line.
    for other in [false, true] {
        if other {
            manager.register_device(&b, None, &[], IrqResource::Fixed(Gsi(6))).unwrap();
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
            Err(Rejected)
        }
    }
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let device = Rejecting(Source::new("rejecting"));
    let got = manager.register_device(&device, None, &[], SHARED);
    assert_eq!(got, Err(RegisterError::Rejected { device: "rejecting" }));
    assert_eq!(log.take(), [Told::Level(7, true), Told::Level(7, false)]);
    assert_eq!(device.0.line().assert(), Err(InterruptError::Removed));
    assert_eq!(log.take(), []);
}

#[test]
fn edges_and_messages_go_through() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (edge, message) = (Source::new("edge"), Source::new("message"));
    manager.register_device(&edge, None, &[], IrqResource::Any).unwrap();
    manager.register_device(&message, None, &[], IrqResource::None).unwrap();
    assert_eq!([edge.line().pulse(), edge.line().pulse()], [Ok(()); 2]);
    assert_eq!(message.line().message(GuestAddress(0xfee0_0000), 0x31), Ok(()));
    assert_eq!(edge.line().message(GuestAddress(u64::MAX), u32::MAX), Ok(()));
    let told = [Told::Pulse(5), Told::Pulse(5), Told::Message(0xfee0_0000, 0x31), Told::Message(u64::MAX, u32::MAX)];
    assert_eq!(log.take(), told);
    let no_line = Err(InterruptError::NoLine);
    let line = message.line();
    assert_eq!([line.assert(), line.deassert(), line.pulse()], [no_line; 3]);
    assert_eq!(line.gsi(), None);
}

#[test]
fn without_a_controller_every_call_says_so() {
    manager!(let manager);
    let a = Source::new("a");
    let id = manager.register_device(&a, None, &[], IrqResource::Any).unwrap();
    let line = a.line();
    let none = Err(InterruptError::NoController);
    assert_eq!([line.assert(), line.deassert(), line.pulse(), line.message(GuestAddress(0), 0)], [none; 4]);
    manager.unregister_device(id).unwrap();
}

/// C23, C24.
#[test]
fn a_level_that_the_controller_refused_is_told_again_until_it_is_taken() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    for device in [&a, &b] {
        manager.register_device(device, None, &[], SHARED).unwrap();
    }
    let (refused, high, low) = (Err(InterruptError::Refused), [Told::Level(7, true)], [Told::Level(7, false)]);
    let refuse = |refuses| log.refuse(refuses);
    refuse(true);
    assert_eq!((a.line().assert(), log.take()), (refused, high.into()));
    // Told again at the same device's next drive, and at that of another one on the line.
    assert_eq!((a.line().assert(), log.take()), (refused, high.into()));
    assert_eq!((b.line().assert(), log.take()), (refused, high.into()));
    assert_eq!((b.line().deassert(), log.take()), (refused, high.into()));
    refuse(false);
    assert_eq!((b.line().deassert(), log.take()), (Ok(()), high.into()), "a still asserts it");
    assert_eq!((a.line().assert(), log.take()), (Ok(()), vec![]), "it has been taken");
    // The same the other way.
    refuse(true);
    assert_eq!((a.line().deassert(), log.take()), (refused, low.into()));
    assert_eq!((b.line().deassert(), log.take()), (refused, low.into()));
    refuse(false);
    assert_eq!((b.line().deassert(), log.take()), (Ok(()), low.into()));
    assert_eq!((a.line().deassert(), log.take()), (Ok(()), vec![]));
    // A refused level that is not the line's any more is not told: the controller has what it took last.
    refuse(true);
    assert_eq!((a.line().assert(), log.take()), (refused, high.into()));
    assert_eq!((a.line().deassert(), log.take()), (Ok(()), vec![]));
    assert_eq!([a.line().pulse(), a.line().message(GuestAddress(0), 0)], [Err(InterruptError::SharedLine), refused]);
}

/// Removes a device, waiting or deferred, and collects.
fn remove<'d>(manager: &'d Manager<'d>, id: InstanceId, deferred: bool) -> usize {
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
        let id = manager.register_device(&a, None, &[], IrqResource::Any).unwrap();
        a.line().assert().unwrap();
        log.take();
        log.refuse(true);
        assert_eq!(remove(&manager, id, deferred), 1, "a line is left that may still be asserted");
        assert!(manager.device(id).is_none());
        log.take();
        assert_eq!((manager.collect(), log.take()), (1, vec![Told::Level(5, false)]));
        // Nobody is given the line as a free one.
        let other = manager.register_device(&b, None, &[], IrqResource::Any).unwrap();
        assert_eq!((b.line().gsi(), log.take()), (Some(Gsi(6)), vec![Told::Level(5, false)]));
        log.refuse(false);
        assert_eq!((manager.collect(), log.take()), (0, vec![Told::Level(5, false)]));
        assert_eq!((manager.collect(), log.take()), (0, vec![]));
        manager.unregister_device(other).unwrap();
        manager.register_device(&b, None, &[], IrqResource::Any).unwrap();
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
    let id = manager.register_device(&a, None, &[], IrqResource::Any).unwrap();
    a.line().assert().unwrap();
    log.refuse(true);
    let _ = manager.unregister_device(id);
    let error = manager.register_device(&b, None, &[], IrqResource::Any).unwrap_err();
    assert_eq!(error, RegisterError::LinesOwed { device: "b" });
    let words = "no room is left for the line of \"b\": the controller has to take the deassertion of lines of removed \
                 devices first, which `collect` tells it again";
    assert_eq!(error.to_string(), words);
    log.refuse(false);
    manager.collect();
    assert!(manager.register_device(&b, None, &[], IrqResource::Any).is_ok());
}

/// C24, C25.
#[test]
fn a_line_whose_deassertion_was_refused_goes_on_with_the_next_device_that_asks_for_it() {
    for (irq, asserts) in [(SHARED, false), (SHARED, true), (IrqResource::Fixed(Gsi(7)), false)] {
        let log = Log::default();
        manager!(let manager, with_interrupt_controller(&log));
        let (a, b) = (Source::new("a"), Source::new("b"));
        let id = manager.register_device(&a, None, &[], SHARED).unwrap();
        a.line().assert().unwrap();
        log.refuse(true);
        assert_eq!(remove(&manager, id, false), 1);
        manager.register_device(&b, None, &[], irq).unwrap();
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
        let [id, _] = [&a, &b].map(|device| manager.register_device(device, None, &[], SHARED).unwrap());
        a.line().assert().unwrap();
        log.refuse(true);
        assert_eq!(remove(&manager, id, deferred), 1, "nobody asserts it, and it is asserted");
        log.refuse(false);
        log.take();
        assert_eq!((manager.collect(), log.take()), (0, vec![Told::Level(7, false)]));
        assert_eq!((b.line().deassert(), log.take()), (Ok(()), vec![]));
    }
}

/// C25: the room for devices ends after the line was taken over.
#[test]
fn a_registration_that_fails_leaves_a_line_that_it_would_have_taken_over_as_it_was() {
    let log = Log::default();
    manager!(let manager: <1, 1, 1>, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let id = manager.register_device(&a, None, &[], SHARED).unwrap();
    a.line().assert().unwrap();
    log.refuse(true);
    manager.unregister_device(id).unwrap();
    let id = manager.register_device(&b, None, &[], IrqResource::None).unwrap();
    let full = RegisterError::TooManyDevices { device: "a", capacity: 1 };
    assert_eq!(manager.register_device(&a, None, &[], SHARED), Err(full));
    assert_eq!(manager.collect(), 1, "the line is owed as before");
    manager.unregister_device(id).unwrap();
    log.refuse(false);
    log.take();
    // Another line, in the same place, begins without an assertion that is not its own.
    manager.register_device(&b, None, &[], IrqResource::Fixed(Gsi(5))).unwrap();
    assert_eq!(log.take(), [Told::Level(7, false)]);
    assert_eq!((b.line().assert(), log.take()), (Ok(()), vec![Told::Level(5, true)]));
}

/// C25: while one caller collects, another registers a device on the line that is being told.
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
        let id = manager.register_device(&a, None, &[], SHARED).unwrap();
        a.line().assert().unwrap();
        refuses.store(true, SeqCst);
        manager.unregister_device(id).unwrap();
        held.store(true, SeqCst);
        let outcome = thread::scope(|scope| {
            scope.spawn(|| manager.collect());
            wait_for(&inside);
            let outcome = manager.register_device(&b, None, &[], IrqResource::Fixed(Gsi(7))).map(drop);
            refuses.store(false, SeqCst);
            held.store(false, SeqCst);
            outcome
        });
        assert_eq!((outcome, b.line().gsi()), (Ok(()), Some(Gsi(7))));
        assert_eq!((b.line().deassert(), manager.collect()), (Ok(()), 0));
    });
}

/// C2, C25: in the last call that one caller makes, for which others wait.
#[test]
fn a_controller_collects_in_any_call_without_waiting_for_itself() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    static CHANGES: AtomicUsize = AtomicUsize::new(0);
    static LEFT: AtomicUsize = AtomicUsize::new(0);
    static DEVICES: [Source<'static>; 2] = [Source::new("a"), Source::new("b")];
    // It stands still in the first calls until the line was changed, and collects in the fourth.
    static COLLECTING: OnLevel<fn(bool) -> Result<(), InterruptError>> = OnLevel(|_| {
        let call = CALLS.fetch_add(1, SeqCst) + 1;
        wait_until(|| call >= 4 || CHANGES.load(SeqCst) >= call);
        if call == 4 {
            LEFT.store(MANAGER.collect(), SeqCst);
        }
        Ok(())
    });
    manager!(static MANAGER, with_interrupt_controller(&COLLECTING));
    within_limit(|| {
        let ids = DEVICES.each_ref().map(|device| MANAGER.register_device(device, None, &[], SHARED).unwrap());
        MANAGER.unregister_device_deferred(ids[1]).unwrap();
        let line = DEVICES[0].line();
        thread::scope(|scope| {
            let teller = scope.spawn(move || line.assert());
            for change in 1..=3 {
                wait_until(|| CALLS.load(SeqCst) >= change);
                let told = if change % 2 == 1 { line.deassert() } else { line.assert() };
                assert_eq!(told, Err(InterruptError::Pending));
                CHANGES.store(change, SeqCst);
            }
            assert_eq!(teller.join().unwrap(), Ok(()));
        });
        assert_eq!(LEFT.load(SeqCst), 1, "the line of the removed device is left to be told");
        assert_eq!((MANAGER.collect(), MANAGER.walk().count()), (0, 1));
    });
}

/// A controller that unwinds as often as it is told to.
#[derive(Default)]
struct Unwinding {
    times: AtomicUsize,
    level: AtomicBool,
}

impl Unwinding {
    fn may_unwind(&self) {
        let left = self.times.fetch_update(SeqCst, SeqCst, |times| times.checked_sub(1));
        assert!(left.is_err(), "the controller could not be called");
    }
}

impl InterruptController for Unwinding {
    fn set_level(&self, _: Gsi, asserted: bool) -> Result<(), InterruptError> {
        self.may_unwind();
        self.level.store(asserted, SeqCst);
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        self.may_unwind();
        Ok(())
    }
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        self.may_unwind();
        Ok(())
    }
}

/// C24, C27.
#[test]
fn a_controller_that_unwinds_has_not_taken_what_it_was_told_and_the_line_lives_on() {
    let controller = Unwinding::default();
    manager!(let manager, with_interrupt_controller(&controller));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let id = manager.register_device(&a, None, &[], SHARED).unwrap();
    manager.register_device(&b, None, &[], SHARED).unwrap();
    let unwind = || controller.times.store(1, SeqCst);
    let level = || controller.level.load(SeqCst);
    unwind();
    assert!(unwinds(|| a.line().assert()) && !level());
    assert_eq!((b.line().deassert(), level()), (Ok(()), true), "the other device's drive tells of it");
    unwind();
    assert!(unwinds(|| a.line().message(GuestAddress(0), 0)));
    unwind();
    assert!(unwinds(|| manager.unregister_device(id)) && level(), "the last source's deassertion was not taken");
    assert!(manager.device(id).is_none(), "the removal is complete all the same");
    assert_eq!((b.line().deassert(), level()), (Ok(()), false));
    assert_eq!(manager.register_device(&a, None, &[], SHARED).map(drop), Ok(()));
}

/// C27.
#[test]
fn a_controller_that_unwinds_during_a_removal_leaves_nothing_half_removed() {
    for deferred in [false, true] {
        let controller = Unwinding::default();
        manager!(let manager, with_interrupt_controller(&controller));
        let (bus, child) = (Source::new("bus"), Source::new("child"));
        let bus_id = manager.register_device(&bus, None, &[], IrqResource::Fixed(Gsi(5))).unwrap();
        let child_id = manager.register_device(&child, Some(bus_id), &[], IrqResource::Fixed(Gsi(6))).unwrap();
        for device in [&bus, &child] {
            device.line().assert().unwrap();
        }
        controller.times.store(1, SeqCst);
        match deferred {
            false => assert!(unwinds(|| manager.unregister_subtree(bus_id))),
            true => {
                manager.unregister_device_deferred(child_id).unwrap();
                assert!(unwinds(|| manager.collect()));
                manager.unregister_device_deferred(bus_id).unwrap();
            }
        }
        assert!(manager.device(child_id).is_none());
        assert_eq!(bus.line().assert(), Err(InterruptError::Removed), "the rest is left to `collect`");
        // While it unwinds, it tells nobody anything, and finishes the nodes all the same.
        controller.times.store(1, SeqCst);
        assert!(unwinds(|| manager.collect()));
        assert_eq!(manager.walk().count(), 0);
        assert_eq!(manager.collect(), 0);
        assert!(!controller.level.load(SeqCst));
        for gsi in [5, 6] {
            let id = manager.register_device(&bus, None, &[], IrqResource::Fixed(Gsi(gsi))).unwrap();
            manager.unregister_device(id).unwrap();
        }
    }
}

/// C26.
#[test]
fn one_caller_tells_the_controller_of_a_bounded_number_of_changes_that_others_make() {
    const TELLINGS: usize = 4;
    within_limit(|| {
        let [calls, changes] = [0; 2].map(AtomicUsize::new);
        let (caller, level) = (thread::current().id(), AtomicBool::new(false));
        // During its calls on one thread, another thread changes the line.
        let changing = OnLevel(|asserted| {
            if thread::current().id() == caller {
                let calls = calls.fetch_add(1, SeqCst) + 1;
                let before = changes.load(SeqCst);
                // An odd number of changes, so that the level is another one; before the last call, others wait.
                wait_until(|| calls >= TELLINGS || changes.load(SeqCst) != before);
            }
            level.store(asserted, SeqCst);
            Ok(())
        });
        manager!(let manager, with_interrupt_controller(&changing));
        let (a, b) = (Source::new("a"), Source::new("b"));
        for device in [&a, &b] {
            manager.register_device(device, None, &[], SHARED).unwrap();
        }
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut asserted = false;
                while !stop.load(SeqCst) {
                    asserted = !asserted;
                    let told = if asserted { b.line().assert() } else { b.line().deassert() };
                    assert!(matches!(told, Ok(()) | Err(InterruptError::Pending)), "{told:?}");
                    changes.fetch_add(1, SeqCst);
                }
            });
            for _ in 0..if cfg!(miri) { 1 } else { 20 } {
                calls.store(0, SeqCst);
                // The level changes with the other device's alone.
                let _ = a.line().deassert();
                assert!(calls.load(SeqCst) <= TELLINGS);
            }
            stop.store(true, SeqCst);
        });
        // From here on the controller waits for nobody.
        calls.store(TELLINGS, SeqCst);
        b.line().assert().unwrap();
        assert!(level.load(SeqCst), "no change is lost");
    });
}

/// C23.
#[test]
fn two_threads_on_one_line_end_at_the_level_they_left() {
    let [inside, level] = [false; 2].map(AtomicBool::new);
    let [violations, changes] = [0; 2].map(AtomicUsize::new);
    // It notes what must not be: two calls for one line at once, or the same level twice.
    let strict = OnLevel(|asserted| {
        let overlapped = inside.swap(true, Ordering::AcqRel);
        let repeated = level.swap(asserted, Ordering::AcqRel) == asserted;
        violations.fetch_add(usize::from(overlapped) + usize::from(repeated), Ordering::Relaxed);
        changes.fetch_add(1, Ordering::Relaxed);
        inside.store(false, Ordering::Release);
        Ok(())
    });
    manager!(let manager, with_interrupt_controller(&strict));
    let devices = [Source::new("a"), Source::new("b")];
    for device in &devices {
        manager.register_device(device, None, &[], SHARED).unwrap();
    }
    let together = Barrier::new(2);
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    thread::scope(|scope| {
        for device in &devices {
            let (together, level) = (&together, &level);
            scope.spawn(move || {
                let line = device.line();
                let drive = |asserted: bool| {
                    let told = if asserted { line.assert() } else { line.deassert() };
                    assert!(matches!(told, Ok(()) | Err(InterruptError::Pending)), "{told:?}");
                };
                for round in 0..rounds {
                    drive(true);
                    if round % 3 != 0 {
                        drive(false);
                        drive(true);
                    }
                    together.wait();
                    assert!(level.load(Ordering::Acquire), "both assert it");
                    together.wait();
                    drive(false);
                    together.wait();
                    assert!(!level.load(Ordering::Acquire), "neither asserts it");
                    together.wait();
                }
            });
        }
    });
    assert_eq!(violations.load(Ordering::Relaxed), 0);
    assert!(changes.load(Ordering::Relaxed) >= 2 * rounds);
}

/// A controller that looks at the manager: it would wait for itself if the writers' lock were held.
struct Looking;

static LOOKED: AtomicUsize = AtomicUsize::new(0);
manager!(static LOOKED_AT, with_interrupt_controller(&Looking));

impl InterruptController for Looking {
    fn set_level(&self, gsi: Gsi, _: bool) -> Result<(), InterruptError> {
        assert!(LOOKED_AT.walk().all(|info| info.gsi == Some(gsi)));
        // It refuses the first deassertion of each registration.
        match LOOKED.fetch_add(1, Ordering::Relaxed) % 3 {
            1 => Err(InterruptError::Refused),
            _ => Ok(()),
        }
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        LOOKED_AT.collect();
        Ok(())
    }
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        LOOKED_AT.collect();
        Ok(())
    }
}

/// C2.
#[test]
fn the_controller_is_called_without_the_lock_that_writers_hold() {
    static DEVICE: Source<'static> = Source::new("device");
    within_limit(|| {
        for deferred in [false, true] {
            let id = LOOKED_AT.register_device(&DEVICE, None, &[], IrqResource::Any).unwrap();
            let line = DEVICE.line();
            assert_eq!([line.pulse(), line.message(GuestAddress(0), 0), line.assert()], [Ok(()); 3]);
            let left = match deferred {
                false => LOOKED_AT.unregister_device(id).map(|()| LOOKED_AT.collect()),
                true => LOOKED_AT.unregister_device_deferred(id).map(|()| LOOKED_AT.collect()),
            };
            assert_eq!(left, Ok(0), "the refused deassertion was told again");
        }
        assert_eq!(LOOKED.load(Ordering::Relaxed), 6);
    });
}

/// C26.
#[test]
fn the_change_after_the_fourth_call_is_told_by_the_caller_that_made_it() {
    static SOURCE: Source<'static> = Source::new("opposed");
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    static LAST: Mutex<Option<thread::JoinHandle<Result<(), InterruptError>>>> = Mutex::new(None);
    // During each of its calls another thread changes the level back.
    static OPPOSED: OnLevel<fn(bool) -> Result<(), InterruptError>> = OnLevel(|asserted| {
        let calls = CALLS.fetch_add(1, SeqCst) + 1;
        if calls > 4 {
            return Ok(());
        }
        let line = SOURCE.line();
        let change = thread::spawn(move || if asserted { line.deassert() } else { line.assert() });
        if calls < 4 {
            assert_eq!(change.join().unwrap(), Err(InterruptError::Pending));
        } else {
            // It waits until this call is over; if it did not, it would have changed the level by then.
            thread::sleep(Duration::from_millis(50));
            *LAST.lock() = Some(change);
        }
        Ok(())
    });
    manager!(static MANAGER, with_interrupt_controller(&OPPOSED));
    within_limit(|| {
        MANAGER.register_device(&SOURCE, None, &[], IrqResource::Any).unwrap();
        assert_eq!(SOURCE.line().assert(), Err(InterruptError::Pending));
        let last = LAST.lock().take().unwrap();
        assert_eq!(last.join().unwrap(), Ok(()));
        assert_eq!(CALLS.load(SeqCst), 5);
    });
}

/// A controller that does not take an assertion before it may go on.
fn slow(inside: &AtomicBool, go_on: &AtomicBool) -> OnLevel<impl Fn(bool) -> Result<(), InterruptError>> {
    OnLevel(|asserted| {
        if asserted {
            inside.store(true, SeqCst);
            wait_for(go_on);
            inside.store(false, SeqCst);
        }
        Ok(())
    })
}

/// C23.
#[test]
fn a_change_that_another_caller_tells_is_pending_and_not_ok() {
    within_limit(|| {
        let [inside, go_on] = [false; 2].map(AtomicBool::new);
        let slow = slow(&inside, &go_on);
        manager!(let manager, with_interrupt_controller(&slow));
        let (a, b) = (Source::new("a"), Source::new("b"));
        for device in [&a, &b] {
            manager.register_device(device, None, &[], SHARED).unwrap();
        }
        thread::scope(|scope| {
            let line = a.line();
            let first = scope.spawn(move || line.assert());
            wait_for(&inside);
            let told = [b.line().assert(), b.line().deassert()];
            go_on.store(true, SeqCst);
            assert_eq!(told, [Err(InterruptError::Pending); 2]);
            assert_eq!(first.join().unwrap(), Ok(()));
        });
    });
}

/// C15.
#[test]
fn collect_waits_for_no_call_of_a_handle() {
    within_limit(|| {
        let [inside, go_on] = [false; 2].map(AtomicBool::new);
        let slow = slow(&inside, &go_on);
        manager!(let manager, with_interrupt_controller(&slow));
        let a = Source::new("a");
        let id = manager.register_device(&a, None, &[], SHARED).unwrap();
        thread::scope(|scope| {
            let line = a.line();
            scope.spawn(move || line.assert());
            wait_for(&inside);
            manager.unregister_device_deferred(id).unwrap();
            let left = manager.collect();
            go_on.store(true, SeqCst);
            assert_eq!(left, 1, "a call of the handle is under way");
        });
        assert_eq!(manager.collect(), 0);
    });
}

#[test]
fn a_removal_waits_for_calls_of_the_handle() {
    let [inside, go_on] = [false; 2].map(AtomicBool::new);
    let slow = slow(&inside, &go_on);
    manager!(let manager, with_interrupt_controller(&slow));
    let a = Source::new("a");
    let id = manager.register_device(&a, None, &[IoResource::mmio(0, 1)], SHARED).unwrap();
    thread::scope(|scope| {
        let line = a.line();
        scope.spawn(move || line.assert());
        wait_for(&inside);
        let removal = scope.spawn(|| {
            manager.unregister_device(id).unwrap();
            assert!(!inside.load(SeqCst), "a call of the handle outlives the removal");
        });
        // Accesses go elsewhere at once, though the removal is not over.
        while manager.read(GuestAddress(0), &mut [0], IoType::Mmio).is_ok() {
            thread::yield_now();
        }
        // The handles are turned away next.
        while a.line().assert() != Err(InterruptError::Removed) {
            thread::yield_now();
        }
        assert!(!removal.is_finished());
        go_on.store(true, SeqCst);
    });
}

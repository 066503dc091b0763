//! What devices do to the interrupt controller, through the handles they are given.

mod fixture;

use std::sync::Barrier;
use std::sync::atomic::Ordering::{self, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::Duration;

use spin::Mutex;
use vm_device::{Gsi, GuestAddress, InterruptController, InterruptError, IoResource, IoType, IrqResource};

use fixture::{Log, OnLevel, Source, Told, drive, manager, wait_for, wait_until, within_limit};

const SHARED: IrqResource = IrqResource::Shared(Gsi(7));

/// C23.
#[test]
fn a_shared_line_is_asserted_while_any_source_asserts_it() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    for device in [&a, &b] {
        manager.register_device(device, None, &[], &[SHARED]).unwrap();
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
        assert_eq!(drive(line, assert), Ok(()));
        assert_eq!(log.take(), told.map(|level| Told::Level(7, level)).into_iter().collect::<Vec<_>>());
    }
    assert_eq!(a.line().pulse(), Err(InterruptError::SharedLine));
    assert_eq!(log.take(), []);
}

#[test]
fn edges_and_messages_go_through() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (edge, message) = (Source::new("edge"), Source::new("message"));
    manager.register_device(&edge, None, &[], &[IrqResource::Any]).unwrap();
    manager.register_device(&message, None, &[], &[]).unwrap();
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
    let id = manager.register_device(&a, None, &[], &[IrqResource::Any]).unwrap();
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
        manager.register_device(device, None, &[], &[SHARED]).unwrap();
    }
    let (refused, high, low) = (Err(InterruptError::Refused), [Told::Level(7, true)], [Told::Level(7, false)]);
    log.refuse(true);
    assert_eq!((a.line().assert(), log.take()), (refused, high.into()));
    // Told again at the same device's next drive, and at that of another one on the line.
    assert_eq!((a.line().assert(), log.take()), (refused, high.into()));
    assert_eq!((b.line().assert(), log.take()), (refused, high.into()));
    assert_eq!((b.line().deassert(), log.take()), (refused, high.into()));
    log.refuse(false);
    assert_eq!((b.line().deassert(), log.take()), (Ok(()), high.into()), "a still asserts it");
    assert_eq!((a.line().assert(), log.take()), (Ok(()), vec![]), "it has been taken");
    // The same the other way.
    log.refuse(true);
    assert_eq!((a.line().deassert(), log.take()), (refused, low.into()));
    assert_eq!((b.line().deassert(), log.take()), (refused, low.into()));
    log.refuse(false);
    assert_eq!((b.line().deassert(), log.take()), (Ok(()), low.into()));
    assert_eq!((a.line().deassert(), log.take()), (Ok(()), vec![]));
    // A refused level that is not the line's any more is not told: the controller has what it took last.
    log.refuse(true);
    assert_eq!((a.line().assert(), log.take()), (refused, high.into()));
    assert_eq!((a.line().deassert(), log.take()), (Ok(()), vec![]));
    assert_eq!([a.line().pulse(), a.line().message(GuestAddress(0), 0)], [Err(InterruptError::SharedLine), refused]);
}

/// C2, C25.
/// In the last call that one caller makes, for which others wait.
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
        let ids = DEVICES.each_ref().map(|device| MANAGER.register_device(device, None, &[], &[SHARED]).unwrap());
        MANAGER.unregister_device_deferred(ids[1]).unwrap();
        let line = DEVICES[0].line();
        thread::scope(|scope| {
            let teller = scope.spawn(move || line.assert());
            for change in 1..=3 {
                wait_until(|| CALLS.load(SeqCst) >= change);
                let told = drive(line, change % 2 == 0);
                assert_eq!(told, Err(InterruptError::Pending));
                CHANGES.store(change, SeqCst);
            }
            assert_eq!(teller.join().unwrap(), Ok(()));
        });
        assert_eq!(LEFT.load(SeqCst), 1, "the line of the removed device is left to be told");
        assert_eq!((MANAGER.collect(), MANAGER.walk().count()), (0, 1));
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
        manager.register_device(device, None, &[], &[SHARED]).unwrap();
    }
    let together = Barrier::new(2);
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    thread::scope(|scope| {
        for device in &devices {
            let (together, level) = (&together, &level);
            scope.spawn(move || {
                let line = device.line();
                let drive = |asserted: bool| {
                    let told = drive(line, asserted);
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
        let irqs = LOOKED_AT.walk().map(|info| LOOKED_AT.irq(info.id, 0).and_then(|irq| irq.gsi));
        irqs.for_each(|of_device| assert_eq!(of_device, Some(gsi)));
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
            let id = LOOKED_AT.register_device(&DEVICE, None, &[], &[IrqResource::Any]).unwrap();
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
    static CHANGES: AtomicUsize = AtomicUsize::new(0);
    static LAST: Mutex<Option<thread::JoinHandle<Result<(), InterruptError>>>> = Mutex::new(None);
    // During each of its calls another thread changes the level back.
    static OPPOSED: OnLevel<fn(bool) -> Result<(), InterruptError>> = OnLevel(|asserted| {
        let calls = CALLS.fetch_add(1, SeqCst) + 1;
        if calls > 4 {
            return Ok(());
        }
        let line = SOURCE.line();
        let change = thread::spawn(move || {
            CHANGES.fetch_add(1, SeqCst);
            drive(line, !asserted)
        });
        if calls < 4 {
            assert_eq!(change.join().unwrap(), Err(InterruptError::Pending));
        } else {
            // It waits until this call is over; if it did not, it would have changed the level by then.
            wait_until(|| CHANGES.load(SeqCst) == 4);
            thread::sleep(Duration::from_millis(if cfg!(miri) { 1000 } else { 50 }));
            *LAST.lock() = Some(change);
        }
        Ok(())
    });
    manager!(static MANAGER, with_interrupt_controller(&OPPOSED));
    within_limit(|| {
        MANAGER.register_device(&SOURCE, None, &[], &[IrqResource::Any]).unwrap();
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
            manager.register_device(device, None, &[], &[SHARED]).unwrap();
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
        let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
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
    within_limit(|| {
        let [inside, go_on] = [false; 2].map(AtomicBool::new);
        let slow = slow(&inside, &go_on);
        manager!(let manager, with_interrupt_controller(&slow));
        let a = Source::new("a");
        let id = manager.register_device(&a, None, &[IoResource::mmio(0, 1)], &[SHARED]).unwrap();
        thread::scope(|scope| {
            let line = a.line();
            scope.spawn(move || line.assert());
            wait_for(&inside);
            let removal = scope.spawn(|| {
                manager.unregister_device(id).unwrap();
                assert!(!inside.load(SeqCst), "a call of the handle outlives the removal");
            });
            // Accesses go elsewhere at once, though the removal is not over.
            wait_until(|| manager.read(GuestAddress(0), &mut [0], IoType::Mmio).is_err());
            // The handles are turned away next.
            wait_until(|| a.line().assert() == Err(InterruptError::Removed));
            assert!(!removal.is_finished());
            go_on.store(true, SeqCst);
        });
    });
}

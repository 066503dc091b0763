//! The end of an interrupt: which devices are told of it, and what the controller is told afterwards.

mod fixture;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;

use spin::Mutex;
use vm_device::{
    Access, Device, DeviceManager, Gsi, InterruptError, IrqLine, IrqResource, Rejected, Resources, UnregisterError,
};

use fixture::{Log, OnLevel, Told, manager, wait_for, wait_until, within_limit};

const SHARED: IrqResource = IrqResource::Shared(Gsi(7));

/// Notes the ends of its interrupts, and does something at each.
struct Ended<'d> {
    name: &'static str,
    lines: Mutex<Vec<IrqLine<'d>>>,
    ends: Mutex<Vec<usize>>,
    act: Option<&'d (dyn Fn(&Ended<'d>) + Sync)>,
}

impl<'d> Ended<'d> {
    const fn new(name: &'static str) -> Self {
        Self { name, lines: Mutex::new(Vec::new()), ends: Mutex::new(Vec::new()), act: None }
    }

    const fn acting(name: &'static str, act: &'d (dyn Fn(&Ended<'d>) + Sync)) -> Self {
        Self { name, lines: Mutex::new(Vec::new()), ends: Mutex::new(Vec::new()), act: Some(act) }
    }

    fn line(&self, index: usize) -> IrqLine<'d> {
        self.lines.lock()[index]
    }

    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.ends.lock())
    }
}

impl<'d> Device<'d> for Ended<'d> {
    fn name(&self) -> &str {
        self.name
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        *self.lines.lock() = (0..3).map(|index| resources.irq(index)).collect();
        Ok(())
    }
    fn end_of_interrupt(&self, index: usize) {
        self.ends.lock().push(index);
        if let Some(act) = self.act {
            act(self);
        }
    }
}

/// C38.
#[test]
fn every_device_of_the_line_hears_of_the_end_and_no_other() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let devices = ["a", "b", "c"].map(Ended::new);
    let [a, b, c] = &devices;
    let irqs = [vec![IrqResource::Any, SHARED], vec![SHARED, SHARED], vec![IrqResource::Fixed(Gsi(8))]];
    let mut ids = Vec::new();
    for (device, irqs) in devices.iter().zip(&irqs) {
        ids.push(manager.register_device(device, None, &[], irqs).unwrap());
    }
    assert_eq!(manager.end_of_interrupt(Gsi(7)), Ok(()));
    assert_eq!([a, b, c].map(Ended::take), [vec![1], vec![0, 1], vec![]]);
    assert_eq!(manager.end_of_interrupt(Gsi(8)), Ok(()));
    assert_eq!([a, b, c].map(Ended::take), [vec![], vec![], vec![0]]);
    assert_eq!(log.take(), [], "no line is asserted");

    manager.unregister_device(ids[1]).unwrap();
    manager.reroute(ids[2], 0, None).unwrap();
    assert_eq!(manager.end_of_interrupt(Gsi(7)), Ok(()));
    assert_eq!([a, b, c].map(Ended::take), [vec![1], vec![], vec![]]);
    for gsi in [0, 6, 8, 9, u32::MAX] {
        assert_eq!(manager.end_of_interrupt(Gsi(gsi)), Err(InterruptError::NoLine));
    }
}

/// C38.
#[test]
fn a_line_that_is_asserted_still_is_told_again() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Ended::new("a"), Ended::new("b"));
    for device in [&a, &b] {
        manager.register_device(device, None, &[], &[SHARED]).unwrap();
    }
    let (high, low) = (Told::Level(7, true), Told::Level(7, false));
    a.line(0).assert().unwrap();
    assert_eq!(log.take(), [high]);
    assert_eq!((manager.end_of_interrupt(Gsi(7)), log.take()), (Ok(()), vec![high]));
    b.line(0).assert().unwrap();
    a.line(0).deassert().unwrap();
    assert_eq!((manager.end_of_interrupt(Gsi(7)), log.take()), (Ok(()), vec![high]));
    // What the controller refuses then is told again by the next drive.
    log.refuse(true);
    assert_eq!((manager.end_of_interrupt(Gsi(7)), log.take()), (Err(InterruptError::Refused), vec![high]));
    log.refuse(false);
    assert_eq!((a.line(0).deassert(), log.take()), (Ok(()), vec![high]));
    assert_eq!((b.line(0).deassert(), log.take()), (Ok(()), vec![low]));
    assert_eq!((manager.end_of_interrupt(Gsi(7)), log.take()), (Ok(()), vec![]));
}

/// C38. A device that lets its line go when it hears of the end is not told again.
#[test]
fn devices_hear_of_the_end_before_the_controller_is_told_again() {
    let log = Log::default();
    let let_go = |device: &Ended<'_>| device.line(0).deassert().unwrap();
    manager!(let manager, with_interrupt_controller(&log));
    let a = Ended::acting("a", &let_go);
    manager.register_device(&a, None, &[], &[SHARED]).unwrap();
    a.line(0).assert().unwrap();
    log.take();
    assert_eq!(manager.end_of_interrupt(Gsi(7)), Ok(()));
    assert_eq!(log.take(), [Told::Level(7, false)]);
}

/// C38.
#[test]
fn an_end_that_comes_while_the_controller_is_told_is_not_lost() {
    within_limit(|| {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        static DEVICE: Ended<'static> = Ended::new("device");
        // During the first call, the interrupt ends on another processor.
        static CONTROLLER: OnLevel<fn(bool) -> Result<(), InterruptError>> = OnLevel(|asserted| {
            assert!(asserted);
            if CALLS.fetch_add(1, SeqCst) == 0 {
                let ended = thread::spawn(|| MANAGER.end_of_interrupt(Gsi(5)));
                assert_eq!(ended.join().unwrap(), Err(InterruptError::Pending));
            }
            Ok(())
        });
        manager!(static MANAGER, with_interrupt_controller(&CONTROLLER));
        MANAGER.register_device(&DEVICE, None, &[], &[IrqResource::Any]).unwrap();
        assert_eq!(DEVICE.line(0).assert(), Ok(()));
        assert_eq!((CALLS.load(SeqCst), DEVICE.take()), (2, vec![0]));
    });
}

/// C26, C38.
#[test]
fn ends_that_come_during_each_call_are_told_by_one_caller_four_times_at_most() {
    within_limit(|| {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        static DEVICE: Ended<'static> = Ended::new("device");
        static LAST: Mutex<Option<thread::JoinHandle<Result<(), InterruptError>>>> = Mutex::new(None);
        static CONTROLLER: OnLevel<fn(bool) -> Result<(), InterruptError>> = OnLevel(|_| {
            let calls = CALLS.fetch_add(1, SeqCst) + 1;
            let end = || thread::spawn(|| MANAGER.end_of_interrupt(Gsi(5)));
            match calls {
                1..=3 => assert_eq!(end().join().unwrap(), Err(InterruptError::Pending)),
                // It waits until this call is over.
                4 => *LAST.lock() = Some(end()),
                _ => {}
            }
            Ok(())
        });
        manager!(static MANAGER, with_interrupt_controller(&CONTROLLER));
        MANAGER.register_device(&DEVICE, None, &[], &[IrqResource::Any]).unwrap();
        // The fourth end is noted before or after the last look of this call.
        let told = DEVICE.line(0).assert();
        assert!(matches!(told, Ok(()) | Err(InterruptError::Pending)), "{told:?}");
        assert!(CALLS.load(SeqCst) >= 4);
        let last = LAST.lock().take().unwrap();
        assert_eq!(last.join().unwrap(), Ok(()));
        assert_eq!(CALLS.load(SeqCst), 5);
    });
}

/// C2, C10, C38. It waits as for a callback, and the device may call the manager.
#[test]
fn a_removal_waits_for_a_device_that_hears_of_an_end() {
    within_limit(|| {
        static HELD: AtomicBool = AtomicBool::new(true);
        static INSIDE: AtomicBool = AtomicBool::new(false);
        static ACT: fn(&Ended<'static>) = |device| {
            assert_eq!(MANAGER.walk().count(), 1);
            INSIDE.store(true, SeqCst);
            wait_until(|| !HELD.load(SeqCst));
            assert_eq!(device.line(0).deassert(), Err(InterruptError::Removed));
        };
        static DEVICE: Ended<'static> = Ended::acting("device", &ACT);
        static MANAGER: DeviceManager<'static> =
            DeviceManager::new(&STORAGE, fixture::everything().with_irqs(5, 8)).with_removal_spins(10);
        static STORAGE: vm_device::Storage<'static, 2, 2, 1> = vm_device::Storage::new();
        let id = MANAGER.register_device(&DEVICE, None, &[], &[IrqResource::Any]).unwrap();
        let end = thread::spawn(|| MANAGER.end_of_interrupt(Gsi(5)));
        wait_for(&INSIDE);
        assert_eq!(MANAGER.unregister_device(id), Err(UnregisterError::InUse { device: "device" }));
        MANAGER.unregister_device_deferred(id).unwrap();
        assert_eq!(MANAGER.collect(), 1);
        // The next end finds no device.
        assert_eq!(MANAGER.end_of_interrupt(Gsi(5)), Err(InterruptError::NoLine));
        HELD.store(false, SeqCst);
        assert_eq!(end.join().unwrap(), Err(InterruptError::NoController));
        assert_eq!(MANAGER.collect(), 0);
    });
}

/// C27, C38.
#[test]
fn a_device_that_unwinds_leaves_nothing_stuck() {
    let log = Log::default();
    let unwind = |_: &Ended<'_>| panic!("the device unwinds");
    manager!(let manager, with_interrupt_controller(&log));
    let a = Ended::acting("a", &unwind);
    let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| manager.end_of_interrupt(Gsi(7)))).is_err());
    assert_eq!(manager.unregister_device(id), Ok(()));
}

/// C27, C38.
#[test]
fn a_line_whose_device_unwinds_from_an_end_is_told_again_by_the_next_drive() {
    let log = Log::default();
    let unwind = |_: &Ended<'_>| panic!("the device unwinds");
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Ended::acting("a", &unwind), Ended::new("b"));
    for device in [&a, &b] {
        manager.register_device(device, None, &[], &[SHARED]).unwrap();
    }
    b.line(0).assert().unwrap();
    log.take();
    assert!(catch_unwind(AssertUnwindSafe(|| manager.end_of_interrupt(Gsi(7)))).is_err());
    assert_eq!((b.line(0).assert(), log.take()), (Ok(()), vec![Told::Level(7, true)]));
    assert_eq!((b.line(0).assert(), log.take()), (Ok(()), vec![]));
}

/// C23, C25, C38.
#[test]
fn a_level_that_is_refused_after_an_end_is_still_the_one_that_was_taken_before() {
    for unwinds in [false, true] {
        let fails = AtomicBool::new(false);
        let level = AtomicBool::new(false);
        let controller = OnLevel(|asserted: bool| {
            if fails.load(SeqCst) {
                assert!(!unwinds, "the controller unwinds");
                return Err(InterruptError::Refused);
            }
            level.store(asserted, SeqCst);
            Ok(())
        });
        manager!(let manager, with_interrupt_controller(&controller));
        let a = Ended::new("a");
        let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
        a.line(0).assert().unwrap();
        fails.store(true, SeqCst);
        let ended = catch_unwind(AssertUnwindSafe(|| manager.end_of_interrupt(Gsi(7))));
        assert_eq!(ended.ok(), (!unwinds).then_some(Err(InterruptError::Refused)));
        fails.store(false, SeqCst);
        assert_eq!((a.line(0).deassert(), level.load(SeqCst)), (Ok(()), false), "it was asserted, as far as one knows");
        assert_eq!(manager.unregister_device(id), Ok(()));
        assert_eq!(manager.collect(), 0);
    }
}

/// C38. While one device hears of the end, the line gets another source, and loses those that it had.
#[test]
fn the_sources_that_a_line_has_when_the_devices_were_told_decide() {
    static LEVEL: AtomicBool = AtomicBool::new(false);
    static CONTROLLER: OnLevel<fn(bool) -> Result<(), InterruptError>> = OnLevel(|asserted| {
        LEVEL.store(asserted, SeqCst);
        Ok(())
    });
    static NEW: Ended<'static> = Ended::new("new");
    static ACT: fn(&Ended<'static>) = |_| {
        let change = || {
            MANAGER.register_device(&NEW, None, &[], &[SHARED]).unwrap();
            NEW.line(0).assert().unwrap();
            let old = MANAGER.find_by_path("/old").unwrap();
            MANAGER.reroute(old, 0, None).unwrap();
        };
        thread::spawn(change).join().unwrap();
    };
    static OLD: Ended<'static> = Ended::acting("old", &ACT);
    manager!(static MANAGER, with_interrupt_controller(&CONTROLLER));
    MANAGER.register_device(&OLD, None, &[], &[SHARED]).unwrap();
    OLD.line(0).assert().unwrap();
    // The controller lets the line go.
    LEVEL.store(false, SeqCst);
    assert_eq!(MANAGER.end_of_interrupt(Gsi(7)), Ok(()));
    assert!(LEVEL.load(SeqCst), "the new device asserts it");
}

/// C38.
#[test]
fn a_device_that_asserts_before_it_is_registered_is_told_again_too() {
    static LEVEL: AtomicBool = AtomicBool::new(false);
    static CONTROLLER: OnLevel<fn(bool) -> Result<(), InterruptError>> = OnLevel(|asserted| {
        LEVEL.store(asserted, SeqCst);
        Ok(())
    });
    /// Asserts its line as soon as it has it, and the guest serves that at once.
    struct Eager;
    impl<'d> Device<'d> for Eager {
        fn name(&self) -> &str {
            "eager"
        }
        fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
            resources.irq(0).assert().unwrap();
            LEVEL.store(false, SeqCst);
            assert_eq!(thread::spawn(|| MANAGER.end_of_interrupt(Gsi(7))).join().unwrap(), Ok(()));
            Ok(())
        }
    }
    static EAGER: Eager = Eager;
    manager!(static MANAGER, with_interrupt_controller(&CONTROLLER));
    MANAGER.register_device(&EAGER, None, &[], &[SHARED]).unwrap();
    assert!(LEVEL.load(SeqCst));
}

/// C37. The device that was told first is removed meanwhile, and another one gets its places.
#[test]
fn an_end_does_not_use_the_handle_of_a_device_that_is_being_removed() {
    within_limit(|| {
        static ARMED: AtomicBool = AtomicBool::new(false);
        static HELD: [AtomicBool; 3] = [const { AtomicBool::new(true) }; 3];
        static INSIDE: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];
        fn stand(place: usize) {
            INSIDE[place].store(true, SeqCst);
            wait_until(|| !HELD[place].load(SeqCst));
        }
        // It stands still when the removed device's first line is let go, and when the shared line is told again.
        struct Standing;
        impl vm_device::InterruptController for Standing {
            fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
                match (gsi.0, asserted) {
                    (8, false) => stand(0),
                    (7, true) if ARMED.load(SeqCst) => stand(2),
                    _ => {}
                }
                Ok(())
            }
            fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
                Ok(())
            }
            fn message(&self, _: vm_device::GuestAddress, _: u32) -> Result<(), InterruptError> {
                Ok(())
            }
        }
        static CONTROLLER: Standing = Standing;
        static ACT: fn(&Ended<'static>) = |_| stand(1);
        static DEVICES: [Ended<'static>; 3] = [Ended::new("a"), Ended::acting("b", &ACT), Ended::new("c")];
        manager!(static MANAGER, with_interrupt_controller(&CONTROLLER));
        let [a, b, c] = &DEVICES;
        let id = MANAGER.register_device(a, None, &[], &[IrqResource::Fixed(Gsi(8)), SHARED]).unwrap();
        MANAGER.register_device(b, None, &[], &[SHARED]).unwrap();
        a.line(0).assert().unwrap();
        b.line(0).assert().unwrap();
        ARMED.store(true, SeqCst);
        let end = thread::spawn(|| MANAGER.end_of_interrupt(Gsi(7)));
        wait_for(&INSIDE[1]);
        let removal = thread::spawn(move || MANAGER.unregister_device(id));
        wait_for(&INSIDE[0]);
        HELD[1].store(false, SeqCst);
        wait_for(&INSIDE[2]);
        HELD[0].store(false, SeqCst);
        assert_eq!(removal.join().unwrap(), Ok(()));
        MANAGER.register_device(c, None, &[], &[IrqResource::Fixed(Gsi(5)), IrqResource::Fixed(Gsi(6))]).unwrap();
        HELD[2].store(false, SeqCst);
        assert_eq!(end.join().unwrap(), Ok(()));
        assert_eq!([0, 1].map(|index| c.line(index).assert()), [Ok(()); 2]);
    });
}

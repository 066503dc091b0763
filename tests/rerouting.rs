//! Devices with several interrupts, and interrupts that move to other lines.

mod fixture;

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;

use spin::Mutex;
use vm_device::{
    Access, AssignedIrq, Device, DeviceManager, Gsi, InstanceId, InterruptError, IrqLine, IrqRefusal, IrqResource,
    MAX_IRQS_PER_DEVICE, Owner, RegisterError, Rejected, RerouteError, Resources, UnregisterError,
};

use fixture::{Constant, Log, OnLevel, Source, Told, drive, is_refused, manager, wait_for, within_limit};

const SHARED: IrqResource = IrqResource::Shared(Gsi(7));

/// Keeps all the handles that it is given.
struct Pins<'d> {
    name: &'static str,
    lines: Mutex<Vec<IrqLine<'d>>>,
    accepts: bool,
}

impl<'d> Pins<'d> {
    const fn new(name: &'static str) -> Self {
        Self { name, lines: Mutex::new(Vec::new()), accepts: true }
    }

    fn line(&self, index: usize) -> IrqLine<'d> {
        self.lines.lock()[index]
    }
}

impl<'d> Device<'d> for Pins<'d> {
    fn name(&self) -> &str {
        self.name
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        *self.lines.lock() = (0..MAX_IRQS_PER_DEVICE + 1).map(|index| resources.irq(index)).collect();
        if self.accepts { Ok(()) } else { Err(Rejected::new(7)) }
    }
}

/// The lines of a device.
fn gsis(manager: &DeviceManager<'_>, id: InstanceId) -> Vec<Option<u32>> {
    let irqs = (0..).map_while(|index| manager.irq(id, index));
    irqs.map(|irq: AssignedIrq| irq.gsi.map(|gsi| gsi.0)).collect()
}

#[test]
fn a_device_has_as_many_interrupts_as_it_asks_for_each_with_a_handle_of_its_own() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (keyboard, timer) = (Pins::new("keyboard"), Pins::new("timer"));
    let lines = [IrqResource::Fixed(Gsi(5)), IrqResource::Fixed(Gsi(8))];
    let keyboard_id = manager.register_device(&keyboard, None, &[], &lines).unwrap();
    let lines = [IrqResource::Any, SHARED, SHARED];
    let timer_id = manager.register_device(&timer, None, &[], &lines).unwrap();
    assert_eq!(gsis(&manager, keyboard_id), [Some(5), Some(8)]);
    assert_eq!(gsis(&manager, timer_id), [Some(6), Some(7), Some(7)]);
    assert_eq!(keyboard.line(1).gsi(), Some(Gsi(8)));
    assert_eq!(keyboard.line(2).assert(), Err(InterruptError::Removed), "a handle that belongs to no interrupt");

    assert_eq!((keyboard.line(1).assert(), keyboard.line(0).pulse()), (Ok(()), Ok(())));
    assert_eq!(log.take(), [Told::Level(8, true), Told::Pulse(5)]);
    // Two interrupts of one device on one line are two sources.
    for (index, asserted, told) in [(1, true, Some(true)), (2, true, None), (1, false, None), (2, false, Some(false))] {
        assert_eq!(drive(timer.line(index), asserted), Ok(()));
        assert_eq!(log.take(), told.map(|level| Told::Level(7, level)).into_iter().collect::<Vec<_>>());
    }

    // A removal takes back all of them.
    timer.line(0).assert().unwrap();
    timer.line(2).assert().unwrap();
    log.take();
    manager.unregister_device(timer_id).unwrap();
    assert_eq!(log.take(), [Told::Level(6, false), Told::Level(7, false)]);
    assert_eq!([0, 1, 2].map(|index| timer.line(index).assert()), [Err(InterruptError::Removed); 3]);
    manager.register_device(&timer, None, &[], &[IrqResource::Fixed(Gsi(6)), IrqResource::Fixed(Gsi(7))]).unwrap();
}

#[test]
fn an_interrupt_that_cannot_be_had_leaves_none_of_the_others_taken() {
    manager!(let manager: <4, 4, 1>);
    let holder = Constant { name: "holder", value: 0 };
    let id = manager.register_device(&holder, None, &[], &[IrqResource::Fixed(Gsi(7))]).unwrap();
    let new = Constant { name: "new", value: 0 };
    let refusal = IrqRefusal::Taken { gsi: Gsi(7), owner: Owner::Device { id, name: "holder" } };
    let error = RegisterError::Irq { device: "new", index: 2, refusal };
    let words = "interrupt request 2 of \"new\": GSI 7 belongs to \"holder\" (#0): to share it, both ask for \
                 `IrqResource::Shared`";
    let requests = [IrqResource::Any, IrqResource::Shared(Gsi(8)), SHARED];
    is_refused(&manager, error, words, || manager.register_device(&new, None, &[], &requests));

    // Room for as many interrupts as ranges, in all.
    let error = RegisterError::Irq { device: "new", index: 3, refusal: IrqRefusal::TooManyInterrupts { capacity: 4 } };
    let words = "interrupt request 3 of \"new\": all 4 interrupts are in use, as many as `RANGES` says";
    is_refused(&manager, error, words, || manager.register_device(&new, None, &[], &[IrqResource::Unrouted; 4]));
    manager.register_device(&new, None, &[], &[IrqResource::Unrouted; 3]).unwrap();
}

#[test]
fn room_for_lines_and_for_the_interrupts_of_one_device_ends_with_an_error() {
    manager!(let manager: <2, 40, 1>);
    let (first, new) = (Constant { name: "first", value: 0 }, Constant { name: "new", value: 0 });
    let asked = MAX_IRQS_PER_DEVICE + 1;
    let error = RegisterError::TooManyIrqs { device: "new", asked, limit: MAX_IRQS_PER_DEVICE };
    let words = "\"new\" asks for 17 interrupts; a device can have 16";
    is_refused(&manager, error, words, || manager.register_device(&new, None, &[], &[SHARED; MAX_IRQS_PER_DEVICE + 1]));
    manager.register_device(&first, None, &[], &[SHARED; MAX_IRQS_PER_DEVICE]).unwrap();
    let refusal = IrqRefusal::TooManyLines { capacity: 2, owed: 0 };
    let error = RegisterError::Irq { device: "new", index: 1, refusal };
    let words = "interrupt request 1 of \"new\": all 2 lines are in use, as many as `DEVICES` says";
    is_refused(&manager, error, words, || manager.register_device(&new, None, &[], &[IrqResource::Any; 2]));
}

#[test]
fn a_rejected_device_has_none_of_its_interrupts_asserted_and_gives_all_back() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let refusing = Pins { accepts: false, ..Pins::new("refusing") };
    let lines = [IrqResource::Fixed(Gsi(5)), SHARED];
    let rejected = RegisterError::Rejected { device: "refusing", code: 7 };
    assert_eq!(manager.register_device(&refusing, None, &[], &lines), Err(rejected));
    assert_eq!(refusing.line(1).assert(), Err(InterruptError::Removed));
    let other = Source::new("other");
    assert!(manager.register_device(&other, None, &[], &lines).is_ok());
}

/// C36.
#[test]
fn an_asserted_interrupt_is_asserted_on_its_new_line_before_the_old_one_is_let_go() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let pins = Pins::new("pins");
    let id = manager.register_device(&pins, None, &[], &[IrqResource::Shared(Gsi(5)), IrqResource::Any]).unwrap();
    let line = pins.line(0);
    line.assert().unwrap();
    log.take();
    assert_eq!(manager.reroute(id, 0, Some(Gsi(8))), Ok(()));
    assert_eq!(log.take(), [Told::Level(8, true), Told::Level(5, false)]);
    assert_eq!((line.gsi(), gsis(&manager, id)), (Some(Gsi(8)), vec![Some(8), Some(6)]));
    assert_eq!((line.deassert(), log.take()), (Ok(()), vec![Told::Level(8, false)]));
    // Without an assertion nothing is told; to the line that it has, nothing is done.
    assert_eq!((manager.reroute(id, 0, Some(Gsi(5))), manager.reroute(id, 0, Some(Gsi(5)))), (Ok(()), Ok(())));
    assert_eq!(log.take(), []);
    // The old line is free.
    let other = Source::new("other");
    manager.register_device(&other, None, &[], &[IrqResource::Fixed(Gsi(8))]).unwrap();
}

/// C36. As the pins of four slots, which a board routes to fewer lines.
#[test]
fn interrupts_share_a_new_line_with_those_that_it_has() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let slots = [Pins::new("a"), Pins::new("b")];
    let ids = slots.each_ref().map(|slot| manager.register_device(slot, None, &[], &[IrqResource::Unrouted]).unwrap());
    let [a, b] = slots.each_ref().map(|slot| slot.line(0));
    // Nowhere as yet: the level is kept.
    assert_eq!((a.gsi(), a.assert(), log.take()), (None, Ok(()), vec![]));
    assert_eq!((manager.reroute(ids[0], 0, Some(Gsi(7))), log.take()), (Ok(()), vec![Told::Level(7, true)]));
    assert_eq!((manager.reroute(ids[1], 0, Some(Gsi(7))), log.take()), (Ok(()), vec![]));
    assert_eq!((b.assert(), a.deassert(), log.take()), (Ok(()), Ok(()), vec![]), "the other asserts it");
    assert_eq!(
        (manager.reroute(ids[1], 0, Some(Gsi(5))), log.take()),
        (Ok(()), vec![Told::Level(5, true), Told::Level(7, false)])
    );
    // Taken away from its line, it keeps its level again, and comes back with it.
    assert_eq!((manager.reroute(ids[1], 0, None), log.take()), (Ok(()), vec![Told::Level(5, false)]));
    assert_eq!((b.gsi(), manager.reroute(ids[1], 0, Some(Gsi(6)))), (None, Ok(())));
    assert_eq!(log.take(), [Told::Level(6, true)]);
    assert_eq!((manager.reroute(ids[1], 0, None), b.deassert()), (Ok(()), Ok(())));
    assert_eq!((manager.reroute(ids[1], 0, Some(Gsi(6))), log.take()), (Ok(()), vec![Told::Level(6, false)]));
    assert_eq!(b.pulse(), Err(InterruptError::SharedLine));
}

/// It is as good as any other while it has no line: nobody else gets its place.
#[test]
fn an_interrupt_of_its_own_line_can_be_without_a_line_too() {
    let log = Log::default();
    manager!(let manager, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let id = manager.register_device(&a, None, &[], &[IrqResource::Any]).unwrap();
    assert_eq!((a.line().assert(), manager.reroute(id, 0, None)), (Ok(()), Ok(())));
    let other = manager.register_device(&b, None, &[], &[SHARED]).unwrap();
    assert_eq!(manager.irq(id, 0), Some(AssignedIrq { gsi: None, shared: false }));
    assert_eq!((gsis(&manager, other), b.line().assert()), (vec![Some(7)], Ok(())));
    log.take();
    let taken = IrqRefusal::Taken { gsi: Gsi(7), owner: Owner::Device { id: other, name: "b" } };
    let refused = RerouteError::Line { device: "a", index: 0, refusal: taken };
    assert_eq!(manager.reroute(id, 0, Some(Gsi(7))), Err(refused));
    assert_eq!((manager.reroute(id, 0, Some(Gsi(6))), log.take()), (Ok(()), vec![Told::Level(6, true)]));
}

/// C36.
#[test]
fn a_move_that_is_refused_leaves_the_interrupt_where_it_is() {
    let log = Log::default();
    manager!(let manager: <3, 8, 1>, with_interrupt_controller(&log));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
    let other = manager.register_device(&b, None, &[], &[IrqResource::Fixed(Gsi(5))]).unwrap();
    a.line().assert().unwrap();
    log.take();
    log.refuse(true);
    let error = RerouteError::Controller { device: "a", index: 0, gsi: Gsi(8), error: InterruptError::Refused };
    let words =
        "interrupt 0 of \"a\", which is asserted, to GSI 8: the interrupt controller did not take the interrupt";
    is_refused(&manager, error, words, || manager.reroute(id, 0, Some(Gsi(8))));
    assert!(log.take().iter().all(|told| *told == Told::Level(8, true)), "the old line is not touched");
    log.refuse(false);
    assert_eq!((a.line().deassert(), log.take()), (Ok(()), vec![Told::Level(7, false)]));

    let taken = IrqRefusal::Taken { gsi: Gsi(5), owner: Owner::Device { id: other, name: "b" } };
    let cases = [
        (id, 0, 5, RerouteError::Line { device: "a", index: 0, refusal: taken }),
        (
            other,
            0,
            7,
            RerouteError::Line {
                device: "b",
                index: 0,
                refusal: IrqRefusal::Taken { gsi: Gsi(7), owner: Owner::Device { id, name: "a" } },
            },
        ),
        (id, 1, 6, RerouteError::NoSuchInterrupt { device: "a", index: 1 }),
    ];
    for (id, index, gsi, error) in cases {
        is_refused(&manager, error, &error.to_string(), || manager.reroute(id, index, Some(Gsi(gsi))));
    }
    manager.unregister_device(other).unwrap();
    assert_eq!(manager.reroute(other, 0, None), Err(RerouteError::NotFound { id: other }));
    assert_eq!(log.take(), []);
}

/// C25.
#[test]
fn an_old_line_whose_deassertion_is_refused_is_told_again_by_collect() {
    let refuses_low = AtomicBool::new(true);
    let controller = OnLevel(|asserted: bool| match !asserted && refuses_low.load(SeqCst) {
        true => Err(InterruptError::Refused),
        false => Ok(()),
    });
    manager!(let manager, with_interrupt_controller(&controller));
    let a = Source::new("a");
    let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
    a.line().assert().unwrap();
    assert_eq!(manager.reroute(id, 0, Some(Gsi(8))), Ok(()));
    assert_eq!(manager.collect(), 1, "the old line may be asserted still");
    refuses_low.store(false, SeqCst);
    assert_eq!(manager.collect(), 0);
}

/// C37.
#[test]
fn a_drive_waits_for_a_move_and_goes_to_the_new_line() {
    within_limit(|| {
        let [held, inside] = [true, false].map(AtomicBool::new);
        let told = Mutex::new(Vec::new());
        // It stands still when it is told of the new line.
        struct Controller<'a>(&'a AtomicBool, &'a AtomicBool, &'a Mutex<Vec<(u32, bool)>>);
        impl vm_device::InterruptController for Controller<'_> {
            fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
                while gsi == Gsi(8) && self.0.load(SeqCst) {
                    self.1.store(true, SeqCst);
                    thread::yield_now();
                }
                self.2.lock().push((gsi.0, asserted));
                Ok(())
            }
            fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
                Ok(())
            }
            fn message(&self, _: vm_device::GuestAddress, _: u32) -> Result<(), InterruptError> {
                Ok(())
            }
        }
        let controller = Controller(&held, &inside, &told);
        manager!(let manager, with_interrupt_controller(&controller));
        let a = Source::new("a");
        let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
        a.line().assert().unwrap();
        thread::scope(|scope| {
            let reroute = scope.spawn(|| manager.reroute(id, 0, Some(Gsi(8))));
            wait_for(&inside);
            let busy = RerouteError::Busy { device: "a" };
            assert_eq!(manager.reroute(id, 0, Some(Gsi(6))), Err(busy), "it moves already");
            let line = a.line();
            let drive = scope.spawn(move || line.deassert());
            thread::sleep(std::time::Duration::from_millis(20));
            assert!(!drive.is_finished(), "it waits");
            held.store(false, SeqCst);
            assert_eq!((reroute.join().unwrap(), drive.join().unwrap()), (Ok(()), Ok(())));
        });
        let told = std::mem::take(&mut *told.lock());
        assert_eq!(told[..2], [(7, true), (8, true)]);
        // The drive and the end of the move, in either order.
        assert!(told.contains(&(7, false)) && told.contains(&(8, false)), "{told:?}");
    });
}

/// C12. A removal waits for a move as for a call of a handle.
#[test]
fn a_removal_meanwhile_takes_back_what_the_move_has_given() {
    within_limit(|| {
        let [held, inside] = [true, false].map(AtomicBool::new);
        let controller = OnLevel(|_| {
            while held.load(SeqCst) {
                inside.store(true, SeqCst);
                thread::yield_now();
            }
            Ok(())
        });
        manager!(let manager, with_interrupt_controller(&controller));
        let (a, b) = (Source::new("a"), Source::new("b"));
        let id = manager.register_device(&a, None, &[], &[IrqResource::Unrouted]).unwrap();
        a.line().assert().unwrap();
        thread::scope(|scope| {
            let reroute = scope.spawn(|| manager.reroute(id, 0, Some(Gsi(8))));
            wait_for(&inside);
            let removal = scope.spawn(|| manager.unregister_device(id));
            thread::sleep(std::time::Duration::from_millis(20));
            assert!(!removal.is_finished(), "it waits");
            held.store(false, SeqCst);
            assert_eq!(reroute.join().unwrap(), Ok(()));
            assert_eq!(removal.join().unwrap(), Ok::<(), UnregisterError<&str>>(()));
        });
        assert_eq!(manager.collect(), 0);
        manager.register_device(&b, None, &[], &[IrqResource::Fixed(Gsi(8))]).unwrap();
    });
}

/// C27.
#[test]
fn a_controller_that_unwinds_from_a_move_leaves_the_interrupt_where_it_is_and_drivable() {
    let unwinds = AtomicBool::new(false);
    let controller = OnLevel(|_| {
        assert!(!unwinds.load(SeqCst), "the controller unwinds");
        Ok(())
    });
    manager!(let manager, with_interrupt_controller(&controller));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
    a.line().assert().unwrap();
    unwinds.store(true, SeqCst);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| manager.reroute(id, 0, Some(Gsi(8)))));
    assert!(caught.is_err());
    unwinds.store(false, SeqCst);
    assert_eq!(gsis(&manager, id), [Some(7)]);
    assert_eq!(a.line().deassert(), Ok(()));
    manager.register_device(&b, None, &[], &[IrqResource::Fixed(Gsi(8))]).unwrap();
    assert_eq!((manager.reroute(id, 0, Some(Gsi(5))), manager.collect()), (Ok(()), 0));
}

/// C36. The controller is being told of the old line for the fourth time, and nobody looks afterwards.
#[test]
fn the_old_line_is_let_go_also_when_the_controller_is_told_of_it_for_the_last_time() {
    within_limit(|| {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        static LEVEL: AtomicBool = AtomicBool::new(false);
        static MOVE: Mutex<Option<thread::JoinHandle<()>>> = Mutex::new(None);
        static CONTROLLER: OnLevel<fn(bool) -> Result<(), InterruptError>> = OnLevel(|asserted| {
            LEVEL.store(asserted, SeqCst);
            match CALLS.fetch_add(1, SeqCst) {
                // An end during each of the first calls has it told again.
                1..=3 => {
                    let _ = thread::spawn(|| MANAGER.end_of_interrupt(Gsi(7))).join().unwrap();
                }
                4 => {
                    let reroute = || MANAGER.reroute(MANAGER.find_by_path("/a").unwrap(), 0, None).unwrap();
                    *MOVE.lock() = Some(thread::spawn(reroute));
                    thread::sleep(std::time::Duration::from_millis(50));
                }
                _ => {}
            }
            Ok(())
        });
        static DEVICES: [Source<'static>; 2] = [Source::new("b"), Source::new("a")];
        manager!(static MANAGER, with_interrupt_controller(&CONTROLLER));
        for device in &DEVICES {
            MANAGER.register_device(device, None, &[], &[SHARED]).unwrap();
        }
        DEVICES[1].line().assert().unwrap();
        let _ = MANAGER.end_of_interrupt(Gsi(7));
        MOVE.lock().take().unwrap().join().unwrap();
        assert!(!LEVEL.load(SeqCst), "no device asserts the line");
        assert_eq!(MANAGER.collect(), 0);
    });
}

#[test]
fn a_controller_that_answers_with_a_word_of_the_managers_has_refused() {
    within_limit(|| {
        static PENDING: OnLevel<fn(bool) -> Result<(), InterruptError>> = OnLevel(|_| Err(InterruptError::Pending));
        static SOURCE: Source<'static> = Source::new("a");
        manager!(static MANAGER, with_interrupt_controller(&PENDING));
        let id = MANAGER.register_device(&SOURCE, None, &[], &[IrqResource::Unrouted]).unwrap();
        SOURCE.line().assert().unwrap();
        let error = RerouteError::Controller { device: "a", index: 0, gsi: Gsi(7), error: InterruptError::Refused };
        assert_eq!(MANAGER.reroute(id, 0, Some(Gsi(7))), Err(error));
    });
}

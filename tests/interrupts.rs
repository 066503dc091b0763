//! What devices do to the interrupt controller, through the handles they are given.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use spin::Mutex;
use vm_device::{
    Access, Device, DeviceManager, Gsi, GuestAddress, InterruptController, InterruptError, IoRange, IoResource, IoType,
    IrqLine, IrqResource, RegisterError, Rejected, Resources, SystemAllocator,
};

type Manager<'d> = DeviceManager<'d, 8, 8, 2>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Level(u32, bool),
    Pulse(u32),
    Message(u64, u32),
}

/// A controller that keeps what it was told.
#[derive(Default)]
struct Log {
    told: Mutex<Vec<Told>>,
    refuses: AtomicBool,
}

impl Log {
    fn tell(&self, told: Told) -> Result<(), InterruptError> {
        self.told.lock().push(told);
        if self.refuses.load(Ordering::Relaxed) { Err(InterruptError::Refused) } else { Ok(()) }
    }
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock())
    }
}

impl InterruptController for Log {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        self.tell(Told::Level(gsi.0, asserted))
    }
    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        self.tell(Told::Pulse(gsi.0))
    }
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.tell(Told::Message(address.0, data))
    }
}

/// A device that keeps its handle.
struct Source<'d> {
    name: &'static str,
    line: Mutex<IrqLine<'d>>,
}

impl Source<'_> {
    const fn new(name: &'static str) -> Self {
        Self { name, line: Mutex::new(IrqLine::DISCONNECTED) }
    }
}

impl<'d> Source<'d> {
    fn line(&self) -> IrqLine<'d> {
        *self.line.lock()
    }
}

impl<'d> Device<'d> for Source<'d> {
    fn name(&self) -> &str {
        self.name
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        *self.line.lock() = resources.irq();
        if self.name == "rejecting" {
            assert_eq!(self.line().assert(), Ok(()));
            return Err(Rejected);
        }
        Ok(())
    }
}

fn manager<'d>() -> Manager<'d> {
    DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 8))
}

const SHARED: IrqResource = IrqResource::Shared(Gsi(7));

#[test]
fn a_shared_line_is_asserted_while_any_source_asserts_it() {
    let log = Log::default();
    let manager = manager().with_interrupt_controller(&log);
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
    let manager = manager().with_interrupt_controller(&log);
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
fn a_subtree_takes_its_assertions_back() {
    let log = Log::default();
    let manager = manager().with_interrupt_controller(&log);
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
    let manager = manager().with_interrupt_controller(&log);
    let a = Source::new("a");
    let id = manager.register_device(&a, None, &[], SHARED).unwrap();
    a.line().assert().unwrap();
    manager.unregister_device_deferred(id).unwrap();
    assert_eq!(a.line().deassert(), Err(InterruptError::Removed), "from now on the device has no say");
    assert_eq!(manager.collect(), 0);
    assert_eq!(log.take(), [Told::Level(7, true), Told::Level(7, false)]);
}

#[test]
fn a_handle_kept_after_the_removal_does_nothing() {
    let log = Log::default();
    let manager = manager().with_interrupt_controller(&log);
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
    let log = Log::default();
    let manager = manager().with_interrupt_controller(&log);
    let device = Source::new("rejecting");
    let got = manager.register_device(&device, None, &[], SHARED);
    assert_eq!(got, Err(RegisterError::Rejected { device: "rejecting" }));
    assert_eq!(log.take(), [Told::Level(7, true), Told::Level(7, false)]);
    assert_eq!(device.line().assert(), Err(InterruptError::Removed));
    assert_eq!(log.take(), []);
}

#[test]
fn edges_and_messages_go_through() {
    let log = Log::default();
    let manager = manager().with_interrupt_controller(&log);
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
    let manager = manager();
    let a = Source::new("a");
    let id = manager.register_device(&a, None, &[], IrqResource::Any).unwrap();
    let line = a.line();
    let none = Err(InterruptError::NoController);
    assert_eq!([line.assert(), line.deassert(), line.pulse(), line.message(GuestAddress(0), 0)], [none; 4]);
    manager.unregister_device(id).unwrap();
}

#[test]
fn a_controller_that_refuses_is_told_once() {
    let log = Log::default();
    log.refuses.store(true, Ordering::Relaxed);
    let manager = manager().with_interrupt_controller(&log);
    let a = Source::new("a");
    let id = manager.register_device(&a, None, &[], IrqResource::Any).unwrap();
    let refused = Err(InterruptError::Refused);
    assert_eq!([a.line().assert(), a.line().pulse(), a.line().message(GuestAddress(0), 0)], [refused; 3]);
    manager.unregister_device(id).unwrap();
    let told = [Told::Level(5, true), Told::Pulse(5), Told::Message(0, 0), Told::Level(5, false)];
    assert_eq!(log.take(), told);
}

/// A controller that notes what must not be: two calls for one line at once, or the same level twice.
#[derive(Default)]
struct Strict {
    inside: AtomicBool,
    level: AtomicBool,
    violations: AtomicUsize,
    changes: AtomicUsize,
}

impl InterruptController for Strict {
    fn set_level(&self, _: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let overlapped = self.inside.swap(true, Ordering::AcqRel);
        let repeated = self.level.swap(asserted, Ordering::AcqRel) == asserted;
        self.violations.fetch_add(usize::from(overlapped) + usize::from(repeated), Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.inside.store(false, Ordering::Release);
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Ok(())
    }
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Ok(())
    }
}

#[test]
fn two_threads_on_one_line_end_at_the_level_they_left() {
    let strict = Strict::default();
    let manager = manager().with_interrupt_controller(&strict);
    let devices = [Source::new("a"), Source::new("b")];
    for device in &devices {
        manager.register_device(device, None, &[], SHARED).unwrap();
    }
    let together = Barrier::new(2);
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    thread::scope(|scope| {
        for device in &devices {
            let (together, strict) = (&together, &strict);
            scope.spawn(move || {
                let line = device.line();
                for round in 0..rounds {
                    line.assert().unwrap();
                    if round % 3 != 0 {
                        line.deassert().unwrap();
                        line.assert().unwrap();
                    }
                    together.wait();
                    assert!(strict.level.load(Ordering::Acquire), "both assert it");
                    together.wait();
                    line.deassert().unwrap();
                    together.wait();
                    assert!(!strict.level.load(Ordering::Acquire), "neither asserts it");
                    together.wait();
                }
            });
        }
    });
    assert_eq!(strict.violations.load(Ordering::Relaxed), 0);
    assert!(strict.changes.load(Ordering::Relaxed) >= 2 * rounds);
}

#[test]
fn a_removal_waits_for_calls_of_the_handle() {
    /// A controller whose calls take their time.
    struct Slow {
        inside: AtomicBool,
        go_on: AtomicBool,
    }
    impl InterruptController for Slow {
        fn set_level(&self, _: Gsi, asserted: bool) -> Result<(), InterruptError> {
            if asserted {
                self.inside.store(true, Ordering::Release);
                while !self.go_on.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                self.inside.store(false, Ordering::Release);
            }
            Ok(())
        }
        fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
            Ok(())
        }
        fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
            Ok(())
        }
    }
    let slow = Slow { inside: AtomicBool::new(false), go_on: AtomicBool::new(false) };
    let manager = manager().with_interrupt_controller(&slow);
    let a = Source::new("a");
    let id = manager.register_device(&a, None, &[IoResource::mmio(0, 1)], SHARED).unwrap();
    thread::scope(|scope| {
        let line = a.line();
        scope.spawn(move || line.assert());
        while !slow.inside.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let removal = scope.spawn(|| {
            manager.unregister_device(id).unwrap();
            assert!(!slow.inside.load(Ordering::Acquire), "a call of the handle outlives the removal");
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
        slow.go_on.store(true, Ordering::Release);
    });
}

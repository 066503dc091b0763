//! The concurrency contract of the README: a test for each of its sentences.

mod observed;
mod within;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use vm_device::{
    Access, Device, DeviceManager, GuestAddress, HeavyBarrier, InstanceId, IoError, IoRange, IoResource, IoType,
    IrqResource, MAX_ANONYMOUS, MAX_DEPTH, NoDispatcher, RegisterError, Rejected, Relocation, Resources,
    SystemAllocator, UnregisterError,
};

use observed::Constant;
use within::within_limit;

const VCPUS: usize = 2;

type Manager<'d> = DeviceManager<'d, 8, 8, VCPUS>;

/// How often what has to meet by chance is repeated.
const ROUNDS: usize = if cfg!(miri) { 5 } else { 20_000 };

fn manager<'d>() -> Manager<'d> {
    DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY)).with_patience(u32::MAX)
}

fn register<'d>(manager: &'d Manager<'d>, device: &'d dyn Device<'d>, base: u64, size: u64) -> InstanceId {
    manager.register_device(device, None, &[IoResource::mmio(base, size)], IrqResource::None).unwrap()
}

/// Reads a byte without a handle.
fn read(manager: &Manager<'_>, address: u64) -> Result<u8, IoError> {
    let mut data = [0];
    manager.read(GuestAddress(address), &mut data, IoType::Mmio).map(|()| data[0])
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        thread::yield_now();
    }
}

const FIRST: Constant = Constant { name: "first", value: 1 };
const SECOND: Constant = Constant { name: "second", value: 2 };

/// A device whose callback does not end before it is let go.
#[derive(Default)]
struct Held {
    inside: AtomicBool,
    let_go: AtomicBool,
    base_at_the_end: AtomicU64,
}

impl Device<'_> for Held {
    fn name(&self) -> &str {
        "held"
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.inside.store(true, Ordering::SeqCst);
        wait_for(&self.let_go);
        self.base_at_the_end.store(access.base().0, Ordering::SeqCst);
        data.fill(7);
        self.inside.store(false, Ordering::SeqCst);
    }
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

/// Lets a callback go at the end, and where an assertion fails, too.
struct LetGo<'a>(&'a Held);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.let_go.store(true, Ordering::SeqCst);
    }
}

/// Has a vCPU inside the callback of `held`, at address 0, while `act` runs.
fn while_inside<'d>(manager: &'d Manager<'d>, held: &'d Held, handle: bool, act: impl FnOnce()) {
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut data = [0];
            let outcome = match handle {
                true => manager.dispatcher().unwrap().read(GuestAddress(0), &mut data, IoType::Mmio),
                false => manager.read(GuestAddress(0), &mut data, IoType::Mmio),
            };
            assert_eq!((outcome, data), (Ok(()), [7]));
        });
        wait_for(&held.inside);
        let _let_go = LetGo(held);
        act();
    });
}

/// C5.
#[test]
fn every_access_after_a_registration_reaches_the_device() {
    let manager = manager();
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let (reply, replied) = mpsc::channel();
        let manager = &manager;
        scope.spawn(move || {
            let mut vcpu = manager.dispatcher().unwrap();
            while let Ok(present) = told.recv() {
                let expected = if present { Ok(1) } else { Err(IoError::Unclaimed) };
                let mut data = [0];
                let outcome = vcpu.read(GuestAddress(0), &mut data, IoType::Mmio).map(|()| data[0]);
                assert_eq!((outcome, read(manager, 0)), (expected, expected));
                reply.send(()).unwrap();
            }
        });
        for _ in 0..ROUNDS / 20 {
            let id = register(manager, &FIRST, 0, 4);
            tell.send(true).unwrap();
            replied.recv().unwrap();
            manager.unregister_device(id).unwrap();
            tell.send(false).unwrap();
            replied.recv().unwrap();
        }
        drop(tell);
    });
}

/// C6.
#[test]
fn no_access_reaches_a_device_before_it_knows_its_resources() {
    struct Configured {
        ready: AtomicBool,
        too_early: AtomicBool,
    }
    impl<'d> Device<'d> for Configured {
        fn name(&self) -> &str {
            "configured"
        }
        fn read(&self, _: &Access<'_>, data: &mut [u8]) {
            self.too_early.fetch_or(!self.ready.load(Ordering::SeqCst), Ordering::SeqCst);
            data.fill(1);
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
        fn set_resources(&self, _: &Resources<'_, 'd>) -> Result<(), Rejected> {
            thread::yield_now();
            self.ready.store(true, Ordering::SeqCst);
            Ok(())
        }
    }
    let manager = manager();
    let device = Configured { ready: AtomicBool::new(false), too_early: AtomicBool::new(false) };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let _ = read(&manager, 0);
            }
        });
        for _ in 0..ROUNDS / 20 {
            let id = register(&manager, &device, 0, 4);
            manager.unregister_device(id).unwrap();
            device.ready.store(false, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(!device.too_early.load(Ordering::SeqCst));
}

/// C7, C11, C18.
#[test]
fn a_removal_returns_when_no_callback_is_running_and_none_can_begin() {
    within_limit(|| {
        for handle in [false, true] {
            let (manager, held) = (manager(), Held::default());
            let id = register(&manager, &held, 0, 4);
            thread::scope(|scope| {
                let mut removal = None;
                while_inside(&manager, &held, handle, || {
                    removal = Some(scope.spawn(|| {
                        manager.unregister_device(id).unwrap();
                        assert!(!held.inside.load(Ordering::SeqCst));
                        assert_eq!(read(&manager, 0), Err(IoError::Unclaimed));
                    }));
                    thread::sleep(Duration::from_millis(20));
                    // Others have the lock while it waits.
                    let other = register(&manager, &FIRST, 0x10, 4);
                    assert_eq!(manager.unregister_device(other), Ok(()));
                    assert!(removal.as_ref().is_some_and(|removal| !removal.is_finished()));
                });
            });
        }
    });
}

/// C7.
#[test]
fn an_access_and_a_removal_that_meet_see_each_other() {
    /// Notes calls that run while it is not registered. All orders are relaxed, so that they add no fence.
    struct Watched {
        registered: AtomicBool,
        strays: AtomicUsize,
    }
    impl Watched {
        fn look(&self) {
            if !self.registered.load(Ordering::Relaxed) {
                self.strays.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    impl Device<'_> for Watched {
        fn name(&self) -> &str {
            "watched"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {
            self.look();
            (0..10).for_each(|_| std::hint::spin_loop());
            self.look();
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }
    let manager = manager();
    let device = Watched { registered: AtomicBool::new(false), strays: AtomicUsize::new(0) };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut vcpu = manager.dispatcher().unwrap();
            while !done.load(Ordering::Relaxed) {
                let _ = vcpu.read(GuestAddress(0), &mut [0], IoType::Mmio);
            }
        });
        for _ in 0..ROUNDS {
            device.registered.store(true, Ordering::Relaxed);
            let id = register(&manager, &device, 0, 4);
            thread::yield_now();
            manager.unregister_device(id).unwrap();
            device.registered.store(false, Ordering::Relaxed);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(device.strays.load(Ordering::Relaxed), 0);
}

/// C8.
#[test]
fn an_id_of_a_removed_device_is_an_error_for_ever() {
    let others = ["a", "b", "c", "d", "e", "f", "g"].map(|name| Constant { name, value: 3 });
    let manager = manager();
    let old = register(&manager, &FIRST, 0, 4);
    manager.unregister_device(old).unwrap();
    // As often as it takes until every index has been used again.
    for _ in 0..20 {
        let id = register(&manager, &FIRST, 0, 4);
        assert_ne!(id, old);
        manager.unregister_device(id).unwrap();
    }
    // One of them has the old one's index.
    for other in &others {
        manager.register_device(other, None, &[], IrqResource::None).unwrap();
    }
    let new = register(&manager, &SECOND, 0, 4);
    assert_eq!(manager.unregister_device(old), Err(UnregisterError::NotFound { id: old }));
    assert_eq!(manager.unregister_device_deferred(old), Err(UnregisterError::NotFound { id: old }));
    assert!(manager.relocate(&[Relocation::new(old, 0).to(GuestAddress(8))]).is_err());
    assert_eq!(read(&manager, 0), Ok(2));
    assert!(manager.device(old).is_none() && manager.device(new).is_some());
}

/// C8.
#[test]
fn a_handles_hints_never_lead_to_a_removed_or_moved_device() {
    let manager = manager();
    let mut vcpu = manager.dispatcher().unwrap();
    let mut see = |expected: Result<u8, IoError>| {
        let mut data = [0];
        let outcome = vcpu.read(GuestAddress(0), &mut data, IoType::Mmio);
        assert_eq!((outcome, data[0]), (expected.map(drop), expected.unwrap_or(0xff)));
    };
    for _ in 0..100 {
        // In the same slot, at the same address.
        for device in [&FIRST, &SECOND] {
            let id = register(&manager, device, 0, 4);
            see(Ok(device.value));
            see(Ok(device.value));
            manager.relocate(&[Relocation::new(id, 0).to(GuestAddress(8))]).unwrap();
            see(Err(IoError::Unclaimed));
            manager.relocate(&[Relocation::new(id, 0).to(GuestAddress(0))]).unwrap();
            see(Ok(device.value));
            manager.unregister_device(id).unwrap();
            see(Err(IoError::Unclaimed));
        }
    }
}

/// C10.
#[test]
fn a_removal_that_waits_too_long_gives_up_and_changes_nothing() {
    for handle in [false, true] {
        let (manager, held) = (manager().with_patience(1000), Held::default());
        let id = register(&manager, &held, 0, 4);
        while_inside(&manager, &held, handle, || {
            assert_eq!(manager.unregister_device(id), Err(UnregisterError::InUse { device: "held" }));
            assert_eq!(manager.unregister_subtree(id), Err(UnregisterError::InUse { device: "held" }));
        });
        // It is let go by now, and still there.
        assert_eq!(read(&manager, 0), Ok(7));
        assert_eq!(manager.unregister_device(id), Ok(()));
    }
}

/// C9, C17.
#[test]
fn nothing_but_a_removal_of_the_same_device_waits_for_a_callback() {
    within_limit(|| {
        for handle in [false, true] {
            let (manager, held) = (manager(), Held::default());
            let id = register(&manager, &held, 0, 4);
            while_inside(&manager, &held, handle, || {
                let other = register(&manager, &FIRST, 0x10, 4);
                assert_eq!(read(&manager, 0x10), Ok(1));
                manager.relocate(&[Relocation::new(other, 0).to(GuestAddress(0x20))]).unwrap();
                manager.relocate(&[Relocation::new(id, 0).to(GuestAddress(0x10))]).unwrap();
                manager.unregister_device(other).unwrap();
                manager.reserve(IoType::Mmio, IoRange::of::<0x40, 0x4f>()).unwrap();
                assert_eq!(manager.walk().count(), 1);
                assert!(held.inside.load(Ordering::SeqCst));
            });
            assert_eq!(held.base_at_the_end.load(Ordering::SeqCst), 0, "a running callback keeps its base");
            assert_eq!(read(&manager, 0), Err(IoError::Unclaimed));
        }
    });
}

/// C14, C15.
#[test]
fn a_deferred_removal_does_not_wait_and_frees_nothing_before_the_callbacks_have_ended() {
    within_limit(|| {
        for handle in [false, true] {
            let (manager, held) = (manager(), Held::default());
            let id = register(&manager, &held, 0, 4);
            while_inside(&manager, &held, handle, || {
                assert_eq!(manager.unregister_device_deferred(id), Ok(()));
                assert_eq!(read(&manager, 0), Err(IoError::Unclaimed), "nobody enters any more");
                assert_eq!(manager.collect(), 1);
                let below = manager.register_device(&FIRST, Some(id), &[], IrqResource::None);
                assert_eq!(below, Err(RegisterError::NoSuchParent { device: "first", parent: id }));
                let taken = manager.register_device(&FIRST, None, &[IoResource::mmio(0, 4)], IrqResource::None);
                assert!(matches!(taken, Err(RegisterError::Range { .. })));
                assert!(held.inside.load(Ordering::SeqCst));
            });
            assert_eq!(manager.collect(), 0);
            assert!(manager.device(id).is_none());
            register(&manager, &FIRST, 0, 4);
        }
    });
}

/// Does something with the manager when it is read.
struct Acting<'d>(&'static str, &'d (dyn Fn(&Access<'_>) + Sync));

impl Device<'_> for Acting<'_> {
    fn name(&self) -> &str {
        self.0
    }
    fn read(&self, access: &Access<'_>, _: &mut [u8]) {
        self.1(access);
    }
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

/// C12.
#[test]
fn a_removal_from_within_is_refused_at_once_or_after_the_patience_and_never_waits_for_ever() {
    let manager = manager().with_patience(1000);
    let outcomes = spin::Mutex::new(Vec::new());
    let act = |access: &Access<'_>| {
        let id = manager.find_by_path("/self").unwrap();
        outcomes.lock().push(manager.nested(access).unregister_device(id));
        outcomes.lock().push(manager.unregister_device(id));
    };
    let device = Acting("self", &act);
    let id = register(&manager, &device, 0, 4);
    assert_eq!(read(&manager, 0), Ok(0xff));
    let (own, in_use) = (UnregisterError::InOwnCallback { device: "self" }, UnregisterError::InUse { device: "self" });
    assert_eq!(*outcomes.lock(), [Err(own), Err(in_use)]);
    assert_eq!(manager.unregister_device(id), Ok(()));
}

/// C12.
#[test]
fn callbacks_that_remove_each_others_devices_all_return() {
    let manager = manager().with_patience(10_000);
    let together = std::sync::Barrier::new(2);
    let remove = |path| {
        let id = manager.find_by_path(path).unwrap();
        together.wait();
        let outcome = manager.unregister_device(id);
        assert!(matches!(outcome, Ok(()) | Err(UnregisterError::InUse { .. } | UnregisterError::Busy { .. })));
    };
    let (left, right) = (|_: &Access<'_>| remove("/right"), |_: &Access<'_>| remove("/left"));
    let (left, right) = (Acting("left", &left), Acting("right", &right));
    register(&manager, &left, 0, 4);
    register(&manager, &right, 8, 4);
    thread::scope(|scope| {
        for address in [0, 8] {
            let manager = &manager;
            scope.spawn(move || read(manager, address).unwrap());
        }
    });
    assert!(manager.walk().count() > 0, "at most one of them can have been removed");
}

/// C16.
#[test]
fn an_access_finds_a_moving_range_at_the_old_or_the_new_place_and_two_that_swap_each_once() {
    /// Answers with its number and the low byte of its base.
    struct Based(&'static str, u8);
    impl Device<'_> for Based {
        fn name(&self) -> &str {
            self.0
        }
        fn read(&self, access: &Access<'_>, data: &mut [u8]) {
            data.iter_mut().zip([self.1, access.base().0 as u8]).for_each(|(to, from)| *to = from);
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }
    const PLACES: [u64; 2] = [0x10, 0x18];
    const PAIR: [u64; 2] = [0x40, 0x50];
    let manager = manager();
    let devices = [Based("moving", 1), Based("left", 2), Based("right", 3)];
    let moving = register(&manager, &devices[0], PLACES[0], 16);
    let pair = [register(&manager, &devices[1], PAIR[0], 4), register(&manager, &devices[2], PAIR[1], 4)];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for handle in [false, true] {
            let (manager, done) = (&manager, &done);
            scope.spawn(move || {
                let mut vcpu = manager.dispatcher().unwrap();
                while !done.load(Ordering::SeqCst) {
                    let mut look = |address: u64| {
                        let (mut data, address) = ([0; 2], GuestAddress(address));
                        let outcome = match handle {
                            true => vcpu.read(address, &mut data, IoType::Mmio),
                            false => manager.read(address, &mut data, IoType::Mmio),
                        };
                        outcome.map(|()| data)
                    };
                    // Where both places overlap it is always found.
                    let [number, base] = look(0x1a).unwrap();
                    assert!(number == 1 && PLACES.contains(&base.into()), "{number} at {base:#x}");
                    // Where they do not, it is found with the one base only.
                    for (address, base) in [(0x10, 0x10), (0x26, 0x18)] {
                        match look(address) {
                            Err(IoError::Unclaimed) => {}
                            found => assert_eq!(found, Ok([1, base])),
                        }
                    }
                    for address in PAIR {
                        let [number, base] = look(address).unwrap();
                        assert!([2, 3].contains(&number) && u64::from(base) == address);
                    }
                }
            });
        }
        for round in 0..ROUNDS {
            let (place, other) = (round & 1, round & 1 ^ 1);
            let moves = [
                Relocation::new(moving, 0).to(GuestAddress(PLACES[other])),
                Relocation::new(pair[0], 0).to(GuestAddress(PAIR[other])),
                Relocation::new(pair[1], 0).to(GuestAddress(PAIR[place])),
            ];
            manager.relocate(&moves).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
}

/// C1, C18.
#[test]
fn writers_on_several_threads_take_turns() {
    let manager = manager();
    let devices = ["a", "b", "c"].map(|name| Constant { name, value: 1 });
    thread::scope(|scope| {
        for (device, base) in devices.iter().zip([0, 0x100, 0x200]) {
            let manager = &manager;
            scope.spawn(move || {
                for _ in 0..ROUNDS / 20 {
                    let id = register(manager, device, base, 4);
                    manager.relocate(&[Relocation::new(id, 0).to(GuestAddress(base + 8))]).unwrap();
                    assert_eq!((read(manager, base), read(manager, base + 8)), (Err(IoError::Unclaimed), Ok(1)));
                    manager.unregister_device(id).unwrap();
                }
            });
        }
    });
    assert_eq!(manager.walk().count() + manager.address_map(IoType::Mmio).count(), 0);
}

/// C19, C20.
#[test]
fn nesting_ends_in_an_error_value() {
    let manager = manager();
    let (depth, refusals) = (AtomicU32::new(0), AtomicU32::new(0));
    let count = |outcome| {
        if outcome == Err(IoError::TooDeep) {
            refusals.fetch_add(1, Ordering::SeqCst);
        }
    };
    let nested = |access: &Access<'_>| {
        depth.fetch_add(1, Ordering::SeqCst);
        count(manager.nested(access).read(GuestAddress(0), &mut [0], IoType::Mmio));
    };
    let plain = |_: &Access<'_>| {
        depth.fetch_add(1, Ordering::SeqCst);
        count(manager.read(GuestAddress(8), &mut [0], IoType::Mmio));
    };
    let (nested, plain) = (Acting("nested", &nested), Acting("plain", &plain));
    register(&manager, &nested, 0, 4);
    register(&manager, &plain, 8, 4);
    manager.dispatcher().unwrap().read(GuestAddress(0), &mut [0], IoType::Mmio).unwrap();
    assert_eq!((depth.swap(0, Ordering::SeqCst), refusals.swap(0, Ordering::SeqCst)), (MAX_DEPTH as u32, 1));
    read(&manager, 8).unwrap();
    assert!(depth.load(Ordering::SeqCst) <= 1 + MAX_ANONYMOUS + 2 * VCPUS as u32);
    assert_eq!(refusals.load(Ordering::SeqCst), 1);
}

/// C20.
#[test]
fn nesting_ends_where_each_callback_has_a_handle_of_its_own() {
    const VCPUS: usize = 20;
    type Manager<'d> = DeviceManager<'d, 1, 1, VCPUS>;
    let manager: Manager<'_> = DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY));
    let (depth, refusals) = (AtomicU32::new(0), AtomicU32::new(0));
    let again = |access: &Access<'_>| {
        let depth = depth.fetch_add(1, Ordering::SeqCst);
        // As deep as it goes through one handle, then with the next, and at last with none.
        let outcome = match manager.nested(access).read(GuestAddress(0), &mut [0], IoType::Mmio) {
            Err(IoError::TooDeep) => match manager.dispatcher_with_hints::<0, 1>() {
                Ok(mut vcpu) => vcpu.read(GuestAddress(0), &mut [0], IoType::Mmio),
                Err(_) if depth < 8 * VCPUS as u32 + 8 => manager.read(GuestAddress(0), &mut [0], IoType::Mmio),
                Err(_) => Err(IoError::TooDeep),
            },
            outcome => outcome,
        };
        refusals.fetch_add(u32::from(outcome == Err(IoError::TooDeep)), Ordering::SeqCst);
    };
    let device = Acting("device", &again);
    manager.register_device(&device, None, &[IoResource::mmio(0, 4)], IrqResource::None).unwrap();
    thread::scope(|scope| {
        let start = || {
            manager.dispatcher_with_hints::<0, 1>().unwrap().read(GuestAddress(0), &mut [0], IoType::Mmio).unwrap();
        };
        // Deeper than a thread's stack usually is in a debug build.
        thread::Builder::new().stack_size(16 << 20).spawn_scoped(scope, start).unwrap();
    });
    let (depth, most) =
        (depth.load(Ordering::SeqCst), (VCPUS * MAX_DEPTH) as u32 + 1 + MAX_ANONYMOUS + 2 * VCPUS as u32);
    assert!((VCPUS * MAX_DEPTH) as u32 <= depth && depth <= most, "{depth}");
    assert!(refusals.load(Ordering::SeqCst) > 0);
}

/// C21.
#[test]
fn there_are_as_many_handles_as_the_manager_has_room_for_and_a_dropped_one_can_be_had_again() {
    let manager = manager();
    let first = manager.dispatcher().unwrap();
    let _second = manager.dispatcher().unwrap();
    assert_eq!(manager.dispatcher().err(), Some(NoDispatcher { capacity: 2 }));
    register(&manager, &FIRST, 0, 4);
    assert_eq!(read(&manager, 0), Ok(1), "without one it works as well");
    drop(first);
    assert!(manager.dispatcher().is_ok());
}

/// C22.
#[test]
fn a_removal_executes_the_heavy_barrier_once_and_nothing_else_does() {
    static EXECUTED: AtomicUsize = AtomicUsize::new(0);
    fn execute() {
        EXECUTED.fetch_add(1, Ordering::SeqCst);
    }
    // SAFETY: no other thread dispatches.
    let barrier = unsafe { HeavyBarrier::new(execute) };
    let manager = manager().with_asymmetric_fence(barrier);
    let executed = || EXECUTED.swap(0, Ordering::SeqCst);
    let id = register(&manager, &FIRST, 0, 4);
    let mut vcpu = manager.dispatcher().unwrap();
    vcpu.read(GuestAddress(0), &mut [0], IoType::Mmio).unwrap();
    manager.relocate(&[Relocation::new(id, 0).to(GuestAddress(8))]).unwrap();
    assert_eq!(executed(), 0);
    manager.unregister_device(id).unwrap();
    assert_eq!(executed(), 1);
    let id = register(&manager, &FIRST, 0, 4);
    manager.unregister_device_deferred(id).unwrap();
    assert_eq!((executed(), manager.collect(), executed()), (0, 0, 1), "`collect` executes it for a deferred removal");
    assert_eq!((manager.collect(), executed()), (0, 0));
    let id = register(&manager, &FIRST, 0, 4);
    manager.register_device(&SECOND, Some(id), &[], IrqResource::None).unwrap();
    manager.unregister_subtree(id).unwrap();
    assert_eq!(executed(), 1);
}

/// C10.
#[test]
fn the_patience_of_a_removal_is_bounded_in_time() {
    let manager: Manager<'_> = DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY));
    let held = Held::default();
    let id = register(&manager, &held, 0, 4);
    if cfg!(miri) {
        return;
    }
    while_inside(&manager, &held, true, || {
        let start = Instant::now();
        assert_eq!(manager.unregister_device(id), Err(UnregisterError::InUse { device: "held" }));
        // 2^20 turns; what a turn takes depends on the processor.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        println!("the default patience lasts {:?} here", start.elapsed());
    });
}

//! What a listener is told of the places of ranges, and when.

#[macro_use]
mod fixture;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use fixture::{BUS, CHILD, Constant, NEW, SERIAL, at, everything, range, read, try_register, unwinds, within_limit};
use spin::Mutex;
use vm_device::{
    Access, Device, DeviceManager, Doorbell, GuestUsize, InstanceId, IoRange, IoResource, IoType, PathError,
    PlacedRange, RangeListener, RangeState, RegisterError, Rejected, RelocateError, Relocation, Storage,
    UnregisterError,
};

/// A call of the listener: whether it is `placed`, and the range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Placed(u64),
    Leaving(u64),
}
use Told::{Leaving, Placed};

/// Keeps its calls, and refuses some.
#[derive(Default)]
struct Listener {
    told: Mutex<Vec<Told>>,
    /// Places that are refused.
    refuses: Mutex<Vec<u64>>,
    is_inside: AtomicBool,
}

impl Listener {
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock())
    }

    fn enter(&self, told: Told) {
        assert!(!self.is_inside.swap(true, Ordering::SeqCst), "one call at a time");
        self.told.lock().push(told);
        self.is_inside.store(false, Ordering::SeqCst);
    }
}

struct Leave<'a>(&'a AtomicBool);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl RangeListener for Listener {
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        let first = range.range.first().0;
        self.enter(Placed(first));
        if self.refuses.lock().contains(&first) { Err(Rejected::new(0)) } else { Ok(()) }
    }
    fn leaving(&self, range: &PlacedRange<'_>) {
        self.enter(Leaving(range.range.first().0));
    }
}

fn backed(first: u64) -> IoResource {
    IoResource::fixed(IoType::PhysicalMmio, at(first), GuestUsize(0x1000))
}

fn register<'d>(manager: &'d DeviceManager<'d>, device: &'d dyn Device<'d>, request: IoResource) -> InstanceId {
    try_register(manager, device, &[request]).unwrap()
}

fn to(id: InstanceId, first: u64) -> Relocation {
    Relocation::new(id, 0).to(at(first))
}

/// A manager with a listener, which is told of what `act` does.
fn told(act: impl for<'d> FnOnce(&'d DeviceManager<'d>, &Listener)) {
    let listener = Listener::default();
    manager!(let manager = everything(), with_listener(&listener));
    act(&manager, &listener);
}

#[test]
fn each_change_of_a_backed_range_is_told_before_the_place_is_given_up_and_after_the_new_one_holds() {
    told(|manager, listener| {
        let video = register(manager, &BUS, backed(0x1000));
        assert_eq!(listener.take(), [Placed(0x1000)]);
        let change = |relocation: Relocation, expected: &[Told]| {
            manager.relocate(&mut [relocation]).unwrap();
            assert_eq!(listener.take(), expected, "{relocation:?}");
        };
        change(to(video, 0x2000), &[Leaving(0x1000), Placed(0x2000)]);
        change(to(video, 0x2000), &[]);
        change(Relocation::new(video, 0).reserved(), &[Leaving(0x2000)]);
        change(to(video, 0x3000), &[]);
        change(Relocation::new(video, 0).decoded(), &[Placed(0x3000)]);
        change(Relocation::new(video, 0).waiting(), &[]);
        change(Relocation::new(video, 0).unplaced(), &[Leaving(0x3000)]);
        change(to(video, 0x4000).waiting(), &[Placed(0x4000)]);
        // It waits for a place that another one has.
        let serial = register(manager, &SERIAL, IoResource::mmio(0x5000, 0x1000));
        change(to(video, 0x5000).waiting(), &[Leaving(0x4000)]);
        manager.unregister_device(serial).unwrap();
        assert_eq!(listener.take(), [Placed(0x5000)]);
        manager.unregister_device(video).unwrap();
        assert_eq!(listener.take(), [Leaving(0x5000)]);
        assert_eq!(manager.address_map(IoType::Mmio).count(), 0);
    });
}

/// A device with a doorbell in its second range.
struct Queue;

impl Device<'_> for Queue {
    fn name(&self) -> &str {
        "queue"
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
    fn doorbells(&self) -> &[Doorbell] {
        &[Doorbell { range_index: 1, offset: 0x10, size: 2, value: Some(1) }]
    }
}

#[test]
fn ranges_with_doorbells_are_told_and_others_are_not() {
    struct Bells(Mutex<Vec<(bool, u64)>>);
    impl RangeListener for Bells {
        fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
            let bells: Vec<_> = range.doorbells().collect();
            assert_eq!((bells.len(), bells[0].1.value, range.range_index), (1, Some(1), 1));
            assert_eq!(range.device.name(), "queue");
            self.0.lock().push((true, bells[0].0.0));
            Ok(())
        }
        fn leaving(&self, range: &PlacedRange<'_>) {
            self.0.lock().push((false, range.doorbells().next().unwrap().0.0));
        }
    }
    let bells = Bells(Mutex::default());
    manager!(let manager = everything(), with_listener(&bells));
    let requests = [IoResource::mmio(0x1000, 0x100), IoResource::pio(0x100, 0x20)];
    let queue = try_register(&manager, &Queue, &requests).unwrap();
    try_register(&manager, &SERIAL, &[IoResource::mmio(0x2000, 0x100)]).unwrap();
    assert_eq!(std::mem::take(&mut *bells.0.lock()), [(true, 0x110)]);
    manager.relocate(&mut [to(queue, 0x3000), Relocation::new(queue, 1).to(at(0x200))]).unwrap();
    assert_eq!(std::mem::take(&mut *bells.0.lock()), [(false, 0x110), (true, 0x210)]);
    manager.unregister_device(queue).unwrap();
    assert_eq!(*bells.0.lock(), [(false, 0x210)]);
}

static SEEN: Mutex<Vec<(bool, Option<usize>)>> = Mutex::new(Vec::new());
static LOOKING: Looking = Looking;
manager!(static LOOKED_AT = everything(), with_listener(&LOOKING));

/// Looks at the map from within its calls.
struct Looking;

impl Looking {
    fn look(is_placed: bool, range: &PlacedRange<'_>) {
        let found = LOOKED_AT.find_by_address(range.range.first(), IoType::Mmio);
        assert_eq!(found.map(|(id, _)| id), Some(range.id));
        assert!(LOOKED_AT.reserve(IoType::Mmio, range.range).is_err());
        SEEN.lock().push((is_placed, found.map(|(_, index)| index)));
    }
}

impl RangeListener for Looking {
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        Self::look(true, range);
        Ok(())
    }
    fn leaving(&self, range: &PlacedRange<'_>) {
        Self::look(false, range);
    }
}

/// C29.
#[test]
fn within_a_call_the_range_has_the_place_and_the_manager_can_be_called() {
    let video = register(&LOOKED_AT, &BUS, backed(0x1000));
    LOOKED_AT.relocate(&mut [to(video, 0x2000)]).unwrap();
    LOOKED_AT.unregister_device(video).unwrap();
    assert_eq!(*SEEN.lock(), [(true, Some(0)), (false, Some(0)), (true, Some(0)), (false, Some(0))]);
}

#[test]
fn two_backed_ranges_swap() {
    told(|manager, listener| {
        let (first, second) = (register(manager, &BUS, backed(0x1000)), register(manager, &CHILD, backed(0x2000)));
        listener.take();
        manager.relocate(&mut [to(first, 0x2000), to(second, 0x1000)]).unwrap();
        let told = listener.take();
        assert_eq!((&told[..2], told.len()), (&[Leaving(0x1000), Leaving(0x2000)][..], 4));
        assert!(told.contains(&Placed(0x1000)) && told.contains(&Placed(0x2000)));
    });
}

#[test]
fn a_registration_whose_place_is_refused_is_undone() {
    told(|manager, listener| {
        listener.refuses.lock().push(0x2000);
        let error = RegisterError::ListenerRefused { device: "bus", index: 1, code: 0 };
        assert_eq!(try_register(manager, &BUS, &[backed(0x1000), backed(0x2000)]), Err(error));
        assert_eq!(error.to_string(), "the listener has refused the place of range 1 of \"bus\" (code 0)");
        assert_eq!(listener.take(), [Placed(0x1000), Placed(0x2000), Leaving(0x1000)]);
        assert_eq!((manager.walk().count(), manager.address_map(IoType::Mmio).count()), (0, 0));
        listener.refuses.lock().clear();
        try_register(manager, &BUS, &[backed(0x1000), backed(0x2000)]).unwrap();
    });
}

#[test]
fn a_registration_while_another_caller_is_in_the_listener_keeps_a_place_that_is_refused() {
    /// Registers a device from within a call, and refuses its place.
    struct Registering(Mutex<Option<&'static DeviceManager<'static>>>);
    impl RangeListener for Registering {
        fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
            if range.range.first().0 == 0x9000 { Err(Rejected::new(0)) } else { Ok(()) }
        }
        fn leaving(&self, _: &PlacedRange<'_>) {
            if let Some(manager) = self.0.lock().take() {
                register(manager, &SERIAL, backed(0x9000));
            }
        }
    }
    static LISTENER: Registering = Registering(Mutex::new(None));
    manager!(static MANAGER = everything(), with_listener(&LISTENER));
    let video = register(&MANAGER, &BUS, backed(0x1000));
    *LISTENER.0.lock() = Some(&MANAGER);
    let refused = RelocateError::ListenerRefused { device: "serial", index: 0, code: 0 };
    assert_eq!(MANAGER.relocate(&mut [to(video, 0x2000)]), Err(refused));
    let serial = MANAGER.find_by_path("/serial").unwrap();
    assert_eq!(MANAGER.range(serial, 0).unwrap().place(), Some(range(0x9000, 0x9fff)));
}

#[test]
fn a_refused_place_is_kept_and_told_again_with_the_next_change() {
    told(|manager, listener| {
        let video = register(manager, &BUS, backed(0x1000));
        let serial = register(manager, &SERIAL, IoResource::mmio(0x8000, 0x1000));
        listener.refuses.lock().push(0x2000);
        let error = RelocateError::ListenerRefused { device: "bus", index: 0, code: 0 };
        assert_eq!(manager.relocate(&mut [to(video, 0x2000)]), Err(error));
        assert_eq!(
            error.to_string(),
            "the listener has refused the place of range 0 of \"bus\", which has it (code 0)"
        );
        assert_eq!(manager.range(video, 0).unwrap().place(), Some(range(0x2000, 0x2fff)));
        assert_eq!(listener.take(), [Placed(0x1000), Leaving(0x1000), Placed(0x2000)]);
        // Any change tells again.
        assert_eq!(manager.relocate(&mut [to(serial, 0x9000)]), Err(error));
        assert_eq!(listener.take(), [Placed(0x2000)]);
        listener.refuses.lock().clear();
        manager.unregister_device(serial).unwrap();
        assert_eq!(listener.take(), [Placed(0x2000)]);
        manager.unregister_device(video).unwrap();
        assert_eq!(listener.take(), [Leaving(0x2000)]);
    });
}

#[test]
fn a_range_that_is_refused_and_moved_without_end_keeps_nobody_in_the_listener() {
    /// Refuses every place, and moves the other range to another place.
    struct Refusing {
        calls: AtomicUsize,
        manager: Mutex<Option<&'static DeviceManager<'static>>>,
        ids: Mutex<Vec<InstanceId>>,
    }
    impl RangeListener for Refusing {
        fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
            let call = self.calls.fetch_add(1, Ordering::Relaxed) as u64;
            let other = self.ids.lock().iter().copied().find(|id| *id != range.id);
            if let (Some(manager), Some(other), ..100_000) = (*self.manager.lock(), other, call) {
                let _ = manager.relocate(&mut [to(other, 0x10_0000 + 0x1000 * call)]);
            }
            Err(Rejected::new(0))
        }
        fn leaving(&self, _: &PlacedRange<'_>) {}
    }
    static LISTENER: Refusing =
        Refusing { calls: AtomicUsize::new(0), manager: Mutex::new(None), ids: Mutex::new(Vec::new()) };
    manager!(static MANAGER: <4, 4, 2> = everything(), with_listener(&LISTENER));
    let ids = [&BUS, &CHILD].map(|device| register(&MANAGER, device, backed(0x1000).unplaced()));
    *LISTENER.ids.lock() = ids.to_vec();
    for (id, place) in ids.into_iter().zip([0x1000, 0x2000]) {
        let refused = MANAGER.relocate(&mut [to(id, place)]);
        assert!(matches!(refused, Err(RelocateError::ListenerRefused { .. })), "{refused:?}");
    }
    *LISTENER.manager.lock() = Some(&MANAGER);
    let _ = MANAGER.relocate(&mut [to(ids[0], 0x3000)]);
    let calls = LISTENER.calls.load(Ordering::Relaxed);
    assert!(calls < 300, "{calls}");
    // What was left is told with the next change.
    *LISTENER.manager.lock() = None;
    let _ = MANAGER.relocate(&mut [to(ids[0], 0x4000)]);
    assert_eq!(LISTENER.calls.load(Ordering::Relaxed), calls + 2);
}

#[test]
fn what_was_refused_is_not_told_to_leave() {
    told(|manager, listener| {
        let video = register(manager, &BUS, backed(0x1000));
        listener.refuses.lock().push(0x2000);
        assert!(manager.relocate(&mut [to(video, 0x2000)]).is_err());
        listener.take();
        manager.relocate(&mut [to(video, 0x3000)]).unwrap();
        assert_eq!(listener.take(), [Placed(0x3000)]);
    });
}

#[test]
fn a_transaction_that_fails_tells_nothing() {
    told(|manager, listener| {
        let video = register(manager, &BUS, backed(0x1000));
        let serial = register(manager, &SERIAL, IoResource::mmio(0x8000, 0x1000));
        listener.take();
        assert!(manager.relocate(&mut [to(video, 0x2000), to(serial, 0x2000)]).is_err());
        assert!(manager.relocate(&mut [to(video, 0x8000)]).is_err());
        assert_eq!(listener.take(), []);
        assert_eq!(manager.range(video, 0).unwrap().place(), Some(range(0x1000, 0x1fff)));
    });
}

#[test]
fn a_window_takes_what_it_no_longer_holds_away_and_nothing_else() {
    told(|manager, listener| {
        let window = IoResource::mmio(0x10_0000, 0x10_0000).window();
        let bus = register(manager, &BUS, window);
        let inner = IoResource::mmio(0x10_0000, 0x8_0000).window();
        let inner = manager.register_device(&CHILD, Some(bus), &[inner], &[]).unwrap();
        const VIDEO: &Constant = &Constant { name: "video", value: 1 };
        let video = manager.register_device(VIDEO, Some(inner), &[backed(0x11_0000)], &[]).unwrap();
        assert_eq!(listener.take(), [Placed(0x11_0000)]);
        // It stays where it is: nothing is told.
        manager.relocate(&mut [Relocation::new(bus, 0).resized(GuestUsize(0x20_0000))]).unwrap();
        manager.relocate(&mut [to(bus, 0).resized(GuestUsize(0x30_0000))]).unwrap();
        manager.relocate(&mut [Relocation::new(inner, 0).resized(GuestUsize(0x4_0000))]).unwrap();
        assert_eq!(listener.take(), []);
        assert_eq!(manager.range(video, 0).unwrap().state, RangeState::Decoded);
        // The outer window goes away, and comes back.
        manager.relocate(&mut [to(bus, 0x100_0000)]).unwrap();
        assert_eq!(listener.take(), [Leaving(0x11_0000)]);
        assert_eq!(manager.range(video, 0).unwrap().state, RangeState::Waiting);
        manager.relocate(&mut [to(bus, 0)]).unwrap();
        assert_eq!(listener.take(), [Placed(0x11_0000)]);
        // All move together.
        manager.relocate(&mut [to(video, 0x111_0000), to(inner, 0x110_0000), to(bus, 0x100_0000)]).unwrap();
        assert_eq!(listener.take(), [Leaving(0x11_0000), Placed(0x111_0000)]);
        manager.relocate(&mut [Relocation::new(inner, 0).reserved()]).unwrap();
        assert_eq!(listener.take(), [Leaving(0x111_0000)]);
        manager.relocate(&mut [Relocation::new(inner, 0).decoded()]).unwrap();
        assert_eq!(listener.take(), [Placed(0x111_0000)]);
        manager.unregister_subtree(bus).unwrap();
        assert_eq!(listener.take(), [Leaving(0x111_0000)]);
    });
}

#[test]
fn what_is_to_wait_where_it_is_stays_in_its_changed_window_or_leaves_and_is_told_of_once() {
    told(|manager, listener| {
        let bus = register(manager, &BUS, IoResource::mmio(0x10_0000, 0x2000).window());
        let child = manager.register_device(&CHILD, Some(bus), &[backed(0x10_1000)], &[]).unwrap();
        assert_eq!(listener.take(), [Placed(0x10_1000)]);
        let resize = |size, state, expected: &[Told]| {
            let window = Relocation::new(bus, 0).resized(GuestUsize(size));
            manager.relocate(&mut [window, Relocation::new(child, 0).waiting()]).unwrap();
            assert_eq!(manager.range(child, 0).unwrap().state, state);
            assert_eq!(listener.take(), expected);
        };
        resize(0x3000, RangeState::Decoded, &[]);
        resize(0x1000, RangeState::Waiting, &[Leaving(0x10_1000)]);
        resize(0x2000, RangeState::Decoded, &[Placed(0x10_1000)]);
    });
}

#[test]
fn a_deferred_removal_tells_when_it_is_collected() {
    told(|manager, listener| {
        let video = register(manager, &BUS, backed(0x1000));
        listener.take();
        manager.unregister_device_deferred(video).unwrap();
        assert_eq!(listener.take(), []);
        assert_eq!(manager.collect(), 0);
        assert_eq!(listener.take(), [Leaving(0x1000)]);
    });
}

#[test]
fn what_is_taken_is_told_when_its_device_is_registered() {
    told(|manager, listener| {
        drop(manager.take("bus", None, &[backed(0x1000)], &[]).unwrap());
        let taken = manager.take("bus", None, &[backed(0x1000)], &[]).unwrap();
        assert_eq!(listener.take(), []);
        taken.register(&BUS).unwrap();
        assert_eq!(listener.take(), [Placed(0x1000)]);
    });
}

type Act = Box<dyn Fn(Told) + Send>;
static ACTING: Acting = Acting { told: Mutex::new(Vec::new()), act: Mutex::new(None) };
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
manager!(static ACTED_ON: <16, 8, 2> = everything(), with_listener(&ACTING), with_removal_spins(100));

/// Calls the manager from within its calls.
struct Acting {
    told: Mutex<Vec<Told>>,
    act: Mutex<Option<Act>>,
}

impl Acting {
    fn enter(&self, told: Told) {
        self.told.lock().push(told);
        let act = self.act.lock().take();
        if let Some(act) = act {
            act(told);
        }
    }

    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock())
    }

    fn act(&self, act: impl Fn(Told) + Send + 'static) {
        *self.act.lock() = Some(Box::new(act));
    }
}

impl RangeListener for Acting {
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        self.enter(Placed(range.range.first().0));
        Ok(())
    }
    fn leaving(&self, range: &PlacedRange<'_>) {
        self.enter(Leaving(range.range.first().0));
    }
}

/// Two backed ranges of a manager that is as new afterwards.
fn acting(act: impl FnOnce(InstanceId, InstanceId)) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (first, second) = (register(&ACTED_ON, &BUS, backed(0x1000)), register(&ACTED_ON, &CHILD, backed(0x2000)));
    ACTING.take();
    act(first, second);
    for info in ACTED_ON.walk().collect::<Vec<_>>() {
        ACTED_ON.unregister_device(info.id).unwrap();
    }
    ACTING.take();
    assert_eq!(ACTED_ON.address_map(IoType::Mmio).count(), 0);
}

/// C30.
#[test]
fn a_change_of_a_range_that_is_just_changing_becomes_its_newest_wish() {
    acting(|first, _| {
        ACTING.act(move |_| {
            ACTED_ON.relocate(&mut [to(first, 0x4000)]).unwrap();
            ACTED_ON.relocate(&mut [to(first, 0x5000)]).unwrap();
            // It has not moved yet.
            assert_eq!(ACTED_ON.range(first, 0).unwrap().place(), Some(range(0x1000, 0x1fff)));
        });
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        let expected = [Leaving(0x1000), Placed(0x3000), Leaving(0x3000), Placed(0x5000)];
        assert_eq!(ACTING.take(), expected);
        assert_eq!(ACTED_ON.range(first, 0).unwrap().place(), Some(range(0x5000, 0x5fff)));
    });
}

#[test]
fn a_wish_gives_way_to_a_later_change_that_needs_no_turn() {
    let place = |id| ACTED_ON.range(id, 0).unwrap().place();
    // Back to where the range still is.
    acting(|first, second| {
        ACTING.act(move |_| {
            ACTED_ON.relocate(&mut [to(second, 0x4000)]).unwrap();
            ACTED_ON.relocate(&mut [to(second, 0x2000)]).unwrap();
        });
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        assert_eq!(place(second), Some(range(0x2000, 0x2fff)));
        assert_eq!(ACTING.take(), [Leaving(0x1000), Placed(0x3000)]);
    });
    // Of two changes in one wish, one goes back.
    acting(|first, second| {
        ACTING.act(move |_| {
            ACTED_ON.relocate(&mut [to(first, 0x4000), to(second, 0x5000)]).unwrap();
            ACTED_ON.relocate(&mut [to(first, 0x6000), to(second, 0x2000)]).unwrap();
        });
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        assert_eq!((place(first), place(second)), (Some(range(0x6000, 0x6fff)), Some(range(0x2000, 0x2fff))));
    });
    // While the listener is told that the range leaves for what was wished.
    acting(|first, second| {
        ACTING.act(move |_| {
            ACTED_ON.relocate(&mut [to(second, 0x4000)]).unwrap();
            // The next call is the one that the range is placed at 0x3000, the one after it that the other leaves.
            ACTING.act(move |_| ACTING.act(move |_| ACTED_ON.relocate(&mut [to(second, 0x2000)]).unwrap()));
        });
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        assert_eq!(place(second), Some(range(0x2000, 0x2fff)));
        assert_eq!(ACTING.take(), [Leaving(0x1000), Placed(0x3000), Leaving(0x2000), Placed(0x2000)]);
    });
}

#[test]
fn a_change_that_says_a_part_only_has_the_rest_of_the_wish_before_it() {
    acting(|first, second| {
        ACTING.act(move |_| {
            ACTED_ON.relocate(&mut [to(second, 0x4000)]).unwrap();
            ACTED_ON.relocate(&mut [Relocation::new(second, 0).reserved()]).unwrap();
        });
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        let assigned = ACTED_ON.range(second, 0).unwrap();
        assert_eq!((assigned.range, assigned.state), (range(0x4000, 0x4fff), RangeState::Reserved));
    });
}

#[test]
fn a_wish_that_was_left_by_a_call_that_unwound_gives_way_to_a_later_change() {
    acting(|first, second| {
        ACTING.act(move |_| {
            ACTED_ON.relocate(&mut [to(second, 0x4000)]).unwrap();
            panic!("unwinding");
        });
        assert!(unwinds(|| ACTED_ON.relocate(&mut [to(first, 0x3000)])));
        ACTED_ON.relocate(&mut [to(second, 0x5000)]).unwrap();
        assert_eq!(ACTED_ON.range(second, 0).unwrap().place(), Some(range(0x5000, 0x5fff)));
    });
}

#[test]
fn what_waits_to_be_reserved_goes_on_to_as_a_wish() {
    acting(|first, second| {
        let bus = register(&ACTED_ON, &SERIAL, IoResource::mmio(0x10_0000, 0x2000).window());
        let inner = IoResource::mmio(0x10_1000, 0x1000).window().reserved();
        let inner = ACTED_ON.register_device(&NEW, Some(bus), &[inner], &[]).unwrap();
        let resized = |id, size| Relocation::new(id, 0).resized(GuestUsize(size));
        ACTED_ON.relocate(&mut [resized(bus, 0x1000)]).unwrap();
        assert_eq!(ACTED_ON.range(inner, 0).unwrap().state, RangeState::Waiting);
        ACTING.act(move |_| ACTED_ON.relocate(&mut [to(second, 0x4000), resized(inner, 0x800)]).unwrap());
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        ACTED_ON.relocate(&mut [resized(bus, 0x2000)]).unwrap();
        let assigned = ACTED_ON.range(inner, 0).unwrap();
        assert_eq!((assigned.range, assigned.state), (range(0x10_1000, 0x10_17ff), RangeState::Reserved));
        ACTED_ON.unregister_subtree(bus).unwrap();
    });
}

#[test]
fn a_change_of_another_range_from_within_a_call_is_made_after_it() {
    acting(|first, second| {
        ACTING.act(move |_| ACTED_ON.relocate(&mut [to(second, 0x4000)]).unwrap());
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        let expected = [Leaving(0x1000), Placed(0x3000), Leaving(0x2000), Placed(0x4000)];
        assert_eq!(ACTING.take(), expected);
        // And one that is registered from within.
        ACTING.act(|_| {
            register(&ACTED_ON, &SERIAL, backed(0x9000));
        });
        ACTED_ON.relocate(&mut [to(first, 0x6000)]).unwrap();
        let told = ACTING.take();
        assert!(told.contains(&Placed(0x9000)) && told.contains(&Placed(0x6000)), "{told:?}");
        assert_eq!((told[0], told.len()), (Leaving(0x3000), 3));
    });
}

#[test]
fn a_wish_that_cannot_be_had_leaves_the_range_where_it_is() {
    acting(|first, second| {
        ACTING.act(move |_| ACTED_ON.relocate(&mut [to(second, 0x3000).reserved()]).unwrap());
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        // When its turn came, another range was there.
        assert_eq!(ACTED_ON.range(second, 0).unwrap().place(), Some(range(0x2000, 0x2fff)));
        assert_eq!(ACTING.take(), [Leaving(0x1000), Placed(0x3000)]);
    });
}

#[test]
fn wishes_move_ranges_through_each_others_places() {
    acting(|first, second| {
        ACTING.act(move |_| {
            ACTED_ON.relocate(&mut [to(first, 0x2000).waiting()]).unwrap();
            ACTED_ON.relocate(&mut [to(second, 0x3000).waiting()]).unwrap();
        });
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        let places = [first, second].map(|id| ACTED_ON.range(id, 0).unwrap().place());
        assert_eq!(places, [Some(range(0x2000, 0x2fff)), Some(range(0x3000, 0x3fff))]);
    });
}

#[test]
fn a_removal_from_within_a_call_gives_up_and_a_deferred_one_does_not() {
    acting(|first, second| {
        ACTING.act(move |_| {
            assert_eq!(ACTED_ON.unregister_device(second), Err(UnregisterError::InUse { device: "child" }));
            ACTED_ON.unregister_device_deferred(second).unwrap();
            assert_eq!(ACTED_ON.collect(), 1);
        });
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        assert_eq!(ACTED_ON.collect(), 0);
        assert_eq!(ACTING.take(), [Leaving(0x1000), Placed(0x3000), Leaving(0x2000)]);
        // A wish for a device that goes away meanwhile is forgotten.
        ACTING.act(move |_| {
            ACTED_ON.relocate(&mut [to(first, 0x5000)]).unwrap();
            ACTED_ON.unregister_device_deferred(first).unwrap();
        });
        let _ = ACTED_ON.relocate(&mut [to(first, 0x4000)]);
        assert_eq!(ACTED_ON.collect(), 0);
        assert!(ACTED_ON.device(first).is_none());
    });
}

#[test]
fn wishes_without_room_are_an_error_and_lose_nothing() {
    acting(|first, second| {
        let fill: Vec<_> = (0..6).map(|n| ACTED_ON.reserve(IoType::Pio, range(n, n)).unwrap()).collect();
        ACTING.act(move |_| {
            let refused = ACTED_ON.relocate(&mut [to(second, 0x5000)]);
            assert_eq!(refused, Err(RelocateError::Busy { device: "child" }));
        });
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        assert_eq!(ACTING.take(), [Leaving(0x1000), Placed(0x3000)]);
        for range in fill {
            ACTED_ON.release(IoType::Pio, range).unwrap();
        }
    });
}

#[test]
fn a_call_that_unwinds_leaves_the_old_place_and_is_made_again() {
    acting(|first, _| {
        ACTING.act(|_| panic!("unwinding"));
        assert!(unwinds(|| ACTED_ON.relocate(&mut [to(first, 0x3000)])));
        assert_eq!(ACTED_ON.range(first, 0).unwrap().place(), Some(range(0x1000, 0x1fff)));
        assert_eq!(ACTING.take(), [Leaving(0x1000)]);
        ACTED_ON.relocate(&mut [to(first, 0x3000)]).unwrap();
        assert_eq!(ACTING.take(), [Leaving(0x1000), Placed(0x3000)]);

        // The place holds, and is told again.
        ACTING.act(|_| ACTING.act(|_| panic!("unwinding")));
        assert!(unwinds(|| ACTED_ON.relocate(&mut [to(first, 0x4000)])));
        assert_eq!(ACTING.take(), [Leaving(0x3000), Placed(0x4000)]);
        assert_eq!(ACTED_ON.range(first, 0).unwrap().place(), Some(range(0x4000, 0x4fff)));
        let other = register(&ACTED_ON, &SERIAL, IoResource::mmio(0x8000, 0x10));
        assert_eq!(ACTING.take(), [Placed(0x4000)]);
        ACTED_ON.unregister_device(other).unwrap();

        // A registration that unwinds is undone.
        ACTING.act(|_| ACTING.act(|_| panic!("unwinding")));
        assert!(unwinds(|| try_register(&ACTED_ON, &SERIAL, &[backed(0x6000), backed(0x7000)])));
        assert_eq!(ACTED_ON.collect(), 0);
        assert_eq!(ACTING.take(), [Placed(0x6000), Placed(0x7000), Leaving(0x6000)]);
        assert_eq!(ACTED_ON.find_by_path("/serial"), Err(PathError::NotFound));

        // A removal is left to `collect`.
        ACTING.act(|_| panic!("unwinding"));
        assert!(unwinds(|| ACTED_ON.unregister_device(first)));
        assert_eq!(ACTED_ON.find_by_address(at(0x4000), IoType::Mmio), Some((first, 0)));
        assert_eq!(ACTED_ON.collect(), 0);
        assert_eq!(ACTING.take(), [Leaving(0x4000), Leaving(0x4000)]);
    });
}

/// Where a listener thinks that ranges are.
#[derive(Default)]
struct Map {
    places: Mutex<Vec<IoRange>>,
    calls: AtomicUsize,
    is_inside: AtomicBool,
}

impl Map {
    fn enter(&self) -> Leave<'_> {
        assert!(!self.is_inside.swap(true, Ordering::SeqCst), "one call at a time");
        self.calls.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
        Leave(&self.is_inside)
    }
}

impl RangeListener for Map {
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        let _leave = self.enter();
        let mut places = self.places.lock();
        assert!(places.iter().all(|other| !other.overlaps(range.range)), "{range:?} among {places:?}");
        places.push(range.range);
        Ok(())
    }
    fn leaving(&self, range: &PlacedRange<'_>) {
        let _leave = self.enter();
        let mut places = self.places.lock();
        let at = places.iter().position(|other| *other == range.range).expect("it was placed");
        places.swap_remove(at);
    }
}

/// C28.
#[test]
fn threads_that_move_the_same_ranges_leave_the_listener_with_the_map() {
    within_limit(|| {
        let map = Map::default();
        let storage = Storage::<16, 32, 4>::new();
        let manager = DeviceManager::new(&storage, everything()).with_listener(&map);
        let ids = [register(&manager, &BUS, backed(0x1000)), register(&manager, &CHILD, backed(0x2000))];
        let rounds = if cfg!(miri) { 10 } else { 3000 };
        thread::scope(|scope| {
            for thread in 0..3_usize {
                let manager = &manager;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let place = ((round * 7 + thread * 3) % 4 * 0x1000) as u64;
                        let step = to(ids[(round + thread) % 2], 0x1000 + place);
                        let step = if round % 5 == 0 { step.unplaced() } else { step.waiting() };
                        let _ = manager.relocate(&mut [step]);
                        if thread == 2 && round % 3 == 0 {
                            let id = register(manager, &SERIAL, backed(0x10_0000));
                            assert!(read(manager, 0x10_0000).is_err());
                            if manager.unregister_device(id).is_err() {
                                manager.unregister_device_deferred(id).unwrap();
                                while manager.collect() > 0 {
                                    thread::yield_now();
                                }
                            }
                        }
                    }
                });
            }
        });
        // What was left at the limit of wishes is made with the next change.
        let serial = register(&manager, &SERIAL, IoResource::mmio(0x20_0000, 1));
        manager.unregister_device(serial).unwrap();
        let mut places: Vec<_> = manager
            .address_map(IoType::Mmio)
            .filter(|range| range.assigned.state == RangeState::Decoded)
            .map(|range| range.assigned.range)
            .collect();
        let mut told = map.places.lock().clone();
        places.sort_by_key(|range| range.first());
        told.sort_by_key(|range| range.first());
        assert_eq!(told, places);
        assert!(map.calls.load(Ordering::Relaxed) > 100 || cfg!(miri));
    });
}

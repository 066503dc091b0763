//! loom models of the concurrency contract. They run the crate itself, with loom's atomics under it: `.ci/loom`.
//!
//! loom explores every order of the threads' steps, up to a number of preemptions, and every value that a load may give
//! under the C++ memory model. A device here notes each call in a cell of loom's, and what a model does to the device
//! once it is gone is a write of that cell: unless the protocol puts every call before it, loom reports a race. So the
//! models see a missing ordering, not only an unlucky timing.
//!
//! `.ci/loom` names, for each mutation of the protocol, the models that find it.

#![allow(unsafe_code)]

mod interrupts;
mod removal;
mod searches;
mod windows;

use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::boxed::Box;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::access::Target;
use crate::slots::{Body, HeavyBarrier, Place, Slots};
use crate::{
    Access, AccessSizes, Device, DeviceManager, Dispatcher, Gsi, GuestAddress, InstanceId, InterruptController,
    InterruptError, IoError, IoRange, IoResource, IoType, IrqLine, IrqResource, Rejected, Relocation, Resources,
    SystemAllocator,
};

/// Explores a model with at most `preemptions` preemptions in one execution, and says how many executions there were.
fn explore(name: &str, preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let count = executions.clone();
    let mut builder = loom::model::Builder::new();
    let bound = *builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    let start = Instant::now();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
        // A model joins its threads, and keeps nothing itself.
        SHARED.take().into_iter().for_each(|free| free());
    });
    let (executions, seconds) = (executions.load(Ordering::Relaxed), start.elapsed().as_secs_f32());
    std::println!("{name}: {executions} executions with up to {bound} preemptions in {seconds:.1} s");
}

std::thread_local! {
    /// What frees the values that the threads of this execution share. loom runs them all on one thread of the system.
    static SHARED: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

/// What a model's threads share has to live for `'static`, as far as they can tell: it lives as long as the execution.
fn share<T: 'static>(value: T) -> &'static T {
    let value = Box::into_raw(Box::new(value));
    // SAFETY: it came from a box, and what refers to it ends before the execution, of which this is called at the end.
    SHARED.with_borrow_mut(|shared| shared.push(Box::new(move || drop(unsafe { Box::from_raw(value) }))));
    // SAFETY: as long as the execution lasts, nobody frees it, and nobody changes it but by shared references.
    unsafe { &*value }
}

type Manager<const DEVICES: usize> = DeviceManager<'static, DEVICES, DEVICES, 2>;
type Vcpu<const DEVICES: usize, const HINTS: usize> = Dispatcher<'static, DEVICES, DEVICES, 2, HINTS, 0>;

fn new_manager<const DEVICES: usize>() -> Manager<DEVICES> {
    let memory = IoRange::ALL_MEMORY;
    DeviceManager::new(SystemAllocator::new(memory).with_ports(IoRange::ALL_PORTS).with_irqs(5, 5))
}

/// What a device does in its callback.
#[derive(Clone, Copy)]
enum Act {
    Nothing,
    ReadNested(&'static Manager<2>, u16),
    ReadAnonymously(&'static Manager<2>, u16),
    Remove(&'static Manager<2>, InstanceId),
    RemoveDeferred(&'static Manager<2>, InstanceId),
    Move(&'static Manager<2>, InstanceId, u16),
}

/// A device that answers with its letter and the offset of the access.
struct Probe {
    letter: u8,
    /// Read by each callback, written by whoever destroys the device.
    body: UnsafeCell<()>,
    act: Mutex<Act>,
    line: Mutex<IrqLine<'static>>,
}

// SAFETY: loom checks every use of the cell, and reports one that would be a race; finding it is what the cell is for.
unsafe impl Sync for Probe {}

impl Probe {
    fn new(letter: u8) -> &'static Self {
        share(Self {
            letter,
            body: UnsafeCell::new(()),
            act: Mutex::new(Act::Nothing),
            line: Mutex::new(IrqLine::DISCONNECTED),
        })
    }

    fn will(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }

    fn line(&self) -> IrqLine<'static> {
        *self.line.lock().unwrap()
    }

    /// No callback of the device runs, and none ever will: whoever knows that may destroy it.
    fn destroy(&self) {
        self.body.with_mut(|_| ());
    }
}

impl Device<'static> for Probe {
    fn name(&self) -> &str {
        if self.letter == b'a' { "a" } else { "b" }
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.body.with(|_| ());
        let act = *self.act.lock().unwrap();
        match act {
            Act::Nothing => {}
            Act::ReadNested(manager, port) => {
                let mut data = [0; 2];
                answer(manager.nested(access).read(port.into(), &mut data, IoType::Pio), data);
            }
            Act::ReadAnonymously(manager, port) => {
                read_anonymously(manager, port);
            }
            Act::Remove(manager, id) => {
                let _ = manager.nested(access).unregister_device(id);
            }
            Act::RemoveDeferred(manager, id) => {
                let _ = manager.unregister_device_deferred(id);
            }
            Act::Move(manager, id, port) => relocate(manager, &[(id, port)]),
        }
        self.body.with(|_| ());
        for (byte, value) in data.iter_mut().zip([self.letter, access.offset() as u8]) {
            *byte = value;
        }
    }

    fn write(&self, _: &Access<'_>, _: &[u8]) {}

    fn set_resources(&self, resources: &Resources<'_, 'static>) -> Result<(), Rejected> {
        *self.line.lock().unwrap() = resources.irq();
        Ok(())
    }
}

/// Registers a device with four ports.
fn register<const DEVICES: usize>(manager: &'static Manager<DEVICES>, probe: &'static Probe, port: u16) -> InstanceId {
    manager.register_device(probe, None, &[IoResource::pio(port, 4)], IrqResource::None).unwrap()
}

/// Moves a device's ports.
fn relocate<const DEVICES: usize>(manager: &'static Manager<DEVICES>, moves: &[(InstanceId, u16)]) {
    let moves: Vec<_> = moves.iter().map(|(id, port)| Relocation::new(*id, 0).to((*port).into())).collect();
    manager.relocate(&moves).unwrap();
}

/// A handle that has one hint for all ports, or none, so that it searches.
fn new_vcpu<const DEVICES: usize, const HINTS: usize>(manager: &'static Manager<DEVICES>) -> Vcpu<DEVICES, HINTS> {
    manager.dispatcher_with_hints().unwrap()
}

/// As [`new_vcpu`], and its hint, where it has one, is about this port.
fn new_vcpu_that_knows<const DEVICES: usize, const HINTS: usize>(
    manager: &'static Manager<DEVICES>,
    port: u16,
) -> Vcpu<DEVICES, HINTS> {
    let mut vcpu = new_vcpu(manager);
    read(&mut vcpu, port).unwrap();
    vcpu
}

/// Runs the models with handles that search, and with handles that use hints.
macro_rules! by_search_and_by_hint {
    ($($name:ident)*) => {
        mod by_search {
            $(#[test]
            fn $name() {
                super::$name::<0>(concat!(stringify!($name), " by search"));
            })*
        }
        mod by_hint {
            $(#[test]
            fn $name() {
                super::$name::<1>(concat!(stringify!($name), " by hint"));
            })*
        }
    };
}

use by_search_and_by_hint;

by_search_and_by_hint! {
    removal_waits_for_a_callback
    a_device_in_a_reused_slot_is_not_taken_for_the_old_one
    a_registered_device_answers_from_then_on
    an_access_finds_a_moving_range_at_the_old_or_the_new_place
    no_access_finds_a_moving_range_at_both_places
    two_ranges_change_places_at_once
    a_child_that_has_answered_one_answers_all
    a_device_that_is_gone_for_one_is_gone_for_all
}

/// Which device answered, and at which offset.
type Answer = Option<(u8, u8)>;

fn answer(result: Result<(), IoError>, data: [u8; 2]) -> Answer {
    if result == Err(IoError::Unclaimed) {
        assert_eq!(data, [0xff; 2]);
        return None;
    }
    assert_eq!(result, Ok(()));
    Some((data[0], data[1]))
}

fn read<const DEVICES: usize, const HINTS: usize>(vcpu: &mut Vcpu<DEVICES, HINTS>, port: u16) -> Answer {
    let mut data = [0; 2];
    answer(vcpu.read(port.into(), &mut data, IoType::Pio), data)
}

fn read_anonymously<const DEVICES: usize>(manager: &'static Manager<DEVICES>, port: u16) -> Answer {
    let mut data = [0; 2];
    answer(manager.read(port.into(), &mut data, IoType::Pio), data)
}

/// C7, C11.
fn removal_waits_for_a_callback<const HINTS: usize>(name: &str) {
    explore(name, 4, || {
        let manager = share(new_manager::<1>());
        let a = Probe::new(b'a');
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu_that_knows::<_, HINTS>(manager, 0x10);
        let reader = thread::spawn(move || {
            assert!(matches!(read(&mut vcpu, 0x10), None | Some((b'a', 0))));
        });
        manager.unregister_device(id).unwrap();
        a.destroy();
        assert_eq!(read_anonymously(manager, 0x10), None);
        reader.join().unwrap();
    });
}

/// C7, C11, C21.
#[test]
fn removal_waits_for_an_anonymous_callback() {
    explore("removal_waits_for_an_anonymous_callback", 3, || {
        let manager = share(new_manager::<1>());
        let a = Probe::new(b'a');
        let id = register(manager, a, 0x10);
        let readers = [0, 1].map(|_| {
            thread::spawn(move || {
                assert!(matches!(read_anonymously(manager, 0x10), None | Some((b'a', 0))));
            })
        });
        manager.unregister_device(id).unwrap();
        a.destroy();
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// C8.
fn a_device_in_a_reused_slot_is_not_taken_for_the_old_one<const HINTS: usize>(name: &str) {
    explore(name, 2, || {
        let manager = share(new_manager::<1>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu_that_knows::<_, HINTS>(manager, 0x10);
        let reader = thread::spawn(move || {
            assert!(matches!(read(&mut vcpu, 0x10), None | Some((b'a', 0))));
        });
        manager.unregister_device(id).unwrap();
        a.destroy();
        register(manager, b, 0x20);
        reader.join().unwrap();
        assert_eq!(read_anonymously(manager, 0x20), Some((b'b', 0)));
    });
}

/// C5.
fn a_registered_device_answers_from_then_on<const HINTS: usize>(name: &str) {
    explore(name, 3, || {
        let manager = share(new_manager::<2>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        register(manager, a, 0x20);
        let registered = share(loom::sync::atomic::AtomicBool::new(false));
        let mut vcpu = new_vcpu_that_knows::<_, HINTS>(manager, 0x20);
        let reader = thread::spawn(move || {
            let known = registered.load(Ordering::Acquire);
            let first = read(&mut vcpu, 0x10);
            let second = read(&mut vcpu, 0x10);
            assert!(first.is_some() || !known, "the registration had returned");
            assert!(second.is_some() || first.is_none(), "the device had answered");
            assert_eq!(read(&mut vcpu, 0x20), Some((b'a', 0)));
        });
        register(manager, b, 0x10);
        registered.store(true, Ordering::Release);
        reader.join().unwrap();
    });
}

/// C16.
fn an_access_finds_a_moving_range_at_the_old_or_the_new_place<const HINTS: usize>(name: &str) {
    explore(name, 3, || {
        let manager = share(new_manager::<1>());
        let id = register(manager, Probe::new(b'a'), 0x10);
        let mut vcpu = new_vcpu_that_knows::<_, HINTS>(manager, 0x12);
        let reader = thread::spawn(move || {
            // Port 0x12 is in both places.
            let first = read(&mut vcpu, 0x12);
            let second = read(&mut vcpu, 0x12);
            assert!(matches!(first, Some((b'a', 2 | 0))), "{first:?}");
            assert!(second == first || second == Some((b'a', 0)), "{first:?}, then {second:?}");
        });
        relocate(manager, &[(id, 0x12)]);
        assert_eq!(read_anonymously(manager, 0x10), None);
        reader.join().unwrap();
    });
}

/// C16.
fn no_access_finds_a_moving_range_at_both_places<const HINTS: usize>(name: &str) {
    explore(name, 3, || {
        let manager = share(new_manager::<1>());
        let id = register(manager, Probe::new(b'a'), 0x10);
        let mut vcpu = new_vcpu_that_knows::<_, HINTS>(manager, 0x10);
        let reader = thread::spawn(move || {
            let found = [0x20, 0x10, 0x20].map(|port| {
                let answer = read(&mut vcpu, port);
                assert!(matches!(answer, None | Some((b'a', 0))), "{answer:?}");
                answer.is_some()
            });
            assert!(
                [[true, false, true], [false, true, true], [false, true, false], [false, false, true]].contains(&found)
            );
        });
        relocate(manager, &[(id, 0x20)]);
        reader.join().unwrap();
    });
}

/// By hint, two preemptions take more than ten minutes.
/// C16.
fn two_ranges_change_places_at_once<const HINTS: usize>(name: &str) {
    explore(name, if HINTS == 0 { 2 } else { 1 }, || {
        let manager = share(new_manager::<2>());
        let a = register(manager, Probe::new(b'a'), 0x10);
        let b = register(manager, Probe::new(b'b'), 0x20);
        let mut vcpu = new_vcpu_that_knows::<_, HINTS>(manager, 0x10);
        let reader = thread::spawn(move || {
            let letters = [0x10, 0x20].map(|port| read(&mut vcpu, port).unwrap().0);
            assert!([*b"ab", *b"aa", *b"ba"].contains(&letters), "{letters:?}");
        });
        relocate(manager, &[(a, 0x20), (b, 0x10)]);
        reader.join().unwrap();
    });
}

/// An access that reaches the last address of its space is searched for in another way than most.
/// C16.
#[test]
fn an_access_to_the_last_port_finds_one_of_two_that_change_places() {
    explore("an_access_to_the_last_port_finds_one_of_two_that_change_places", 2, || {
        let manager = share(new_manager::<2>());
        let [a, b] = [(b'a', 0xfffc), (b'b', 0x20)].map(|(letter, port)| register(manager, Probe::new(letter), port));
        let reader = thread::spawn(move || {
            let found = read_anonymously(manager, 0xfffe);
            assert!(matches!(found, Some((b'a' | b'b', 2))), "{found:?}");
        });
        relocate(manager, &[(a, 0x20), (b, 0xfffc)]);
        reader.join().unwrap();
    });
}

/// C5.
fn a_child_that_has_answered_one_answers_all<const HINTS: usize>(name: &str) {
    explore(name, 2, || {
        let manager = share(new_manager::<2>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        let window = IoResource::pio(0x10, 16).window();
        let bus = manager.register_device(a, None, &[window], IrqResource::None).unwrap();
        let mut vcpu = new_vcpu_that_knows::<_, HINTS>(manager, 0x14);
        let reader = thread::spawn(move || {
            let answers = [read_anonymously(manager, 0x14), read(&mut vcpu, 0x14)];
            let [bus, child] = [Some((b'a', 4)), Some((b'b', 0))];
            assert!([[bus, bus], [bus, child], [child, child]].contains(&answers), "{answers:?}");
        });
        manager.register_device(b, Some(bus), &[IoResource::pio(0x14, 4)], IrqResource::None).unwrap();
        reader.join().unwrap();
    });
}

/// C8.
fn a_device_that_is_gone_for_one_is_gone_for_all<const HINTS: usize>(name: &str) {
    explore(name, 2, || {
        let manager = share(new_manager::<1>());
        let a = Probe::new(b'a');
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu_that_knows::<_, HINTS>(manager, 0x10);
        let reader = thread::spawn(move || {
            let [first, second] = [read_anonymously(manager, 0x10), read(&mut vcpu, 0x10)];
            assert!(first.is_some() || second.is_none(), "{second:?}");
        });
        manager.unregister_device(id).unwrap();
        a.destroy();
        reader.join().unwrap();
    });
}

/// C16, C18.
#[test]
fn two_writers_do_not_confuse_a_reader() {
    explore("two_writers_do_not_confuse_a_reader", 1, || {
        let manager = share(new_manager::<1>());
        let id = register(manager, Probe::new(b'a'), 0x10);
        let reader = thread::spawn(move || {
            // Port 0x12 is in every place.
            let found = read_anonymously(manager, 0x12);
            assert!(matches!(found, Some((b'a', 0..=2))), "{found:?}");
        });
        let writer = thread::spawn(move || relocate(manager, &[(id, 0x11)]));
        relocate(manager, &[(id, 0x12)]);
        writer.join().unwrap();
        reader.join().unwrap();
    });
}

/// C8.
#[test]
fn a_hint_is_of_no_use_when_its_range_is_gone() {
    explore("a_hint_is_of_no_use_when_its_range_is_gone", 2, || {
        let manager = share(new_manager::<1>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu::<_, 1>(manager);
        assert_eq!(read(&mut vcpu, 0x12), Some((b'a', 2)));
        let reader = thread::spawn(move || {
            let found = read(&mut vcpu, 0x12);
            assert!(matches!(found, Some((b'a', 2 | 0)) | None), "{found:?}");
        });
        relocate(manager, &[(id, 0x12)]);
        manager.unregister_device(id).unwrap();
        a.destroy();
        register(manager, b, 0x20);
        reader.join().unwrap();
    });
}

/// C7.
#[test]
fn removal_waits_for_a_nested_callback() {
    explore("removal_waits_for_a_nested_callback", 3, || {
        let manager = share(new_manager::<2>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        let outer = register(manager, a, 0x10);
        let inner = register(manager, b, 0x20);
        a.will(Act::ReadNested(manager, 0x20));
        let mut vcpu = new_vcpu::<_, 1>(manager);
        let reader = thread::spawn(move || {
            read(&mut vcpu, 0x10);
        });
        manager.unregister_device(inner).unwrap();
        b.destroy();
        manager.unregister_device(outer).unwrap();
        a.destroy();
        reader.join().unwrap();
    });
}

/// C7.
#[test]
fn removal_waits_for_an_anonymous_callback_inside_another() {
    explore("removal_waits_for_an_anonymous_callback_inside_another", 3, || {
        let manager = share(new_manager::<2>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        register(manager, a, 0x10);
        let inner = register(manager, b, 0x20);
        a.will(Act::ReadAnonymously(manager, 0x20));
        let mut vcpu = new_vcpu::<_, 1>(manager);
        let reader = thread::spawn(move || {
            assert_eq!(read(&mut vcpu, 0x10), Some((b'a', 0)));
        });
        manager.unregister_device(inner).unwrap();
        b.destroy();
        reader.join().unwrap();
    });
}

/// Collects until the device is gone.
fn collect_all(manager: &'static Manager<2>, id: InstanceId) {
    while manager.collect() != 0 || manager.device(id).is_some() {
        thread::yield_now();
    }
}

/// C15.
#[test]
fn a_deferred_removal_ends_after_the_callbacks() {
    explore("a_deferred_removal_ends_after_the_callbacks", 3, || {
        let manager = share(new_manager::<2>());
        let a = Probe::new(b'a');
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu::<_, 1>(manager);
        let reader = thread::spawn(move || {
            assert!(matches!(read(&mut vcpu, 0x10), None | Some((b'a', 0))));
        });
        manager.unregister_device_deferred(id).unwrap();
        assert_eq!(read_anonymously(manager, 0x10), None);
        collect_all(manager, id);
        a.destroy();
        reader.join().unwrap();
    });
}

/// C14, C15.
#[test]
fn a_device_removes_itself_from_its_own_callback() {
    explore("a_device_removes_itself_from_its_own_callback", 3, || {
        let manager = share(new_manager::<2>());
        let a = Probe::new(b'a');
        let id = register(manager, a, 0x10);
        a.will(Act::RemoveDeferred(manager, id));
        let mut vcpu = new_vcpu::<_, 1>(manager);
        let reader = thread::spawn(move || {
            assert_eq!(read(&mut vcpu, 0x10), Some((b'a', 0)));
            assert_eq!(read(&mut vcpu, 0x10), None);
        });
        collect_all(manager, id);
        a.destroy();
        reader.join().unwrap();
    });
}

/// Two vCPUs in two devices' callbacks, each of which acts upon the other's device.
fn each_acts_on_the_other(act: impl Fn(&'static Manager<2>, InstanceId) -> Act) -> &'static Manager<2> {
    let manager = share(new_manager::<2>().with_patience(2));
    let [a, b] = [b'a', b'b'].map(Probe::new);
    let ids = [register(manager, a, 0x10), register(manager, b, 0x20)];
    a.will(act(manager, ids[1]));
    b.will(act(manager, ids[0]));
    let [mut first, mut second] = [0, 1].map(|_| new_vcpu::<_, 1>(manager));
    let reader = thread::spawn(move || {
        read(&mut first, 0x10);
    });
    read(&mut second, 0x20);
    reader.join().unwrap();
    manager.collect();
    for (id, probe) in ids.into_iter().zip([a, b]) {
        if manager.device(id).is_none() {
            probe.destroy();
        }
    }
    manager
}

/// C12.
#[test]
fn two_callbacks_that_remove_each_others_device_both_end() {
    explore("two_callbacks_that_remove_each_others_device_both_end", 3, || {
        each_acts_on_the_other(Act::Remove);
    });
}

/// C14.
#[test]
fn two_callbacks_that_defer_each_others_removal_both_end() {
    explore("two_callbacks_that_defer_each_others_removal_both_end", 3, || {
        let manager = each_acts_on_the_other(Act::RemoveDeferred);
        assert_eq!(manager.collect(), 0, "nobody is in a callback any more");
    });
}

fn body(probe: &'static Probe) -> Body<'static> {
    Body { device: probe, target: Target { node: 0, range_index: 0, io_type: IoType::Pio }, sizes: AccessSizes::ANY }
}

/// Enters a slot under version 0, and is in its device for a while.
fn visit<const RANGES: usize>(slots: &'static Slots<'static, RANGES, 1>, place: Place<'_>, slot: u16) {
    if let Ok(entered) = slots.enter(place, 0, slots.slot(slot).unwrap()) {
        call(entered.body());
    }
}

fn call(body: &Body<'static>) {
    body.device.read(&Access::new(IoType::Pio, GuestAddress(0), GuestAddress(0), 0), &mut []);
}

/// Empties slot 0, and destroys the device that was in it.
fn empty<const RANGES: usize>(slots: &'static Slots<'static, RANGES, 1>, old: &Probe) {
    slots.retire(0);
    slots.barrier();
    while !slots.reclaim(0) {
        thread::yield_now();
    }
    old.destroy();
}

/// Empties slot 0, and fills it with another device.
fn replace<const RANGES: usize>(slots: &'static Slots<'static, RANGES, 1>, old: &Probe, new: &'static Probe) {
    empty(slots, old);
    assert!(slots.install(0, body(new), 4));
}

/// Memory safety must not depend on the index: here no version tells the reader that the slot has changed.
#[test]
fn slots_are_sound_without_the_index() {
    explore("slots_are_sound_without_the_index", 6, || {
        let slots: &'static Slots<'_, 1, 1> = share(Slots::new());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(0, body(a), 4));
        let claim = slots.claim_line().unwrap();
        let reader = thread::spawn(move || visit(slots, claim.top().into(), 0));
        replace(slots, a, b);
        reader.join().unwrap();
    });
}

/// Nor on what a hint is worth: here the slot is opened anew as if it had never changed.
#[test]
fn slots_are_sound_whatever_a_hint_says() {
    explore("slots_are_sound_whatever_a_hint_says", 6, || {
        let slots: &'static Slots<'_, 1, 1> = share(Slots::new());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(0, body(a), 4));
        slots.open(0, IoType::Pio, 1);
        let claim = slots.claim_line().unwrap();
        let reader = thread::spawn(move || {
            if let Some((entered, 0)) = slots.enter_by_hint(claim.top(), &mut slots.hint(0).unwrap(), IoType::Pio, 0, 1)
            {
                call(entered.body());
            }
        });
        replace(slots, a, b);
        slots.open(0, IoType::Pio, 1);
        reader.join().unwrap();
    });
}

/// The heavy barrier itself is beyond loom, which gives the reader a fence of its own in its place. What is left to check
/// is that a removal that sees the reader's next announcement has also seen the end of its last callback.
/// C22.
#[test]
fn an_asymmetric_announcement_ends_the_callback_before() {
    explore("an_asymmetric_announcement_ends_the_callback_before", 6, || {
        let mut slots = Slots::<'_, 2, 1>::new();
        // SAFETY: a reader's announcement is followed by a fence of its own under loom, whatever the barrier does.
        slots.set_heavy_barrier(unsafe { HeavyBarrier::new(|| ()) });
        let slots: &'static Slots<'_, 2, 1> = share(slots);
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(0, body(a), 4) && slots.install(1, body(b), 4));
        let claim = slots.claim_line().unwrap();
        let reader = thread::spawn(move || {
            visit(slots, claim.top().into(), 0);
            visit(slots, claim.top().into(), 1);
        });
        replace(slots, a, b);
        reader.join().unwrap();
    });
}

#[test]
fn a_word_of_a_stripe_is_for_one_at_a_time() {
    explore("a_word_of_a_stripe_is_for_one_at_a_time", 3, || {
        let slots: &'static Slots<'_, 2, 1> = share(Slots::new());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(0, body(a), 4) && slots.install(1, body(b), 4));
        let readers = [0, 1].map(|slot| thread::spawn(move || visit(slots, Place::ANONYMOUS, slot)));
        empty(slots, a);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A removal that sees that the next access has left a word has also seen the end of the callback that was announced in it
/// before.
#[test]
fn a_word_of_a_stripe_passes_on_the_callback_before() {
    explore("a_word_of_a_stripe_passes_on_the_callback_before", 6, || {
        let slots: &'static Slots<'_, 2, 1> = share(Slots::new());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(0, body(a), 4) && slots.install(1, body(b), 4));
        let found = [0, 1].map(|slot| slots.slot(slot).unwrap());
        let announced = slots.announce(Place::ANONYMOUS, found[0]);
        let reader = thread::spawn(move || {
            call(&body(a));
            drop(announced);
        });
        let next = thread::spawn(move || drop(slots.announce(Place::ANONYMOUS, found[1])));
        empty(slots, a);
        reader.join().unwrap();
        next.join().unwrap();
    });
}

#[test]
fn removal_waits_for_a_reader_who_found_no_word() {
    explore("removal_waits_for_a_reader_who_found_no_word", 4, || {
        let slots: &'static Slots<'_, 2, 1> = share(Slots::new());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(0, body(a), 4) && slots.install(1, body(b), 4));
        // As many as a stripe has words.
        let others = [0, 1].map(|_| slots.announce(Place::ANONYMOUS, slots.slot(1).unwrap()).unwrap());
        let reader = thread::spawn(move || visit(slots, Place::ANONYMOUS, 0));
        empty(slots, a);
        reader.join().unwrap();
        drop(others);
    });
}

/// Two callers in callbacks that remove each other's device, each in the first step of its removal. With the asymmetric
/// fence their announcements are not ordered before their looks by themselves, and no heavy barrier was executed yet.
/// C12, C22.
#[test]
fn of_two_asymmetric_callers_one_sees_the_other() {
    explore("of_two_asymmetric_callers_one_sees_the_other", 6, || {
        let mut slots = Slots::<'_, 2, 2>::new();
        // SAFETY: no callback runs and no slot is retired here, so that no barrier has to order anything.
        slots.set_heavy_barrier(unsafe { HeavyBarrier::new(|| ()) });
        let slots: &'static Slots<'_, 2, 2> = share(slots);
        let claims = [0, 1].map(|_| slots.claim_line().unwrap());
        let places = [0, 1].map(|n| claims[n].top());
        let sees_nobody = move |mine: usize, other: u16| {
            let announced = slots.announce(places[mine], slots.slot(mine as u16).unwrap());
            let alone = slots.wait_for_current_readers(other, &mut 0);
            (alone, announced)
        };
        let second = thread::spawn(move || {
            let (alone, announced) = sees_nobody(1, 0);
            // It stays in its callback.
            core::mem::forget(announced);
            alone
        });
        let (alone, _announced) = sees_nobody(0, 1);
        assert!(!(second.join().unwrap() && alone), "both go on to wait for each other");
    });
}

/// One thread removes the device, and another registers the next.
#[test]
fn the_length_of_a_slots_next_range_is_not_seen_under_an_earlier_version() {
    explore("the_length_of_a_slots_next_range_is_not_seen_under_an_earlier_version", 3, || {
        let slots: &'static Slots<'_, 1, 1> = share(Slots::new());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(0, body(a), 8));
        let reader = thread::spawn(move || {
            let version = slots.version();
            let (_, last) = slots.slot(0).unwrap().bounds(version);
            assert!(last == 7 || version == 1 || !slots.is_current(version), "{last}");
        });
        let remover = thread::spawn(move || {
            let version = slots.begin_publication();
            slots.close(0);
            slots.publish(version);
            empty(slots, a);
        });
        remover.join().unwrap();
        assert!(slots.install(0, body(b), 4));
        reader.join().unwrap();
    });
}

/// C4.
#[test]
fn a_search_is_repeated_a_bounded_number_of_times() {
    explore("a_search_is_repeated_a_bounded_number_of_times", 3, || {
        let slots: &'static Slots<'_, 1, 1> = share(Slots::new());
        assert!(slots.install(0, body(Probe::new(b'a')), 4));
        let claim = slots.claim_line().unwrap();
        let reader = thread::spawn(move || {
            let (mut searches, mut count) = (slots.searches(), 0);
            loop {
                count += 1;
                let version = slots.version();
                thread::yield_now();
                if slots.enter(claim.top(), version, slots.slot(0).unwrap()).is_ok() {
                    break;
                }
                searches.again();
            }
            assert!(count <= 5, "{count} searches");
        });
        for _ in 0..7 {
            let version = slots.begin_publication();
            slots.publish(version);
            thread::yield_now();
        }
        reader.join().unwrap();
    });
}

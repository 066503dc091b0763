//! Models of the quiescence protocol by itself: slots without a manager.

use super::*;
use crate::access::{ReaderSite, Target};
use crate::address::Space;
use crate::indices::SlotIndex;
use crate::manager::Occupant;
use crate::quiescence::{HeavyBarrier, Protect, Reader, Shared, SlotStorage, Slots};
use crate::sizes::AccessSizes;

pub(super) type Model = Slots<'static, Occupant<'static>>;

fn new_slots<const RANGES: usize, const VCPUS: usize>() -> Model {
    share(SlotStorage::<_, RANGES, VCPUS>::new()).slots(share(Shared::new()))
}

pub(super) fn new_shared_slots() -> &'static Model {
    share(new_slots::<1, 1>())
}

fn new_reader(slots: &Model) -> Reader<'static, Occupant<'static>, 1, 0> {
    slots.acquire_reader().unwrap().0
}

fn slot(position: usize) -> SlotIndex {
    SlotIndex::at(position).unwrap()
}

fn occupant(probe: &'static Probe) -> Occupant<'static> {
    Occupant { device: probe, target: Target::new(None, 0, IoType::Pio, AccessSizes::ANY) }
}

/// Enters a slot under version 0, and is in its device for a while.
fn visit<'r>(slots: &Model, at: impl Protect<'r>, slot: SlotIndex) {
    if let Ok(guard) = slots.enter(at, 0, slots.slot(slot).unwrap()) {
        call(guard.occupant());
    }
}

fn call(occupant: &Occupant<'static>) {
    occupant.device.read(&Access::new(IoType::Pio, GuestAddress(0), GuestAddress(0), 0), &mut []);
}

/// Empties slot 0, and destroys the device that was in it.
fn empty(slots: &Model, old: &Probe) {
    slots.retire(slot(0));
    slots.barrier();
    while !slots.reclaim(slot(0)) {
        thread::yield_now();
    }
    old.destroy();
}

/// Empties slot 0, and fills it with another device.
fn replace(slots: &Model, old: &Probe, new: &'static Probe) {
    empty(slots, old);
    assert!(slots.install(slot(0), occupant(new), 4, false));
}

/// Memory safety must not depend on the index: here no version tells the reader that the slot has changed.
#[test]
fn slots_are_sound_without_the_index() {
    explore("slots_are_sound_without_the_index", 6, || {
        let slots = share(new_slots::<1, 1>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(slot(0), occupant(a), 4, false));
        let mut vcpu = new_reader(slots);
        let reader = thread::spawn(move || visit(slots, vcpu.record(), slot(0)));
        replace(slots, a, b);
        reader.join().unwrap();
    });
}

/// Nor on whether a hint is right: here the slot is opened again as if it had never changed.
#[test]
fn slots_are_sound_whatever_a_hint_says() {
    explore("slots_are_sound_whatever_a_hint_says", 6, || {
        let slots = share(new_slots::<1, 1>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(slot(0), occupant(a), 4, false));
        slots.open_to_hints(slot(0), Space::Ports, 1);
        let mut vcpu = new_reader(slots);
        vcpu.remember(Space::Ports, 0, slots.slot(slot(0)).unwrap());
        let reader = thread::spawn(move || {
            if let Some((guard, 0)) = vcpu.enter_by_hint(Space::Ports, 0, 1) {
                call(guard.occupant());
            }
        });
        replace(slots, a, b);
        slots.open_to_hints(slot(0), Space::Ports, 1);
        reader.join().unwrap();
    });
}

/// loom cannot model the heavy barrier: under loom the reader has a fence of its own instead. This checks the rest: a removal
/// that sees the reader's next protection has also seen the end of its last callback. C22.
#[test]
fn an_asymmetric_announcement_ends_the_callback_before() {
    explore("an_asymmetric_announcement_ends_the_callback_before", 6, || {
        let mut slots = new_slots::<2, 1>();
        // SAFETY: under loom a fence of its own follows a reader's protection, whatever the barrier does.
        slots.set_heavy_barrier(unsafe { HeavyBarrier::new(|| ()) });
        let slots = share(slots);
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(slot(0), occupant(a), 4, false) && slots.install(slot(1), occupant(b), 4, false));
        let mut vcpu = new_reader(slots);
        let reader = thread::spawn(move || {
            visit(slots, vcpu.record(), slot(0));
            visit(slots, vcpu.record(), slot(1));
        });
        replace(slots, a, b);
        reader.join().unwrap();
    });
}

#[test]
fn a_word_of_a_stripe_is_for_one_at_a_time() {
    explore("a_word_of_a_stripe_is_for_one_at_a_time", 3, || {
        let slots = share(new_slots::<2, 1>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(slot(0), occupant(a), 4, false) && slots.install(slot(1), occupant(b), 4, false));
        let readers = [0, 1].map(|n| thread::spawn(move || visit(slots, ReaderSite::HANDLE_LESS, slot(n))));
        empty(slots, a);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A removal that sees that the next access has left a word has also seen the end of the callback that the word protected
/// before.
#[test]
fn a_word_of_a_stripe_passes_on_the_callback_before() {
    explore("a_word_of_a_stripe_passes_on_the_callback_before", 6, || {
        let slots = share(new_slots::<2, 1>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(slot(0), occupant(a), 4, false) && slots.install(slot(1), occupant(b), 4, false));
        let found = [0, 1].map(|n| slots.slot(slot(n)).unwrap());
        let guard = slots.protect(ReaderSite::HANDLE_LESS, found[0]);
        let reader = thread::spawn(move || {
            call(&occupant(a));
            drop(guard);
        });
        let next = thread::spawn(move || drop(slots.protect(ReaderSite::HANDLE_LESS, found[1])));
        empty(slots, a);
        reader.join().unwrap();
        next.join().unwrap();
    });
}

#[test]
fn removal_waits_for_a_reader_that_found_no_word() {
    explore("removal_waits_for_a_reader_that_found_no_word", 4, || {
        let slots = share(new_slots::<2, 1>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(slot(0), occupant(a), 4, false) && slots.install(slot(1), occupant(b), 4, false));
        // As many as a stripe has words.
        let others = [0, 1].map(|_| slots.protect(ReaderSite::HANDLE_LESS, slots.slot(slot(1)).unwrap()).unwrap());
        let reader = thread::spawn(move || visit(slots, ReaderSite::HANDLE_LESS, slot(0)));
        empty(slots, a);
        reader.join().unwrap();
        drop(others);
    });
}

/// Protects the one slot, and looks for readers of the other: the guard, and whether there are none.
fn protect_and_look<'r>(
    slots: &Model,
    vcpu: &'r mut Reader<'static, Occupant<'static>, 1, 0>,
    [mine, other]: [usize; 2],
) -> (impl Sized + use<'r>, bool) {
    let guard = slots.protect(vcpu.record(), slots.slot(slot(mine)).unwrap());
    (guard, slots.wait_for_current_readers(slot(other), &mut 0))
}

/// Two callers in callbacks that remove each other's device, each in the first step of its removal. With the asymmetric fence,
/// nothing orders their protections before their looks but the removal's own fence: no heavy barrier was executed yet.
/// C12, C22.
#[test]
fn of_two_asymmetric_callers_one_sees_the_other() {
    explore("of_two_asymmetric_callers_one_sees_the_other", 6, || {
        let mut slots = new_slots::<2, 2>();
        // SAFETY: no callback runs and no slot is retired here, so that no barrier has to order anything.
        slots.set_heavy_barrier(unsafe { HeavyBarrier::new(|| ()) });
        let slots = share(slots);
        let [mut first, mut second] = [0, 1].map(|_| new_reader(slots));
        let second = thread::spawn(move || {
            let (guard, alone) = protect_and_look(slots, &mut second, [1, 0]);
            // It stays in its callback.
            core::mem::forget(guard);
            core::mem::forget(second);
            alone
        });
        let (_guard, alone) = protect_and_look(slots, &mut first, [0, 1]);
        assert!(!(second.join().unwrap() && alone), "both go on to wait for each other");
    });
}

/// One thread removes the device, and another registers the next.
#[test]
fn the_length_of_a_slots_next_range_is_not_seen_under_an_earlier_version() {
    explore("the_length_of_a_slots_next_range_is_not_seen_under_an_earlier_version", 3, || {
        let slots = share(new_slots::<1, 1>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        assert!(slots.install(slot(0), occupant(a), 8, false));
        let reader = thread::spawn(move || {
            let version = slots.version();
            let last = slots.slot(slot(0)).unwrap().last(version).unwrap();
            assert!(last == 7 || version == 1 || !slots.is_current(version), "{last}");
        });
        let remover = thread::spawn(move || {
            let version = slots.begin_publication();
            slots.close_to_hints(slot(0));
            slots.publish(version);
            empty(slots, a);
        });
        remover.join().unwrap();
        assert!(slots.install(slot(0), occupant(b), 4, false));
        reader.join().unwrap();
    });
}

/// C4.
#[test]
fn a_search_is_repeated_a_bounded_number_of_times() {
    explore("a_search_is_repeated_a_bounded_number_of_times", 3, || {
        let slots = share(new_slots::<1, 1>());
        assert!(slots.install(slot(0), occupant(Probe::new(b'a')), 4, false));
        let mut vcpu = new_reader(slots);
        let reader = thread::spawn(move || {
            let (mut budget, mut count) = (slots.retry_budget(), 0);
            loop {
                count += 1;
                let version = slots.version();
                thread::yield_now();
                if slots.enter(vcpu.record(), version, slots.slot(slot(0)).unwrap()).is_ok() {
                    break;
                }
                budget.retry();
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

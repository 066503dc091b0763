//! Models of accesses that search again because writers publish while they search. The loop is the crate's own: `cost` counts
//! its searches, and lets other threads go on after each.

use super::*;
use crate::cost::count_searches;

/// How many searches an access takes at most: three without a result, one while a writer has not seen that the reader is
/// starved, and one more.
const MOST: usize = 5;

/// Publishes so many times, each time after others had a turn.
fn publish(manager: &'static Manager, id: InstanceId, times: u16) {
    for turn in 0..times {
        relocate(manager, &[(id, 0x20 + turn % 2)]);
        thread::yield_now();
    }
}

/// C4.
#[test]
fn an_access_searches_a_bounded_number_of_times() {
    explore("an_access_searches_a_bounded_number_of_times", 1, || {
        let manager = new_manager::<2>();
        register(manager, Probe::new(b'a'), 0x10);
        let id = register(manager, Probe::new(b'b'), 0x20);
        let reader = thread::spawn(move || {
            let count = count_searches(|| assert_eq!(read_anonymously(manager, 0x10), Some((b'a', 0))));
            assert!(count <= MOST, "{count} searches");
        });
        publish(manager, id, MOST as u16 + 2);
        reader.join().unwrap();
    });
}

/// C4.
#[test]
fn two_accesses_that_starve_are_both_answered() {
    explore("two_accesses_that_starve_are_both_answered", 0, || {
        let manager = new_manager::<2>();
        register(manager, Probe::new(b'a'), 0x10);
        let id = register(manager, Probe::new(b'b'), 0x20);
        let readers = [0, 1].map(|_| {
            thread::spawn(move || {
                let count = count_searches(|| assert_eq!(read_anonymously(manager, 0x10), Some((b'a', 0))));
                assert!(count <= MOST, "{count} searches");
            })
        });
        publish(manager, id, MOST as u16 + 2);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// C2.
#[test]
fn a_callback_whose_access_has_starved_may_change_the_map() {
    explore("a_callback_whose_access_has_starved_may_change_the_map", 1, || {
        let manager = new_manager::<2>();
        let a = Probe::new(b'a');
        register(manager, a, 0x10);
        let id = register(manager, Probe::new(b'b'), 0x20);
        a.will(Act::Move(manager, id, 0x30));
        let reader = thread::spawn(move || {
            count_searches(|| assert_eq!(read_anonymously(manager, 0x10), Some((b'a', 0))));
        });
        publish(manager, id, 3);
        reader.join().unwrap();
    });
}

/// C4.
#[test]
fn a_writer_begins_no_publication_while_one_of_two_accesses_starves() {
    explore("a_writer_begins_no_publication_while_one_of_two_accesses_starves", 3, || {
        let slots = super::slots::new_shared_slots();
        let [first, second] = [0, 1].map(|_| {
            let mut budget = slots.retry_budget();
            (0..3).for_each(|_| budget.retry());
            budget
        });
        let both_ended = share(loom::sync::atomic::AtomicBool::new(false));
        let writer = thread::spawn(move || {
            slots.begin_publication();
            assert!(both_ended.load(Ordering::Relaxed));
        });
        drop(first);
        thread::yield_now();
        both_ended.store(true, Ordering::Relaxed);
        drop(second);
        writer.join().unwrap();
    });
}

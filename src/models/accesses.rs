//! Models of one access, or two, against registrations, relocations and removals of the device.

use super::*;

by_search_and_by_hint! {
    removal_waits_for_a_callback
    a_device_in_a_reused_slot_is_not_taken_for_the_old_one
    a_registered_device_answers_from_then_on
    an_access_finds_a_moving_range_at_the_old_or_the_new_place
    no_access_finds_a_moving_range_at_both_places
    two_ranges_change_places_at_once
    what_waits_gets_a_place_in_the_change_that_leaves_it
    a_child_that_has_answered_one_answers_all
    a_device_that_is_gone_for_one_is_gone_for_all
}

/// C7, C11.
fn removal_waits_for_a_callback<const HINTS: usize>(name: &str) {
    explore(name, 4, || {
        let manager = new_manager::<1>();
        let a = Probe::new(b'a');
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x10);
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
        let manager = new_manager::<1>();
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
        let manager = new_manager::<1>();
        let [a, b] = [b'a', b'b'].map(Probe::new);
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x10);
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
    explore(name, 1, || {
        let manager = new_manager::<2>();
        let [a, b] = [b'a', b'b'].map(Probe::new);
        register(manager, a, 0x20);
        let registered = share(loom::sync::atomic::AtomicBool::new(false));
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x20);
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
        let manager = new_manager::<1>();
        let id = register(manager, Probe::new(b'a'), 0x10);
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x12);
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
    explore(name, if HINTS == 0 { 3 } else { 2 }, || {
        let manager = new_manager::<1>();
        let id = register(manager, Probe::new(b'a'), 0x10);
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x10);
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
        let manager = new_manager::<2>();
        let a = register(manager, Probe::new(b'a'), 0x10);
        let b = register(manager, Probe::new(b'b'), 0x20);
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x10);
        let reader = thread::spawn(move || {
            let letters = [0x10, 0x20].map(|port| read(&mut vcpu, port).unwrap().0);
            assert!([*b"ab", *b"aa", *b"ba"].contains(&letters), "{letters:?}");
        });
        relocate(manager, &[(a, 0x20), (b, 0x10)]);
        reader.join().unwrap();
    });
}

/// By hint, two preemptions take more than ten minutes.
/// C16.
fn what_waits_gets_a_place_in_the_change_that_leaves_it<const HINTS: usize>(name: &str) {
    explore(name, if HINTS == 0 { 2 } else { 1 }, || {
        let manager = new_manager::<2>();
        let a = register(manager, Probe::new(b'a'), 0x10);
        let waiting = [IoResource::pio(0x10, 4).waiting()];
        manager.register_device(Probe::new(b'b'), None, &waiting, &[]).unwrap();
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x10);
        let reader = thread::spawn(move || {
            let letters = [0x10, 0x10].map(|port| read(&mut vcpu, port).map(|(letter, _)| letter));
            let [a, b] = [Some(b'a'), Some(b'b')];
            assert!([[a, a], [a, b], [b, b]].contains(&letters), "{letters:?}");
        });
        manager.relocate(&mut [Relocation::new(a, 0).unplaced()]).unwrap();
        reader.join().unwrap();
    });
}

/// An access that reaches the last address of its space is searched for in another way than most.
/// C16.
#[test]
fn an_access_to_the_last_port_finds_one_of_two_that_change_places() {
    explore("an_access_to_the_last_port_finds_one_of_two_that_change_places", 1, || {
        let manager = new_manager::<2>();
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
    explore(name, if HINTS == 0 { 2 } else { 1 }, || {
        let manager = new_manager::<2>();
        let [a, b] = [b'a', b'b'].map(Probe::new);
        let window = IoResource::pio(0x10, 16).window();
        let bus = manager.register_device(a, None, &[window], &[]).unwrap();
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x14);
        let reader = thread::spawn(move || {
            let answers = [read_anonymously(manager, 0x14), read(&mut vcpu, 0x14)];
            let [bus, child] = [Some((b'a', 4)), Some((b'b', 0))];
            assert!([[bus, bus], [bus, child], [child, child]].contains(&answers), "{answers:?}");
        });
        manager.register_device(b, Some(bus), &[IoResource::pio(0x14, 4)], &[]).unwrap();
        reader.join().unwrap();
    });
}

/// C8.
fn a_device_that_is_gone_for_one_is_gone_for_all<const HINTS: usize>(name: &str) {
    explore(name, 2, || {
        let manager = new_manager::<1>();
        let a = Probe::new(b'a');
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x10);
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
        let manager = new_manager::<1>();
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
    explore("a_hint_is_of_no_use_when_its_range_is_gone", 1, || {
        let manager = new_manager::<1>();
        let [a, b] = [b'a', b'b'].map(Probe::new);
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu::<1>(manager);
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

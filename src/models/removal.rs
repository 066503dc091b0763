//! Models of removals of more than one range and more than one device, and of what devices leave behind.

use super::*;

by_search_and_by_hint! {
    a_subtree_that_is_gone_for_one_is_gone_for_all
    a_subtree_goes_as_a_whole
    removal_waits_for_a_callback_in_the_second_range
    a_deferred_removal_waits_for_a_callback_in_the_second_range
}

/// A bus with a window from port 0x10 on, and a child at 0x14 in it.
fn bus_and_child() -> (&'static Manager, [&'static Probe; 2], [InstanceId; 2]) {
    let manager = new_manager::<2>();
    let [a, b] = [b'a', b'b'].map(Probe::new);
    let window = IoResource::pio(0x10, 16).window();
    let bus = manager.register_device(a, None, &[window], &[]).unwrap();
    let child = manager.register_device(b, Some(bus), &[IoResource::pio(0x14, 4)], &[]).unwrap();
    (manager, [a, b], [bus, child])
}

/// C7, C8.
fn a_subtree_that_is_gone_for_one_is_gone_for_all<const HINTS: usize>(name: &str) {
    explore(name, 2, || {
        let (manager, probes, [bus, _]) = bus_and_child();
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x14);
        let reader = thread::spawn(move || {
            let answers = [read_anonymously(manager, 0x14), read(&mut vcpu, 0x14)];
            let child = Some((b'b', 0));
            assert!([[child, child], [child, None], [None, None]].contains(&answers), "{answers:?}");
        });
        manager.unregister_subtree(bus).unwrap();
        probes.into_iter().for_each(Probe::destroy);
        reader.join().unwrap();
    });
}

/// C7.
fn a_subtree_goes_as_a_whole<const HINTS: usize>(name: &str) {
    explore(name, 2, || {
        let (manager, probes, [bus, _]) = bus_and_child();
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x14);
        let reader = thread::spawn(move || {
            let child = read(&mut vcpu, 0x14);
            let bus = read(&mut vcpu, 0x10);
            assert!(child.is_some() || bus.is_none(), "the child has gone before the bus");
            assert_ne!(child, Some((b'a', 4)), "the child has left its addresses to the bus");
        });
        manager.unregister_subtree(bus).unwrap();
        probes.into_iter().for_each(Probe::destroy);
        reader.join().unwrap();
    });
}

/// A device with ports from 0x10 and from 0x20 on.
fn two_ranges() -> (&'static Manager, &'static Probe, InstanceId) {
    let manager = new_manager::<2>();
    let a = Probe::new(b'a');
    let requests = [0x10, 0x20].map(|port| IoResource::pio(port, 4));
    (manager, a, manager.register_device(a, None, &requests, &[]).unwrap())
}

/// C7, C11.
fn removal_waits_for_a_callback_in_the_second_range<const HINTS: usize>(name: &str) {
    explore(name, 2, || {
        let (manager, a, id) = two_ranges();
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x20);
        let reader = thread::spawn(move || {
            assert!(matches!(read(&mut vcpu, 0x20), None | Some((b'a', 0))));
        });
        manager.unregister_device(id).unwrap();
        a.destroy();
        reader.join().unwrap();
    });
}

/// C15.
fn a_deferred_removal_waits_for_a_callback_in_the_second_range<const HINTS: usize>(name: &str) {
    explore(name, 2, || {
        let (manager, a, id) = two_ranges();
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x20);
        let reader = thread::spawn(move || {
            assert!(matches!(read(&mut vcpu, 0x20), None | Some((b'a', 0))));
        });
        manager.unregister_device_deferred(id).unwrap();
        collect_all(manager, id);
        a.destroy();
        reader.join().unwrap();
    });
}

/// C15.
#[test]
fn a_registration_finishes_a_deferred_removal() {
    explore("a_registration_finishes_a_deferred_removal", 2, || {
        let manager = new_manager::<1>();
        let [a, b] = [b'a', b'b'].map(Probe::new);
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu::<1>(manager);
        let reader = thread::spawn(move || {
            assert!(matches!(read(&mut vcpu, 0x10), None | Some((b'a', 0))));
        });
        manager.unregister_device_deferred(id).unwrap();
        // There is room for one device.
        while manager.register_device(b, None, &[IoResource::pio(0x20, 4)], &[]).is_err() {
            thread::yield_now();
        }
        a.destroy();
        assert_eq!(read_anonymously(manager, 0x20), Some((b'b', 0)));
        reader.join().unwrap();
    });
}

/// Two threads collect at the same time: each removal is finished once, and the thread that is done last finds that none is
/// left. C15.
#[test]
fn two_collect_and_one_of_them_finishes() {
    explore("two_collect_and_one_of_them_finishes", 3, || {
        let manager = new_manager::<2>();
        let [a, b] = [b'a', b'b'].map(Probe::new);
        let ids = [register(manager, a, 0x10), register(manager, b, 0x20)];
        ids.into_iter().for_each(|id| manager.unregister_device_deferred(id).unwrap());
        let other = thread::spawn(move || manager.collect());
        let left = [manager.collect(), other.join().unwrap()];
        assert!(left.contains(&0), "{left:?}");
        assert_eq!(ids.map(|id| manager.device(id).is_none()), [true; 2]);
        // Nothing was given back twice.
        register(manager, a, 0x10);
        register(manager, b, 0x20);
        assert_eq!([0x10, 0x20].map(|port| read_anonymously(manager, port)), [Some((b'a', 0)), Some((b'b', 0))]);
    });
}

/// A vCPU's hazard record goes to another vCPU, and a removal then waits for the protections of that one.
/// C7, C21.
#[test]
fn removal_waits_for_a_callback_of_the_next_owner_of_a_line() {
    explore("removal_waits_for_a_callback_of_the_next_owner_of_a_line", 3, || {
        let manager = share(unshared_manager::<1, 1>());
        let a = Probe::new(b'a');
        let id = manager.register_device(a, None, &[IoResource::pio(0x10, 4)], &[]).unwrap();
        let read_once = move || {
            if let Ok(mut vcpu) = manager.dispatcher_with_hints::<1, 0>(0) {
                let mut data = [0; 2];
                let _ = vcpu.read(GuestAddress(0x10), &mut data, IoType::Pio);
            }
        };
        let readers = [thread::spawn(read_once), thread::spawn(read_once)];
        manager.unregister_device(id).unwrap();
        a.destroy();
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// An access to one manager's device makes an access to another manager's, which does not look at the first one's records.
/// C7.
#[test]
fn removal_waits_for_a_callback_that_came_through_another_manager() {
    explore("removal_waits_for_a_callback_that_came_through_another_manager", 3, || {
        let [outer, inner] = [0, 1].map(|_| new_manager::<2>());
        let [a, b] = [b'a', b'b'].map(Probe::new);
        register(outer, a, 0x10);
        let id = register(inner, b, 0x20);
        a.will(Act::ReadNested(inner, 0x20));
        let mut vcpu = new_vcpu::<1>(outer);
        let reader = thread::spawn(move || assert_eq!(read(&mut vcpu, 0x10), Some((b'a', 0))));
        inner.unregister_device(id).unwrap();
        b.destroy();
        reader.join().unwrap();
    });
}

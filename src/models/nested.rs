//! Models of callbacks that make accesses and removals themselves.

use super::*;

/// C7.
#[test]
fn removal_waits_for_a_nested_callback() {
    explore("removal_waits_for_a_nested_callback", 3, || {
        let manager = new_manager::<2>();
        let [a, b] = [b'a', b'b'].map(Probe::new);
        let outer = register(manager, a, 0x10);
        let inner = register(manager, b, 0x20);
        a.will(Act::ReadNested(manager, 0x20));
        let mut vcpu = new_vcpu::<1>(manager);
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
        let manager = new_manager::<2>();
        let [a, b] = [b'a', b'b'].map(Probe::new);
        register(manager, a, 0x10);
        let inner = register(manager, b, 0x20);
        a.will(Act::ReadAnonymously(manager, 0x20));
        let mut vcpu = new_vcpu::<1>(manager);
        let reader = thread::spawn(move || {
            assert_eq!(read(&mut vcpu, 0x10), Some((b'a', 0)));
        });
        manager.unregister_device(inner).unwrap();
        b.destroy();
        reader.join().unwrap();
    });
}

/// C15.
#[test]
fn a_deferred_removal_ends_after_the_callbacks() {
    explore("a_deferred_removal_ends_after_the_callbacks", 3, || {
        let manager = new_manager::<2>();
        let a = Probe::new(b'a');
        let id = register(manager, a, 0x10);
        let mut vcpu = new_vcpu::<1>(manager);
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
        let manager = new_manager::<2>();
        let a = Probe::new(b'a');
        let id = register(manager, a, 0x10);
        a.will(Act::RemoveDeferred(manager, id));
        let mut vcpu = new_vcpu::<1>(manager);
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
fn each_acts_on_the_other(act: impl Fn(&'static Manager, InstanceId) -> Act) -> &'static Manager {
    let manager = share(unshared_manager::<2, 2>().with_removal_spins(2));
    let [a, b] = [b'a', b'b'].map(Probe::new);
    let ids = [register(manager, a, 0x10), register(manager, b, 0x20)];
    a.will(act(manager, ids[1]));
    b.will(act(manager, ids[0]));
    let [mut first, mut second] = [0, 1].map(|_| new_vcpu::<1>(manager));
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
        assert_eq!(manager.collect(), 0, "no thread is in a callback any more");
    });
}

//! Models of a window that moves with what lies in it (the index is built again as a whole), or that changes its end.

use super::*;

by_search_and_by_hint! {
    a_window_and_its_child_move_at_once
    a_child_turned_off_with_a_move_of_its_window_is_off_for_all
    a_window_that_has_shrunk_for_one_has_for_all
    a_window_that_has_grown_for_one_has_for_all
}

/// A bus with a window from port 0x10 on, and a child at 0x14 in it.
fn bus_and_child() -> (&'static Manager, [InstanceId; 2]) {
    let manager = new_manager::<2>();
    let [a, b] = [b'a', b'b'].map(Probe::new);
    let window = IoResource::pio(0x10, 16).window();
    let bus = manager.register_device(a, None, &[window], &[]).unwrap();
    let child = manager.register_device(b, Some(bus), &[IoResource::pio(0x14, 4)], &[]).unwrap();
    (manager, [bus, child])
}

/// C16.
fn a_window_and_its_child_move_at_once<const HINTS: usize>(name: &str) {
    explore(name, 1, || {
        let (manager, [bus, child]) = bus_and_child();
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x14);
        let reader = thread::spawn(move || {
            let answers = [read(&mut vcpu, 0x14), read(&mut vcpu, 0x24)];
            let child = Some((b'b', 0));
            assert!([[child, None], [child, child], [None, child]].contains(&answers), "{answers:?}");
        });
        relocate(manager, &[(bus, 0x20), (child, 0x24)]);
        assert_eq!([0x14, 0x20].map(|port| read_anonymously(manager, port)), [None, Some((b'a', 0))]);
        reader.join().unwrap();
    });
}

/// C8.
fn a_child_turned_off_with_a_move_of_its_window_is_off_for_all<const HINTS: usize>(name: &str) {
    explore(name, 2, || {
        let (manager, [bus, child]) = bus_and_child();
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x14);
        let reader = thread::spawn(move || {
            let answers = [read_anonymously(manager, 0x14), read(&mut vcpu, 0x14)];
            let child = Some((b'b', 0));
            assert!([[child, child], [child, None], [None, None]].contains(&answers), "{answers:?}");
        });
        let to = |id, port: u16| Relocation::new(id, 0).to(port.into());
        manager.relocate(&mut [to(bus, 0x20), to(child, 0x24).reserved()]).unwrap();
        reader.join().unwrap();
    });
}

/// The containers of a replica are those of its ranges. C16.
#[test]
fn an_access_over_the_edge_of_a_child_goes_to_the_window_while_the_child_moves_to_another() {
    explore("an_access_over_the_edge_of_a_child_goes_to_the_window_while_the_child_moves_to_another", 1, || {
        let manager = new_manager::<3>();
        let windows = [0x10, 0x20].map(|port| IoResource::pio(port, 8).window());
        let bus = manager.register_device(Probe::new(b'a'), None, &windows, &[]).unwrap();
        let child = [IoResource::pio(0x14, 4)];
        let child = manager.register_device(Probe::new(b'b'), Some(bus), &child, &[]).unwrap();
        let mut vcpu = new_vcpu::<0>(manager);
        // Its second byte is the child's at first, and later it is not.
        let reader = thread::spawn(move || assert_eq!(read(&mut vcpu, 0x13), Some((b'a', 3))));
        relocate(manager, &[(child, 0x24)]);
        reader.join().unwrap();
    });
}

/// Gives the window of `bus` another size, and the range of `other` another place, at once.
fn resize(manager: &'static Manager, bus: InstanceId, ports: u64, other: Option<(InstanceId, u16)>) {
    let window = Relocation::new(bus, 0).resized(GuestUsize(ports));
    let other = other.map(|(id, port)| Relocation::new(id, 0).to(port.into()));
    let mut moves: Vec<_> = core::iter::once(window).chain(other).collect();
    manager.relocate(&mut moves).unwrap();
}

/// A window from port 0x10 on, with so many ports, and another range at 0x30.
fn window_and_other(ports: u32) -> (&'static Manager, [InstanceId; 2]) {
    let manager = new_manager::<2>();
    let [a, b] = [b'a', b'b'].map(Probe::new);
    let bus = manager.register_device(a, None, &[IoResource::pio(0x10, ports).window()], &[]).unwrap();
    (manager, [bus, register(manager, b, 0x30)])
}

/// C16.
#[test]
fn the_end_of_a_window_changes_with_the_rest() {
    explore("the_end_of_a_window_changes_with_the_rest", 1, || {
        let (manager, [bus, other]) = window_and_other(16);
        let mut vcpu = new_vcpu::<0>(manager);
        let reader = thread::spawn(move || {
            let answers = [read(&mut vcpu, 0x18), read_anonymously(manager, 0x40)];
            let [window, other] = [Some((b'a', 8)), Some((b'b', 0))];
            assert!([[window, None], [window, other], [None, other]].contains(&answers), "{answers:?}");
        });
        resize(manager, bus, 8, Some((other, 0x40)));
        reader.join().unwrap();
    });
}

/// C8.
fn a_window_that_has_shrunk_for_one_has_for_all<const HINTS: usize>(name: &str) {
    explore(name, 1, || {
        let (manager, [bus, _]) = window_and_other(16);
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x10);
        let reader = thread::spawn(move || {
            let answers = [read_anonymously(manager, 0x18), read(&mut vcpu, 0x18)];
            let window = Some((b'a', 8));
            assert!([[window, window], [window, None], [None, None]].contains(&answers), "{answers:?}");
        });
        resize(manager, bus, 8, None);
        reader.join().unwrap();
    });
}

/// The length of a slot changes only while the slot is closed. C5.
fn a_window_that_has_grown_for_one_has_for_all<const HINTS: usize>(name: &str) {
    explore(name, 1, || {
        let (manager, [bus, _]) = window_and_other(8);
        let mut vcpu = new_vcpu_that_knows::<HINTS>(manager, 0x10);
        let reader = thread::spawn(move || {
            let answers = [read(&mut vcpu, 0x18), read_anonymously(manager, 0x18)];
            let window = Some((b'a', 8));
            assert!([[None, None], [None, window], [window, window]].contains(&answers), "{answers:?}");
        });
        resize(manager, bus, 16, None);
        reader.join().unwrap();
    });
}

//! Models of a window that moves with what lies in it: the index is built again as a whole.

use super::*;

by_search_and_by_hint! {
    a_window_and_its_child_move_at_once
    a_child_turned_off_with_a_move_of_its_window_is_off_for_all
}

/// A bus with a window from port 0x10 on, and a child at 0x14 in it.
fn bus_and_child() -> (&'static Manager, [InstanceId; 2]) {
    let manager = new_manager::<2>();
    let [a, b] = [b'a', b'b'].map(Probe::new);
    let window = IoResource::pio(0x10, 16).window();
    let bus = manager.register_device(a, None, &[window], IrqResource::None).unwrap();
    let child = manager.register_device(b, Some(bus), &[IoResource::pio(0x14, 4)], IrqResource::None).unwrap();
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

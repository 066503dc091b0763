//! Moves with an outcome that must not depend on how they are written down.

mod fixture;

use fixture::{Constant, manager, observe};
use vm_device::{
    DeviceManager, GuestAddress, GuestUsize, IoRange, IoResource, IoType, RangeRefusal, RelocateError, Relocation,
};

fn byte(manager: &DeviceManager<'_>, address: u64) -> u8 {
    let mut data = [0];
    let _ = manager.read(GuestAddress(address), &mut data, IoType::Mmio);
    data[0]
}

const BUS: Constant = Constant { name: "bus", value: 1 };
const CHILD: Constant = Constant { name: "child", value: 2 };

#[test]
fn the_order_of_a_transaction_does_not_matter() {
    let [forwards, backwards] = [false, true].map(|reversed| {
        manager!(let manager);
        let window = IoResource::mmio(0x1000, 0x100).window();
        let bus = manager.register_device(&BUS, None, &[window], &[]).unwrap();
        // It waits beside the window; the transaction brings both together.
        let beside = IoResource::mmio(0x8000, 0x10).waiting();
        let child = manager.register_device(&CHILD, Some(bus), &[beside], &[]).unwrap();
        let mut moves =
            [Relocation::new(bus, 0).to(GuestAddress(0x4000)), Relocation::new(child, 0).to(GuestAddress(0x4020))];
        if reversed {
            moves.reverse();
        }
        assert_eq!(manager.relocate(&mut moves), Ok(()));
        assert_eq!([0x4000, 0x401f, 0x4020, 0x402f, 0x4030].map(|at| byte(&manager, at)), [1, 1, 2, 2, 1]);
        assert_eq!([0x1000, 0x8000].map(|at| byte(&manager, at)), [0xff; 2]);
        (observe(&manager, &[]).devices, observe(&manager, &[]).answers)
    });
    assert_eq!(forwards, backwards);
}

#[test]
fn a_moved_window_takes_along_what_is_named_with_it() {
    manager!(let manager);
    let window = IoResource::mmio(0x1000, 0x100).window();
    let bus = manager.register_device(&BUS, None, &[window], &[]).unwrap();
    let inside = [IoResource::mmio(0x1010, 0x10), IoResource::mmio(0x1080, 0x80)];
    let child = manager.register_device(&CHILD, Some(bus), &inside, &[]).unwrap();
    let before = observe(&manager, &[]);
    // Alone, and with a part of what lies in it. The new place overlaps the old one.
    let window = Relocation::new(bus, 0).to(GuestAddress(0x1040));
    let first = Relocation::new(child, 0).to(GuestAddress(0x1050));
    let second = Relocation::new(child, 1).to(GuestAddress(0x10c0));
    let states = || [0, 1].map(|index| manager.range(child, index).unwrap().to_string());
    let (here, stays) = ("mmio [0x1050, 0x105f]", "mmio [0x1080, 0x10ff]");
    let (waits, moved) = ("mmio [0x1010, 0x101f] (waiting)", "mmio [0x10c0, 0x113f]");
    let back = [Relocation::new(bus, 0).to(GuestAddress(0x1000)), Relocation::new(child, 0).to(GuestAddress(0x1010))];
    let second_back = Relocation::new(child, 1).to(GuestAddress(0x1080));
    for (moves, expected) in [
        (&mut [window][..], [waits, stays]),
        (&mut [window, first], [here, stays]),
        (&mut [second, window], [waits, moved]),
    ] {
        assert_eq!(manager.relocate(moves), Ok(()));
        assert_eq!(states(), expected);
        // What waits is back with the window.
        let mut back = [back[0], second_back, back[1]];
        let count = if expected[0] == here { 3 } else { 2 };
        assert_eq!(manager.relocate(&mut back[..count]), Ok(()));
        assert_eq!(observe(&manager, &[]), before);
    }
    assert_eq!(manager.relocate(&mut [second, first, window]), Ok(()));
    let seen = [0x103f, 0x1040, 0x104f, 0x1050, 0x105f, 0x1060, 0x10c0, 0x113f, 0x1140].map(|at| byte(&manager, at));
    assert_eq!(seen, [0xff, 1, 1, 2, 2, 1, 2, 2, 0xff]);
}

#[test]
fn what_lies_behind_a_window_that_is_not_decoded_is_not_reached() {
    manager!(let manager);
    let window = IoResource::mmio(0, 0x100).window();
    let bus = manager.register_device(&BUS, None, &[window], &[]).unwrap();
    manager.register_device(&CHILD, Some(bus), &[IoResource::mmio(0x80, 0x10)], &[]).unwrap();
    let mut vcpu = manager.dispatcher(0).unwrap();
    let mut data = [0];
    let window = Relocation::new(bus, 0);
    for (change, [around, inside]) in [
        (window.reserved(), [0xff; 2]),
        (window.decoded(), [1, 2]),
        (window.decoded(), [1, 2]),
        (window.unplaced(), [0xff; 2]),
        (window.to(GuestAddress(0)), [1, 2]),
        (window.reserved(), [0xff; 2]),
    ] {
        assert_eq!(manager.relocate(&mut [change]), Ok(()));
        assert_eq!([0x7f, 0x80, 0x8f, 0x90].map(|at| byte(&manager, at)), [around, inside, inside, around]);
        for (address, expected) in [(0x7f, around), (0x80, inside)] {
            let _ = vcpu.read(GuestAddress(address), &mut data, IoType::Mmio);
            assert_eq!(data, [expected]);
        }
    }
}

#[test]
fn a_range_keeps_the_alignment_that_it_was_asked_for_with() {
    manager!(let manager);
    let device = Constant { name: "aligned", value: 1 };
    let fixed = Constant { name: "fixed", value: 2 };
    let limits = IoRange::new(GuestAddress(0x1000), GuestAddress(0x1fff)).unwrap();
    let request = IoResource::any(IoType::Mmio, GuestUsize(0x100)).aligned(0x400).within(limits);
    let id = manager.register_device(&device, None, &[request], &[]).unwrap();
    let other = manager.register_device(&fixed, None, &[IoResource::mmio(0x10, 4)], &[]).unwrap();
    let to = |id, base| manager.relocate(&mut [Relocation::new(id, 0).to(GuestAddress(base))]);
    for base in [0x1001, 0x1200, 0x13ff, 0x2200, u64::MAX - 0xff] {
        let error = to(id, base).unwrap_err();
        let refusal = RangeRefusal::Misaligned { wanted: GuestAddress(base), alignment: GuestUsize(0x400) };
        let (device, index) = ("aligned", 0);
        assert_eq!(error, RelocateError::Range { device, index, to: GuestAddress(base), refusal });
        let text = format!(
            "range 0 of \"aligned\" to {base:#x}: {base:#x} is no multiple of 0x400, the alignment that the range was asked \
             for with; {:#x} is",
            base & !0x3ff
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(byte(&manager, 0x1000), 1, "nothing has changed");
    }
    // A fixed range keeps it too.
    let register = Constant { name: "register", value: 3 };
    let request = IoResource::mmio(0x40, 4).aligned(0x20);
    let third = manager.register_device(&register, None, &[request], &[]).unwrap();
    let refusal = RangeRefusal::Misaligned { wanted: GuestAddress(0x50), alignment: GuestUsize(0x20) };
    let error = RelocateError::Range { device: "register", index: 0, to: GuestAddress(0x50), refusal };
    assert_eq!((to(third, 0x50), to(third, 0x60)), (Err(error), Ok(())));
    // Its limits were for its first place. A fixed range without one has no alignment; nor has a slot that is used again.
    assert_eq!((to(id, 0x2400), byte(&manager, 0x2400)), (Ok(()), 1));
    assert_eq!((to(other, 0x13), byte(&manager, 0x13)), (Ok(()), 2));
    manager.unregister_device(id).unwrap();
    let again = manager.register_device(&device, None, &[IoResource::mmio(0x100, 4)], &[]).unwrap();
    assert_eq!((to(again, 0x101), byte(&manager, 0x101)), (Ok(()), 1));
}

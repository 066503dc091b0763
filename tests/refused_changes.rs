//! Removals, moves and reservations that are refused: the error names both parties, and leaves everything as it was.

mod fixture;

use fixture::{BUS, DEVICES, Platform, RANGES, bounded, is_refused, manager, range};
use vm_device::{
    Gsi, GuestAddress, GuestUsize, IoResource, IoType, IrqResource, Owner, RangeError, RangeRefusal, RelocateError,
    Relocation, UnregisterError,
};

/// rust-vmm 2019: a bus does not vanish under its children.
#[test]
fn a_removal_that_is_refused_changes_nothing() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let Platform { bus, child, stale, .. } = Platform::new(&manager);
    let remove = |id, deferred| match deferred {
        true => manager.unregister_device_deferred(id),
        false => manager.unregister_device(id),
    };
    for deferred in [false, true] {
        let error = UnregisterError::NotFound { id: stale };
        is_refused(&manager, error, "no device has the id #3", || remove(stale, deferred));
        let error = UnregisterError::HasChildren { device: "bus", child: "child" };
        let words = "the bus \"bus\" has children, \"child\" for one: `unregister_subtree` removes all of it";
        is_refused(&manager, error, words, || remove(bus, deferred));
    }
    assert_eq!(manager.unregister_subtree(stale), Err(UnregisterError::NotFound { id: stale }));
    manager.unregister_device_deferred(child).unwrap();
    let error = UnregisterError::Busy { device: "child" };
    for deferred in [false, true] {
        let words = "\"child\" is being registered or removed by another caller";
        is_refused(&manager, error, words, || remove(child, deferred));
    }
    assert_eq!(manager.unregister_subtree(bus), Err(error));
    assert_eq!(manager.collect(), 0);
    manager.unregister_device(bus).unwrap();
    // What else can be refused needs a callback that runs: tests/reentrancy.rs.
    let error = UnregisterError::InOwnCallback { device: "bus" };
    assert_eq!(
        error.to_string(),
        "\"bus\" is removed from within its own callback by `unregister_device_deferred` only"
    );
    let error = UnregisterError::InUse { device: "bus" };
    assert_eq!(error.to_string(), "a callback of \"bus\" has not ended; was it to be removed from within it?");
}

#[test]
fn a_subtree_goes_in_one_act() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let Platform { bus, child, serial, .. } = Platform::new(&manager);
    let mut vcpu = manager.dispatcher(0).unwrap();
    assert_eq!(vcpu.read(GuestAddress(0x1_8000), &mut [0], IoType::Mmio), Ok(()));
    manager.unregister_subtree(bus).unwrap();
    for id in [bus, child] {
        assert_eq!(manager.unregister_device(id), Err(UnregisterError::NotFound { id }));
    }
    for address in [0x1_8000, 0x1_0000] {
        assert!(vcpu.read(GuestAddress(address), &mut [0], IoType::Mmio).is_err());
    }
    assert_eq!(manager.walk().map(|info| info.id).collect::<Vec<_>>(), [serial]);
    // What stands behind it is as it was.
    assert_eq!(manager.read(GuestAddress(0x3f8), &mut [0], IoType::Pio), Ok(()));
    assert_eq!(manager.unregister_device(serial), Ok(()));
    // Everything it had is free.
    let all = IoResource::at(IoType::Mmio, range(0x1000, 0xf_ffff));
    manager.register_device(&BUS, None, &[all], &[IrqResource::Fixed(Gsi(7))]).unwrap();
}

#[test]
fn a_move_that_is_refused_changes_nothing() {
    manager!(let manager: <DEVICES, RANGES, 1> = bounded());
    let Platform { bus, child, serial, stale } = Platform::new(&manager);
    let fine = Relocation::new(serial, 0).to(GuestAddress(0x2f8)).reserved();
    let to = |id, index, to| Relocation::new(id, index).to(GuestAddress(to));

    let error = RelocateError::NotFound { id: stale };
    is_refused(&manager, error, "no device has the id #3", || manager.relocate(&mut [fine, to(stale, 0, 0)]));
    let error = RelocateError::NoSuchRange { device: "child", index: 2 };
    is_refused(&manager, error, "\"child\" has no range 2", || manager.relocate(&mut [fine, to(child, 2, 0)]));
    let error = RelocateError::NoSuchRange { device: "child", index: usize::MAX };
    assert_eq!(manager.relocate(&mut [to(child, usize::MAX, 0)]), Err(error));
    let error = RelocateError::NamedTwice { device: "serial", index: 0 };
    let words = "range 0 of \"serial\" is named twice in one transaction";
    is_refused(&manager, error, words, || manager.relocate(&mut [fine, to(serial, 0, 0)]));

    let refused = |device, index, to, refusal| RelocateError::Range { device, index, to: GuestAddress(to), refusal };
    let refusal = RangeRefusal::Overlap {
        wanted: range(0x1_9001, 0x1_9100),
        taken: range(0x1_9000, 0x1_90ff),
        owner: Owner::Device { id: child, name: "child" },
    };
    let error = refused("child", 0, 0x1_9001, refusal);
    let words = "range 0 of \"child\" to 0x19001: [0x19001, 0x19100] overlaps [0x19000, 0x190ff], which belongs to \"child\" (#1)";
    is_refused(&manager, error, words, || manager.relocate(&mut [fine, to(child, 0, 0x1_9001)]));
    let refusal = RangeRefusal::Overlap {
        wanted: range(0xf_ffff, 0x10_fffe),
        taken: range(0x10_0000, 0x1f_ffff),
        owner: Owner::Vmm,
    };
    let error = refused("bus", 0, 0xf_ffff, refusal);
    let words =
        "range 0 of \"bus\" to 0xfffff: [0xfffff, 0x10fffe] overlaps [0x100000, 0x1fffff], which belongs to the VMM";
    is_refused(&manager, error, words, || manager.relocate(&mut [to(child, 0, 0x10_1000), fine, to(bus, 0, 0xf_ffff)]));
    // A window leaves what is named with it behind, too.
    let outside = RangeRefusal::OutsideWindow {
        wanted: range(0x1_8080, 0x1_817f),
        window: range(0x2_0000, 0x2_ffff),
        owner: Owner::Device { id: bus, name: "bus" },
    };
    let error = refused("child", 0, 0x1_8080, outside);
    let words = "range 0 of \"child\" to 0x18080: [0x18080, 0x1817f] lies outside [0x20000, 0x2ffff], the window of \
                 \"bus\" (#0)";
    is_refused(&manager, error, words, || manager.relocate(&mut [fine, to(child, 0, 0x1_8080), to(bus, 0, 0x2_0000)]));
    let invalid = RangeRefusal::Invalid(RangeError::Wraps { base: GuestAddress(u64::MAX), size: GuestUsize(0x100) });
    let error = refused("child", 0, u64::MAX, invalid);
    let words = "range 0 of \"child\" to 0xffffffffffffffff: the range of 0x100 bytes at 0xffffffffffffffff passes the \
                 end of the 64-bit address space";
    is_refused(&manager, error, words, || manager.relocate(&mut [fine, to(child, 0, u64::MAX)]));
    let beyond = RangeError::BeyondSpace { range: range(0xfff9, 0x1_0000), last: GuestAddress(0xffff) };
    let error = refused("serial", 0, 0xfff9, RangeRefusal::Invalid(beyond));
    let words =
        "range 0 of \"serial\" to 0xfff9: the range [0xfff9, 0x10000] passes 0xffff, the last address of its space";
    is_refused(&manager, error, words, || manager.relocate(&mut [to(child, 0, 0x1_0000), to(serial, 0, 0xfff9)]));
    let outside = RangeRefusal::OutsidePool { wanted: range(0xfff, 0x1_0ffe), pool: range(0x1000, u64::MAX) };
    let error = refused("bus", 0, 0xfff, outside);
    let words = "range 0 of \"bus\" to 0xfff: [0xfff, 0x10ffe] lies outside the pool [0x1000, 0xffffffffffffffff]";
    is_refused(&manager, error, words, || manager.relocate(&mut [to(child, 1, 0x1_0000), to(bus, 0, 0xfff)]));

    manager.unregister_device_deferred(child).unwrap();
    let error = RelocateError::Busy { device: "child" };
    is_refused(&manager, error, "\"child\" is being registered or removed", || {
        manager.relocate(&mut [fine, to(child, 0, 0x1_0000)])
    });
}

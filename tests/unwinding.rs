//! Devices and controllers that unwind: what they were called for has not happened, and the manager goes on.

mod fixture;

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use fixture::{Acting, Source, at, manager, register, unwinds};
use vm_device::{
    Access, Device, Gsi, GuestAddress, InterruptController, InterruptError, IoResource, IoType, IrqResource, Rejected,
    Resources,
};

const SHARED: IrqResource = IrqResource::Shared(Gsi(7));

/// C27.
#[test]
fn a_device_that_panics_leaves_the_manager_usable() {
    manager!(let manager, with_removal_spins(2000));
    let inner = |_: &Access<'_>, _: &mut [u8]| panic!("a defect of the device");
    let inner = Acting { name: "inner", act: &inner };
    let nested = |access: &Access<'_>, data: &mut [u8]| {
        let _ = manager.nested(access).read(at(0), data, IoType::Mmio);
    };
    let nested = Acting { name: "nested", act: &nested };
    let ids = [register(&manager, &inner, 0), register(&manager, &nested, 8)];
    let mut vcpu = manager.dispatcher(0).unwrap();
    for address in [0, 8] {
        let mut data = [0];
        assert!(unwinds(|| manager.read(at(address), &mut data, IoType::Mmio)));
        assert!(unwinds(|| vcpu.read(at(address), &mut data, IoType::Mmio)));
        assert_eq!(data, [0xff]);
    }
    // No protection is left that the removals would wait for.
    for id in ids {
        assert_eq!(manager.unregister_device(id), Ok(()));
    }
}

/// C27.
#[test]
fn a_device_that_panics_over_its_resources_is_not_registered() {
    struct Panicking(AtomicUsize);
    impl<'d> Device<'d> for Panicking {
        fn name(&self) -> &str {
            "panicking"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
        fn set_resources(&self, _: &Resources<'_, 'd>) -> Result<(), Rejected> {
            assert_ne!(self.0.fetch_add(1, SeqCst), 0, "a defect of the device");
            Ok(())
        }
    }
    manager!(let manager, with_removal_spins(2000));
    let device = Panicking(AtomicUsize::new(0));
    let requests = [IoResource::mmio(0, 4), IoResource::pio(0, 4)];
    let register = || manager.register_device(&device, None, &requests, &[]);
    assert!(unwinds(register));
    assert_eq!(manager.walk().count() + manager.address_map(IoType::Mmio).count(), 0);
    let id = register().unwrap();
    assert_eq!(manager.read(at(0), &mut [0], IoType::Mmio), Ok(()));
    manager.unregister_device(id).unwrap();
}

/// A controller that unwinds as often as it is told to.
#[derive(Default)]
struct Unwinding {
    times: AtomicUsize,
    level: AtomicBool,
}

impl Unwinding {
    fn may_unwind(&self) {
        let left = self.times.fetch_update(SeqCst, SeqCst, |times| times.checked_sub(1));
        assert!(left.is_err(), "the controller could not be called");
    }
}

impl InterruptController for Unwinding {
    fn set_level(&self, _: Gsi, asserted: bool) -> Result<(), InterruptError> {
        self.may_unwind();
        self.level.store(asserted, SeqCst);
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        self.may_unwind();
        Ok(())
    }
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        self.may_unwind();
        Ok(())
    }
}

/// C24, C27.
#[test]
fn a_controller_that_unwinds_has_not_taken_what_it_was_told_and_the_line_lives_on() {
    let controller = Unwinding::default();
    manager!(let manager, with_interrupt_controller(&controller));
    let (a, b) = (Source::new("a"), Source::new("b"));
    let id = manager.register_device(&a, None, &[], &[SHARED]).unwrap();
    manager.register_device(&b, None, &[], &[SHARED]).unwrap();
    let unwind = || controller.times.store(1, SeqCst);
    let level = || controller.level.load(SeqCst);
    unwind();
    assert!(unwinds(|| a.line().assert()) && !level());
    assert_eq!((b.line().deassert(), level()), (Ok(()), true), "the other device's drive tells of it");
    unwind();
    assert!(unwinds(|| a.line().message(GuestAddress(0), 0)));
    unwind();
    assert!(unwinds(|| manager.unregister_device(id)) && level(), "the last source's deassertion was not taken");
    assert!(manager.device(id).is_none(), "the removal is complete all the same");
    assert_eq!((b.line().deassert(), level()), (Ok(()), false));
    assert_eq!(manager.register_device(&a, None, &[], &[SHARED]).map(drop), Ok(()));
}

/// C27.
#[test]
fn a_controller_that_unwinds_during_a_removal_leaves_nothing_half_removed() {
    for deferred in [false, true] {
        let controller = Unwinding::default();
        manager!(let manager, with_interrupt_controller(&controller));
        let (bus, child) = (Source::new("bus"), Source::new("child"));
        let bus_id = manager.register_device(&bus, None, &[], &[IrqResource::Fixed(Gsi(5))]).unwrap();
        let child_id = manager.register_device(&child, Some(bus_id), &[], &[IrqResource::Fixed(Gsi(6))]).unwrap();
        for device in [&bus, &child] {
            device.line().assert().unwrap();
        }
        controller.times.store(1, SeqCst);
        match deferred {
            false => assert!(unwinds(|| manager.unregister_subtree(bus_id))),
            true => {
                manager.unregister_device_deferred(child_id).unwrap();
                assert!(unwinds(|| manager.collect()));
                manager.unregister_device_deferred(bus_id).unwrap();
            }
        }
        assert!(manager.device(child_id).is_none());
        assert_eq!(bus.line().assert(), Err(InterruptError::Removed), "the rest is left to `collect`");
        // While it unwinds, the controller is told nothing, and the nodes are finished all the same.
        controller.times.store(1, SeqCst);
        assert!(unwinds(|| manager.collect()));
        assert_eq!(manager.walk().count(), 0);
        assert_eq!(manager.collect(), 0);
        assert!(!controller.level.load(SeqCst));
        for gsi in [5, 6] {
            let id = manager.register_device(&bus, None, &[], &[IrqResource::Fixed(Gsi(gsi))]).unwrap();
            manager.unregister_device(id).unwrap();
        }
    }
}

//! Devices that use the manager from within their own callbacks.

mod fixture;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fixture::{Acting, Constant, at, manager, nth_name, observe, range, read_both_ways, register, within_limit};
use spin::Mutex;
use vm_device::{
    Access, Device, DeviceManager, IoError, IoResource, IoType, MAX_ANONYMOUS, MAX_DEPTH, RegisterError, Rejected,
    Relocation, Resources, UnregisterError,
};

/// As many as a manager of the fixture has.
const VCPUS: usize = 2;

const OTHER: Constant = Constant { name: "other", value: 0x77 };

/// Runs on a stack of 2 MiB, which is what a thread gets that asks for none.
fn on_a_small_stack(act: impl FnOnce() + Send) {
    thread::scope(|scope| {
        thread::Builder::new().stack_size(2 << 20).spawn_scoped(scope, act).unwrap().join().unwrap();
    });
}

/// C1, C2.
#[test]
fn a_device_accesses_another_from_within() {
    manager!(let manager, with_removal_spins(2000));
    let nested = |access: &Access<'_>, data: &mut [u8]| {
        assert_eq!(manager.nested(access).read(at(0x100), data, IoType::Mmio), Ok(()));
        assert_eq!(manager.nested(access).write(at(0x100), data, IoType::Mmio), Ok(()));
        assert_eq!(manager.nested(access).read_string(0x10, 1, data), Err(IoError::Unclaimed));
        assert_eq!(manager.nested(access).write_string(0x10, 1, data), Err(IoError::Unclaimed));
        assert_eq!(manager.nested(access).read(at(0x100), data, IoType::Mmio), Ok(()));
    };
    let plain = |_: &Access<'_>, data: &mut [u8]| {
        assert_eq!(manager.read(at(0x100), data, IoType::Mmio), Ok(()));
    };
    let devices = [Acting { name: "nested", act: &nested }, Acting { name: "plain", act: &plain }];
    register(&manager, &OTHER, 0x100);
    for (device, address) in devices.iter().zip([0, 8]) {
        register(&manager, device, address);
        assert_eq!(read_both_ways(&manager, address), [Ok(0x77); 2]);
    }
}

/// How deep a device gets that reads itself, when it is reached by the manager and when it is by a handle.
fn recursion(by_nested: bool) -> [usize; 2] {
    manager!(let manager, with_removal_spins(2000));
    let depth = AtomicUsize::new(0);
    let last = Mutex::new(Ok(()));
    let act = |access: &Access<'_>, data: &mut [u8]| {
        depth.fetch_add(1, Ordering::Relaxed);
        let outcome = if by_nested {
            manager.nested(access).read(at(0), data, IoType::Mmio)
        } else {
            manager.read(at(0), data, IoType::Mmio)
        };
        if outcome.is_err() {
            *last.lock() = outcome;
            assert_eq!(data, [0xff], "the refused access leaves the open-bus value");
        }
    };
    let device = Acting { name: "ouroboros", act: &act };
    let id = register(&manager, &device, 0);
    let depths = [false, true].map(|handle| {
        let mut data = [0];
        on_a_small_stack(|| {
            let outcome = if handle {
                manager.dispatcher(0).unwrap().read(at(0), &mut data, IoType::Mmio)
            } else {
                manager.read(at(0), &mut data, IoType::Mmio)
            };
            assert_eq!(outcome, Ok(()), "the access of the guest itself has reached the device");
        });
        assert_eq!(*last.lock(), Err(IoError::TooDeep));
        depth.swap(0, Ordering::Relaxed)
    });
    // Nothing is left of the refused ones.
    assert_eq!(manager.unregister_device(id), Ok(()));
    depths
}

/// C19.
#[test]
fn endless_recursion_through_nested_accesses_ends() {
    assert_eq!(recursion(true), [MAX_DEPTH; 2]);
}

/// C20.
#[test]
fn endless_recursion_that_the_manager_cannot_see_ends() {
    // The first that is counted finds the range empty, and some find words that need no count: two at least, where the stack
    // is, and at most two for each vCPU. Through a handle the first is not counted either.
    let limit = MAX_ANONYMOUS as usize + 1;
    for (depth, by_handle) in recursion(false).into_iter().zip([0, 1]) {
        assert!((limit + 2..=limit + 2 * VCPUS).contains(&(depth - by_handle)), "{depth}");
    }
}

/// C20.
#[test]
fn endless_recursion_through_a_ring_of_devices_ends() {
    const RING: u64 = 64;
    manager!(let manager: <64, 64, VCPUS>);
    let depth = AtomicUsize::new(0);
    let reads_the_next = |access: &Access<'_>, data: &mut [u8]| {
        depth.fetch_add(1, Ordering::Relaxed);
        let _ = manager.read(at((access.base().0 + 4) % (RING * 4)), data, IoType::Mmio);
    };
    let ring: Vec<_> = (0..RING).map(|n| Acting { name: nth_name(n as usize), act: &reads_the_next }).collect();
    for (n, device) in (0..).zip(&ring) {
        manager.register_device(device, None, &[IoResource::mmio(n * 4, 4)], &[]).unwrap();
    }
    on_a_small_stack(|| assert_eq!(manager.read(at(0), &mut [0], IoType::Mmio), Ok(())));
    let (depth, counted) = (depth.load(Ordering::Relaxed), RING as usize + MAX_ANONYMOUS as usize);
    assert!((counted + 2..=counted + 2 * VCPUS).contains(&depth), "{depth}");
}

/// C1, C2, C17.
#[test]
fn a_device_registers_moves_and_removes_others_from_within() {
    manager!(let manager, with_removal_spins(2000));
    let act = |access: &Access<'_>, data: &mut [u8]| {
        assert_eq!(access.base(), at(0));
        let other = register(&manager, &OTHER, 0x100);
        assert_eq!(manager.nested(access).read(at(0x100), data, IoType::Mmio), Ok(()));
        assert_eq!(manager.relocate(&mut [Relocation::new(other, 0).to(at(0x200))]), Ok(()));
        assert_eq!(manager.nested(access).read(at(0x100), data, IoType::Mmio), Err(IoError::Unclaimed));
        assert_eq!(manager.read(at(0x200), data, IoType::Mmio), Ok(()));
        // Itself too: this access keeps the base it was found under.
        let myself = manager.find_by_address(at(0), IoType::Mmio).unwrap().0;
        assert_eq!(manager.relocate(&mut [Relocation::new(myself, 0).to(at(0x300))]), Ok(()));
        assert_eq!(access.base(), at(0));
        assert_eq!(manager.nested(access).unregister_device(other), Ok(()));
        assert_eq!(manager.relocate(&mut [Relocation::new(myself, 0).to(at(0))]), Ok(()));
    };
    let device = Acting { name: "busy", act: &act };
    register(&manager, &device, 0);
    assert_eq!(read_both_ways(&manager, 0), [Ok(0x77); 2]);
    assert_eq!(manager.walk().count(), 1);
}

/// C12.
#[test]
fn a_device_that_removes_itself_is_told_at_once() {
    manager!(let manager, with_removal_spins(1 << 22));
    let act = |access: &Access<'_>, _: &mut [u8]| {
        let id = manager.find_by_path("/suicidal").unwrap();
        let refused = UnregisterError::InOwnCallback { device: "suicidal" };
        assert_eq!(manager.nested(access).unregister_device(id), Err(refused));
        assert_eq!(manager.nested(access).unregister_subtree(id), Err(refused));
    };
    let device = Acting { name: "suicidal", act: &act };
    let id = register(&manager, &device, 0);
    // From further in, too: through a device that reads it.
    let outer = |access: &Access<'_>, data: &mut [u8]| {
        assert_eq!(manager.nested(access).read(at(0), data, IoType::Mmio), Ok(()));
    };
    let outer = Acting { name: "outer", act: &outer };
    register(&manager, &outer, 8);
    for address in [0, 8] {
        assert_eq!(read_both_ways(&manager, address), [Ok(0xff); 2]);
    }
    assert_eq!(manager.unregister_device(id), Ok(()));
}

/// C12.
#[test]
fn a_device_cannot_remove_one_whose_callback_it_was_called_from() {
    manager!(let manager, with_removal_spins(1 << 22));
    let inner = |access: &Access<'_>, _: &mut [u8]| {
        for (path, device) in [("/outer", "outer"), ("/inner", "inner")] {
            let id = manager.find_by_path(path).unwrap();
            let refused = UnregisterError::InOwnCallback { device };
            assert_eq!(manager.nested(access).unregister_device(id), Err(refused));
        }
    };
    let inner = Acting { name: "inner", act: &inner };
    let outer = |access: &Access<'_>, data: &mut [u8]| {
        assert_eq!(manager.nested(access).read(at(0), data, IoType::Mmio), Ok(()));
    };
    let outer = Acting { name: "outer", act: &outer };
    register(&manager, &inner, 0);
    register(&manager, &outer, 8);
    assert_eq!(read_both_ways(&manager, 8), [Ok(0xff); 2]);
}

/// C12.
#[test]
fn a_device_that_removes_itself_without_saying_so_is_told_after_the_patience() {
    manager!(let manager, with_removal_spins(2000));
    let act = |_: &Access<'_>, _: &mut [u8]| {
        let id = manager.find_by_path("/suicidal").unwrap();
        let refused = UnregisterError::InUse { device: "suicidal" };
        assert_eq!(manager.unregister_device(id), Err(refused));
        assert_eq!(manager.unregister_subtree(id), Err(refused));
    };
    let device = Acting { name: "suicidal", act: &act };
    let id = register(&manager, &device, 0);
    // Still reachable, both times.
    assert_eq!(read_both_ways(&manager, 0), [Ok(0xff); 2]);
    assert_eq!(manager.unregister_device(id), Ok(()));
}

/// C14, C15.
#[test]
fn a_device_removes_itself_deferred() {
    manager!(let manager, with_removal_spins(2000));
    let calls = AtomicUsize::new(0);
    let act = |access: &Access<'_>, data: &mut [u8]| {
        calls.fetch_add(1, Ordering::Relaxed);
        let id = manager.find_by_path("/ejected").unwrap();
        assert_eq!(manager.unregister_device_deferred(id), Ok(()));
        assert_eq!(manager.unregister_device_deferred(id), Err(UnregisterError::Busy { device: "ejected" }));
        assert_eq!(manager.nested(access).read(at(0), data, IoType::Mmio), Err(IoError::Unclaimed));
        assert_eq!(manager.collect(), 1, "its callback is running");
        // Its place is not free before it has ended.
        let again = manager.register_device(&OTHER, None, &[IoResource::mmio(0, 4)], &[]);
        assert!(matches!(again, Err(RegisterError::Range { .. })));
    };
    let device = Acting { name: "ejected", act: &act };
    for handle in [false, true] {
        let id = register(&manager, &device, 0);
        let mut data = [0];
        if handle {
            let mut vcpu = manager.dispatcher(0).unwrap();
            assert_eq!(vcpu.read(at(0), &mut data, IoType::Mmio), Ok(()));
            assert_eq!(vcpu.read(at(0), &mut data, IoType::Mmio), Err(IoError::Unclaimed));
        } else {
            assert_eq!(manager.read(at(0), &mut data, IoType::Mmio), Ok(()));
            assert_eq!(manager.read(at(0), &mut data, IoType::Mmio), Err(IoError::Unclaimed));
        }
        assert_eq!(manager.collect(), 0);
        assert!(manager.device(id).is_none());
        assert_eq!(manager.unregister_device(id), Err(UnregisterError::NotFound { id }));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    // A registration collects as well.
    let id = register(&manager, &OTHER, 0);
    assert_eq!(manager.unregister_device_deferred(id), Ok(()));
    register(&manager, &OTHER, 0);
}

/// C12, C14.
#[test]
fn two_callbacks_that_remove_each_others_device_all_return() {
    for (deferred, nested) in [(false, false), (false, true), (true, false)] {
        manager!(let manager, with_removal_spins(2000));
        let together = Barrier::new(2);
        let outcomes = Mutex::new(Vec::new());
        let remove_other = |access: &Access<'_>, path: &str| {
            let other = manager.find_by_path(path).unwrap();
            together.wait();
            let outcome = match (deferred, nested) {
                (true, _) => manager.unregister_device_deferred(other),
                (_, true) => manager.nested(access).unregister_device(other),
                _ => manager.unregister_device(other),
            };
            outcomes.lock().push(outcome.is_ok());
            together.wait();
        };
        let left = |access: &Access<'_>, _: &mut [u8]| remove_other(access, "/right");
        let right = |access: &Access<'_>, _: &mut [u8]| remove_other(access, "/left");
        let (left, right) = (Acting { name: "left", act: &left }, Acting { name: "right", act: &right });
        register(&manager, &left, 0);
        register(&manager, &right, 8);
        thread::scope(|scope| {
            for address in [0, 8] {
                let manager = &manager;
                scope.spawn(move || {
                    let mut vcpu = manager.dispatcher(0).unwrap();
                    assert_eq!(vcpu.read(at(address), &mut [0], IoType::Mmio), Ok(()));
                });
            }
        });
        assert_eq!(*outcomes.lock(), [deferred; 2]);
        assert_eq!(manager.collect(), 0);
        assert_eq!(manager.walk().count(), if deferred { 0 } else { 2 });
    }
}

/// C6.
#[test]
fn a_device_cannot_be_reached_or_changed_while_it_is_told_its_resources() {
    struct Early<'d> {
        manager: &'d DeviceManager<'d>,
        accept: bool,
    }
    impl<'d> Device<'d> for Early<'d> {
        fn name(&self) -> &str {
            "early"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {
            panic!("reached");
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
        fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
            let manager = self.manager;
            assert_eq!(resources.ranges()[0].range.first(), at(0));
            assert_eq!(manager.read(at(0), &mut [0], IoType::Mmio), Err(IoError::Unclaimed));
            let id = manager.find_by_path("/early").unwrap();
            let busy = UnregisterError::Busy { device: "early" };
            assert_eq!(manager.unregister_device(id), Err(busy));
            assert_eq!(manager.unregister_device_deferred(id), Err(busy));
            assert!(manager.relocate(&mut [Relocation::new(id, 0).to(at(8))]).is_err());
            let below = manager.register_device(&OTHER, Some(id), &[], &[]);
            assert_eq!(below, Err(RegisterError::NoSuchParent { device: "other", parent: id }));
            let beside = manager.register_device(&OTHER, None, &[], &[]).unwrap();
            assert_eq!(manager.unregister_device(beside), Ok(()));
            if self.accept { Ok(()) } else { Err(Rejected::new(0)) }
        }
    }
    manager!(let manager, with_removal_spins(2000));
    let (accepting, rejecting) =
        (Early { manager: &manager, accept: true }, Early { manager: &manager, accept: false });
    let requests = [IoResource::mmio(0, 4)];
    let rejected = manager.register_device(&rejecting, None, &requests, &[]);
    assert_eq!(rejected, Err(RegisterError::Rejected { device: "early", code: 0 }));
    assert_eq!(manager.walk().count() + manager.address_map(IoType::Mmio).count(), 0);
    assert!(manager.register_device(&accepting, None, &requests, &[]).is_ok());
}

/// C1, C2.
/// Cloud Hypervisor 832, 6775 and 8028: no lock is held across a callback.
#[test]
fn a_device_looks_around_while_it_is_told_its_resources() {
    struct Curious<'d>(&'d DeviceManager<'d>, AtomicUsize);
    impl<'d> Device<'d> for Curious<'d> {
        fn name(&self) -> &str {
            let _ = self.0.walk().count();
            "curious"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
        fn set_resources(&self, _: &Resources<'_, 'd>) -> Result<(), Rejected> {
            self.1.store(observe(self.0, &[]).devices.len(), Ordering::Relaxed);
            self.0.reserve(IoType::Mmio, range(0x9000, 0x9fff)).unwrap();
            self.0.release(IoType::Mmio, range(0x9000, 0x9fff)).unwrap();
            assert_eq!(self.0.collect(), 0);
            Ok(())
        }
    }
    within_limit(|| {
        manager!(let manager);
        let curious = Curious(&manager, AtomicUsize::new(0));
        register(&manager, &OTHER, 8);
        register(&manager, &curious, 0);
        assert_eq!(curious.1.load(Ordering::Relaxed), 2, "it sees itself");
        // Iterators hold nothing between their steps either.
        for info in manager.walk() {
            assert!(manager.device(info.id).is_some());
            for mapped in manager.address_map(IoType::Mmio) {
                assert!(manager.find_by_address(mapped.assigned.range.first(), IoType::Mmio).is_some());
            }
        }
    });
}

/// C20.
#[test]
fn nesting_ends_where_each_callback_has_a_handle_of_its_own() {
    const VCPUS: usize = 20;
    manager!(let manager: <1, 1, VCPUS>);
    let (depth, refusals) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let again = |access: &Access<'_>, _: &mut [u8]| {
        let depth = depth.fetch_add(1, Ordering::SeqCst);
        // As deep as it goes through one handle, then with the next, and at last with none.
        let outcome = match manager.nested(access).read(at(0), &mut [0], IoType::Mmio) {
            Err(IoError::TooDeep) => match manager.dispatcher_with_hints::<0, 1>(0) {
                Ok(mut vcpu) => vcpu.read(at(0), &mut [0], IoType::Mmio),
                Err(_) if depth < 8 * VCPUS + 8 => manager.read(at(0), &mut [0], IoType::Mmio),
                Err(_) => Err(IoError::TooDeep),
            },
            outcome => outcome,
        };
        refusals.fetch_add(usize::from(outcome == Err(IoError::TooDeep)), Ordering::SeqCst);
    };
    let device = Acting { name: "device", act: &again };
    manager.register_device(&device, None, &[IoResource::mmio(0, 4)], &[]).unwrap();
    thread::scope(|scope| {
        let start = || {
            manager.dispatcher_with_hints::<0, 1>(0).unwrap().read(at(0), &mut [0], IoType::Mmio).unwrap();
        };
        // Deeper than a thread's stack usually is in a debug build.
        thread::Builder::new().stack_size(16 << 20).spawn_scoped(scope, start).unwrap();
    });
    let (depth, most) = (depth.load(Ordering::SeqCst), VCPUS * MAX_DEPTH + 1 + MAX_ANONYMOUS as usize + 2 * VCPUS);
    assert!(VCPUS * MAX_DEPTH <= depth && depth <= most, "{depth}");
    assert!(refusals.load(Ordering::SeqCst) > 0);
}

//! Calls of devices that are no accesses, seen from the removals that wait for them.

use super::Named;
use crate::{DeviceManager, IoRange, Storage, SystemAllocator, UnregisterError};

const ALLOCATOR: SystemAllocator = SystemAllocator::new(IoRange::ALL_MEMORY);
const SPINS: u32 = 100;

#[test]
fn a_removal_gives_up_while_a_call_of_the_device_is_under_way() {
    let (bus, child) = (Named("bus"), Named("child"));
    let storage = Storage::<4, 4, 1>::new();
    let manager = DeviceManager::new(&storage, ALLOCATOR).with_removal_spins(SPINS);
    let bus = manager.register_device(&bus, None, &[], &[]).unwrap();
    let child = manager.register_device(&child, Some(bus), &[], &[]).unwrap();
    let calls = [child, child].map(|id| manager.begin_call(id).unwrap());
    for call in calls {
        assert_eq!(manager.unregister_device(child), Err(UnregisterError::InUse { device: "child" }));
        assert_eq!(manager.unregister_subtree(bus), Err(UnregisterError::InUse { device: "child" }));
        drop(call);
    }
    assert_eq!(manager.unregister_device(child), Ok(()));
    let call = manager.begin_call(bus).unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _call = call;
        panic!("a defect of the device");
    }));
    assert!(unwound.is_err());
    assert_eq!(manager.unregister_subtree(bus), Ok(()));
}

#[test]
fn a_deferred_removal_is_finished_when_no_call_of_the_device_is_under_way() {
    let card = Named("card");
    let storage = Storage::<4, 4, 1>::new();
    let manager = DeviceManager::new(&storage, ALLOCATOR);
    let id = manager.register_device(&card, None, &[], &[]).unwrap();
    let call = manager.begin_call(id).unwrap();
    manager.unregister_device_deferred(id).unwrap();
    assert!(manager.begin_call(id).is_none(), "no call of it begins any more");
    assert_eq!((manager.collect(), manager.walk().count()), (1, 1));
    drop(call);
    assert_eq!((manager.collect(), manager.walk().count()), (0, 0));
    assert!(manager.begin_call(id).is_none());
}

#[test]
fn no_more_calls_begin_than_are_counted() {
    let card = Named("card");
    let storage = Storage::<4, 4, 1>::new();
    let manager = DeviceManager::new(&storage, ALLOCATOR).with_removal_spins(SPINS);
    let id = manager.register_device(&card, None, &[], &[]).unwrap();
    let mut calls: std::vec::Vec<_> = (0..255).map_while(|_| manager.begin_call(id)).collect();
    assert!(manager.begin_call(id).is_none());
    assert_eq!(calls.len(), 255);
    // One that may wait waits for the end of another.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| manager.wait_for_call(id).is_some());
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!waiting.is_finished());
        calls.pop();
        assert!(waiting.join().unwrap());
    });
    assert_eq!(manager.unregister_device(id), Err(UnregisterError::InUse { device: "card" }));
    drop(calls);
    assert_eq!(manager.unregister_device(id), Ok(()));
}

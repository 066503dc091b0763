//! Two observers as one.

use vm_device::{AccessObserver, ObservedAccess};

/// Tells two observers, of which the second may be missing: one that counts, and one that writes a trace. The time is that of the
/// first; the second is told of none.
pub struct Observers<A, B>(pub A, pub Option<B>);

impl<A: AccessObserver, B: AccessObserver> AccessObserver for Observers<A, B> {
    fn observe(&self, access: &ObservedAccess<'_>) {
        self.0.observe(access);
        if let Some(second) = &self.1 {
            let mut access = *access;
            access.started = None;
            second.observe(&access);
        }
    }

    fn now(&self) -> Option<u64> {
        self.0.now()
    }
}

#[cfg(test)]
mod tests {
    use spin::Mutex;
    use vm_device::{DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator};

    use super::*;
    use crate::devices::scratch::Scratch;
    use crate::vmm::counters::Counters;

    /// Keeps the addresses, and whether a time came with one of them.
    #[derive(Default)]
    struct Seen(Mutex<(Vec<GuestAddress>, bool)>);

    impl AccessObserver for Seen {
        fn observe(&self, access: &ObservedAccess<'_>) {
            let mut seen = self.0.lock();
            seen.0.push(access.address);
            seen.1 |= access.started.is_some();
        }
    }

    #[test]
    fn both_are_told_and_the_time_is_that_of_the_first() {
        let scratch = Scratch::<4>::new("scratch");
        let (counters, seen) = (Counters::new(), Seen::default());
        for second in [None, Some(&seen)] {
            let observers = Observers(&counters, second);
            let storage = Storage::<2, 2, 1>::new();
            let manager =
                DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY)).with_observer(&observers);
            let device = manager.register_device(&scratch, None, &[IoResource::mmio(0x10, 4)], &[]).unwrap();
            let before = counters.of(device);
            manager.write(GuestAddress(0x10), &[0; 4], IoType::Mmio).unwrap();
            assert!(counters.of(device).time > before.time);
        }
        assert_eq!(*seen.0.lock(), (vec![GuestAddress(0x10)], false));
    }
}

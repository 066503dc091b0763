//! Counts the accesses of each device, while guests run: an observer of a manager.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use spin::Mutex;
use vm_device::{AccessDirection, AccessObserver, InstanceId, ObservedAccess};

/// How often a device was accessed, and how long that took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Reads; a burst of string I/O is one.
    pub reads: u64,
    /// Writes, in the same way.
    pub writes: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// The time from the dispatch to the end of the access, what is nested in it included.
    pub time: Duration,
}

/// The counts of all devices. They can be read at any time.
pub struct Counters(Mutex<BTreeMap<InstanceId, Counts>>);

impl Counters {
    /// Nothing counted yet.
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// What was counted of a device so far, which may be gone by now.
    pub fn of(&self, device: InstanceId) -> Counts {
        self.0.lock().get(&device).copied().unwrap_or_default()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl AccessObserver for Counters {
    fn observe(&self, access: &ObservedAccess<'_>) {
        let Some(device) = access.device else { return };
        let time = self.now().zip(access.started).map_or(0, |(now, started)| now - started);
        let mut devices = self.0.lock();
        let counts = devices.entry(device).or_default();
        match access.direction {
            AccessDirection::Read => counts.reads += 1,
            AccessDirection::Write => counts.writes += 1,
        }
        counts.bytes += access.data.len() as u64;
        counts.time += Duration::from_nanos(time);
    }

    /// Nanoseconds since this was called first.
    fn now(&self) -> Option<u64> {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        Some(FIRST.get_or_init(Instant::now).elapsed().as_nanos() as u64)
    }
}

#[cfg(test)]
mod tests {
    use vm_device::{DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator};

    use super::*;
    use crate::devices::scratch::Scratch;

    #[test]
    fn each_device_has_counts_of_its_own_which_stay_when_it_is_gone() {
        let counters = Counters::new();
        let (first, second) = (Scratch::<4>::new("first"), Scratch::<4>::new("second"));
        let storage = Storage::<2, 2, 1>::new();
        let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY)).with_observer(&counters);
        let first = manager.register_device(&first, None, &[IoResource::mmio(0, 4)], &[]).unwrap();
        let second = manager.register_device(&second, None, &[IoResource::mmio(8, 4)], &[]).unwrap();
        let mut vcpu = manager.dispatcher(0).unwrap();
        for _ in 0..3 {
            vcpu.read(GuestAddress(0), &mut [0; 4], IoType::Mmio).unwrap();
            vcpu.write(GuestAddress(8), &[0; 2], IoType::Mmio).unwrap();
            assert!(vcpu.read(GuestAddress(16), &mut [0; 4], IoType::Mmio).is_err());
        }
        manager.unregister_device(first).unwrap();
        let counts = |device| Counts { time: Duration::ZERO, ..counters.of(device) };
        assert_eq!(counts(first), Counts { reads: 3, writes: 0, bytes: 12, time: Duration::ZERO });
        assert_eq!(counts(second), Counts { reads: 0, writes: 3, bytes: 6, time: Duration::ZERO });
    }
}

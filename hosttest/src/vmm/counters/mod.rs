//! Counts the accesses of each device, and those that nothing answers, while guests run: an observer of a manager.

mod shard;
mod timeline;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::ops::AddAssign;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use spin::Mutex;
use vm_device::{AccessDirection, AccessObserver, GuestAddress, InstanceId, IoError, IoType, ObservedAccess};

use shard::Shard;

/// How often a device was accessed, and how long that took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Reads; a burst of string I/O is one.
    pub reads: u64,
    /// Writes, in the same way.
    pub writes: u64,
    /// How many of both were bursts of more than one element.
    pub strings: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// The time from the dispatch to the end of the access, what is nested in it included.
    pub time: Duration,
}

impl Counts {
    /// Reads and writes together.
    pub const fn accesses(&self) -> u64 {
        self.reads + self.writes
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.strings += other.strings;
        self.bytes += other.bytes;
        self.time += other.time;
    }
}

/// What an access was counted for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reached {
    /// The device that was called, or that refused the size.
    Device(InstanceId),
    /// No device claims the address.
    Unclaimed,
    /// No range holds the whole access.
    Straddling,
    /// The access cannot be dispatched: it is empty, or nested too deeply.
    Refused,
}

impl Reached {
    /// `None` for the whole of an access that was split: its pieces have reached something.
    fn of(access: &ObservedAccess<'_>) -> Option<Self> {
        match (access.device, access.outcome) {
            (Some(device), _) => Some(Self::Device(device)),
            (None, Err(IoError::Unclaimed)) => Some(Self::Unclaimed),
            (None, Err(IoError::Straddling)) => Some(Self::Straddling),
            (None, Err(IoError::InvalidLength | IoError::TooDeep | IoError::NotDispatched)) => Some(Self::Refused),
            (None, _) => None,
        }
    }
}

/// An access that nothing has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unanswered {
    /// Why.
    pub error: IoError,
    /// The device that has refused it, or has failed.
    pub device: Option<InstanceId>,
    /// The space.
    pub io_type: IoType,
    /// The address of the first byte.
    pub address: GuestAddress,
    /// Whether it is a read or a write.
    pub direction: AccessDirection,
    /// The length of one element in bytes.
    pub element: usize,
}

impl Hash for Unanswered {
    /// Errors have no hash, and most accesses have one error only.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.device, self.io_type, self.address, self.direction, self.element).hash(state);
    }
}

impl Unanswered {
    /// Of one that was split, its pieces are told instead.
    fn of(access: &ObservedAccess<'_>) -> Option<Self> {
        Reached::of(access)?;
        let ObservedAccess { device, io_type, address, direction, element, .. } = *access;
        Some(Self { error: access.outcome.err()?, device, io_type, address, direction, element })
    }
}

/// What was counted of one device, or of no device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Of what.
    pub reached: Reached,
    /// The path of the device, if it is known.
    pub path: Option<String>,
    /// All of it.
    pub counts: Counts,
    /// The accesses over time, from the first bucket on; there are none behind the last.
    pub buckets: Vec<u64>,
}

/// What was counted up to a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Totals {
    /// Accesses that are not nested in others: the exits of the guest.
    pub exits: u64,
    /// The time since the start.
    pub elapsed: Duration,
    /// The time of each bucket of each row.
    pub bucket: Duration,
    /// In no particular order.
    pub rows: Vec<Row>,
    /// Accesses that nothing answered, and how often each was made; in no particular order.
    pub unanswered: Vec<(Unanswered, u64)>,
    /// How many accesses are missing from `unanswered`, since there are too many different ones.
    pub unanswered_beside: u64,
}

/// Each vCPU has a part of its own, as long as there are no more of them than this.
const SHARDS: usize = 8;

/// The counts of all devices. They can be read at any time.
pub struct Counters {
    start: OnceLock<Instant>,
    shards: [Mutex<Shard>; SHARDS],
    /// Of those that are gone too.
    paths: Mutex<BTreeMap<InstanceId, String>>,
}

impl Counters {
    /// Nothing counted yet.
    pub const fn new() -> Self {
        Self {
            start: OnceLock::new(),
            shards: [const { Mutex::new(Shard::new()) }; SHARDS],
            paths: Mutex::new(BTreeMap::new()),
        }
    }

    /// The time begins now, if it has not by an earlier call or by the first access.
    pub fn start(&self) {
        self.start.get_or_init(Instant::now);
    }

    /// From now on these devices are known by their paths, and those that were known before still are.
    pub fn name_devices(&self, paths: impl Iterator<Item = (InstanceId, String)>) {
        let paths: Vec<_> = paths.collect();
        self.paths.lock().extend(paths);
    }

    /// What was counted of a device so far, which may be gone by now.
    pub fn of(&self, device: InstanceId) -> Counts {
        let mut counts = Counts::default();
        for shard in &self.shards {
            if let Some(row) = shard.lock().rows.get(&Reached::Device(device)) {
                counts += row.counts;
            }
        }
        counts
    }

    /// All that was counted so far.
    pub fn totals(&self) -> Totals {
        let mut all = Shard::new();
        self.shards.iter().for_each(|shard| all.merge(&shard.lock()));
        let paths = self.paths.lock();
        let rows = all.rows.into_iter().map(|(reached, row)| {
            let path = if let Reached::Device(device) = reached { paths.get(&device) } else { None };
            Row { reached, path: path.cloned(), counts: row.counts, buckets: row.buckets.0 }
        });
        Totals {
            rows: rows.collect(),
            exits: all.exits,
            elapsed: Duration::from_nanos(self.elapsed()),
            bucket: all.scale.width(),
            unanswered: all.unanswered.into_iter().collect(),
            unanswered_beside: all.unanswered_beside,
        }
    }

    /// Nanoseconds since the start.
    fn elapsed(&self) -> u64 {
        self.start.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }

    fn shard(&self, vcpu: Option<u16>) -> &Mutex<Shard> {
        // The first is for accesses without a vCPU.
        &self.shards[vcpu.map_or(0, |vcpu| 1 + usize::from(vcpu) % (SHARDS - 1))]
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl AccessObserver for Counters {
    fn observe(&self, access: &ObservedAccess<'_>) {
        let ended = self.elapsed();
        self.shard(access.vcpu).lock().count(access, access.started.unwrap_or(ended), ended);
    }

    /// Nanoseconds since the start.
    fn now(&self) -> Option<u64> {
        Some(self.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use vm_device::{AccessSizes, DeviceManager, IoRange, IoResource, Storage, SystemAllocator};

    use super::*;
    use crate::devices::scratch::Scratch;

    #[test]
    fn each_device_has_counts_of_its_own_which_stay_when_it_is_gone() {
        let counters = Counters::new();
        let (first, second) = (Scratch::<4>::new("first"), Scratch::<4>::new("second"));
        let storage = Storage::<2, 2, 2>::new();
        let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY)).with_observer(&counters);
        let first = manager.register_device(&first, None, &[IoResource::mmio(0, 4)], &[]).unwrap();
        let second = manager.register_device(&second, None, &[IoResource::mmio(8, 4)], &[]).unwrap();
        for number in [0, 1] {
            let mut vcpu = manager.dispatcher(number).unwrap();
            for _ in 0..3 {
                vcpu.read(GuestAddress(0), &mut [0; 4], IoType::Mmio).unwrap();
                vcpu.write(GuestAddress(8), &[0; 2], IoType::Mmio).unwrap();
                assert!(vcpu.read(GuestAddress(16), &mut [0; 4], IoType::Mmio).is_err());
            }
        }
        manager.unregister_device(first).unwrap();
        let counts = |device| Counts { time: Duration::ZERO, ..counters.of(device) };
        assert_eq!(counts(first), Counts { reads: 6, bytes: 24, ..Counts::default() });
        assert_eq!(counts(second), Counts { writes: 6, bytes: 12, ..Counts::default() });
    }

    #[test]
    fn what_nothing_answers_is_told_apart_by_address_direction_size_and_reason() {
        let counters = Counters::new();
        let scratch = Scratch::<4>::new("scratch");
        let storage = Storage::<2, 2, 1>::new();
        let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS);
        let manager = DeviceManager::new(&storage, allocator).with_observer(&counters);
        let words = IoResource::pio(0x70, 4).sizes(AccessSizes::WORD);
        let device = manager.register_device(&scratch, None, &[words], &[]).unwrap();
        let mut vcpu = manager.dispatcher(0).unwrap();
        for _ in 0..2 {
            let _ = vcpu.read(GuestAddress(0x60), &mut [0], IoType::Pio);
        }
        let _ = vcpu.write(GuestAddress(0x60), &[0], IoType::Pio);
        let _ = vcpu.read(GuestAddress(0x60), &mut [0], IoType::Mmio);
        let _ = vcpu.read(GuestAddress(0x70), &mut [0], IoType::Pio);
        let _ = vcpu.read(GuestAddress(0x72), &mut [0; 4], IoType::Pio);
        let totals = counters.totals();
        let times = |address, direction, io_type, element, error, device| {
            let address = GuestAddress(address);
            let wanted = Unanswered { error, device, io_type, address, direction, element };
            totals.unanswered.iter().find(|(unanswered, _)| *unanswered == wanted).map(|(_, count)| *count)
        };
        let (read, write) = (AccessDirection::Read, AccessDirection::Write);
        assert_eq!(times(0x60, read, IoType::Pio, 1, IoError::Unclaimed, None), Some(2));
        assert_eq!(times(0x60, write, IoType::Pio, 1, IoError::Unclaimed, None), Some(1));
        assert_eq!(times(0x60, read, IoType::Mmio, 1, IoError::Unclaimed, None), Some(1));
        assert_eq!(times(0x70, read, IoType::Pio, 1, IoError::RefusedSize, Some(device)), Some(1));
        assert_eq!(times(0x72, read, IoType::Pio, 4, IoError::Straddling, None), Some(1));
        assert_eq!((totals.exits, totals.unanswered.len()), (6, 5));
    }

    #[test]
    fn too_many_different_accesses_are_still_counted() {
        let counters = Counters::new();
        let storage = Storage::<2, 2, 1>::new();
        let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY)).with_observer(&counters);
        let mut vcpu = manager.dispatcher(0).unwrap();
        for address in 0..5000 {
            let _ = vcpu.read(GuestAddress(address), &mut [0], IoType::Mmio);
        }
        let _ = vcpu.read(GuestAddress(0), &mut [0], IoType::Mmio);
        let totals = counters.totals();
        let told_apart: u64 = totals.unanswered.iter().map(|(_, count)| count).sum();
        assert_eq!((told_apart + totals.unanswered_beside, totals.unanswered.len()), (5001, 4096));
    }

    #[test]
    fn a_burst_is_one_access_and_a_string() {
        let counters = Counters::new();
        let scratch = Scratch::<4>::new("scratch");
        let storage = Storage::<2, 2, 1>::new();
        let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS);
        let manager = DeviceManager::new(&storage, allocator).with_observer(&counters);
        let device = manager.register_device(&scratch, None, &[IoResource::pio(0x70, 4)], &[]).unwrap();
        manager.write_string(0x70, 1, b"0123456789").unwrap();
        manager.write_string(0x70, 1, b"0").unwrap();
        let counts = Counts { time: Duration::ZERO, ..counters.of(device) };
        assert_eq!(counts, Counts { writes: 2, strings: 1, bytes: 11, ..Counts::default() });
    }

    #[test]
    fn the_buckets_of_a_row_hold_each_of_its_accesses_however_long_the_run_is() {
        let counters = Counters::new();
        let storage = Storage::<2, 2, 2>::new();
        let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY)).with_observer(&counters);
        let read = |vcpu| {
            let mut vcpu = manager.dispatcher(vcpu).unwrap();
            let _ = vcpu.read(GuestAddress(0), &mut [0], IoType::Mmio);
        };
        read(0);
        std::thread::sleep(Duration::from_millis(350));
        let middle = counters.totals().elapsed;
        read(0);
        // With the wait before, longer than as many of the finest buckets as there are.
        std::thread::sleep(Duration::from_millis(350));
        read(0);
        read(1);
        let totals = counters.totals();
        let [row] = &totals.rows[..] else { panic!("{totals:?}") };
        assert_eq!((row.reached, row.counts.reads), (Reached::Unclaimed, 4));
        assert_eq!((row.buckets.first(), row.buckets.iter().sum()), (Some(&1), 4u64));
        let second =
            (1..).zip(&row.buckets[1..]).find(|(_, count)| **count > 0).map(|(bucket, _)| totals.bucket * bucket);
        assert!(second.is_some_and(|second| middle - totals.bucket < second && second < middle + 50 * totals.bucket));
        let last = totals.bucket * (row.buckets.len() as u32 - 1);
        assert!(Duration::from_millis(690) < last && last <= totals.elapsed, "{totals:?}");
    }
}

//! A device that counts what another one does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vm_device::{Access, Device, Doorbell, Failed, Rejected, Resources};

/// How often a device was called, and how long it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Reads; a burst of string I/O is one.
    pub reads: u64,
    /// Writes, in the same way.
    pub writes: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// The time spent in the device.
    pub time: Duration,
}

/// Stands in for a device: registered in its place, it passes everything on and counts.
pub struct Counted<D> {
    device: D,
    reads: AtomicU64,
    writes: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl<D> Counted<D> {
    /// Nothing counted yet.
    pub const fn new(device: D) -> Self {
        Self {
            device,
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
        }
    }

    /// The device that is counted.
    pub const fn device(&self) -> &D {
        &self.device
    }

    fn count(
        &self,
        calls: &AtomicU64,
        bytes: usize,
        call: impl FnOnce(&D) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let start = Instant::now();
        let outcome = call(&self.device);
        self.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        calls.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        outcome
    }
}

/// What there is to know of a [`Counted`] device, whatever it counts.
pub trait Count: Sync {
    /// The name of the device.
    fn counted_name(&self) -> &str;
    /// What was counted so far.
    fn counts(&self) -> Counts;
}

impl<'d, D: Device<'d>> Count for Counted<D> {
    fn counted_name(&self) -> &str {
        self.device.name()
    }

    fn counts(&self) -> Counts {
        Counts {
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
        }
    }
}

impl<'d, D: Device<'d>> Device<'d> for Counted<D> {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn try_read(&self, access: &Access<'_>, data: &mut [u8]) -> Result<(), Failed> {
        self.count(&self.reads, data.len(), |device| device.try_read(access, data))
    }

    fn try_write(&self, access: &Access<'_>, data: &[u8]) -> Result<(), Failed> {
        self.count(&self.writes, data.len(), |device| device.try_write(access, data))
    }

    fn read_string(&self, access: &Access<'_>, element: usize, data: &mut [u8]) -> Result<(), Failed> {
        self.count(&self.reads, data.len(), |device| device.read_string(access, element, data))
    }

    fn write_string(&self, access: &Access<'_>, element: usize, data: &[u8]) -> Result<(), Failed> {
        self.count(&self.writes, data.len(), |device| device.write_string(access, element, data))
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.device.set_resources(resources)
    }

    fn doorbells(&self) -> &[Doorbell] {
        self.device.doorbells()
    }
}

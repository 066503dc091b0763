//! Devices are told the time.

use crate::manager::device_manager::DeviceManager;

impl<'d> DeviceManager<'d> {
    /// Tells each device the time, in nanoseconds of the embedder's monotonic clock, and returns the earliest time at which one of
    /// them has something to do next ([`Device::tick`](crate::Device::tick)); `None` if none has.
    ///
    /// The embedder sets its timer to that time, and calls again when it has come. A device that a guest has programmed
    /// meanwhile may have something to do earlier: it tells the embedder so by a way of its own.
    ///
    /// It must not be called from within a callback of a device: it calls that device too.
    ///
    /// ```
    /// use core::sync::atomic::{AtomicU64, Ordering};
    /// use vm_device::{Device, DeviceManager, IoRange, Storage, SystemAllocator};
    ///
    /// /// Rings each millisecond.
    /// struct Bell {
    ///     next: AtomicU64,
    ///     rung: AtomicU64,
    /// }
    ///
    /// const MILLISECOND: u64 = 1_000_000;
    ///
    /// impl Device<'_> for Bell {
    ///     fn name(&self) -> &str {
    ///         "bell"
    ///     }
    ///     fn tick(&self, now: u64) -> Option<u64> {
    ///         while self.next.load(Ordering::Relaxed) <= now {
    ///             self.rung.fetch_add(1, Ordering::Relaxed);
    ///             self.next.fetch_add(MILLISECOND, Ordering::Relaxed);
    ///         }
    ///         Some(self.next.load(Ordering::Relaxed))
    ///     }
    /// }
    ///
    /// let bell = Bell { next: AtomicU64::new(MILLISECOND), rung: AtomicU64::new(0) };
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// assert_eq!(manager.tick(0), None);
    /// manager.register_device(&bell, None, &[], &[]).unwrap();
    /// assert_eq!(manager.tick(0), Some(MILLISECOND));
    /// assert_eq!(manager.tick(2 * MILLISECOND + 5), Some(3 * MILLISECOND));
    /// assert_eq!(bell.rung.load(Ordering::Relaxed), 2);
    /// ```
    pub fn tick(&self, now: u64) -> Option<u64> {
        let linked = self.with_state(|state| state.tree.linked())?;
        let mut earliest = None;
        self.call_each(linked, |device| {
            earliest = [earliest, device.tick(now)].into_iter().flatten().min();
        });
        earliest
    }
}

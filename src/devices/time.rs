//! The time, as devices see it.

use core::sync::atomic::{AtomicU64, Ordering};

/// A clock of the embedder's. Devices read it in their callbacks, and are told by [`Device::tick`](crate::Device::tick) when it has
/// come so far as they have asked for.
///
/// A reference to a clock is a clock.
pub trait Clock {
    /// Nanoseconds since a fixed moment, which never go back: the time that is given to
    /// [`DeviceManager::tick`](crate::DeviceManager::tick).
    fn now(&self) -> u64;

    /// A device has something to do at `deadline`, perhaps earlier than the last [`tick`](crate::DeviceManager::tick) has said. The
    /// embedder sets its timer, or does nothing where it calls `tick` often enough. It is called from within callbacks of the
    /// device, which may hold a lock of its own: it only notes the time.
    fn deadline(&self, deadline: u64) {
        let _ = deadline;
    }
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now(&self) -> u64 {
        (**self).now()
    }
    fn deadline(&self, deadline: u64) {
        (**self).deadline(deadline);
    }
}

#[cfg(feature = "alloc")]
impl<C: Clock + ?Sized> Clock for alloc::sync::Arc<C> {
    fn now(&self) -> u64 {
        (**self).now()
    }
    fn deadline(&self, deadline: u64) {
        (**self).deadline(deadline);
    }
}

/// A clock that is turned by hand: for tests, and for machines without a time.
///
/// ```
/// use vm_device::devices::time::{Clock, HandClock};
///
/// let clock = HandClock::new();
/// clock.advance(1_000);
/// assert_eq!(clock.now(), 1_000);
/// clock.deadline(5_000);
/// clock.deadline(3_000);
/// assert_eq!(clock.asked_for(), Some(3_000));
/// ```
#[derive(Debug)]
pub struct HandClock {
    now: AtomicU64,
    /// The earliest deadline, or all ones.
    deadline: AtomicU64,
}

impl HandClock {
    /// A clock at 0.
    pub const fn new() -> Self {
        Self { now: AtomicU64::new(0), deadline: AtomicU64::new(u64::MAX) }
    }

    /// Turns it on by so many nanoseconds, and returns the time.
    pub fn advance(&self, nanoseconds: u64) -> u64 {
        self.now.fetch_add(nanoseconds, Ordering::SeqCst).wrapping_add(nanoseconds)
    }

    /// The earliest deadline that a device has told since the last call; `None` if none has.
    pub fn asked_for(&self) -> Option<u64> {
        Some(self.deadline.swap(u64::MAX, Ordering::SeqCst)).filter(|deadline| *deadline != u64::MAX)
    }
}

impl Default for HandClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HandClock {
    fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }
    fn deadline(&self, deadline: u64) {
        self.deadline.fetch_min(deadline, Ordering::SeqCst);
    }
}

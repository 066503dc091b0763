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

/// The time of day, as the embedder knows it.
///
/// A reference to a wall clock is a wall clock.
///
/// ```
/// use std::time::{SystemTime, UNIX_EPOCH};
/// use vm_device::devices::time::WallClock;
///
/// /// The time of day of the host.
/// struct Host;
///
/// impl WallClock for Host {
///     fn utc(&self) -> u64 {
///         SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
///     }
/// }
///
/// // 2020-01-01.
/// assert!(Host.utc() > 1_577_836_800_000_000_000);
/// ```
pub trait WallClock {
    /// Nanoseconds since 1970-01-01 00:00:00 UTC, without leap seconds. The clock may be set, forwards and backwards.
    fn utc(&self) -> u64;
}

impl<C: WallClock + ?Sized> WallClock for &C {
    fn utc(&self) -> u64 {
        (**self).utc()
    }
}

#[cfg(feature = "alloc")]
impl<C: WallClock + ?Sized> WallClock for alloc::sync::Arc<C> {
    fn utc(&self) -> u64 {
        (**self).utc()
    }
}

/// A device with a fast periodic timer asks to be told the time at most this often, in nanoseconds. What is due in between is
/// done at the next call: otherwise a guest could have the embedder's timer expire a million times a second.
pub(super) const SHORTEST_PERIOD: u64 = 100_000;

/// How many nanoseconds after an interrupt controller has refused something it is told that again.
pub(super) const RETRY: u64 = 1_000_000;

/// How many ticks of a counter there are in how many nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Rate {
    ticks: u64,
    nanoseconds: u64,
}

impl Rate {
    /// Neither is 0, both are less than 2^32, and a tick takes a nanosecond or more.
    pub(super) const fn new(ticks: u32, nanoseconds: u32) -> Self {
        let (ticks, nanoseconds) = if ticks == 0 { (1, nanoseconds) } else { (ticks, nanoseconds) };
        let nanoseconds = if nanoseconds < ticks { ticks } else { nanoseconds };
        Self { ticks: ticks as u64, nanoseconds: nanoseconds as u64 }
    }

    /// How many ticks there have been at a time: each is counted when it is complete.
    pub(super) const fn ticks_at(self, now: u64) -> u64 {
        // Neither overflows: a tick takes a nanosecond or more, and the products of the rest are less than 2^64.
        let (whole, rest) = (now / self.nanoseconds, now % self.nanoseconds);
        whole.wrapping_mul(self.ticks).wrapping_add(rest.wrapping_mul(self.ticks) / self.nanoseconds)
    }

    /// The first nanosecond at which there have been so many ticks, or the last of all.
    pub(super) const fn time_of(self, ticks: u64) -> u64 {
        let (whole, rest) = (ticks / self.ticks, ticks % self.ticks);
        let rest = rest.wrapping_mul(self.nanoseconds).div_ceil(self.ticks);
        whole.saturating_mul(self.nanoseconds).saturating_add(rest)
    }
}

/// A clock that is turned by hand: for tests, and for machines without a time.
///
/// It is a [`WallClock`] too, which stands at 0 when the clock does, unless it is set.
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
///
/// ```
/// use vm_device::devices::time::{HandClock, WallClock};
///
/// let clock = HandClock::new();
/// clock.set_utc(1_000_000_000);
/// clock.advance(5);
/// assert_eq!(clock.utc(), 1_000_000_005);
/// ```
#[derive(Debug)]
pub struct HandClock {
    now: AtomicU64,
    /// The earliest deadline, or all ones.
    deadline: AtomicU64,
    /// How far the time of day is ahead of the clock; it wraps.
    utc_ahead: AtomicU64,
}

impl HandClock {
    /// A clock at 0.
    pub const fn new() -> Self {
        Self { now: AtomicU64::new(0), deadline: AtomicU64::new(u64::MAX), utc_ahead: AtomicU64::new(0) }
    }

    /// Turns it on by so many nanoseconds, and returns the time.
    pub fn advance(&self, nanoseconds: u64) -> u64 {
        self.now.fetch_add(nanoseconds, Ordering::SeqCst).wrapping_add(nanoseconds)
    }

    /// Sets the time of day, in nanoseconds since 1970-01-01 UTC. From there it goes with the clock.
    pub fn set_utc(&self, utc: u64) {
        self.utc_ahead.store(utc.wrapping_sub(self.now()), Ordering::SeqCst);
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

impl WallClock for HandClock {
    fn utc(&self) -> u64 {
        self.now().wrapping_add(self.utc_ahead.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_neither_drift_nor_overflow() {
        for (ticks, nanoseconds) in [(105, 88_000), (315, 88_000), (512, 15_625_000), (1_000_000, 100_000_000), (1, 1)]
        {
            let rate = Rate::new(ticks, nanoseconds);
            for now in [0, 1, 88_000, 1 << 40, u64::MAX / 3, u64::MAX - 1, u64::MAX] {
                let exact = u128::from(now) * u128::from(ticks) / u128::from(nanoseconds);
                assert_eq!(u128::from(rate.ticks_at(now)), exact, "{ticks} {nanoseconds} {now}");
                // The time of a tick is the first one at which it is complete.
                for tick in [rate.ticks_at(now), rate.ticks_at(now).saturating_add(1)] {
                    let time = rate.time_of(tick);
                    assert!(rate.ticks_at(time) == tick || time == u64::MAX);
                    assert!(time == 0 || rate.ticks_at(time - 1) < tick);
                }
            }
            assert_eq!(rate.time_of(u64::MAX), u64::MAX);
        }
    }

    #[test]
    fn a_rate_that_cannot_be_is_one_that_can() {
        assert_eq!((Rate::new(0, 0).ticks_at(7), Rate::new(9, 3).time_of(7)), (7, 7));
    }
}

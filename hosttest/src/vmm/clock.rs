//! The time of the host, and the thread that tells it to the devices.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vm_device::DeviceManager;
use vm_device::devices::time::{Clock, WallClock};

/// The host's clocks: nanoseconds since the value was made, and its time of day.
pub struct HostClock {
    start: Instant,
    wake: Mutex<Wake>,
    changed: Condvar,
}

struct Wake {
    /// The earliest deadline that a device has told since the last tick.
    deadline: Option<u64>,
    stopped: bool,
}

impl HostClock {
    /// A clock at 0.
    pub fn new() -> Self {
        let wake = Mutex::new(Wake { deadline: None, stopped: false });
        Self { start: Instant::now(), wake, changed: Condvar::new() }
    }

    /// Tells the devices of `manager` the time whenever one of them has something to do, until [`stop`](Self::stop). It is what
    /// a thread of its own does.
    pub fn run(&self, manager: &DeviceManager<'_>) {
        loop {
            let next = manager.tick(self.now());
            let mut wake = self.wake();
            // What was told before the tick may be done; then the next one is for nothing.
            while !wake.stopped {
                let deadline = [wake.deadline, next].into_iter().flatten().min();
                let now = self.now();
                let left = match deadline {
                    Some(deadline) if deadline <= now => break,
                    Some(deadline) => Duration::from_nanos(deadline - now),
                    None => Duration::from_secs(3600),
                };
                wake = self.changed.wait_timeout(wake, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if wake.stopped {
                return;
            }
            wake.deadline = None;
        }
    }

    /// Ends [`run`](Self::run), be it under way or yet to come.
    pub fn stop(&self) {
        self.wake().stopped = true;
        self.changed.notify_all();
    }

    fn wake(&self) -> std::sync::MutexGuard<'_, Wake> {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn deadline(&self, deadline: u64) {
        let mut wake = self.wake();
        if wake.deadline.is_none_or(|earliest| deadline < earliest) {
            wake.deadline = Some(deadline);
            self.changed.notify_all();
        }
    }
}

impl WallClock for HostClock {
    fn utc(&self) -> u64 {
        let utc = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(utc.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use vm_device::{Device, IoRange, Storage, SystemAllocator};

    use super::*;

    /// Has something to do at one time, and notes when it was told so.
    struct Once(AtomicU64, AtomicU64);

    impl Device<'_> for Once {
        fn name(&self) -> &str {
            "once"
        }
        fn tick(&self, now: u64) -> Option<u64> {
            let due = self.0.load(Ordering::SeqCst);
            if now < due {
                return Some(due).filter(|due| *due != u64::MAX);
            }
            let _ = self.1.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
            None
        }
    }

    #[test]
    fn devices_are_told_when_they_asked_for_it_and_by_a_deadline_that_comes_earlier() {
        let (clock, device) = (HostClock::new(), Once(AtomicU64::new(u64::MAX), AtomicU64::new(0)));
        let storage = Storage::<1, 1, 1>::new();
        let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
        manager.register_device(&device, None, &[], &[]).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| clock.run(&manager));
            for _ in 0..3 {
                let due = clock.now() + 20_000_000;
                device.1.store(0, Ordering::SeqCst);
                device.0.store(due, Ordering::SeqCst);
                clock.deadline(due);
                while device.1.load(Ordering::SeqCst) == 0 && clock.now() < due + 10_000_000_000 {
                    thread::yield_now();
                }
                assert!(device.1.load(Ordering::SeqCst) >= due);
                device.0.store(u64::MAX, Ordering::SeqCst);
            }
            clock.stop();
        });
    }
}

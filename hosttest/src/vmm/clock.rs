//! The time of a machine's devices: the host's, and the thread that tells it to them.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vm_device::devices::time::{Clock, WallClock};

/// The monotonic clock of this host, which notes the deadlines that devices ask for, and its wall clock.
pub struct HostClock {
    start: Instant,
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Default)]
struct Asked {
    /// The earliest deadline that a device has asked for since the last tick.
    deadline: Option<u64>,
    has_stopped: bool,
}

impl HostClock {
    /// A clock at 0.
    pub fn new() -> Self {
        Self { start: Instant::now(), asked: Mutex::default(), changed: Condvar::new() }
    }

    /// Calls `tick` with the time whenever something is due, until [`stop`](Self::stop) is called. `tick` returns when it has
    /// something to do next: it is [`DeviceManager::tick`](vm_device::DeviceManager::tick).
    pub fn run(&self, tick: impl Fn(u64) -> Option<u64>) {
        loop {
            // What is asked for from here on is for the next turn; what was asked for before, this tick does or returns.
            let mut asked = self.asked();
            if asked.has_stopped {
                return;
            }
            asked.deadline = None;
            drop(asked);
            let next = tick(self.now());
            self.wait_until(next);
        }
    }

    /// Ends [`run`](Self::run).
    pub fn stop(&self) {
        self.asked().has_stopped = true;
        self.changed.notify_all();
    }

    fn wait_until(&self, next: Option<u64>) {
        let mut asked = self.asked();
        loop {
            let earliest = match (next, asked.deadline) {
                (Some(next), Some(deadline)) => Some(next.min(deadline)),
                (one, other) => one.or(other),
            };
            let now = self.now();
            if asked.has_stopped || earliest.is_some_and(|time| time <= now) {
                return;
            }
            // Without a deadline it waits until there is one.
            let wait = Duration::from_nanos(earliest.map_or(u64::MAX, |time| time - now));
            let waited = self.changed.wait_timeout(asked, wait.min(Duration::from_secs(3600)));
            asked = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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
        let mut asked = self.asked();
        if asked.deadline.is_none_or(|earliest| deadline < earliest) {
            asked.deadline = Some(deadline);
            self.changed.notify_all();
        }
    }
}

impl WallClock for HostClock {
    fn utc(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_tick_comes_when_it_was_returned_or_asked_for_and_not_before() {
        let clock = HostClock::new();
        let ticks = Mutex::new(Vec::new());
        const MILLISECOND: u64 = 1_000_000;
        thread::scope(|scope| {
            scope.spawn(|| {
                clock.run(|now| {
                    let mut ticks = ticks.lock().unwrap();
                    ticks.push(now);
                    (ticks.len() < 3).then_some(now + 10 * MILLISECOND)
                });
            });
            // The first, two that were returned, and one that is asked for from outside.
            while ticks.lock().unwrap().len() < 3 {
                thread::sleep(Duration::from_millis(1));
            }
            clock.deadline(clock.now() + 10 * MILLISECOND);
            while ticks.lock().unwrap().len() < 4 {
                thread::sleep(Duration::from_millis(1));
            }
            clock.stop();
        });
        let ticks = ticks.into_inner().unwrap();
        assert_eq!(ticks.len(), 4);
        assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] >= 10 * MILLISECOND), "{ticks:?}");
    }
}

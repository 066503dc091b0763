//! What a run is told, and the limits of that.

use std::thread;
use std::time::{Duration, Instant};

use super::counts::Violations;

/// What is to be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// For how long: not 0.
    pub time: Duration,
    /// What all decisions follow from. (When threads meet does not.)
    pub seed: u64,
    /// Dispatch without fences, and a `membarrier(2)` for each removal.
    pub asymmetric: bool,
    /// How many readers have a [`Dispatcher`](vm_device::Dispatcher): at most [`MAX_HANDLES`].
    pub handles: usize,
    /// How many have none: at most [`MAX_ANONYMOUS_READERS`]. One reader or more there has to be.
    pub anonymous: usize,
    /// How many threads change the topology: 1 to [`MAX_WRITERS`].
    pub writers: usize,
    /// End the run as soon as there is a violation.
    pub until_violation: bool,
}

impl Options {
    /// Waits until the run is over.
    pub(super) fn wait(&self, violations: &Violations) {
        let start = Instant::now();
        while let Some(left) = self.time.checked_sub(start.elapsed())
            && !(self.until_violation && violations.total() > 0)
        {
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(10),
            seed: 1,
            asymmetric: false,
            handles: 2,
            anonymous: 1,
            writers: 1,
            until_violation: false,
        }
    }
}

/// How deep the devices nest their accesses.
pub(super) const NESTING: u32 = 3;

/// How many readers can have a dispatcher.
pub const MAX_HANDLES: usize = 8;

/// How many readers can have none. All of them, and those with a dispatcher in their callbacks, may meet in one range, each
/// with an access at every level that the devices nest: the manager refuses more than
/// [`MAX_ANONYMOUS`](vm_device::MAX_ANONYMOUS).
pub const MAX_ANONYMOUS_READERS: usize = {
    let nested = NESTING as usize;
    (vm_device::MAX_ANONYMOUS as usize - nested * MAX_HANDLES) / (nested + 1)
};

/// How many threads can change the topology: more only wait for each other.
pub const MAX_WRITERS: usize = 64;

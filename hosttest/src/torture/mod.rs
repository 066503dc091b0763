//! Accesses and changes at full speed against each other, with a record of what each access may find.
//!
//! Writers plug, move, swap and remove devices; readers access the places where these are, or are not. Around each change a
//! writer notes in the `oracle` what is at the place before and after; each access is judged by what was noted before it
//! began and after it ended. The devices themselves note whether they are called while they should not be.
//!
//! On [`threads`] the readers are threads of this program; on [`kvm`] they are processors of a guest, and the accesses are
//! exits.

mod churn;
mod groups;
mod hang;
pub mod kvm;
mod oracle;
mod probe;
mod random;
mod report;
pub mod threads;
mod waits;

use std::thread;
use std::time::{Duration, Instant};

pub use report::{Report, Round, Rounds, Violation, Violations};
pub use waits::Waits;

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
    fn wait(&self, world: &churn::World<'_>) {
        let start = Instant::now();
        while let Some(left) = self.time.checked_sub(start.elapsed())
            && !(self.until_violation && world.violations.total() > 0)
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

/// How many readers can have a dispatcher.
pub const MAX_HANDLES: usize = 8;

/// How many readers can have none. All of them, and those with a dispatcher in their callbacks, may meet in one range, each with
/// an access at every level that the devices nest: the manager refuses more than [`MAX_ANONYMOUS`](vm_device::MAX_ANONYMOUS).
pub const MAX_ANONYMOUS_READERS: usize = {
    let nested = probe::NESTING as usize;
    (vm_device::MAX_ANONYMOUS as usize - nested * MAX_HANDLES) / (nested + 1)
};

/// How many threads can change the topology: more only wait for each other.
pub const MAX_WRITERS: usize = 64;

/// The manager under test.
pub(crate) type Manager<'d> = vm_device::DeviceManager<'d, 48, 48, MAX_HANDLES>;

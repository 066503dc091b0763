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
pub mod kvm;
mod oracle;
mod probe;
mod random;
mod report;
pub mod threads;
mod waits;

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

pub use report::{Report, Round, Rounds, Violation, Violations};
pub use waits::Waits;

/// What is to be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// For how long.
    pub time: Duration,
    /// What all decisions follow from. (When threads meet does not.)
    pub seed: u64,
    /// Dispatch without fences, and a `membarrier(2)` for each removal.
    pub asymmetric: bool,
    /// How many readers have a [`Dispatcher`](vm_device::Dispatcher): at most [`MAX_HANDLES`].
    pub handles: usize,
    /// How many have none.
    pub anonymous: usize,
    /// How many threads change the topology.
    pub writers: usize,
    /// End the run as soon as there is a violation.
    pub until_violation: bool,
}

/// How much longer than it should a run may take. Then it hangs.
const GRACE: Duration = Duration::from_secs(30);

impl Options {
    /// Ends the process if the run has not ended in time, that is, if the result is not dropped by then.
    fn watch(&self) -> Sender<()> {
        let (alive, ended) = mpsc::channel();
        let limit = self.time.saturating_add(GRACE);
        thread::spawn(move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("hosttest: the torture hangs: it should have ended {GRACE:?} ago");
                std::process::exit(1);
            }
        });
        alive
    }

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

/// The manager under test.
pub(crate) type Manager<'d> = vm_device::DeviceManager<'d, 48, 48, MAX_HANDLES>;

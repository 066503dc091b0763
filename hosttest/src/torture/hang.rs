//! Whether a run hangs.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::Scope;
use std::time::Duration;

/// How long the watcher waits between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How many looks without any progress make a hang: 30 seconds, if the watcher gets a processor whenever it wants one.
const LOOKS: u32 = 300;

/// Ends the process if the run hangs before the result is dropped.
pub(super) fn watch<'s>(scope: &'s Scope<'s, '_>, progress: impl Fn() -> u64 + Send + 's) -> Sender<()> {
    let (running, over) = mpsc::channel();
    scope.spawn(move || {
        if stands_still(&over, progress, LOOK, LOOKS) {
            crate::complaint::complain(
                &"the torture hangs: none of its accesses and changes has ended for 30 seconds or more",
            );
            std::process::exit(1);
        }
    });
    running
}

/// Looks at `progress` until the run is over. Whether it stood still for as many looks as `looks`.
///
/// Looks are counted, and not time: a machine that is slow, or that stops the process for a while, gives the watcher fewer of
/// them too.
fn stands_still(over: &Receiver<()>, progress: impl Fn() -> u64, look: Duration, looks: u32) -> bool {
    let (mut last, mut still) = (progress(), 0);
    while over.recv_timeout(look) == Err(RecvTimeoutError::Timeout) {
        let now = progress();
        still = if now == last { still + 1 } else { 0 };
        last = now;
        if still == looks {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::time::Instant;

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn a_run_that_stands_still_hangs() {
        let (_running, over) = mpsc::channel();
        assert!(stands_still(&over, || 7, SHORT, 20));
    }

    #[test]
    fn a_run_that_is_slow_does_not_hang_however_long_it_takes() {
        let (running, over) = mpsc::channel();
        let (running, looks) = (Cell::new(Some(running)), Cell::new(0));
        let started = Instant::now();
        // A step every ten looks, and ten times as many looks as make a hang.
        let progress = || {
            looks.set(looks.get() + 1);
            if looks.get() == 200 {
                running.take();
            }
            looks.get() / 10
        };
        assert!(!stands_still(&over, progress, SHORT, 20));
        assert!(started.elapsed() > 5 * 20 * SHORT);
    }
}

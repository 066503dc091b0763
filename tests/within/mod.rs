//! A limit for tests that would hang where the code is wrong, so that they fail with a name instead.

use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// More than any of these tests takes on a slow machine, and less than a person waits.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs a test on a thread of its own, and fails where it has not ended after 30 seconds; the thread is left behind.
#[allow(dead_code, unreachable_pub, reason = "each test file that includes this uses a part of it")]
pub fn within_limit(test: impl FnOnce() + Send + 'static) {
    if cfg!(miri) {
        // Miri reports a deadlock itself, and has its own time.
        return test();
    }
    let (ended, end) = mpsc::channel::<()>();
    let body = thread::spawn(move || {
        // Dropped at the end of the test, whether it has failed or not.
        let _ended = ended;
        test();
    });
    assert_ne!(end.recv_timeout(LIMIT), Err(mpsc::RecvTimeoutError::Timeout), "the test has not ended after {LIMIT:?}");
    if let Err(failure) = body.join() {
        resume_unwind(failure);
    }
}

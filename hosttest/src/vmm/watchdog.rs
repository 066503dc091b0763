//! A limit on how long a guest may run.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Once};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmm_sys_util::signal::register_signal_handler;

/// How many waits a limit is made of: while the process is stopped, at most one of them passes.
const WAITS: u32 = 16;
/// How often an expired watchdog kicks: a signal that arrives just before `KVM_RUN` is lost, the next one is not.
pub(super) const KICK_INTERVAL: Duration = Duration::from_millis(5);

/// Gets the thread that created it out of `KVM_RUN` once the time is over, again and again until it is dropped.
pub struct Watchdog {
    expired: Arc<AtomicBool>,
    progress: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    kicker: Option<JoinHandle<()>>,
    /// It must be dropped by the thread that it kicks, so that this thread still lives.
    _not_send: PhantomData<*const ()>,
}

impl Watchdog {
    /// Starts to watch the calling thread.
    pub fn start(limit: Duration) -> Self {
        install_handler();
        let (stop, stopped) = mpsc::channel();
        let expired = Arc::new(AtomicBool::new(false));
        // SAFETY: it has no preconditions.
        let watched = unsafe { libc::pthread_self() };
        let progress = Arc::new(AtomicBool::new(false));
        let (flag, lately) = (Arc::clone(&expired), Arc::clone(&progress));
        let kicker = thread::spawn(move || {
            let mut waits = 0;
            let wait = |waits| if waits < WAITS { limit / WAITS } else { KICK_INTERVAL };
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait(waits)) {
                waits = after_a_wait(waits, lately.swap(false, Ordering::Relaxed));
                if waits == WAITS {
                    flag.store(true, Ordering::Release);
                    // SAFETY: the watched thread waits for this one before it ends, in `drop`.
                    unsafe { kick(watched) };
                }
            }
        });
        Self { expired, progress, stop: Some(stop), kicker: Some(kicker), _not_send: PhantomData }
    }

    /// The thread gets on: the time begins again, unless it is over.
    pub fn progress(&self) {
        self.progress.store(true, Ordering::Relaxed);
    }

    /// Whether the time is over.
    pub fn expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(kicker) = self.kicker.take() {
            // It cannot panic, and there would be nothing to do about it here.
            let _ = kicker.join();
        }
    }
}

/// How many waits in a row have passed without progress: [`WAITS`] is the end, and stays it.
fn after_a_wait(waits: u32, progress: bool) -> u32 {
    if waits < WAITS && progress { 0 } else { (waits + 1).min(WAITS) }
}

/// Gets a thread out of `KVM_RUN`.
///
/// # Safety
/// The thread has not ended.
pub(super) unsafe fn kick(thread: libc::pthread_t) {
    // SAFETY: the caller's promise.
    unsafe { libc::pthread_kill(thread, kick_signal()) };
}

fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Installs a handler that does nothing: a signal with a handler interrupts `KVM_RUN`, one without ends the process.
pub(super) fn install_handler() {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        register_signal_handler(kick_signal(), nothing).expect("a real-time signal accepts a handler");
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn interrupts_a_blocking_call_of_its_thread() {
        let watchdog = Watchdog::start(Duration::from_millis(20));
        assert!(!watchdog.expired());
        let start = Instant::now();
        // SAFETY: it only waits for a signal.
        unsafe { libc::pause() };
        assert!(watchdog.expired());
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn does_not_expire_while_its_thread_gets_on() {
        let watchdog = Watchdog::start(Duration::from_secs(1));
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1500) {
            watchdog.progress();
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!watchdog.expired());
    }

    #[test]
    fn expires_after_waits_without_progress_in_a_row_and_stays_so() {
        let mut waits = 0;
        for number in 1..WAITS {
            waits = after_a_wait(waits, false);
            assert_eq!(waits, number);
        }
        assert_eq!(after_a_wait(waits, true), 0);
        waits = after_a_wait(waits, false);
        assert_eq!((waits, after_a_wait(waits, true)), (WAITS, WAITS));
    }
}

//! Several virtual processors, each on a thread of its own, until one of them or somebody else ends them all.

use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::vmm::watchdog::{KICK_INTERVAL, install_handler, kick};

/// Stops the threads of virtual processors, from any thread.
#[derive(Default)]
pub struct Crew {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Nothing runs any more.
    stopped: bool,
    /// The run that is under way ends.
    ending: bool,
    /// The threads that may be inside `KVM_RUN`. A thread takes itself out before it ends.
    running: Vec<libc::pthread_t>,
    /// How many threads there are.
    threads: usize,
}

impl State {
    fn is_ending(&self) -> bool {
        self.stopped || self.ending
    }
}

impl Crew {
    /// Nothing runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the [`run`](Self::run) that is under way, and each that begins later.
    pub fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }

    /// Gives each of `members` a thread of its own, which calls `turn` with it again and again: a virtual processor and what belongs
    /// to it, of which `turn` runs one exit. All threads end with the first `turn` that breaks, with [`stop`](Self::stop), and at
    /// the end of `limit`. Returns what the first one broke with.
    pub fn run<T: Send, R: Send>(
        &self,
        members: &mut [T],
        limit: Option<Duration>,
        turn: impl Fn(&mut T) -> ControlFlow<R> + Sync,
    ) -> Option<R> {
        install_handler();
        self.state().threads = members.len();
        let result = Mutex::new(None);
        thread::scope(|scope| {
            for member in members {
                let (turn, result) = (&turn, &result);
                scope.spawn(move || {
                    let _running = Running::enter(self);
                    while !self.state().is_ending() {
                        if let ControlFlow::Break(value) = turn(member) {
                            result.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(value);
                            self.state().ending = true;
                        }
                    }
                });
            }
            self.wait(limit.map(|limit| Instant::now() + limit));
        });
        self.state().ending = false;
        result.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until all threads have ended. Those that are to end are kicked out of `KVM_RUN`, again and again: a kick that arrives
    /// before it is lost.
    fn wait(&self, end: Option<Instant>) {
        let mut state = self.state();
        while state.threads > 0 {
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            state.ending |= left.is_zero();
            let wait = if state.is_ending() {
                for thread in &state.running {
                    // SAFETY: a thread is among these only until it takes itself out, which the lock keeps it from now.
                    unsafe { kick(*thread) };
                }
                KICK_INTERVAL
            } else {
                left.min(Duration::from_secs(3600))
            };
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A thread of a crew, for as long as it may be kicked. When it ends, or unwinds, all end.
struct Running<'c> {
    crew: &'c Crew,
    thread: libc::pthread_t,
}

impl<'c> Running<'c> {
    fn enter(crew: &'c Crew) -> Self {
        // SAFETY: it has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        crew.state().running.push(thread);
        Self { crew, thread }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.crew.state();
        state.ending = true;
        state.running.retain(|thread| *thread != self.thread);
        state.threads -= 1;
        drop(state);
        self.crew.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits as `KVM_RUN` does: until a signal.
    fn wait_for_a_signal() {
        // SAFETY: it only waits.
        unsafe { libc::pause() };
    }

    #[test]
    fn the_first_that_breaks_ends_those_that_wait() {
        let crew = Crew::new();
        let ended = crew.run(&mut [0, 1, 2], None, |number| match *number {
            1 => ControlFlow::Break(7),
            _ => {
                wait_for_a_signal();
                ControlFlow::Continue(())
            }
        });
        assert_eq!(ended, Some(7));
        // The next run has nothing of it.
        assert_eq!(crew.run(&mut [()], None, |()| ControlFlow::Break(8)), Some(8));
    }

    #[test]
    fn a_limit_and_a_stop_end_all_without_a_result() {
        let crew = Crew::new();
        let wait = |_: &mut i32| {
            wait_for_a_signal();
            ControlFlow::<()>::Continue(())
        };
        assert_eq!(crew.run(&mut [0, 1], Some(Duration::from_millis(20)), wait), None);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                crew.stop();
            });
            assert_eq!(crew.run(&mut [0, 1], None, wait), None);
        });
        assert_eq!(crew.run(&mut [0], None, |_| ControlFlow::Break(())), None, "it has stopped");
    }
}

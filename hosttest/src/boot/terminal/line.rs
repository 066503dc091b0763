//! The line between the guest's serial port and the terminal: what is under way on it in both directions.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

use super::expect::Expect;

/// How many bytes may be under way to the guest, and from it.
pub(super) const ROOM: usize = 1 << 16;
/// How much of what the guest has sent is kept: the last of it.
pub(super) const KEPT: usize = 1 << 20;
/// How much is taken at once to be printed.
const CHUNK: usize = 4096;

/// The end of the line that a serial port is given, as [`embedded_io`] has it. It is asked whether it is ready first, and then does
/// not wait.
#[derive(Clone, Copy)]
pub struct Line<'t>(pub(super) &'t Traffic);

/// What is under way, and what has passed.
pub(super) struct Traffic {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    to_guest: VecDeque<u8>,
    /// No more will come.
    has_ended: bool,
    from_guest: VecDeque<u8>,
    /// The guest waits for room.
    is_refused: bool,
    /// What this program has to say itself.
    notes: Vec<u8>,
    expect: Option<Expect>,
    has_come: bool,
    kept: VecDeque<u8>,
    has_left: bool,
    closed: Option<Instant>,
    /// Whether what was to be printed could be.
    printed: io::Result<()>,
}

impl Traffic {
    pub(super) fn new(expect: Option<Expect>) -> Self {
        let state = State {
            to_guest: VecDeque::new(),
            has_ended: false,
            from_guest: VecDeque::new(),
            is_refused: false,
            notes: Vec::new(),
            expect,
            has_come: false,
            kept: VecDeque::new(),
            has_left: false,
            closed: None,
            printed: Ok(()),
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds it panics between two changes that belong together.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait_while(&self, condition: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.state(), condition).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Changes the state, and wakes those who wait for a change.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits until there is room for bytes to the guest, and returns for how many. `None` when the line is closed.
    pub(super) fn room(&self) -> Option<usize> {
        let state = self.wait_while(|state| state.to_guest.len() >= ROOM && state.closed.is_none());
        state.closed.is_none().then(|| ROOM - state.to_guest.len())
    }

    /// Sends bytes to the guest, as far as there is room.
    pub(super) fn send(&self, bytes: &[u8]) {
        self.change(|state| {
            let room = ROOM.saturating_sub(state.to_guest.len());
            state.to_guest.extend(bytes.iter().take(room));
        });
    }

    pub(super) fn end(&self) {
        self.change(|state| state.has_ended = true);
    }

    pub(super) fn leave(&self) {
        self.change(|state| state.has_left = true);
    }

    /// Prints a text of this program.
    pub(super) fn note(&self, text: &str) {
        self.change(|state| state.notes.extend_from_slice(text.as_bytes()));
    }

    pub(super) fn close(&self) {
        self.change(|state| state.closed = Some(Instant::now()));
    }

    pub(super) fn closed(&self) -> Option<Instant> {
        self.state().closed
    }

    /// Waits for something to print, and takes it. Returns whether somebody is to be told: the guest has room again, or what was
    /// expected has come. `None` when the line is closed and everything was taken.
    pub(super) fn take(&self, chunk: &mut Vec<u8>) -> Option<bool> {
        chunk.clear();
        let is_idle =
            |state: &mut State| state.from_guest.is_empty() && state.notes.is_empty() && state.closed.is_none();
        let mut state = self.wait_while(is_idle);
        // There will be room.
        self.changed.notify_all();
        let state = &mut *state;
        if !state.notes.is_empty() {
            chunk.append(&mut state.notes);
            return Some(false);
        }
        let count = state.from_guest.len().min(CHUNK);
        if count == 0 {
            return None;
        }
        chunk.extend(state.from_guest.drain(..count));
        let overflow = (state.kept.len() + count).saturating_sub(KEPT);
        state.kept.drain(..overflow);
        state.kept.extend(&*chunk);
        let has_come = state.expect.as_mut().is_some_and(|expect| expect.feed(chunk));
        let comes = has_come && !std::mem::replace(&mut state.has_come, has_come);
        Some(std::mem::take(&mut state.is_refused) || comes)
    }

    /// Nothing can be printed.
    pub(super) fn fail(&self, error: io::Error) {
        self.change(|state| {
            if state.printed.is_ok() {
                state.printed = Err(error);
            }
        });
    }

    /// Whether everything could be printed so far. The error is given once.
    pub(super) fn printed(&self) -> io::Result<()> {
        std::mem::replace(&mut self.state().printed, Ok(()))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state().printed.is_err()
    }

    pub(super) fn has_left(&self) -> bool {
        self.state().has_left
    }

    pub(super) fn has_come(&self) -> bool {
        self.state().has_come
    }

    /// The last of what the guest has sent. Not all of it may be printed yet.
    pub(super) fn kept(&self) -> Vec<u8> {
        let state = self.state();
        state.kept.iter().chain(&state.from_guest).copied().collect()
    }

    /// Whether the last byte that was printed ends a line, or none was.
    pub(super) fn is_at_line_start(&self) -> bool {
        self.state().kept.back().is_none_or(|byte| *byte == b'\n')
    }
}

impl ErrorType for Line<'_> {
    type Error = Infallible;
}

impl ReadReady for Line<'_> {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        let state = self.0.state();
        Ok(!state.to_guest.is_empty() || state.has_ended)
    }
}

impl Read for Line<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let is_empty = |state: &mut State| state.to_guest.is_empty() && !state.has_ended && state.closed.is_none();
        let mut state = self.0.wait_while(is_empty);
        let was_full = state.to_guest.len() >= ROOM;
        let count = state.to_guest.len().min(bytes.len());
        for (byte, sent) in bytes.iter_mut().zip(state.to_guest.drain(..count)) {
            *byte = sent;
        }
        drop(state);
        if was_full {
            self.0.changed.notify_all();
        }
        Ok(count)
    }
}

impl WriteReady for Line<'_> {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        let mut state = self.0.state();
        let is_ready = state.from_guest.len() < ROOM || state.closed.is_some();
        state.is_refused |= !is_ready;
        Ok(is_ready)
    }
}

impl Write for Line<'_> {
    /// What is written when the line is closed is lost.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut state = self.0.wait_while(|state| state.from_guest.len() >= ROOM && state.closed.is_none());
        if state.closed.is_some() {
            return Ok(bytes.len());
        }
        let was_idle = state.from_guest.is_empty();
        let count = bytes.len().min(ROOM - state.from_guest.len());
        state.from_guest.extend(bytes.iter().take(count));
        drop(state);
        if was_idle {
            self.0.changed.notify_all();
        }
        Ok(count)
    }

    /// Waits until everything was taken to be printed.
    fn flush(&mut self) -> Result<(), Infallible> {
        drop(self.0.wait_while(|state| !state.from_guest.is_empty() && state.closed.is_none()));
        Ok(())
    }
}

//! A serial line whose other end is this program: it keeps what the guest sends, and types for it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

/// A line that keeps what the guest sends. A reference to it is what a UART is given.
pub struct Capture {
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    sent: Vec<u8>,
    /// What [`Capture::wait_for`] has gone past.
    seen: usize,
    typed: VecDeque<u8>,
    has_ended: bool,
}

impl Capture {
    /// Nothing sent, and nothing typed.
    pub const fn new() -> Self {
        let state = State { sent: Vec::new(), seen: 0, typed: VecDeque::new(), has_ended: false };
        Self { state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// What the guest has sent so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.state().sent).replace('\r', "")
    }

    /// Types a text for the guest. Whoever runs the guest polls the UART then.
    pub fn type_text(&self, text: &str) {
        self.state().typed.extend(text.bytes());
    }

    /// Waits until the guest has sent this text, behind what an earlier call has found. Returns what came before it since then; `None`
    /// if the time is over, or the guest has [ended](Self::end).
    pub fn wait_for(&self, text: &str, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        let mut state = self.state();
        // Where the text may begin: it is looked for once in what has come.
        let mut from = state.seen;
        loop {
            let new = state.sent.get(from..).unwrap_or_default();
            if let Some(at) = new.windows(text.len()).position(|window| window == text.as_bytes()) {
                let before = String::from_utf8_lossy(&state.sent[state.seen..from + at]).replace('\r', "");
                state.seen = from + at + text.len();
                return Some(before);
            }
            from = from.max((state.sent.len() + 1).saturating_sub(text.len()));
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.has_ended {
                return None;
            }
            let waited = self.arrived.wait_timeout(state, left);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    /// The guest sends nothing more.
    pub fn end(&self) {
        self.state().has_ended = true;
        self.arrived.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self::new()
    }
}

impl ErrorType for &Capture {
    type Error = Infallible;
}

impl ReadReady for &Capture {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!self.state().typed.is_empty())
    }
}

impl Read for &Capture {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let mut state = self.state();
        let count = bytes.len().min(state.typed.len());
        bytes.iter_mut().zip(state.typed.drain(..count)).for_each(|(to, byte)| *to = byte);
        Ok(count)
    }
}

impl WriteReady for &Capture {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(true)
    }
}

impl Write for &Capture {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.state().sent.extend_from_slice(bytes);
        self.arrived.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_across_writes_and_each_only_once() {
        let capture = Capture::new();
        let mut line = &capture;
        let soon = Duration::from_millis(1);
        line.write(b"one\r\ntw").unwrap();
        assert_eq!(capture.wait_for("two", soon), None);
        line.write(b"o, two").unwrap();
        assert_eq!(capture.wait_for("two", soon).as_deref(), Some("one\n"));
        assert_eq!(capture.wait_for("two", soon).as_deref(), Some(", "));
        assert_eq!(capture.wait_for("two", soon), None);
        capture.end();
        assert_eq!(capture.wait_for("two", Duration::from_secs(60)), None);
    }

    #[test]
    fn what_is_typed_is_read_in_order() {
        let capture = Capture::new();
        let mut line = &capture;
        capture.type_text("abc");
        let mut bytes = [0; 2];
        assert_eq!((line.read(&mut bytes), bytes, line.read_ready()), (Ok(2), *b"ab", Ok(true)));
        assert_eq!((line.read(&mut bytes), bytes[0], line.read_ready()), (Ok(1), b'c', Ok(false)));
    }
}

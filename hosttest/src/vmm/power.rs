//! What a guest has asked for that is about the whole machine.

use std::sync::atomic::{AtomicU8, Ordering};

use vm_device::PowerControl;

/// What a guest asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// The machine starts again.
    Reset,
    /// The machine ends.
    PowerOff,
}

/// A note of what is asked for from within callbacks, which the loop that runs the processors looks at after each exit. The
/// last request counts.
#[derive(Debug)]
pub struct Power(AtomicU8);

const NOTHING: u8 = 0;
const RESET: u8 = 1;
const POWER_OFF: u8 = 2;

impl Power {
    /// Nothing is asked for.
    pub const fn new() -> Self {
        Self(AtomicU8::new(NOTHING))
    }

    /// Whether anything is asked for.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Acquire) != NOTHING
    }

    /// What is asked for, which is forgotten.
    pub fn take(&self) -> Option<Request> {
        match self.0.swap(NOTHING, Ordering::AcqRel) {
            RESET => Some(Request::Reset),
            POWER_OFF => Some(Request::PowerOff),
            _ => None,
        }
    }
}

impl Default for Power {
    fn default() -> Self {
        Self::new()
    }
}

impl PowerControl for Power {
    fn reset(&self) {
        self.0.store(RESET, Ordering::Release);
    }

    fn power_off(&self) {
        self.0.store(POWER_OFF, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_request_counts_once() {
        let power = Power::new();
        assert_eq!((power.is_requested(), power.take()), (false, None));
        power.reset();
        assert_eq!((power.is_requested(), power.take(), power.take()), (true, Some(Request::Reset), None));
        power.reset();
        power.power_off();
        assert_eq!((power.is_requested(), power.take(), power.take()), (true, Some(Request::PowerOff), None));
    }
}

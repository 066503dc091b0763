//! The gate that a device's interrupt handles pass while the device is registered.

use super::controller::InterruptError;
use crate::orderings;
use crate::sync::{AtomicU64, Ordering, const_fn, spin_once};

/// Lets calls of a device's [`IrqLine`](super::IrqLine)s through while the device is registered. The high half of the word is
/// the generation of the handles that pass, the low half the number of calls under way.
pub(crate) struct HandleGate {
    word: AtomicU64,
}

impl HandleGate {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { word: AtomicU64::new(0) }
        }
    }

    /// The generation that handles made now are to carry.
    pub(crate) fn generation(&self) -> u32 {
        (self.word.load(Ordering::Acquire) >> 32) as u32
    }

    /// Turns away all handles given out so far. Calls under way go on until [`is_idle`](Self::is_idle).
    pub(crate) fn close(&self) {
        self.word.fetch_add(1 << 32, Ordering::AcqRel);
    }

    /// Whether no call is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Acquire) as u32 == 0
    }

    /// Waits until no call is under way. Calls are short: they only tell the controller.
    pub(crate) fn wait_idle(&self) {
        while orderings::GATE_WAIT && !self.is_idle() {
            spin_once();
        }
    }

    pub(crate) fn enter(&self, generation: u32) -> Result<Passage<'_>, InterruptError> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if (word >> 32) as u32 != generation {
                return Err(InterruptError::Removed);
            }
            match self.word.compare_exchange_weak(word, word.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(Passage(self)),
                Err(now) => word = now,
            }
        }
    }
}

/// A call of a handle that is under way.
pub(crate) struct Passage<'a>(&'a HandleGate);

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.0.word.fetch_sub(1, Ordering::AcqRel);
    }
}

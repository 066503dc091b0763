//! The interrupt controller of an owned manager, as handles reach it.

#![allow(unsafe_code)]

use super::SharedController;
use crate::address::GuestAddress;
use crate::interrupt::{Gsi, InterruptController, InterruptError};
use crate::orderings;
use crate::sync::{AtomicU32, Ordering, UnsafeCell};

/// An interrupt controller that can be taken away while it is called: a call that is under way goes on, a later one does
/// nothing, and the last call that was under way drops the controller. So the caller that takes it away waits for nothing.
///
/// # Invariants
/// - While the word is not 0, the cell holds the controller, and nobody writes it.
/// - One thread makes the word 0: the one whose step takes both the flag and the last call away. It has the cell to itself.
/// - The word leaves 0 by [`open`](Self::open) only.
pub(crate) struct ControllerCell {
    /// Whether the controller is there, and how many calls are under way.
    word: AtomicU32,
    controller: UnsafeCell<Option<SharedController>>,
}

/// The controller is there, for calls to begin.
const OPEN: u32 = 1 << 31;

// SAFETY: the controller may be called and dropped on any thread, and the invariants keep writes of the cell apart from all else.
unsafe impl Sync for ControllerCell {}
// SAFETY: as above.
unsafe impl Send for ControllerCell {}

impl ControllerCell {
    /// Without a controller.
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(0), controller: UnsafeCell::new(None) }
    }

    /// Gives it a controller.
    ///
    /// # Safety
    /// It has none, and nobody else opens it at the same time.
    pub(crate) unsafe fn open(&self, controller: SharedController) {
        // SAFETY: the word is 0, so that no call looks at the cell, and the caller is the only one that opens it.
        self.controller.with_mut(|cell| unsafe { *cell = Some(controller) });
        self.word.store(OPEN, Ordering::Release);
    }

    /// Takes the controller away, and drops it unless it is being called. Without one it does nothing.
    pub(crate) fn close(&self) {
        let before = self.word.fetch_and(!OPEN, Ordering::AcqRel);
        if before == OPEN || !orderings::CONTROLLER_LAST_DROPS && before & OPEN != 0 {
            self.drop_controller();
        }
    }

    /// Drops the controller. The caller has made the word 0.
    fn drop_controller(&self) {
        // SAFETY: by the invariants, this thread has the cell to itself until the next `open`.
        let controller = self.controller.with_mut(|cell| unsafe { (*cell).take() });
        drop(controller);
    }

    fn call(&self, act: impl FnOnce(&SharedController) -> Result<(), InterruptError>) -> Result<(), InterruptError> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & OPEN == 0 {
                return Err(InterruptError::Removed);
            }
            // More calls than 31 bits count would be more threads than there can be.
            match self.word.compare_exchange_weak(word, word.wrapping_add(1), Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        let _ends = CallEnd(self);
        // SAFETY: until `_ends` is dropped, the word is not 0.
        self.controller.with(|cell| match unsafe { &*cell } {
            Some(controller) => act(controller),
            None => Err(InterruptError::Removed),
        })
    }
}

/// Ends a call when it is dropped, at a return or while unwinding.
struct CallEnd<'a>(&'a ControllerCell);

impl Drop for CallEnd<'_> {
    fn drop(&mut self) {
        if self.0.word.fetch_sub(1, orderings::CONTROLLER_CALL_END) == 1 {
            self.0.drop_controller();
        }
    }
}

impl InterruptController for ControllerCell {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        self.call(|controller| controller.set_level(gsi, asserted))
    }
    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        self.call(|controller| controller.pulse(gsi))
    }
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.call(|controller| controller.message(address, data))
    }
}

impl Drop for ControllerCell {
    fn drop(&mut self) {
        self.close();
    }
}

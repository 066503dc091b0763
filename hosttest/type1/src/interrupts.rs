//! The interrupt lines of the guest.

use core::sync::atomic::{AtomicU64, Ordering};

use vm_device::{Gsi, GuestAddress, InterruptController, InterruptError};

/// The lines that devices of the manager drive, all level-triggered: the virtual processor is told before each entry which are
/// asserted. So nothing has to be told when the guest's handler is done.
pub struct Lines(AtomicU64);

impl Lines {
    /// No line is asserted.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The asserted lines, a bit for each: bit 0 is GSI 0.
    pub fn asserted(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl InterruptController for Lines {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let line = 1u64.checked_shl(gsi.0).ok_or(InterruptError::Refused)?;
        if asserted {
            self.0.fetch_or(line, Ordering::Relaxed);
        } else {
            self.0.fetch_and(!line, Ordering::Relaxed);
        }
        Ok(())
    }

    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }

    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }
}

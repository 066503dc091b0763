//! Whether the guest still does something.

use super::host::HERTZ;

/// How long the guest may do nothing that counts, as the machine's timer counts.
const PATIENCE: u64 = 3 * HERTZ;
/// The same in seconds.
pub const SECONDS: u64 = PATIENCE / HERTZ;
/// What counts as spent between two exits at most: the machine may have been away for longer, where it is emulated.
const STEP: u64 = HERTZ / 50;

/// Notices a guest that has run for a while without anything that it is for: no access to a device, no call of its firmware, no
/// waiting. Exceptions in its own exception handler, and accesses to where no device is, are what such a guest is busy with.
pub struct Watch {
    /// When the guest made its last exit.
    at: u64,
    /// How long it has run since it was looked at.
    spent: u64,
    /// What it had done by then.
    seen: u64,
    /// What it did besides accesses to devices.
    noted: u64,
}

impl Watch {
    /// The guest has not begun.
    pub const fn new() -> Self {
        Self { at: 0, spent: 0, seen: 0, noted: 0 }
    }

    /// The guest has called its firmware, or waits.
    pub fn note(&mut self) {
        self.noted += 1;
    }

    /// Whether the guest, which makes an exit, has done nothing for too long. `accesses` counts those to devices.
    pub fn is_over(&mut self, now: u64, accesses: impl FnOnce() -> u64) -> bool {
        self.spent += now.saturating_sub(self.at).min(STEP);
        self.at = now;
        if self.spent < PATIENCE {
            return false;
        }
        let seen = accesses() + self.noted;
        let is_over = seen == self.seen;
        (self.spent, self.seen) = (0, seen);
        is_over
    }
}

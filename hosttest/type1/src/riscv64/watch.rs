//! Whether the guest still does something.

/// Notices a guest that has run for a while without anything that it is for: no access to a device, no call of its firmware, no
/// waiting. Exceptions in its own exception handler, and accesses to where no device is, are what such a guest is busy with.
pub struct Watch {
    /// When it was looked at.
    since: u64,
    /// What the guest had done by then.
    seen: u64,
    /// What it did besides accesses to devices.
    noted: u64,
}

impl Watch {
    /// The guest has not begun.
    pub const fn new() -> Self {
        Self { since: 0, seen: 0, noted: 0 }
    }

    /// The guest has called its firmware, or waits.
    pub fn note(&mut self) {
        self.noted += 1;
    }

    /// Whether it has done nothing for as long as this. `accesses` counts those to devices.
    pub fn is_over(&mut self, now: u64, patience: u64, accesses: impl FnOnce() -> u64) -> bool {
        if self.since != 0 && now.saturating_sub(self.since) < patience {
            return false;
        }
        let seen = accesses() + self.noted;
        let is_over = self.since != 0 && seen == self.seen;
        (self.since, self.seen) = (now, seen);
        is_over
    }
}

//! An interrupt line that is in use.

use crate::interrupt::{LineShare, MAX_SHARING};

/// One interrupt line: which of its sources are given out, one bit for each, and what it is in besides.
#[derive(Clone, Copy)]
pub(crate) struct LineRecord(u32);

impl LineRecord {
    /// All zeros.
    pub(crate) const FREE: Self = Self(0);

    const SOURCES: u32 = (1 << MAX_SHARING) - 1;
    /// The number of the source of a caller that tells the controller an owed level. It asserts nothing, and no device has it.
    pub(crate) const COLLECTOR: u32 = MAX_SHARING as u32;
    /// Others may have a source of it too.
    const SHARED: u32 = 1 << (MAX_SHARING + 1);
    /// The controller had not taken the line's level when a source was given back: `collect` tells it again.
    const OWED: u32 = 1 << (MAX_SHARING + 2);

    pub(crate) fn is_free(self) -> bool {
        self.0 & !Self::SHARED == 0
    }

    /// Whether a device has a source of it.
    pub(crate) fn has_sources(self) -> bool {
        self.0 & Self::SOURCES != 0
    }

    pub(crate) fn is_shared(self) -> bool {
        self.0 & Self::SHARED != 0
    }

    pub(crate) fn is_owed(self) -> bool {
        self.0 & Self::OWED != 0
    }

    /// Whether a caller tells the controller the owed level.
    pub(crate) fn is_collected(self) -> bool {
        self.0 & 1 << Self::COLLECTOR != 0
    }

    /// The number of a source that is free, if one is.
    pub(crate) fn free_source(self) -> Option<u32> {
        let free = (self.0 & Self::SOURCES).trailing_ones();
        (free < MAX_SHARING as u32).then_some(free)
    }

    /// Gives the source out; the first one says whether others may follow.
    pub(crate) fn give(&mut self, share: LineShare, shared: bool) {
        if !self.has_sources() {
            self.0 = self.0 & !Self::SHARED | if shared { Self::SHARED } else { 0 };
        }
        self.0 |= share.bit();
    }

    pub(crate) fn claim_for_collector(&mut self) {
        self.0 |= 1 << Self::COLLECTOR;
    }

    pub(crate) fn give_back(&mut self, share: LineShare) {
        self.0 &= !share.bit();
    }

    pub(crate) fn set_owed(&mut self, owed: bool) {
        self.0 = if owed { self.0 | Self::OWED } else { self.0 & !Self::OWED };
    }
}

//! An interrupt line that is in use, and a device's share of it.

use crate::indices::LineIndex;
use crate::interrupt::{Gsi, MAX_SHARING};

/// A device's share of an interrupt line.
#[derive(Clone, Copy)]
pub(crate) struct LineShare {
    pub(crate) line: LineIndex,
    /// The number of the device among the line's sources.
    source: u8,
}

impl LineShare {
    /// The share of source number `source`, at most [`MAX_SHARING`].
    pub(crate) fn new(line: LineIndex, source: u32) -> Self {
        Self { line, source: source as u8 }
    }

    /// The bit of the source in the line's sources.
    pub(crate) fn source(self) -> u32 {
        1_u32.wrapping_shl(self.source.into())
    }
}

/// One interrupt line in use.
#[derive(Clone, Copy)]
pub(crate) struct LineRecord {
    pub(crate) gsi: Gsi,
    /// The sources given out, one bit for each.
    pub(crate) sources: u32,
    pub(crate) shared: bool,
    /// The controller had not taken the line's level when a device was taken off the line: `collect` tells it again.
    pub(crate) owed: bool,
}

impl LineRecord {
    /// All zeros.
    pub(crate) const FREE: Self = Self { gsi: Gsi(0), sources: 0, shared: false, owed: false };

    /// The source of a caller that tells the controller an owed level. It asserts nothing, and no device has it.
    pub(crate) const COLLECTOR: u32 = 1 << MAX_SHARING;

    pub(crate) fn is_free(&self) -> bool {
        self.sources == 0 && !self.owed
    }
}

//! What a vCPU knows of a space from the accesses before: the last hit, and hints.

use crate::slots::Found;
use crate::table::NOBODY;

/// The segment that a search found last, whose it is, and the version under which that holds.
#[derive(Clone, Copy)]
pub(crate) struct LastHit<'a, 'd> {
    pub(crate) version: u64,
    /// The first address of the segment, and its length in bytes; at most `u64::MAX`.
    pub(crate) first: u64,
    pub(crate) length: u64,
    /// Where the range starts that the segment is a part of.
    pub(crate) base: u64,
    pub(crate) found: Option<Found<'a, 'd>>,
}

impl LastHit<'_, '_> {
    /// Before anything was found.
    pub(crate) const fn none() -> Self {
        Self { version: 0, first: 0, length: 0, base: 0, found: None }
    }

    /// Whether all of an access of `unit` bytes, at least one, lies in the segment. In one branch: where it starts alone is
    /// hard to predict.
    #[inline(always)]
    pub(crate) fn has(&self, address: u64, unit: usize) -> bool {
        self.length.saturating_sub(address.wrapping_sub(self.first)) >= unit as u64
    }
}

/// What a vCPU keeps besides the last hit, to find a range without a search: where it found one before. A hint may be wrong,
/// and is checked against the index.
pub(crate) trait Hints {
    /// The number of the slot that was found last at an address like this.
    fn hint(&self, address: u64) -> u16;
    fn keep(&mut self, address: u64, slot: u16);
}

/// None for memory: its addresses are too many.
pub(crate) struct NoHints;

impl Hints for NoHints {
    #[inline(always)]
    fn hint(&self, _: u64) -> u16 {
        NOBODY
    }
    #[inline(always)]
    fn keep(&mut self, _: u64, _: u16) {}
}

/// For ports, which slot was found last at each four of them. Those that are `4 * HINTS` apart share a place.
pub(crate) struct PortHints<const HINTS: usize>([u16; HINTS]);

impl<const HINTS: usize> PortHints<HINTS> {
    pub(crate) const fn none() -> Self {
        Self([NOBODY; HINTS])
    }

    #[inline(always)]
    fn place(port: u64) -> Option<usize> {
        ((port >> 2) as usize).checked_rem(HINTS)
    }
}

impl<const HINTS: usize> Hints for PortHints<HINTS> {
    #[inline(always)]
    fn hint(&self, port: u64) -> u16 {
        Self::place(port).and_then(|place| self.0.get(place)).copied().unwrap_or(NOBODY)
    }
    #[inline(always)]
    fn keep(&mut self, port: u64, slot: u16) {
        if let Some(place) = Self::place(port).and_then(|place| self.0.get_mut(place)) {
            *place = slot;
        }
    }
}

/// What is known of one space from the accesses before.
pub(crate) struct Known<'a, 'd, H> {
    pub(crate) hit: LastHit<'a, 'd>,
    pub(crate) hints: H,
}

impl<H> Known<'_, '_, H> {
    pub(crate) const fn nothing(hints: H) -> Self {
        Self { hit: LastHit::none(), hints }
    }
}

//! What a vCPU keeps of the accesses before: in which ranges it found addresses like these.

use crate::slots::Hint;

/// For one space, the slots that were found last, one for each `1 << SHIFT` addresses. A hint may be wrong, and is checked
/// where it is used.
pub(crate) struct Hints<const RANGES: usize, const SHIFT: u32, const HINTS: usize>([Hint<RANGES>; HINTS]);

impl<const RANGES: usize, const SHIFT: u32, const HINTS: usize> Hints<RANGES, SHIFT, HINTS> {
    pub(crate) const fn new() -> Self {
        Self([Hint::FIRST; HINTS])
    }

    /// Which hint is about `address`. Neighbours have different ones; the bits above tell those apart that lie at a distance
    /// that is a power of two, as the registers of many PCI devices do. Not a product (Fibonacci hashing), whose bits come
    /// two cycles later.
    #[inline(always)]
    fn place(address: u64) -> usize {
        let bits = HINTS.checked_ilog2().unwrap_or(0);
        let near = (address >> SHIFT) as usize;
        (near ^ (near >> bits)) & ((1 << bits) - 1)
    }

    /// Where an address like this was found last, if that is remembered at all.
    #[inline(always)]
    pub(crate) fn hint(&self, address: u64) -> Option<Hint<RANGES>> {
        self.0.get(Self::place(address)).copied()
    }

    #[inline(always)]
    pub(crate) fn keep(&mut self, address: u64, found: Hint<RANGES>) {
        if let Some(hint) = self.0.get_mut(Self::place(address)) {
            *hint = found;
        }
    }
}

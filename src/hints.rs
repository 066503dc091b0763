//! What a vCPU keeps of the accesses before: in which ranges it found addresses like these.

use crate::slots::Hint;

/// For one space, the slots that were found last, one for each `1 << SHIFT` addresses. A hint may be wrong, and is checked
/// where it is used.
pub(crate) struct Hints<const RANGES: usize, const SHIFT: u32, const HINTS: usize>([Hint<RANGES>; HINTS]);

impl<const RANGES: usize, const SHIFT: u32, const HINTS: usize> Hints<RANGES, SHIFT, HINTS> {
    pub(crate) const fn new() -> Self {
        Self([Hint::FIRST; HINTS])
    }

    /// Which hint is about `address`. Neighbours have different ones, and so have mostly those that lie at any other
    /// distance from each other (Fibonacci hashing: Knuth, The Art of Computer Programming, vol. 3, 6.4).
    #[inline(always)]
    fn place(address: u64) -> usize {
        let hash = ((address >> SHIFT) as u32).wrapping_mul(0x9e37_79b1);
        let bits = HINTS.checked_ilog2().unwrap_or(0);
        hash.checked_shr(u32::BITS - bits).unwrap_or(0) as usize
    }

    /// Where an address like this was found last.
    #[inline(always)]
    pub(crate) fn hint(&self, address: u64) -> Hint<RANGES> {
        self.0.get(Self::place(address)).copied().unwrap_or(Hint::FIRST)
    }

    #[inline(always)]
    pub(crate) fn keep(&mut self, address: u64, found: Hint<RANGES>) {
        if let Some(hint) = self.0.get_mut(Self::place(address)) {
            *hint = found;
        }
    }
}

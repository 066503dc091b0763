//! What a vCPU keeps of the accesses before: in which ranges it found addresses like these.

use crate::table::NOBODY;

/// For one space, the numbers of the slots that were found last, one for each `1 << SHIFT` addresses. A hint may be wrong, and
/// is checked where it is used.
pub(crate) struct Hints<const SHIFT: u32, const HINTS: usize>([u16; HINTS]);

impl<const SHIFT: u32, const HINTS: usize> Hints<SHIFT, HINTS> {
    pub(crate) const fn none() -> Self {
        Self([NOBODY; HINTS])
    }

    /// Which hint is about `address`. Neighbours have different ones, and so have mostly those that lie at any other
    /// distance from each other (Fibonacci hashing: Knuth, The Art of Computer Programming, vol. 3, 6.4).
    #[inline(always)]
    fn place(address: u64) -> usize {
        let hash = ((address >> SHIFT) as u32).wrapping_mul(0x9e37_79b1);
        let bits = HINTS.checked_ilog2().unwrap_or(0);
        hash.checked_shr(u32::BITS - bits).unwrap_or(0) as usize
    }

    /// The number of the slot that was found last at an address like this.
    #[inline(always)]
    pub(crate) fn hint(&self, address: u64) -> u16 {
        self.0.get(Self::place(address)).copied().unwrap_or(NOBODY)
    }

    #[inline(always)]
    pub(crate) fn keep(&mut self, address: u64, slot: u16) {
        if let Some(hint) = self.0.get_mut(Self::place(address)) {
            *hint = slot;
        }
    }
}

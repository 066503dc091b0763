//! The lines of the interrupt controller that devices can be given.

use crate::error::{IrqError, MAX_LINES};
use crate::interrupt::Gsi;

const WORDS: usize = MAX_LINES as usize / u64::BITS as usize;

/// The memory of a pool of lines; all zeros at first.
pub(crate) struct IrqStorage {
    /// One bit for each line that is in use, counted from the first line.
    in_use: [u64; WORDS],
}

impl IrqStorage {
    pub(crate) const fn new() -> Self {
        Self { in_use: [0; WORDS] }
    }

    /// The lines from `first` to `last`.
    ///
    /// # Errors
    /// [`IrqError::BadBounds`].
    pub(crate) fn pool(&mut self, first: Gsi, last: Gsi) -> Result<IrqPool<'_>, IrqError> {
        match last.0.checked_sub(first.0) {
            Some(span) if span < MAX_LINES => Ok(IrqPool { first: first.0, last: last.0, storage: self }),
            _ => Err(IrqError::BadBounds { first, last }),
        }
    }
}

/// Up to [`MAX_LINES`] lines, in a bitmap: every operation takes constant time.
pub(crate) struct IrqPool<'s> {
    first: u32,
    last: u32,
    storage: &'s mut IrqStorage,
}

impl IrqPool<'_> {
    pub(crate) fn first(&self) -> Gsi {
        Gsi(self.first)
    }

    /// Takes the lowest free line.
    ///
    /// # Errors
    /// [`IrqError::NoneFree`].
    pub(crate) fn allocate_any(&mut self) -> Result<Gsi, IrqError> {
        let none_free = IrqError::NoneFree { first: Gsi(self.first), last: Gsi(self.last) };
        let word = self.storage.in_use.iter().position(|word| *word != u64::MAX).ok_or(none_free)?;
        let bits = self.storage.in_use.get(word).ok_or(none_free)?;
        // Bits past the last line are always zero.
        let line = (word as u32).wrapping_mul(u64::BITS).wrapping_add(bits.trailing_ones());
        let gsi = self.first.checked_add(line).filter(|gsi| *gsi <= self.last).ok_or(none_free)?;
        self.allocate(Gsi(gsi))?;
        Ok(Gsi(gsi))
    }

    /// Takes one line.
    ///
    /// # Errors
    /// [`IrqError::InUse`], [`IrqError::OutsidePool`].
    pub(crate) fn allocate(&mut self, gsi: Gsi) -> Result<(), IrqError> {
        let (word, bit) = self.bit_of(gsi)?;
        if *word & bit != 0 {
            return Err(IrqError::InUse { gsi });
        }
        *word |= bit;
        Ok(())
    }

    /// Gives one line back.
    ///
    /// # Errors
    /// [`IrqError::NotAllocated`], [`IrqError::OutsidePool`].
    pub(crate) fn free(&mut self, gsi: Gsi) -> Result<(), IrqError> {
        let (word, bit) = self.bit_of(gsi)?;
        if *word & bit == 0 {
            return Err(IrqError::NotAllocated { gsi });
        }
        *word &= !bit;
        Ok(())
    }

    /// The word of a line, and its bit in there.
    fn bit_of(&mut self, gsi: Gsi) -> Result<(&mut u64, u64), IrqError> {
        let outside = IrqError::OutsidePool { gsi, first: Gsi(self.first), last: Gsi(self.last) };
        let line = gsi.0.checked_sub(self.first).filter(|_| gsi.0 <= self.last).ok_or(outside)?;
        let word = line / u64::BITS;
        let bits = self.storage.in_use.get_mut(word as usize).ok_or(outside)?;
        Ok((bits, 1u64.wrapping_shl(line)))
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use super::*;

    macro_rules! pool {
        ($pool:ident, $first:expr, $last:expr) => {
            let mut storage = IrqStorage::new();
            let mut $pool = storage.pool(Gsi($first), Gsi($last)).unwrap_or_else(|error| panic!("{error}"));
        };
    }

    #[test]
    fn the_lowest_free_line_goes_first() {
        pool!(pool, 5, 7);
        assert_eq!(pool.allocate(Gsi(6)), Ok(()));
        assert_eq!(pool.allocate_any(), Ok(Gsi(5)));
        assert_eq!(pool.allocate_any(), Ok(Gsi(7)));
        assert_eq!(pool.allocate_any(), Err(IrqError::NoneFree { first: Gsi(5), last: Gsi(7) }));
        assert_eq!(pool.free(Gsi(6)), Ok(()));
        assert_eq!(pool.allocate_any(), Ok(Gsi(6)));
    }

    #[test]
    fn every_line_of_the_largest_pool_can_be_taken_and_freed() {
        for first in [0, 24, u32::MAX - (MAX_LINES - 1)] {
            pool!(pool, first, first + (MAX_LINES - 1));
            for line in 0..MAX_LINES {
                assert_eq!(pool.allocate_any(), Ok(Gsi(first + line)));
            }
            assert!(matches!(pool.allocate_any(), Err(IrqError::NoneFree { .. })));
            for line in (0..MAX_LINES).rev() {
                assert_eq!(pool.free(Gsi(first + line)), Ok(()));
                assert_eq!(pool.allocate_any(), Ok(Gsi(first + line)));
                assert_eq!(pool.free(Gsi(first + line)), Ok(()));
            }
        }
    }

    #[test]
    fn a_refusal_changes_nothing() {
        pool!(pool, 16, 200);
        pool.allocate(Gsi(20)).unwrap();
        let before = pool.storage.in_use;
        assert_eq!(pool.allocate(Gsi(20)), Err(IrqError::InUse { gsi: Gsi(20) }));
        assert_eq!(pool.free(Gsi(21)), Err(IrqError::NotAllocated { gsi: Gsi(21) }));
        for gsi in [Gsi(15), Gsi(201), Gsi(u32::MAX), Gsi(0)] {
            let outside = IrqError::OutsidePool { gsi, first: Gsi(16), last: Gsi(200) };
            assert_eq!(pool.allocate(gsi), Err(outside));
            assert_eq!(pool.free(gsi), Err(outside));
        }
        assert_eq!(pool.storage.in_use, before);
    }

    #[test]
    fn impossible_bounds_are_refused() {
        assert!(matches!(IrqStorage::new().pool(Gsi(2), Gsi(1)), Err(IrqError::BadBounds { .. })));
        assert!(matches!(IrqStorage::new().pool(Gsi(0), Gsi(MAX_LINES)), Err(IrqError::BadBounds { .. })));
        assert!(IrqStorage::new().pool(Gsi(7), Gsi(7)).is_ok());
    }
}

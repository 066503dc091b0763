//! The lines of the interrupt controller that devices can be given.

use core::fmt;

use crate::interrupt::Gsi;

const WORDS: usize = 16;

/// How many lines an allocator can hold.
pub const MAX_LINES: u32 = WORDS as u32 * u64::BITS;

/// Why an interrupt line was not allocated or freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IrqError {
    /// The allocator was given no lines.
    NoPool,
    /// The lines the allocator was given are in reverse order, or more than [`MAX_LINES`].
    BadBounds {
        /// The line given as the first.
        first: Gsi,
        /// The line given as the last.
        last: Gsi,
    },
    /// The line is none of the allocator's.
    OutsidePool {
        /// The line that was asked for.
        gsi: Gsi,
        /// The first line of the allocator.
        first: Gsi,
        /// The last line of the allocator.
        last: Gsi,
    },
    /// The line is in use.
    InUse {
        /// The line that was asked for.
        gsi: Gsi,
    },
    /// The line to be freed is not in use.
    NotAllocated {
        /// The line.
        gsi: Gsi,
    },
    /// All lines are in use.
    NoneFree {
        /// The first line of the allocator.
        first: Gsi,
        /// The last line of the allocator.
        last: Gsi,
    },
}

impl fmt::Display for IrqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IrqError::NoPool => f.write_str("the allocator was given no lines: `with_irqs` gives it some"),
            IrqError::BadBounds { first, last } if first > last => {
                write!(f, "the lines that the allocator was given by `with_irqs` are reversed: the last, {last}, ")?;
                write!(f, "lies before the first, {first}")
            }
            IrqError::BadBounds { first, last } => {
                write!(f, "the lines that the allocator was given by `with_irqs`, {first} to {last}, ")?;
                write!(f, "are more than {MAX_LINES}")
            }
            IrqError::OutsidePool { gsi, first, last } => {
                write!(f, "{gsi} is none of the allocator's lines, {first} to {last}")
            }
            IrqError::InUse { gsi } => write!(f, "{gsi} is in use"),
            IrqError::NotAllocated { gsi } => write!(f, "{gsi} is not in use"),
            IrqError::NoneFree { first, last } => {
                write!(f, "all of the allocator's lines, {first} to {last}, are in use")
            }
        }
    }
}

impl core::error::Error for IrqError {}

/// Up to [`MAX_LINES`] lines, in a bitmap of two levels: every operation takes constant time.
pub(crate) struct IrqPool {
    first: u32,
    last: u32,
    /// One bit for each line that is in use, counted from the first line.
    in_use: [u64; WORDS],
    /// One bit for each word of `in_use` that is all ones.
    full: u16,
}

impl IrqPool {
    /// # Errors
    /// [`IrqError::BadBounds`].
    pub(crate) const fn new(first: Gsi, last: Gsi) -> Result<Self, IrqError> {
        match last.0.checked_sub(first.0) {
            Some(span) if span < MAX_LINES => Ok(Self { first: first.0, last: last.0, in_use: [0; WORDS], full: 0 }),
            _ => Err(IrqError::BadBounds { first, last }),
        }
    }

    /// Takes the lowest free line.
    ///
    /// # Errors
    /// [`IrqError::NoneFree`].
    pub(crate) fn allocate_any(&mut self) -> Result<Gsi, IrqError> {
        let none_free = IrqError::NoneFree { first: Gsi(self.first), last: Gsi(self.last) };
        let word = self.full.trailing_ones();
        let bits = self.in_use.get(word as usize).ok_or(none_free)?;
        // `word` is below 16 here, and `bits` has a zero. Bits past the last line are always zero.
        let line = word.wrapping_mul(u64::BITS).wrapping_add(bits.trailing_ones());
        let gsi = self.first.checked_add(line).filter(|gsi| *gsi <= self.last).ok_or(none_free)?;
        self.allocate(Gsi(gsi))?;
        Ok(Gsi(gsi))
    }

    /// Takes one line.
    ///
    /// # Errors
    /// [`IrqError::InUse`], [`IrqError::OutsidePool`].
    pub(crate) fn allocate(&mut self, gsi: Gsi) -> Result<(), IrqError> {
        let (word, bit, summary) = self.place(gsi)?;
        if *word & bit != 0 {
            return Err(IrqError::InUse { gsi });
        }
        *word |= bit;
        if *word == u64::MAX {
            self.full |= summary;
        }
        Ok(())
    }

    /// Gives one line back.
    ///
    /// # Errors
    /// [`IrqError::NotAllocated`], [`IrqError::OutsidePool`].
    pub(crate) fn free(&mut self, gsi: Gsi) -> Result<(), IrqError> {
        let (word, bit, summary) = self.place(gsi)?;
        if *word & bit == 0 {
            return Err(IrqError::NotAllocated { gsi });
        }
        *word &= !bit;
        self.full &= !summary;
        Ok(())
    }

    /// The word of a line, its bit in there, and the bit of the word in the summary.
    fn place(&mut self, gsi: Gsi) -> Result<(&mut u64, u64, u16), IrqError> {
        let outside = IrqError::OutsidePool { gsi, first: Gsi(self.first), last: Gsi(self.last) };
        let line = gsi.0.checked_sub(self.first).filter(|_| gsi.0 <= self.last).ok_or(outside)?;
        let word = line / u64::BITS;
        let bits = self.in_use.get_mut(word as usize).ok_or(outside)?;
        Ok((bits, 1u64.wrapping_shl(line), 1u16.wrapping_shl(word)))
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use super::*;

    fn pool(first: u32, last: u32) -> IrqPool {
        IrqPool::new(Gsi(first), Gsi(last)).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_lowest_free_line_goes_first() {
        let mut pool = pool(5, 7);
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
            let mut pool = pool(first, first + (MAX_LINES - 1));
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
        let mut pool = pool(16, 200);
        pool.allocate(Gsi(20)).unwrap();
        let before = pool.in_use;
        assert_eq!(pool.allocate(Gsi(20)), Err(IrqError::InUse { gsi: Gsi(20) }));
        assert_eq!(pool.free(Gsi(21)), Err(IrqError::NotAllocated { gsi: Gsi(21) }));
        for gsi in [Gsi(15), Gsi(201), Gsi(u32::MAX), Gsi(0)] {
            let outside = IrqError::OutsidePool { gsi, first: Gsi(16), last: Gsi(200) };
            assert_eq!(pool.allocate(gsi), Err(outside));
            assert_eq!(pool.free(gsi), Err(outside));
        }
        assert_eq!((pool.in_use, pool.full), (before, 0));
    }

    #[test]
    fn impossible_bounds_are_refused() {
        assert!(matches!(IrqPool::new(Gsi(2), Gsi(1)), Err(IrqError::BadBounds { .. })));
        assert!(matches!(IrqPool::new(Gsi(0), Gsi(MAX_LINES)), Err(IrqError::BadBounds { .. })));
        assert!(IrqPool::new(Gsi(7), Gsi(7)).is_ok());
    }
}

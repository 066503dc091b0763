//! The search of the sorted starts: a four-ary descent.

use core::hint::select_unpredictable;

use super::address::AtomicAddress;

/// The position of the last of the first `length` starts that is not above `address`, which is below the last address of
/// the space; 0 if there is none. `None` if the table has no room for the descent: [`search_halves`] needs none.
///
/// It is a four-ary descent in a *block*: as many starts as the next power of four above the number in use, at most 4,096. A
/// round has three independent loads, and no branch that depends on them. The block may reach past the starts in use.
///
/// # Worst case
/// For n starts it looks at 3 ⌈log₄ n⌉ of them, at least 3: 3 for up to 4, 6 for up to 16, 9 for up to 64, 12 for up to 256,
/// 15 for up to 1,024.
///
/// # Preconditions
/// `starts` is ascending over its first `length` elements, and all ones behind them. Where it is not, the position means
/// nothing.
#[inline(always)]
pub(super) fn search_block<A: AtomicAddress>(starts: &[A], length: usize, address: u64) -> Option<usize> {
    // The length of each part is a constant, so that the rounds need no check of bounds.
    let mut part = starts;
    if length > 64 {
        if length > 256 {
            if length > 1024 {
                if length > 4096 {
                    return None;
                }
                part = round::<A, 1024>(part.get(..4096)?, address);
            }
            part = round::<A, 256>(part.get(..1024)?, address);
        }
        part = round::<A, 64>(part.get(..256)?, address);
        part = round::<A, 16>(part, address);
        part = round::<A, 4>(part, address);
    } else if length > 4 {
        if length > 16 {
            part = round::<A, 16>(part.get(..64)?, address);
        }
        part = round::<A, 4>(part.get(..16)?, address);
    }
    part = round::<A, 1>(part.get(..4)?, address);
    Some(part.as_ptr().addr().wrapping_sub(starts.as_ptr().addr()) / size_of::<A>())
}

/// One round of the descent, among the four quarters of `block`. The three loads do not wait for each other.
#[inline(always)]
fn round<A: AtomicAddress, const QUARTER: usize>(block: &[A], address: u64) -> &[A] {
    let (quarters, _) = block.as_chunks::<QUARTER>();
    let [zero, one, two, three, ..] = quarters else { return block };
    let starts_above = |quarter: &[A; QUARTER]| quarter.first().is_none_or(|start| start.get() > address);
    let lower = select_unpredictable(starts_above(one), zero, one);
    let upper = select_unpredictable(starts_above(three), two, three);
    select_unpredictable(starts_above(two), lower, upper)
}

/// As [`search_block`], by halving: where more than 4,096 starts are in use, or the block would be larger than the table.
///
/// # Worst case
/// For n starts it looks at ⌈log₂ n⌉ of them.
#[inline(always)]
pub(super) fn search_halves<A: AtomicAddress>(starts: &[A], length: usize, address: u64) -> usize {
    let (mut base, mut left) = (0, length);
    while left > 1 {
        let half = left / 2;
        if starts.get(base + half).is_some_and(|middle| middle.get() <= address) {
            base += half;
        }
        left -= half;
    }
    base
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use core::cell::Cell;

    use super::*;
    use crate::address::Space;
    use crate::sync::{AtomicU64, Ordering};

    std::thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    /// A start that counts the looks at it.
    struct CountedStart(AtomicU64);

    impl AtomicAddress for CountedStart {
        const SPACE: Space = Space::Memory;
        fn get(&self) -> u64 {
            LOOKS.set(LOOKS.get() + 1);
            self.0.load(Ordering::Relaxed)
        }
        fn set(&self, start: u64) {
            self.0.store(start, Ordering::Relaxed);
        }
    }

    /// The bounds that the documentation states.
    fn bound(length: usize, capacity: usize) -> usize {
        let halvings = length.next_power_of_two().ilog2() as usize;
        let rounds = halvings.div_ceil(2).max(1);
        if rounds <= 6 && 1 << (2 * rounds) <= capacity { 3 * rounds } else { halvings }
    }

    /// Searches for the addresses around every start, with every number of starts that the table has room for, or with each
    /// multiple of `each`.
    fn check<const RANGES: usize>(each: usize) {
        let starts = [const { [const { CountedStart(AtomicU64::new(u64::MAX)) }; RANGES] }; 2];
        let starts = starts.as_flattened();
        let capacity = 2 * RANGES;
        let mut worst = 0;
        for length in 0..=capacity {
            if let Some(added) = length.checked_sub(1) {
                starts[added].set(10 * added as u64 + 10);
            }
            if length % each != 0 && length != capacity {
                continue;
            }
            let around = (0..length as u64 + 2).flat_map(|i| [10 * i, 10 * i + 9]);
            for address in around.chain([u64::MAX - 1]) {
                LOOKS.set(0);
                let found = search_block(starts, length, address);
                let found = found.unwrap_or_else(|| search_halves(starts, length, address));
                let looks = LOOKS.get();
                let not_above = length.min(address as usize / 10);
                assert_eq!(found, not_above.saturating_sub(1), "{length} of {capacity}, {address}");
                assert!(looks <= bound(length, capacity), "{looks} looks, {length} of {capacity}");
                worst = worst.max(looks);
            }
        }
        let stated = (0..=capacity).map(|length| bound(length, capacity)).max();
        assert_eq!(Some(worst), stated, "no search needs more than {worst} looks");
    }

    #[test]
    fn every_address_is_found_with_as_many_looks_as_stated() {
        check::<1>(1);
        check::<3>(1);
        // The time goes with the square: too long for an interpreter.
        if cfg!(miri) {
            return;
        }
        check::<16>(1);
        check::<31>(1);
        check::<32>(1);
        check::<33>(1);
        check::<50>(1);
        check::<130>(1);
        check::<600>(7);
        check::<2100>(149);
    }
}

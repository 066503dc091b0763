//! The range table: sorted segments of one address space, searched by every dispatch.
//!
//! # Invariants
//! At rest (between publications), for each of the two copies:
//! - `starts` is strictly ascending over the first `length` entries, and all ones behind them;
//! - entry `i` says that from `starts[i]` on, up to the next start or the last address of its slot's range, whichever comes
//!   first, accesses belong to the slot `owners[i]`;
//! - so a range without others inside is one entry, and a window has one more for each stretch between its children.
//!
//! A copy that is being rewritten may be searched by a late reader; the search ends, returns anything, and is thrown
//! away by the version. That is why every element is an atomic, and why nothing here trusts an index.

use core::hint::select_unpredictable;

use crate::segments::{Segments, Starts};
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering, array, const_fn};

/// An atomic that holds the start of a segment: 16 bits for ports, 64 for memory.
pub(crate) trait Start: Sized {
    /// The last address of the space.
    const LAST: u64;
    #[cfg(not(vm_device_loom))]
    #[allow(clippy::declare_interior_mutable_const, reason = "only used to fill arrays")]
    const ALL_ONES: Self;
    #[cfg(vm_device_loom)]
    fn all_ones() -> Self;
    fn get(&self) -> u64;
    fn set(&self, start: u64);
}

macro_rules! start {
    ($atomic:ty, $integer:ty) => {
        impl Start for $atomic {
            const LAST: u64 = <$integer>::MAX as u64;
            #[cfg(not(vm_device_loom))]
            const ALL_ONES: Self = <$atomic>::new(<$integer>::MAX);
            #[cfg(vm_device_loom)]
            fn all_ones() -> Self {
                <$atomic>::new(<$integer>::MAX)
            }
            #[inline(always)]
            fn get(&self) -> u64 {
                self.load(Ordering::Relaxed) as u64
            }
            #[inline(always)]
            fn set(&self, start: u64) {
                self.store(start as $integer, Ordering::Relaxed);
            }
        }
    };
}

start!(AtomicU16, u16);
start!(AtomicU64, u64);

/// The number of no slot: the owner of a hole.
pub(crate) const NOBODY: u16 = u16::MAX;

/// One copy. Its capacity is twice the number of ranges, because a range inside a window splits it in two.
struct Copy<A, const RANGES: usize> {
    length: AtomicU32,
    starts: [[A; RANGES]; 2],
    owners: [[AtomicU16; RANGES]; 2],
}

/// The two copies of the table of one space.
pub(crate) struct Table<A, const RANGES: usize> {
    copies: [Copy<A, RANGES>; 2],
}

/// The entry that a search has found: the addresses from `first` to `last` that its owner's range has are its owner's.
pub(crate) struct Entry {
    pub(crate) owner: u16,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl<A: Start, const RANGES: usize> Table<A, RANGES> {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { copies: array![Copy::new(); 2] }
        }
    }

    #[inline(always)]
    fn copy(&self, version: u64) -> &Copy<A, RANGES> {
        let [even, odd] = &self.copies;
        if version & 1 == 0 { even } else { odd }
    }

    /// The entry for `address`, which is below the last address of the space. Below the first start, it is the first
    /// entry; for the last entry, `last` is one less than the last address of the space.
    #[inline(always)]
    pub(crate) fn find(&self, version: u64, address: u64) -> Entry {
        let copy = self.copy(version);
        let starts = copy.starts.as_flattened();
        let position = search(starts, copy.length(), address);
        let next = starts.get(position + 1).map_or(A::LAST, A::get);
        Entry {
            owner: copy.owner_at(position),
            first: starts.get(position).map_or(A::LAST, A::get),
            last: next.wrapping_sub(1),
        }
    }
}

/// The position of the last of the first `length` starts that is not above `address`, which is below the last address of
/// the space; 0 if there is none.
///
/// A four-ary descent without a branch that depends on what is loaded: three independent loads a round, and as many rounds
/// as the number of starts in use asks for, whatever the capacity. They are searched in a block of a constant size, the
/// largest power of four that the table has room for, up to 4,096; the block may reach past the starts in use. Where they are
/// more than a block has, they are halved first.
///
/// # Worst case
/// For n starts it looks at 3 ⌈log₄ n⌉ of them, at least 3, and at 1 for each halving: 3 for up to 4, 6 for up to 16, 9 for up
/// to 64, 12 for up to 256, 15 for up to 1,024. A table with room for less than 16 takes ⌈log₂ n⌉.
///
/// # Preconditions
/// `starts` is ascending over its first `length` elements, and all ones behind them. Where it is not, the position means
/// nothing.
#[inline(always)]
fn search<A: Start>(starts: &[A], length: usize, address: u64) -> usize {
    // What is left depends on the capacity alone, which is known here.
    match starts.len() {
        4096.. => search_block::<A, 4096>(starts, length, address),
        1024.. => search_block::<A, 1024>(starts, length, address),
        256.. => search_block::<A, 256>(starts, length, address),
        64.. => search_block::<A, 64>(starts, length, address),
        16.. => search_block::<A, 16>(starts, length, address),
        _ => search_block::<A, 1>(starts, length, address),
    }
}

/// As [`search`], with a block of `BLOCK` starts.
#[inline(always)]
fn search_block<A: Start, const BLOCK: usize>(starts: &[A], length: usize, address: u64) -> usize {
    let mut base = 0;
    let mut left = length;
    while left > BLOCK {
        let half = left / 2;
        let Some(middle) = starts.get(base + half) else { return 0 };
        base = select_unpredictable(middle.get() <= address, base + half, base);
        left -= half;
    }
    // More than half of a block is left wherever the block has to begin before the first start that is left.
    let base = base.min(starts.len().saturating_sub(BLOCK));
    let Some(block) = starts.get(base..).and_then(|starts| starts.first_chunk::<BLOCK>()) else { return 0 };
    let mut part = block.as_slice();
    if BLOCK >= 256 && left > 64 {
        if BLOCK >= 4096 && left > 1024 {
            part = round::<A, 1024>(part, address);
        }
        if BLOCK >= 1024 && left > 256 {
            part = round::<A, 256>(part, address);
        }
        part = round::<A, 64>(part, address);
    }
    if BLOCK >= 64 && left > 16 {
        part = round::<A, 16>(part, address);
    }
    if BLOCK >= 16 && left > 4 {
        part = round::<A, 4>(part, address);
    }
    if BLOCK >= 4 {
        part = round::<A, 1>(part, address);
    }
    // The mask tells the compiler that the position is in the block.
    let at = part.as_ptr().addr().wrapping_sub(block.as_ptr().addr()) / size_of::<A>();
    base + (at & (BLOCK - 1))
}

/// One round of the descent, among the first four strides of `part`. The three loads do not wait for each other.
#[inline(always)]
fn round<A: Start, const STRIDE: usize>(part: &[A], address: u64) -> &[A] {
    let (strides, _) = part.as_chunks::<STRIDE>();
    let [zero, one, two, three, ..] = strides else { return part };
    let starts_above = |stride: &[A; STRIDE]| stride.first().is_none_or(|start| start.get() > address);
    let lower = select_unpredictable(starts_above(one), zero, one);
    let upper = select_unpredictable(starts_above(three), two, three);
    select_unpredictable(starts_above(two), lower, upper)
}

impl<A: Start, const RANGES: usize> Copy<A, RANGES> {
    #[cfg(not(vm_device_loom))]
    const fn new() -> Self {
        Self {
            length: AtomicU32::new(0),
            starts: [const { [const { A::ALL_ONES }; RANGES] }; 2],
            owners: [const { [const { AtomicU16::new(NOBODY) }; RANGES] }; 2],
        }
    }

    #[cfg(vm_device_loom)]
    fn new() -> Self {
        Self {
            length: AtomicU32::new(0),
            starts: core::array::from_fn(|_| core::array::from_fn(|_| A::all_ones())),
            owners: core::array::from_fn(|_| core::array::from_fn(|_| AtomicU16::new(NOBODY))),
        }
    }

    fn length(&self) -> usize {
        self.length.load(Ordering::Relaxed) as usize
    }

    #[inline(always)]
    fn owner_at(&self, position: usize) -> u16 {
        self.owners.as_flattened().get(position).map_or(NOBODY, |owner| owner.load(Ordering::Relaxed))
    }

    fn segments<'t>(&'t self, starts: fn(&'t [A]) -> Starts<'t>) -> Segments<'t> {
        Segments {
            length: self.length(),
            length_of: &self.length,
            starts: starts(self.starts.as_flattened()),
            owners: self.owners.as_flattened(),
        }
    }
}

impl<const RANGES: usize> Table<AtomicU16, RANGES> {
    /// The copy that `version` selects. Who changes it is the writer, and it is not the live one or has just ceased to be it.
    pub(crate) fn segments(&self, version: u64) -> Segments<'_> {
        self.copy(version).segments(Starts::Ports)
    }
}

impl<const RANGES: usize> Table<AtomicU64, RANGES> {
    /// As for ports.
    pub(crate) fn segments(&self, version: u64) -> Segments<'_> {
        self.copy(version).segments(Starts::Memory)
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use core::cell::Cell;

    use super::*;

    std::thread_local! {
        static PROBES: Cell<usize> = const { Cell::new(0) };
    }

    /// A start that counts who looks at it.
    struct Counted(AtomicU64);

    impl Start for Counted {
        const LAST: u64 = u64::MAX;
        const ALL_ONES: Self = Self(AtomicU64::new(u64::MAX));
        fn get(&self) -> u64 {
            PROBES.set(PROBES.get() + 1);
            self.0.load(Ordering::Relaxed)
        }
        fn set(&self, start: u64) {
            self.0.store(start, Ordering::Relaxed);
        }
    }

    /// The bound that the documentation of [`search`] states.
    fn bound(length: usize, capacity: usize) -> usize {
        let halvings = length.next_power_of_two().ilog2() as usize;
        let block = match capacity {
            4096.. => 12,
            1024.. => 10,
            256.. => 8,
            64.. => 6,
            16.. => 4,
            _ => 0,
        };
        halvings.saturating_sub(block) + 3 * halvings.min(block).div_ceil(2).max((block > 0) as usize)
    }

    /// Searches for every address around every start, for every number of starts that the table has room for, or for each
    /// so many.
    fn check<const RANGES: usize>(each: usize) {
        let starts = [const { [const { Counted::ALL_ONES }; RANGES] }; 2];
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
                PROBES.set(0);
                let found = search(starts, length, address);
                let probes = PROBES.get();
                let not_above = length.min(address as usize / 10);
                assert_eq!(found, not_above.saturating_sub(1), "{length} of {capacity}, {address}");
                assert!(probes <= bound(length, capacity), "{probes} probes, {length} of {capacity}");
                worst = worst.max(probes);
            }
        }
        assert_eq!(worst, bound(capacity, capacity), "no search needs more than {worst} probes");
    }

    #[test]
    fn every_address_is_found_with_as_many_probes_as_stated() {
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

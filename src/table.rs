//! The range table: sorted segments of one address space, searched by every dispatch.
//!
//! # Invariants
//! At rest (between publications), for each of the two copies:
//! - `starts` is strictly ascending over the first `length` entries, and all ones behind them;
//! - entry `i` says that from `starts[i]` on, up to the next start or the last address of its slot's range, whichever
//!   comes first, accesses belong to `slots[i]`;
//! - so a range without others inside is one entry, and a window has one more for each stretch between its children.
//!
//! A copy that is being rewritten may be searched by a late reader; the search ends, returns anything, and is thrown
//! away by the version. That is why every element is an atomic, and why nothing here trusts an index.

use crate::slots::Slots;
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering, array, const_fn};

/// An atomic that holds the start of a segment: 16 bits for ports, 64 for memory.
pub(crate) trait Start: Sized {
    /// The last address of the space.
    const LAST: u64;
    #[cfg(not(loom))]
    #[allow(clippy::declare_interior_mutable_const, reason = "only used to fill arrays")]
    const ALL_ONES: Self;
    #[cfg(loom)]
    fn all_ones() -> Self;
    fn get(&self) -> u64;
    fn set(&self, start: u64);
}

macro_rules! start {
    ($atomic:ty, $integer:ty) => {
        impl Start for $atomic {
            const LAST: u64 = <$integer>::MAX as u64;
            #[cfg(not(loom))]
            const ALL_ONES: Self = <$atomic>::new(<$integer>::MAX);
            #[cfg(loom)]
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

/// One copy. Its capacity is twice the number of ranges, because a range inside a window splits it in two.
struct Copy<A, const RANGES: usize> {
    length: AtomicU32,
    starts: Starts<A, RANGES>,
    slots: [[AtomicU16; RANGES]; 2],
}

/// The two copies of the table of one space.
pub(crate) struct Table<A, const RANGES: usize> {
    copies: [Copy<A, RANGES>; 2],
}

/// What a search for one access has found, under one version.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    /// Whose it is; [`NOBODY`](Self::NOBODY) for a hole.
    pub(crate) slot: u16,
    /// Where the slot's range starts.
    pub(crate) base: u64,
    /// The first and the last address of the segment, or of the hole.
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Segment {
    const NOBODY: u16 = u16::MAX;

    /// A segment that no access lies in: its first address is behind its last.
    pub(crate) const NOWHERE: Self = Self { slot: Self::NOBODY, base: 0, first: 1, last: 0 };
}

impl Segment {
    /// Whose it is, if anybody's.
    #[inline(always)]
    pub(crate) fn slot(self) -> Option<u16> {
        (self.slot != Self::NOBODY).then_some(self.slot)
    }
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

    /// The segment that holds `address`.
    #[inline(always)]
    pub(crate) fn find<const VCPUS: usize>(
        &self,
        slots: &Slots<'_, RANGES, VCPUS>,
        version: u64,
        address: u64,
    ) -> Segment {
        let copy = self.copy(version);
        let starts = copy.starts.as_flattened();
        let length = copy.length.load(Ordering::Relaxed) as usize;
        let position = search(&copy.starts, length, address);
        let first = starts.get(position).map_or(u64::MAX, A::get);
        if length == 0 || first > address {
            let last = if length == 0 { u64::MAX } else { first.wrapping_sub(1) };
            return Segment { slot: Segment::NOBODY, base: 0, first: 0, last };
        }
        // The segment ends where the next one starts, or with its slot's range.
        let next = if position + 1 < length { starts.get(position + 1) } else { None };
        let last = next.map_or(u64::MAX, |next| next.get().wrapping_sub(1));
        let slot = copy.slots.as_flattened().get(position).map_or(Segment::NOBODY, |slot| slot.load(Ordering::Relaxed));
        match slots.bounds(version, slot) {
            Some((base, range_last)) if address <= range_last => {
                Segment { slot, base, first, last: last.min(range_last) }
            }
            _ => Segment { slot: Segment::NOBODY, base: 0, first, last },
        }
    }
}

/// The starts of a copy: twice as many as there are ranges.
type Starts<A, const RANGES: usize> = [[A; RANGES]; 2];

/// How many starts are searched without a look at how many there are.
const BLOCK: usize = 64;

/// The position of the last of the first `length` starts that is not above `address`; 0 if there is none.
///
/// A four-ary descent: three independent loads a round, no branch that depends on them, and as many rounds as the
/// number of segments in use asks for, whatever the capacity. The last three rounds have constant strides, and their block
/// may reach past the segments in use.
///
/// # Worst case
/// For n segments it looks at 3 starts for each factor of 4: 3 for up to 4, 6 for up to 16, 9 for up to 64, and at most
/// 3 ⌈log₄ n⌉ + 3 for more, which is 18 for up to 1024. A table with less room than [`BLOCK`] segments may look at 2 more.
///
/// # Preconditions
/// `starts` is ascending over its first `length` elements, and all ones behind them. Where it is not, the position means
/// nothing.
#[inline(always)]
fn search<A: Start, const RANGES: usize>(starts: &Starts<A, RANGES>, length: usize, address: u64) -> usize {
    let starts = starts.as_flattened();
    let longest = if starts.len() < BLOCK { 3 } else { BLOCK };
    let (mut base, left) = if length > longest { narrow(starts, length, address, longest) } else { (0, length) };
    if let Some(last) = starts.len().checked_sub(BLOCK) {
        // More than a quarter of a block is left wherever the block has to begin before the first start that is left.
        let base = base.min(last);
        let Some(block) = starts.get(base..).and_then(|starts| starts.first_chunk::<BLOCK>()) else { return 0 };
        let mut at = 0;
        if left > 16 {
            at = round::<A, 16>(block, at, address);
        }
        if left > 4 {
            at = round::<A, 4>(block, at, address);
        }
        at = round::<A, 1>(block, at, address);
        return (base + at).min(length.saturating_sub(1));
    }
    for _ in 1..left {
        base += starts.get(base + 1).is_some_and(|start| start.get() <= address) as usize;
    }
    base
}

/// The rounds of the descent until at most `longest` starts are left: the first of them, and how many.
#[inline(never)]
fn narrow<A: Start>(starts: &[A], length: usize, address: u64, longest: usize) -> (usize, usize) {
    let mut base = 0;
    let mut left = length.min(starts.len());
    while left > longest {
        let quarter = left / 4;
        let not_above = |position: usize| starts.get(position).is_some_and(|start| start.get() <= address) as usize;
        let steps = not_above(base + quarter) + not_above(base + 2 * quarter) + not_above(base + 3 * quarter);
        base += steps * quarter;
        left -= 3 * quarter;
    }
    (base, left)
}

/// One round of the descent, among the `4 * STRIDE` starts from `at` on. The masks tell the compiler what `at` is, so that
/// nothing is left to check.
#[inline(always)]
fn round<A: Start, const STRIDE: usize>(block: &[A; BLOCK], at: usize, address: u64) -> usize {
    let at = at & (BLOCK - 4 * STRIDE);
    let not_above = |position: usize| block.get(position).is_some_and(|start| start.get() <= address) as usize;
    let steps = not_above(at + STRIDE) + not_above(at + 2 * STRIDE) + not_above(at + 3 * STRIDE);
    at + steps * STRIDE
}

impl<A: Start, const RANGES: usize> Copy<A, RANGES> {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            length: AtomicU32::new(0),
            starts: [const { [const { A::ALL_ONES }; RANGES] }; 2],
            slots: [const { [const { AtomicU16::new(0) }; RANGES] }; 2],
        }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self {
            length: AtomicU32::new(0),
            starts: core::array::from_fn(|_| core::array::from_fn(|_| A::all_ones())),
            slots: core::array::from_fn(|_| core::array::from_fn(|_| AtomicU16::new(0))),
        }
    }

    fn length(&self) -> usize {
        self.length.load(Ordering::Relaxed) as usize
    }

    fn start(&self, position: usize) -> Option<u64> {
        if position >= self.length() {
            return None;
        }
        self.starts.as_flattened().get(position).map(A::get)
    }

    fn slot(&self, position: usize) -> Option<u16> {
        if position >= self.length() {
            return None;
        }
        self.slots.as_flattened().get(position).map(|slot| slot.load(Ordering::Relaxed))
    }

    fn set(&self, position: usize, start: u64, slot: u16) {
        if let (Some(a), Some(b)) = (self.starts.as_flattened().get(position), self.slots.as_flattened().get(position))
        {
            a.set(start);
            b.store(slot, Ordering::Relaxed);
        }
    }

    /// The first position whose start is not below `start`.
    fn position(&self, start: u64) -> usize {
        let found = search(&self.starts, self.length(), start);
        match self.start(found) {
            Some(at) if at < start => found + 1,
            _ => found,
        }
    }

    fn insert(&self, position: usize, start: u64, slot: u16) {
        let length = self.length();
        shift_up(self.starts.as_flattened(), position, length, A::get, A::set);
        shift_up(
            self.slots.as_flattened(),
            position,
            length,
            |slot| slot.load(Ordering::Relaxed) as u64,
            |place, slot| place.store(slot as u16, Ordering::Relaxed),
        );
        self.set(position, start, slot);
        self.length.store(length as u32 + 1, Ordering::Relaxed);
    }

    fn remove(&self, position: usize) {
        let length = self.length();
        for at in position..length.saturating_sub(1) {
            if let (Some(start), Some(slot)) = (self.start(at + 1), self.slot(at + 1)) {
                self.set(at, start, slot);
            }
        }
        let Some(last) = length.checked_sub(1) else { return };
        if let Some(start) = self.starts.as_flattened().get(last) {
            start.set(u64::MAX);
        }
        self.length.store(last as u32, Ordering::Relaxed);
    }

    fn clear(&self) {
        for start in self.starts.as_flattened().iter().take(self.length()) {
            start.set(u64::MAX);
        }
        self.length.store(0, Ordering::Relaxed);
    }
}

/// Moves the elements from `position` to `length` one place up.
fn shift_up<T>(array: &[T], position: usize, length: usize, get: impl Fn(&T) -> u64, set: impl Fn(&T, u64)) {
    let Some(moved) = array.get(position..=length) else { return };
    for pair in moved.windows(2).rev() {
        if let [from, to] = pair {
            set(to, get(from));
        }
    }
}

/// Changes of the copy that `version` selects, which is not the live one or has just ceased to be it.
impl<A: Start, const RANGES: usize> Table<A, RANGES> {
    /// Forgets everything.
    pub(crate) fn clear(&self, version: u64) {
        self.copy(version).clear();
    }

    /// Adds the range of `slot`, which lies in a hole, or in a segment of one window.
    pub(crate) fn insert<const VCPUS: usize>(
        &self,
        slots: &Slots<'_, RANGES, VCPUS>,
        version: u64,
        slot: u16,
        base: u64,
        last: u64,
    ) {
        let copy = self.copy(version);
        let around = self.find(slots, version, base);
        slots.set_bounds(version, slot, base, last);
        let position = copy.position(base);
        if copy.start(position) == Some(base) {
            copy.set(position, base, slot);
        } else {
            copy.insert(position, base, slot);
        }
        // Behind the range, the window that was split goes on.
        if let Some(window) = around.slot()
            && last < around.last
        {
            copy.insert(position + 1, last + 1, window);
        }
    }

    /// Takes away the range from `base` to `last`, in which no other lies, and gives its addresses to `window`, the
    /// innermost one around it, or to nobody.
    pub(crate) fn remove(&self, version: u64, slot: u16, base: u64, last: u64, window: Option<u16>) {
        let copy = self.copy(version);
        let position = copy.position(base);
        if copy.start(position) != Some(base) || copy.slot(position) != Some(slot) {
            return;
        }
        let Some(window) = window else { return copy.remove(position) };
        let resumes = last.checked_add(1).is_some_and(|next| copy.start(position + 1) == Some(next));
        if resumes && copy.slot(position + 1) == Some(window) {
            copy.remove(position + 1);
        }
        match position.checked_sub(1) {
            Some(before) if copy.slot(before) == Some(window) => copy.remove(position),
            _ => copy.set(position, base, window),
        }
    }
}

#[cfg(all(test, not(loom)))]
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
        let mut rounds = 1;
        while 4_usize.pow(rounds) < length {
            rounds += 1;
        }
        3 * rounds as usize
            + if capacity < BLOCK {
                2
            } else if length > BLOCK {
                3
            } else {
                0
            }
    }

    /// Searches for every address around every start, for every number of starts that the table has room for.
    fn check<const RANGES: usize>() {
        let starts: Starts<Counted, RANGES> = [const { [const { Counted::ALL_ONES }; RANGES] }; 2];
        let capacity = 2 * RANGES;
        let mut worst = 0;
        for length in 0..=capacity {
            if let Some(added) = length.checked_sub(1) {
                starts.as_flattened()[added].set(10 * added as u64 + 10);
            }
            let around = (0..length as u64 + 2).flat_map(|i| [10 * i, 10 * i + 9]);
            for address in around.chain([u64::MAX - 1, u64::MAX]) {
                PROBES.set(0);
                let found = search(&starts, length, address);
                let probes = PROBES.get();
                let not_above = (0..length).filter(|i| 10 * *i as u64 + 10 <= address).count();
                assert_eq!(found, not_above.saturating_sub(1), "{length} of {capacity}, {address}");
                assert!(probes <= bound(length, capacity), "{probes} probes, {length} of {capacity}");
                worst = worst.max(probes);
            }
        }
        assert!(worst + 5 >= bound(capacity, capacity), "no search needs more than {worst} probes");
    }

    #[test]
    fn every_address_is_found_with_as_many_probes_as_stated() {
        check::<1>();
        check::<3>();
        // The time goes with the third power: too long for an interpreter.
        if cfg!(miri) {
            return;
        }
        check::<16>();
        check::<31>();
        check::<32>();
        check::<33>();
        check::<50>();
        check::<130>();
    }
}

//! One replica of the range table, for writers and for the slow path of an access; the fast path never uses it. It is not
//! generic in the space, so that its code exists once.

use super::address::AtomicAddress;
use crate::cost;
use crate::indices::SlotIndex;
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The starts of one replica.
pub(super) enum Starts<'t> {
    Ports(&'t [AtomicU16]),
    Memory(&'t [AtomicU64]),
}

/// One replica of the table of one space.
pub(crate) struct IndexWriter<'t> {
    length: usize,
    /// The replica's length, to change it.
    length_of: &'t AtomicU32,
    starts: Starts<'t>,
    owners: &'t [AtomicU16],
}

impl<'t> IndexWriter<'t> {
    pub(super) fn new(length_of: &'t AtomicU32, starts: Starts<'t>, owners: &'t [AtomicU16]) -> Self {
        Self { length: length_of.load(Ordering::Relaxed) as usize, length_of, starts, owners }
    }

    fn owner_at(&self, position: usize) -> Option<SlotIndex> {
        SlotIndex::from_number(self.owners.get(position)?.load(Ordering::Relaxed))
    }

    #[inline(never)]
    fn start_at(&self, position: usize) -> Option<u64> {
        cost::looked();
        match self.starts {
            Starts::Ports(starts) => starts.get(position).map(AtomicAddress::get),
            Starts::Memory(starts) => starts.get(position).map(AtomicAddress::get),
        }
    }

    fn starts_at(&self, position: usize, start: u64) -> bool {
        position < self.length && self.start_at(position) == Some(start)
    }

    /// How many starts are below `address`.
    #[inline(never)]
    fn lower_bound(&self, address: u64) -> usize {
        let (mut low, mut high) = (0, self.length);
        while low < high {
            let middle = low.midpoint(high);
            if self.start_at(middle).is_some_and(|start| start < address) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The owner of `address`, and the last address of its segment.
    #[inline(never)]
    pub(crate) fn segment_of(&self, address: u64) -> (Option<SlotIndex>, u64) {
        let below = self.lower_bound(address);
        let above = below + self.starts_at(below, address) as usize;
        let next = if above < self.length { self.start_at(above) } else { None };
        let owner = above.checked_sub(1).and_then(|at| self.owner_at(at));
        (owner, next.map_or(u64::MAX, |next| next.wrapping_sub(1)))
    }

    /// Removes all entries: the whole space becomes a hole.
    pub(crate) fn clear(&self) {
        self.shift(self.length, 0);
    }

    /// Gives the addresses from `base` to `last` to `owner`. They all lie in one segment now: in a segment of the innermost
    /// window `around` them, in a hole, or in the range that is removed. `is_bounded` says of an owner in the index, and of
    /// `owner`, whether it is a window or lies in one.
    pub(crate) fn assign(
        &self,
        base: u64,
        last: u64,
        owner: Option<SlotIndex>,
        around: Option<SlotIndex>,
        is_bounded: &dyn Fn(SlotIndex) -> bool,
    ) {
        let position = self.lower_bound(base);
        // What stands at the two ends now, and what is to stand there. There is no entry where the owner before it goes on, and
        // one for a hole only behind a window.
        let mut behind = position + self.starts_at(position, base) as usize;
        let below = position.checked_sub(1).and_then(|below| self.owner_at(below));
        let mut above = around;
        // The last address of the space has none behind it.
        let next =
            last.checked_add(1).filter(|next| matches!(self.starts, Starts::Memory(_)) || *next <= AtomicU16::LAST);
        if let Some(next) = next
            && self.starts_at(behind, next)
        {
            above = self.owner_at(behind);
            behind += 1;
        }
        let changes = |from: Option<SlotIndex>, to: Option<SlotIndex>| match to {
            Some(_) => to != from,
            None => from.is_some_and(is_bounded),
        };
        let new_base = changes(below, owner);
        let new_end = next.filter(|_| changes(owner, above));
        let new_next = position + new_base as usize;
        self.shift(behind, new_next + new_end.is_some() as usize);
        if new_base {
            self.set(position, base, owner);
        }
        if let Some(next) = new_end {
            self.set(new_next, next, above);
        }
    }

    #[inline(never)]
    fn set(&self, position: usize, start: u64, owner: Option<SlotIndex>) {
        match self.starts {
            Starts::Ports(starts) => set(starts, position, start),
            Starts::Memory(starts) => set(starts, position, start),
        }
        set(self.owners, position, owner.map_or(0, SlotIndex::number).into());
    }

    /// Moves the entries from position `from` on to position `to` and behind.
    fn shift(&self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let length = self.length;
        let new_length = (length + to).saturating_sub(from);
        let count = length.saturating_sub(from);
        cost::moved(count);
        match self.starts {
            Starts::Ports(starts) => shift(starts, from, to, count, length, u64::MAX),
            Starts::Memory(starts) => shift(starts, from, to, count, length, u64::MAX),
        }
        shift(self.owners, from, to, count, length, 0);
        self.length_of.store(new_length as u32, Ordering::Relaxed);
    }
}

fn set<A: AtomicAddress>(array: &[A], position: usize, value: u64) {
    if let Some(element) = array.get(position) {
        element.set(value);
    }
}

/// Moves `count` elements, in an order in which none is overwritten before it was moved. Then fills the elements behind them,
/// up to `end`.
#[inline(never)]
fn shift<A: AtomicAddress>(array: &[A], from: usize, to: usize, count: usize, end: usize, fill: u64) {
    for moved in 0..count {
        let at = if from < to { count - 1 - moved } else { moved };
        if let (Some(old), Some(new)) = (array.get(from + at), array.get(to + at)) {
            new.set(old.get());
        }
    }
    for left in (to + count)..end {
        set(array, left, fill);
    }
}

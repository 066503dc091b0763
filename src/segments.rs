//! One copy of the range table as its writer sees it: without the types of its starts, so that it is code once for both
//! spaces. Who searches it here has time.

use crate::probes;
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::table::{NOBODY, Start};

/// The starts of one copy.
pub(crate) enum Starts<'t> {
    Ports(&'t [AtomicU16]),
    Memory(&'t [AtomicU64]),
}

/// One copy of the table of one space.
pub(crate) struct Segments<'t> {
    pub(crate) length: usize,
    /// Where the length is kept.
    pub(crate) length_of: &'t AtomicU32,
    pub(crate) starts: Starts<'t>,
    pub(crate) owners: &'t [AtomicU16],
}

impl Segments<'_> {
    fn owner_at(&self, position: usize) -> u16 {
        self.owners.get(position).map_or(NOBODY, |owner| owner.load(Ordering::Relaxed))
    }

    #[inline(never)]
    fn start_at(&self, position: usize) -> Option<u64> {
        probes::looked();
        match self.starts {
            Starts::Ports(starts) => starts.get(position).map(Start::get),
            Starts::Memory(starts) => starts.get(position).map(Start::get),
        }
    }

    fn starts_at(&self, position: usize, start: u64) -> bool {
        position < self.length && self.start_at(position) == Some(start)
    }

    /// How many starts are below `address`.
    #[inline(never)]
    fn below(&self, address: u64) -> usize {
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

    /// Whose `address` is, and the last address up to which it is the same owner's as far as that one's range reaches.
    #[inline(never)]
    pub(crate) fn find(&self, address: u64) -> (u16, u64) {
        let below = self.below(address);
        let above = below + self.starts_at(below, address) as usize;
        let next = if above < self.length { self.start_at(above) } else { None };
        let owner = above.checked_sub(1).map_or(NOBODY, |at| self.owner_at(at));
        (owner, next.map_or(u64::MAX, |next| next.wrapping_sub(1)))
    }

    /// Gives everything to nobody.
    pub(crate) fn clear(&self) {
        self.shift(self.length, 0);
    }

    /// Gives the addresses from `base` to `last` to `owner`. They all lie in one segment, of the innermost window `around`
    /// them, or of nobody, or of the range that is taken away.
    pub(crate) fn assign(&self, base: u64, last: u64, owner: u16, around: u16) {
        let position = self.below(base);
        // What stands at the two ends now, and what is to: nothing for a hole, and nothing where the same owner goes on.
        let mut behind = position + self.starts_at(position, base) as usize;
        let below = position.checked_sub(1).map_or(NOBODY, |below| self.owner_at(below));
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
        let changes = |from: u16, to: u16| to != NOBODY && to != from;
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
    fn set(&self, position: usize, start: u64, owner: u16) {
        match self.starts {
            Starts::Ports(starts) => set(starts, position, start),
            Starts::Memory(starts) => set(starts, position, start),
        }
        set(self.owners, position, owner.into());
    }

    /// Moves the entries that stand at `from` and behind it, so that they stand at `to` and behind it.
    fn shift(&self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let length = self.length;
        let new_length = (length + to).saturating_sub(from);
        let count = length.saturating_sub(from);
        probes::moved(count);
        match self.starts {
            Starts::Ports(starts) => shift(starts, from, to, count, length),
            Starts::Memory(starts) => shift(starts, from, to, count, length),
        }
        // Nobody looks at an owner behind the starts in use.
        shift(self.owners, from, to, count, 0);
        self.length_of.store(new_length as u32, Ordering::Relaxed);
    }
}

fn set<A: Start>(array: &[A], position: usize, value: u64) {
    if let Some(element) = array.get(position) {
        element.set(value);
    }
}

/// Moves `count` elements, in an order in which none is overwritten before it was moved, and fills with ones what is left
/// behind, up to `end`.
#[inline(never)]
fn shift<A: Start>(array: &[A], from: usize, to: usize, count: usize, end: usize) {
    for moved in 0..count {
        let at = if from < to { count - 1 - moved } else { moved };
        if let (Some(old), Some(new)) = (array.get(from + at), array.get(to + at)) {
            new.set(old.get());
        }
    }
    for left in (to + count)..end {
        if let Some(left) = array.get(left) {
            left.set(u64::MAX);
        }
    }
}

//! A pool of addresses: what is allocated, what is free, and the windows between the two.

use core::fmt;

use super::error::PoolError;
use super::gaps::{Address, Gap, GapList};
use super::ordered::OrderedList;
use crate::address::{GuestAddress, GuestUsize, IoRange};
use crate::resource::{Fit, Placement};

/// The owner of a block that belongs to no device.
pub const RESERVED: u16 = u16::MAX;

/// An allocated range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Block {
    /// Where it lies.
    pub range: IoRange,
    /// In how many windows it lies.
    pub depth: u8,
    /// Whether it is a window: a bus's range that holds its children's.
    pub window: bool,
    /// The index of the device it belongs to, or [`RESERVED`].
    pub owner: u16,
}

impl Block {
    /// The place of the block in the order of its pool.
    pub(crate) fn key(&self) -> (u64, u8) {
        (self.range.first().0, self.depth)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of ", self.range)?;
        match self.owner {
            RESERVED => f.write_str("the VMM"),
            index => write!(f, "device {index}"),
        }
    }
}

/// A block as the pool stores it: 24 bytes for memory, 8 for ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry<A> {
    first: A,
    last: A,
    owner: u16,
    depth: u8,
    window: bool,
}

impl<A: Address> Entry<A> {
    fn key(&self) -> (u64, u8) {
        (self.first.widen(), self.depth)
    }

    fn overlaps(&self, first: u64, last: u64) -> bool {
        self.first.widen() <= last && first <= self.last.widen()
    }

    /// The block, if its range is one, as that of every entry is.
    fn block(&self) -> Option<Block> {
        let range = IoRange::new(GuestAddress(self.first.widen()), GuestAddress(self.last.widen())).ok()?;
        Some(Block { range, depth: self.depth, window: self.window, owner: self.owner })
    }
}

/// Addresses to allocate from, with room for `N` blocks. A window takes the room of two.
///
/// A block may be a window, and other blocks are then allocated in it. Blocks are disjoint or nested in this way,
/// nothing else. What is free directly in the pool or in one window, its *container*, is a gap; gaps of one container
/// that touch are one gap.
///
/// # Worst case
/// For n blocks and g gaps, g being at most n + 1 and one more for each window: `allocate` at a fixed place and `free`
/// take O(log n) comparisons, and move up to n + 3 g numbers of 2 bytes by one place. `allocate` anywhere looks at up to
/// g gaps besides. Only a refused overlap looks at up to n blocks, and [`innermost`](Self::innermost) at those of the
/// outermost window that has the address, or ends before it.
///
/// # Invariants
/// - `blocks` is sorted by first address, and where several blocks start at one address, by depth: a window stands
///   directly before what lies in it.
/// - In each container, its blocks and its gaps have every address exactly once.
/// - `blocks.len() + windows` is at most `N`, which is what makes room for the gaps: see [`GapList`]. Freeing a block
///   keeps this, so that it cannot fail for lack of room.
pub(crate) struct AddressPool<A, const N: usize> {
    bounds: IoRange,
    blocks: OrderedList<Entry<A>, N>,
    gaps: GapList<A, N>,
    windows: usize,
}

impl<const N: usize> AddressPool<u64, N> {
    pub(crate) const fn memory(bounds: IoRange) -> Self {
        let gaps = GapList::new(bounds.first().0, bounds.last().0);
        Self { bounds, blocks: OrderedList::new(), gaps, windows: 0 }
    }
}

impl<const N: usize> AddressPool<u16, N> {
    /// # Errors
    /// [`PoolError::BeyondPorts`].
    pub(crate) const fn ports(bounds: IoRange) -> Result<Self, PoolError> {
        if !IoRange::ALL_PORTS.contains_range(bounds) {
            return Err(PoolError::BeyondPorts { bounds });
        }
        let gaps = GapList::new(bounds.first().0 as u16, bounds.last().0 as u16);
        Ok(Self { bounds, blocks: OrderedList::new(), gaps, windows: 0 })
    }
}

/// A place that was found: the gap, its index, and the part of it to take.
struct Place<A> {
    index: usize,
    gap: Gap<A>,
    first: u64,
    last: u64,
}

impl<A: Address, const N: usize> AddressPool<A, N> {
    /// Allocates a range, in the window `container` or directly in the pool.
    ///
    /// # Errors
    /// [`PoolError`], all but `NotAllocated` and `WindowInUse`. `Full` and `TooDeep` mean that the place is free.
    pub(crate) fn allocate(
        &mut self,
        placement: Placement,
        container: Option<Block>,
        window: bool,
        owner: u16,
    ) -> Result<IoRange, PoolError> {
        let place = match placement {
            Placement::Fixed(wanted) => self.exactly(wanted, container)?,
            Placement::Any { size, align, within, fit } => self.anywhere(size, align, within, fit, container)?,
        };
        let Place { index, gap, first, last } = place;
        let room = if window { 2 } else { 1 };
        let full = PoolError::Full { capacity: N };
        if self.blocks.len().saturating_add(self.windows).saturating_add(room) > N {
            return Err(full);
        }
        let inner = match (window, gap.depth().checked_add(1), container) {
            (false, ..) => None,
            (true, Some(depth), _) => Some(Gap::new(first, last, depth)),
            // Without a container the depth is 0, which has a successor.
            (true, None, container) => return Err(container.map_or(full, |window| PoolError::TooDeep { window })),
        };
        let range = IoRange::new(GuestAddress(first), GuestAddress(last)).map_err(|_| PoolError::Empty)?;

        let entry = Entry { first: A::narrow(first), last: A::narrow(last), owner, depth: gap.depth(), window };
        self.blocks.insert(self.position(entry.key()), entry).map_err(|_| full)?;
        self.windows = self.windows.saturating_add(inner.is_some().into());
        let below = first.checked_sub(1).filter(|end| gap.first() <= *end);
        let above = last.checked_add(1).filter(|start| *start <= gap.last());
        let parts = [
            below.map(|end| Gap::new(gap.first(), end, gap.depth())),
            inner,
            above.map(|start| Gap::new(start, gap.last(), gap.depth())),
        ];
        self.divide(index, parts);
        Ok(range)
    }

    /// Frees the block with exactly this range and this owner; if several lie in one another, the innermost.
    ///
    /// # Errors
    /// [`PoolError::NotAllocated`], [`PoolError::WindowInUse`].
    pub(crate) fn free(&mut self, range: IoRange, owner: u16) -> Result<Block, PoolError> {
        let (first, last) = (range.first().0, range.last().0);
        let not_allocated = PoolError::NotAllocated { range };
        let from = self.blocks.partition_point(|block| block.first.widen() < first);
        let (offset, entry) = self
            .blocks
            .iter_from(from)
            .take_while(|block| block.first.widen() == first)
            .enumerate()
            .filter(|(_, block)| block.last.widen() == last && block.owner == owner)
            .last()
            .ok_or(not_allocated)?;
        let (at, entry) = (from.saturating_add(offset), *entry);
        let block = entry.block().ok_or(not_allocated)?;
        let next = at.checked_add(1).and_then(|next| self.blocks.get(next));
        if let Some(inside) = next.filter(|next| entry.window && next.first.widen() <= last).and_then(Entry::block) {
            return Err(PoolError::WindowInUse { window: block, inside });
        }
        // A gap that touches the block from outside their common container lies in a window whose edge is between
        // the two. What starts there stands next to the block in the order.
        let edge_above = next.is_some_and(|next| Some(next.first.widen()) == last.checked_add(1));
        let edge_below = at.checked_sub(1).and_then(|at| self.blocks.get(at)).is_some_and(|b| b.first.widen() == first);

        self.blocks.remove(at);
        let index = self.gaps.position(first);
        if entry.window {
            self.windows = self.windows.saturating_sub(1);
            // The gap that is all of its inside.
            self.gaps.remove(index);
        }
        let same_depth = |gap: &Gap<A>| gap.depth() == entry.depth;
        let below = index.checked_sub(1).filter(|_| !edge_below).and_then(|below| {
            let gap = self.gaps.get(below).filter(same_depth)?;
            (gap.last().checked_add(1) == Some(first)).then_some((below, gap))
        });
        let above = self.gaps.get(index).filter(same_depth);
        let above = above.filter(|gap| !edge_above && last.checked_add(1) == Some(gap.first()));
        let freed_first = below.map_or(first, |(_, gap)| gap.first());
        let freed = Gap::new(freed_first, above.map_or(last, |gap| gap.last()), entry.depth);
        match (below, above) {
            (None, None) => self.gaps.insert(index, freed),
            (Some((below, _)), None) => self.gaps.replace(below, freed),
            (None, Some(_)) => self.gaps.replace(index, freed),
            (Some((below, _)), Some(_)) => {
                self.gaps.remove(index);
                self.gaps.replace(below, freed);
            }
        }
        Ok(block)
    }

    /// The innermost block that has `address`.
    pub(crate) fn innermost(&self, address: u64) -> Option<Block> {
        let end = self.blocks.partition_point(|block| block.first.widen() <= address);
        // Of two blocks that both have the address, the inner one stands later. Blocks of depth 0 are disjoint: behind one
        // that ends before the address, or in it, nothing earlier has it.
        let found = self.blocks.iter_to(end).rev().find(|block| block.depth == 0 || block.last.widen() >= address)?;
        if found.last.widen() < address { None } else { found.block() }
    }

    /// The block that follows the one with this [`key`](Block::key) in the order, whether that one is still there or
    /// not; the first for `None`. A caller that cannot hold the pool all the time goes through it in this way.
    pub(crate) fn next_after(&self, key: Option<(u64, u8)>) -> Option<Block> {
        let at = self.blocks.partition_point(|block| Some(block.key()) <= key);
        self.blocks.get(at)?.block()
    }

    /// The index of the first block whose key is not below this one.
    fn position(&self, key: (u64, u8)) -> usize {
        let from = self.blocks.partition_point(|block| block.first.widen() < key.0);
        // Few windows start at one address.
        from.saturating_add(self.blocks.iter_from(from).take_while(|block| block.key() < key).count())
    }

    /// Puts the parts of a gap that are left in its place.
    fn divide(&mut self, index: usize, parts: [Option<Gap<A>>; 3]) {
        let mut parts = parts.into_iter().flatten();
        match parts.next() {
            Some(part) => self.gaps.replace(index, part),
            None => self.gaps.remove(index),
        }
        for (offset, part) in parts.enumerate() {
            self.gaps.insert(index.saturating_add(offset).saturating_add(1), part);
        }
    }

    fn exactly(&self, wanted: IoRange, container: Option<Block>) -> Result<Place<A>, PoolError> {
        let (_, depth) = self.container(container)?;
        if !self.bounds.contains_range(wanted) {
            return Err(PoolError::OutsidePool { wanted, pool: self.bounds });
        }
        if let Some(window) = container.filter(|window| !window.range.contains_range(wanted)) {
            return Err(PoolError::OutsideWindow { wanted, window });
        }
        let (first, last) = (wanted.first().0, wanted.last().0);
        let index = self.gaps.position(first);
        match self.gaps.get(index) {
            Some(gap) if gap.first() <= first && last <= gap.last() && gap.depth() == depth => {
                Ok(Place { index, gap, first, last })
            }
            _ => {
                let in_the_way =
                    self.blocks.iter_from(0).find(|block| block.depth == depth && block.overlaps(first, last));
                // What is in no gap of its container is in a block.
                let taken = in_the_way.and_then(Entry::block);
                Err(taken.map_or(PoolError::Full { capacity: N }, |taken| PoolError::Overlap { wanted, taken }))
            }
        }
    }

    fn anywhere(
        &self,
        size: GuestUsize,
        align: u64,
        within: Option<IoRange>,
        fit: Fit,
        container: Option<Block>,
    ) -> Result<Place<A>, PoolError> {
        let span = size.0.checked_sub(1).ok_or(PoolError::Empty)?;
        if !align.is_power_of_two() {
            return Err(PoolError::BadAlignment { align });
        }
        let (limits, depth) = self.container(container)?;
        let no_room = PoolError::NoRoom { size, align, within: within.unwrap_or(limits) };
        let within = within.unwrap_or(limits);
        let lowest = limits.first().max(within.first()).0;
        let highest = limits.last().min(within.last()).0;
        if lowest > highest {
            return Err(no_room);
        }
        let low_bits = align.wrapping_sub(1);
        let place = |(index, gap): (usize, Gap<A>)| {
            let (bottom, top) = (gap.first().max(lowest), gap.last().min(highest));
            let first = match fit {
                Fit::First => bottom.checked_add(low_bits)? & !low_bits,
                Fit::Last => top.checked_sub(span)? & !low_bits,
            };
            let last = first.checked_add(span)?;
            (gap.depth() == depth && bottom <= first && last <= top).then_some(Place { index, gap, first, last })
        };
        match fit {
            Fit::First => self.gaps.upwards(lowest).take_while(|(_, gap)| gap.first() <= highest).find_map(place),
            Fit::Last => self.gaps.downwards(highest).take_while(|(_, gap)| gap.last() >= lowest).find_map(place),
        }
        .ok_or(no_room)
    }

    /// The range of a container and the depth of what lies directly in it, once it is known to be a window.
    fn container(&self, container: Option<Block>) -> Result<(IoRange, u8), PoolError> {
        let Some(block) = container else {
            return Ok((self.bounds, 0));
        };
        let found = self.blocks.get(self.position(block.key())).and_then(Entry::block) == Some(block);
        let depth = block.depth.checked_add(1).filter(|_| found && block.window);
        Ok((block.range, depth.ok_or(PoolError::NotAWindow { block })?))
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;

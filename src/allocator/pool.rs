//! All ranges of both spaces, and what is free between them.

mod storage;

use core::cell::Cell;

pub(crate) use storage::PoolStorage;

use super::bounds::SystemAllocator;
use super::gaps::Gaps;
use super::range::{FreeRange, RangeRecord, Refusal};
use crate::address::{GuestAddress, IoRange, IoType, Space};
use crate::cost;
use crate::error::RangeRefusal;
use crate::indices::SlotIndex;
use crate::resource::{Fit, Placement};

/// How many ranges there are, and which records are free.
pub(super) struct Counts {
    ports: u16,
    /// Those of both spaces.
    all: u16,
    /// The first record in the list of those that are free again.
    pub(super) free: Option<SlotIndex>,
    /// How many records were ever in use: the first ones.
    pub(super) used: u16,
    /// The range that has been waiting for the longest time, and the one for the shortest.
    pub(super) first_waiting: Option<SlotIndex>,
    pub(super) last_waiting: Option<SlotIndex>,
    /// The oldest change that waits for the listener.
    pub(super) first_wish: Option<SlotIndex>,
    port_gaps: Gaps,
    memory_gaps: Gaps,
}

impl Counts {
    const NEW: Self = Self {
        ports: 0,
        all: 0,
        free: None,
        used: 0,
        first_waiting: None,
        last_waiting: None,
        first_wish: None,
        port_gaps: Gaps::new(),
        memory_gaps: Gaps::new(),
    };
}

/// The bit that says that the listener is told of the range.
const LISTENED: u8 = 1 << 6;

/// The pool of addresses and ports.
///
/// A range may be a window, and then other ranges may be allocated in it. Two ranges are disjoint, or one lies in the other in
/// this way. The window, or else the whole space, that a range lies directly in is its *container*.
///
/// # Worst case
/// With n ranges, of which at most d are nested in one another, every operation takes O(log n + d) comparisons, and a change
/// moves up to n indices of 2 bytes by one position. A search for a place anywhere looks at up to n ranges besides. A search
/// for the lowest place directly in a space skips what earlier searches have found full: see [`Gaps`].
///
/// # Invariants
/// - The first `counts.all` elements of `order` are the indices of the placed ranges: first those of ports, then those of
///   memory. Each space is sorted by first address, and ranges with the same first address by depth: so a window stands
///   directly before what lies in it.
/// - The ranges of one container are disjoint, and lie in it.
/// - Each of the first `counts.used` records is in use, or in the list that begins at `counts.free`.
/// - The waiting ranges are those in the list that begins at `counts.first_waiting`.
/// - Between transactions no range is marked.
pub(crate) struct Pool<'s> {
    records: &'s mut [RangeRecord],
    /// The alignment that each range was asked for with, as a number of low bits; and a [mark](Self::mark).
    pub(super) alignments: &'s mut [u8],
    pub(super) order: &'s mut [Option<SlotIndex>],
    pub(super) counts: &'s mut Counts,
    allocator: SystemAllocator,
}

impl Pool<'_> {
    pub(crate) fn range(&self, index: SlotIndex) -> Option<&RangeRecord> {
        cost::looked();
        self.records.get(index.position())
    }

    pub(crate) fn range_mut(&mut self, index: SlotIndex) -> Option<&mut RangeRecord> {
        self.records.get_mut(index.position())
    }

    /// The alignment of a range, wherever it moves: a power of two.
    pub(crate) fn alignment(&self, index: SlotIndex) -> u64 {
        let bits = self.alignments.get(index.position()).copied().unwrap_or(0);
        // `wrapping_shl` ignores the two high bits.
        1_u64.wrapping_shl(bits.into())
    }

    /// Keeps the alignment that a range was asked for with, a power of two.
    pub(crate) fn set_alignment(&mut self, index: SlotIndex, alignment: u64) {
        if let Some(bits) = self.alignments.get_mut(index.position()) {
            *bits = alignment.trailing_zeros() as u8;
        }
    }

    /// The listener is to be told of this range.
    pub(crate) fn set_listened(&mut self, index: SlotIndex) {
        if let Some(bits) = self.alignments.get_mut(index.position()) {
            *bits |= LISTENED;
        }
    }

    pub(crate) fn is_listened(&self, index: SlotIndex) -> bool {
        self.alignments.get(index.position()).is_some_and(|bits| bits & LISTENED != 0)
    }

    /// The indices of all records that were ever in use.
    pub(crate) fn used(&self) -> impl Iterator<Item = SlotIndex> {
        (0..self.counts.used.into()).filter_map(SlotIndex::at)
    }

    /// The indices of all placed ranges, in order.
    pub(crate) fn indices(&self) -> impl Iterator<Item = SlotIndex> {
        self.order.iter().take(self.counts.all.into()).copied().flatten()
    }

    /// Allocates a range for the VMM itself.
    ///
    /// # Errors
    /// As [`find_free`](Self::find_free), and [`RangeRefusal::Full`].
    pub(crate) fn reserve(&mut self, io_type: IoType, placement: &Placement) -> Result<IoRange, Refusal> {
        let free = self.find_free(io_type, placement, None)?;
        self.insert(&free, RangeRecord::new(None, io_type))?;
        Ok(free.range)
    }

    /// Frees exactly this range of the VMM itself.
    ///
    /// # Errors
    /// [`RangeRefusal::NotAllocated`]; those of the bounds of the ports.
    pub(crate) fn release(&mut self, io_type: IoType, range: IoRange) -> Result<(), Refusal> {
        self.allocator.bounds(io_type.space())?;
        // The VMM's ranges lie in no window.
        let after = self.position_of(io_type.space(), (range.first().0, 0));
        match self.before(io_type.space(), after) {
            Some((index, found)) if found.range == range && found.node.is_none() => {
                self.remove(index);
                Ok(())
            }
            _ => Err(RangeRefusal::NotAllocated { range }),
        }
    }

    /// Takes a place for a new range, right after [`find_free`](Self::find_free) has found it. The range keeps its index until
    /// it is removed.
    ///
    /// # Errors
    /// [`RangeRefusal::Full`].
    pub(crate) fn insert(&mut self, free: &FreeRange, range: RangeRecord) -> Result<SlotIndex, Refusal> {
        let index = self.insert_unplaced(range)?;
        self.put(index, free);
        Ok(index)
    }

    /// Takes a record for a new range without a place.
    ///
    /// # Errors
    /// [`RangeRefusal::Full`].
    pub(crate) fn insert_unplaced(&mut self, range: RangeRecord) -> Result<SlotIndex, Refusal> {
        let full = RangeRefusal::Full { capacity: self.records.len() };
        let index = self.counts.free.or_else(|| SlotIndex::at(self.counts.used.into())).ok_or(full)?;
        let record = self.records.get_mut(index.position()).ok_or(full)?;
        if self.counts.free.is_none() {
            self.counts.used = self.counts.used.wrapping_add(1);
        } else {
            self.counts.free = record.next;
        }
        *record = range;
        self.set_alignment(index, 1);
        Ok(index)
    }

    /// Frees a range, whatever its state, unless others lie in it.
    pub(crate) fn remove(&mut self, index: SlotIndex) {
        let Some(&range) = self.range(index) else { return };
        if range.is_placed() && !self.unlink(index) {
            return;
        }
        if range.is_waiting() {
            self.stop_waiting(index, self.waiting_before(index, None));
        }
        self.free_record(index);
    }

    /// Puts a record into the list of those that are free.
    pub(super) fn free_record(&mut self, index: SlotIndex) {
        let next = self.counts.free.replace(index);
        if let Some(record) = self.range_mut(index) {
            record.next = next;
        }
    }

    /// For how many ranges there is room.
    pub(crate) fn capacity(&self) -> usize {
        self.records.len()
    }

    /// Takes a place for an unlinked range, right after [`find_free`](Self::find_free) has found it.
    pub(crate) fn put(&mut self, index: SlotIndex, free: &FreeRange) {
        let Some(record) = self.range_mut(index) else { return };
        record.set_place(free);
        let space = record.space();
        self.counts.all = self.counts.all.wrapping_add(1);
        if space == Space::Ports {
            self.counts.ports = self.counts.ports.wrapping_add(1);
        }
        let cells = self.cells_from(free.at);
        for pair in cells.windows(2).rev() {
            if let [from, to] = pair {
                to.set(from.get());
            }
        }
        if let Some(cell) = cells.first() {
            cell.set(Some(index));
        }
        if free.depth == 0 {
            self.gaps(space).taken(free.range);
        }
    }

    /// Puts a range without a place back to its old one, which is free.
    pub(crate) fn put_back(&mut self, index: SlotIndex, old: &RangeRecord) {
        let &RangeRecord { range, container, .. } = old;
        let at = self.position_of(old.space(), old.key());
        self.put(index, &FreeRange { range, container, depth: old.depth(), at });
        if let Some(record) = self.range_mut(index) {
            record.restore_place(old);
        }
    }

    /// Frees the place of a range, which keeps its index: if it has a place, and no other range lies in it.
    pub(crate) fn unlink(&mut self, index: SlotIndex) -> bool {
        let Some((range, after)) = self.range(index).copied().zip(self.behind(index)) else { return false };
        if self.at(range.space(), after).is_some_and(|next| next.range.first() <= range.range.last()) {
            return false;
        }
        self.close_gap(range.space(), after.wrapping_sub(1), 1);
        if range.depth() == 0 {
            self.gaps(range.space()).freed(range.range);
        }
        if let Some(record) = self.range_mut(index) {
            record.set_unplaced();
        }
        true
    }

    /// Removes `count` elements of the order, from position `at` on.
    pub(super) fn close_gap(&mut self, space: Space, at: usize, count: usize) {
        let cells = self.cells_from(at);
        for (to, from) in cells.iter().zip(cells.iter().skip(count)) {
            to.set(from.get());
        }
        self.counts.all = self.counts.all.wrapping_sub(count as u16);
        if space == Space::Ports {
            self.counts.ports = self.counts.ports.wrapping_sub(count as u16);
        }
    }

    /// The position in the order behind a range; `None` if it has no place.
    pub(super) fn behind(&self, index: SlotIndex) -> Option<usize> {
        let range = self.range(index).filter(|range| range.is_placed())?;
        let after = self.position_of(range.space(), range.key());
        let (before, _) = self.before(range.space(), after)?;
        (before == index).then_some(after)
    }

    /// The innermost range that has `address`, and its index.
    pub(crate) fn innermost(&self, space: Space, address: GuestAddress) -> Option<(SlotIndex, &RangeRecord)> {
        let mut found = self.before(space, self.position(space, address.0))?;
        while found.1.range.last() < address {
            let index = found.1.container?;
            found = (index, self.range(index)?);
        }
        Some(found)
    }

    /// The first range of the space behind this [`key`](RangeRecord::key), or the first of all for `None`. The range that the
    /// key is from may be gone: so a caller can iterate without holding the pool all the time.
    pub(crate) fn next_after(&self, space: Space, key: Option<(u64, u8)>) -> Option<&RangeRecord> {
        self.at(space, key.map_or(self.positions(space).start, |key| self.position_of(space, key)))
    }

    /// Finds a free place in the window `container`, or directly in the space.
    ///
    /// # Errors
    /// A [`RangeRefusal`] that says why there is none.
    pub(crate) fn find_free(
        &mut self,
        io_type: IoType,
        placement: &Placement,
        container: Option<SlotIndex>,
    ) -> Result<FreeRange, Refusal> {
        let space = io_type.space();
        let bounds = self.allocator.bounds(space)?;
        let window = container.and_then(|container| self.range(container));
        let limits = window.map_or(bounds, |window| window.range);
        let depth = match window {
            None => 0,
            // A registration has counted the windows around it.
            Some(window) => window.depth().wrapping_add(1),
        };
        let (range, at) = match *placement {
            Placement::Fixed(wanted) => {
                if !limits.contains_range(wanted) {
                    return Err(match window {
                        None => RangeRefusal::OutsidePool { wanted, pool: bounds },
                        Some(window) => {
                            RangeRefusal::OutsideWindow { wanted, window: window.range, owner: window.holder() }
                        }
                    });
                }
                let at = self.position(space, wanted.first().0);
                let below = self.at_depth(space, at, depth).filter(|below| below.range.last() >= wanted.first());
                // `below` and all that lies in it end before `wanted`: the next range is in the same container, or behind it.
                let above = || self.at(space, at).filter(|above| above.range.first() <= wanted.last());
                if let Some(taken) = below.or_else(above) {
                    return Err(RangeRefusal::Overlap { wanted, taken: taken.range, owner: taken.holder() });
                }
                (wanted, at)
            }
            Placement::Any { size, align, within, fit } => {
                let span = size.0.checked_sub(1).ok_or(RangeRefusal::Empty)?;
                if !align.is_power_of_two() {
                    return Err(RangeRefusal::BadAlignment { align });
                }
                let within = within.unwrap_or(limits);
                let lowest = limits.first().max(within.first()).0;
                let highest = limits.last().min(within.last()).0;
                let wanted = AnyRequest { space, depth, span, low_bits: align.wrapping_sub(1) };
                let found = match (fit, depth) {
                    (Fit::Last, _) => self.highest_place(&wanted, lowest, highest),
                    (Fit::First, 0) => self.lowest_place_in_space(&wanted, bounds, lowest, highest),
                    (Fit::First, _) => self.lowest_place(&wanted, lowest, highest),
                };
                let no_room = RangeRefusal::NoRoom { size, align, within };
                let (first, at) = found.ok_or(no_room)?;
                (IoRange::with_size(GuestAddress(first), size).map_err(|_| no_room)?, at)
            }
        };
        Ok(FreeRange { range, container, depth, at })
    }

    /// The lowest place directly in a space. It skips what earlier searches have shown to be full.
    fn lowest_place_in_space(
        &mut self,
        wanted: &AnyRequest,
        bounds: IoRange,
        lowest: u64,
        highest: u64,
    ) -> Option<(u64, usize)> {
        let AnyRequest { space, span, low_bits, .. } = *wanted;
        let (first_part, rest) = self.gaps(space).starts(span, low_bits);
        let in_first_part = first_part
            .and_then(|(from, to)| self.lowest_place(wanted, lowest.max(from), highest.min(to.saturating_add(span))));
        let found = match in_first_part {
            Some(found) => found,
            None => self.lowest_place(wanted, lowest.max(rest), highest)?,
        };
        if lowest == bounds.first().0 {
            self.gaps(space).found(span, low_bits, found.0);
        }
        Some(found)
    }

    /// The lowest place between two addresses in one container, and its position in the order.
    fn lowest_place(&self, wanted: &AnyRequest, lowest: u64, highest: u64) -> Option<(u64, usize)> {
        let AnyRequest { space, depth, span, low_bits } = *wanted;
        let mut at = self.position(space, lowest);
        let mut bottom = match self.at_depth(space, at, depth) {
            Some(below) => lowest.max(below.range.last().0.checked_add(1)?),
            None => lowest,
        };
        loop {
            let first = bottom.checked_add(low_bits)? & !low_bits;
            let last = first.checked_add(span)?;
            if last > highest {
                return None;
            }
            match self.at(space, at) {
                // Ranges in a window that was passed end no later than the window, and so change nothing.
                Some(next) if next.range.first().0 <= last => {
                    bottom = bottom.max(next.range.last().0.checked_add(1)?);
                    at = at.wrapping_add(1);
                }
                _ => return Some((first, at)),
            }
        }
    }

    /// The highest place between two addresses in one container, and its position in the order.
    fn highest_place(&self, wanted: &AnyRequest, lowest: u64, highest: u64) -> Option<(u64, usize)> {
        let AnyRequest { space, depth, span, low_bits } = *wanted;
        let (mut at, mut top) = (self.position(space, highest), highest);
        let mut before = at;
        loop {
            let first = top.checked_sub(span)? & !low_bits;
            if first < lowest {
                return None;
            }
            match self.before(space, before) {
                // It lies in the next range at this depth.
                Some((_, next)) if next.depth() > depth => {}
                Some((_, next)) if next.depth() == depth && next.range.last().0 >= first => {
                    top = next.range.first().0.checked_sub(1)?;
                    at = before.wrapping_sub(1);
                }
                _ => return Some((first, at)),
            }
            before = before.wrapping_sub(1);
        }
    }

    /// The last range before position `at` that has this depth and is, or holds, the range directly before `at`.
    fn at_depth(&self, space: Space, at: usize, depth: u8) -> Option<&RangeRecord> {
        let (_, mut range) = self.before(space, at)?;
        while range.depth() > depth {
            range = self.range(range.container?)?;
        }
        (range.depth() == depth).then_some(range)
    }

    /// The position in the order behind the ranges of this space that start at `address` or before.
    fn position(&self, space: Space, address: u64) -> usize {
        let positions = self.positions(space);
        let start = positions.start;
        let indices = self.order.get(positions).unwrap_or_default();
        let first = |index: &Option<SlotIndex>| self.range((*index)?).map(|range| range.range.first().0);
        start.wrapping_add(indices.partition_point(|index| first(index).is_some_and(|first| first <= address)))
    }

    /// The position in the order behind the ranges of this space with this key or a lower one.
    fn position_of(&self, space: Space, key: (u64, u8)) -> usize {
        let mut at = self.position(space, key.0);
        // Few windows start at one address.
        while self.before(space, at).is_some_and(|(_, range)| range.key() > key) {
            at = at.wrapping_sub(1);
        }
        at
    }

    /// The range at a position of the order, if it is one of this space.
    fn at(&self, space: Space, at: usize) -> Option<&RangeRecord> {
        let indices = self.order.get(at..self.positions(space).end)?;
        self.range((*indices.first()?)?)
    }

    /// The range before a position of the order, and its index, if it is one of this space.
    #[inline(never)]
    fn before(&self, space: Space, at: usize) -> Option<(SlotIndex, &RangeRecord)> {
        let index = (*self.order.get(self.positions(space).start..at)?.last()?)?;
        Some((index, self.range(index)?))
    }

    /// The positions in the order that belong to a space.
    pub(super) fn positions(&self, space: Space) -> core::ops::Range<usize> {
        match space {
            Space::Ports => 0..usize::from(self.counts.ports),
            Space::Memory => usize::from(self.counts.ports)..usize::from(self.counts.all),
        }
    }

    fn gaps(&mut self, space: Space) -> &mut Gaps {
        match space {
            Space::Ports => &mut self.counts.port_gaps,
            Space::Memory => &mut self.counts.memory_gaps,
        }
    }

    /// The elements of the order from position `at` on, as cells. A loop that copies cells in pairs compiles to `memmove`, and
    /// unlike `copy_within` it has no panic path at any optimisation level.
    fn cells_from(&mut self, at: usize) -> &[Cell<Option<SlotIndex>>] {
        cost::moved(usize::from(self.counts.all).saturating_sub(at));
        Cell::from_mut(self.order.get_mut(at..usize::from(self.counts.all)).unwrap_or_default()).as_slice_of_cells()
    }
}

/// A request for a range anywhere.
struct AnyRequest {
    space: Space,
    depth: u8,
    /// Its size less 1.
    span: u64,
    /// The alignment less 1.
    low_bits: u64,
}

#[cfg(all(test, not(vm_device_loom)))]
#[path = "pool_tests.rs"]
mod tests;

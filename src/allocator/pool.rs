//! All ranges of both spaces, and what is free between them.

use core::cell::Cell;
use core::mem;

use super::error::PoolError;
use super::range::{NONE, Place, RESERVED, Range};
use super::space::Space;
use crate::address::{GuestAddress, IoRange, IoType};
use crate::probes;
use crate::resource::{Fit, Placement};

/// Addresses and ports to allocate from, with room for `N` ranges over both spaces together.
///
/// A range may be a window, and other ranges are then allocated in it. Ranges are disjoint or nested in this way,
/// nothing else. What a range lies directly in, a window or the whole space, is its *container*.
///
/// # Worst case
/// With n ranges, at most d of them around one another: every operation takes O(log n + d) comparisons, and a change moves
/// up to n numbers of 2 bytes by one place. Only a place anywhere is looked for among up to n ranges besides; the lowest
/// one directly in a space not among those below which earlier searches have left nothing: see [`Space`].
///
/// # Invariants
/// - `order` has the numbers of the linked ranges: `ports` of them ports, then up to `len` those of memory, and each
///   space sorted by first address, and where several ranges start at one address, by depth: a window stands directly
///   before what lies in it.
/// - The ranges of one container are disjoint, and lie in it.
/// - A number below `unused` is in use or in the chain from `free`.
pub(crate) struct Pool<const N: usize> {
    ranges: [Range; N],
    /// How many low bits of each range's first address are 0, as it was asked for.
    alignments: [u8; N],
    order: [u16; N],
    ports: u16,
    len: u16,
    free: u16,
    unused: u16,
    port_space: Space,
    memory_space: Space,
}

impl<const N: usize> Pool<N> {
    const CAPACITY: () =
        assert!(N < u16::MAX as usize, "RANGES, the number of ranges there is room for, must be at most 65534");

    pub(super) const fn new(memory: IoRange) -> Self {
        let () = Self::CAPACITY;
        Self {
            ranges: [Range::UNUSED; N],
            alignments: [0; N],
            order: [NONE; N],
            ports: 0,
            len: 0,
            free: NONE,
            unused: 0,
            port_space: Space::new(None),
            memory_space: Space::new(Some(memory)),
        }
    }

    pub(super) const fn set_ports(&mut self, bounds: IoRange) {
        self.port_space = Space::new(Some(bounds));
    }

    pub(crate) fn range(&self, number: u16) -> Option<&Range> {
        probes::looked();
        self.ranges.get(usize::from(number))
    }

    pub(crate) fn range_mut(&mut self, number: u16) -> Option<&mut Range> {
        self.ranges.get_mut(usize::from(number))
    }

    /// What the first address of a range is a multiple of, wherever the range moves: a power of two.
    pub(crate) fn alignment(&self, number: u16) -> u64 {
        let bits = self.alignments.get(usize::from(number)).copied().unwrap_or(0);
        1_u64.wrapping_shl(bits.into())
    }

    /// Keeps the alignment that a range was asked for with, a power of two.
    pub(crate) fn set_alignment(&mut self, number: u16, alignment: u64) {
        if let Some(bits) = self.alignments.get_mut(usize::from(number)) {
            *bits = alignment.trailing_zeros() as u8;
        }
    }

    /// The numbers of all ranges, of each space by address, a window before what lies in it.
    pub(crate) fn numbers(&self) -> &[u16] {
        self.order.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Allocates a range for the VMM itself.
    ///
    /// # Errors
    /// As [`find`](Self::find), and [`PoolError::Full`].
    pub(crate) fn reserve(&mut self, io_type: IoType, placement: Placement) -> Result<IoRange, PoolError> {
        let place = self.find(io_type, &placement, NONE)?;
        self.insert(&place, Range::new(RESERVED, io_type))?;
        Ok(place.range)
    }

    /// Frees exactly this range of the VMM itself.
    ///
    /// # Errors
    /// [`PoolError::NotAllocated`]; those of the bounds of the ports.
    pub(crate) fn release(&mut self, io_type: IoType, range: IoRange) -> Result<(), PoolError> {
        self.space(io_type).bounds(io_type)?;
        // The VMM's ranges lie in no window.
        let after = self.position_of(io_type, (range.first().0, 0));
        match self.before(io_type, after) {
            Some((number, found)) if found.range == range && found.node == RESERVED => self.remove(number),
            _ => Err(PoolError::NotAllocated { range }),
        }
    }

    /// Takes a place that was just found for a new range. The number of the range, which stays until it is removed.
    ///
    /// # Errors
    /// [`PoolError::Full`].
    pub(crate) fn insert(&mut self, place: &Place, range: Range) -> Result<u16, PoolError> {
        let number = if self.free == NONE { self.unused } else { self.free };
        let record = self.ranges.get_mut(usize::from(number)).ok_or(PoolError::Full { capacity: N })?;
        if self.free == NONE {
            self.unused = self.unused.wrapping_add(1);
        } else {
            self.free = record.next;
        }
        *record = range;
        self.put(number, place);
        Ok(number)
    }

    /// Frees a range.
    ///
    /// # Errors
    /// [`PoolError::WindowInUse`], and [`PoolError::NotAllocated`] for a range that is not linked.
    pub(crate) fn remove(&mut self, number: u16) -> Result<(), PoolError> {
        self.unlink(number)?;
        let next = mem::replace(&mut self.free, number);
        if let Some(record) = self.range_mut(number) {
            record.next = next;
        }
        Ok(())
    }

    /// Takes a place that was just found for a range that was unlinked.
    pub(crate) fn put(&mut self, number: u16, place: &Place) {
        let Some(record) = self.range_mut(number) else { return };
        record.set_place(place);
        let io_type = record.io_type();
        self.len = self.len.wrapping_add(1);
        if io_type == IoType::Pio {
            self.ports = self.ports.wrapping_add(1);
        }
        let cells = self.cells_from(place.at);
        for pair in cells.windows(2).rev() {
            if let [from, to] = pair {
                to.set(from.get());
            }
        }
        if let Some(cell) = cells.first() {
            cell.set(number);
        }
        if place.depth == 0 {
            self.space_mut(io_type).taken(place.range);
        }
    }

    /// Puts a range that may have been unlinked where it was, which is free.
    pub(crate) fn put_back(&mut self, number: u16, old: &Range) {
        let &Range { range, container, depth, .. } = old;
        if self.behind(number).is_none() {
            self.put(number, &Place { range, container, depth, at: self.position_of(old.io_type(), old.key()) });
        }
    }

    /// Frees the place of a range, and keeps its number for it.
    ///
    /// # Errors
    /// [`PoolError::WindowInUse`], and [`PoolError::NotAllocated`] for a range that is not linked.
    pub(crate) fn unlink(&mut self, number: u16) -> Result<(), PoolError> {
        let range = *self.range(number).unwrap_or(&Range::UNUSED);
        let after = self.behind(number).ok_or(PoolError::NotAllocated { range: range.range })?;
        let io_type = range.io_type();
        if let Some(inside) = self.at(io_type, after).filter(|next| next.range.first() <= range.range.last()) {
            return Err(PoolError::WindowInUse { window: range.block(), inside: inside.block() });
        }
        for pair in self.cells_from(after.wrapping_sub(1)).windows(2) {
            if let [to, from] = pair {
                to.set(from.get());
            }
        }
        self.len = self.len.wrapping_sub(1);
        if io_type == IoType::Pio {
            self.ports = self.ports.wrapping_sub(1);
        }
        if range.depth == 0 {
            self.space_mut(io_type).freed(range.range);
        }
        Ok(())
    }

    /// The place in the order behind a range; `None` if it is not linked.
    fn behind(&self, number: u16) -> Option<usize> {
        let range = self.range(number)?;
        let after = self.position_of(range.io_type(), range.key());
        let (before, _) = self.before(range.io_type(), after)?;
        (before == number).then_some(after)
    }

    /// The innermost range that has `address`, and its number.
    pub(crate) fn innermost(&self, io_type: IoType, address: GuestAddress) -> Option<(u16, &Range)> {
        let mut found = self.before(io_type, self.position(io_type, address.0))?;
        while found.1.range.last() < address {
            let number = found.1.container;
            found = (number, self.range(number)?);
        }
        Some(found)
    }

    /// The range that follows the one with this [`key`](Range::key) in the order of its space, whether that one is still
    /// there or not; the first for `None`. A caller that cannot hold the pool all the time goes through it in this way.
    pub(crate) fn next_after(&self, io_type: IoType, key: Option<(u64, u8)>) -> Option<&Range> {
        self.at(io_type, key.map_or(self.space_of(io_type).start, |key| self.position_of(io_type, key)))
    }

    /// Finds a free place in the window with the number `container`, or directly in the space for [`NONE`].
    ///
    /// # Errors
    /// [`PoolError`], all but `Full`, `NotAllocated` and `WindowInUse`.
    pub(crate) fn find(&mut self, io_type: IoType, placement: &Placement, container: u16) -> Result<Place, PoolError> {
        let bounds = self.space(io_type).bounds(io_type)?;
        let window = self.range(container);
        let limits = window.map_or(bounds, |window| window.range);
        let depth = match window {
            None => 0,
            Some(window) => window.depth.checked_add(1).ok_or(PoolError::TooDeep { window: window.block() })?,
        };
        let (range, at) = match *placement {
            Placement::Fixed(wanted) => {
                if !limits.contains_range(wanted) {
                    return Err(match window {
                        None => PoolError::OutsidePool { wanted, pool: bounds },
                        Some(window) => PoolError::OutsideWindow { wanted, window: window.block() },
                    });
                }
                let at = self.position(io_type, wanted.first().0);
                let below = self.at_depth(io_type, at, depth).filter(|below| below.range.last() >= wanted.first());
                // Behind the one below and all that lies in it, the next is in the same container, or behind that.
                let above = || self.at(io_type, at).filter(|above| above.range.first() <= wanted.last());
                if let Some(taken) = below.or_else(above) {
                    return Err(PoolError::Overlap { wanted, taken: taken.block() });
                }
                (wanted, at)
            }
            Placement::Any { size, align, within, fit } => {
                let span = size.0.checked_sub(1).ok_or(PoolError::Empty)?;
                if !align.is_power_of_two() {
                    return Err(PoolError::BadAlignment { align });
                }
                let within = within.unwrap_or(limits);
                let lowest = limits.first().max(within.first()).0;
                let highest = limits.last().min(within.last()).0;
                let wanted = Wanted { io_type, depth, span, low_bits: align.wrapping_sub(1) };
                let found = match (fit, depth) {
                    (Fit::Last, _) => self.highest_place(&wanted, lowest, highest),
                    (Fit::First, 0) => self.lowest_place_in_space(&wanted, bounds, lowest, highest),
                    (Fit::First, _) => self.lowest_place(&wanted, lowest, highest),
                };
                let no_room = PoolError::NoRoom { size, align, within };
                let (first, at) = found.ok_or(no_room)?;
                (IoRange::with_size(GuestAddress(first), size).map_err(|_| no_room)?, at)
            }
        };
        Ok(Place { range, container, depth, at })
    }

    /// The lowest place directly in a space, without a look at places that are known to be of no use.
    fn lowest_place_in_space(
        &mut self,
        wanted: &Wanted,
        bounds: IoRange,
        lowest: u64,
        highest: u64,
    ) -> Option<(u64, usize)> {
        let Wanted { io_type, span, low_bits, .. } = *wanted;
        let (first_part, rest) = self.space(io_type).starts(span, low_bits);
        let in_first_part = first_part
            .and_then(|(from, to)| self.lowest_place(wanted, lowest.max(from), highest.min(to.saturating_add(span))));
        let found = match in_first_part {
            Some(found) => found,
            None => self.lowest_place(wanted, lowest.max(rest), highest)?,
        };
        if lowest == bounds.first().0 {
            self.space_mut(io_type).found(span, low_bits, found.0);
        }
        Some(found)
    }

    /// The lowest place between two addresses that lie in one container, and where in the order it belongs.
    fn lowest_place(&self, wanted: &Wanted, lowest: u64, highest: u64) -> Option<(u64, usize)> {
        let Wanted { io_type, depth, span, low_bits } = *wanted;
        let mut at = self.position(io_type, lowest);
        let mut bottom = match self.at_depth(io_type, at, depth) {
            Some(below) => lowest.max(below.range.last().0.checked_add(1)?),
            None => lowest,
        };
        loop {
            let first = bottom.checked_add(low_bits)? & !low_bits;
            let last = first.checked_add(span)?;
            if last > highest {
                return None;
            }
            match self.at(io_type, at) {
                // What lies in a window that was passed ends where the window does, or before.
                Some(next) if next.range.first().0 <= last => {
                    bottom = bottom.max(next.range.last().0.checked_add(1)?);
                    at = at.wrapping_add(1);
                }
                _ => return Some((first, at)),
            }
        }
    }

    /// The highest place between two addresses that lie in one container, and where in the order it belongs.
    fn highest_place(&self, wanted: &Wanted, lowest: u64, highest: u64) -> Option<(u64, usize)> {
        let Wanted { io_type, depth, span, low_bits } = *wanted;
        let (mut at, mut top) = (self.position(io_type, highest), highest);
        let mut before = at;
        loop {
            let first = top.checked_sub(span)? & !low_bits;
            if first < lowest {
                return None;
            }
            match self.before(io_type, before) {
                // It lies in the next at this depth.
                Some((_, next)) if next.depth > depth => {}
                Some((_, next)) if next.depth == depth && next.range.last().0 >= first => {
                    top = next.range.first().0.checked_sub(1)?;
                    at = before.wrapping_sub(1);
                }
                _ => return Some((first, at)),
            }
            before = before.wrapping_sub(1);
        }
    }

    /// The last range at this depth, in the container that the place before `at` belongs to, that stands before `at`.
    fn at_depth(&self, io_type: IoType, at: usize, depth: u8) -> Option<&Range> {
        let (_, mut range) = self.before(io_type, at)?;
        while range.depth > depth {
            range = self.range(range.container)?;
        }
        (range.depth == depth).then_some(range)
    }

    /// The place in the order behind those of this space that start at `address` or before.
    fn position(&self, io_type: IoType, address: u64) -> usize {
        let space = self.space_of(io_type);
        let start = space.start;
        let numbers = self.order.get(space).unwrap_or_default();
        let before = |number: &u16| self.range(*number).is_some_and(|range| range.range.first().0 <= address);
        start.wrapping_add(numbers.partition_point(before))
    }

    /// The place in the order behind those of this space whose key is not greater.
    fn position_of(&self, io_type: IoType, key: (u64, u8)) -> usize {
        let mut at = self.position(io_type, key.0);
        // Few windows start at one address.
        while self.before(io_type, at).is_some_and(|(_, range)| range.key() > key) {
            at = at.wrapping_sub(1);
        }
        at
    }

    /// The range whose number stands at a place of the order, if it is one of this space.
    fn at(&self, io_type: IoType, at: usize) -> Option<&Range> {
        let numbers = self.order.get(at..self.space_of(io_type).end)?;
        self.range(*numbers.first()?)
    }

    /// The range before a place of the order, and its number, if it is one of this space.
    #[inline(never)]
    fn before(&self, io_type: IoType, at: usize) -> Option<(u16, &Range)> {
        let number = *self.order.get(self.space_of(io_type).start..at)?.last()?;
        Some((number, self.range(number)?))
    }

    /// Where in the order the numbers of a space stand.
    fn space_of(&self, io_type: IoType) -> core::ops::Range<usize> {
        match io_type {
            IoType::Pio => 0..usize::from(self.ports),
            IoType::Mmio | IoType::PhysicalMmio => usize::from(self.ports)..usize::from(self.len),
        }
    }

    fn space(&self, io_type: IoType) -> &Space {
        match io_type {
            IoType::Pio => &self.port_space,
            IoType::Mmio | IoType::PhysicalMmio => &self.memory_space,
        }
    }

    fn space_mut(&mut self, io_type: IoType) -> &mut Space {
        match io_type {
            IoType::Pio => &mut self.port_space,
            IoType::Mmio | IoType::PhysicalMmio => &mut self.memory_space,
        }
    }

    /// The numbers from the one at `index` on, as cells: their copying in pairs compiles to `memmove`, and unlike
    /// `copy_within` has no panic path at any optimisation level.
    fn cells_from(&mut self, index: usize) -> &[Cell<u16>] {
        probes::moved(usize::from(self.len).saturating_sub(index));
        Cell::from_mut(self.order.get_mut(index..usize::from(self.len)).unwrap_or_default()).as_slice_of_cells()
    }
}

/// What a range asked for anywhere is to be like.
struct Wanted {
    io_type: IoType,
    depth: u8,
    /// Its size less 1.
    span: u64,
    /// The alignment less 1.
    low_bits: u64,
}

#[cfg(all(test, not(vm_device_loom)))]
#[path = "pool_tests.rs"]
mod tests;

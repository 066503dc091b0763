//! A fixed-capacity list in an order of its own, which is cheap to insert into and to remove from.

use core::cell::Cell;

use heapless::Vec;

/// Up to `N` values in the order in which they are put. A value stays in its slot as long as it is in the list; what an
/// insertion or a removal moves are the numbers of the slots, of 2 bytes each.
pub(super) struct OrderedList<T, const N: usize> {
    /// The values, and what is left of values that were removed.
    slots: Vec<T, N>,
    /// Of each slot, its number: the slots in use in order, then the others.
    order: Vec<u16, N>,
    /// How many slots are in use.
    len: usize,
}

impl<T: Copy, const N: usize> OrderedList<T, N> {
    const CAPACITY: () = assert!(N <= 0xffff, "RANGES, the number of ranges there is room for, must be at most 65535");

    pub(super) const fn new() -> Self {
        let () = Self::CAPACITY;
        Self { slots: Vec::new(), order: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.slots.get(usize::from(*self.used().get(index)?))
    }

    /// The values from the one at `from` on.
    pub(super) fn iter_from(&self, from: usize) -> impl DoubleEndedIterator<Item = &T> {
        let slots = self.used().get(from..).unwrap_or_default();
        slots.iter().filter_map(|slot| self.slots.get(usize::from(*slot)))
    }

    /// The values before the one at `to`.
    pub(super) fn iter_to(&self, to: usize) -> impl DoubleEndedIterator<Item = &T> {
        let slots = self.used().get(..to).unwrap_or_default();
        slots.iter().filter_map(|slot| self.slots.get(usize::from(*slot)))
    }

    /// How many values `before` holds for, if it holds for none after one for which it does not.
    pub(super) fn partition_point(&self, before: impl Fn(&T) -> bool) -> usize {
        self.used().partition_point(|slot| self.slots.get(usize::from(*slot)).is_some_and(&before))
    }

    /// Puts `value` before the one at `index`. An index past the end appends; a full list hands the value back.
    pub(super) fn insert(&mut self, index: usize, value: T) -> Result<(), T> {
        let slot = match self.order.get(self.len) {
            Some(slot) => *slot,
            None => {
                // All slots so far are in use. Their number fits, as `N` does.
                let slot = self.slots.len() as u16;
                self.slots.push(value)?;
                self.order.push(slot).map_err(|_| value)?;
                slot
            }
        };
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = value;
        }
        self.len = self.len.saturating_add(1);
        let cells = self.cells_from(index);
        for pair in cells.windows(2).rev() {
            if let [from, to] = pair {
                to.set(from.get());
            }
        }
        if let Some(place) = cells.first() {
            place.set(slot);
        }
        Ok(())
    }

    /// Puts `value` in the place of the one at `index`, if there is one.
    pub(super) fn replace(&mut self, index: usize, value: T) {
        if let Some(slot) = self.used().get(index).copied()
            && let Some(place) = self.slots.get_mut(usize::from(slot))
        {
            *place = value;
        }
    }

    /// Removes the value at `index`, if there is one.
    pub(super) fn remove(&mut self, index: usize) {
        let cells = self.cells_from(index);
        let Some(slot) = cells.first().map(Cell::get) else {
            return;
        };
        for pair in cells.windows(2) {
            if let [to, from] = pair {
                to.set(from.get());
            }
        }
        if let Some(place) = cells.last() {
            place.set(slot);
        }
        self.len = self.len.saturating_sub(1);
    }

    /// The numbers from the one at `index` on, as cells: their copying in pairs compiles to `memmove`, and unlike
    /// `copy_within` has no panic path at any optimisation level.
    fn cells_from(&mut self, index: usize) -> &[Cell<u16>] {
        let used = self.order.get_mut(..self.len).unwrap_or_default();
        Cell::from_mut(used.get_mut(index..).unwrap_or_default()).as_slice_of_cells()
    }

    fn used(&self) -> &[u16] {
        self.order.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_list(steps in prop::collection::vec(any::<(u8, bool, u8)>(), 0..100)) {
            let mut list = OrderedList::<u8, 6>::new();
            let mut plain = Vec::new();
            for (value, insert, at) in steps {
                let index = usize::from(at) % 8;
                match insert {
                    true if plain.len() == 6 => prop_assert_eq!(list.insert(index, value), Err(value)),
                    true => {
                        plain.insert(index.min(plain.len()), value);
                        prop_assert_eq!(list.insert(index, value), Ok(()));
                    }
                    false if at >= 128 => {
                        list.replace(index, value);
                        if let Some(place) = plain.get_mut(index) {
                            *place = value;
                        }
                    }
                    false => {
                        list.remove(index);
                        if index < plain.len() {
                            plain.remove(index);
                        }
                    }
                }
                prop_assert_eq!(list.len(), plain.len());
                prop_assert_eq!(list.get(index), plain.get(index));
                let cut = index.min(plain.len());
                prop_assert_eq!(list.iter_from(cut).collect::<Vec<_>>(), plain[cut..].iter().collect::<Vec<_>>());
                prop_assert_eq!(list.iter_to(cut).collect::<Vec<_>>(), plain[..cut].iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_partition_point_lies_where_it_stops_to_hold() {
        let mut list = OrderedList::<u8, 4>::new();
        for value in [4, 3, 2, 1] {
            list.insert(0, value).unwrap();
        }
        for value in 0..=4 {
            assert_eq!(list.partition_point(|other| *other <= value), usize::from(value));
        }
    }
}

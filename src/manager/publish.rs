//! Changes of the index, in both replicas, and of the slots with them.

use crate::address::Space;
use crate::allocator::RangeRecord;
use crate::indices::SlotIndex;
use crate::manager::device_manager::DeviceManager;
use crate::manager::state::State;

/// One pass of a change over one replica of the index. A change makes two passes: the first over the replica that is not live,
/// which is then published, and the second over the other replica.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    /// A version that selects the replica.
    version: u64,
    pub(crate) is_published: bool,
}

impl<'d> DeviceManager<'d> {
    /// Publishes a change of the index. `change` is made twice: to the replica that is not live, and, when that one has become
    /// live, to the other.
    pub(crate) fn publish(&self, change: impl Fn(Pass)) {
        let version = self.slots.begin_publication();
        // A loop, so that each caller has the code of its `change` once: it is large.
        for is_published in [false, true] {
            change(Pass { version: version.wrapping_add(is_published.into()), is_published });
            if !is_published {
                self.slots.publish(version);
            }
        }
    }

    /// Adds a range to the index, if accesses are to reach it.
    pub(crate) fn index_insert(&self, pass: Pass, slot: SlotIndex, range: &RangeRecord, state: &State<'_, 'd>) {
        if range.is_dispatched() {
            self.slots.close_to_hints(slot);
            let (first, last) = (range.range.first().0, range.range.last().0);
            let window = state.dispatched_window(range);
            self.slots.set_place(pass.version, slot, first, window);
            if range.is_window() {
                self.slots.set_length(slot, last.wrapping_sub(first).wrapping_add(1));
            }
            self.index_assign(pass, Some(slot), range, window, state);
            self.reopen_if_leaf(pass, slot, state);
        }
    }

    /// Adds the marked ranges of devices that accesses reach.
    pub(crate) fn index_insert_marked(&self, pass: Pass, state: &State<'_, 'd>) {
        let mut from = 0;
        while let Some((slot, next)) = state.pool.next_marked(from) {
            if let Some(range) = state.range(slot).filter(|range| state.is_live(range)) {
                self.index_insert(pass, slot, range, state);
            }
            from = next;
        }
    }

    /// Removes a range from the index, if it is there. No other range lies in it.
    pub(crate) fn index_remove(&self, pass: Pass, slot: SlotIndex, range: &RangeRecord, state: &State<'_, 'd>) {
        if range.is_dispatched() {
            self.slots.close_to_hints(slot);
            self.index_assign(pass, None, range, state.dispatched_window(range), state);
        }
    }

    /// Gives the addresses of a range to a slot, or to the window around it.
    #[inline(never)]
    fn index_assign(
        &self,
        pass: Pass,
        slot: Option<SlotIndex>,
        range: &RangeRecord,
        window: Option<SlotIndex>,
        state: &State<'_, 'd>,
    ) {
        if let Some(window) = window {
            self.slots.close_to_hints(window);
        }
        let writer = self.index.writer(range.space(), pass.version);
        let is_bounded = |slot| {
            let found = self.slots.slot(slot);
            found.is_some_and(|found| found.is_window() || found.container(pass.version).is_some())
        };
        writer.assign(range.range.first().0, range.range.last().0, slot.or(window), window, &is_bounded);
        if let Some(window) = window {
            self.reopen_if_leaf(pass, window, state);
        }
    }

    /// Opens a slot to hints in the second pass, when the index is published, if no other range lies in the slot's range.
    #[inline(never)]
    fn reopen_if_leaf(&self, pass: Pass, slot: SlotIndex, state: &State<'_, 'd>) {
        let Some(range) = state.range(slot).filter(|_| pass.is_published) else { return };
        let version = self.slots.version();
        let is_leaf = || {
            let (owner, segment_last) = self.index.writer(range.space(), version).segment_of(range.range.first().0);
            owner == Some(slot) && range.range.last().0 <= segment_last
        };
        if !range.is_window() || is_leaf() {
            self.slots.open_to_hints(slot, range.space(), version);
        }
    }

    /// Builds the index from the allocator's ranges. It serves changes of windows with ranges in them.
    pub(crate) fn index_rebuild(&self, pass: Pass, state: &State<'_, 'd>) {
        // Not only those that have a place: the change may have taken it from some.
        for slot in state.pool.used() {
            self.slots.close_to_hints(slot);
        }
        for space in [Space::Ports, Space::Memory] {
            self.index.writer(space, pass.version).clear();
        }
        for slot in state.pool.indices() {
            if let Some(range) = state.range(slot).filter(|range| state.is_live(range)) {
                self.index_insert(pass, slot, range, state);
            }
        }
    }
}

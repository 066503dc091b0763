//! The ranges that wait for a place, in the order in which they began to.

use super::pool::Pool;
use crate::address::IoRange;
use crate::indices::SlotIndex;

impl Pool<'_> {
    /// Whether any range waits.
    pub(crate) fn has_waiting(&self) -> bool {
        self.counts.first_waiting.is_some()
    }

    /// The range that has been waiting for the longest time.
    pub(crate) fn first_waiting(&self) -> Option<SlotIndex> {
        self.counts.first_waiting
    }

    /// The range that began to wait next after this one.
    pub(crate) fn next_waiting(&self, index: SlotIndex) -> Option<SlotIndex> {
        self.range(index).filter(|range| range.is_waiting())?.container
    }

    /// The range that began to wait directly before this one. The search begins at `from`, which waits before this one, or at the
    /// first.
    pub(crate) fn waiting_before(&self, index: SlotIndex, from: Option<SlotIndex>) -> Option<SlotIndex> {
        let mut before = from.or(self.counts.first_waiting).filter(|first| *first != index)?;
        while let Some(next) = self.next_waiting(before).filter(|next| *next != index) {
            before = next;
        }
        Some(before)
    }

    /// A range without a place waits for one.
    pub(crate) fn wait_for(&mut self, index: SlotIndex, wanted: IoRange) {
        if let Some(record) = self.range_mut(index) {
            record.range = wanted;
        }
        self.wait_behind(index, self.counts.last_waiting);
    }

    /// A range without a place waits, as if it had begun to directly after `before`, or before all others.
    pub(crate) fn wait_behind(&mut self, index: SlotIndex, before: Option<SlotIndex>) {
        let next = match before {
            Some(before) => self.next_waiting(before),
            None => self.counts.first_waiting,
        };
        if let Some(record) = self.range_mut(index) {
            record.set_waiting(next);
        }
        self.set_next_waiting(before, Some(index));
        if next.is_none() {
            self.counts.last_waiting = Some(index);
        }
    }

    /// A waiting range waits no more, and has no place. `before` is what [`waiting_before`](Self::waiting_before) has found.
    pub(crate) fn stop_waiting(&mut self, index: SlotIndex, before: Option<SlotIndex>) {
        let next = self.next_waiting(index);
        self.set_next_waiting(before, next);
        if next.is_none() {
            self.counts.last_waiting = before;
        }
        if let Some(record) = self.range_mut(index) {
            record.container = None;
            record.set_unplaced();
        }
    }

    fn set_next_waiting(&mut self, before: Option<SlotIndex>, next: Option<SlotIndex>) {
        match before.and_then(|before| self.range_mut(before)) {
            Some(before) => before.container = next,
            None => self.counts.first_waiting = next,
        }
    }
}

//! Ranges that are marked while a transaction runs: what has lost its place with the window around it, and what a sweep has
//! placed.

use super::pool::Pool;
use super::range::RangeRecord;
use crate::indices::SlotIndex;

/// The bit of an element of a pool's `alignments` that marks a range.
const MARK: u8 = 1 << 7;

impl Pool<'_> {
    /// Marks a range for the rest of a transaction, or takes the mark away.
    pub(crate) fn mark(&mut self, index: SlotIndex, marked: bool) {
        if let Some(bits) = self.alignments.get_mut(index.position()) {
            *bits = if marked { *bits | MARK } else { *bits & !MARK };
        }
    }

    pub(crate) fn is_marked(&self, index: SlotIndex) -> bool {
        self.alignments.get(index.position()).is_some_and(|bits| bits & MARK != 0)
    }

    /// The first marked range from this position of the records on, with the position behind it.
    pub(crate) fn next_marked(&self, from: usize) -> Option<(SlotIndex, usize)> {
        let used = self.alignments.get(from..self.counts.used.into())?;
        let position = from.saturating_add(used.iter().position(|bits| bits & MARK != 0)?);
        Some((SlotIndex::at(position)?, position.saturating_add(1)))
    }

    /// Takes everything that lies in a window out of its place, and marks it. Each of these ranges keeps its record otherwise,
    /// so that [`put_back`](Self::put_back) undoes it.
    pub(crate) fn displace_contents(&mut self, window: SlotIndex) {
        let Some(range) = self.range(window).copied().filter(RangeRecord::is_window) else { return };
        let Some(after) = self.behind(window) else { return };
        let mut count = 0_usize;
        // The contents of a window stand directly behind it.
        while let Some(inside) = self.order.get(after.saturating_add(count)).copied().flatten() {
            let end = self.positions(range.space()).end;
            let Some(record) = self.range_mut(inside) else { break };
            if after.saturating_add(count) >= end || record.range.first() > range.range.last() {
                break;
            }
            record.set_unplaced();
            self.mark(inside, true);
            count = count.saturating_add(1);
        }
        self.close_gap(range.space(), after, count);
    }
}

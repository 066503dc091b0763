//! What the listener was told of each range, and the changes that wait for it: *wishes*.

use super::pool::Pool;
use super::range::{RangeRecord, Refusal};
use crate::indices::SlotIndex;

/// What the listener was told of the place of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// Nothing.
    Nothing,
    /// That the range is placed. Also while the call that says so is running.
    Placed,
    /// That the range leaves; the range is still there.
    Leaving,
    /// That the range is placed, which it has refused.
    Refused,
}

impl Pool<'_> {
    pub(crate) fn told(&self, index: SlotIndex) -> Told {
        self.range(index).map_or(Told::Nothing, |range| range.told())
    }

    pub(crate) fn set_told(&mut self, index: SlotIndex, told: Told) {
        if let Some(range) = self.range_mut(index) {
            range.set_told(told);
        }
    }

    /// The first placed range of those that the listener hears of, of which it was told this, and for which `is_it` holds.
    pub(crate) fn find_told(&self, told: Told, is_it: impl Fn(&RangeRecord) -> bool) -> Option<SlotIndex> {
        let is_found = |range: &RangeRecord| range.told() == told && is_it(range);
        self.indices().find(|index| self.is_listened(*index) && self.range(*index).is_some_and(is_found))
    }

    /// Keeps a change of a range for later: the range is to become as `wish` says, in place of an earlier wish for it.
    ///
    /// # Errors
    /// `Full`.
    pub(crate) fn add_wish(&mut self, index: SlotIndex, mut wish: RangeRecord) -> Result<(), Refusal> {
        self.drop_wish(index);
        (wish.container, wish.next) = (Some(index), None);
        let kept = self.insert_unplaced(wish)?;
        let last = core::iter::successors(self.counts.first_wish, |wish| self.range(*wish)?.next).last();
        match last.and_then(|last| self.range_mut(last)) {
            Some(last) => last.next = Some(kept),
            None => self.counts.first_wish = Some(kept),
        }
        Ok(())
    }

    /// How many more ranges, or wishes, there is room for.
    pub(crate) fn room(&self) -> usize {
        let unused = core::iter::successors(self.counts.free, |free| self.range(*free)?.next).count();
        self.capacity().saturating_sub(self.counts.used.into()).saturating_add(unused)
    }

    pub(crate) fn has_wishes(&self) -> bool {
        self.counts.first_wish.is_some()
    }

    /// The oldest wish, with the range that it is for.
    pub(crate) fn first_wish(&self) -> Option<(SlotIndex, RangeRecord)> {
        let wish = *self.range(self.counts.first_wish?)?;
        Some((wish.container?, wish))
    }

    /// The wish for a range, if there is one.
    pub(crate) fn wish_for(&self, index: SlotIndex) -> Option<RangeRecord> {
        let mut wishes = core::iter::successors(self.counts.first_wish, |wish| self.range(*wish)?.next);
        wishes.find_map(|wish| self.range(wish).filter(|wish| wish.container == Some(index)).copied())
    }

    /// Forgets the oldest wish.
    pub(crate) fn drop_first_wish(&mut self) {
        if let Some(kept) = self.counts.first_wish {
            self.counts.first_wish = self.range(kept).and_then(|wish| wish.next);
            self.free_record(kept);
        }
    }

    /// Forgets the wish for a range, if there is one.
    pub(crate) fn drop_wish(&mut self, index: SlotIndex) {
        let (mut before, mut next) = (None, self.counts.first_wish);
        while let Some((kept, wish)) = next.and_then(|kept| Some((kept, *self.range(kept)?))) {
            if wish.container == Some(index) {
                match before.and_then(|before| self.range_mut(before)) {
                    Some(before) => before.next = wish.next,
                    None => self.counts.first_wish = wish.next,
                }
                self.free_record(kept);
                return;
            }
            (before, next) = (Some(kept), wish.next);
        }
    }
}

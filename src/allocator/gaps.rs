//! Where the search for a free place begins.

use crate::address::IoRange;

/// What earlier searches have shown about the free places directly in a space.
///
/// # Invariants
/// - Every free place of at least `span + 1` addresses, aligned to `low_bits + 1`, starts in `from..=to`, or at or above
///   `rest`. Only freeing a range makes places, and each of them has a part of that range.
/// - `from` is at most `rest`; if they are equal, no place starts below them.
pub(super) struct Gaps {
    span: u64,
    low_bits: u64,
    from: u64,
    to: u64,
    rest: u64,
}

impl Gaps {
    pub(super) const fn new() -> Self {
        Self { span: 0, low_bits: 0, from: 0, to: 0, rest: 0 }
    }

    /// Where free places for `span + 1` addresses start: in the given part of the space, if there is one, or at or above the
    /// given address.
    pub(super) fn starts(&self, span: u64, low_bits: u64) -> (Option<(u64, u64)>, u64) {
        if span < self.span || low_bits < self.low_bits {
            return (None, 0);
        }
        ((self.from < self.rest).then_some((self.from, self.to)), self.rest)
    }

    /// Notes that a search from the bottom of the space has found the lowest place for `span + 1` addresses at `first`.
    #[inline(never)]
    pub(super) fn found(&mut self, span: u64, low_bits: u64, first: u64) {
        let (_, rest) = self.starts(span, low_bits);
        self.from = first;
        if first >= rest {
            (self.to, self.rest) = (first, first);
        }
        (self.span, self.low_bits) = (span, low_bits);
    }

    /// Notes that `range` is taken: no place starts in it any more, nor so shortly before it that it would reach into it.
    pub(super) fn taken(&mut self, range: IoRange) {
        if self.reach(range) <= self.from && self.from <= range.last().0 {
            self.from = range.last().0.saturating_add(1).min(self.rest);
            if self.from > self.to {
                self.from = self.rest;
            }
        }
    }

    /// Notes that `range` is free: there may be places now that have a part of it.
    pub(super) fn freed(&mut self, range: IoRange) {
        let (reach, last) = (self.reach(range), range.last().0);
        if reach >= self.rest {
            return;
        }
        if self.from == self.rest {
            (self.from, self.to) = (reach, last);
        } else if reach < self.from {
            self.rest = self.from;
            (self.from, self.to) = (reach, last);
        } else {
            self.rest = reach;
        }
    }

    /// The lowest start of a place that has a part of `range`.
    fn reach(&self, range: IoRange) -> u64 {
        range.first().0.saturating_sub(self.span)
    }
}

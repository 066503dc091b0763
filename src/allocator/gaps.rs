//! The free parts of an address pool.

use super::ordered::OrderedList;

/// The integer in which a pool stores addresses: small for ports, so that their pool is small too.
pub(crate) trait Address: Copy {
    /// `address` in this type. A pool only passes addresses within its bounds, which fit.
    fn narrow(address: u64) -> Self;
    fn widen(self) -> u64;
}

impl Address for u16 {
    fn narrow(address: u64) -> Self {
        address as u16
    }
    fn widen(self) -> u64 {
        self.into()
    }
}

impl Address for u64 {
    fn narrow(address: u64) -> Self {
        address
    }
    fn widen(self) -> u64 {
        self
    }
}

/// A free part of a container: of the pool itself, or of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gap<A> {
    first: A,
    last: A,
    /// The depth of a block that is allocated in it.
    depth: u8,
}

impl<A: Address> Gap<A> {
    pub(super) fn new(first: u64, last: u64, depth: u8) -> Self {
        Self { first: A::narrow(first), last: A::narrow(last), depth }
    }

    pub(super) fn first(&self) -> u64 {
        self.first.widen()
    }

    pub(super) fn last(&self) -> u64 {
        self.last.widen()
    }

    pub(super) fn depth(&self) -> u8 {
        self.depth
    }
}

/// All gaps of a pool, by address. Gaps of all depths together are disjoint, since a window is no gap of its container.
///
/// # Invariants
/// There is room for `N + 1` gaps: `N` that end below the pool's last address, and the one that reaches it. A container
/// with n blocks directly in it has at most n + 1 gaps, so a pool with b blocks, w of them windows, has at most
/// b + w + 1. The pool keeps b + w at or below `N`, so that a gap always finds room.
pub(super) struct GapList<A, const N: usize> {
    lower: OrderedList<Gap<A>, N>,
    /// The gap that reaches the pool's last address.
    top: Option<Gap<A>>,
    pool_last: A,
}

impl<A: Copy, const N: usize> GapList<A, N> {
    /// One gap from `first` to `last`.
    pub(super) const fn new(first: A, last: A) -> Self {
        Self { lower: OrderedList::new(), top: Some(Gap { first, last, depth: 0 }), pool_last: last }
    }
}

impl<A: Address, const N: usize> GapList<A, N> {
    pub(super) fn get(&self, index: usize) -> Option<Gap<A>> {
        match self.lower.get(index) {
            Some(gap) => Some(*gap),
            None if index == self.lower.len() => self.top,
            None => None,
        }
    }

    /// The index of the first gap that does not end before `address`.
    pub(super) fn position(&self, address: u64) -> usize {
        self.lower.partition_point(|gap| gap.last() < address)
    }

    /// The gaps that do not end before `address`, upwards, with their indices.
    pub(super) fn upwards(&self, address: u64) -> impl Iterator<Item = (usize, Gap<A>)> {
        let from = match self.lower.get(0) {
            Some(lowest) if lowest.last() < address => self.position(address),
            _ => 0,
        };
        (from..).zip(self.lower.iter_from(from).copied().chain(self.top))
    }

    /// The gaps that do not start after `address`, downwards, with their indices.
    pub(super) fn downwards(&self, address: u64) -> impl Iterator<Item = (usize, Gap<A>)> {
        let to = self.lower.partition_point(|gap| gap.first() <= address);
        let top = self.top.filter(|gap| gap.first() <= address).map(|gap| (self.lower.len(), gap));
        top.into_iter().chain((0..to).rev().zip(self.lower.iter_to(to).rev().copied()))
    }

    /// Adds a gap whose place in the order is `index`.
    pub(super) fn insert(&mut self, index: usize, gap: Gap<A>) {
        if gap.last() == self.pool_last.widen() {
            self.top = Some(gap);
        } else {
            // There is room, by the invariant.
            let _ = self.lower.insert(index, gap);
        }
    }

    pub(super) fn remove(&mut self, index: usize) {
        if index < self.lower.len() {
            self.lower.remove(index);
        } else {
            self.top = None;
        }
    }

    pub(super) fn replace(&mut self, index: usize, gap: Gap<A>) {
        if index < self.lower.len() && gap.last() != self.pool_last.widen() {
            self.lower.replace(index, gap);
        } else {
            self.remove(index);
            self.insert(index, gap);
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = Gap<A>> {
        self.lower.iter_from(0).copied().chain(self.top)
    }
}

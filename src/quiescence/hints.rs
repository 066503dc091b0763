//! What a vCPU keeps: its hazard record, and hints about the slots in which it found addresses before.
//!
//! The hints are a direct-mapped cache of slot numbers, 2 bytes each. A hint may be wrong, and is validated where it is used.

#![allow(unsafe_code)]

use super::hazard::{OuterGuard, OwnedRecord, SlotTag};
use super::slot::{Slot, SlotGuard, SlotRef, open_state};
use crate::address::Space;
use crate::orderings::{self, loom_seqcst_fence, search_fence};
use crate::sync::{Ordering, cold_path};

/// The hints about one space, one for each `1 << SHIFT` addresses: numbers of slots, and 0 for none.
struct Hints<const SHIFT: u32, const HINTS: usize>([u16; HINTS]);

/// The hints about both spaces.
struct AllHints<const PORTS: usize, const MEMORY: usize> {
    ports: Hints<2, PORTS>,
    memory: Hints<9, MEMORY>,
}

impl<const PORTS: usize, const MEMORY: usize> AllHints<PORTS, MEMORY> {
    #[inline(always)]
    fn hint(&mut self, space: Space, address: u64) -> Option<&mut u16> {
        match space {
            Space::Ports => self.ports.hint(address),
            Space::Memory => self.memory.hint(address),
        }
    }
}

impl<const SHIFT: u32, const HINTS: usize> Hints<SHIFT, HINTS> {
    /// Which hint is about `address`. Neighbours have different hints. The higher bits are folded in, so that addresses at a
    /// distance of a power of two, as the registers of many PCI devices, have different ones too. Fibonacci hashing would do
    /// the same, but a product is there two cycles later.
    #[inline(always)]
    fn entry_of(address: u64) -> usize {
        let bits = HINTS.checked_ilog2().unwrap_or(0);
        let near = (address >> SHIFT) as usize;
        (near ^ (near >> bits)) & ((1 << bits) - 1)
    }

    #[inline(always)]
    fn hint(&mut self, address: u64) -> Option<&mut u16> {
        self.0.get_mut(Self::entry_of(address))
    }
}

/// The reader's side of a vCPU with a handle.
pub(crate) struct Reader<'a, T, const PORTS: usize, const MEMORY: usize> {
    /// All of them; for a reader that keeps no hints, number 0 alone, which no access enters.
    slots: &'a [Slot<T>],
    record: OwnedRecord<'a>,
    asymmetric: bool,
    /// Each is less than the number of `slots`.
    hints: AllHints<PORTS, MEMORY>,
}

impl<'a, T, const PORTS: usize, const MEMORY: usize> Reader<'a, T, PORTS, MEMORY> {
    pub(super) fn new(slots: &'a [Slot<T>], record: OwnedRecord<'a>, asymmetric: bool) -> Self {
        Self { slots, record, asymmetric, hints: AllHints { ports: Hints([0; PORTS]), memory: Hints([0; MEMORY]) } }
    }

    /// The hazard record, to protect the slot of an access that is not nested in another.
    #[inline(always)]
    pub(crate) fn record(&mut self) -> &mut OwnedRecord<'a> {
        &mut self.record
    }

    /// Keeps no hints from now on.
    pub(crate) fn keep_no_hints(&mut self) {
        self.hints = AllHints { ports: Hints([0; PORTS]), memory: Hints([0; MEMORY]) };
        self.slots = self.slots.get(..1).unwrap_or(self.slots);
    }

    /// Keeps where `address` was found. `false` if it [keeps no hints](Self::keep_no_hints).
    #[inline(always)]
    pub(crate) fn remember(&mut self, space: Space, address: u64, found: SlotRef<'_, T>) -> bool {
        let keeps_hints = usize::from(found.number) < self.slots.len();
        if keeps_hints && let Some(hint) = self.hints.hint(space, address) {
            *hint = found.number;
        }
        keeps_hints
    }

    /// Enters the slot of the hint about `address`, if the slot is open and its range has all of an access of `length` bytes,
    /// at least one. With the base of the range.
    ///
    /// A hint is forgotten if its slot turns out closed once it is protected: such a protection can delay a removal, and is not
    /// made a second time.
    #[inline(always)]
    pub(crate) fn enter_by_hint(
        &mut self,
        space: Space,
        address: u64,
        length: usize,
    ) -> Option<(SlotGuard<'_, T, OuterGuard<'_>>, u64)> {
        let Self { slots, record, asymmetric, hints } = self;
        let hint = hints.hint(space, address)?;
        let number = *hint;
        // SAFETY: a hint is 0, or a number that `remember` has found to be less than the number of `slots`, which stay the
        // same; and slot number 0 exists. An access without this check of bounds is six instructions shorter.
        let slot = unsafe { slots.get_unchecked(usize::from(number)) };
        let open = open_state(space, slot.state.load(Ordering::Acquire));
        let base = slot.open_base();
        // Two branches: as the one condition of `lacks` they are three instructions more.
        let Some(last) = slot.last_offset(length) else {
            cold_path();
            return None;
        };
        if address.wrapping_sub(base) > last {
            cold_path();
            return None;
        }
        let tag = SlotTag { tag: number.into(), counted: &slot.counted };
        let guard = record.store(tag, *asymmetric);
        loom_seqcst_fence();
        search_fence();
        // No state comes twice: with this one before and after, the slot was open all the time, and still is when protected.
        if orderings::OPEN_CHECK && slot.state.load(Ordering::SeqCst) != open {
            cold_path();
            if orderings::FORGET {
                *hint = 0;
            }
            return None;
        }
        // SAFETY: the slot was protected before it was seen open, and so occupied.
        Some((unsafe { SlotGuard::new(slot, guard) }, base))
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use super::*;

    #[test]
    fn neighbours_and_powers_of_two_apart_have_different_hints() {
        let entry_of = Hints::<9, 512>::entry_of;
        for granule in 0..512_u64 {
            assert_eq!(entry_of(granule << 9), granule as usize);
            assert_eq!(entry_of((granule << 9) + 511), granule as usize);
        }
        for distance in 9..=24 {
            let entries: std::collections::HashSet<_> =
                (0..8).map(|n| entry_of(0xc000_0000 + (n << distance))).collect();
            assert_eq!(entries.len(), 8, "2^{distance} apart");
        }
        // As many as the next lower power of two.
        assert!((0..100).all(|granule| Hints::<9, 7>::entry_of(granule << 9) < 4));
        assert_eq!(Hints::<9, 1>::entry_of(u64::MAX), 0);
    }
}

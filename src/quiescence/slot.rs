//! A slot: what it protects, whether readers may use that, and the addresses it stands for.

#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use super::hazard::SlotTag;
use crate::address::Space;
use crate::indices::SlotIndex;
use crate::sync::{AtomicU32, AtomicU64, Ordering, UnsafeCell, array, const_fn};

/// The bit of a slot's state that says that it is *occupied*: readers that have protected it may use its occupant.
const OCCUPIED: u64 = 0b001;
/// Bits of an occupied slot that is open to hints about one space. Above them stands the version with which it was opened,
/// so that no state comes twice.
const OPEN_TO_MEMORY: u64 = OCCUPIED | 0b010;
const OPEN_TO_PORTS: u64 = OCCUPIED | 0b100;
const VERSION_SHIFT: u32 = 3;
/// Readers that come from a search may use the slot, and no others.
pub(super) const CLOSED: u64 = OCCUPIED;
/// Nobody uses the slot, and the next registration may.
pub(super) const VACANT: u64 = 0;
/// A writer fills the slot.
pub(super) const WRITING: u64 = 0b010;
/// No reader enters any more; some may be inside.
pub(super) const RETIRED: u64 = 0b100;

/// Whether readers that have protected a slot may use it.
#[inline(always)]
pub(super) fn is_occupied(state: u64) -> bool {
    state & OCCUPIED != 0
}

/// The state that is open to hints about `space` and has the version of `state`: `state` itself exactly if that is open
/// to them.
#[inline(always)]
pub(super) fn open_state(space: Space, state: u64) -> u64 {
    match space {
        Space::Ports => state | OPEN_TO_PORTS,
        Space::Memory => state | OPEN_TO_MEMORY,
    }
}

/// The state with which a slot is opened under `version`.
pub(super) fn opened_with(space: Space, version: u64) -> u64 {
    open_state(space, version << VERSION_SHIFT)
}

/// All that a dispatch needs of one range, in one cache line.
#[repr(align(64))]
pub(crate) struct Slot<T> {
    /// Where the range starts, as each replica of the index knows it, while it has the range. Part of what the version
    /// guards, not of the occupant: a relocation changes it without waiting for anybody.
    bases: [AtomicU64; 2],
    /// How many addresses the range has; 0 for all of the memory space. It stays as it is from the slot's installation on.
    pub(super) length: AtomicU64,
    pub(super) state: AtomicU64,
    /// How many accesses protect the slot without a word to do so in.
    pub(super) counted: AtomicU32,
    pub(super) occupant: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Slot<T> {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                bases: array![AtomicU64::new(0); 2],
                length: AtomicU64::new(0),
                state: AtomicU64::new(VACANT),
                counted: AtomicU32::new(0),
                occupant: UnsafeCell::new(MaybeUninit::uninit()),
            }
        }
    }

    /// Where the range starts in the replica that `version` selects.
    #[inline(always)]
    pub(super) fn base(&self, version: u64) -> &AtomicU64 {
        let [even, odd] = &self.bases;
        if version & 1 == 0 { even } else { odd }
    }

    #[inline(always)]
    pub(super) fn lacks(&self, offset: u64, length: usize) -> bool {
        self.length.load(Ordering::Relaxed).checked_sub(length as u64).is_none_or(|last| offset > last)
    }

    /// Where the range of an open slot starts: in both replicas at once.
    #[inline(always)]
    pub(super) fn open_base(&self) -> u64 {
        let [base, _] = &self.bases;
        base.load(Ordering::Relaxed)
    }
}

// SAFETY: all fields but the occupant are `Sync` by themselves. An occupant is written by one thread at a time, the one whose
// exchange made the slot's state WRITING, and read only by threads that have protected the slot and then seen it occupied;
// the module's protocol keeps the two apart. It is handed from the one to the others, and shared by them: `T: Send + Sync`.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

/// A slot and the number of its index, or the slot of number 0, which is never filled: what a search remembers of what it
/// found.
pub(crate) struct SlotRef<'a, T> {
    pub(super) slot: &'a Slot<T>,
    pub(super) number: u16,
}

impl<T> Clone for SlotRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SlotRef<'_, T> {}

impl<'a, T> SlotRef<'a, T> {
    #[inline(always)]
    pub(crate) fn index(self) -> Option<SlotIndex> {
        SlotIndex::from_number(self.number)
    }

    /// The first and the last address of the slot's range, under a version that has it.
    #[inline(always)]
    pub(crate) fn bounds(self, version: u64) -> (u64, u64) {
        let base = self.slot.base(version).load(Ordering::Relaxed);
        (base, base.wrapping_add(self.slot.length.load(Ordering::Relaxed)).wrapping_sub(1))
    }

    /// The first address of the slot's range, under a version that has it.
    #[inline(always)]
    pub(crate) fn base(self, version: u64) -> u64 {
        self.slot.base(version).load(Ordering::Relaxed)
    }

    /// Whether an access of `length` bytes, at least one, that begins at this offset from the base is not all in the slot's
    /// range. No access is in a range that is all of the memory: the slow path serves that.
    #[inline(always)]
    pub(crate) fn lacks(self, offset: u64, length: usize) -> bool {
        self.slot.lacks(offset, length)
    }

    /// What protects the slot.
    #[inline(always)]
    pub(super) fn tag(self) -> SlotTag<'a> {
        SlotTag { tag: self.number.into(), counted: &self.slot.counted }
    }
}

/// A reader inside a slot. The occupant stays until this is dropped.
pub(crate) struct SlotGuard<'a, T, G> {
    /// A pointer, and not a copy: what a dispatch reads of the occupant, it reads straight from the slot's cache line.
    occupant: *const T,
    _protection: G,
    slot: PhantomData<&'a Slot<T>>,
}

impl<'a, T, G> SlotGuard<'a, T, G> {
    /// # Safety
    /// `protection` protects the slot, and the slot was seen occupied only after it did.
    #[inline(always)]
    pub(super) unsafe fn new(slot: &'a Slot<T>, protection: G) -> Self {
        let occupant = slot.occupant.with(<*const MaybeUninit<T>>::cast);
        Self { occupant, _protection: protection, slot: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn occupant(&self) -> &T {
        // SAFETY: a writer that retires the slot after it was seen occupied finds the protection, and writes the occupant only
        // after that has ended, when `self` is gone. The occupant was written before the slot became occupied, which the load
        // that saw it so has acquired.
        unsafe { &*self.occupant }
    }
}

//! A slot: its occupant, whether readers may use it, and the addresses of its range.

#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use super::hazard::SlotTag;
use crate::address::Space;
use crate::indices::SlotIndex;
use crate::sync::{AtomicU32, AtomicU64, Ordering, UnsafeCell, array, const_fn};

/// The bit of a slot's state that says that it is *occupied*: readers that have protected it may use its occupant.
const OCCUPIED: u64 = 0b001;
/// The states of an occupied slot that is open to hints about one space. The bits above hold the version under which it was
/// opened, so that no state comes twice.
const OPEN_TO_MEMORY: u64 = OCCUPIED | 0b010;
const OPEN_TO_PORTS: u64 = OCCUPIED | 0b100;
const VERSION_SHIFT: u32 = 3;
/// Readers that have searched may use the slot; readers with a hint may not.
pub(super) const CLOSED: u64 = OCCUPIED;
/// The slot is free for the next registration.
pub(super) const VACANT: u64 = 0;
/// A writer fills the slot.
pub(super) const WRITING: u64 = 0b010;
/// No reader enters any more; some may be inside. The bits above hold the number of the retirement, so that no such state comes
/// twice either.
const RETIRED: u64 = 0b100;

/// Whether readers that have protected a slot may use it.
#[inline(always)]
pub(super) fn is_occupied(state: u64) -> bool {
    state & OCCUPIED != 0
}

/// The open state for `space` with the version bits of `state`. It equals `state` exactly when the slot is open to hints about
/// the space.
#[inline(always)]
pub(super) fn open_state(space: Space, state: u64) -> u64 {
    match space {
        Space::Ports => state | OPEN_TO_PORTS,
        Space::Memory => state | OPEN_TO_MEMORY,
    }
}

/// The state of a slot in retirement number `count`.
pub(super) fn retired_as(count: u64) -> u64 {
    count << VERSION_SHIFT | RETIRED
}

pub(super) fn is_retired(state: u64) -> bool {
    state & (OCCUPIED | WRITING | RETIRED) == RETIRED
}

/// The state with which a slot is opened under `version`.
pub(super) fn opened_with(space: Space, version: u64) -> u64 {
    open_state(space, version << VERSION_SHIFT)
}

/// All that a dispatch needs of one range, in one cache line.
#[repr(align(64))]
pub(crate) struct Slot<T> {
    /// Where the range starts, for each replica of the index that has the range. The version guards it, as it does the
    /// replicas: a relocation changes it without waiting for readers.
    bases: [AtomicU64; 2],
    /// How many addresses the range has; 0 for all of the memory space. It is set when the slot is filled, and not changed
    /// until the slot is filled again.
    pub(super) length: AtomicU64,
    pub(super) state: AtomicU64,
    /// How many accesses protect the slot by this count, because no word was free.
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

    /// See [`SlotRef::lacks`].
    #[inline(always)]
    pub(super) fn lacks(&self, offset: u64, length: usize) -> bool {
        self.length.load(Ordering::Relaxed).checked_sub(length as u64).is_none_or(|last| offset > last)
    }

    /// Where the range of an open slot starts. While a slot is open, both of its bases are the same.
    #[inline(always)]
    pub(super) fn open_base(&self) -> u64 {
        let [base, _] = &self.bases;
        base.load(Ordering::Relaxed)
    }
}

// SAFETY: all fields but the occupant are `Sync` by themselves. One thread at a time writes an occupant: the one that made the
// slot's state WRITING by an exchange. A thread reads an occupant only if it has protected the slot and then seen it occupied.
// The module's protocol keeps the two apart. An occupant passes between threads and is shared by them: `T: Send + Sync`.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

/// A slot and its number: what a search has found. Number 0 stands for no range; its slot is never filled.
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

    /// Whether the slot's range lacks a byte of an access of `length` bytes, at least one, at this offset from the base. A
    /// range that is all of the memory lacks every access here: the slow path serves it.
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
    /// A pointer, so that a dispatch reads the occupant straight from the slot's cache line.
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
        // after the protection has ended, when `self` is gone. The occupant was written before the slot became occupied, and
        // the load that saw the slot occupied has acquired that.
        unsafe { &*self.occupant }
    }
}

//! A slot: its occupant, whether readers may use it, and the addresses of its range.

#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use super::hazard::SlotTag;
use crate::address::Space;
use crate::indices::SlotIndex;
use crate::orderings;
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering, UnsafeCell, array, const_fn};

/// The bit of a slot's state that says that it is *occupied*: readers that have protected it may use its occupant.
const OCCUPIED: u64 = 0b001;
/// The states of an occupied slot that is open to hints about one space. The bits above hold the version under which it was
/// opened, so that no state comes twice.
const OPEN_TO_MEMORY: u64 = OCCUPIED | 0b010;
const OPEN_TO_PORTS: u64 = OCCUPIED | 0b100;
/// The bit of an occupied slot's state that says that its range is a window. It stays until the slot is retired.
const WINDOW: u64 = 0b1000;
const VERSION_SHIFT: u32 = 4;
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

/// The state of a slot that is filled, and not open to hints.
pub(super) fn filled_with(is_window: bool) -> u64 {
    if is_window { CLOSED | WINDOW } else { CLOSED }
}

/// Another state of an occupied slot, whose range stays a window if it is one.
pub(super) fn changed_to(new: u64, old: u64) -> u64 {
    new | old & WINDOW
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
    /// How many addresses the range has; 0 for all of the memory space. It is set when the slot is filled. That of a window
    /// changes while the slot is closed, and says nothing to a reader that has searched; no other changes until the slot is
    /// filled again.
    pub(super) length: AtomicU64,
    pub(super) state: AtomicU64,
    /// How many accesses protect the slot by this count, because no word was free.
    pub(super) counted: AtomicU32,
    /// The innermost window around the range, for each replica of the index that has the range; 0 for none. The version
    /// guards it, as it does the bases.
    containers: [AtomicU16; 2],
    pub(super) occupant: UnsafeCell<MaybeUninit<T>>,
    /// Under loom, the bit of the state that says whether the range is a window, which is the same in all states from one filling
    /// of the slot to the next. loom would explore each of these states at each look.
    #[cfg(vm_device_loom)]
    pub(super) window: crate::sync::AtomicBool,
}

impl<T> Slot<T> {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                bases: array![AtomicU64::new(0); 2],
                length: AtomicU64::new(0),
                state: AtomicU64::new(VACANT),
                counted: AtomicU32::new(0),
                containers: array![AtomicU16::new(0); 2],
                occupant: UnsafeCell::new(MaybeUninit::uninit()),
                #[cfg(vm_device_loom)]
                window: crate::sync::AtomicBool::new(false),
            }
        }
    }

    /// Where the range starts in the replica that `version` selects.
    #[inline(always)]
    pub(super) fn base(&self, version: u64) -> &AtomicU64 {
        let [even, odd] = &self.bases;
        if version & 1 == 0 { even } else { odd }
    }

    /// The number of the window around the range in the replica that `version` selects; 0 for none.
    #[inline(always)]
    pub(super) fn container(&self, version: u64) -> &AtomicU16 {
        let [even, odd] = &self.containers;
        if version & 1 == 0 || !orderings::CONTAINER_OF_VERSION { even } else { odd }
    }

    /// Whether the range lacks a byte of an access of `length` bytes, at least one, at this offset from the base. A range that is
    /// all of the memory lacks every access here: the slow path serves it.
    #[inline(always)]
    pub(super) fn lacks(&self, offset: u64, length: usize) -> bool {
        self.last_offset(length).is_none_or(|last| offset > last)
    }

    /// The last offset at which an access of `length` bytes, at least one, lies in the range. `None` for a range that is shorter, or
    /// all of the memory.
    #[inline(always)]
    pub(super) fn last_offset(&self, length: usize) -> Option<u64> {
        self.length.load(Ordering::Relaxed).checked_sub(length as u64)
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

    /// Whether the slot's range is a window, under a version that has it.
    #[inline(always)]
    pub(crate) fn is_window(self) -> bool {
        #[cfg(vm_device_loom)]
        return self.slot.window.load(Ordering::Relaxed);
        #[cfg(not(vm_device_loom))]
        return self.slot.state.load(Ordering::Relaxed) & WINDOW != 0;
    }

    /// The innermost window around the slot's range, under a version that has it.
    #[inline(always)]
    pub(crate) fn container(self, version: u64) -> Option<SlotIndex> {
        SlotIndex::from_number(self.slot.container(version).load(Ordering::Relaxed))
    }

    /// The last address of the slot's range, under a version that has it; `None` for a window, whose end the index has.
    #[inline(always)]
    pub(crate) fn last(self, version: u64) -> Option<u64> {
        let end = || self.base(version).wrapping_add(self.slot.length.load(Ordering::Relaxed));
        (!orderings::WINDOW_ENDS || !self.is_window()).then(|| end().wrapping_sub(1))
    }

    /// Whether the slot's range has all of an access of `length` bytes, at least one, that lies in the entry of the index that
    /// names the slot, or before all entries. `base` is that of the version of the index.
    #[inline(always)]
    pub(crate) fn holds(self, base: u64, address: u64, length: usize) -> bool {
        // Whatever the length of a window is by now, the entry ends where the window does.
        !self.slot.lacks(address.wrapping_sub(base), length)
            || orderings::WINDOW_ENDS && base <= address && self.is_window()
    }

    /// The first address of the slot's range, under a version that has it.
    #[inline(always)]
    pub(crate) fn base(self, version: u64) -> u64 {
        self.slot.base(version).load(Ordering::Relaxed)
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

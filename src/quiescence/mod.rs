//! Quiescent removal: readers use what slots hold without a lock, while writers fill, move and empty the slots. It knows nothing
//! of devices: a slot holds a `T`, its *occupant*. Only this module, `owned` and `passthrough` have `unsafe` in them.
//!
//! # The protocol
//!
//! It is made of three known parts:
//!
//! - **Hazard pointers** (Michael, 2004). A reader *protects* a slot: it stores the slot's tag in a word of its own, and only
//!   then looks at the slot's state. It uses the occupant only if the slot is occupied. A writer first makes the state
//!   `RETIRED`, and only then looks for protections. When it has found none, it makes the slot `VACANT`. It writes the occupant
//!   only of a slot that it has changed from `VACANT` to `WRITING`. A vCPU with a handle has words of its own, its *hazard
//!   record*. Threads without a handle share the words of a *stripe*; where both are in use, the access is counted in the slot.
//! - **A two-replica index** (left-right), with a version as a seqlock has one. The parity of the version selects the live
//!   replica. A reader takes the version before its search and compares it after its protection. So an access goes where one
//!   published index says, and a torn search of a replica that was being changed is thrown away. Readers never wait for a
//!   writer; a reader that fails too often counts itself as *starved*, which makes writers hold back.
//! - **An optional asymmetric fence** ([`HeavyBarrier`]). It takes the fence off the reader's path; a removal executes it.
//!
//! Protection and state are the store-buffering (Dekker) pattern. Each side stores its own word, then loads the other's, all
//! sequentially consistent, so at least one side sees the other. Therefore an occupant is never written while a reader may use
//! it, and never used again once the wait of a removal is over. This depends on nothing outside the module: neither on what the
//! index says, nor on a hint.
//!
//! # The reader's cases
//!
//! 1. *By a hint.* A reader that holds a hint (a slot number) skips the search and the version check while the slot is *open*.
//!    Open means: in every published index the slot's whole range belongs to this slot, at the base and with the length stored
//!    in the slot. The reader checks that the slot has the same open state before and after the protection. A writer closes a slot before it
//!    makes this untrue in a replica, and opens it once both replicas and the slot agree.
//! 2. *By a search.* The slot is closed, or there is no hint. The reader searches the live replica, protects the slot that it
//!    has found, and looks at the version and at the state. If the version has changed, or the slot is not occupied, it
//!    searches again; it never waits.
//!    The base of a range and the window around it are stored for each replica, as the index itself is; the end of a window
//!    is an entry of the index, because a slot has one length for both.
//! 3. *After three failed searches* the reader counts itself as starved, and no publication begins until its search succeeds.
//!
//! # Trade-offs
//!
//! - A reader pays one ordered store for an access; with the asymmetric fence, a plain one.
//! - A writer makes each change twice, once in each replica, and a removal looks at every word: 11 for each vCPU.
//! - A reader that is stopped inside a callback delays the removal of that device, and of no other.

#![allow(unsafe_code)]

#[cfg(feature = "alloc")]
mod boxes;
mod hazard;
mod hints;
mod slot;

#[cfg(feature = "alloc")]
pub(crate) use boxes::SlotBoxes;
pub use hazard::MAX_ANONYMOUS;
pub(crate) use hazard::Protect;
use hazard::{Hazards, PerVcpu, Trace};
pub(crate) use hints::Reader;
use slot::{CLOSED, Slot, VACANT, WRITING, changed_to, filled_with, is_occupied, is_retired, opened_with, retired_as};
pub(crate) use slot::{SlotGuard, SlotRef};

use crate::address::Space;
use crate::indices::{RecordIndex, SlotIndex};
use crate::orderings::{self, loom_seqcst_fence, search_fence};
use crate::sync::{AtomicU32, AtomicU64, Ordering, array, const_fn, fence, spin_once};

/// How often a reader searches again by itself, before it makes writers hold back.
const RETRIES: u32 = 3;

/// A memory barrier that one processor imposes on all others: an inter-processor interrupt on bare metal,
/// `membarrier(2)` with `MEMBARRIER_CMD_PRIVATE_EXPEDITED` on Linux. With it, a dispatch needs no fence of its own.
///
/// ```
/// use core::sync::atomic::{Ordering, fence};
/// use vm_device::HeavyBarrier;
///
/// /// On a machine with one processor, its own fence is a barrier for all.
/// fn every_processor() {
///     fence(Ordering::SeqCst);
/// }
///
/// // SAFETY: there is one processor.
/// const BARRIER: HeavyBarrier = unsafe { HeavyBarrier::new(every_processor) };
/// # let _ = BARRIER;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HeavyBarrier(fn());

impl HeavyBarrier {
    /// A barrier that `execute` carries out. It is called without a lock: it may wait for the other processors, and they may
    /// wait for the manager. If it unwinds instead of returning, it has not happened: the removal that it was for goes on as a
    /// deferred one, and [`collect`](crate::DeviceManager::collect) executes it again.
    ///
    /// # Safety
    /// By the time `execute` returns, every other processor that may be inside a dispatch of the manager it is given to
    /// must have executed a full memory barrier (Intel SDM vol. 3A, 9.2.5; Arm ARM B2.3) since `execute` was called.
    /// Otherwise a removal may return while a callback of the removed device is running.
    pub const unsafe fn new(execute: fn()) -> Self {
        Self(execute)
    }
}

/// Why a slot was not entered.
pub(crate) enum Refused {
    /// The index has changed since the search, or a writer has emptied the slot: search again.
    Stale,
    /// No word and no count is left to protect the slot. (A word of a record that is in use counts as none; correct nesting
    /// excludes that.)
    TooDeep,
}

/// What all readers and writers share.
pub(crate) struct Shared {
    /// The number of publications so far: its parity selects the live replica.
    version: AtomicU64,
    /// The number of retirements so far.
    retirements: AtomicU64,
    /// Readers that have failed too often: no publication begins while there are any.
    starved_readers: AtomicU32,
    /// See [`Hazards::contended`].
    contended: AtomicU32,
}

impl Shared {
    const_fn! {
        pub(crate) fn new() -> Self {
            let (version, retirements) = (AtomicU64::new(0), AtomicU64::new(0));
            Self { version, retirements, starved_readers: AtomicU32::new(0), contended: AtomicU32::new(0) }
        }
    }
}

/// The memory of slots and of readers' words; all zeros at first.
#[repr(C)]
pub(crate) struct SlotStorage<T, const RANGES: usize, const VCPUS: usize> {
    /// Slot number 0, which is never filled: its length is 0, so that every access lies outside.
    no_slot: Slot<T>,
    slots: [Slot<T>; RANGES],
    vcpus: [PerVcpu; VCPUS],
}

impl<T, const RANGES: usize, const VCPUS: usize> SlotStorage<T, RANGES, VCPUS> {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self {
                no_slot: Slot::new(),
                slots: array![Slot::new(); RANGES],
                vcpus: array![PerVcpu::new(); VCPUS],
            }
        }
    }

    /// The slots. One manager uses them: the readers and the writers of a storage have the same heavy barrier, or none.
    pub(crate) const fn slots<'a>(&'a self, shared: &'a Shared) -> Slots<'a, T> {
        let first = core::ptr::from_ref(self).cast::<Slot<T>>();
        // SAFETY: `self` begins with `no_slot`, and `slots` follows without a gap (`repr(C)`, and both have the alignment of a
        // slot): together they are one array.
        let slots = unsafe { core::slice::from_raw_parts(first, RANGES + 1) };
        Slots { slots, vcpus: &self.vcpus, shared, heavy_barrier: None }
    }
}

/// The slots of all ranges, the words of all vCPUs, and the version.
pub(crate) struct Slots<'a, T> {
    /// By number; number 0 is `no_slot`.
    slots: &'a [Slot<T>],
    vcpus: &'a [PerVcpu],
    shared: &'a Shared,
    /// With it, a reader needs no fence between its protection and its check: a writer executes the barrier for both.
    heavy_barrier: Option<HeavyBarrier>,
}

impl<'a, T> Slots<'a, T> {
    /// Uses the asymmetric fence.
    pub(crate) const fn set_heavy_barrier(&mut self, barrier: HeavyBarrier) {
        self.heavy_barrier = Some(barrier);
    }

    // The reader's side.

    /// The reader's side of a vCPU, with a hazard record of its own, and the index of that record.
    pub(crate) fn acquire_reader<const PORTS: usize, const MEMORY: usize>(
        &self,
    ) -> Option<(Reader<'a, T, PORTS, MEMORY>, RecordIndex)> {
        let (record, index) = hazard::acquire_record(self.vcpus)?;
        Some((Reader::new(self.slots, record, self.heavy_barrier.is_some()), index))
    }

    /// For how many vCPUs there are records.
    pub(crate) fn vcpus(&self) -> usize {
        self.vcpus.len()
    }

    /// The version to search under.
    #[inline(always)]
    pub(crate) fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// Whether a search under `version` has seen one whole index.
    #[inline(always)]
    pub(crate) fn is_current(&self, version: u64) -> bool {
        search_fence();
        self.shared.version.load(Ordering::Relaxed) == version
    }

    /// The slot with this index, if there is one.
    #[inline(always)]
    pub(crate) fn slot(&self, index: SlotIndex) -> Option<SlotRef<'a, T>> {
        self.numbered(index.number().into())
    }

    /// The slot with this number, if there is one; for 0, the slot that is never filled.
    #[inline(always)]
    pub(crate) fn numbered(&self, number: usize) -> Option<SlotRef<'a, T>> {
        self.slots.get(number).map(|slot| SlotRef { slot, number: number as u16 })
    }

    /// Protects a slot: the reader's store, without the checks of version and state that follow it.
    #[inline(always)]
    pub(crate) fn protect<'r, P: Protect<'r>>(&self, at: P, found: SlotRef<'r, T>) -> Option<P::Guard>
    where
        'a: 'r,
    {
        let hazards = Hazards { vcpus: self.vcpus, contended: &self.shared.contended };
        at.protect(found.tag(), hazards, self.heavy_barrier.is_some())
    }

    /// Enters the slot that a search under `version` has found.
    #[inline(always)]
    pub(crate) fn enter<'r, P: Protect<'r>>(
        &self,
        at: P,
        version: u64,
        found: SlotRef<'r, T>,
    ) -> Result<SlotGuard<'r, T, P::Guard>, Refused>
    where
        'a: 'r,
    {
        let guard = self.protect(at, found).ok_or(Refused::TooDeep)?;
        loom_seqcst_fence();
        search_fence();
        // The reader's half of the protocol.
        let current = self.shared.version.load(Ordering::SeqCst) == version;
        let occupied = is_occupied(found.slot.state.load(Ordering::SeqCst));
        if (orderings::VERSION_CHECK && !current) || (orderings::STATE_CHECK && !occupied) {
            return Err(Refused::Stale);
        }
        // SAFETY: the slot was protected before it was seen occupied.
        Ok(unsafe { SlotGuard::new(found.slot, guard) })
    }

    /// The retries of the searches of one access. A search is repeated only when a writer has published since it began.
    #[inline(always)]
    pub(crate) fn retry_budget(&self) -> RetryBudget<'a> {
        RetryBudget { starved_readers: &self.shared.starved_readers, failed: 0 }
    }

    // The writer's side. The manager's lock serialises writers, but soundness does not depend on it: this module checks what it
    // needs by itself, but for one step. Between the retirement of a slot and the look for its readers stands a call of
    // `barrier`.

    #[inline(always)]
    fn at(&self, index: SlotIndex) -> Option<&'a Slot<T>> {
        self.slots.get(usize::from(index.number()))
    }

    /// Fills a vacant slot, for a range of `length` addresses, which may be a window. Readers find it once an index that names it is published; hints
    /// lead to it once it is opened.
    pub(crate) fn install(&self, index: SlotIndex, occupant: T, length: u64, is_window: bool) -> bool {
        let Some(slot) = self.at(index) else { return false };
        if slot.state.compare_exchange(VACANT, WRITING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        // SAFETY: the exchange succeeds for one thread, and only on a slot that was never filled or that the last wait found
        // without readers. A reader that has protected the slot since then sees that it is not occupied, and leaves the
        // occupant alone.
        slot.occupant.with_mut(|cell| unsafe {
            (*cell).write(occupant);
        });
        // A reader that sees this length also sees that the version which mapped the slot's previous range was replaced, so its
        // version check fails, even if another thread published the replacement.
        #[cfg(vm_device_loom)]
        slot.window.store(is_window, Ordering::Relaxed);
        slot.length.store(length, orderings::NEW_LENGTH);
        slot.state.store(filled_with(is_window), Ordering::SeqCst);
        true
    }

    /// Closes an occupied slot to hints. A writer does so before it moves or removes the slot's range in a replica of the index,
    /// and before it puts another range in it. A reader that sees any later change of the replica also sees as closed the slots
    /// that were closed before, and the version as advanced, whichever writer did either.
    pub(crate) fn close_to_hints(&self, index: SlotIndex) {
        if orderings::CLOSE {
            self.change_occupied(index, |old| changed_to(CLOSED, old));
        }
        if orderings::CHANGE_FENCE {
            fence(Ordering::Release);
        }
    }

    /// Opens an occupied slot to hints about `space`. The caller has published `version`, has set the slot's base for both
    /// replicas, and knows that no other range lies in the slot's range.
    pub(crate) fn open_to_hints(&self, index: SlotIndex, space: Space, version: u64) {
        self.change_occupied(index, |old| changed_to(opened_with(space, version), old));
    }

    /// Bars an occupied slot to new readers. The caller calls [`barrier`](Self::barrier) next.
    pub(crate) fn retire(&self, index: SlotIndex) {
        let earlier = self.shared.retirements.fetch_add(1, Ordering::Relaxed);
        self.change_occupied(index, |_| retired_as(earlier.wrapping_add(1)));
    }

    /// Gives a slot a new state, unless it is not occupied.
    #[inline(never)]
    fn change_occupied(&self, index: SlotIndex, new: impl Fn(u64) -> u64) {
        if let Some(slot) = self.at(index) {
            let old = slot.state.load(Ordering::Relaxed);
            if is_occupied(old) {
                // It cannot fail: writers take turns.
                let _ = slot.state.compare_exchange(old, new(old), Ordering::SeqCst, Ordering::Relaxed);
            }
        }
    }

    /// Stands between the retirement of slots and the look for their readers.
    pub(crate) fn barrier(&self) {
        loom_seqcst_fence();
        if let Some(HeavyBarrier(execute)) = self.heavy_barrier {
            execute();
        }
    }

    /// Makes a retired slot vacant if no reader is inside. Whether it is vacant now.
    pub(crate) fn reclaim(&self, index: SlotIndex) -> bool {
        let Some(slot) = self.at(index) else { return false };
        let state = slot.state.load(Ordering::SeqCst);
        let is_free = || !orderings::WAIT || self.reader_from(0, index).is_none();
        // The same state is the same retirement: the slot was not filled since the words were looked at.
        state == VACANT
            || is_retired(state)
                && is_free()
                && slot.state.compare_exchange(state, VACANT, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Waits until the readers that are inside the slot now have left it, for at most `spins` turns. It subtracts the turns that
    /// it takes. Whether the readers have left.
    ///
    /// Of two callers that are inside slots and look at each other's slot, at least one sees the other.
    pub(crate) fn wait_for_current_readers(&self, index: SlotIndex, spins: &mut u32) -> bool {
        // Between the caller's own protection and its look at others: the asymmetric fence leaves the protection unordered.
        fence(Ordering::SeqCst);
        let mut from = 0;
        while let Some((position, word, trace)) = self.reader_from(from, index) {
            while trace.is_in(word) {
                let Some(left) = spins.checked_sub(1) else { return false };
                *spins = left;
                spin_once();
            }
            from = position.saturating_add(1);
        }
        true
    }

    /// The first word that shows a reader of the slot, of those from position `from` on: the words of all vCPUs, and then the
    /// slot's count. With its position.
    #[inline(never)]
    fn reader_from(&self, from: usize, index: SlotIndex) -> Option<(usize, &'a AtomicU32, Trace)> {
        let trace = Trace::Tag(index.number().into());
        let mut position = 0;
        for vcpu in self.vcpus {
            for words in vcpu.words() {
                for word in words {
                    if position >= from && trace.is_in(word) {
                        return Some((position, word, trace));
                    }
                    position += 1;
                }
            }
        }
        let counted = &self.at(index)?.counted;
        let is_inside = orderings::COUNT_SCAN && position >= from && Trace::Count.is_in(counted);
        is_inside.then_some((position, counted, Trace::Count))
    }

    /// Sets the base of the slot's range, and the innermost window around it, for the replica that `version` selects.
    pub(crate) fn set_place(&self, version: u64, index: SlotIndex, base: u64, container: Option<SlotIndex>) {
        if let Some(slot) = self.at(index) {
            slot.base(version).store(base, Ordering::Relaxed);
            slot.container(version).store(container.map_or(0, SlotIndex::number), Ordering::Relaxed);
        }
    }

    /// Sets the length of a window, whose slot is closed to hints.
    pub(crate) fn set_length(&self, index: SlotIndex, length: u64) {
        if let Some(slot) = self.at(index) {
            slot.length.store(length, Ordering::Relaxed);
        }
    }

    /// Comes before the first change of the replica that is not live: waits until no reader is starved. Returns the version to
    /// publish.
    pub(crate) fn begin_publication(&self) -> u64 {
        while orderings::HOLD_BACK && self.shared.starved_readers.load(Ordering::SeqCst) != 0 {
            spin_once();
        }
        let other = if orderings::OTHER_REPLICA { 1 } else { 2 };
        self.shared.version.load(Ordering::Relaxed).wrapping_add(other)
    }

    /// Makes the other replica the live one. The replica that was live may be changed from now on: a reader that still searches
    /// it compares versions afterwards.
    pub(crate) fn publish(&self, version: u64) {
        self.shared.version.store(version, Ordering::SeqCst);
    }
}

/// How often one access has searched the index without success. After [`RETRIES`] failed searches, and until one succeeds,
/// writers hold back. At most one publication can still be under way then, so that [`RETRIES`]` + 2` searches are enough.
pub(crate) struct RetryBudget<'a> {
    starved_readers: &'a AtomicU32,
    failed: u32,
}

impl RetryBudget<'_> {
    /// A search has failed.
    #[cold]
    pub(crate) fn retry(&mut self) {
        self.failed = self.failed.saturating_add(1);
        if self.failed == RETRIES {
            self.starved_readers.fetch_add(1, Ordering::SeqCst);
            // At most one writer publishes without having seen this count. The next search sees all earlier publications.
            fence(Ordering::SeqCst);
        }
    }

    /// A search has succeeded.
    #[inline(always)]
    pub(crate) fn succeed(&mut self) {
        if self.failed >= RETRIES {
            self.starved_readers.fetch_sub(1, Ordering::Release);
        }
        self.failed = 0;
    }
}

impl Drop for RetryBudget<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.succeed();
    }
}

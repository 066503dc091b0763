//! Device slots and the quiescence protocol: the one module of the core with `unsafe` in it.
//!
//! A slot holds a reference to a device, for one of its ranges. Readers (vCPUs that dispatch) use slots without a lock
//! while a writer fills and empties them. What makes that sound is local to this module, whatever the index that led a
//! reader to a slot says:
//!
//! - A reader first *announces* the slot ([`announcement`]); only then it looks at the slot's state, and it touches the
//!   body only if the slot is occupied.
//! - A writer first makes the state `RETIRED`, only then it looks for announcements; it makes the slot `VACANT` when it
//!   has found none, and writes the body only of a `VACANT` slot, which it has made `WRITING`.
//!
//! Announcement and state are a store followed by a load of the other side's word, on both sides, in the single total
//! order of sequentially consistent operations: at least one side sees the other. So a body is never written while a
//! reader may use it, and never used again once the wait of a removal is over.
//!
//! On top of it stands the *version*: the number of the published index, whose parity selects the live one of two
//! copies. A reader takes it before its search and compares after its announcement, so that an access goes where one
//! published index says, and a torn search of a copy that was being rewritten is thrown away.
//!
//! A reader with a hint which slot it is needs neither, if the slot is *open*: as long as it is, each published index has
//! all of the slot's range at the place that the slot itself names, for this slot alone. A writer closes a slot before it
//! changes a copy so that this is not true of it, and opens it when the copy is the live one and the slot says the same.
//! Who comes upon a closed slot searches, so that nobody waits.

#![allow(unsafe_code)]

mod announcement;

use core::marker::PhantomData;
use core::mem::MaybeUninit;

pub use announcement::MAX_ANONYMOUS;
pub(crate) use announcement::{Announce, Claim, Place};
use announcement::{Common, Line, Mark, NO_SLOT, Sign, Stripe};

use crate::access::Target;
use crate::address::IoType;
use crate::device::Device;
use crate::protocol;
use crate::resource::AccessSizes;
use crate::sync::{AtomicU32, AtomicU64, Ordering, UnsafeCell, array, cold_path, const_fn, fence, spin_once};

/// How often a reader searches again by itself, before it asks writers to hold back.
const RETRIES: u32 = 3;

/// A memory barrier that one processor imposes on all others: an inter-processor interrupt on bare metal,
/// `membarrier(2)` with `MEMBARRIER_CMD_PRIVATE_EXPEDITED` on Linux. With it, a dispatch needs no fence of its own.
#[derive(Clone, Copy, Debug)]
pub struct HeavyBarrier(fn());

impl HeavyBarrier {
    /// A barrier that `execute` carries out. It may wait for the other processors, and they for the manager: it is called
    /// without a lock. If it unwinds instead of returning, it has not happened: the removal that it was for goes on as a
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

/// What a reader needs of a slot, valid from its announcement until it leaves.
#[derive(Clone, Copy)]
pub(crate) struct Body<'d> {
    pub(crate) device: &'d dyn Device<'d>,
    pub(crate) target: Target,
    pub(crate) sizes: AccessSizes,
}

/// The bits of a slot's state that say whether it is open, and to hints about which space.
///
/// A state in which a slot is open has above these bits the version with which it was opened, so that it does not come again.
/// Closed or open, a slot is *occupied*: readers that announce themselves may use it.
const KIND: u64 = 0b11;
const OPEN_TO_MEMORY: u64 = 0b00;
const OPEN_TO_PORTS: u64 = 0b11;
/// Readers that come from a search may use the slot, and no others.
const CLOSED: u64 = 0b01;
/// A writer fills the body. From here on the slot is not occupied.
const WRITING: u64 = u64::MAX << 4 | 0b0001;
/// No reader enters any more; some may be inside.
const RETIRED: u64 = u64::MAX << 4 | 0b0101;
/// Nobody uses the slot, and the next registration may.
const VACANT: u64 = u64::MAX << 4 | 0b1001;

/// Whether readers that announce themselves may use a slot.
fn is_occupied(state: u64) -> bool {
    state < WRITING
}

/// A slot that is open to hints about the space of `io_type` has this state, and no slot that is not has it.
#[inline(always)]
fn opened(io_type: IoType, state: u64) -> u64 {
    match io_type {
        IoType::Pio => state | OPEN_TO_PORTS,
        IoType::Mmio | IoType::PhysicalMmio => state & !KIND | OPEN_TO_MEMORY,
    }
}

/// All that a dispatch needs of one range, in one cache line.
#[repr(align(64))]
struct Slot<'d> {
    /// Where the range starts, as each copy of the index knows it, while it has the range. Part of what the version guards,
    /// not of the body: a relocation changes it without waiting for anybody.
    bases: [AtomicU64; 2],
    /// How many addresses the range has; 0 for all of the memory space. It stays as it is from the slot's installation on.
    length: AtomicU64,
    state: AtomicU64,
    /// Accesses inside the device that have no line to announce themselves in.
    anonymous: AtomicU32,
    body: UnsafeCell<MaybeUninit<Body<'d>>>,
}

impl<'d> Slot<'d> {
    const_fn! {
        fn new() -> Self {
            Self {
                bases: array![AtomicU64::new(0); 2],
                length: AtomicU64::new(0),
                state: AtomicU64::new(VACANT),
                anonymous: AtomicU32::new(0),
                body: UnsafeCell::new(MaybeUninit::uninit()),
            }
        }
    }

    /// What announces the slot. The slots of a manager lie within 4 GiB, and are aligned.
    #[inline(always)]
    fn mark(&self) -> Mark<'_> {
        Mark { sign: core::ptr::from_ref(self).addr() as u32, anonymous: &self.anonymous }
    }

    #[inline(always)]
    fn base(&self, version: u64) -> &AtomicU64 {
        let [even, odd] = &self.bases;
        if version & 1 == 0 { even } else { odd }
    }
}

// SAFETY: all fields but `body` and the references in it are `Sync` by themselves. A body is written by one thread at a
// time, the one whose exchange made the slot's state WRITING, and read only by threads that have announced the slot and
// then seen it occupied; the module's protocol keeps the two apart. What a body refers to is `Sync` (`Device: Sync`), so
// that using it from several threads is sound.
unsafe impl Sync for Slot<'_> {}

// SAFETY: a `&dyn Device` may be sent to another thread because `Device: Sync`; all else is `Send` by itself.
unsafe impl Send for Slot<'_> {}

/// What a vCPU remembers: the number of a slot, at most `RANGES`.
#[derive(Clone, Copy)]
pub(crate) struct Hint<const RANGES: usize>(u16);

impl<const RANGES: usize> Hint<RANGES> {
    /// Nothing is remembered: the number of the slot behind the last, which has no addresses.
    pub(crate) const NONE: Self = Self(RANGES as u16);
}

/// A slot: what a search remembers of what it found.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a, 'd>(&'a Slot<'d>);

impl Found<'_, '_> {
    /// The first and the last address of the slot's range, under a version that has it.
    #[inline(always)]
    pub(crate) fn bounds(self, version: u64) -> (u64, u64) {
        let Self(Slot { length, .. }) = self;
        let base = self.0.base(version).load(Ordering::Relaxed);
        (base, base.wrapping_add(length.load(Ordering::Relaxed)).wrapping_sub(1))
    }
}

/// Why a slot was not entered.
pub(crate) enum Refused {
    /// The index has changed since the search, or a writer has emptied the slot: search again.
    Stale,
    /// No word, and no count, is left to announce the access in; or, what nesting excludes, the word is in use.
    TooDeep,
}

/// A reader inside a slot. The slot's device stays registered until this is dropped.
pub(crate) struct Entered<'a, 'd, A> {
    /// A pointer, and not a copy: what a dispatch reads of the body, it reads straight from the slot's cache line.
    body: *const Body<'d>,
    _announced: A,
    slot: PhantomData<&'a Slot<'d>>,
}

impl<'a, 'd, A> Entered<'a, 'd, A> {
    /// For the one who has announced the slot, and has seen only then that it is occupied.
    #[inline(always)]
    fn new(slot: &'a Slot<'d>, announced: A) -> Self {
        let body = slot.body.with(<*const MaybeUninit<Body<'d>>>::cast);
        Self { body, _announced: announced, slot: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn body(&self) -> &Body<'d> {
        // SAFETY: `Slots::enter` and `Slots::enter_by_hint`, which alone make an `Entered`, announced the slot before they
        // saw that it is occupied, so that a writer that retires it from then on finds the announcement, and writes the body
        // only after it was withdrawn, when `self` is gone. The body was written before the slot became occupied, which the
        // load has acquired.
        unsafe { &*self.body }
    }
}

/// The slots of all ranges, the lines of all vCPUs, and the version.
#[repr(C)]
pub(crate) struct Slots<'d, const RANGES: usize, const VCPUS: usize> {
    /// First of all, so that a slot's address is its number and an addition away.
    slots: [Slot<'d>; RANGES],
    /// The slot that [`Hint::NONE`] names. It is never filled, and no address is within its length, 0.
    no_slot: Slot<'d>,
    lines: [Line; VCPUS],
    /// As many as vCPUs, because each may access without a handle.
    stripes: [Stripe; VCPUS],
    version: AtomicU64,
    /// Readers that have searched in vain too often: no publication begins while there are any.
    starving: AtomicU32,
    /// Counted accesses that were not the only ones in their slots when they came. A recursion comes to a slot it is in
    /// already, so that this count bounds it, and accesses that do not meet touch nothing that all share.
    crowd: AtomicU32,
    /// With it the barrier between a reader's announcement and its check is free, and a writer pays for both.
    heavy_barrier: Option<HeavyBarrier>,
}

impl<'d, const RANGES: usize, const VCPUS: usize> Slots<'d, RANGES, VCPUS> {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self {
                slots: array![Slot::new(); RANGES],
                no_slot: Slot::new(),
                lines: array![Line::new(); VCPUS],
                stripes: array![Stripe::new(); VCPUS],
                version: AtomicU64::new(0),
                starving: AtomicU32::new(0),
                crowd: AtomicU32::new(0),
                heavy_barrier: None,
            }
        }
    }

    /// Uses the asymmetric fence.
    pub(crate) const fn set_heavy_barrier(&mut self, barrier: HeavyBarrier) {
        self.heavy_barrier = Some(barrier);
    }

    // The reader's side.

    /// Takes a line that no vCPU has.
    pub(crate) fn claim_line(&self) -> Option<Claim<'_>> {
        self.lines.iter().find_map(Line::claim)
    }

    /// The version to search under.
    #[inline(always)]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether a search under `version` has seen one whole index.
    #[inline(always)]
    pub(crate) fn is_current(&self, version: u64) -> bool {
        searched();
        self.version.load(Ordering::Relaxed) == version
    }

    /// The slot with this number, if there is one.
    #[inline(always)]
    pub(crate) fn slot(&self, number: u16) -> Option<Found<'_, 'd>> {
        self.slots.get(number as usize).map(Found)
    }

    /// Where accesses without a line are announced.
    #[inline(always)]
    fn common(&self) -> Common<'_, VCPUS> {
        Common { stripes: &self.stripes, crowd: &self.crowd }
    }

    /// Announces a slot: the reader's store, without the look at version and state that comes after it.
    #[inline(always)]
    pub(crate) fn announce<'a, A: Announce<'a>>(&'a self, place: A, found: Found<'a, 'd>) -> Option<A::Announced> {
        place.announce(found.0.mark(), self.common(), self.heavy_barrier.is_some())
    }

    /// Enters the slot that a search under `version` has found.
    #[inline(always)]
    pub(crate) fn enter<'a, A: Announce<'a>>(
        &'a self,
        place: A,
        version: u64,
        found: Found<'a, 'd>,
    ) -> Result<Entered<'a, 'd, A::Announced>, Refused> {
        let announced = self.announce(place, found).ok_or(Refused::TooDeep)?;
        order();
        searched();
        // The reader's half of the protocol.
        let current = self.version.load(Ordering::SeqCst) == version;
        let occupied = is_occupied(found.0.state.load(Ordering::SeqCst));
        if (protocol::VERSION_CHECK && !current) || (protocol::STATE_CHECK && !occupied) {
            return Err(Refused::Stale);
        }
        Ok(Entered::new(found.0, announced))
    }

    /// What leads back to the slot with this number.
    #[inline(always)]
    pub(crate) fn hint(&self, number: u16) -> Option<Hint<RANGES>> {
        ((number as usize) < RANGES).then_some(Hint(number))
    }

    /// Enters the slot of the hint if its range has all of an access of `unit` bytes, at least one, at `address` in the
    /// space of `io_type`, and if that is plain without a search. With the base of the range.
    ///
    /// A slot that turns out closed once it is announced is forgotten: an announcement that leads nowhere can delay a
    /// removal, and is not made again.
    #[inline(always)]
    pub(crate) fn enter_by_hint<'a, A: Announce<'a>>(
        &'a self,
        place: A,
        hint: &mut Hint<RANGES>,
        io_type: IoType,
        address: u64,
        unit: usize,
    ) -> Option<(Entered<'a, 'd, A::Announced>, u64)> {
        let slots = core::ptr::from_ref(self).cast::<Slot<'d>>();
        // SAFETY: a hint is a number that `hint` has found to be less than `RANGES`, and leads into `slots`, with which `self`
        // begins (`repr(C)`), or it is `RANGES`, and leads to `no_slot`, which follows at once: both have the type and so the
        // alignment of a slot. In bytes, and without a look at the bounds, it is six instructions less.
        let slot = unsafe { &*slots.byte_add(hint.0 as usize * size_of::<Slot<'d>>()) };
        let (found, Slot { state, bases: [base, _], length, .. }) = (Found(slot), slot);
        let stamp = opened(io_type, state.load(Ordering::Acquire));
        let base = base.load(Ordering::Relaxed);
        let offset = address.wrapping_sub(base);
        if length.load(Ordering::Relaxed).checked_sub(unit as u64).is_none_or(|last| offset > last) {
            cold_path();
            return None;
        }
        let announced = self.announce(place, found)?;
        order();
        searched();
        // With this state before and after, the slot was open all the time, and it still is, announced.
        if protocol::STAMP_CHECK && state.load(Ordering::SeqCst) != stamp {
            cold_path();
            if protocol::FORGET {
                *hint = Hint::NONE;
            }
            return None;
        }
        Some((Entered::new(found.0, announced), base))
    }

    /// The count of the searches of one access. A search is repeated only when a writer has published since it began.
    #[inline(always)]
    pub(crate) fn searches(&self) -> Searches<'_> {
        Searches { starving: &self.starving, vain: 0 }
    }

    // The writer's side. Writers are serialised by the manager's lock; what this module needs for soundness it checks
    // by itself.

    /// Fills a vacant slot, for a range of `length` addresses. Readers find it once an index that names it is published; hints
    /// lead to it once it is opened.
    pub(crate) fn install(&self, slot: u16, body: Body<'d>, length: u64) -> bool {
        let Some(target) = self.slots.get(slot as usize) else { return false };
        if target.state.compare_exchange(VACANT, WRITING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        // SAFETY: the exchange succeeds for one thread, and it does so on a slot in which the last wait found nobody.
        // A reader that has announced the slot since then sees that it is not occupied, and leaves the body alone.
        target.body.with_mut(|place| unsafe {
            (*place).write(body);
        });
        // Who finds this length finds, when it compares versions, that the index is not one that had the slot before, whoever
        // replaced that: nothing else has ordered what this thread stores behind it.
        target.length.store(length, protocol::NEW_LENGTH);
        target.state.store(CLOSED, Ordering::SeqCst);
        true
    }

    /// Closes an occupied slot to hints, before a copy of the index is changed so that it has the slot's range elsewhere, or
    /// not, or another range in it.
    pub(crate) fn close(&self, slot: u16) {
        if protocol::CLOSE {
            self.change_occupied(slot, CLOSED);
        }
        // Whoever comes upon one of the changes that follow finds, when it compares, that the slot is not open as it was, and
        // that the index it searches is not the live one any more, even if it was another writer who replaced that.
        if protocol::CHANGE_FENCE {
            fence(Ordering::Release);
        }
    }

    /// Opens an occupied slot to hints about the space of `io_type`: once `version` is published, both copies have its
    /// base, and no other range lies in its own.
    pub(crate) fn open(&self, slot: u16, io_type: IoType, version: u64) {
        self.change_occupied(slot, opened(io_type, version << 2));
    }

    /// Bars an occupied slot to new readers. The caller calls [`barrier`](Self::barrier) next.
    pub(crate) fn retire(&self, slot: u16) {
        self.change_occupied(slot, RETIRED);
    }

    /// Gives a slot a new state, unless it is not occupied.
    #[inline(never)]
    fn change_occupied(&self, slot: u16, new: u64) {
        if let Some(target) = self.slots.get(slot as usize) {
            let old = target.state.load(Ordering::Relaxed);
            if is_occupied(old) {
                // Writers are one at a time.
                let _ = target.state.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed);
            }
        }
    }

    /// Stands between the retirement of slots and the look for their readers.
    pub(crate) fn barrier(&self) {
        order();
        if let Some(HeavyBarrier(execute)) = self.heavy_barrier {
            execute();
        }
    }

    /// Makes a retired slot vacant if no reader is inside. Whether it is vacant now.
    pub(crate) fn reclaim(&self, slot: u16) -> bool {
        let Some(target) = self.slots.get(slot as usize) else { return false };
        match target.state.load(Ordering::SeqCst) {
            VACANT => true,
            RETIRED if !protocol::WAIT || !self.words(slot).any(|(word, sign)| sign.is_in(word)) => {
                target.state.store(VACANT, Ordering::SeqCst);
                true
            }
            _ => false,
        }
    }

    /// Waits until each reader that is inside the slot now has left it, for at most `patience` turns, of which it takes
    /// what it needs. Whether they have left.
    ///
    /// Of two callers that are inside slots and look at each other's, at least one sees the other.
    pub(crate) fn wait_for_current_readers(&self, slot: u16, patience: &mut u32) -> bool {
        // Between the caller's own announcement, which the asymmetric fence leaves unordered, and its look.
        fence(Ordering::SeqCst);
        self.words(slot).all(|(word, sign)| {
            while sign.is_in(word) {
                let Some(left) = patience.checked_sub(1) else { return false };
                *patience = left;
                spin_once();
            }
            true
        })
    }

    /// Every word in which a reader of the slot may have announced itself.
    fn words(&self, slot: u16) -> impl Iterator<Item = (&AtomicU32, Sign)> {
        let target = self.slots.get(slot as usize);
        let sign = Sign::Of(target.map_or(NO_SLOT, |target| target.mark().sign));
        let stripes = self.stripes.iter().filter(|_| protocol::STRIPE_SCAN).flat_map(|stripe| &stripe.words);
        let hazards = self.lines.iter().flat_map(|line| &line.hazards).chain(stripes);
        let counted = target.filter(|_| protocol::COUNT_SCAN).map(|target| (&target.anonymous, Sign::Count));
        hazards.map(move |word| (word, sign)).chain(counted)
    }

    /// Sets the place of the slot's range in the copy that `version` selects.
    pub(crate) fn set_base(&self, version: u64, slot: u16, base: u64) {
        if let Some(target) = self.slots.get(slot as usize) {
            target.base(version).store(base, Ordering::Relaxed);
        }
    }

    /// Before the first change of the copy that is not live: waits until no reader is starving.
    pub(crate) fn begin_publication(&self) -> u64 {
        while protocol::HOLD_BACK && self.starving.load(Ordering::SeqCst) != 0 {
            spin_once();
        }
        let other = if protocol::OTHER_COPY { 1 } else { 2 };
        self.version.load(Ordering::Relaxed).wrapping_add(other)
    }

    /// Makes the other copy the live one. The copy that was live may be changed from now on: whoever is still
    /// searching it compares versions afterwards.
    pub(crate) fn publish(&self, version: u64) {
        self.version.store(version, Ordering::SeqCst);
    }
}

/// How often one access has searched the index in vain. From [`RETRIES`] vain searches on, and until one was not in vain,
/// writers hold back, so that at most [`RETRIES`]` + 2` are needed.
pub(crate) struct Searches<'a> {
    starving: &'a AtomicU32,
    vain: u32,
}

impl Searches<'_> {
    /// A search was in vain.
    #[cold]
    pub(crate) fn again(&mut self) {
        self.vain = self.vain.saturating_add(1);
        if self.vain == RETRIES {
            self.starving.fetch_add(1, Ordering::SeqCst);
            // What was published before a writer that has not seen this, the next search sees.
            fence(Ordering::SeqCst);
        }
    }

    /// A search was not.
    #[inline(always)]
    pub(crate) fn end(&mut self) {
        if self.vain >= RETRIES {
            self.starving.fetch_sub(1, Ordering::Release);
        }
        self.vain = 0;
    }
}

impl Drop for Searches<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.end();
    }
}

/// Keeps the loads of a search before the comparison of versions that follows.
#[inline(always)]
fn searched() {
    if protocol::SEARCH_FENCE {
        fence(Ordering::Acquire);
    }
}

/// The order between a store and a later load that sequentially consistent operations have by themselves, and that loom,
/// which takes them for acquire and release, knows of fences only. Under loom it does what [`searched`] does besides, where
/// both stand.
#[inline(always)]
fn order() {
    if cfg!(vm_device_loom) && protocol::FENCE {
        fence(Ordering::SeqCst);
    }
}

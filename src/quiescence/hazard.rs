//! How a reader protects the slot that it uses. A reader with a handle stores the slot's tag in a word (a hazard pointer) of
//! its vCPU's hazard record. A reader without one takes a word of a *stripe*, which the address of its stack selects. Where
//! both words of the stripe are in use, it is counted in the slot.

#![deny(unsafe_code)]

use core::sync::atomic::compiler_fence;

use crate::access::{MAX_DEPTH, ReaderSite};
use crate::indices::RecordIndex;
use crate::orderings;
use crate::sync::{AtomicBool, AtomicU32, Ordering, array, const_fn};

/// Limit, over all vCPUs, on handle-less accesses that enter a range in which another one is counted. It bounds a recursion
/// that the manager cannot detect otherwise.
///
/// Two accesses for each vCPU that the storage has room for are not counted. So handle-less accesses nest at most as deep as
/// the number of ranges in use, plus this limit, plus two for each vCPU. Where callbacks acquire handles, each handle adds at
/// most [`MAX_DEPTH`].
pub const MAX_ANONYMOUS: u32 = 64;

/// How many slots can be protected in a stripe: one, and another from within its callback, or by another thread.
const STRIPE_WORDS: usize = 2;

/// The value of a word that protects no slot.
const NO_SLOT: u32 = 0;

/// What a reader needs of a slot to protect it.
#[derive(Clone, Copy)]
pub(crate) struct SlotTag<'a> {
    /// The value that protects the slot when a word holds it: the slot's number, which is not 0.
    pub(super) tag: u32,
    /// How many accesses protect it without a word.
    pub(super) counted: &'a AtomicU32,
}

/// The words of one vCPU: its hazard record, and a stripe, because a vCPU may also access without a handle. Both share one
/// cache line, for the 64 bytes that another would take: accesses of threads without a handle slow down those of the vCPU
/// whose line they use.
#[repr(C, align(64))]
pub(super) struct PerVcpu {
    /// For accesses that are not nested in others. Only the owner of the record writes it, so that no exchange is needed.
    outer: AtomicU32,
    /// For accesses on the slow path, one word for each depth. A word is taken by an exchange, so that soundness does not
    /// depend on what a [`ReaderSite`] says.
    nested: [AtomicU32; MAX_DEPTH],
    acquired: AtomicBool,
    /// For accesses of any thread without a record.
    stripe: Stripe,
}

/// Words that any thread may use.
struct Stripe([AtomicU32; STRIPE_WORDS]);

impl Stripe {
    /// Protects a slot in a word that is free, if there is one.
    #[inline(always)]
    fn protect<'a>(&'a self, slot: SlotTag<'_>) -> Option<HazardGuard<'a>> {
        self.0.iter().find_map(|word| HazardGuard::exchange(word, slot))
    }
}

impl PerVcpu {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                outer: AtomicU32::new(NO_SLOT),
                nested: array![AtomicU32::new(NO_SLOT); MAX_DEPTH],
                acquired: AtomicBool::new(false),
                stripe: Stripe(array![AtomicU32::new(NO_SLOT); STRIPE_WORDS]),
            }
        }
    }

    /// Gives the record to a vCPU, unless another one has it.
    fn acquire(&self) -> Option<OwnedRecord<'_>> {
        let acquired = self.acquired.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        acquired.ok().map(|_| OwnedRecord(self))
    }

    /// Every word in which a slot may be protected.
    pub(super) fn words(&self) -> [&[AtomicU32]; 3] {
        let stripe: &[AtomicU32] = if orderings::STRIPE_SCAN { &self.stripe.0 } else { &[] };
        [core::slice::from_ref(&self.outer), &self.nested, stripe]
    }
}

/// Which of `count` stripes is used by a thread that has `local` on its stack. The address, in units of 16 KiB, is cut into
/// digits as wide as a stripe's number, and all digits are folded, so that stacks at a distance of a power of two have
/// different stripes. Two threads on one stripe cost time and do no harm.
#[inline(always)]
fn stripe_of(count: usize, local: usize) -> usize {
    // A model behaves alike in each run, wherever its stacks lie.
    if cfg!(vm_device_loom) || count < 2 {
        return 0;
    }
    let bases = count.next_power_of_two();
    let near = local >> 14;
    let mut near = (near ^ (near >> 12)) & 0xfff;
    let mut folded = 0;
    while near != 0 {
        folded ^= near;
        near >>= bases.trailing_zeros();
    }
    let stripe = folded & bases.wrapping_sub(1);
    if stripe < count { stripe } else { stripe.wrapping_sub(count) }
}

/// Where the readers of a manager protect slots.
#[derive(Clone, Copy)]
pub(crate) struct Hazards<'a> {
    pub(super) vcpus: &'a [PerVcpu],
    /// How many counted accesses entered a slot in which another was counted. Undetected recursion must re-enter a slot, so a
    /// limit on this count limits the recursion; accesses to different slots never touch it.
    pub(super) contended: &'a AtomicU32,
}

/// A record that one vCPU has to itself until this is dropped.
pub(crate) struct OwnedRecord<'a>(&'a PerVcpu);

impl Drop for OwnedRecord<'_> {
    fn drop(&mut self) {
        self.0.acquired.store(false, Ordering::Release);
    }
}

/// A way to protect a slot.
pub(crate) trait Protect<'a> {
    /// Ends the protection when it is dropped.
    type Guard: 'a;
    /// Protects a slot; `None` if no word and no count is left for it.
    fn protect(self, slot: SlotTag<'a>, hazards: Hazards<'a>, asymmetric: bool) -> Option<Self::Guard>;
}

/// The protection of a slot by a word.
pub(crate) struct HazardGuard<'a>(&'a AtomicU32);

impl<'a> HazardGuard<'a> {
    /// Protects a slot in a word that others may use, if the word is free.
    ///
    /// The exchange acquires what the callback did that this word protected before: a removal that sees the end of this access
    /// sees the end of that one too.
    #[inline(always)]
    fn exchange(word: &'a AtomicU32, slot: SlotTag<'_>) -> Option<Self> {
        if slot.tag == NO_SLOT {
            return None;
        }
        if !orderings::PROTECT_EXCHANGE {
            word.store(slot.tag, orderings::PROTECT);
            return Some(Self(word));
        }
        let exchanged = word.compare_exchange(NO_SLOT, slot.tag, orderings::PROTECT_BY_EXCHANGE, Ordering::Relaxed);
        exchanged.ok().map(|_| Self(word))
    }
}

impl Drop for HazardGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.store(NO_SLOT, orderings::LEAVE);
    }
}

/// The protection of a slot by the outer word of a record. It refers to the record and not to the word, so that a dispatch
/// keeps one address less during the call of a device.
pub(crate) struct OuterGuard<'r>(&'r OwnedRecord<'r>);

impl Drop for OuterGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.0.outer.store(NO_SLOT, orderings::LEAVE);
    }
}

/// The protection of a slot by its count.
pub(crate) struct CountGuard<'a> {
    counted: &'a AtomicU32,
    /// Also counts the access, if another was counted in its slot.
    contended: Option<&'a AtomicU32>,
}

impl<'a> CountGuard<'a> {
    #[cold]
    fn count(counted: &'a AtomicU32, contended: &'a AtomicU32) -> Option<Self> {
        let others = counted.fetch_add(1, orderings::PROTECT);
        let mut guard = Self { counted, contended: None };
        if others > 0 {
            guard.contended = Some(contended);
            if contended.fetch_add(1, Ordering::Relaxed) >= MAX_ANONYMOUS {
                return None;
            }
        }
        Some(guard)
    }
}

impl Drop for CountGuard<'_> {
    fn drop(&mut self) {
        if let Some(contended) = self.contended {
            contended.fetch_sub(1, Ordering::Relaxed);
        }
        self.counted.fetch_sub(1, orderings::LEAVE);
    }
}

impl<'r> OwnedRecord<'_> {
    /// Protects the slot of an access that is not nested in another. The guard borrows the record, so that there is one such
    /// access at a time.
    #[inline(always)]
    pub(super) fn store(&'r mut self, slot: SlotTag<'_>, asymmetric: bool) -> OuterGuard<'r> {
        let word = &self.0.outer;
        debug_assert!(word.load(Ordering::Relaxed) == NO_SLOT, "a word protects one slot at a time");
        if asymmetric {
            word.store(slot.tag, orderings::PROTECT_ASYMMETRIC);
            compiler_fence(Ordering::SeqCst);
        } else {
            word.store(slot.tag, orderings::PROTECT);
        }
        OuterGuard(self)
    }
}

impl<'r> Protect<'r> for &'r mut OwnedRecord<'_> {
    type Guard = OuterGuard<'r>;

    #[inline(always)]
    fn protect(self, slot: SlotTag<'r>, _: Hazards<'r>, asymmetric: bool) -> Option<OuterGuard<'r>> {
        Some(self.store(slot, asymmetric))
    }
}

/// The protection of a slot by a word or by its count.
pub(crate) enum AnyGuard<'a> {
    Hazard(#[expect(dead_code, reason = "dropped")] HazardGuard<'a>),
    Count(#[expect(dead_code, reason = "dropped")] CountGuard<'a>),
}

impl<'a> Protect<'a> for ReaderSite {
    type Guard = AnyGuard<'a>;

    fn protect(self, slot: SlotTag<'a>, Hazards { vcpus, contended }: Hazards<'a>, _: bool) -> Option<AnyGuard<'a>> {
        if let Some(index) = self.record {
            let word = vcpus.get(index.position())?.nested.get(usize::from(self.level))?;
            return HazardGuard::exchange(word, slot).map(AnyGuard::Hazard);
        }
        if usize::from(self.level) >= MAX_DEPTH {
            return None;
        }
        let stripe = vcpus.get(stripe_of(vcpus.len(), core::ptr::from_ref(&self).addr()));
        match stripe.and_then(|vcpu| vcpu.stripe.protect(slot)) {
            Some(guard) => Some(AnyGuard::Hazard(guard)),
            None => CountGuard::count(slot.counted, contended).map(AnyGuard::Count),
        }
    }
}

/// Acquires a record that no vCPU has. With its index.
pub(super) fn acquire_record(vcpus: &[PerVcpu]) -> Option<(OwnedRecord<'_>, RecordIndex)> {
    vcpus.iter().enumerate().find_map(|(position, vcpu)| {
        let index = RecordIndex::at(position)?;
        Some((vcpu.acquire()?, index))
    })
}

/// What a reader that is inside a slot leaves in a word.
#[derive(Clone, Copy)]
pub(super) enum Trace {
    /// The slot's tag.
    Tag(u32),
    /// A count that is not 0.
    Count,
}

impl Trace {
    /// Whether a reader that is inside the slot has left this in `word`.
    pub(super) fn is_in(self, word: &AtomicU32) -> bool {
        let value = word.load(Ordering::SeqCst);
        match self {
            Trace::Tag(tag) => value == tag,
            Trace::Count => value != 0,
        }
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use super::*;

    /// How many stripes `count` threads use, with stacks at a distance of `stride`.
    fn used(count: usize, first: usize, stride: usize) -> usize {
        let stripes = (0..count).map(|thread| stripe_of(count, first + thread * stride));
        stripes.collect::<std::collections::HashSet<_>>().len()
    }

    #[test]
    fn stacks_at_a_distance_of_a_power_of_two_have_stripes_of_their_own() {
        for stride in (14..=23).map(|bits| 1 << bits) {
            let first = 0x7f00_0000_2a80 / (16 * stride) * (16 * stride);
            for count in [1, 2, 4, 8] {
                assert_eq!((used(count, first, stride), stride), (count, stride));
            }
        }
    }

    #[test]
    fn every_address_of_a_stack_has_a_stripe() {
        for local in [0, 1, 0x1234_5678, usize::MAX / 2, usize::MAX] {
            assert!([1, 3, 7, 33].into_iter().all(|count| stripe_of(count, local) < count));
        }
    }

    #[test]
    fn an_access_takes_a_free_word_and_gives_it_back() {
        let (vcpu, counted) = (PerVcpu::new(), AtomicU32::new(0));
        let protect = |tag| vcpu.stripe.protect(SlotTag { tag, counted: &counted });
        let words = || vcpu.stripe.0.each_ref().map(|word| word.load(Ordering::Relaxed));
        let (first, second) = (protect(1), protect(2));
        assert_eq!((words(), protect(3).is_none()), ([1, 2], true));
        drop(first);
        assert_eq!(words(), [NO_SLOT, 2]);
        let third = protect(3);
        assert_eq!(words(), [3, 2]);
        drop((second, third));
        assert_eq!(words(), [NO_SLOT; STRIPE_WORDS]);
    }
}

//! How a reader announces itself: in a hazard word of its vCPU's line; without a line in one of a stripe, which those share
//! whose stacks lie alike; or in the slot's count of accesses, if those of the stripe are in use.

#![deny(unsafe_code)]

use core::sync::atomic::compiler_fence;

use crate::access::MAX_DEPTH;
use crate::protocol;
use crate::sync::{AtomicBool, AtomicU32, Ordering, array, const_fn};

/// How many accesses without a [`Dispatcher`](crate::Dispatcher) may, over all vCPUs, be counted in a range in which another one
/// is counted. Two for each vCPU that the manager has room for need not be counted. It bounds a recursion that the manager
/// cannot see otherwise: without handles, accesses are nested no deeper than the number of ranges in use, this, and two for
/// each vCPU together. Where callbacks claim handles, there are at most [`MAX_DEPTH`](crate::MAX_DEPTH) more for each.
pub const MAX_ANONYMOUS: u32 = 64;

/// How many accesses can be announced in a stripe: one, and one from within its callback, or of another thread.
const STRIPE_WORDS: usize = 2;

/// What a hazard word holds that announces no slot: no slot's sign.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// What an announcement needs of a slot.
#[derive(Clone, Copy)]
pub(crate) struct Mark<'a> {
    /// What announces the slot in a hazard word: no other slot of the manager has it.
    pub(super) sign: u32,
    /// How many accesses announce it that have no line to do so in.
    pub(super) anonymous: &'a AtomicU32,
}

/// The cache line of one vCPU: the signs of the slots it is in, by depth.
#[repr(align(64))]
pub(super) struct Line {
    pub(super) hazards: [AtomicU32; MAX_DEPTH],
    claimed: AtomicBool,
}

impl Line {
    const_fn! {
        pub(super) fn new() -> Self {
            Self { hazards: array![AtomicU32::new(NO_SLOT); MAX_DEPTH], claimed: AtomicBool::new(false) }
        }
    }

    /// Gives the line to a vCPU, unless another one has it.
    pub(super) fn claim(&self) -> Option<Claim<'_>> {
        let claimed = self.claimed.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        claimed.ok().map(|_| Claim(self))
    }
}

/// Words for accesses without a line, which any thread may use, in a cache line that others seldom do.
#[repr(align(64))]
pub(super) struct Stripe {
    pub(super) words: [AtomicU32; STRIPE_WORDS],
}

impl Stripe {
    const_fn! {
        pub(super) fn new() -> Self {
            Self { words: array![AtomicU32::new(NO_SLOT); STRIPE_WORDS] }
        }
    }

    /// Announces an access in a word that is free, if there is one.
    ///
    /// The exchange acquires what the callback before did that was announced in this word: a removal that sees this access
    /// leave sees that one ended too.
    #[inline(always)]
    fn announce<'a>(&'a self, slot: Mark<'_>) -> Option<InLine<'a>> {
        let takes = |word: &&AtomicU32| {
            if !protocol::STRIPE_EXCHANGE {
                word.store(slot.sign, protocol::ANNOUNCE);
                return true;
            }
            word.compare_exchange(NO_SLOT, slot.sign, protocol::ANNOUNCE_IN_STRIPE, Ordering::Relaxed).is_ok()
        };
        self.words.iter().find(takes).map(InLine)
    }
}

/// Which of `count` stripes is that of a thread that has `local` on its stack: by the digits, to the base of the next power of
/// two, of its address in units of 16 KiB, all of them, so that neighbours have different ones where stacks lie at a
/// distance of a power of two. The wrong one takes time and does no harm.
#[inline(always)]
fn stripe_of<const COUNT: usize>(local: usize) -> usize {
    // A model takes the same way each time, wherever its stacks lie.
    if cfg!(vm_device_loom) || COUNT < 2 {
        return 0;
    }
    let digit = COUNT.next_power_of_two().ilog2();
    let near = local >> 14;
    let near = near ^ (near >> 12);
    let folded = (0..12_u32.div_ceil(digit)).fold(0, |folded, place| folded ^ (near >> (place * digit)));
    (folded & (COUNT.next_power_of_two() - 1)) % COUNT
}

/// Where an access without a line is announced: what all of them share.
pub(crate) struct Common<'a, const VCPUS: usize> {
    pub(super) stripes: &'a [Stripe; VCPUS],
    /// The anonymous accesses that were not the only ones in their slots when they came.
    pub(super) crowd: &'a AtomicU32,
}

/// A line that one vCPU has to itself until this is dropped.
pub(crate) struct Claim<'a>(&'a Line);

impl<'a> Claim<'a> {
    /// Where the vCPU announces accesses, as long as it has the claim.
    pub(crate) fn top(&self) -> Top<'a> {
        Top(self.0)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.claimed.store(false, Ordering::Release);
    }
}

/// Where a vCPU announces an access that is not nested in another.
#[derive(Clone, Copy)]
pub(crate) struct Top<'a>(&'a Line);

/// Where a reader announces itself. Copies stay with the vCPU, in its handle and in its accesses, which stay on its thread
/// and nest, so that a word is used for one announcement at a time.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The vCPU's line, or none for an anonymous access.
    line: Option<&'a Line>,
    /// Which of the line's words: the depth of nesting.
    level: u8,
}

impl<'a> From<Top<'a>> for Place<'a> {
    #[inline(always)]
    fn from(Top(line): Top<'a>) -> Self {
        Self { line: Some(line), level: 0 }
    }
}

impl Place<'_> {
    /// The place of a reader without a line.
    pub(crate) const ANONYMOUS: Self = Self { line: None, level: 0 };

    /// How many accesses the next one is nested in.
    #[inline(always)]
    pub(crate) fn level(self) -> usize {
        self.level as usize
    }

    /// Where an access announces itself that is made from within the callback of this one.
    #[inline(always)]
    pub(crate) fn deeper(self) -> Self {
        Self { level: self.level.saturating_add(1), ..self }
    }

    /// The same depth, without the line.
    pub(crate) fn without_line(self) -> Self {
        Self { line: None, ..self }
    }
}

/// A way to announce an access.
pub(crate) trait Announce<'a>: Copy {
    /// Withdraws the announcement when it is dropped.
    type Announced: 'a;
    /// Announces an access to the slot; `None` if there is no place to.
    fn announce<const VCPUS: usize>(
        self,
        slot: Mark<'a>,
        common: Common<'a, VCPUS>,
        asymmetric: bool,
    ) -> Option<Self::Announced>;
}

/// An announcement in a word of a line or of a stripe.
pub(crate) struct InLine<'a>(&'a AtomicU32);

impl<'a> InLine<'a> {
    #[inline(always)]
    fn announce(word: &'a AtomicU32, slot: Mark<'_>, asymmetric: bool) -> Self {
        debug_assert!(word.load(Ordering::Relaxed) == NO_SLOT, "a word is for one announcement at a time");
        if asymmetric {
            word.store(slot.sign, protocol::ANNOUNCE_ASYMMETRIC);
            compiler_fence(Ordering::SeqCst);
        } else {
            word.store(slot.sign, protocol::ANNOUNCE);
        }
        Self(word)
    }
}

impl Drop for InLine<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.store(NO_SLOT, protocol::WITHDRAW);
    }
}

/// An access that is counted in its slot.
pub(crate) struct Counted<'a> {
    slot: &'a AtomicU32,
    /// Where it is counted besides, because it was not the only anonymous one in its slot.
    crowd: Option<&'a AtomicU32>,
}

impl<'a> Counted<'a> {
    #[cold]
    fn announce(Mark { anonymous: slot, .. }: Mark<'a>, crowd: &'a AtomicU32) -> Option<Self> {
        let others = slot.fetch_add(1, protocol::ANNOUNCE);
        let mut counted = Self { slot, crowd: None };
        if others > 0 {
            counted.crowd = Some(crowd);
            if crowd.fetch_add(1, Ordering::Relaxed) >= MAX_ANONYMOUS {
                return None;
            }
        }
        Some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(crowd) = self.crowd {
            crowd.fetch_sub(1, Ordering::Relaxed);
        }
        self.slot.fetch_sub(1, protocol::WITHDRAW);
    }
}

impl<'a> Announce<'a> for Top<'a> {
    type Announced = InLine<'a>;

    /// The word is free: an access borrows the handle, which alone has the claim, as long as it lasts, and those nested in
    /// it have words of their own.
    #[inline(always)]
    fn announce<const VCPUS: usize>(
        self,
        slot: Mark<'a>,
        _: Common<'a, VCPUS>,
        asymmetric: bool,
    ) -> Option<InLine<'a>> {
        let [word, ..] = &self.0.hazards;
        Some(InLine::announce(word, slot, asymmetric))
    }
}

/// The announcement of an access from any [`Place`].
pub(crate) enum Anyhow<'a> {
    InLine(#[expect(dead_code, reason = "dropped")] InLine<'a>),
    Counted(#[expect(dead_code, reason = "dropped")] Counted<'a>),
}

impl<'a> Announce<'a> for Place<'a> {
    type Announced = Anyhow<'a>;

    fn announce<const VCPUS: usize>(
        self,
        slot: Mark<'a>,
        Common { stripes, crowd }: Common<'a, VCPUS>,
        asymmetric: bool,
    ) -> Option<Anyhow<'a>> {
        match self.line {
            Some(line) => {
                let word = line.hazards.get(self.level())?;
                let is_free = word.load(Ordering::Relaxed) == NO_SLOT;
                is_free.then(|| Anyhow::InLine(InLine::announce(word, slot, asymmetric)))
            }
            None if self.level() < MAX_DEPTH => {
                let stripe = stripes.get(stripe_of::<VCPUS>(core::ptr::from_ref(&self).addr()));
                match stripe.and_then(|stripe| stripe.announce(slot)) {
                    Some(announced) => Some(Anyhow::InLine(announced)),
                    None => Counted::announce(slot, crowd).map(Anyhow::Counted),
                }
            }
            None => None,
        }
    }
}

/// How a word says that a reader is in a slot.
#[derive(Clone, Copy)]
pub(super) enum Sign {
    /// It is this sign of a slot.
    Of(u32),
    /// It is a count, and not 0.
    Count,
}

impl Sign {
    pub(super) fn is_in(self, word: &AtomicU32) -> bool {
        let value = word.load(Ordering::SeqCst);
        match self {
            Sign::Of(sign) => value == sign,
            Sign::Count => value != 0,
        }
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use super::*;

    /// How many stripes as many threads have whose stacks lie at a distance of `stride`.
    fn used<const COUNT: usize>(first: usize, stride: usize) -> usize {
        let mut used = [false; COUNT];
        for thread in 0..COUNT {
            used[stripe_of::<COUNT>(first + thread * stride)] = true;
        }
        used.into_iter().filter(|used| *used).count()
    }

    #[test]
    fn stacks_at_a_distance_of_a_power_of_two_have_stripes_of_their_own() {
        for stride in (14..=23).map(|bits| 1 << bits) {
            let first = 0x7f00_0000_2a80 / (16 * stride) * (16 * stride);
            let used = [used::<1>(first, stride), used::<2>(first, stride), used::<4>(first, stride)];
            assert_eq!(used, [1, 2, 4], "{stride:#x}");
            assert_eq!((super::tests::used::<8>(first, stride), stride), (8, stride));
        }
    }

    #[test]
    fn every_place_of_a_stack_has_a_stripe() {
        for local in [0, 1, 0x1234_5678, usize::MAX / 2, usize::MAX] {
            assert!(stripe_of::<3>(local) < 3 && stripe_of::<7>(local) < 7 && stripe_of::<33>(local) < 33);
        }
    }

    #[test]
    fn an_access_takes_a_free_word_and_gives_it_back() {
        let (stripe, count) = (Stripe::new(), AtomicU32::new(0));
        let announce = |sign| stripe.announce(Mark { sign, anonymous: &count });
        let words = || stripe.words.each_ref().map(|word| word.load(Ordering::Relaxed));
        let (first, second) = (announce(1), announce(2));
        assert_eq!((words(), announce(3).is_none()), ([1, 2], true));
        drop(first);
        assert_eq!(words(), [NO_SLOT, 2]);
        let third = announce(3);
        assert_eq!(words(), [3, 2]);
        drop((second, third));
        assert_eq!(words(), [NO_SLOT; STRIPE_WORDS]);
    }
}

//! What an access to a place may find.
//!
//! A place is a stretch of addresses that changes hands as a whole. Its history is a sequence of claims; a writer appends
//! the next one before it begins to change the topology, and confirms it when the change has returned. An access that begins
//! after the confirmation has to find the new claim; one that overlaps the change may find the claim before it or after it;
//! and one that overlaps several changes, any of those in between.
//!
//! All stores release and all loads acquire: the orders in which a correct embedder would tell one thread what another has
//! done. On x86 these are plain moves, so that the oracle adds no fence that could stand in for a missing one.

use std::sync::atomic::{AtomicU64, Ordering};

use vm_device::{GuestAddress, IoError, IoType};

use super::counts::Violation;

/// What answers at a place, and with which base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim(u64);

impl Claim {
    pub(crate) const NONE: Self = Self(u64::MAX);

    /// Device number `device` with a range that starts at `base`, below 2^48.
    pub(crate) const fn of(device: u8, base: u64) -> Self {
        Self((device as u64) << 48 | base)
    }

    /// The same claim, of a change that leaves nothing at the place for a while, before this is there.
    pub(crate) const fn after_a_gap(self) -> Self {
        Self(self.0 | AFTER_A_GAP)
    }

    /// Which device that is.
    pub(crate) fn device(self) -> Option<u8> {
        (self != Self::NONE).then_some((self.0 >> 48) as u8)
    }

    fn base(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }
}

/// In a claim that is remembered: see [`Claim::after_a_gap`]. [`Claim::NONE`] has it too, and is the same with and without.
const AFTER_A_GAP: u64 = 1 << 63;

/// What a callback has seen of the access that led to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) claim: Claim,
    pub(crate) address: GuestAddress,
    pub(crate) offset: u64,
}

/// How many claims of a place are remembered.
const REMEMBERED: u64 = 64;

pub(crate) struct Place {
    pub(crate) io_type: IoType,
    pub(crate) base: u64,
    pub(crate) length: u64,
    /// Whether only relocations change its claim.
    moving: bool,
    /// Twice the number of the claim; plus 1 while it is being replaced by the next.
    stage: AtomicU64,
    claims: [AtomicU64; REMEMBERED as usize],
}

/// When an access began or ended, in the time of its place.
#[derive(Clone, Copy)]
pub(crate) struct Stage(u64);

/// The verdict on an access that was not wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Judged {
    /// It found what it might.
    Right,
    /// Too many changes overtook it to say.
    Overtaken,
}

impl Place {
    pub(crate) fn new(io_type: IoType, base: u64, length: u64) -> Self {
        let claims = [const { AtomicU64::new(Claim::NONE.0) }; REMEMBERED as usize];
        Self { io_type, base, length, moving: false, stage: AtomicU64::new(0), claims }
    }

    /// A place with a claim that only relocations change.
    pub(crate) fn moving(self) -> Self {
        Self { moving: true, ..self }
    }

    pub(crate) fn contains(&self, address: u64, io_type: IoType) -> bool {
        io_type == self.io_type && (self.base..self.base + self.length).contains(&address)
    }

    fn claim(&self, number: u64) -> Claim {
        let word = self.word(number);
        if word == Claim::NONE.0 { Claim::NONE } else { Claim(word & !AFTER_A_GAP) }
    }

    fn follows_a_gap(&self, number: u64) -> bool {
        self.word(number) & AFTER_A_GAP != 0
    }

    fn word(&self, number: u64) -> u64 {
        self.claims[(number % REMEMBERED) as usize].load(Ordering::Acquire)
    }

    fn set_claim(&self, number: u64, claim: Claim) {
        self.claims[(number % REMEMBERED) as usize].store(claim.0, Ordering::Release);
    }

    // The writer's side: one writer at a time.

    /// From now on, accesses may find `claim` as well.
    pub(crate) fn begin(&self, claim: Claim) {
        let stage = self.stage.load(Ordering::Acquire);
        self.set_claim(stage / 2 + 1, claim);
        self.stage.store(stage + 1, Ordering::Release);
    }

    /// From now on, they may only find the claim of the last `begin`; or, if the change came to nothing, the one before.
    pub(crate) fn end(&self, done: bool) {
        let stage = self.stage.load(Ordering::Acquire);
        if done {
            self.stage.store(stage + 1, Ordering::Release);
        } else {
            self.set_claim(stage / 2 + 2, self.claim(stage / 2));
            self.stage.store(stage + 3, Ordering::Release);
        }
    }

    // The reader's side.

    pub(crate) fn stage(&self) -> Stage {
        Stage(self.stage.load(Ordering::Acquire))
    }

    /// Judges an access to `address` that began at `before` and ended at `after`.
    pub(crate) fn judge(
        &self,
        before: Stage,
        after: Stage,
        address: GuestAddress,
        result: Result<(), IoError>,
        answer: Option<Answer>,
    ) -> Result<Judged, Violation> {
        let found = match (result, answer) {
            (Ok(()), Some(answer)) => answer.claim,
            (Err(IoError::Unclaimed), None) => Claim::NONE,
            (Ok(()), None) | (Err(_), Some(_)) => return Err(Violation::Unaccounted),
            (Err(_), None) => return Err(Violation::Refused),
        };
        if let Some(answer) = answer
            && (answer.address != address || Some(answer.offset) != address.0.checked_sub(answer.claim.base()))
        {
            return Err(Violation::WrongBase);
        }
        let (first, last) = (before.0 / 2, after.0.div_ceil(2));
        let possible = (first..=last.min(first + REMEMBERED)).map(|number| self.claim(number));
        if possible.clone().any(|claim| claim == found) {
            return Ok(Judged::Right);
        }
        let mut later = first + 1..=last.min(first + REMEMBERED);
        if found == Claim::NONE && later.any(|number| self.follows_a_gap(number)) {
            return Ok(Judged::Right);
        }
        let possible: Vec<Claim> = possible.collect();
        // The oldest of them is overwritten when the claim `REMEMBERED` later is appended.
        if self.stage().0 / 2 + 2 >= first + REMEMBERED {
            return Ok(Judged::Overtaken);
        }
        let same_device = |claim: &Claim| claim.device() == found.device();
        Err(match found.device() {
            _ if self.moving => Violation::Relocation,
            None => Violation::Lost,
            Some(_) if possible.iter().any(same_device) => Violation::WrongBase,
            Some(_) if possible.iter().all(|claim| *claim == Claim::NONE) => Violation::EnteredAfterRemoval,
            Some(_) => Violation::Stale,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: GuestAddress = GuestAddress(0x1010);
    const A: Claim = Claim::of(1, 0x1000);
    const B: Claim = Claim::of(2, 0x1000);

    fn judge(place: &Place, before: Stage, found: Claim) -> Result<Judged, Violation> {
        match found.device() {
            None => place.judge(before, place.stage(), ADDRESS, Err(IoError::Unclaimed), None),
            Some(_) => {
                let offset = ADDRESS.0 - (found.0 & 0xffff);
                let answer = Answer { claim: found, address: ADDRESS, offset };
                place.judge(before, place.stage(), ADDRESS, Ok(()), Some(answer))
            }
        }
    }

    fn change(place: &Place, claim: Claim) {
        place.begin(claim);
        place.end(true);
    }

    #[test]
    fn a_settled_claim_is_the_only_one() {
        let place = Place::new(IoType::Mmio, 0x1000, 0x100);
        assert_eq!(judge(&place, place.stage(), Claim::NONE), Ok(Judged::Right));
        assert_eq!(judge(&place, place.stage(), A), Err(Violation::EnteredAfterRemoval));
        change(&place, A);
        assert_eq!(judge(&place, place.stage(), A), Ok(Judged::Right));
        assert_eq!(judge(&place, place.stage(), Claim::NONE), Err(Violation::Lost));
        assert_eq!(judge(&place, place.stage(), B), Err(Violation::Stale));
        assert_eq!(judge(&place, place.stage(), Claim::of(1, 0x1008)), Err(Violation::WrongBase));
    }

    #[test]
    fn during_a_change_both_claims_may_be_found() {
        let place = Place::new(IoType::Mmio, 0x1000, 0x100);
        change(&place, A);
        let before = place.stage();
        place.begin(B);
        let during = place.stage();
        assert_eq!(judge(&place, before, B), Ok(Judged::Right));
        place.end(true);
        assert_eq!(judge(&place, before, A), Ok(Judged::Right));
        assert_eq!(judge(&place, during, A), Ok(Judged::Right));
        assert_eq!(judge(&place, place.stage(), A), Err(Violation::Stale));
    }

    #[test]
    fn a_change_that_came_to_nothing_leaves_the_claim() {
        let place = Place::new(IoType::Mmio, 0x1000, 0x100);
        change(&place, A);
        place.begin(B);
        place.end(false);
        assert_eq!(judge(&place, place.stage(), A), Ok(Judged::Right));
        assert_eq!(judge(&place, place.stage(), B), Err(Violation::Stale));
    }

    #[test]
    fn a_gap_of_a_moving_range_has_its_own_name() {
        let place = Place::new(IoType::Mmio, 0x1000, 0x100).moving();
        change(&place, A);
        assert_eq!(judge(&place, place.stage(), Claim::NONE), Err(Violation::Relocation));
    }

    #[test]
    fn a_gap_before_a_claim_is_one_during_the_change_only() {
        let place = Place::new(IoType::Mmio, 0x1000, 0x100);
        change(&place, A);
        let before = place.stage();
        assert_eq!(judge(&place, before, Claim::NONE), Err(Violation::Lost));
        place.begin(B.after_a_gap());
        let during = place.stage();
        for found in [A, Claim::NONE, B] {
            assert_eq!(judge(&place, before, found), Ok(Judged::Right));
        }
        place.end(true);
        assert_eq!(judge(&place, during, Claim::NONE), Ok(Judged::Right));
        assert_eq!(judge(&place, place.stage(), B), Ok(Judged::Right));
        assert_eq!(judge(&place, place.stage(), Claim::NONE), Err(Violation::Lost));
    }

    #[test]
    fn an_access_that_slept_too_long_is_not_judged() {
        let place = Place::new(IoType::Mmio, 0x1000, 0x100);
        let before = place.stage();
        (0..REMEMBERED).for_each(|_| change(&place, A));
        assert_eq!(judge(&place, before, B), Ok(Judged::Overtaken));
    }
}

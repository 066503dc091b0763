//! The devices, and the accesses to them.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use vm_device::{Access, Device, GuestAddress, Rejected, Resources};

use super::Manager;
use super::churn::World;
use super::oracle::{Answer, Claim, Judged, Place};
use super::random::Random;
use super::report::Violation;
use super::waits::Waits;
use crate::vmm::bridge::Accesses;

/// How deep the devices nest their accesses.
pub(super) const NESTING: u32 = 3;

thread_local! {
    /// What the callback that ended last on this thread saw.
    static ANSWER: Cell<Option<Answer>> = const { Cell::new(None) };
    /// The decisions of the callbacks on this thread.
    static DECISIONS: Cell<Random> = const { Cell::new(Random::new(0, 0)) };
    /// How many callbacks are running on this thread.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Whether a callback of this thread has changed the topology since this was cleared.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
    /// What became of the accesses of this thread.
    static TALLY: Cell<Tally> = const { Cell::new(Tally { answered: 0, refused: 0, nested: 0 }) };
}

/// What became of the accesses of one thread, those of its callbacks included.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    /// They reached a device.
    pub(crate) answered: u64,
    /// They did not.
    pub(crate) refused: u64,
    /// How many of both came from callbacks.
    pub(crate) nested: u64,
}

/// What readers fill their buffers with: no device's answer, and not open bus.
const POISON: u8 = 0xee;

fn decide<T>(decision: impl FnOnce(&mut Random) -> T) -> T {
    let mut random = DECISIONS.get();
    let decided = decision(&mut random);
    DECISIONS.set(random);
    decided
}

/// Takes some time, about a cycle a step. (`PAUSE` would take very different times on different hosts.)
pub(crate) fn stay_for(steps: u64) {
    (0..steps).for_each(|step| {
        std::hint::black_box(step);
    });
}

/// A device that knows whether it may be called. It accesses others and changes the topology from within its callbacks.
pub(crate) struct Probe<'d> {
    name: String,
    number: u8,
    /// Whether a write removes another device.
    ejects: bool,
    /// Odd from before the registration until the removal has returned.
    generation: AtomicU64,
    /// The generation in which the device was last told of its resources.
    configured: AtomicU64,
    /// Callbacks, noted when they end: before that, this would be the fence that may be missing.
    calls: AtomicU64,
    pub(crate) world: OnceLock<&'d World<'d>>,
}

impl<'d> Probe<'d> {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            name: format!("probe{number}"),
            number,
            ejects: false,
            generation: AtomicU64::new(0),
            configured: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            world: OnceLock::new(),
        }
    }

    /// An eject register: a write removes another device, deferred.
    pub(crate) fn that_ejects(self) -> Self {
        Self { ejects: true, ..self }
    }

    /// It may be called from now on; or, the next time, no more.
    pub(crate) fn next_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// How often it was called.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// What it fills byte number `index` of a read with.
    const fn byte(number: u8, index: usize) -> u8 {
        number * 8 + index as u8 + 1
    }

    fn called(&self, access: &Access<'_>, write: bool) {
        let Some(world) = self.world.get() else { return };
        let generation = self.generation.load(Ordering::Acquire);
        if generation.is_multiple_of(2) {
            world.violations.note(Violation::EnteredAfterRemoval);
        } else if self.configured.load(Ordering::Acquire) != generation {
            world.violations.note(Violation::EnteredBeforeRegistration);
        }
        let draw = decide(Random::next);
        // A stay of any order of magnitude; now and then one that a removal has to wait for.
        let stay = if draw & 0xff == 0 { 1 << 14 } else { (draw >> 8) % (1 << ((draw >> 40) % world.stays)) };
        stay_for(stay);
        DEPTH.set(DEPTH.get() + 1);
        if draw >> 16 & 7 == 0 && DEPTH.get() <= NESTING {
            let nested = decide(|random| Request::draw(random, &world.places));
            if draw >> 20 & 3 == 0 {
                world.access(&mut { world.manager() }, nested);
            } else {
                world.access(&mut world.manager().nested(access), nested);
            }
        }
        if self.ejects && write {
            CHANGED.set(true);
            decide(|random| world.eject(random));
        }
        if draw >> 24 & 0x1ff == 0 {
            CHANGED.set(true);
            decide(|random| world.change_from_callback(random));
        }
        DEPTH.set(DEPTH.get() - 1);
        if self.generation.load(Ordering::Acquire) != generation {
            world.violations.note(Violation::RemovedDuringCallback);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        let claim = Claim::of(self.number, access.base().0);
        ANSWER.set(Some(Answer { claim, address: access.address(), offset: access.offset() }));
    }
}

impl<'d> Device<'d> for Probe<'d> {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.called(access, false);
        data.iter_mut().enumerate().for_each(|(index, byte)| *byte = Self::byte(self.number, index));
    }

    fn write(&self, access: &Access<'_>, _: &[u8]) {
        self.called(access, true);
    }

    fn set_resources(&self, _: &Resources<'_, 'd>) -> Result<(), Rejected> {
        // Long enough for an access to come in between, if one could.
        stay_for(100);
        self.configured.store(self.generation.load(Ordering::Acquire), Ordering::Release);
        Ok(())
    }
}

/// One access that is to be made.
#[derive(Clone, Copy)]
pub(crate) struct Request<'p> {
    pub(crate) place: &'p Place,
    pub(crate) address: GuestAddress,
    pub(crate) size: usize,
    pub(crate) write: bool,
}

impl<'p> Request<'p> {
    pub(crate) fn draw(random: &mut Random, places: &'p [Place]) -> Self {
        let place = random.below(places.len());
        Self::draw_at(random, &places[place])
    }

    /// 1, 2, 4 or 8 bytes somewhere in the place, aligned or not.
    pub(crate) fn draw_at(random: &mut Random, place: &'p Place) -> Self {
        let draw = random.next();
        let size = 1 << (draw & 3);
        let offset = (draw >> 8) % (place.length - size + 1);
        Self { place, address: GuestAddress(place.base + offset), size: size as usize, write: draw & 4 != 0 }
    }
}

impl<'d> World<'d> {
    pub(crate) fn manager(&self) -> &Manager<'d> {
        &self.manager
    }

    /// Makes an access and judges it. Whether it could be judged.
    pub(crate) fn access(&self, caller: &mut impl Accesses, request: Request<'_>) -> bool {
        let mut data = [0; 8];
        self.access_with(caller, request, &mut data[..request.size])
    }

    /// The same with the data of a guest.
    pub(crate) fn access_with(&self, caller: &mut impl Accesses, request: Request<'_>, data: &mut [u8]) -> bool {
        let Request { place, address, write, .. } = request;
        if !write {
            data.fill(POISON);
        }
        ANSWER.set(None);
        let before = place.stage();
        let result =
            if write { caller.write(address, data, place.io_type) } else { caller.read(address, data, place.io_type) };
        let after = place.stage();
        let answer = ANSWER.take();
        let mut tally = TALLY.get();
        tally.answered += u64::from(result.is_ok());
        tally.refused += u64::from(result.is_err());
        tally.nested += u64::from(DEPTH.get() > 0);
        TALLY.set(tally);
        let device = answer.and_then(|answer| answer.claim.device());
        let expected = |index| device.map_or(0xff, |number| Probe::byte(number, index));
        if !write && data.iter().enumerate().any(|(index, byte)| *byte != expected(index)) {
            self.violations.note(Violation::UndefinedBytes);
        }
        match place.judge(before, after, address, result, answer) {
            Ok(judged) => judged == Judged::Right,
            Err(violation) => {
                self.violations.note(violation);
                true
            }
        }
    }
}

/// The accesses of one thread.
pub(crate) struct Reader {
    pub(crate) accesses: u64,
    pub(crate) unjudged: u64,
    pub(crate) waits: Waits,
}

impl Reader {
    /// The reader of the calling thread.
    pub(crate) fn new(seed: u64, thread: u64) -> Self {
        DECISIONS.set(Random::new(!seed, thread));
        TALLY.set(Tally::default());
        Self { accesses: 0, unjudged: 0, waits: Waits::default() }
    }

    /// What became of this thread's accesses so far.
    pub(crate) fn tally(&self) -> Tally {
        TALLY.get()
    }

    /// Makes, judges and times an access.
    pub(crate) fn access(
        &mut self,
        world: &World<'_>,
        caller: &mut impl Accesses,
        request: Request<'_>,
        data: &mut [u8],
    ) {
        CHANGED.set(false);
        let start = Instant::now();
        let judged = world.access_with(caller, request, data);
        let time = start.elapsed();
        if !CHANGED.get() {
            self.waits.note(time);
        }
        self.accesses += 1;
        self.unjudged += u64::from(!judged);
    }
}

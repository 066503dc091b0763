//! Accesses, and the verdict on each.

use std::cell::Cell;
use std::time::Instant;

use vm_device::{Accesses, DeviceManager, GuestAddress, Storage};

use super::counts::{Violation, Violations};
use super::options::MAX_HANDLES;
use super::oracle::{Answer, Judged, Place};
use super::waits::Waits;
use crate::random::Random;

/// Room for all devices of a run.
pub(crate) type Room<'d> = Storage<'d, 48, 48, MAX_HANDLES>;

/// The manager, the places where its devices come and go, and what did not hold there.
pub(crate) struct Field<'d> {
    /// The manager under test.
    pub(crate) manager: DeviceManager<'d>,
    pub(crate) places: Vec<Place>,
    pub(crate) violations: Violations,
}

thread_local! {
    /// What the callback that ended last on this thread saw.
    static ANSWER: Cell<Option<Answer>> = const { Cell::new(None) };
    /// The decisions of the callbacks on this thread.
    static DECISIONS: Cell<Random> = const { Cell::new(Random::new(0, 0)) };
    /// How many callbacks are running on this thread.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Whether a callback of this thread has changed the topology since this was cleared.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
    /// Whether the access that this thread is making, not from within a callback, is one that is split.
    static SPLITTING: Cell<bool> = const { Cell::new(false) };
    /// What became of the accesses of this thread.
    static TALLY: Cell<Tally> = const { Cell::new(Tally { answered: 0, refused: 0, nested: 0 }) };
}

/// Decides for a callback on this thread.
pub(super) fn decide<T>(decision: impl FnOnce(&mut Random) -> T) -> T {
    let mut random = DECISIONS.get();
    let decided = decision(&mut random);
    DECISIONS.set(random);
    decided
}

/// Does what a callback does besides answering. It is told how many callbacks are running on this thread, this one included.
pub(super) fn in_callback(work: impl FnOnce(u32)) {
    let depth = DEPTH.get() + 1;
    DEPTH.set(depth);
    work(depth);
    DEPTH.set(depth - 1);
}

/// A callback of this thread changes the topology.
pub(super) fn note_change() {
    CHANGED.set(true);
}

/// What the callback that is about to end on this thread saw.
pub(super) fn note_answer(answer: Answer) {
    ANSWER.set(Some(answer));
}

/// Whether the callback that is about to end on this thread is for a piece of a split access, which is not among those that are
/// judged.
pub(super) fn is_piece() -> bool {
    SPLITTING.get() && DEPTH.get() == 0
}

/// What a device fills byte number `index` of a read with.
pub(super) const fn byte_of(device: u8, index: usize) -> u8 {
    device * 8 + index as u8 + 1
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

impl Field<'_> {
    /// Makes an access and judges it. Whether it could be judged.
    pub(crate) fn access(&self, caller: &mut impl Accesses, request: Request<'_>) -> bool {
        let mut data = [0; 8];
        self.access_with(caller, request, &mut data[..request.size])
    }

    /// Reads over the end of a place: what lies behind it is another's, or nobody's. Each byte is a device's or open bus.
    pub(crate) fn split(&self, caller: &mut impl Accesses, random: &mut Random, place: &Place) {
        let draw = random.next();
        let size = 2 << (draw & 1);
        let before = 1 + (draw >> 8) % (size - 1);
        let mut data = [POISON; 4];
        let data = &mut data[..size as usize];
        SPLITTING.set(true);
        // Whether all of it has found a device is for the devices to say.
        let _ = caller.read(GuestAddress(place.base + place.length - before), data, place.io_type);
        SPLITTING.set(false);
        if data.contains(&POISON) {
            self.violations.note(Violation::UndefinedBytes);
        }
    }

    /// As [`access`](Self::access), with the data of a guest.
    fn access_with(&self, caller: &mut impl Accesses, request: Request<'_>, data: &mut [u8]) -> bool {
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
        let expected = |index| device.map_or(0xff, |number| byte_of(number, index));
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
    pub(crate) splits: u64,
    pub(crate) waits: Waits,
}

impl Reader {
    /// The reader of the calling thread.
    pub(crate) fn new(seed: u64, thread: u64) -> Self {
        DECISIONS.set(Random::new(!seed, thread));
        TALLY.set(Tally::default());
        Self { accesses: 0, unjudged: 0, splits: 0, waits: Waits::default() }
    }

    /// What became of this thread's accesses so far.
    pub(crate) fn tally(&self) -> Tally {
        TALLY.get()
    }

    /// Makes, judges and times an access.
    pub(crate) fn access(
        &mut self,
        field: &Field<'_>,
        caller: &mut impl Accesses,
        request: Request<'_>,
        data: &mut [u8],
    ) {
        CHANGED.set(false);
        let start = Instant::now();
        let judged = field.access_with(caller, request, data);
        let time = start.elapsed();
        if !CHANGED.get() {
            self.waits.note(time);
        }
        self.accesses += 1;
        self.unjudged += u64::from(!judged);
    }
}

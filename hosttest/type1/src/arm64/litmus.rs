//! The pattern that the fence is for, by itself (store buffering): each of two processors stores a word of its own, and then loads the
//! other's. As an access does, the second has no fence between; as a removal does, the first executes the heavy barrier. Then at
//! least one sees the other's store.
//!
//! A processor may have stored before others see it: its store waits in a buffer while it loads. Here the second has a buffer of its own
//! besides, in which its store waits for a while, and which the handler of the barrier's interrupt empties, as the barrier does the
//! processor's. So a round in which both miss the other's store does not take luck: in every second round the first executes a fence of
//! its own instead of the barrier, and in many of these both miss. With the barrier they never may, on any processor and emulator.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};

use spin::Mutex;
use vm_device::devices::time::Clock;

use super::barrier;
use super::host::HostClock;
use crate::power::POWER;

/// How many rounds there are at a time, unless they take longer than this, in nanoseconds.
const ROUNDS: u64 = 1 << 10;
const TIME: u64 = 500_000_000;
/// One of so many rounds has the barrier.
const WITH_BARRIER: u64 = 2;
/// How many turns a store stays in the buffer.
const BUFFERED: u32 = 500;
/// How long one waits for the other, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// A word that shares its cache line with no other.
#[repr(align(256))]
struct Word(AtomicU64);

impl Word {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

/// Twice the round that the first has begun, and one more if it is the last for now.
static BEGUN: Word = Word::new();
/// The last round that the second has ended.
static ENDED: Word = Word::new();
/// The first's word, and the second's.
static FIRST: Word = Word::new();
static SECOND: Word = Word::new();
/// What the second is going to store in its word: its buffer.
static BUFFER: Word = Word::new();
/// The last round in which the second has loaded the first's word.
static HAS_LOADED: Word = Word::new();
/// What the second has loaded of the first's.
static LOADED: Word = Word::new();

/// How many rounds were made, and in how many of them both missed the other's store.
#[derive(Clone, Copy)]
pub struct Count {
    pub rounds: u64,
    pub missed: u64,
}

/// What was found.
#[derive(Clone, Copy)]
pub struct Counts {
    pub with_barrier: Count,
    pub without: Count,
}

static COUNTS: Mutex<Counts> = {
    let none = Count { rounds: 0, missed: 0 };
    Mutex::new(Counts { with_barrier: none, without: none })
};

/// What was found in all rounds.
pub fn counts() -> Counts {
    *COUNTS.lock()
}

/// Waits until a word is at least `value`. Whether it is.
fn wait_for(word: &Word, value: u64) -> bool {
    let begun = HostClock.now();
    let mut turns = 0_u32;
    while word.0.load(Ordering::Acquire) < value {
        spin_loop();
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(1024) && (POWER.ended().is_some() || HostClock.now() - begun > PATIENCE) {
            return false;
        }
    }
    true
}

/// The first's part. The second's begins at about the same time.
pub fn first() {
    let begun = HostClock.now();
    for number in 1_u64.. {
        let round = (BEGUN.0.load(Ordering::Relaxed) >> 1) + 1;
        let with_barrier = round.is_multiple_of(WITH_BARRIER);
        let is_last = number == ROUNDS || HostClock.now() - begun > TIME;
        BEGUN.0.store(round << 1 | u64::from(is_last), Ordering::SeqCst);
        // In two of four rounds the second has loaded before the first stores; in the others one may come before the other.
        if round & 2 != 0 && !wait_for(&HAS_LOADED, round) {
            return;
        }
        FIRST.0.store(round, Ordering::SeqCst);
        if with_barrier {
            barrier::execute();
        } else {
            fence(Ordering::SeqCst);
        }
        let seen = SECOND.0.load(Ordering::SeqCst);
        if !wait_for(&ENDED, round) {
            return;
        }
        let counts = &mut *COUNTS.lock();
        let count = if with_barrier { &mut counts.with_barrier } else { &mut counts.without };
        count.rounds += 1;
        count.missed += u64::from(seen < round && LOADED.0.load(Ordering::Relaxed) < round);
        if is_last {
            return;
        }
    }
}

/// Stores what is in the second's buffer. It may be interrupted by itself: both store the same.
fn empty_buffer() {
    SECOND.0.store(BUFFER.0.load(Ordering::Relaxed), Ordering::Release);
}

/// The processor that calls it is to execute a barrier.
pub fn before_barrier() {
    if barrier::current() != 0 {
        empty_buffer();
    }
}

/// The second's part.
pub fn second() {
    let mut is_last = false;
    while !is_last && wait_for(&BEGUN, (ENDED.0.load(Ordering::Relaxed) + 1) << 1) {
        let begun = BEGUN.0.load(Ordering::Relaxed);
        is_last = begun & 1 != 0;
        let round = begun >> 1;
        BUFFER.0.store(round, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let loaded = FIRST.0.load(Ordering::Relaxed);
        HAS_LOADED.0.store(round, Ordering::Release);
        for _ in 0..BUFFERED {
            spin_loop();
        }
        empty_buffer();
        fence(Ordering::SeqCst);
        LOADED.0.store(loaded, Ordering::Relaxed);
        ENDED.0.store(round, Ordering::Release);
    }
}

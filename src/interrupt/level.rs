//! The level of a line: what its sources assert, and what the interrupt controller has taken of it.

use super::controller::{Gsi, InterruptController, InterruptError, MAX_SHARING};
use crate::orderings;
use crate::sync::{AtomicU32, Ordering, const_fn, spin_once};

/// A line, as its controller knows it.
#[derive(Clone, Copy)]
pub(crate) struct ControllerLine<'d> {
    pub(crate) controller: &'d dyn InterruptController,
    pub(crate) gsi: Gsi,
}

/// The level of one line: which sources assert it, and what the controller has taken.
///
/// One caller at a time tells the controller a change of level: the *teller*. A caller that finds a teller leaves its change to
/// it: the teller looks at the sources after each call of the controller, and tells the level again if it has changed. The
/// teller's last call has a state of its own: a drive that finds it waits for that call and then tells the level itself; a
/// removal that finds it leaves the line owed. So no change is lost, and no caller tells the changes of others without bound.
///
/// A level that the controller refuses is not taken: the next drive of any source tells it again.
///
/// The end of an interrupt says that the controller may have let an asserted level go: it is told again. While there is a teller,
/// it is the teller that does so.
pub(crate) struct LineLevel {
    word: AtomicU32,
}

/// The bits of a line's word that belong to no source. They say which level the controller has taken, or that it is being
/// called.
const STATE: u32 = 0b11 << 30;
/// The controller has taken "deasserted", or was never called.
const LOW: u32 = 0b00 << 30;
/// The controller has taken "asserted".
const HIGH: u32 = 0b01 << 30;
/// A caller tells the controller the level, and looks at the level again afterwards.
const TELLING: u32 = 0b10 << 30;
/// A caller tells the controller the level for the last time.
const LAST_TELLING: u32 = 0b11 << 30;
/// Beside a level that was taken, or that is being told: an interrupt has ended since, so that an asserted level is to be told
/// again. Beside `LOW` it does not stand.
const ENDED: u32 = 1 << 29;
const SOURCES: u32 = ENDED - 1;

/// How often one caller calls the controller, at most.
const MAX_TELLINGS: u32 = 4;

const _: () = assert!(SOURCES == (1 << MAX_SHARING) - 1);

/// The state of a line on which the controller has taken a level.
const fn taken(level: bool) -> u32 {
    if level { HIGH } else { LOW }
}

/// The same, where an interrupt may have ended since.
const fn at_rest(level: bool, again: bool) -> u32 {
    taken(level) | if level && again { ENDED } else { 0 }
}

impl LineLevel {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { word: AtomicU32::new(LOW) }
        }
    }

    /// Makes it as new. No handle reaches the line.
    #[cfg(feature = "alloc")]
    pub(crate) fn clear(&self) {
        self.word.store(LOW, Ordering::Release);
    }

    /// Whether the controller has taken the line's level.
    pub(crate) fn is_settled(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word & (STATE | ENDED) == taken(word & SOURCES != 0)
    }

    /// Whether the source asserts the line.
    pub(crate) fn is_asserted_by(&self, source: u32) -> bool {
        self.word.load(Ordering::Acquire) & source & SOURCES != 0
    }

    /// Sets what the source asserts, without telling the controller.
    pub(crate) fn set(&self, source: u32, asserted: bool) {
        if asserted {
            self.word.fetch_or(source & SOURCES, Ordering::AcqRel);
        } else {
            self.word.fetch_and(!(source & SOURCES), Ordering::AcqRel);
        }
    }

    pub(crate) fn drive(&self, source: u32, asserted: bool, to: ControllerLine<'_>) -> Result<(), InterruptError> {
        self.set(source, asserted);
        self.settle(to, true)
    }

    /// As [`drive`](Self::drive) with an assertion, but waits for a caller that is telling the controller: `Ok` says that the
    /// controller has taken it.
    pub(crate) fn assert_taken(&self, source: u32, to: ControllerLine<'_>) -> Result<(), InterruptError> {
        self.set(source, true);
        loop {
            match self.settle(to, true) {
                Err(InterruptError::Pending) => spin_once(),
                outcome => return outcome,
            }
        }
    }

    /// An interrupt of the line has ended: what the controller has taken, or is being told, it may have let go. An asserted level
    /// is to be told again, by the caller that tells it now, or by the next that [settles](Self::settle_still) or drives it.
    pub(crate) fn note_end(&self) {
        // A plain load could see the line as it was before the controller was told, if nothing else orders this caller after that.
        let mut word = self.word.fetch_or(0, Ordering::AcqRel);
        while word & STATE != LOW && (orderings::END_NOTED || word & STATE == HIGH) {
            match self.begin(word, word & STATE | ENDED) {
                Ok(()) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Tells the controller the level, unless it has taken it and no interrupt has ended since.
    pub(super) fn settle_still(&self, to: ControllerLine<'_>) -> Result<(), InterruptError> {
        self.settle(to, true)
    }

    /// Takes an assertion back as [`drive`](Self::drive) does, but never waits: the caller looks afterwards whether the line is
    /// settled. It must not wait, because a controller may remove devices and collect from within the very call that would be
    /// waited for.
    pub(crate) fn release(&self, source: u32, to: ControllerLine<'_>) {
        self.set(source, false);
        let _ = self.settle(to, false);
    }

    /// Tells the controller the level, unless it has taken it or another caller tells it.
    fn settle(&self, to: ControllerLine<'_>, waits: bool) -> Result<(), InterruptError> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let level = word & SOURCES != 0;
            match word & STATE {
                TELLING => return Err(InterruptError::Pending),
                LAST_TELLING if !waits => return Err(InterruptError::Pending),
                LAST_TELLING => {
                    spin_once();
                    word = self.word.load(Ordering::Acquire);
                }
                state if state | word & ENDED == taken(level) => return Ok(()),
                state => match self.begin(word, TELLING) {
                    Ok(()) => {
                        let again = word & ENDED != 0;
                        return Teller { line: self, state: TELLING, taken: state == HIGH, again }.tell(level, to);
                    }
                    Err(now) => word = now,
                },
            }
        }
    }

    /// Gives the line another state if its word has not changed.
    fn begin(&self, word: u32, state: u32) -> Result<(), u32> {
        let new = word & SOURCES | state;
        self.word.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }
}

/// The caller that tells the controller the level of a line. Where the controller unwinds, dropping it sets the line's state to
/// the level that the controller has taken.
struct Teller<'a> {
    line: &'a LineLevel,
    /// The line's state.
    state: u32,
    /// The level that the controller has taken last.
    taken: bool,
    /// An interrupt has ended since, so that an asserted level is to be told again.
    again: bool,
}

impl Teller<'_> {
    fn tell(mut self, mut level: bool, to: ControllerLine<'_>) -> Result<(), InterruptError> {
        let mut tellings = 1;
        loop {
            // `Pending` is this crate's word, for what another caller is doing.
            let told = to.controller.set_level(to.gsi, level).map_err(|error| match error {
                InterruptError::Pending => InterruptError::Refused,
                error => error,
            });
            if told.is_ok() {
                (self.taken, self.again) = (level, false);
            }
            if !orderings::SECOND_LOOK {
                return told;
            }
            let mut word = self.line.word.load(Ordering::Acquire);
            loop {
                let now = word & SOURCES != 0;
                // An assertion that the controller has taken it may have let go at the end of an interrupt.
                let again = self.again || word & ENDED != 0;
                let is_taken = now == self.taken && !(now && again);
                let refused = told.is_err() && now == level;
                let next = if is_taken || refused || tellings == MAX_TELLINGS {
                    at_rest(self.taken, again)
                } else if tellings + 1 == MAX_TELLINGS {
                    LAST_TELLING
                } else {
                    TELLING
                };
                if let Err(changed) = self.line.begin(word, next) {
                    word = changed;
                    continue;
                }
                (self.state, self.again) = (next, again);
                if is_taken {
                    return Ok(());
                }
                if refused {
                    return told;
                }
                if tellings == MAX_TELLINGS {
                    // The caller that has changed the level since then is waiting, and tells it, or has left the line owed.
                    return Err(InterruptError::Pending);
                }
                (tellings, level) = (tellings + 1, now);
                break;
            }
        }
    }
}

impl Drop for Teller<'_> {
    fn drop(&mut self) {
        // No other caller changes the state while the controller is called, but for the end of an interrupt.
        if self.state & TELLING != 0 {
            let mut word = self.line.word.load(Ordering::Acquire);
            while let Err(now) = self.line.begin(word, at_rest(self.taken, self.again || word & ENDED != 0)) {
                word = now;
            }
        }
    }
}

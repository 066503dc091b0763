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
/// Beside `TELLING`: an interrupt has ended meanwhile, so that an asserted level is to be told again.
const ENDED: u32 = 1 << 29;
const SOURCES: u32 = ENDED - 1;

/// How often one caller calls the controller, at most.
const MAX_TELLINGS: u32 = 4;

const _: () = assert!(SOURCES == (1 << MAX_SHARING) - 1);

/// The state of a line on which the controller has taken a level.
const fn taken(level: bool) -> u32 {
    if level { HIGH } else { LOW }
}

impl LineLevel {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { word: AtomicU32::new(LOW) }
        }
    }

    /// Whether the controller has taken the line's level.
    pub(crate) fn is_settled(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word & STATE == taken(word & SOURCES != 0)
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

    pub(super) fn drive(&self, source: u32, asserted: bool, to: ControllerLine<'_>) -> Result<(), InterruptError> {
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

    /// An interrupt of the line has ended: if the line is asserted still, the controller is told so again.
    pub(super) fn end_interrupt(&self, to: ControllerLine<'_>) -> Result<(), InterruptError> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let (state, level) = (word & STATE, word & SOURCES != 0);
            let changed = match state {
                LAST_TELLING => {
                    spin_once();
                    word = self.word.load(Ordering::Acquire);
                    continue;
                }
                TELLING if orderings::END_NOTED => {
                    self.begin(word, TELLING | ENDED).map(|()| Err(InterruptError::Pending))
                }
                HIGH if level => self
                    .begin(word, TELLING)
                    .map(|()| Teller { line: self, state: TELLING, taken: false }.tell(true, to)),
                _ => return self.settle(to, true),
            };
            match changed {
                Ok(outcome) => return outcome,
                Err(now) => word = now,
            }
        }
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
                state if state == taken(level) => return Ok(()),
                _ => match self.begin(word, TELLING) {
                    Ok(()) => return Teller { line: self, state: TELLING, taken: !level }.tell(level, to),
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
}

impl Teller<'_> {
    fn tell(mut self, mut level: bool, to: ControllerLine<'_>) -> Result<(), InterruptError> {
        let mut tellings = 1;
        loop {
            let told = to.controller.set_level(to.gsi, level);
            if told.is_ok() {
                self.taken = level;
            }
            if !orderings::SECOND_LOOK {
                return told;
            }
            let mut word = self.line.word.load(Ordering::Acquire);
            loop {
                let now = word & SOURCES != 0;
                // An assertion that the controller has taken it may have let go at the end of an interrupt.
                let is_taken = self.taken && !(now && word & ENDED != 0);
                let refused = told.is_err() && now == level;
                let next = if now == is_taken || refused || tellings == MAX_TELLINGS {
                    taken(is_taken)
                } else if tellings + 1 == MAX_TELLINGS {
                    LAST_TELLING
                } else {
                    TELLING
                };
                if let Err(changed) = self.line.begin(word, next) {
                    word = changed;
                    continue;
                }
                (self.state, self.taken) = (next, is_taken);
                if now == is_taken {
                    return Ok(());
                }
                if refused {
                    return told;
                }
                if tellings == MAX_TELLINGS {
                    // The caller that has changed the level since then is waiting, and tells it.
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
            while let Err(now) = self.line.begin(word, taken(self.taken && word & ENDED == 0)) {
                word = now;
            }
        }
    }
}

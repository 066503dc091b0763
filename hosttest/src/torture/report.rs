//! What a run has counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::probe::{Reader, Tally};
use super::waits::Waits;

/// Defines an enum whose variants are counted, each with what a report calls it.
macro_rules! counted {
    ($(#[$attribute:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every one there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            const COUNT: usize = Self::ALL.len();
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $text,)* })
            }
        }
    };
}

counted! {
    /// A guarantee that did not hold.
    Violation {
        /// A callback was entered though a removal of the device had returned.
        EnteredAfterRemoval = "callback entered after its device's removal returned",
        /// A removal returned while a callback of the device was running.
        RemovedDuringCallback = "removal returned while a callback was running",
        /// A callback was entered before the device had been told of its resources.
        EnteredBeforeRegistration = "callback entered before the registration was finished",
        /// An access did not reach a device whose registration had returned.
        Lost = "access lost after the registration returned",
        /// An access found a moving range nowhere, though both places hold the address; or found it where it was not.
        Relocation = "moving range found at neither place, or at both",
        /// A device was called with a base or an offset that is not its own.
        WrongBase = "wrong base or offset",
        /// An access reached another device than the one that is there.
        Stale = "stale device",
        /// A read left bytes undefined.
        UndefinedBytes = "undefined bytes in a read",
        /// An operation or an access was refused for a reason that was not there.
        Refused = "refused without a reason",
        /// An access, or an exit, that was neither counted by a device nor refused.
        Unaccounted = "access not accounted for",
    }
}

counted! {
    /// A change of the topology.
    Round {
        /// A registration.
        Registered = "registered",
        /// A removal that waits.
        Removed = "removed",
        /// A deferred removal.
        Deferred = "removed deferred",
        /// A deferred removal through the eject register.
        Ejected = "ejected",
        /// A range moved to a free place.
        Moved = "moved",
        /// A range moved to a place that overlaps its own.
        Shifted = "shifted",
        /// Two ranges changed places.
        Swapped = "swapped",
        /// Decoding turned on or off.
        Decoding = "decoding turned",
        /// A bus moved together with what is on it.
        SubtreeMoved = "subtree moved",
        /// A bus removed together with what is on it.
        SubtreeRemoved = "subtree removed",
    }
}

/// How often each guarantee did not hold.
#[derive(Default, Debug)]
pub struct Violations([AtomicU64; Violation::COUNT]);

impl Violations {
    pub(crate) fn copy(&self) -> Self {
        Self(std::array::from_fn(|index| AtomicU64::new(self.0[index].load(Ordering::Relaxed))))
    }

    pub(crate) fn note(&self, violation: Violation) {
        self.0[violation as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often this one did not.
    pub fn of(&self, violation: Violation) -> u64 {
        self.0[violation as usize].load(Ordering::Relaxed)
    }

    /// How often any did not.
    pub fn total(&self) -> u64 {
        Violation::ALL.iter().map(|violation| self.of(*violation)).sum()
    }
}

/// How many changes there were of each kind.
#[derive(Default, Debug)]
pub struct Rounds([AtomicU64; Round::COUNT]);

impl Rounds {
    pub(crate) fn copy(&self) -> Self {
        Self(std::array::from_fn(|index| AtomicU64::new(self.0[index].load(Ordering::Relaxed))))
    }

    pub(crate) fn note(&self, round: Round) {
        self.0[round as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many of this kind.
    pub fn of(&self, round: Round) -> u64 {
        self.0[round as usize].load(Ordering::Relaxed)
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        Round::ALL.iter().map(|round| self.of(*round)).sum()
    }
}

/// Everything a run has counted.
#[derive(Default, Debug)]
pub struct Report {
    /// What was run.
    pub title: String,
    /// How long it took.
    pub elapsed: Duration,
    /// Accesses of readers, or exits of the guest.
    pub accesses: u64,
    /// Accesses of devices to devices, from within callbacks.
    pub nested: u64,
    /// Accesses of both kinds that reached a device.
    pub answered: u64,
    /// Accesses of both kinds that did not: no device was there.
    pub refused: u64,
    /// Accesses that more changes overtook than are remembered, which is why only the devices judged them.
    pub unjudged: u64,
    /// Changes.
    pub rounds: Rounds,
    /// Removals that gave up because a callback did not end in time; they were tried again.
    pub gave_up: u64,
    /// How long accesses took, callback included; without those whose callbacks changed the topology.
    pub access: Waits,
    /// How long removals took that wait.
    pub removal: Waits,
    /// What did not hold.
    pub violations: Violations,
    /// Further lines.
    pub notes: Vec<String>,
}

impl Report {
    /// Adds the accesses of one thread.
    pub(crate) fn add(&mut self, tally: Tally, reader: &Reader) {
        self.accesses += reader.accesses;
        self.unjudged += reader.unjudged;
        self.access.add(&reader.waits);
        self.nested += tally.nested;
        self.answered += tally.answered;
        self.refused += tally.refused;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        writeln!(f, "{}", self.title)?;
        writeln!(
            f,
            "  accesses    {} in {seconds:.1} s, {:.0} a second, and {} nested in them; {} of the {} found a device; {} \
             overtaken",
            self.accesses,
            self.accesses as f64 / seconds,
            self.nested,
            self.answered,
            self.accesses + self.nested,
            self.unjudged
        )?;
        write!(f, "  rounds      {}", self.rounds.total())?;
        let kinds = Round::ALL.iter().filter(|round| self.rounds.of(**round) > 0);
        for (round, before) in kinds.zip([":"].into_iter().chain(std::iter::repeat(","))) {
            write!(f, "{before} {} {round}", self.rounds.of(*round))?;
        }
        writeln!(f, "; {} removals gave up", self.gave_up)?;
        writeln!(f, "  access      {}", self.access)?;
        writeln!(f, "  removal     {}", self.removal)?;
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        write!(f, "  violations  {}", self.violations.total())?;
        for violation in Violation::ALL.iter().filter(|violation| self.violations.of(**violation) > 0) {
            write!(f, "\n    {:>8} {violation}", self.violations.of(*violation))?;
        }
        Ok(())
    }
}

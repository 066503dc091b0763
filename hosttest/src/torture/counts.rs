//! What is counted: the guarantees that did not hold, and the changes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

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
        /// An access did not reach a device although the registration had returned.
        Lost = "access lost after the registration returned",
        /// An access found a moving range nowhere, though both places hold the address; or found it where it was not.
        Relocation = "moving range found at neither place, or at both",
        /// A device was called with a base or an offset that is not its own.
        WrongBase = "wrong base or offset",
        /// An access reached another device than the one that is there.
        Stale = "stale device",
        /// A read left bytes undefined.
        UndefinedBytes = "undefined bytes in a read",
        /// A range is in another state, or at another place, than the changes so far lead to.
        State = "range in another state than it should be",
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
        /// A range gave up its place, and nobody waited for it.
        Unplaced = "unplaced",
        /// A range began to wait for a place that another one has.
        Queued = "left waiting",
        /// A change or a removal that gave a place to one that had waited for it.
        MadeWay = "made way for one that waits",
        /// A window moved without what is on its bus.
        WindowMoved = "window moved",
        /// A window became smaller or larger.
        WindowResized = "window resized",
        /// A window gave up its place, or got one again.
        WindowClosed = "window closed or opened",
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

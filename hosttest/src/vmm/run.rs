//! Runs a guest until it has ended, for a limited time.

use std::fmt;
use std::time::{Duration, Instant};

use vm_device::{Accesses, IoError};

use crate::vmm::bridge::answer;
use crate::vmm::exit::{Crash, Exit};
use crate::vmm::vcpu::Vcpu;
use crate::vmm::watchdog::Watchdog;

/// What happened during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Accesses, each an exit; a burst of string I/O counts once.
    pub exits: u64,
    /// Accesses that no device claims.
    pub unclaimed: u64,
    /// Accesses not wholly inside one range.
    pub straddling: u64,
    /// Accesses of a size that the device refuses, and anything else that reached none or failed there.
    pub refused: u64,
    /// How long the run took.
    pub elapsed: Duration,
}

impl Tally {
    pub(crate) fn count(&mut self, result: Result<(), IoError>) {
        self.exits += 1;
        match result {
            Ok(()) => {}
            Err(IoError::Unclaimed) => self.unclaimed += 1,
            Err(IoError::Straddling) => self.straddling += 1,
            Err(_) => self.refused += 1,
        }
    }
}

/// Why a guest did not come to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RunError {
    /// The guest halted.
    Halted {
        /// Where it stands.
        position: String,
    },
    /// The guest did not end in time.
    Hung {
        /// The time it had.
        limit: Duration,
        /// What happened until then.
        tally: Tally,
        /// Where it stands.
        position: String,
    },
    /// A device failed: the guest is stopped in the access that it has made.
    Failed {
        /// The device's code.
        code: u32,
        /// What happened until then.
        tally: Tally,
        /// Where it stands.
        position: String,
    },
    /// The guest cannot go on.
    Crashed {
        /// Why.
        crash: Crash,
        /// What happened until then.
        tally: Tally,
        /// Where it stands.
        position: String,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Halted { position } => write!(f, "the guest halted at {position}"),
            RunError::Hung { limit, position, .. } => {
                write!(f, "the guest hangs: no end within {limit:?}, it is at {position}")
            }
            RunError::Failed { code, position, .. } => {
                write!(f, "a device failed (code {code}), the guest is at {position}")
            }
            RunError::Crashed { crash, position, .. } => write!(f, "the guest crashed: {crash}, at {position}"),
        }
    }
}

impl std::error::Error for RunError {}

/// Runs `vcpu` and lets `accesses` answer, until `has_ended` says after an exit that the guest has ended, for at most `limit`.
/// A device that fails ends the run.
///
/// # Errors
/// [`RunError`] if the guest does not come to that.
pub fn run(
    vcpu: &mut Vcpu,
    accesses: &mut impl Accesses,
    limit: Duration,
    has_ended: impl FnMut() -> bool,
) -> Result<Tally, RunError> {
    run_with_ends(vcpu, accesses, limit, has_ended, |_| {})
}

/// The same for a machine without an in-kernel IOAPIC: calls `interrupt_ended` with the vector of each interrupt that the guest
/// has ended.
///
/// # Errors
/// As [`run`].
pub fn run_with_ends(
    vcpu: &mut Vcpu,
    accesses: &mut impl Accesses,
    limit: Duration,
    has_ended: impl FnMut() -> bool,
    interrupt_ended: impl FnMut(u8),
) -> Result<Tally, RunError> {
    struct Ends<F>(F);
    impl<F: FnMut(u8)> Interrupts for Ends<F> {
        fn ended(&mut self, vector: u8) {
            (self.0)(vector);
        }
    }
    run_with(vcpu, accesses, limit, has_ended, &mut Ends(interrupt_ended))
}

/// What a VMM does for the interrupts of a processor where KVM does not.
pub trait Interrupts {
    /// Enters the guest.
    fn enter<'v>(&mut self, vcpu: &'v mut Vcpu) -> Exit<'v> {
        vcpu.run()
    }

    /// The guest has ended the interrupt `vector`, on a machine without an in-kernel IOAPIC.
    fn ended(&mut self, vector: u8) {
        let _ = vector;
    }

    /// Waits for an interrupt for a while, for a guest that has halted.
    fn wait(&mut self, vcpu: &mut Vcpu) -> Halt {
        let _ = vcpu;
        Halt::ForGood
    }
}

/// What becomes of a guest that has halted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halt {
    /// An interrupt is there.
    Over,
    /// There is none yet.
    Waits,
    /// There will be none.
    ForGood,
}

/// As [`run`], with `interrupts` for what KVM does not do.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    vcpu: &mut Vcpu,
    accesses: &mut impl Accesses,
    limit: Duration,
    mut has_ended: impl FnMut() -> bool,
    interrupts: &mut impl Interrupts,
) -> Result<Tally, RunError> {
    let watchdog = Watchdog::start(limit);
    let start = Instant::now();
    let mut tally = Tally::default();
    let so_far = |tally: Tally| Tally { elapsed: start.elapsed(), ..tally };
    let mut is_halted = false;
    loop {
        if is_halted {
            match interrupts.wait(vcpu) {
                Halt::Over => is_halted = false,
                Halt::Waits => {}
                Halt::ForGood => return Err(RunError::Halted { position: vcpu.position() }),
            }
        } else {
            let mut exit = interrupts.enter(vcpu);
            match answer(&mut exit, accesses) {
                Some(result) => {
                    tally.count(result);
                    if let Err(IoError::Failed { code }) = result {
                        return Err(RunError::Failed { code, tally: so_far(tally), position: vcpu.position() });
                    }
                }
                None => match exit {
                    Exit::InterruptEnded { vector } => interrupts.ended(vector),
                    Exit::Halted => is_halted = true,
                    Exit::Crashed(crash) => {
                        return Err(RunError::Crashed { crash, tally: so_far(tally), position: vcpu.position() });
                    }
                    _ => {}
                },
            }
        }
        if has_ended() {
            return Ok(so_far(tally));
        }
        if watchdog.expired() {
            return Err(RunError::Hung { limit, tally: so_far(tally), position: vcpu.position() });
        }
    }
}

//! Runs a guest until it says, through the verdict device, whether it passed.

use std::fmt;
use std::time::Duration;

use vm_device::{Accesses, DeviceManager};

use super::scenario::{Failure, LIMIT, name_devices};
use super::shown::keep_map;
use crate::devices::verdict::{Finding, Verdict};
use crate::vmm::machine::Machine;
use crate::vmm::run::{RunError, Tally, run};
use crate::vmm::vcpu::{Ring, Vcpu};

/// Why a guest did not pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotPassed {
    /// The guest itself found something wrong.
    Failed(Finding),
    /// The guest gave no verdict.
    NoVerdict(RunError),
}

impl fmt::Display for NotPassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotPassed::Failed(finding) => write!(f, "the guest failed: {finding}"),
            NotPassed::NoVerdict(RunError::Halted { position }) => {
                write!(f, "the guest halted without a verdict at {position}")
            }
            NotPassed::NoVerdict(RunError::Hung { limit, position, .. }) => {
                write!(f, "the guest hangs: no verdict within {limit:?}, it is at {position}")
            }
            NotPassed::NoVerdict(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NotPassed {}

/// Runs `vcpu` until the guest gives its verdict, for at most `limit`.
///
/// # Errors
/// [`NotPassed`] unless the guest says that it passed.
pub fn run_to_verdict(
    vcpu: &mut Vcpu,
    accesses: &mut impl Accesses,
    verdict: &Verdict,
    limit: Duration,
) -> Result<Tally, NotPassed> {
    let tally = run(vcpu, accesses, limit, || verdict.given().is_some()).map_err(NotPassed::NoVerdict)?;
    match verdict.given() {
        Some(Err(finding)) => Err(NotPassed::Failed(finding)),
        _ => Ok(tally),
    }
}

/// Registers `verdict`, and runs `guest` in ring 3.
pub(super) fn run_guest<'d>(
    machine: &Machine,
    manager: &'d DeviceManager<'d>,
    verdict: &'d Verdict,
    guest: extern "C" fn(u64),
    argument: u64,
) -> Result<Tally, Failure> {
    manager.register_device(verdict, None, &[Verdict::resource()], &[])?;
    name_devices(manager);
    let mut vcpu = machine.start(0, Ring::User, guest, argument)?;
    let result = run_to_verdict(&mut vcpu, &mut manager.dispatcher(0)?, verdict, LIMIT);
    keep_map(manager);
    Ok(result?)
}

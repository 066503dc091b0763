//! The guests: what each does, and what its devices must have seen.

use std::fmt;
use std::time::Duration;

use kvm_ioctls::Kvm;
use vm_device::{IoRange, IrqResource, SystemAllocator};

use crate::Manager;
use crate::devices::verdict::Verdict;
use crate::vmm::machine::Machine;
use crate::vmm::run::{Tally, run};
use crate::vmm::vcpu::Ring;

pub mod access;
pub mod doorbell;
pub mod hotplug;
pub mod interrupts;
pub mod random;
pub mod string_io;
pub mod watchdog;

/// A guest together with the devices it finds.
pub struct Scenario {
    /// Its name on the command line: topic and title.
    pub name: &'static str,
    /// What the guest does, in a line.
    pub about: &'static str,
    /// Runs it: `Ok` only if the guest said that it passed and its devices saw what they should.
    pub run: fn(&Kvm) -> Result<Tally, Failure>,
}

/// All guests but the one of the [`platform`](crate::platform).
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [access::ALL, string_io::ALL, interrupts::ALL, hotplug::ALL, doorbell::ALL, random::ALL, watchdog::ALL]
        .into_iter()
        .flatten()
}

/// What went wrong, for a human.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// How long a guest may run: far more than any of them needs on a slow host.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// Where devices in memory lie: above the guest's RAM, below the interrupt controllers.
const DEVICE_MEMORY: u64 = 0xd000_0000;
const ABOVE_RAM: IoRange = IoRange::of::<DEVICE_MEMORY, { u64::MAX }>();

/// A manager without devices, over everything above the RAM, all ports and the GSIs that an 8259 does not get as well.
fn manager<'d>() -> Manager<'d> {
    Manager::new(SystemAllocator::new(ABOVE_RAM).with_ports(IoRange::ALL_PORTS).with_irqs(16, 23))
}

/// Registers `verdict`, and runs `guest` in ring 3.
fn run_guest<'d>(
    machine: &Machine,
    manager: &'d Manager<'d>,
    verdict: &'d Verdict,
    guest: extern "C" fn(u64),
    argument: u64,
) -> Result<Tally, Failure> {
    manager.register_device(verdict, None, &[Verdict::resource()], IrqResource::None)?;
    let mut vcpu = machine.start(0, Ring::User, guest, argument)?;
    Ok(run(&mut vcpu, &mut manager.dispatcher()?, verdict, LIMIT)?)
}

/// Compares what the host side recorded.
fn expect<S: PartialEq<E> + fmt::Debug, E: fmt::Debug>(what: &str, seen: S, expected: E) -> Result<(), Failure> {
    if seen == expected {
        return Ok(());
    }
    Err(Failure(format!("{what}: saw {seen:?}, expected {expected:?}")))
}

//! A guest together with the devices that it finds, and what its code and theirs have to agree on.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kvm_ioctls::Kvm;
use vm_device::owned::{BuildError, Builder, Capacities, OwnedManager};
use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};

use crate::vmm::run::Tally;
use crate::vmm::trace::Trace;

/// A guest together with the devices it finds.
pub struct Scenario {
    /// Its name on the command line: topic and title.
    pub name: &'static str,
    /// What the guest does, in a line.
    pub about: &'static str,
    /// Runs it: `Ok` only if the guest said that it passed and its devices saw what they should.
    pub run: fn(&Kvm) -> Result<Tally, Failure>,
}

/// What went wrong, for a human.
#[derive(Debug)]
pub struct Failure(pub(super) String);

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
pub(super) const DEVICE_MEMORY: u64 = 0xd000_0000;
pub(super) const ABOVE_RAM: IoRange = IoRange::of::<DEVICE_MEMORY, { u64::MAX }>();

/// Room for what a guest here finds.
pub(super) type Room<'d> = Storage<'d, 16, 32, 4>;

/// Where the accesses of all guests are written to, if anywhere.
static TRACE: OnceLock<Arc<Trace>> = OnceLock::new();

/// Writes the accesses of all guests that are run from now on to `trace`, which is returned. Without, they are made by hints. A
/// later call has no effect.
pub fn trace_to(trace: Trace) -> &'static Trace {
    TRACE.get_or_init(|| Arc::new(trace))
}

/// The trace knows the devices that `manager` has now by their paths.
pub(super) fn name_devices(manager: &DeviceManager<'_>) {
    if let Some(trace) = TRACE.get() {
        trace.name_devices(manager.walk().map(|info| (info.id, manager.path(info.id).to_string())));
    }
}

/// The same of a manager that owns its devices.
pub(super) fn name_owned_devices(manager: &OwnedManager) {
    if let Some(trace) = TRACE.get() {
        trace.name_devices(manager.walk().into_iter().map(|info| (info.id, manager.path(info.id))));
    }
}

/// Everything above the RAM, all ports and the GSIs that an 8259 does not get as well.
fn allocator() -> SystemAllocator {
    SystemAllocator::new(ABOVE_RAM).with_ports(IoRange::ALL_PORTS).with_irqs(16, 23)
}

/// A manager without devices, over what [`allocator`] has. The accesses are traced if [`trace_to`] says so.
pub(super) fn manager<'d>(room: &'d Room<'d>) -> DeviceManager<'d> {
    manager_over(room, allocator())
}

/// The same over what another allocator has.
pub(super) fn manager_over<'d>(room: &'d Room<'d>, allocator: SystemAllocator) -> DeviceManager<'d> {
    let manager = DeviceManager::new(room, allocator);
    match TRACE.get() {
        Some(trace) => manager.with_observer(&**trace),
        None => manager,
    }
}

/// The same as one that owns its devices, with as much room.
pub(super) fn owned_manager() -> Result<OwnedManager, BuildError> {
    let builder = Builder::new(Capacities { devices: 16, ranges: 32, vcpus: 4 }, allocator());
    match TRACE.get() {
        Some(trace) => builder.with_observer(trace.clone()),
        None => builder,
    }
    .build()
}

/// Compares what the host side recorded.
pub(super) fn expect<S: PartialEq<E> + fmt::Debug, E: fmt::Debug>(
    what: &str,
    seen: S,
    expected: E,
) -> Result<(), Failure> {
    if seen == expected {
        return Ok(());
    }
    Err(Failure(format!("{what}: saw {seen:?}, expected {expected:?}")))
}

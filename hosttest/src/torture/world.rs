//! The manager, the devices and the places of a run, and changes among them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use vm_device::{
    DeviceManager, HeavyBarrier, InstanceId, IoRange, IoResource, IoType, Relocation, Straddling, SystemAllocator,
    UnregisterError,
};

use super::access::{Field, Room};
use super::counts::{Round, Rounds, Violation, Violations};
use super::oracle::{Claim, Place};
use super::probe::Probe;
use super::report::Report;
use super::waits::Waits;

/// Everything that the threads of a run share.
pub(crate) struct World<'d> {
    pub(crate) field: Field<'d>,
    pub(super) probes: Vec<Probe<'d>>,
    rounds: Rounds,
    gave_up: AtomicU64,
    removals: Mutex<Waits>,
}

impl<'d> World<'d> {
    /// Without devices and places.
    pub(super) fn new(room: &'d Room<'d>, barrier: Option<HeavyBarrier>) -> Self {
        let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS);
        let manager = DeviceManager::new(room, allocator)
            .with_straddling(IoType::Pio, Straddling::Split)
            .with_straddling(IoType::Mmio, Straddling::Split);
        let manager = match barrier {
            Some(barrier) => manager.with_asymmetric_fence(barrier),
            None => manager,
        };
        Self {
            field: Field { manager, places: Vec::new(), violations: Violations::default() },
            probes: Vec::new(),
            rounds: Rounds::default(),
            gave_up: AtomicU64::new(0),
            removals: Mutex::default(),
        }
    }

    /// Adds a device that is made with its number.
    pub(super) fn add(&mut self, make: impl FnOnce(u8) -> Probe<'d>) -> usize {
        self.probes.push(make(self.probes.len() as u8));
        self.probes.len() - 1
    }

    pub(super) fn add_probe(&mut self) -> usize {
        self.add(Probe::new)
    }

    pub(super) fn add_place(&mut self, place: Place) -> usize {
        self.field.places.push(place);
        self.field.places.len() - 1
    }

    /// A number that grows with every access that reaches a device and with every change. Reading it orders nothing.
    pub(super) fn progress(&self) -> u64 {
        let calls: u64 = self.probes.iter().map(Probe::calls).sum();
        calls + self.rounds.total() + self.gave_up.load(Ordering::Relaxed)
    }

    /// When all threads have ended: whether everything adds up, and the counts so far.
    pub(crate) fn settle(&'d self, report: &mut Report) {
        let calls: u64 = self.probes.iter().map(Probe::calls).sum();
        if calls != report.answered || report.accesses + report.nested != report.answered + report.refused {
            self.field.violations.note(Violation::Unaccounted);
        }
        if self.field.manager.collect() != 0 {
            self.refused();
        }
        report.rounds = self.rounds.copy();
        report.violations = self.field.violations.copy();
        report.gave_up = self.gave_up.load(Ordering::Relaxed);
        report.removal = lock(&self.removals).clone();
    }

    /// Makes a change that gives places new claims. Whether it was made.
    pub(super) fn claim(&self, round: Round, claims: &[(usize, Claim)], change: impl FnOnce() -> bool) -> bool {
        claims.iter().for_each(|(place, claim)| self.field.places[*place].begin(*claim));
        let done = change();
        claims.iter().for_each(|(place, _)| self.field.places[*place].end(done));
        if done {
            self.rounds.note(round);
        }
        done
    }

    pub(super) fn register(
        &'d self,
        device: usize,
        parent: Option<InstanceId>,
        request: IoResource,
    ) -> Option<InstanceId> {
        let probe = &self.probes[device];
        probe.next_generation();
        let id = self.field.manager.register_device(probe, parent, &[request], &[]);
        if id.is_err() {
            probe.next_generation();
        }
        id.ok()
    }

    /// Removes, and waits for it. Whether it was done, rather than given up.
    pub(super) fn remove(
        &'d self,
        devices: &[usize],
        remove: impl FnOnce() -> Result<(), UnregisterError<&'d str>>,
    ) -> bool {
        let start = Instant::now();
        let result = remove();
        let time = start.elapsed();
        match result {
            Ok(()) => {
                devices.iter().for_each(|device| self.probes[*device].next_generation());
                lock(&self.removals).note(time);
                true
            }
            Err(UnregisterError::InUse { .. }) => {
                self.gave_up.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(_) => self.refused(),
        }
    }

    pub(super) fn relocate(&self, relocations: &mut [Relocation], may_fail: bool) -> bool {
        self.field.manager.relocate(relocations).is_ok() || !may_fail && self.refused()
    }

    pub(super) fn refused(&self) -> bool {
        self.field.violations.note(Violation::Refused);
        false
    }
}

/// Panics of other threads end the run; what they left is of no interest.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

//! The devices.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_device::{Access, Device, Rejected, Resources};

use super::access::{Field, Request, byte_of, decide, in_callback, is_piece, note_answer, note_change};
use super::counts::Violation;
use super::options::NESTING;
use super::oracle::{Answer, Claim};
use crate::random::Random;

/// Takes some time, about a cycle a step. (`PAUSE` would take very different times on different hosts.)
pub(crate) fn stay_for(steps: u64) {
    (0..steps).for_each(|step| {
        std::hint::black_box(step);
    });
}

/// The changes of the topology that a device can make in its callbacks.
pub(super) trait Changes<'d>: Sync {
    /// Removes, deferred, a device that another processor may be using, unless another thread is at it.
    fn eject(&'d self, random: &mut Random);
    /// Makes any change, unless another thread is at it.
    fn change_from_callback(&'d self, random: &mut Random);
}

/// What a device finds around it.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'d> {
    /// What it accesses.
    pub(super) field: &'d Field<'d>,
    /// How long most callbacks take at most: less than 2 to this power steps of [`stay_for`].
    pub(super) stays: u64,
    /// What it changes.
    pub(super) changes: &'d dyn Changes<'d>,
}

/// A device that knows whether it may be called. It accesses others and changes the topology from within its callbacks.
pub(crate) struct Probe<'d> {
    name: String,
    number: u8,
    /// Whether a write removes another device.
    ejects: bool,
    /// Odd from before the registration until the removal has returned.
    generation: AtomicU64,
    /// The generation in which the device was last told of its resources.
    configured: AtomicU64,
    /// Callbacks, noted when they end: before that, this would be the fence that may be missing.
    calls: AtomicU64,
    surroundings: OnceLock<Surroundings<'d>>,
}

impl<'d> Probe<'d> {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            name: format!("probe{number}"),
            number,
            ejects: false,
            generation: AtomicU64::new(0),
            configured: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            surroundings: OnceLock::new(),
        }
    }

    /// An eject register: a write removes another device, deferred.
    pub(crate) fn that_ejects(self) -> Self {
        Self { ejects: true, ..self }
    }

    /// Tells it where it is. The first call decides.
    pub(crate) fn put_into(&self, surroundings: Surroundings<'d>) {
        let _ = self.surroundings.set(surroundings);
    }

    /// It may be called from now on; or, the next time, no more.
    pub(crate) fn next_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// How often it was called.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn called(&self, access: &Access<'_>, write: bool) {
        let Some(Surroundings { field, stays, changes }) = self.surroundings.get() else { return };
        let generation = self.generation.load(Ordering::Acquire);
        if generation.is_multiple_of(2) {
            field.violations.note(Violation::EnteredAfterRemoval);
        } else if self.configured.load(Ordering::Acquire) != generation {
            field.violations.note(Violation::EnteredBeforeRegistration);
        }
        let draw = decide(Random::next);
        // A stay of any order of magnitude; now and then one that a removal has to wait for.
        let stay = if draw & 0xff == 0 { 1 << 14 } else { (draw >> 8) % (1 << ((draw >> 40) % stays)) };
        stay_for(stay);
        in_callback(|depth| {
            if draw >> 16 & 7 == 0 && depth <= NESTING {
                let nested = decide(|random| Request::draw(random, &field.places));
                if draw >> 20 & 3 == 0 {
                    field.access(&mut { &field.manager }, nested);
                } else {
                    field.access(&mut field.manager.nested(access), nested);
                }
            }
            if self.ejects && write {
                note_change();
                decide(|random| changes.eject(random));
            }
            if draw >> 24 & 0x1ff == 0 {
                note_change();
                decide(|random| changes.change_from_callback(random));
            }
        });
        if self.generation.load(Ordering::Acquire) != generation {
            field.violations.note(Violation::RemovedDuringCallback);
        }
        if is_piece() {
            return;
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        let claim = Claim::of(self.number, access.base().0);
        note_answer(Answer { claim, address: access.address(), offset: access.offset() });
    }
}

impl<'d> Device<'d> for Probe<'d> {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.called(access, false);
        data.iter_mut().enumerate().for_each(|(index, byte)| *byte = byte_of(self.number, index));
    }

    fn write(&self, access: &Access<'_>, _: &[u8]) {
        self.called(access, true);
    }

    fn set_resources(&self, _: &Resources<'_, 'd>) -> Result<(), Rejected> {
        // Long enough for an access to come in between, if one could.
        stay_for(100);
        self.configured.store(self.generation.load(Ordering::Acquire), Ordering::Release);
        Ok(())
    }
}

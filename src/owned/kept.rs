//! What interrupt handles point to. It stays when a manager ends, and a later manager gets it.
//!
//! A device may keep its [`IrqLine`](crate::IrqLine) for longer than its manager lives, on any thread. A handle passes a gate
//! before it looks at anything else, and a gate lets through only handles that were made since it was last closed. So it is
//! enough that gates, and what lies behind them, are never freed, and that they are closed and left before another manager gets
//! them.

#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::SharedController;
use super::controller::ControllerCell;
use crate::arrays::{Exhausted, boxed};
use crate::indices::LineIndex;
use crate::interrupt::{Connection, HandleGate, LineLevel, Wires};
use crate::manager::OnDrop;
use crate::sync::{AtomicBool, AtomicU16, Ordering};

/// Gates, lines and connections, for managers of one size.
pub(super) struct Kept {
    gates: Box<[HandleGate]>,
    levels: Box<[LineLevel]>,
    numbers: Box<[AtomicU16]>,
    connections: Box<[Connection]>,
    controller: ControllerCell,
    /// Whether a manager has it.
    in_use: AtomicBool,
}

/// All that there are.
static ALL: spin::Mutex<Vec<&'static Kept>> = spin::Mutex::new(Vec::new());

/// What a manager has of it until this is dropped.
pub(super) struct KeptInUse {
    kept: &'static Kept,
    has_controller: bool,
}

impl KeptInUse {
    /// For a manager of so many devices and ranges. Sizes are rounded up to powers of two, so that managers of almost the same
    /// size take each other's.
    pub(super) fn new(devices: usize, ranges: usize, controller: Option<SharedController>) -> Result<Self, Exhausted> {
        let (devices, ranges) = (devices.next_power_of_two(), ranges.next_power_of_two());
        let kept = match take_unused(devices, ranges) {
            Some(kept) => kept,
            None => Kept::new(devices, ranges)?,
        };
        let this = Self { kept, has_controller: controller.is_some() };
        kept.clear();
        if let Some(controller) = controller {
            // SAFETY: nobody else has it, and the controller of the manager before was taken away.
            unsafe { kept.controller.open(controller) };
        }
        Ok(this)
    }

    /// What stays.
    pub(super) fn get(&self) -> &'static Kept {
        self.kept
    }

    /// The controller, if the manager has one.
    pub(super) fn controller(&self) -> Option<&'static ControllerCell> {
        self.has_controller.then_some(&self.kept.controller)
    }
}

impl Kept {
    /// One more, in use.
    fn new(devices: usize, ranges: usize) -> Result<&'static Self, Exhausted> {
        let kept = Box::new(Kept {
            gates: boxed(devices, HandleGate::new)?,
            levels: boxed(devices, LineLevel::new)?,
            numbers: boxed(devices, || AtomicU16::new(0))?,
            connections: boxed(ranges, Connection::new)?,
            controller: ControllerCell::new(),
            in_use: AtomicBool::new(true),
        });
        let mut all = ALL.lock();
        let length = all.len().saturating_add(1);
        all.try_reserve(1).map_err(|_| Exhausted { bytes: length.saturating_mul(size_of::<&Kept>()) })?;
        let kept: &'static Kept = Box::leak(kept);
        all.push(kept);
        Ok(kept)
    }
}

impl Drop for KeptInUse {
    /// Closes every gate, those of devices that were never registered included, and takes the controller away.
    fn drop(&mut self) {
        // Also where the controller unwinds when it is dropped.
        let _ends = OnDrop::new((), |()| self.kept.in_use.store(false, Ordering::Release));
        self.kept.gates.iter().for_each(HandleGate::close);
        self.kept.controller.close();
    }
}

/// A manager begins with gates of an earlier generation than this one: so that none of them comes round to a generation of which
/// a handle is kept, as long as it is not closed as many times again.
const LAST_GENERATION: u32 = 1 << 31;

/// One that no manager has, and that no call of a handle is in.
fn take_unused(devices: usize, ranges: usize) -> Option<&'static Kept> {
    let is_free = |kept: &&&Kept| {
        let fits = kept.gates.len() == devices && kept.connections.len() == ranges;
        let is_free = |gate: &HandleGate| gate.is_idle() && gate.generation() < LAST_GENERATION;
        fits && !kept.in_use.load(Ordering::Acquire) && kept.gates.iter().all(is_free)
    };
    let all = ALL.lock();
    let kept = *all.iter().find(is_free)?;
    kept.in_use.store(true, Ordering::Relaxed);
    Some(kept)
}

impl Kept {
    /// Makes it as new, but for the gates: their generations go on. No handle passes any of them.
    fn clear(&self) {
        self.levels.iter().for_each(LineLevel::clear);
        self.numbers.iter().for_each(|number| number.store(0, Ordering::Relaxed));
        self.connections.iter().for_each(Connection::disconnect);
    }

    pub(super) fn gates(&self) -> &[HandleGate] {
        &self.gates
    }

    pub(super) fn levels(&self) -> &[LineLevel] {
        &self.levels
    }

    pub(super) fn numbers(&self) -> &[AtomicU16] {
        &self.numbers
    }

    pub(super) fn connections(&self) -> &[Connection] {
        &self.connections
    }
}

impl Wires for Kept {
    fn level(&self, line: LineIndex) -> Option<&LineLevel> {
        self.levels.get(line.position())
    }
    fn number(&self, line: LineIndex) -> u16 {
        self.numbers.get(line.position()).map_or(0, |number| number.load(Ordering::Relaxed))
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_taken_over_with_its_gates_closed() {
        let first = KeptInUse::new(3000, 5, None).map_err(|error| error.bytes).unwrap();
        let (kept, gate) = (first.get(), &first.get().gates()[0]);
        assert_eq!((kept.gates().len(), kept.connections().len()), (4096, 8));
        let generation = gate.generation();
        kept.numbers[1].store(7, Ordering::Relaxed);
        let passage = gate.enter(generation).map_err(|_| ()).unwrap();
        drop(first);
        assert!(gate.enter(generation).is_err());

        // As long as a call of a handle is under way, nobody gets it.
        let other = KeptInUse::new(4096, 8, None).map_err(|error| error.bytes).unwrap();
        assert!(!core::ptr::eq(other.get(), kept));
        drop(passage);
        let next = KeptInUse::new(2049, 7, None).map_err(|error| error.bytes).unwrap();
        assert!(core::ptr::eq(next.get(), kept));
        assert!(gate.enter(generation).is_err());
        assert_eq!(kept.numbers[1].load(Ordering::Relaxed), 0);
        // Of another size it is none.
        assert!(!core::ptr::eq(KeptInUse::new(4096, 9, None).map_err(|error| error.bytes).unwrap().get(), kept));
    }
}

//! The memory of an owned manager: what a [`Storage`](crate::Storage) is to other managers.

use super::kept::Kept;
use super::{Capacities, SharedListener, SharedObserver};
use crate::arrays::{Boxed, Exhausted};
use crate::device::Rejected;
use crate::index::{Index, TableBoxes};
use crate::interrupt::{Connection, HandleGate, LineLevel, Wires};
use crate::listener::{PlacedRange, RangeListener};
use crate::manager::{Occupant, Parts, StateCells, StateStorage};
use crate::observer::{AccessObserver, ObservedAccess};
use crate::quiescence::{SlotBoxes, Slots};
use crate::sync::{AtomicU16, AtomicU64, Mutex};

/// What a manager borrows, other than what is [kept](super::kept).
pub(super) struct Memory {
    slots: SlotBoxes<Occupant<'static>>,
    ports: TableBoxes<AtomicU16>,
    memory: TableBoxes<AtomicU64>,
    parts: BoxedParts,
    pub(super) listener: Option<Listener>,
    pub(super) observer: Option<Observer>,
}

struct BoxedParts {
    kept: &'static Kept,
    /// How much of what is kept the manager uses.
    capacities: Capacities,
    state: Mutex<StateStorage<'static, Boxed, Boxed>>,
}

impl Memory {
    pub(super) fn new(
        capacities: Capacities,
        kept: &'static Kept,
        listener: Option<SharedListener>,
        observer: Option<SharedObserver>,
    ) -> Result<Self, Exhausted> {
        let Capacities { devices, ranges, vcpus } = capacities;
        // An id of the manager before is none of this one.
        let generations = kept.gates().iter().map(HandleGate::generation);
        Ok(Self {
            slots: SlotBoxes::new(ranges, vcpus)?,
            ports: TableBoxes::new(ranges)?,
            memory: TableBoxes::new(ranges)?,
            parts: BoxedParts {
                kept,
                capacities,
                state: Mutex::new(StateStorage::boxed(devices, ranges, generations)?),
            },
            listener: listener.map(Listener),
            observer: observer.map(Observer),
        })
    }

    pub(super) fn slots(&self) -> Slots<'_, Occupant<'static>> {
        self.slots.slots()
    }

    pub(super) fn index(&self) -> Index<'_> {
        Index { ports: self.ports.table(), memory: self.memory.table() }
    }

    pub(super) fn parts(&self) -> &(dyn Parts<'static> + 'static) {
        &self.parts
    }
}

impl Parts<'static> for BoxedParts {
    fn wires(&self) -> &dyn Wires {
        self.kept
    }
    fn gates(&self) -> &[HandleGate] {
        first(self.kept.gates(), self.capacities.devices)
    }
    fn levels(&self) -> &[LineLevel] {
        first(self.kept.levels(), self.capacities.devices)
    }
    fn numbers(&self) -> &[AtomicU16] {
        first(self.kept.numbers(), self.capacities.devices)
    }
    fn connections(&self) -> &[Connection] {
        first(self.kept.connections(), self.capacities.ranges)
    }
    fn state(&self) -> &Mutex<dyn StateCells<'static> + 'static> {
        &self.state
    }
}

/// The first elements of what is kept, of which there are at least so many.
fn first<T>(kept: &[T], length: usize) -> &[T] {
    kept.get(..length).unwrap_or_default()
}

/// A listener that the manager shares.
pub(super) struct Listener(SharedListener);

impl RangeListener for Listener {
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        self.0.placed(range)
    }
    fn leaving(&self, range: &PlacedRange<'_>) {
        self.0.leaving(range);
    }
}

/// An observer that the manager shares.
pub(super) struct Observer(SharedObserver);

impl AccessObserver for Observer {
    fn observe(&self, access: &ObservedAccess<'_>) {
        self.0.observe(access);
    }
    fn now(&self) -> Option<u64> {
        self.0.now()
    }
}

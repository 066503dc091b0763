//! The memory of a manager, and its capacities.

use crate::arrays::InPlace;
use crate::index::TableStorage;
use crate::indices::LineIndex;
use crate::interrupt::{Connection, HandleGate, LineLevel, Wires};
use crate::manager::occupant::Occupant;
use crate::manager::state::{StateCells, StateStorage};
use crate::quiescence::{Shared, SlotStorage};
use crate::sync::{AtomicU16, AtomicU64, Mutex, Ordering, array, const_fn};

/// The memory of one [`DeviceManager`](crate::DeviceManager): room for `DEVICES` devices (buses included), `RANGES` ranges
/// in both spaces together, those that the VMM takes itself included, and `VCPUS` [`Dispatcher`](crate::Dispatcher)s. There is
/// room for as many interrupts of devices as for ranges, on as many lines as there may be devices.
///
/// Capacities are in its type and nowhere else. It is all zeros at first: as a `static` it lies in `.bss` and adds nothing
/// to an image. The manager that uses it first keeps it for good. A second one is refused, as
/// [`RegisterError::StorageInUse`](crate::RegisterError::StorageInUse).
///
/// ```
/// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
///
/// static STORAGE: Storage<256, 1024, 16> = Storage::new();
/// static MANAGER: DeviceManager<'static> = DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY));
///
/// // Or in a scope, where devices may borrow what lives as long as the storage.
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// ```
pub struct Storage<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> {
    pub(super) slots: SlotStorage<Occupant<'d>, RANGES, VCPUS>,
    pub(super) shared: Shared,
    pub(super) ports: TableStorage<AtomicU16, RANGES>,
    pub(super) memory: TableStorage<AtomicU64, RANGES>,
    gates: [HandleGate; DEVICES],
    levels: [LineLevel; DEVICES],
    /// Of each line in use, which of the allocator's it is.
    numbers: [AtomicU16; DEVICES],
    connections: [Connection; RANGES],
    state: Mutex<StateStorage<'d, InPlace<DEVICES>, InPlace<RANGES>>>,
}

impl<const DEVICES: usize, const RANGES: usize, const VCPUS: usize> Storage<'_, DEVICES, RANGES, VCPUS> {
    const_fn! {
        /// Storage that no manager uses yet. `DEVICES` is 1 to 65,534, `RANGES` and `VCPUS` at most 65,534, which the compiler
        /// checks.
        pub fn new() -> Self {
            const { assert!(VCPUS < u16::MAX as usize, "VCPUS, the number of dispatchers there is room for, must be at most 65534") };
            Self {
                slots: SlotStorage::new(),
                shared: Shared::new(),
                ports: TableStorage::<AtomicU16, RANGES>::new(),
                memory: TableStorage::<AtomicU64, RANGES>::new(),
                gates: array![HandleGate::new(); DEVICES],
                levels: array![LineLevel::new(); DEVICES],
                numbers: array![AtomicU16::new(0); DEVICES],
                connections: array![Connection::new(); RANGES],
                state: Mutex::new(StateStorage::new()),
            }
        }
    }
}

impl<const DEVICES: usize, const RANGES: usize, const VCPUS: usize> Default for Storage<'_, DEVICES, RANGES, VCPUS> {
    fn default() -> Self {
        Self::new()
    }
}

/// The parts of a [`Storage`] of any capacity that no dispatch uses.
pub(crate) trait Parts<'d>: Sync {
    /// What handles keep of the lines.
    fn wires(&self) -> &dyn Wires;
    fn gates(&self) -> &[HandleGate];
    fn levels(&self) -> &[LineLevel];
    fn numbers(&self) -> &[AtomicU16];
    fn connections(&self) -> &[Connection];
    fn state(&self) -> &Mutex<dyn StateCells<'d> + 'd>;
}

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> Parts<'d>
    for Storage<'d, DEVICES, RANGES, VCPUS>
{
    fn wires(&self) -> &dyn Wires {
        self
    }
    fn gates(&self) -> &[HandleGate] {
        &self.gates
    }
    fn levels(&self) -> &[LineLevel] {
        &self.levels
    }
    fn numbers(&self) -> &[AtomicU16] {
        &self.numbers
    }
    fn connections(&self) -> &[Connection] {
        &self.connections
    }
    fn state(&self) -> &Mutex<dyn StateCells<'d> + 'd> {
        &self.state
    }
}

impl<const DEVICES: usize, const RANGES: usize, const VCPUS: usize> Wires for Storage<'_, DEVICES, RANGES, VCPUS> {
    fn level(&self, line: LineIndex) -> Option<&LineLevel> {
        self.levels.get(line.position())
    }
    fn number(&self, line: LineIndex) -> u16 {
        self.numbers.get(line.position()).map_or(0, |number| number.load(Ordering::Relaxed))
    }
}

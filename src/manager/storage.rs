//! The memory of a manager, and its capacities.

use crate::index::TableStorage;
use crate::interrupt::{HandleGate, LineLevel};
use crate::manager::occupant::Occupant;
use crate::manager::state::{StateCells, StateStorage};
use crate::quiescence::{Shared, SlotStorage};
use crate::sync::{AtomicU16, AtomicU64, Mutex, array, const_fn};

/// The memory of one [`DeviceManager`](crate::DeviceManager): room for `DEVICES` devices (buses included), `RANGES` ranges
/// in both spaces together, those that the VMM takes itself included, and `VCPUS` [`Dispatcher`](crate::Dispatcher)s.
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
    state: Mutex<StateStorage<'d, DEVICES, RANGES>>,
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
pub(super) trait Parts<'d>: Sync {
    fn gates(&self) -> &[HandleGate];
    fn levels(&self) -> &[LineLevel];
    fn state(&self) -> &Mutex<dyn StateCells<'d> + 'd>;
}

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> Parts<'d>
    for Storage<'d, DEVICES, RANGES, VCPUS>
{
    fn gates(&self) -> &[HandleGate] {
        &self.gates
    }
    fn levels(&self) -> &[LineLevel] {
        &self.levels
    }
    fn state(&self) -> &Mutex<dyn StateCells<'d> + 'd> {
        &self.state
    }
}

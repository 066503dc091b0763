//! How an owned manager is made.

use core::fmt;

use super::inner::{Ground, Inner};
use super::kept::KeptInUse;
use super::memory::Memory;
use super::{OwnedManager, SharedController, SharedListener, SharedObserver};
use crate::access::{OpenBus, Straddling};
use crate::address::IoType;
use crate::allocator::SystemAllocator;
use crate::arrays::Exhausted;
use crate::manager::DeviceManager;
use crate::quiescence::HeavyBarrier;

/// For how much an owned manager has room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacities {
    /// For how many devices, buses included: 1 to 65,534. There is room for as many interrupt lines.
    pub devices: usize,
    /// For how many ranges in both spaces together, those that the VMM takes itself included: 0 to 65,534. There is room for as many
    /// interrupts of devices.
    pub ranges: usize,
    /// For how many [`OwnedDispatcher`](super::OwnedDispatcher)s: 0 to 65,534.
    pub vcpus: usize,
}

impl Capacities {
    /// The largest number of each kind.
    const MOST: usize = u16::MAX as usize - 1;

    fn check(self) -> Result<(), BuildError> {
        let limits = [("devices", self.devices, 1), ("ranges", self.ranges, 0), ("vcpus", self.vcpus, 0)];
        match limits.into_iter().find(|(_, asked, least)| !(*least..=Self::MOST).contains(asked)) {
            Some((field, asked, least)) => Err(BuildError::Capacity { field, asked, least, most: Self::MOST }),
            None => Ok(()),
        }
    }
}

/// Makes an [`OwnedManager`]: as [`DeviceManager::new`] and its `with_` methods, with what they borrow in `Arc`s.
///
/// ```
/// use vm_device::owned::{Builder, Capacities};
/// use vm_device::{GuestAddress, IoRange, IoType, OpenBus, SystemAllocator};
///
/// let capacities = Capacities { devices: 64, ranges: 256, vcpus: 4 };
/// let manager = Builder::new(capacities, SystemAllocator::new(IoRange::ALL_MEMORY))
///     .with_open_bus(IoType::Mmio, OpenBus(0))
///     .build()?;
/// let mut data = [1; 2];
/// let _ = manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio);
/// assert_eq!(data, [0, 0]);
/// # Ok::<(), vm_device::owned::BuildError>(())
/// ```
#[must_use]
pub struct Builder {
    capacities: Capacities,
    allocator: SystemAllocator,
    controller: Option<SharedController>,
    listener: Option<SharedListener>,
    observer: Option<SharedObserver>,
    open_bus: [(IoType, OpenBus); 2],
    straddling: [(IoType, Straddling); 2],
    removal_spins: Option<u32>,
    barrier: Option<HeavyBarrier>,
}

impl Builder {
    /// For a manager without devices, which gives them what `allocator` has.
    pub fn new(capacities: Capacities, allocator: SystemAllocator) -> Self {
        Self {
            capacities,
            allocator,
            controller: None,
            listener: None,
            observer: None,
            open_bus: [IoType::Pio, IoType::Mmio].map(|space| (space, OpenBus::default())),
            straddling: [IoType::Pio, IoType::Mmio].map(|space| (space, Straddling::default())),
            removal_spins: None,
            barrier: None,
        }
    }

    /// See [`DeviceManager::with_interrupt_controller`]. The manager drops it when it ends: when its last dispatcher is dropped,
    /// and no handle is calling the controller.
    pub fn with_interrupt_controller(self, controller: SharedController) -> Self {
        Self { controller: Some(controller), ..self }
    }

    /// See [`DeviceManager::with_listener`].
    pub fn with_listener(self, listener: SharedListener) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// See [`DeviceManager::with_observer`].
    pub fn with_observer(self, observer: SharedObserver) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// See [`DeviceManager::with_open_bus`].
    pub fn with_open_bus(mut self, io_type: IoType, value: OpenBus) -> Self {
        set(&mut self.open_bus, io_type, value);
        self
    }

    /// See [`DeviceManager::with_straddling`].
    pub fn with_straddling(mut self, io_type: IoType, policy: Straddling) -> Self {
        set(&mut self.straddling, io_type, policy);
        self
    }

    /// See [`DeviceManager::with_removal_spins`].
    pub fn with_removal_spins(self, spins: u32) -> Self {
        Self { removal_spins: Some(spins), ..self }
    }

    /// See [`DeviceManager::with_asymmetric_fence`].
    pub fn with_asymmetric_fence(self, barrier: HeavyBarrier) -> Self {
        Self { barrier: Some(barrier), ..self }
    }

    /// Makes the manager, all of it on the heap.
    ///
    /// # Errors
    /// [`BuildError`], if a capacity is out of its range, or the heap has no room for one of the manager's arrays. What does not
    /// grow with the capacities, and all that a registration allocates, is allocated as by `Box` and `Arc`: where the heap
    /// has no room for it, the program ends as the allocator of the program says.
    pub fn build(self) -> Result<OwnedManager, BuildError> {
        self.capacities.check()?;
        let Capacities { devices, ranges, .. } = self.capacities;
        let kept = KeptInUse::new(devices, ranges, self.controller)?;
        let memory = Memory::new(self.capacities, kept.get(), self.listener, self.observer)?;
        let ground = Ground::new(memory, kept);
        let (memory, kept) = (ground.memory(), ground.kept());
        let mut manager = DeviceManager::of_parts(memory.slots(), memory.index(), memory.parts(), self.allocator);
        if let Some(controller) = kept.controller() {
            manager = manager.with_interrupt_controller(controller);
        }
        if let Some(listener) = &memory.listener {
            manager = manager.with_listener(listener);
        }
        if let Some(observer) = &memory.observer {
            manager = manager.with_observer(observer);
        }
        for (space, value) in self.open_bus {
            manager = manager.with_open_bus(space, value);
        }
        for (space, policy) in self.straddling {
            manager = manager.with_straddling(space, policy);
        }
        if let Some(spins) = self.removal_spins {
            manager = manager.with_removal_spins(spins);
        }
        if let Some(barrier) = self.barrier {
            manager = manager.with_asymmetric_fence(barrier);
        }
        Ok(OwnedManager::of(Inner::new(manager, ground)))
    }
}

/// Sets the value of a space.
fn set<V>(values: &mut [(IoType, V); 2], io_type: IoType, value: V) {
    let meant = values.iter_mut().find(|(space, _)| space.space() == io_type.space());
    if let Some((_, old)) = meant {
        *old = value;
    }
}

/// Why an owned manager could not be made.
///
/// ```
/// use vm_device::owned::{BuildError, Capacities, OwnedManager};
/// use vm_device::{IoRange, SystemAllocator};
///
/// let none = Capacities { devices: 0, ranges: 16, vcpus: 1 };
/// let refused = OwnedManager::new(none, SystemAllocator::new(IoRange::ALL_MEMORY)).err().unwrap();
/// assert_eq!(refused, BuildError::Capacity { field: "devices", asked: 0, least: 1, most: 65534 });
/// assert_eq!(refused.to_string(), "`Capacities::devices` is 0, and has to be from 1 to 65534");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A capacity is out of its range.
    Capacity {
        /// The field of [`Capacities`].
        field: &'static str,
        /// Its value.
        asked: usize,
        /// The least that it can be.
        least: usize,
        /// The most that it can be.
        most: usize,
    },
    /// The heap has no room.
    OutOfMemory {
        /// How many bytes it has no room for.
        bytes: usize,
    },
}

impl From<Exhausted> for BuildError {
    fn from(Exhausted { bytes }: Exhausted) -> Self {
        Self::OutOfMemory { bytes }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Capacity { field, asked, least, most } => {
                write!(f, "`Capacities::{field}` is {asked}, and has to be from {least} to {most}")
            }
            BuildError::OutOfMemory { bytes } => write!(f, "the heap has no room for {bytes} bytes"),
        }
    }
}

impl core::error::Error for BuildError {}

//! The device manager: how it is made, and how its parts are reached.

use crate::access::{OpenBus, Straddling};
use crate::address::{IoType, Space};
use crate::allocator::SystemAllocator;
use crate::index::Index;
use crate::indices::NodeIndex;
use crate::instance::InstanceId;
use crate::interrupt::{Connection, HandleGate, InterruptController, IrqLine, Wiring};
use crate::listener::RangeListener;
use crate::manager::notify::Telling;
use crate::manager::observing::Observing;
use crate::manager::occupant::Occupant;
use crate::manager::state::{State, StateCells};
use crate::manager::storage::{Parts, Storage};
use crate::observer::AccessObserver;
use crate::quiescence::{HeavyBarrier, Slots};
use crate::sync::{AtomicBool, MutexGuard, Ordering, const_fn};

/// The buses and devices of a virtual machine, which accesses reach through it.
///
/// Its capacities are those of the [`Storage`] that it is made with. It is made in constant evaluation, so that it can stand
/// in a `static`. Every method takes `&self` and may be called from any thread or vCPU, and from within device callbacks;
/// but not from an interrupt or NMI handler that may have interrupted another call on the same processor.
///
/// It has no `Drop`, so that devices may borrow the manager they are registered with; `'d` is how long both live.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{
///     DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator,
/// };
///
/// static DEVICE: Constant = Constant("rtc", 7);
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
///
/// let rtc = MANAGER.register_device(&DEVICE, None, &[IoResource::pio(0x70, 2)], &[])?;
/// let mut vcpu = MANAGER.dispatcher(0)?;
/// let mut data = [0; 1];
/// vcpu.read(GuestAddress(0x71), &mut data, IoType::Pio)?;
/// assert_eq!(data, [7]);
///
/// MANAGER.unregister_device(rtc)?;
/// assert!(vcpu.read(GuestAddress(0x71), &mut data, IoType::Pio).is_err());
/// assert_eq!(data, [0xff]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DeviceManager<'d> {
    pub(crate) slots: Slots<'d, Occupant<'d>>,
    pub(crate) index: Index<'d>,
    /// Of ports and of memory.
    open_bus: [[u8; 4]; 2],
    /// Of ports and of memory.
    straddling: [Straddling; 2],
    pub(crate) removal_spins: u32,
    /// Whether the storage is this manager's.
    owns_storage: AtomicBool,
    pub(crate) controller: Option<&'d dyn InterruptController>,
    pub(crate) listener: Option<&'d dyn Telling<'d>>,
    pub(crate) observer: Option<&'d dyn Observing<'d>>,
    parts: &'d (dyn Parts<'d> + 'd),
    allocator: SystemAllocator,
}

/// How many turns a removal waits for the callbacks that were running when it was called, unless the VMM says otherwise: as
/// measured, 50 to 250 ms.
const REMOVAL_SPINS: u32 = 1 << 20;

impl<'d> DeviceManager<'d> {
    const_fn! {
        /// A manager without devices, which gives them what `allocator` has.
        ///
        /// The storage belongs to the manager that is first used for anything but an access. A second manager with the same
        /// storage is refused, and its accesses reach no device.
        ///
        /// ```
        /// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
        ///
        /// /// A bus of a reusable kind names no capacities.
        /// struct Bus<'d> {
        ///     manager: &'d DeviceManager<'d>,
        /// }
        ///
        /// let storage = Storage::<8, 16, 2>::new();
        /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
        /// let bus = Bus { manager: &manager };
        /// assert_eq!(bus.manager.walk().count(), 0);
        /// ```
        pub fn new<const DEVICES: usize, const RANGES: usize, const VCPUS: usize>(
            storage: &'d Storage<'d, DEVICES, RANGES, VCPUS>,
            allocator: SystemAllocator,
        ) -> Self {
            let index = Index { ports: storage.ports.table(), memory: storage.memory.table() };
            Self::of_parts(storage.slots.slots(&storage.shared), index, storage, allocator)
        }
    }

    const_fn! {
        /// A manager over the parts of a storage.
        pub(crate) fn of_parts(
            slots: Slots<'d, Occupant<'d>>,
            index: Index<'d>,
            parts: &'d (dyn Parts<'d> + 'd),
            allocator: SystemAllocator,
        ) -> Self {
            Self {
                slots,
                index,
                open_bus: [OpenBus::ALL_ONES.bytes(); 2],
                straddling: [Straddling::OpenBus; 2],
                removal_spins: REMOVAL_SPINS,
                owns_storage: AtomicBool::new(false),
                controller: None,
                listener: None,
                observer: None,
                parts,
                allocator,
            }
        }
    }

    /// The same manager with an interrupt controller, which its devices' [`IrqLine`](crate::IrqLine)s drive. Without one,
    /// they say [`NoController`](crate::InterruptError::NoController).
    ///
    /// ```
    /// use vm_device::{
    ///     DeviceManager, Gsi, GuestAddress, InterruptController, InterruptError, IoRange, Storage, SystemAllocator,
    /// };
    ///
    /// /// Refuses everything.
    /// struct Deaf;
    ///
    /// impl InterruptController for Deaf {
    ///     fn set_level(&self, _: Gsi, _: bool) -> Result<(), InterruptError> {
    ///         Err(InterruptError::Refused)
    ///     }
    ///     fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
    ///         Err(InterruptError::Refused)
    ///     }
    ///     fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
    ///         Err(InterruptError::Refused)
    ///     }
    /// }
    ///
    /// static STORAGE: Storage<8, 16, 2> = Storage::new();
    /// static MANAGER: DeviceManager<'static> =
    ///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 23))
    ///         .with_interrupt_controller(&Deaf);
    /// assert_eq!(MANAGER.collect(), 0);
    /// ```
    #[must_use]
    pub const fn with_interrupt_controller(mut self, controller: &'d dyn InterruptController) -> Self {
        self.controller = Some(controller);
        self
    }

    /// The same manager with a listener, which hears where ranges lie that the VMM maps itself.
    #[must_use]
    pub const fn with_listener<L: RangeListener>(mut self, listener: &'d L) -> Self {
        self.listener = Some(listener);
        self
    }

    /// The same manager with an observer, which is told of every access.
    ///
    /// A handle of such a manager keeps no hints, and searches for each access. Without an observer, an access by a hint is made by
    /// the same instructions as if there were no observers at all.
    #[must_use]
    pub const fn with_observer<O: AccessObserver>(mut self, observer: &'d O) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The same manager with another open-bus value in the space of `io_type`. Without, it is
    /// [`OpenBus::ALL_ONES`].
    ///
    /// ```
    /// use vm_device::{DeviceManager, GuestAddress, IoRange, IoType, OpenBus, Storage, SystemAllocator};
    ///
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY))
    ///     .with_open_bus(IoType::Pio, OpenBus(0x7f));
    /// let mut data = [0; 2];
    /// let _ = manager.read(GuestAddress(0x60), &mut data, IoType::Pio);
    /// assert_eq!(data, [0x7f, 0x7f]);
    /// ```
    #[must_use]
    pub const fn with_open_bus(mut self, io_type: IoType, value: OpenBus) -> Self {
        let [ports, memory] = &mut self.open_bus;
        match io_type.space() {
            Space::Ports => *ports = value.bytes(),
            Space::Memory => *memory = value.bytes(),
        }
        self
    }

    /// The same manager with another policy for straddling accesses in the space of `io_type`. Without, it is
    /// [`Straddling::OpenBus`].
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, IoError, IoRange, IoResource, IoType, Storage, Straddling, SystemAllocator,
    /// };
    ///
    /// let device = Constant("post", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager =
    ///     DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS))
    ///         .with_straddling(IoType::Pio, Straddling::Split);
    /// manager.register_device(&device, None, &[IoResource::pio(0x80, 1)], &[]).unwrap();
    ///
    /// // `inw` at a port of one byte: its low byte reaches the device.
    /// let mut data = [0; 2];
    /// let outcome = manager.read(GuestAddress(0x80), &mut data, IoType::Pio);
    /// assert_eq!((outcome, data), (Err(IoError::Partial { delivered: 1 }), [7, 0xff]));
    /// ```
    #[must_use]
    pub const fn with_straddling(mut self, io_type: IoType, policy: Straddling) -> Self {
        let [ports, memory] = &mut self.straddling;
        match io_type.space() {
            Space::Ports => *ports = policy,
            Space::Memory => *memory = policy,
        }
        self
    }

    /// The same manager with another spin limit of removals: how many turns of a waiting loop
    /// [`unregister_device`](Self::unregister_device) spends on the callbacks that were running when it was called,
    /// before it gives up with [`InUse`](crate::UnregisterError::InUse). The default is 2^20. One turn takes 50 to 250 ns,
    /// most of it the `PAUSE` instruction.
    ///
    /// ```
    /// use vm_device::{
    ///     Access, Device, DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage,
    ///     SystemAllocator, UnregisterError,
    /// };
    ///
    /// /// Removes itself from within its own callback, and does not say that it is in one.
    /// struct Careless<'d>(&'d DeviceManager<'d>);
    ///
    /// impl<'d> Device<'d> for Careless<'d> {
    ///     fn name(&self) -> &str {
    ///         "careless"
    ///     }
    ///     fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    ///     fn write(&self, _: &Access<'_>, _: &[u8]) {
    ///         let id = self.0.find_by_path("/careless").expect("it is registered");
    ///         // Its own callback does not end meanwhile, so that the removal gives up.
    ///         assert_eq!(self.0.unregister_device(id), Err(UnregisterError::InUse { device: "careless" }));
    ///     }
    /// }
    ///
    /// static STORAGE: Storage<8, 16, 2> = Storage::new();
    /// static MANAGER: DeviceManager<'static> =
    ///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY)).with_removal_spins(10);
    /// static DEVICE: Careless<'static> = Careless(&MANAGER);
    /// MANAGER.register_device(&DEVICE, None, &[IoResource::mmio(0x1000, 4)], &[])?;
    /// MANAGER.dispatcher(0)?.write(GuestAddress(0x1000), &[1], IoType::Mmio)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn with_removal_spins(mut self, spins: u32) -> Self {
        self.removal_spins = spins;
        self
    }

    /// The same manager with the asymmetric fence: a dispatch through a [`Dispatcher`](crate::Dispatcher) is free of
    /// fences, and each removal executes `barrier` once.
    ///
    /// ```
    /// use core::sync::atomic::{AtomicU32, Ordering, fence};
    /// use vm_device::{DeviceManager, HeavyBarrier, IoRange, Storage, SystemAllocator};
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    ///
    /// static BARRIERS: AtomicU32 = AtomicU32::new(0);
    ///
    /// fn every_processor() {
    ///     BARRIERS.fetch_add(1, Ordering::Relaxed);
    ///     fence(Ordering::SeqCst);
    /// }
    ///
    /// // SAFETY: this example has one thread, which the fence orders. With several processors this is an inter-processor
    /// // interrupt that each of them acknowledges, or `membarrier(2)`.
    /// const BARRIER: HeavyBarrier = unsafe { HeavyBarrier::new(every_processor) };
    ///
    /// static DEVICE: Constant = Constant("card", 7);
    /// static STORAGE: Storage<8, 16, 2> = Storage::new();
    /// static MANAGER: DeviceManager<'static> =
    ///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY)).with_asymmetric_fence(BARRIER);
    /// let card = MANAGER.register_device(&DEVICE, None, &[], &[])?;
    /// assert_eq!(BARRIERS.load(Ordering::Relaxed), 0);
    /// MANAGER.unregister_device(card)?;
    /// assert_eq!(BARRIERS.load(Ordering::Relaxed), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn with_asymmetric_fence(mut self, barrier: HeavyBarrier) -> Self {
        self.slots.set_heavy_barrier(barrier);
        self
    }

    #[inline(always)]
    pub(crate) fn open_bus(&self, space: Space) -> [u8; 4] {
        let [ports, memory] = self.open_bus;
        if space == Space::Ports { ports } else { memory }
    }

    pub(crate) fn straddling(&self, space: Space) -> Straddling {
        let [ports, memory] = self.straddling;
        if space == Space::Ports { ports } else { memory }
    }

    /// Tells managers apart, for accesses that name the manager that dispatched them. It is the address of the storage, which
    /// belongs to one manager.
    #[inline(always)]
    pub(crate) fn identity(&self) -> usize {
        core::ptr::from_ref(self.parts).addr()
    }

    /// Whether the storage is this manager's: if it is not, the manager has no devices.
    #[inline(always)]
    pub(crate) fn owns_storage(&self) -> bool {
        self.owns_storage.load(Ordering::Acquire)
    }

    /// Whether the storage is this manager's. A storage that no manager has becomes this manager's; only then it takes the
    /// lock.
    pub(crate) fn acquire_storage(&self) -> bool {
        self.owns_storage() || self.lock().is_some()
    }

    /// The writers' state, locked; `None` if the storage is another manager's. It is not inlined, because its code is long and
    /// it has many callers.
    #[inline(never)]
    pub(crate) fn lock(&self) -> Option<Locked<'_, 'd>> {
        let mut cells = self.parts.state().lock();
        if !self.owns_storage() {
            if cells.replace_is_used() {
                return None;
            }
            self.index.fill();
            self.owns_storage.store(true, Ordering::Release);
        }
        Some(Locked { cells, parts: self.parts, allocator: &self.allocator })
    }

    /// Calls `act` under the lock, unless the storage is another manager's.
    pub(crate) fn with_state<R>(&self, act: impl FnOnce(&mut State<'_, 'd>) -> R) -> Option<R> {
        Some(act(&mut self.lock()?.state()))
    }

    pub(crate) fn gate(&self, node: NodeIndex) -> Option<&'d HandleGate> {
        self.parts.gates().get(node.position())
    }

    /// A handle of interrupt number `index` of a device; of one without interrupts, for number 0, a handle for messages alone.
    pub(crate) fn handle(&self, state: &State<'_, 'd>, id: InstanceId, index: usize) -> Option<IrqLine<'d>> {
        let mut connections = state.connections_of(state.tree.get(id)?.index());
        let connection = connections.nth(index);
        if connection.is_none() && index != 0 {
            return None;
        }
        let wiring =
            |connection: &'d Connection| Wiring { connection, wires: self.parts.wires(), first: state.first_gsi() };
        Some(IrqLine::new(self.gate(id.index)?, connection.map(wiring), self.controller))
    }
}

/// The writers' state; the lock is held until this is dropped.
pub(crate) struct Locked<'m, 'd> {
    cells: MutexGuard<'m, dyn StateCells<'d> + 'd>,
    parts: &'d (dyn Parts<'d> + 'd),
    allocator: &'m SystemAllocator,
}

impl<'d> Locked<'_, 'd> {
    pub(crate) fn state(&mut self) -> State<'_, 'd> {
        self.cells.state(self.parts, self.allocator)
    }
}

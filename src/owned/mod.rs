//! With the feature `alloc`: a manager that owns its devices. A VMM stores it, moves it and drops it.
//!
//! | of the crate | here |
//! |---|---|
//! | [`DeviceManager`](crate::DeviceManager) over a [`Storage`](crate::Storage) | [`OwnedManager`], made with [`Capacities`] or by a [`Builder`] |
//! | `&'d dyn Device<'d>` | [`SharedDevice`]: `Arc<dyn Device<'static> + Send>` |
//! | [`Dispatcher`](crate::Dispatcher) | [`OwnedDispatcher`], for a thread that may outlive the scope |
//! | [`Nested`](crate::Nested), [`Taken`](crate::Taken) | [`OwnedNested`], [`OwnedTaken`] |
//! | `RegisterError<&str>` | `RegisterError<String>` |
//!
//! The device trait, requests, accesses and interrupt lines are the same; a device that keeps an interrupt line is a
//! `Device<'static>` and keeps an [`IrqLine<'static>`](crate::IrqLine). A device that calls the manager keeps a [`WeakManager`].
//!
//! # How long things live
//!
//! - [`OwnedManager::unregister_device`] returns the device when no vCPU is in it and none will be. Deferred removals give
//!   theirs back by [`OwnedManager::collect`].
//! - When the last [`OwnedManager`] is dropped, every device becomes unreachable, and the devices that no callback is in are
//!   dropped: it waits for nobody. The others are dropped with the next [`OwnedDispatcher`] that is dropped after their callbacks have
//!   ended, and the memory is freed with the last one.
//! - An interrupt line may be kept for longer than all of this, on any thread: it does nothing then. That is why a part of the
//!   memory stays when a manager has ended: 14 bytes for each device and 4 for each range, both rounded up to powers of two, and
//!   about 150 bytes besides. The next manager of the same rounded size takes it over. So it grows with the number of
//!   managers of one size that are there at a time, and no further.
//! - No device is dropped while a lock is held: it may call the manager while it is dropped.
//! - A device, a controller, a listener or an observer that keeps an [`OwnedManager`] keeps itself: it is for a
//!   [`WeakManager`]. A device may keep an [`OwnedDispatcher`].
//! - Ids are not used again by the next manager either that takes over what stays.
//! - The end of a manager calls its controller, listener and heavy barrier for what is there still. Where one of them unwinds, the
//!   unwinding goes on through the drop of the [`OwnedManager`], none of them is called any more, and the devices are dropped with
//!   the last dispatcher.
//! - A name is freed when every call has ended that was under way when its device was removed. While one call lasts (a reset, or a
//!   registration whose device waits), the names of devices stay that are removed meanwhile.
//!
//! # What is allocated
//!
//! The manager's memory, when it is made, with room for the [`Capacities`]; no value of that size is on the stack. A
//! registration allocates a few small pieces, and so do walks, maps and errors. An access allocates nothing.

mod builder;
mod controller;
mod debug;
mod dispatcher;
mod entries;
mod held;
mod inner;
mod inspect;
mod kept;
mod memory;
mod names;
mod nested;
mod taken;
mod weak;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub use builder::{BuildError, Builder, Capacities};
#[cfg(all(test, vm_device_loom))]
pub(crate) use controller::ControllerCell;
pub use dispatcher::OwnedDispatcher;
use held::Held;
use inner::Inner;
pub use inspect::OwnedDeviceInfo;
pub use nested::OwnedNested;
pub use taken::OwnedTaken;
pub use weak::WeakManager;

use crate::access::{Access, IoError};
use crate::address::{GuestAddress, IoRange, IoType};
use crate::allocator::SystemAllocator;
use crate::device::Device;
use crate::dispatch::accesses;
use crate::error::{
    DispatcherError, IrqError, Owner, RangeRefusal, RegisterError, RelocateError, RerouteError, ResetError,
    UnregisterError,
};
use crate::instance::InstanceId;
use crate::interrupt::{Gsi, InterruptController, InterruptError};
use crate::listener::RangeListener;
use crate::manager::Relocation;
use crate::observer::AccessObserver;
use crate::resource::{IoResource, IrqResource, Placement};

/// A device that a manager shares with its VMM. It is `Send`, because any thread may be the one that drops it. A VMM that wants its
/// own type back keeps a clone of its `Arc`.
pub type SharedDevice = Arc<dyn Device<'static> + Send>;

/// An interrupt controller that a manager shares with its VMM.
pub type SharedController = Arc<dyn InterruptController + Send>;

/// A listener that a manager shares with its VMM.
pub type SharedListener = Arc<dyn RangeListener + Send>;

/// An observer that a manager shares with its VMM.
pub type SharedObserver = Arc<dyn AccessObserver + Send>;

/// A device that was removed.
#[derive(Clone)]
pub struct RemovedDevice {
    /// The id that it had.
    pub id: InstanceId,
    /// The device.
    pub device: SharedDevice,
}

/// What [`OwnedManager::collect`] has finished.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The devices whose removals are finished, in the order of their ids.
    pub devices: Vec<RemovedDevice>,
    /// How many deferred removals, and lines with a level that the controller has not taken, are left: what
    /// [`DeviceManager::collect`](crate::DeviceManager::collect) returns.
    pub left: usize,
}

/// A manager that owns its devices. See the [module](self).
///
/// A clone is the same manager: the manager ends when the last of them is dropped. A [`WeakManager`] is for devices, which are
/// owned by the manager.
///
/// ```
/// use std::sync::Arc;
/// use spin::Mutex;
/// use vm_device::owned::{Capacities, OwnedManager, SharedDevice};
/// use vm_device::{Access, Device, GuestAddress, IoRange, IoResource, IoType, SystemAllocator};
///
/// struct Scratch(Mutex<[u8; 4]>);
///
/// impl Device<'_> for Scratch {
///     fn name(&self) -> &str {
///         "scratch"
///     }
///     fn read(&self, access: &Access<'_>, data: &mut [u8]) {
///         access.load(&*self.0.lock(), data);
///     }
///     fn write(&self, access: &Access<'_>, data: &[u8]) {
///         access.store(&mut *self.0.lock(), data);
///     }
/// }
///
/// /// A VMM is a value, and has its manager and its devices in it.
/// struct Vmm {
///     manager: OwnedManager,
///     scratch: Arc<Scratch>,
/// }
///
/// let allocator = SystemAllocator::new(IoRange::of::<0xc000_0000, 0xffff_ffff>()).with_ports(IoRange::ALL_PORTS);
/// let manager = OwnedManager::new(Capacities { devices: 8, ranges: 16, vcpus: 2 }, allocator)?;
/// let vmm = Vmm { manager, scratch: Arc::new(Scratch(Mutex::new([0; 4]))) };
/// let id = vmm.manager.register_device(vmm.scratch.clone(), None, &[IoResource::pio(0x500, 4)], &[])?;
///
/// vmm.manager.dispatcher(0)?.write(GuestAddress(0x501), &[7], IoType::Pio)?;
/// assert_eq!(*vmm.scratch.0.lock(), [0, 7, 0, 0]);
///
/// let removed: SharedDevice = vmm.manager.unregister_device(id)?;
/// assert_eq!(removed.name(), "scratch");
/// drop(removed);
/// assert_eq!(Arc::strong_count(&vmm.scratch), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct OwnedManager(Arc<Owners>);

/// What the owners of a manager share. When it is dropped, the manager ends.
struct Owners(Arc<Inner>);

impl Drop for Owners {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl OwnedManager {
    /// A manager with this much room, and nothing else than devices. A [`Builder`] makes one with an interrupt controller, or with
    /// other settings.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new(capacities: Capacities, allocator: SystemAllocator) -> Result<Self, BuildError> {
        Builder::new(capacities, allocator).build()
    }

    fn of(inner: Arc<Inner>) -> Self {
        Self(Arc::new(Owners(inner)))
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.0.0
    }

    /// A manager that does not keep the manager: for a device, which the manager owns.
    pub fn downgrade(&self) -> WeakManager {
        WeakManager(Arc::downgrade(&self.0))
    }

    /// Registers a device: see [`DeviceManager::register_device`](crate::DeviceManager::register_device). The manager has it until it is
    /// unregistered.
    ///
    /// # Errors
    /// As there. A caller that wants to try again keeps a clone of the `Arc`.
    pub fn register_device(
        &self,
        device: SharedDevice,
        parent: Option<InstanceId>,
        requests: &[IoResource],
        irqs: &[IrqResource],
    ) -> Result<InstanceId, RegisterError<String>> {
        let (inner, call) = self.call();
        let taken = inner.take(device.name(), parent, requests, irqs)?;
        inner.register(&call, taken, device)
    }

    /// Takes the ranges and interrupts of a device before the device exists: see
    /// [`DeviceManager::take`](crate::DeviceManager::take).
    ///
    /// # Errors
    /// As there.
    pub fn take(
        &self,
        name: &str,
        parent: Option<InstanceId>,
        requests: &[IoResource],
        irqs: &[IrqResource],
    ) -> Result<OwnedTaken, RegisterError<String>> {
        let (inner, _call) = self.call();
        let taken = inner.take(name, parent, requests, irqs)?;
        Ok(OwnedTaken(Held::new(taken, self.clone())))
    }

    /// Removes a device, and gives it back: see [`DeviceManager::unregister_device`](crate::DeviceManager::unregister_device).
    ///
    /// # Errors
    /// As there.
    pub fn unregister_device(&self, id: InstanceId) -> Result<SharedDevice, UnregisterError<String>> {
        self.inner().unregister(id, None)
    }

    /// Removes a device with everything below it, and gives them back, in the order of their ids: see
    /// [`DeviceManager::unregister_subtree`](crate::DeviceManager::unregister_subtree).
    ///
    /// # Errors
    /// As there.
    pub fn unregister_subtree(&self, id: InstanceId) -> Result<Vec<RemovedDevice>, UnregisterError<String>> {
        self.inner().unregister_subtree(id, None)
    }

    /// Removes a device without waiting: see
    /// [`DeviceManager::unregister_device_deferred`](crate::DeviceManager::unregister_device_deferred). [`collect`](Self::collect) gives it
    /// back.
    ///
    /// # Errors
    /// As there.
    pub fn unregister_device_deferred(&self, id: InstanceId) -> Result<(), UnregisterError<String>> {
        self.inner().unregister_deferred(id)
    }

    /// Finishes what removals have left, and gives back the devices: see
    /// [`DeviceManager::collect`](crate::DeviceManager::collect). A registration finishes removals too; their devices are given back
    /// by the next call of this method.
    pub fn collect(&self) -> Collected {
        let inner = self.inner();
        let left = inner.collect();
        Collected { devices: inner.take_finished(), left }
    }

    /// See [`DeviceManager::relocate`](crate::DeviceManager::relocate).
    ///
    /// # Errors
    /// As there.
    pub fn relocate(&self, relocations: &mut [Relocation]) -> Result<(), RelocateError<String>> {
        let (inner, _call) = self.call();
        inner.manager().relocate(relocations).map_err(|error| error.map_names(String::from))
    }

    /// See [`DeviceManager::reserve`](crate::DeviceManager::reserve).
    ///
    /// # Errors
    /// As there.
    pub fn reserve(
        &self,
        io_type: IoType,
        placement: impl Into<Placement>,
    ) -> Result<IoRange, RangeRefusal<Owner<String>>> {
        let (inner, _call) = self.call();
        inner.manager().reserve(io_type, placement).map_err(|refusal| refusal.map_names(String::from))
    }

    /// See [`DeviceManager::release`](crate::DeviceManager::release).
    ///
    /// # Errors
    /// As there.
    pub fn release(&self, io_type: IoType, range: IoRange) -> Result<(), RangeRefusal<Owner<String>>> {
        let (inner, _call) = self.call();
        inner.manager().release(io_type, range).map_err(|refusal| refusal.map_names(String::from))
    }

    /// See [`DeviceManager::reserve_irq`](crate::DeviceManager::reserve_irq).
    ///
    /// # Errors
    /// As there.
    pub fn reserve_irq(&self, gsi: Option<Gsi>) -> Result<Gsi, IrqError> {
        self.inner().manager().reserve_irq(gsi)
    }

    /// See [`DeviceManager::release_irq`](crate::DeviceManager::release_irq).
    ///
    /// # Errors
    /// As there.
    pub fn release_irq(&self, gsi: Gsi) -> Result<(), IrqError> {
        self.inner().manager().release_irq(gsi)
    }

    /// See [`DeviceManager::reroute`](crate::DeviceManager::reroute).
    ///
    /// # Errors
    /// As there.
    pub fn reroute(&self, id: InstanceId, index: usize, gsi: Option<Gsi>) -> Result<(), RerouteError<String>> {
        let (inner, _call) = self.call();
        inner.manager().reroute(id, index, gsi).map_err(|error| error.map_names(String::from))
    }

    /// See [`DeviceManager::end_of_interrupt`](crate::DeviceManager::end_of_interrupt).
    ///
    /// # Errors
    /// As there.
    pub fn end_of_interrupt(&self, gsi: Gsi) -> Result<(), InterruptError> {
        self.inner().manager().end_of_interrupt(gsi)
    }

    /// See [`DeviceManager::reset`](crate::DeviceManager::reset).
    ///
    /// # Errors
    /// As there.
    pub fn reset(&self) -> Result<(), ResetError<String>> {
        let (inner, _call) = self.call();
        inner.manager().reset().map_err(|error| error.map_names(String::from))
    }

    /// See [`DeviceManager::tick`](crate::DeviceManager::tick).
    pub fn tick(&self, now: u64) -> Option<u64> {
        self.inner().manager().tick(now)
    }

    /// A handle of the vCPU with this number: see [`DeviceManager::dispatcher`](crate::DeviceManager::dispatcher). It may live for
    /// longer than the manager.
    ///
    /// # Errors
    /// As there.
    pub fn dispatcher(&self, vcpu: u16) -> Result<OwnedDispatcher, DispatcherError> {
        self.dispatcher_with_hints(vcpu)
    }

    /// As [`dispatcher`](Self::dispatcher), with another number of hints: see
    /// [`DeviceManager::dispatcher_with_hints`](crate::DeviceManager::dispatcher_with_hints).
    ///
    /// # Errors
    /// As there.
    pub fn dispatcher_with_hints<const PORTS: usize, const MEMORY: usize>(
        &self,
        vcpu: u16,
    ) -> Result<OwnedDispatcher<PORTS, MEMORY>, DispatcherError> {
        let inner = Arc::clone(self.inner());
        let dispatcher = inner.manager().dispatcher_with_hints(vcpu)?;
        Ok(OwnedDispatcher(Held::new(dispatcher, inner)))
    }

    /// The manager as seen from within the callback that `access` is handed to: see
    /// [`DeviceManager::nested`](crate::DeviceManager::nested).
    pub fn nested<'a>(&self, access: &'a Access<'a>) -> OwnedNested<'a> {
        OwnedNested { manager: self.clone(), access }
    }

    /// See [`DeviceManager::read`](crate::DeviceManager::read).
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        self.inner().manager().read(address, data, io_type)
    }

    /// See [`DeviceManager::write`](crate::DeviceManager::write).
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        self.inner().manager().write(address, data, io_type)
    }

    /// See [`DeviceManager::read_string`](crate::DeviceManager::read_string).
    ///
    /// # Errors
    /// As there.
    pub fn read_string(&self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        self.inner().manager().read_string(port, element, data)
    }

    /// See [`DeviceManager::write_string`](crate::DeviceManager::write_string).
    ///
    /// # Errors
    /// As there.
    pub fn write_string(&self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        self.inner().manager().write_string(port, element, data)
    }

    /// The manager's memory, for a call that may see names.
    fn call(&self) -> (&Inner, names::Call<'_>) {
        let inner = self.inner();
        (inner, inner.call())
    }
}

accesses!([] & OwnedManager);

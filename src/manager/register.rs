//! Registration of devices, and ranges and interrupt lines for the VMM itself.

use crate::address::{IoRange, IoType};
use crate::device::Device;
use crate::error::{IrqError, Owner, RangeRefusal, RegisterError};
use crate::instance::InstanceId;
use crate::interrupt::Gsi;
use crate::manager::device_manager::DeviceManager;
use crate::manager::take::Request;
use crate::resource::{IoResource, IrqResource, Placement};

impl<'d> DeviceManager<'d> {
    /// Registers a device as the last child of `parent`, or at the root: gives it the ranges and the line it asks for,
    /// tells it of them, and only then makes it reachable. When the call has returned, every later access, from any vCPU,
    /// reaches the device. Before all else it does what [`collect`](Self::collect) does.
    ///
    /// A range lies in a window of the nearest bus above the device that has one for the space, or, where no bus has, outside of
    /// every other range. A decoded range needs a decoded window. A range that waits or is unplaced needs neither.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     AccessSizes, DeviceManager, Gsi, GuestUsize, IoRange, IoResource, IoType, IrqResource, Storage,
    ///     SystemAllocator,
    /// };
    ///
    /// let device = Constant("uart", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let allocator =
    ///     SystemAllocator::new(IoRange::of::<0xc000_0000, 0xffff_ffff>()).with_ports(IoRange::ALL_PORTS).with_irqs(4, 15);
    /// let manager = DeviceManager::new(&storage, allocator);
    /// let requests = [
    ///     IoResource::pio(0x3f8, 8).sizes(AccessSizes::BYTE),
    ///     IoResource::any(IoType::Mmio, GuestUsize(0x1000)).aligned(0x1000).last_fit(),
    /// ];
    /// let uart = manager.register_device(&device, None, &requests, &[IrqResource::Fixed(Gsi(4))]).unwrap();
    /// let place = |index| manager.range(uart, index).map(|assigned| assigned.range);
    /// assert_eq!(place(0), Some(IoRange::of::<0x3f8, 0x3ff>()));
    /// assert_eq!(place(1), Some(IoRange::of::<0xffff_f000, 0xffff_ffff>()));
    /// ```
    ///
    /// # Errors
    /// [`RegisterError`] names the device, what it asked for, what is in the way and its owner. Nothing has changed then,
    /// except what `collect` has finished. A device that unwinds out of `set_resources` has rejected its resources, and the
    /// unwinding goes on.
    pub fn register_device(
        &'d self,
        device: &'d dyn Device<'d>,
        parent: Option<InstanceId>,
        requests: &[IoResource],
        irqs: &[IrqResource],
    ) -> Result<InstanceId, RegisterError<&'d str>> {
        let name = device.name();
        self.take_for(Request { device, name, parent, ranges: requests, irqs })?.register(device)
    }

    /// Takes a range for the VMM itself: RAM, a local APIC. No device gets it, and an access to it is unclaimed. An [`IoRange`]
    /// is taken as it is; a [`Placement`] may leave the base to the manager.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestUsize, IoRange, IoResource, IoType, Placement, Storage, SystemAllocator,
    /// };
    ///
    /// let device = Constant("timer", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// // The guest's RAM.
    /// let ram = manager.reserve(IoType::Mmio, Placement::Fixed(IoRange::of::<0, 0x3fff_ffff>())).unwrap();
    /// let page = IoResource::any(IoType::Mmio, GuestUsize(0x1000));
    /// let timer = manager.register_device(&device, None, &[page], &[]).unwrap();
    /// let place = manager.range(timer, 0).unwrap().range;
    /// assert!(!place.overlaps(ram));
    /// assert_eq!(place.first().0, 0x4000_0000);
    /// ```
    ///
    /// # Errors
    /// [`RangeRefusal`] tells what is in the way, and its owner.
    pub fn reserve(
        &self,
        io_type: IoType,
        placement: impl Into<Placement>,
    ) -> Result<IoRange, RangeRefusal<Owner<&'d str>>> {
        self.reserve_at(io_type, &placement.into())
    }

    fn reserve_at(&self, io_type: IoType, placement: &Placement) -> Result<IoRange, RangeRefusal<Owner<&'d str>>> {
        let mut locked = self.lock().ok_or(RangeRefusal::StorageInUse)?;
        let mut state = locked.state();
        state.pool.reserve(io_type, placement).map_err(|error| state.refusal(error))
    }

    /// Gives back a range that was taken by [`reserve`](Self::reserve), exactly as it was taken.
    ///
    /// ```
    /// use vm_device::{DeviceManager, IoRange, IoType, Placement, Storage, SystemAllocator};
    ///
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let apic = manager.reserve(IoType::Mmio, Placement::Fixed(IoRange::of::<0xfee0_0000, 0xfee0_0fff>())).unwrap();
    /// // Exactly as it was taken.
    /// assert!(manager.release(IoType::Mmio, IoRange::of::<0xfee0_0000, 0xfee0_07ff>()).is_err());
    /// assert_eq!(manager.release(IoType::Mmio, apic), Ok(()));
    /// ```
    ///
    /// # Errors
    /// [`RangeRefusal::NotAllocated`] for any other range, a device's among them, and the refusals of
    /// [`reserve`](Self::reserve) about the storage and the ports.
    pub fn release(&self, io_type: IoType, range: IoRange) -> Result<(), RangeRefusal<Owner<&'d str>>> {
        let released = self.with_state(|state| {
            let released = state.pool.release(io_type, range).map_err(|error| state.refusal(error));
            self.sweep(state);
            released
        });
        let _ = self.tell(None);
        released.unwrap_or(Err(RangeRefusal::StorageInUse))
    }

    /// Takes an interrupt line for the VMM itself: the given one, or the lowest that is free. No device gets it.
    ///
    /// ```
    /// use vm_device::{DeviceManager, Gsi, IoRange, Storage, SystemAllocator};
    ///
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 15));
    /// assert_eq!(manager.reserve_irq(Some(Gsi(8))), Ok(Gsi(8)));
    /// assert_eq!(manager.reserve_irq(None), Ok(Gsi(0)));
    /// assert!(manager.reserve_irq(Some(Gsi(8))).is_err());
    /// assert_eq!(manager.release_irq(Gsi(8)), Ok(()));
    /// ```
    ///
    /// # Errors
    /// [`IrqError`] tells why not.
    pub fn reserve_irq(&self, gsi: Option<Gsi>) -> Result<Gsi, IrqError> {
        self.lock().ok_or(IrqError::StorageInUse)?.state().allocate_irq(gsi)
    }

    /// Gives back an interrupt line that was taken by [`reserve_irq`](Self::reserve_irq).
    ///
    /// # Errors
    /// [`IrqError::NotAllocated`] for any other line of the allocator's, a device's among them, and the errors of
    /// [`reserve_irq`](Self::reserve_irq) about the storage and the lines.
    pub fn release_irq(&self, gsi: Gsi) -> Result<(), IrqError> {
        let mut locked = self.lock().ok_or(IrqError::StorageInUse)?;
        let mut state = locked.state();
        if state.line_at(gsi).is_some() {
            return Err(IrqError::NotAllocated { gsi });
        }
        state.free_irq(gsi)
    }
}

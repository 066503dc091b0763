//! The reset of all devices.
//!
//! It has two steps. In the first it waits for the callbacks that are running, as a removal does, and gives up at the spin limit;
//! then nothing has been reset. In the second it calls one device after the other, in the order of the tree. The call counts as
//! a call of the device ([`calls`](super::calls)), so that a removal waits for it; until the next device is called, the last one
//! stays in the tree, and the walk does not lose its place.

use crate::access::{Access, OuterAccess};
use crate::error::ResetError;
use crate::manager::device_manager::DeviceManager;
use crate::manager::on_drop::OnDrop;
use crate::manager::remove::outer_accesses;
use crate::manager::wait::Wait;

impl<'d> DeviceManager<'d> {
    /// Resets the devices: calls [`Device::reset`](crate::Device::reset) of each that is registered, a bus before what is on it,
    /// siblings in the order of their registration. For the reset of the whole machine, which a guest asks for through a
    /// [`PowerControl`](crate::PowerControl), and which the VMM makes while no vCPU runs.
    ///
    /// First it waits for the callbacks of all devices that are running when it is called, within the spin limit of removals
    /// ([`with_removal_spins`](Self::with_removal_spins)). It keeps no vCPU from making accesses meanwhile: one that does may
    /// reach some devices before their reset, and others after it. Ranges and interrupt lines stay as they are; what a device
    /// changes in them, it changes itself. Devices that are registered while the reset is under way are not reset.
    ///
    /// A device that unwinds ends the reset, and the devices behind it are not reset.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU8, Ordering};
    /// use vm_device::{Access, Device, DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator};
    ///
    /// /// The scratch register of a serial port.
    /// struct Scratch(AtomicU8);
    ///
    /// impl Device<'_> for Scratch {
    ///     fn name(&self) -> &str {
    ///         "scratch"
    ///     }
    ///     fn read(&self, _: &Access<'_>, data: &mut [u8]) {
    ///         data.fill(self.0.load(Ordering::Relaxed));
    ///     }
    ///     fn write(&self, _: &Access<'_>, data: &[u8]) {
    ///         data.iter().for_each(|value| self.0.store(*value, Ordering::Relaxed));
    ///     }
    ///     fn reset(&self) {
    ///         self.0.store(0, Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// let device = Scratch(AtomicU8::new(0));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// manager.register_device(&device, None, &[IoResource::mmio(0x1000, 1)], &[]).unwrap();
    /// let mut data = [7];
    /// manager.write(GuestAddress(0x1000), &data, IoType::Mmio).unwrap();
    /// assert_eq!(manager.reset(), Ok(()));
    /// manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio).unwrap();
    /// assert_eq!(data, [0]);
    /// ```
    ///
    /// # Errors
    /// [`ResetError`]: no device was reset.
    pub fn reset(&self) -> Result<(), ResetError<&'d str>> {
        self.reset_within(None)
    }

    /// As [`reset`](Self::reset), from within an access.
    pub(crate) fn reset_within(&self, within: Option<&Access<'_>>) -> Result<(), ResetError<&'d str>> {
        let is_own = |access: &OuterAccess<'_>| access.caller.manager == self.identity() && access.node.is_some();
        let own = outer_accesses(within).find(is_own).and_then(|access| access.node);
        let begun = self.with_state(|state| {
            if let Some(own) = own.and_then(|own| state.tree.node(own)) {
                return Err(ResetError::InOwnCallback { device: own.name });
            }
            match core::mem::replace(&mut state.left.resetting, true) {
                true => Err(ResetError::UnderWay),
                false => Ok(state.tree.linked()),
            }
        });
        // Where the storage is another manager's, there are no devices.
        let Some(begun) = begun else { return Ok(()) };
        let linked = begun?;
        let _ended = OnDrop::new((), |()| {
            self.with_state(|state| state.left.resetting = false);
        });
        self.wait_for_everyone().map_err(|device| ResetError::InUse { device })?;
        self.call_each(linked, |device| device.reset());
        Ok(())
    }

    /// Waits for the callbacks that are running in any device. An error, with the device, at the spin limit.
    fn wait_for_everyone(&self) -> Result<(), &'d str> {
        let mut wait = Wait::new(self.removal_spins);
        while let Some(next) = self.with_state(|state| wait.next(state, state.tree.nodes())) {
            let Some(running) = next? else { break };
            self.wait_for(&running, &mut wait)?;
        }
        Ok(())
    }
}

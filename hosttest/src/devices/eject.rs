//! A register through which a guest removes a device.

use spin::Mutex;
use vm_device::{Access, Device, DeviceManager, InstanceId};

/// One byte: writing 1 removes the device it was told of. It reads as 1 while that device is there.
pub struct Eject<'d> {
    manager: &'d DeviceManager<'d>,
    device: Mutex<Option<InstanceId>>,
}

impl<'d> Eject<'d> {
    /// A register that removes devices from `manager`.
    pub const fn new(manager: &'d DeviceManager<'d>) -> Self {
        Self { manager, device: Mutex::new(None) }
    }

    /// Names the device to remove.
    pub fn plug(&self, device: InstanceId) {
        *self.device.lock() = Some(device);
    }
}

impl<'d> Device<'d> for Eject<'d> {
    fn name(&self) -> &str {
        "eject"
    }

    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data[0] = (*self.device.lock()).is_some_and(|id| self.manager.device(id).is_some()).into();
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let device = *self.device.lock();
        if let (Some(device), [1, ..]) = (device, data) {
            // A second removal is an error of the guest, which reads the register to learn what became of the first.
            let _ = self.manager.nested(access).unregister_device(device);
        }
    }
}

//! A whole manager of the peer's with its devices, as a bus of this crate.

use std::sync::Arc;

use peer_vm_device::bus::{MmioAddress, PioAddress};
use peer_vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_device::{Access, Device, IoRange, IoResource, IoType};

/// An `IoManager` as the bus above all devices. It answers where none of these does, so that they move out of it one at a time:
/// what is registered here is taken out there.
///
/// An access that no device answers has the open-bus value, as without this bus; but its outcome is `Ok`, since the bus took it.
///
/// ```
/// use std::sync::Arc;
///
/// use hosttest::adapters::io_manager_bus::IoManagerBus;
/// use hosttest::adapters::serial::Serial;
/// use peer_vm_device::device_manager::IoManager;
/// use vm_device::{DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator};
///
/// // With all devices that the machine has, but the serial port.
/// let peer = IoManager::new();
/// let (bus, port) = (IoManagerBus::new(Arc::new(peer)), Serial::new(Vec::new()));
/// let storage = Storage::<8, 16, 2>::new();
/// let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS);
/// let manager = DeviceManager::new(&storage, allocator);
/// let all = manager.register_device(&bus, None, &IoManagerBus::WINDOWS, &[]).unwrap();
/// manager.register_device(&port, Some(all), &[IoResource::pio(0x3f8, 8)], &[]).unwrap();
///
/// manager.dispatcher(0).unwrap().write(GuestAddress(0x3f8), b"x", IoType::Pio).unwrap();
/// assert_eq!(port.with_writer(|sent| sent.clone()), b"x");
/// ```
pub struct IoManagerBus {
    manager: Arc<IoManager>,
}

impl IoManagerBus {
    /// All ports and all memory. Where the allocator of this crate's manager has less, the windows have to be smaller.
    pub const WINDOWS: [IoResource; 2] = [
        IoResource::at(IoType::Pio, IoRange::ALL_PORTS).window(),
        IoResource::at(IoType::Mmio, IoRange::ALL_MEMORY).window(),
    ];

    /// With the devices that `manager` has.
    pub fn new(manager: Arc<IoManager>) -> Self {
        Self { manager }
    }
}

impl Device<'_> for IoManagerBus {
    fn name(&self) -> &str {
        "io-manager"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let address = access.address().0;
        // What reaches nothing keeps the open-bus value. A port has 16 bits.
        let _ = match access.io_type() {
            IoType::Pio => self.manager.pio_read(PioAddress(address as u16), data),
            _ => self.manager.mmio_read(MmioAddress(address), data),
        };
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let address = access.address().0;
        // What reaches nothing is ignored. A port has 16 bits.
        let _ = match access.io_type() {
            IoType::Pio => self.manager.pio_write(PioAddress(address as u16), data),
            _ => self.manager.mmio_write(MmioAddress(address), data),
        };
    }
}

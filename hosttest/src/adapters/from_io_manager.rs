//! A device of the peer's, as a device of this crate.

use std::sync::Arc;

use peer_vm_device::bus::{MmioAddress, PioAddress};
use peer_vm_device::{DeviceMmio, DevicePio};
use vm_device::{Access, Device, IoType, Rejected, Resources};

/// A device of an `IoManager`, in the `Arc` that it has there. A `Mutex<T>` is such a device if `T` has `MutDevicePio` or
/// `MutDeviceMmio`.
///
/// It is called with the base of its range and the offset into that, as an `IoManager` calls it. It does not learn which vCPU makes
/// an access, and its interrupts remain its own affair: it has whatever trigger it was made with.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use hosttest::adapters::from_io_manager::FromIoManager;
/// use peer_vm_device::MutDevicePio;
/// use peer_vm_device::bus::{PioAddress, PioAddressOffset};
/// use vm_device::{DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator};
///
/// /// A port that counts how often it is read.
/// struct Counter(u8);
///
/// impl MutDevicePio for Counter {
///     fn pio_read(&mut self, _: PioAddress, _: PioAddressOffset, data: &mut [u8]) {
///         self.0 += 1;
///         data.fill(self.0);
///     }
///     fn pio_write(&mut self, _: PioAddress, _: PioAddressOffset, _: &[u8]) {}
/// }
///
/// let counter = FromIoManager::pio("counter", Arc::new(Mutex::new(Counter(0))));
/// let storage = Storage::<8, 16, 2>::new();
/// let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS);
/// let manager = DeviceManager::new(&storage, allocator);
/// manager.register_device(&counter, None, &[IoResource::pio(0x80, 1)], &[]).unwrap();
/// let mut data = [0];
/// manager.dispatcher(0).unwrap().read(GuestAddress(0x80), &mut data, IoType::Pio).unwrap();
/// assert_eq!(data, [1]);
/// ```
pub struct FromIoManager {
    name: String,
    ports: Option<Arc<dyn DevicePio + Send + Sync>>,
    memory: Option<Arc<dyn DeviceMmio + Send + Sync>>,
}

impl FromIoManager {
    /// A device with ports. The name is as [`Device::name`] asks for.
    pub fn pio(name: impl Into<String>, device: Arc<dyn DevicePio + Send + Sync>) -> Self {
        Self { name: name.into(), ports: Some(device), memory: None }
    }

    /// A device with ranges of memory.
    pub fn mmio(name: impl Into<String>, device: Arc<dyn DeviceMmio + Send + Sync>) -> Self {
        Self { name: name.into(), ports: None, memory: Some(device) }
    }

    /// A device with both.
    pub fn both<T: DevicePio + DeviceMmio + Send + Sync + 'static>(name: impl Into<String>, device: Arc<T>) -> Self {
        Self { name: name.into(), ports: Some(device.clone()), memory: Some(device) }
    }

    /// The device's handler of ports, if the access goes there, with base and offset. The peer's are 16 bits wide.
    fn ports(&self, access: &Access<'_>) -> Option<(&dyn DevicePio, PioAddress, u16)> {
        let (base, offset) = (u16::try_from(access.base().0).ok()?, u16::try_from(access.offset()).ok()?);
        let device = self.ports.as_deref().filter(|_| access.io_type() == IoType::Pio)?;
        Some((device, PioAddress(base), offset))
    }

    /// The same for memory.
    fn memory(&self, access: &Access<'_>) -> Option<(&dyn DeviceMmio, MmioAddress, u64)> {
        let device = self.memory.as_deref().filter(|_| access.io_type() == IoType::Mmio)?;
        Some((device, MmioAddress(access.base().0), access.offset()))
    }
}

impl Device<'_> for FromIoManager {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        if let Some((device, base, offset)) = self.ports(access) {
            device.pio_read(base, offset, data);
        } else if let Some((device, base, offset)) = self.memory(access) {
            device.mmio_read(base, offset, data);
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        if let Some((device, base, offset)) = self.ports(access) {
            device.pio_write(base, offset, data);
        } else if let Some((device, base, offset)) = self.memory(access) {
            device.mmio_write(base, offset, data);
        }
    }

    /// A range that the device has no handler for is refused, with `EINVAL`.
    fn set_resources(&self, resources: &Resources<'_, '_>) -> Result<(), Rejected> {
        let serves = |io_type| match io_type {
            IoType::Pio => self.ports.is_some(),
            IoType::Mmio => self.memory.is_some(),
            IoType::PhysicalMmio => true,
        };
        let served = resources.ranges().iter().all(|range| serves(range.io_type));
        served.then_some(()).ok_or(Rejected::new(libc::EINVAL as u32))
    }
}

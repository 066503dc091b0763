//! System control port A of a PC.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::access::Access;
use crate::description::{Description, Part};
use crate::device::Device;
use crate::power::PowerControl;
use crate::resource::IoResource;

/// System control port A (IBM PS/2 Hardware Interface Technical Reference, "System Control Port A"): the fast gate of address line 20
/// and the fast reset, one byte at port 0x92.
///
/// A change of bit 0 from 0 to 1 asks `P` for a reset. Bit 1 opens address line 20; it is kept, and what it means for the guest's
/// memory is the embedder's to decide ([`is_a20_open`](Self::is_a20_open)). Both read back. The other bits (lamps of disks, watchdog,
/// security lock) are 0.
///
/// ```
/// use vm_device::devices::system_control::SystemControlA;
/// use vm_device::{DeviceManager, IoRange, IoType, PowerControl, Storage, SystemAllocator};
///
/// struct Machine;
///
/// impl PowerControl for Machine {
///     fn reset(&self) {}
///     fn power_off(&self) {}
/// }
///
/// let port = SystemControlA::new(Machine);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// manager.register_device(&port, None, &[port.port()], &[]).unwrap();
/// manager.write(0x92_u16.into(), &[0x02], IoType::Pio).unwrap();
/// assert!(port.is_a20_open());
/// ```
#[derive(Debug)]
pub struct SystemControlA<P> {
    power: P,
    register: AtomicU8,
}

/// The processor is reset.
const RESET: u8 = 1 << 0;
/// Address line 20 is open.
const A20: u8 = 1 << 1;

impl<P> SystemControlA<P> {
    /// A port as after power-on, which asks `power`.
    pub const fn new(power: P) -> Self {
        Self { power, register: AtomicU8::new(0) }
    }

    /// The request for its port.
    pub const fn port(&self) -> IoResource {
        IoResource::pio(0x92, 1)
    }

    /// Whether this port opens address line 20. On hardware it is open if this port or the keyboard controller opens it.
    pub fn is_a20_open(&self) -> bool {
        self.register.load(Ordering::Relaxed) & A20 != 0
    }
}

impl<P: PowerControl> Device<'_> for SystemControlA<P> {
    fn name(&self) -> &str {
        "system control"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load(&[self.register.load(Ordering::Relaxed)], data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        if let (0, Some(value)) = (access.offset(), data.first()) {
            let before = self.register.swap(value & (RESET | A20), Ordering::Relaxed);
            if value & !before & RESET != 0 {
                self.power.reset();
            }
        }
    }

    fn reset(&self) {
        self.register.store(0, Ordering::Relaxed);
    }

    fn describe(&self, description: &mut dyn Description) {
        // A resource of the board.
        description.acpi("PNP0C02", Part::ALL);
    }
}

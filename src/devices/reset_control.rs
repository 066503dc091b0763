//! The reset control register of a PC.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::access::Access;
use crate::description::{Description, DeviceRegister, Role};
use crate::device::Device;
use crate::power::PowerControl;
use crate::resource::IoResource;

/// The reset control register of the PIIX3 (Intel 82371SB data sheet 290550, "RC: reset control register"): one byte at port 0xcf9,
/// which lies in the dword of PCI's CONFIG_ADDRESS. It is registered below a host bridge, whose window these ports are, or alone.
///
/// The reset happens when bit 2 changes from 0 to 1. Bit 1 says which: of the machine, or of the processor alone. Both are asked of
/// `P` as a reset of the machine, which is what a guest wants that goes on with its firmware. Both bits read back; the others are 0.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use vm_device::devices::reset_control::ResetControl;
/// use vm_device::{DeviceManager, IoRange, IoType, PowerControl, Storage, SystemAllocator};
///
/// struct Machine(AtomicBool);
///
/// impl PowerControl for Machine {
///     fn reset(&self) {
///         self.0.store(true, Ordering::Release);
///     }
///     fn power_off(&self) {}
/// }
///
/// let machine = Machine(AtomicBool::new(false));
/// let control = ResetControl::new(&machine);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// manager.register_device(&control, None, &[control.port()], &[]).unwrap();
/// for (value, is_reset) in [(0x02, false), (0x06, true)] {
///     manager.write(0xcf9_u16.into(), &[value], IoType::Pio).unwrap();
///     assert_eq!(machine.0.load(Ordering::Acquire), is_reset);
/// }
/// ```
#[derive(Debug)]
pub struct ResetControl<P> {
    power: P,
    register: AtomicU8,
}

/// The reset is of the whole machine, and not of the processor alone.
const SYSTEM: u8 = 1 << 1;
/// The reset happens.
const RESET: u8 = 1 << 2;

impl<P> ResetControl<P> {
    /// A register as after power-on, which asks `power`.
    pub const fn new(power: P) -> Self {
        Self { power, register: AtomicU8::new(0) }
    }

    /// The request for its port.
    pub const fn port(&self) -> IoResource {
        IoResource::pio(0xcf9, 1)
    }
}

impl<P: PowerControl> Device<'_> for ResetControl<P> {
    fn name(&self) -> &str {
        "reset control"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load(&[self.register.load(Ordering::Relaxed)], data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        if let (0, Some(value)) = (access.offset(), data.first()) {
            let before = self.register.swap(value & (SYSTEM | RESET), Ordering::Relaxed);
            if value & !before & RESET != 0 {
                self.power.reset();
            }
        }
    }

    fn reset(&self) {
        self.register.store(0, Ordering::Relaxed);
    }

    fn describe(&self, description: &mut dyn Description) {
        let register = DeviceRegister { range_index: 0, offset: 0, size: 1 };
        description.role(Role::Reset { register, value: RESET | SYSTEM });
    }
}

//! The ACPI power management timer.

use super::time::{Clock, Rate};
use crate::access::Access;
use crate::description::{Description, Role};
use crate::device::Device;
use crate::resource::IoResource;

/// A quarter of the 315/22 MHz of a PC's crystal: 3.579545 MHz.
const RATE: Rate = Rate::new(315, 88_000);

/// The power management timer (ACPI 6.5, 4.8.3.3): a register of 4 bytes that counts at 3.579545 MHz, in ports or in memory. It
/// cannot be stopped, and is read only.
///
/// It counts 24 bits unless it is [`with_32_bits`](Self::with_32_bits), as the flag `TMR_VAL_EXT` of the FADT says (ACPI 6.5,
/// table 5.10). It counts from the beginning of the clock `C` on, exactly, and a reset does not change it. The status bit that
/// a carry sets is part of the PM1 registers.
///
/// ```
/// use vm_device::devices::pm_timer::PmTimer;
/// use vm_device::devices::time::HandClock;
/// use vm_device::{DeviceManager, GuestAddress, IoRange, IoType, Storage, SystemAllocator};
///
/// let clock = HandClock::new();
/// let timer = PmTimer::new(&clock);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager =
///     DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// manager.register_device(&timer, None, &[timer.ports(0x608)], &[]).unwrap();
/// clock.advance(1_000_000);
/// let mut data = [0; 4];
/// manager.read(GuestAddress(0x608), &mut data, IoType::Pio).unwrap();
/// assert_eq!(u32::from_le_bytes(data), 3_579);
/// ```
pub struct PmTimer<C> {
    clock: C,
    mask: u32,
}

impl<C> PmTimer<C> {
    /// A timer of 24 bits.
    pub const fn new(clock: C) -> Self {
        Self { clock, mask: 0x00ff_ffff }
    }

    /// The same timer with 32 bits.
    #[must_use]
    pub const fn with_32_bits(mut self) -> Self {
        self.mask = u32::MAX;
        self
    }

    /// The request for its register as 4 ports from `base` on.
    pub const fn ports(&self, base: u16) -> IoResource {
        IoResource::pio(base, 4)
    }

    /// The request for its register as 4 bytes of memory from `base` on.
    pub const fn mmio(&self, base: u64) -> IoResource {
        IoResource::mmio(base, 4)
    }
}

impl<C: Clock + Sync> Device<'_> for PmTimer<C> {
    fn name(&self) -> &str {
        "pm timer"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        // The low bits are all that is there: the value wraps.
        let value = RATE.ticks_at(self.clock.now()) as u32 & self.mask;
        access.load(&value.to_le_bytes(), data);
    }

    fn describe(&self, description: &mut dyn Description) {
        description.role(Role::PmTimer { is_wide: self.mask == u32::MAX });
    }
}

//! The reset control register of a PC.

use std::sync::atomic::{AtomicU8, Ordering};

use vm_device::{Access, Device, IoResource, PowerControl};

/// The port of the register.
pub const RESET_CONTROL: u16 = 0xcf9;
/// The reset is of the whole machine, and not of the processor alone.
pub const HARD: u8 = 1 << 1;
/// The reset happens.
pub const RESET: u8 = 1 << 2;

/// One byte (Intel 290550, PIIX3, 2.5.3): a write with [`RESET`] and [`HARD`] asks for a reset of the machine. It reads as the
/// kind of reset that was written last. A reset of the processor alone, without [`HARD`], does nothing here.
pub struct ResetControl<'d> {
    power: &'d dyn PowerControl,
    kind: AtomicU8,
}

impl<'d> ResetControl<'d> {
    /// A register that asks `power`.
    pub const fn new(power: &'d dyn PowerControl) -> Self {
        Self { power, kind: AtomicU8::new(0) }
    }

    /// What it has to be registered with.
    pub const fn resource() -> IoResource {
        IoResource::pio(RESET_CONTROL, 1)
    }
}

impl Device<'_> for ResetControl<'_> {
    fn name(&self) -> &str {
        "reset control"
    }

    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(self.kind.load(Ordering::Relaxed));
    }

    fn write(&self, _: &Access<'_>, data: &[u8]) {
        let Some(value) = data.first() else { return };
        self.kind.store(value & HARD, Ordering::Relaxed);
        if value & (RESET | HARD) == RESET | HARD {
            self.power.reset();
        }
    }

    fn reset(&self) {
        self.kind.store(0, Ordering::Relaxed);
    }
}

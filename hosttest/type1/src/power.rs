//! What the guest asks for that is about the whole machine.

use core::sync::atomic::{AtomicU8, Ordering};

use vm_device::PowerControl;

/// The power switch of the virtual machine.
pub struct Power(AtomicU8);

/// The power switch of the virtual machine.
pub static POWER: Power = Power(AtomicU8::new(ON));

const ON: u8 = 0;
const HALTED: u8 = 1;
const OFF: u8 = 2;
const RESET: u8 = 3;

impl Power {
    /// Whether the guest runs.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ON
    }

    /// Whether the guest turned the machine off.
    pub fn is_off(&self) -> bool {
        self.0.load(Ordering::Relaxed) == OFF
    }

    /// Whether the guest reset the machine.
    pub fn is_reset(&self) -> bool {
        self.0.load(Ordering::Relaxed) == RESET
    }

    /// The guest halted where nothing can wake it.
    pub fn halt(&self) {
        self.0.store(HALTED, Ordering::Relaxed);
    }
}

impl PowerControl for Power {
    fn reset(&self) {
        self.0.store(RESET, Ordering::Relaxed);
    }
    fn power_off(&self) {
        self.0.store(OFF, Ordering::Relaxed);
    }
}

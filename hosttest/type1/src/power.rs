//! The power switch of the virtual machine.

use core::fmt;

use spin::Mutex;
use vm_device::PowerControl;

use crate::failure::Failure;

/// The power switch of the virtual machine.
pub struct Power(Mutex<Option<Ended>>);

/// The power switch of the virtual machine.
pub static POWER: Power = Power(Mutex::new(None));

/// How the guest ended the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It halted where nothing can wake it.
    Halted,
    /// It turned the machine off.
    Off,
    /// It reset the machine.
    Reset,
}

impl Power {
    /// How the guest ended the machine, if it did.
    pub fn ended(&self) -> Option<Ended> {
        *self.0.lock()
    }

    /// The guest halts where nothing can wake it.
    pub fn halt(&self) {
        *self.0.lock() = Some(Ended::Halted);
    }
}

impl PowerControl for Power {
    fn reset(&self) {
        *self.0.lock() = Some(Ended::Reset);
    }
    fn power_off(&self) {
        *self.0.lock() = Some(Ended::Off);
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ended::Halted => "the guest halted",
            Ended::Off => "the guest turned the machine off",
            Ended::Reset => "the guest rebooted",
        })
    }
}

/// Judges a kernel: it came so far as to turn the machine off.
///
/// # Errors
/// It did not.
pub fn turned_off() -> Result<(), Failure> {
    match POWER.ended() {
        Some(Ended::Off) => Ok(()),
        Some(Ended::Reset) => Err("the guest rebooted".into()),
        _ => Err("the guest did not turn the machine off".into()),
    }
}

//! The machine the hypervisor runs on: the serial port on which it speaks, its clock, and the port it leaves through.

use x86_64::instructions::port::PortWriteOnly;

pub use crate::x86::host::*;

/// Bochs ends when `Shutdown` is written to this port, a letter after the other.
const SHUTDOWN: u16 = 0x8900;

/// The bit of the line status register that says that all that was sent has left the UART.
const TRANSMITTER_EMPTY: u8 = 0x40;

/// How the machine ends. Bochs has no exit code for it: the last line tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything the prototype checks held.
    Passed,
    /// Something did not.
    Failed,
}

/// Ends the machine when all that was sent has left it.
pub fn leave(_: Ending) -> ! {
    while line_status() & TRANSMITTER_EMPTY == 0 {}
    for letter in *b"Shutdown" {
        // SAFETY: the port belongs to the device that ends Bochs; where it is missing the write goes nowhere.
        unsafe { PortWriteOnly::<u8>::new(SHUTDOWN).write(letter) };
    }
    loop {
        x86_64::instructions::hlt();
    }
}

//! The machine the hypervisor runs on: the serial port on which it speaks, its clock, and the port it leaves through.

use x86_64::instructions::port::PortWriteOnly;

pub use crate::x86::host::*;

/// QEMU's `isa-debug-exit` device: a write of `n` ends QEMU with the exit code `2 n + 1`.
const DEBUG_EXIT: u16 = 0xf4;

/// How the machine ends: QEMU's exit code is twice the number, and one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything the prototype checks held.
    Passed = 0x10,
    /// Something did not.
    Failed = 0x11,
}

/// Ends the machine.
pub fn leave(ending: Ending) -> ! {
    // SAFETY: the port belongs to the device that ends QEMU; where it is missing the write goes nowhere.
    unsafe { PortWriteOnly::<u32>::new(DEBUG_EXIT).write(ending as u32) };
    loop {
        x86_64::instructions::hlt();
    }
}

//! The machine the hypervisor runs on: the serial port on which it speaks, its clock, and the port it leaves through.

use core::arch::x86_64::_rdtsc;

use vm_device::devices::time::Clock;
use x86_64::instructions::port::{Port, PortReadOnly, PortWriteOnly};

/// The first port of the real 16550 UART (COM1).
pub const COM1: u16 = 0x3f8;

/// QEMU's `isa-debug-exit` device: a write of `n` ends QEMU with the exit code `2 n + 1`.
const DEBUG_EXIT: u16 = 0xf4;

/// Sends one byte, waiting until the transmitter has room for it.
pub fn send(byte: u8) {
    while !has_room() {}
    // SAFETY: the port is that of the UART, which touches no memory.
    unsafe { PortWriteOnly::<u8>::new(COM1).write(byte) };
}

/// Whether the transmitter has room for a byte.
pub fn has_room() -> bool {
    line_status() & 0x20 != 0
}

/// Whether a byte was received.
pub fn has_received() -> bool {
    line_status() & 0x01 != 0
}

/// The byte that was received first.
pub fn receive() -> Option<u8> {
    // SAFETY: the port is that of the UART, which touches no memory.
    has_received().then(|| unsafe { PortReadOnly::<u8>::new(COM1).read() })
}

fn line_status() -> u8 {
    // SAFETY: the port is that of the UART, which touches no memory.
    unsafe { PortReadOnly::<u8>::new(COM1 + 5).read() }
}

/// The processor's time stamp counter, taken for nanoseconds. Where it counts faster, the FIFOs of a UART time out sooner.
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> u64 {
        // SAFETY: reading the counter touches no memory, and every processor with SVM has it.
        unsafe { _rdtsc() }
    }
}

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
    unsafe { Port::<u32>::new(DEBUG_EXIT).write(ending as u32) };
    loop {
        x86_64::instructions::hlt();
    }
}

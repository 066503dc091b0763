//! The machine the hypervisor runs on, as far as every PC is alike: the serial port on which it speaks, and its clock.

use core::arch::x86_64::_rdtsc;

use vm_device::devices::time::Clock;
use x86_64::instructions::port::{PortReadOnly, PortWriteOnly};

/// The first port of the real 16550 UART (COM1).
pub const COM1: u16 = 0x3f8;

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

/// The line status register of the UART.
pub fn line_status() -> u8 {
    // SAFETY: the port is that of the UART, which touches no memory.
    unsafe { PortReadOnly::<u8>::new(COM1 + 5).read() }
}

/// The processor's time stamp counter, taken for nanoseconds. Where it counts faster, the FIFOs of a UART time out sooner.
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> u64 {
        // SAFETY: reading the counter touches no memory, and every processor that virtualises has it.
        unsafe { _rdtsc() }
    }
}

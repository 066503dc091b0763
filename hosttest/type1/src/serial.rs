//! The machine's own serial port, on which the hypervisor speaks, and the port it leaves through.

use core::fmt;

use x86_64::instructions::port::{Port, PortReadOnly, PortWriteOnly};

/// The first port of the real 16550 UART (COM1).
pub const COM1: u16 = 0x3f8;

/// QEMU's `isa-debug-exit` device: a write of `n` ends QEMU with the exit code `2 n + 1`.
const DEBUG_EXIT: u16 = 0xf4;

/// The real UART, as a sink of text.
pub struct Serial;

impl Serial {
    /// Sends one byte, waiting until the transmitter has room for it.
    pub fn send(byte: u8) {
        while !Self::has_room() {}
        // SAFETY: the port is that of the UART, which touches no memory.
        unsafe { PortWriteOnly::<u8>::new(COM1).write(byte) };
    }

    /// Whether the transmitter has room for a byte.
    pub fn has_room() -> bool {
        Self::line_status() & 0x20 != 0
    }

    /// Whether a byte was received.
    pub fn has_received() -> bool {
        Self::line_status() & 0x01 != 0
    }

    /// The byte that was received first.
    pub fn receive() -> Option<u8> {
        // SAFETY: the port is that of the UART, which touches no memory.
        Self::has_received().then(|| unsafe { PortReadOnly::<u8>::new(COM1).read() })
    }

    fn line_status() -> u8 {
        // SAFETY: the port is that of the UART, which touches no memory.
        unsafe { PortReadOnly::<u8>::new(COM1 + 5).read() }
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(Self::send);
        Ok(())
    }
}

/// Prints a line on the machine's serial port.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        // Serial never fails.
        let _ = writeln!($crate::serial::Serial, $($argument)*);
    }};
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

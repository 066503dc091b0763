//! The machine the hypervisor runs on: the serial port on which it speaks, its clock, and how it is turned off.

use core::arch::asm;

use vm_device::devices::time::Clock;

/// The real 16550, and its registers: data, and line status.
const UART: *mut u8 = 0x1000_0000 as *mut u8;
const DATA: usize = 0;
const LINE_STATUS: usize = 5;
const DATA_READY: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 1 << 5;

/// Sends one byte, waiting until the transmitter has room for it.
pub fn send(byte: u8) {
    while !has_room() {}
    // SAFETY: the register is that of the UART, which touches no memory.
    unsafe { UART.add(DATA).write_volatile(byte) };
}

/// Whether the transmitter has room for a byte.
pub fn has_room() -> bool {
    line_status() & TRANSMITTER_EMPTY != 0
}

/// Whether a byte was received.
pub fn has_received() -> bool {
    line_status() & DATA_READY != 0
}

/// The byte that was received first.
pub fn receive() -> Option<u8> {
    // SAFETY: the register is that of the UART, which touches no memory.
    has_received().then(|| unsafe { UART.add(DATA).read_volatile() })
}

fn line_status() -> u8 {
    // SAFETY: the register is that of the UART, which touches no memory.
    unsafe { UART.add(LINE_STATUS).read_volatile() }
}

/// How often the machine's timer counts in a second.
pub const HERTZ: u64 = 10_000_000;

/// The machine's timer, as it counts.
pub fn time() -> u64 {
    let time;
    // SAFETY: reading the register touches no memory.
    unsafe { asm!("csrr {}, time", out(reg) time, options(nomem, nostack)) };
    time
}

/// The machine's timer, in nanoseconds.
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> u64 {
        time().wrapping_mul(1_000_000_000 / HERTZ)
    }
}

/// How the machine ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything the prototype checks held. QEMU exits with 0.
    Passed,
    /// Something did not. QEMU exits with 1.
    Failed,
}

/// Ends the machine, by what QEMU calls its test device.
pub fn leave(ending: Ending) -> ! {
    const TEST: *mut u32 = 0x10_0000 as *mut u32;
    let command = match ending {
        Ending::Passed => 0x5555,
        Ending::Failed => 1 << 16 | 0x3333,
    };
    // SAFETY: the register ends the machine.
    unsafe { TEST.write_volatile(command) };
    loop {
        // SAFETY: waiting touches no memory.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}

//! The serial port of Arm's boards, and a guest that uses it.

use core::hint::black_box;

use vm_device::devices::pl011::Pl011;
use vm_device::devices::time::{Clock, HandClock};
use vm_device::{Access, Device};

use crate::Manager;
use crate::uart::Line;

static CLOCK: HandClock = HandClock::new();
static UART: Pl011<'static, Line, &HandClock> = Pl011::new("serial", Line, &CLOCK).with_reference_clock(48_000_000);

pub fn all(manager: &'static Manager, access: &Access<'_>, data: &mut [u8]) {
    let uart = black_box(&UART);
    manager.register_device(uart, None, &[uart.mmio(0x1000)], &[]).ok();
    uart.read(access, data);
    uart.write(access, data);
    uart.reset();
    uart.poll();
    uart.tick(CLOCK.now());
}

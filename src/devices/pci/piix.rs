//! Functions of Intel's chipsets PIIX3 and PIIX4, as far as firmware programs them.

use super::config::{Command, Config, Register};
use super::function::Function;
use crate::interrupt::Gsi;

/// Where the registers of the inputs PIRQA# to PIRQD# begin, a byte each.
const ROUTES: u8 = 0x60;
/// In such a register: the input leads to no line.
const OFF: u8 = 1 << 7;
/// In such a register: the line.
const LINE: u8 = 0x0f;

/// The bits of a byte that can be written, of four of them.
const fn in_each(byte: u8) -> u32 {
    u32::from_le_bytes([byte; 4])
}

impl<'d> Config<'d> {
    /// The ISA bridge of the chipset PIIX3 (Intel 290550, PCI to ISA bridge registers, function 0), which is function 0 of device 1
    /// on the boards that are known. It has the router of the interrupt pins: the PIRQ route control registers at 0x60 to 0x63, of
    /// which bit 7 says that an input leads nowhere, as after reset, and bits 0 to 3 name a line. The host bridge follows them that
    /// it is given to ([`HostBridge::with_pirq_router`](super::HostBridge::with_pirq_router)).
    ///
    /// Of the rest it keeps what is written to the I/O recovery timer and the X-bus chip select at 0x4c, and to the top of memory
    /// at 0x69, and does nothing by it. What it decodes on the bus ISA are devices of their own.
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function};
    ///
    /// static BRIDGE: Function<'static> = Function::new(Config::piix3());
    /// assert_eq!((BRIDGE.register(0), BRIDGE.register(0x60)), (0x7000_8086, 0x8080_8080));
    /// ```
    pub const fn piix3() -> Self {
        const REGISTERS: &[Register] = &[
            Register::new(0x4c, 0x0003_004d, 0x01f7_007f),
            Register::new(ROUTES, in_each(OFF), in_each(OFF | LINE)),
            Register::new(0x68, 0x0000_0200, 0x0000_fe00),
        ];
        let decodes = Command::PORTS.union(Command::MEMORY).union(Command::BUS_MASTER);
        Self::new(0x8086, 0x7000).class(0x06_0100).registers(REGISTERS).always(decodes)
    }

    /// The power management of the chipset PIIX4 (Intel 290562, power management registers, function 3), which is function 3 of
    /// device 1. SeaBIOS looks for it to find the ports of ACPI: it writes their base into the register at 0x40, and enables them
    /// by bit 0 of that at 0x80. The registers keep that, and the ports are a device of their own, from 0x600 on, where SeaBIOS
    /// puts them. From then on it takes the time from the timer 8 ports behind the base: without one there it waits without end.
    ///
    /// The register at 0x58 says after reset that a write of port 0xb2 raises a system management interrupt (bit 25). By that
    /// SeaBIOS takes system management mode for set up, and does not wait for an interrupt that no VMM raises. The controller of
    /// the system management bus is not there.
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function};
    ///
    /// static POWER: Function<'static> = Function::new(Config::piix4_power());
    /// assert_eq!((POWER.register(0), POWER.register(0x40)), (0x7113_8086, 1));
    /// ```
    pub const fn piix4_power() -> Self {
        const REGISTERS: &[Register] =
            &[Register::new(0x40, 1, 0xffc0), Register::new(0x58, 1 << 25, 1 << 25), Register::new(0x80, 0, 1)];
        Self::new(0x8086, 0x7113).class(0x06_8000).revision(3).interrupt_pin(1).registers(REGISTERS)
    }
}

/// The line that input number `input`, of 0 to 3, of a router leads to. `None`: none, or one of the lines of the board's own
/// devices, which the registers cannot name: timer, keyboard, cascade, clock and coprocessor.
pub(super) fn line(router: &Function<'_>, input: u8) -> Option<Gsi> {
    let value = router.byte(usize::from(ROUTES) + usize::from(input & 0b11));
    let line = value & LINE;
    (value & OFF == 0 && !matches!(line, 0 | 1 | 2 | 8 | 13)).then_some(Gsi(line.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_leads_to_a_line_that_its_register_may_name() {
        let router = Function::new(Config::piix3());
        let with = |value: u8| {
            router.set_register(0x60, 0xff << 16, u32::from(value) << 16);
            [0, 1, 2, 3, 6].map(|input| line(&router, input).map(|gsi| gsi.0))
        };
        for value in 0..=u8::MAX {
            let expected = match value {
                0x80.. => None,
                _ => Some(u32::from(value & 0xf)).filter(|line| ![0, 1, 2, 8, 13].contains(line)),
            };
            assert_eq!(with(value), [None, None, expected, None, expected], "{value:#x}");
        }
    }
}

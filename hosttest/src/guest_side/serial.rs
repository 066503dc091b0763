//! The registers of a serial port that guests use (PC16550D data sheet, Texas Instruments SNLS378, 8).

/// The ports of the first serial port of a PC.
pub const COM1: u16 = 0x3f8;
/// The offset of the transmitter holding register, while the divisor latch is not selected.
pub const TRANSMIT: u16 = 0;
/// The offset of the line control register.
pub const LINE_CONTROL: u16 = 3;
/// The offset of the line status register.
pub const LINE_STATUS: u16 = 5;
/// In the line status register: the transmitter takes another byte.
pub const TRANSMITTER_EMPTY: u8 = 0x60;

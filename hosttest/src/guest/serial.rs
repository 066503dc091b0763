//! Printing on the serial port.

use super::port;
use crate::devices::serial::{COM1, LINE_STATUS, TRANSMIT, TRANSMITTER_EMPTY};

/// Sends a text.
pub fn print(text: &[u8]) {
    for &byte in text {
        while port::read::<u8>(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
        port::write(COM1 + TRANSMIT, byte);
    }
}

/// Sends a number in hexadecimal.
pub fn print_hex(number: u64) {
    print(b"0x");
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let digit = (number >> (4 * digit) & 0xf) as u8;
        print(&[if digit < 10 { b'0' + digit } else { b'a' - 10 + digit }]);
    }
}

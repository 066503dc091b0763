//! What is done on the platform: by a guest's processor, or without one.

use super::layout::{DISK_PORT, INTERRUPTS, NETWORK_PORT, SCRATCH_BASE, VIDEO_BASE, VIDEO_SIZE, WINDOW, WINDOW_SIZE};
use crate::devices::interrupter::ASSERT;
use crate::devices::pci::CONFIG_ADDRESS;
use crate::devices::verdict::{Finding, VERDICT_PORT};
use crate::guest_side::serial::{COM1, LINE_STATUS, TRANSMIT, TRANSMITTER_EMPTY};
use crate::guest_side::{mmio, port};

/// A value of one access.
pub(super) trait Word: Copy {
    /// How many bytes it has.
    const SIZE: usize;
    /// The value that these are the low bits of.
    fn from_u64(value: u64) -> Self;
    /// The value, zero-extended.
    fn to_u64(self) -> u64;
}

macro_rules! word {
    ($($type:ty),*) => {$(
        impl Word for $type {
            const SIZE: usize = size_of::<Self>();
            #[inline(always)]
            fn from_u64(value: u64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                self as u64
            }
        }
    )*};
}

word!(u8, u32, u64);

/// Whatever makes the accesses of the program: one each, in the program's order.
pub(super) trait Accessor {
    /// What it says of itself.
    const GREETING: &'static [u8];
    /// Reads a port.
    fn port_read<T: Word + port::Width>(&mut self, port: u16) -> T;
    /// Writes a port.
    fn port_write<T: Word + port::Width>(&mut self, port: u16, value: T);
    /// Reads memory, of the guest or of a device.
    fn read<T: Word + mmio::Width>(&mut self, address: u64) -> T;
    /// Writes memory, of the guest or of a device.
    fn write<T: Word + mmio::Width>(&mut self, address: u64, value: T);
    /// Lets interrupts of the shared line through.
    fn enable_interrupts(&mut self);
    /// Waits until the handler of the interrupts has counted as many. False if it takes too long.
    fn wait_for_interrupts(&mut self, count: u64) -> bool;
}

/// Compares what was seen with what should have been.
#[inline(always)]
fn expect(check: u32, seen: impl Into<u64>, expected: impl Into<u64>) -> Result<(), Finding> {
    let (seen, expected) = (seen.into(), expected.into());
    if seen == expected { Ok(()) } else { Err(Finding { check, seen, expected }) }
}

/// Uses all of the platform, and gives the verdict.
#[inline(always)]
pub(super) fn program(by: &mut impl Accessor) {
    let (check, seen, expected) = match all(by) {
        Ok(()) => (0, 0, 0),
        Err(Finding { check, seen, expected }) => (check, seen, expected),
    };
    if check != 0 {
        by.port_write(VERDICT_PORT + 4, seen as u32);
        by.port_write(VERDICT_PORT + 8, (seen >> 32) as u32);
        by.port_write(VERDICT_PORT + 12, expected as u32);
        by.port_write(VERDICT_PORT + 16, (expected >> 32) as u32);
    }
    by.port_write(VERDICT_PORT, check);
}

#[inline(always)]
fn all(by: &mut impl Accessor) -> Result<(), Finding> {
    let greeting = greeting(by);
    print(by, greeting);

    by.port_write(CONFIG_ADDRESS, 0x8000_0000u32);
    expect(line!(), by.port_read::<u32>(CONFIG_ADDRESS), 0x8000_0000u32)?;
    print(by, b"host bridge: config_address ");
    let address = by.port_read::<u32>(CONFIG_ADDRESS);
    print_hex(by, address.into());

    let scratch = by.read::<u64>(SCRATCH_BASE);
    print(by, b"\nscratch at ");
    print_hex(by, scratch);
    for word in 0..32 {
        by.write(scratch + 8 * word, word * word);
    }
    for word in 0..32 {
        expect(line!(), by.read::<u64>(scratch + 8 * word), word * word)?;
    }
    print(by, b": 32 words written and read\nbehind it, on the bus: ");
    let unclaimed = by.read::<u32>(WINDOW + WINDOW_SIZE - 4);
    expect(line!(), unclaimed, u32::MAX)?;
    print_hex(by, unclaimed.into());
    print(by, b", and where there is no bus: ");
    let nowhere = by.read::<u32>(WINDOW + WINDOW_SIZE);
    expect(line!(), nowhere, u32::MAX)?;
    print_hex(by, nowhere.into());

    let video = by.read::<u64>(VIDEO_BASE);
    print(by, b"\nvideo memory at ");
    print_hex(by, video);
    for word in 0..VIDEO_SIZE / 8 {
        by.write(video + 8 * word, !word);
    }
    expect(line!(), by.read::<u64>(video + VIDEO_SIZE - 8), !(VIDEO_SIZE / 8 - 1))?;
    print(by, b": filled, without a call of the device\n");

    by.enable_interrupts();
    by.port_write(NETWORK_PORT, ASSERT);
    expect(line!(), by.wait_for_interrupts(1), true)?;
    by.port_write(DISK_PORT, ASSERT);
    expect(line!(), by.wait_for_interrupts(2), true)?;
    print(by, b"interrupts on the shared line: ");
    let interrupts = by.read::<u64>(INTERRUPTS);
    print_hex(by, interrupts);
    expect(line!(), interrupts, 2u64)?;
    print(by, b"\npassed\n");
    Ok(())
}

fn greeting<A: Accessor>(_: &A) -> &'static [u8] {
    A::GREETING
}

/// Sends a text to the serial port.
#[inline(always)]
fn print(by: &mut impl Accessor, text: &[u8]) {
    for &byte in text {
        while by.port_read::<u8>(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
        by.port_write(COM1 + TRANSMIT, byte);
    }
}

/// Sends a number in hexadecimal.
#[inline(always)]
fn print_hex(by: &mut impl Accessor, number: u64) {
    print(by, b"0x");
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let digit = (number >> (4 * digit) & 0xf) as u8;
        print(by, &[if digit < 10 { b'0' + digit } else { b'a' - 10 + digit }]);
    }
}

//! A device for strings of ports.

use spin::Mutex;
use vm_device::{Access, Device, Failed};

/// Bytes written come out again in the same order. It takes strings a burst at a time, under one lock.
pub struct Fifo(pub Mutex<Ring>);

/// The bytes in the FIFO.
pub struct Ring {
    bytes: [u8; 64],
    first: usize,
    length: usize,
}

impl Ring {
    /// No bytes.
    pub const EMPTY: Self = Self { bytes: [0; 64], first: 0, length: 0 };

    fn push(&mut self, byte: u8) {
        if self.length < self.bytes.len() {
            self.bytes[(self.first + self.length) % self.bytes.len()] = byte;
            self.length += 1;
        }
    }

    fn pop(&mut self) -> Option<u8> {
        self.length = self.length.checked_sub(1)?;
        let byte = self.bytes[self.first];
        self.first = (self.first + 1) % self.bytes.len();
        Some(byte)
    }
}

impl Device<'_> for Fifo {
    fn name(&self) -> &str {
        "fifo"
    }

    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        let mut ring = self.0.lock();
        data.iter_mut().zip(core::iter::from_fn(|| ring.pop())).for_each(|(to, from)| *to = from);
    }

    fn write(&self, _: &Access<'_>, data: &[u8]) {
        let mut ring = self.0.lock();
        data.iter().for_each(|byte| ring.push(*byte));
    }

    fn read_string(&self, access: &Access<'_>, _: usize, data: &mut [u8]) -> Result<(), Failed> {
        self.try_read(access, data)
    }

    fn write_string(&self, access: &Access<'_>, _: usize, data: &[u8]) -> Result<(), Failed> {
        self.try_write(access, data)
    }
}

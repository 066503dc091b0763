//! What a serial port of the crate needs: the other end of its line.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use spin::Mutex;

use crate::processor::host;

/// The machine's own serial port as the line of a UART. It keeps the first characters that are sent.
pub struct Wire(Mutex<Transcript>);

/// The first characters that were sent.
#[derive(Clone, Copy)]
pub struct Transcript {
    text: [u8; 64],
    length: usize,
}

impl Wire {
    /// A line on which nothing was sent.
    pub const fn new() -> Self {
        Self(Mutex::new(Transcript { text: [0; 64], length: 0 }))
    }

    /// The first characters that the guest sent.
    pub fn transcript(&self) -> Transcript {
        *self.0.lock()
    }
}

impl Transcript {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    /// The characters.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl ErrorType for &Wire {
    type Error = Infallible;
}

impl Write for &Wire {
    /// One byte: the transmitter has room for no more that it tells of.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let Some(byte) = bytes.first() else { return Ok(0) };
        host::send(*byte);
        self.0.lock().push(*byte);
        Ok(1)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl WriteReady for &Wire {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(host::has_room())
    }
}

impl Read for &Wire {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let received = bytes.first_mut().zip(host::receive());
        Ok(received.map_or(0, |(byte, received)| {
            *byte = received;
            1
        }))
    }
}

impl ReadReady for &Wire {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(host::has_received())
    }
}

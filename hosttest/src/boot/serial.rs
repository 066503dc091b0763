//! The other end of the guest's serial port.

use std::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

/// What is at the other end of a serial port. Its methods are called from within VM exits: none of them waits.
pub trait SerialLine: Sync {
    /// How many bytes may be read at once now.
    fn can_read(&self) -> bool;
    /// Reads what there is, up to so many bytes.
    fn read(&self, bytes: &mut [u8]) -> usize;
    /// Whether there is room for a byte.
    fn can_write(&self) -> bool;
    /// Takes bytes, as many as there is room for. Returns how many these were.
    fn write(&self, bytes: &[u8]) -> usize;
}

/// A line as the UART wants it: borrowed, since a device that borrows its manager has nothing to drop.
pub(super) struct Borrowed<'l>(pub(super) &'l dyn SerialLine);

impl ErrorType for Borrowed<'_> {
    type Error = Infallible;
}

impl Read for Borrowed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        Ok(self.0.read(bytes))
    }
}

impl ReadReady for Borrowed<'_> {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.0.can_read())
    }
}

impl Write for Borrowed<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        Ok(self.0.write(bytes))
    }
    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl WriteReady for Borrowed<'_> {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.0.can_write())
    }
}

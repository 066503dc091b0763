//! A device for string I/O, which counts how it is called.

use spin::Mutex;
use vm_device::{Access, Device, Failed};

/// The bytes that a [`Stream`] delivers: the first is 0, and each is 37 more than the one before, modulo 256.
pub const fn stream_byte(index: u64) -> u8 {
    (index as u8).wrapping_mul(37)
}

/// Delivers an endless stream of bytes, and keeps what it is sent.
pub struct Stream(Mutex<Record>);

/// What a [`Stream`] remembers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// The length of each read, in order.
    pub reads: Vec<usize>,
    /// The length of each write, in order.
    pub writes: Vec<usize>,
    /// What was written.
    pub written: Vec<u8>,
    /// How many bursts were taken in one piece.
    pub bursts: usize,
    delivered: u64,
}

impl Stream {
    /// Nothing delivered, nothing kept.
    pub const fn new() -> Self {
        Self(Mutex::new(Record { reads: Vec::new(), writes: Vec::new(), written: Vec::new(), bursts: 0, delivered: 0 }))
    }

    /// What happened so far.
    pub fn record(&self) -> Record {
        self.0.lock().clone()
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Device<'_> for Stream {
    fn name(&self) -> &str {
        "stream"
    }

    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        let mut record = self.0.lock();
        record.reads.push(data.len());
        for byte in data {
            *byte = stream_byte(record.delivered);
            record.delivered += 1;
        }
    }

    fn write(&self, _: &Access<'_>, data: &[u8]) {
        let mut record = self.0.lock();
        record.writes.push(data.len());
        record.written.extend_from_slice(data);
    }
}

/// A [`Stream`] that takes a burst in one piece.
pub struct Bursts(pub Stream);

impl Device<'_> for Bursts {
    fn name(&self) -> &str {
        "bursts"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.0.read(access, data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.0.write(access, data);
    }

    fn read_string(&self, access: &Access<'_>, _: usize, data: &mut [u8]) -> Result<(), Failed> {
        self.0.0.lock().bursts += 1;
        self.0.try_read(access, data)
    }

    fn write_string(&self, access: &Access<'_>, _: usize, data: &[u8]) -> Result<(), Failed> {
        self.0.0.lock().bursts += 1;
        self.0.try_write(access, data)
    }
}

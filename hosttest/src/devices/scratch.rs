//! Memory in the shape of a device, which remembers how it was accessed.

use spin::{Mutex, MutexGuard};
use vm_device::{Access, Device, IoType};

/// The direction of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// A read.
    Read,
    /// A write.
    Write,
}

/// One call of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Read or write.
    pub direction: Direction,
    /// The space.
    pub io_type: IoType,
    /// Which of the device's ranges.
    pub range_index: usize,
    /// The offset into the range.
    pub offset: u64,
    /// The length in bytes.
    pub length: usize,
}

impl Call {
    /// A read of `length` bytes at `offset` of MMIO range 0.
    pub const fn read(offset: u64, length: usize) -> Self {
        Self { direction: Direction::Read, io_type: IoType::Mmio, range_index: 0, offset, length }
    }

    /// A write of `length` bytes at `offset` of MMIO range 0.
    pub const fn write(offset: u64, length: usize) -> Self {
        Self { direction: Direction::Write, ..Self::read(offset, length) }
    }

    /// The same for ports.
    pub const fn port(self) -> Self {
        Self { io_type: IoType::Pio, ..self }
    }
}

/// `SIZE` bytes that a guest can write and read back. All ranges show the same bytes.
pub struct Scratch<const SIZE: usize> {
    name: &'static str,
    state: Mutex<State<SIZE>>,
}

struct State<const SIZE: usize> {
    bytes: [u8; SIZE],
    calls: Vec<Call>,
}

impl<const SIZE: usize> Scratch<SIZE> {
    /// All zeros.
    pub const fn new(name: &'static str) -> Self {
        Self { name, state: Mutex::new(State { bytes: [0; SIZE], calls: Vec::new() }) }
    }

    /// What it holds.
    pub fn bytes(&self) -> [u8; SIZE] {
        self.state.lock().bytes
    }

    /// The calls so far, which are forgotten.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().calls)
    }

    /// The state, in which a call is noted.
    fn called(&self, direction: Direction, access: &Access<'_>, length: usize) -> MutexGuard<'_, State<SIZE>> {
        let mut state = self.state.lock();
        let (io_type, range_index, offset) = (access.io_type(), access.range_index(), access.offset());
        state.calls.push(Call { direction, io_type, range_index, offset, length });
        state
    }
}

impl<const SIZE: usize> Device<'_> for Scratch<SIZE> {
    fn name(&self) -> &str {
        self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load(&self.called(Direction::Read, access, data.len()).bytes, data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        access.store(&mut self.called(Direction::Write, access, data.len()).bytes, data);
    }

    /// Its bytes are registers, all zeros after power-on. The calls are not the device's own, and stay.
    fn reset(&self) {
        self.state.lock().bytes = [0; SIZE];
    }
}

//! The transmitting half of a 16550 (National Semiconductor PC16550D data sheet, 8).

use spin::Mutex;
use vm_device::{Access, AccessSizes, Device, IoResource};

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
/// In the line control register: offsets 0 and 1 are the divisor latch.
const DIVISOR_LATCH: u8 = 0x80;

/// A serial port that keeps what the guest sends.
pub struct Serial(Mutex<State>);

struct State {
    registers: [u8; 8],
    divisor: [u8; 2],
    sent: Vec<u8>,
}

impl Serial {
    /// Nothing sent.
    pub const fn new() -> Self {
        Self(Mutex::new(State { registers: [0; 8], divisor: [0; 2], sent: Vec::new() }))
    }

    /// What it has to be registered with: it accepts bytes, and takes anything else apart.
    pub const fn resource() -> IoResource {
        IoResource::pio(COM1, 8).sizes(AccessSizes::BYTE.union(AccessSizes::SPLIT))
    }

    /// What the guest sent.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().sent).into_owned()
    }
}

impl Default for Serial {
    fn default() -> Self {
        Self::new()
    }
}

impl Device<'_> for Serial {
    fn name(&self) -> &str {
        "serial"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let state = self.0.lock();
        let offset = access.offset() as usize;
        let latch = state.registers[usize::from(LINE_CONTROL)] & DIVISOR_LATCH != 0;
        data[0] = match (offset, latch) {
            (0 | 1, true) => state.divisor[offset],
            (0, false) => 0,
            (offset, _) if offset == usize::from(LINE_STATUS) => TRANSMITTER_EMPTY,
            _ => state.registers[offset],
        };
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let mut state = self.0.lock();
        let offset = access.offset() as usize;
        let latch = state.registers[usize::from(LINE_CONTROL)] & DIVISOR_LATCH != 0;
        match (offset, latch) {
            (0 | 1, true) => state.divisor[offset] = data[0],
            (0, false) => state.sent.push(data[0]),
            _ => state.registers[offset] = data[0],
        }
    }
}

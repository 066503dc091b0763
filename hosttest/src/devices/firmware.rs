//! What firmware finds beside the PCI bus: the CMOS memory, which tells how much RAM there is, and a port for messages.

use spin::Mutex;
use vm_device::{Access, AccessSizes, Device, IoResource};

/// Single bytes, as these ports have them; anything larger is split.
const BYTES: AccessSizes = AccessSizes::BYTE.union(AccessSizes::SPLIT);

/// The memory of a real-time clock (Motorola MC146818): an index register and a data register. The clock stands still.
pub struct Cmos(Mutex<Memory>);

struct Memory {
    index: u8,
    bytes: [u8; 0x80],
}

impl Cmos {
    /// Of a machine with `ram` bytes of RAM, 16 MiB or more, and below 4 GiB.
    pub const fn new(ram: u64) -> Self {
        let mut bytes = [0; 0x80];
        // In status register B: 24 hours. In D: the memory has kept what it holds.
        (bytes[0x0b], bytes[0x0d]) = (1 << 1, 1 << 7);
        // In units of 64 KiB, what lies above 16 MiB: where firmware of the PC looks for it.
        [bytes[0x34], bytes[0x35]] = (((ram - (16 << 20)) >> 16) as u16).to_le_bytes();
        Self(Mutex::new(Memory { index: 0, bytes }))
    }

    /// What it has to be registered with.
    pub const fn resource() -> IoResource {
        IoResource::pio(0x70, 2).sizes(BYTES)
    }
}

impl Device<'_> for Cmos {
    fn name(&self) -> &str {
        "cmos"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let memory = self.0.lock();
        if access.offset() == 1 {
            data.fill(memory.bytes[usize::from(memory.index)]);
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let (mut memory, [value]) = (self.0.lock(), data) else { return };
        let index = usize::from(memory.index);
        match access.offset() {
            // The uppermost bit masks the NMI.
            0 => memory.index = value & 0x7f,
            _ => memory.bytes[index] = *value,
        }
    }
}

/// A port that firmware writes its messages to, as QEMU and Bochs have one.
pub struct DebugPort(Mutex<Vec<u8>>);

impl DebugPort {
    /// Without messages.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// What it has to be registered with.
    pub const fn resource() -> IoResource {
        IoResource::pio(0x402, 1).sizes(BYTES)
    }

    /// The messages so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }

    /// Whether there is a message with this text.
    pub fn says(&self, text: &str) -> bool {
        self.0.lock().windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl Default for DebugPort {
    fn default() -> Self {
        Self::new()
    }
}

impl Device<'_> for DebugPort {
    fn name(&self) -> &str {
        "debug"
    }

    /// The value by which firmware knows that the port is there.
    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(0xe9);
    }

    fn write(&self, _: &Access<'_>, data: &[u8]) {
        self.0.lock().extend_from_slice(data);
    }
}

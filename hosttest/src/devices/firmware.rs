//! What firmware finds beside the PCI bus: a port for messages.

use spin::Mutex;
use vm_device::{Access, AccessSizes, Device, IoResource};

/// Single bytes, as these ports have them; anything larger is split.
const BYTES: AccessSizes = AccessSizes::BYTE.union(AccessSizes::SPLIT);

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

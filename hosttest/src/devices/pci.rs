//! Where a guest finds PCI configuration space (configuration mechanism 1: PCI Local Bus 3.0, 3.2.2.3.2), and a dummy in its place.

use spin::Mutex;
use vm_device::{Access, Device, IoType};

/// The port of the address register; the data register follows.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// The port of the data register.
pub const CONFIG_DATA: u16 = 0xcfc;
/// The offset of the command register.
pub const COMMAND: u32 = 0x04;
/// The offset of the first base address register; the others follow.
pub const BAR0: u32 = 0x10;
/// In the command register: accesses to ports are decoded.
pub const PORTS_ENABLE: u32 = 1 << 0;
/// In the command register: accesses to memory are decoded.
pub const MEMORY_ENABLE: u32 = 1 << 1;
/// In the command register: the function may write messages.
pub const BUS_MASTER_ENABLE: u32 = 1 << 2;

/// The address register's value for a dword of the configuration space of function 0 of a device.
pub const fn config_address(bus: u32, device: u32, register: u32) -> u32 {
    1 << 31 | bus << 16 | device << 11 | register
}

/// The dummy host bridge of the 2019 design: it sets and returns its `config_address`, and does nothing else.
pub struct DummyHostBridge(Mutex<u32>);

impl DummyHostBridge {
    /// An address of 0.
    pub const fn new() -> Self {
        Self(Mutex::new(0))
    }

    /// What the guest wrote last.
    pub fn config_address(&self) -> u32 {
        *self.0.lock()
    }
}

impl Default for DummyHostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl Device<'_> for DummyHostBridge {
    fn name(&self) -> &str {
        "pci"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        // In a window of memory it stays silent: an access that none of its children claims is a master abort.
        if access.io_type() != IoType::Pio {
            return;
        }
        let address = self.0.lock().to_le_bytes();
        for (byte, value) in data.iter_mut().zip(address) {
            *byte = value;
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        if access.io_type() == IoType::Pio
            && let Ok(word) = data.try_into()
        {
            *self.0.lock() = u32::from_le_bytes(word);
        }
    }
}

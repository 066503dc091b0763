//! A PCI host bridge with configuration mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2), which moves what is behind it.

use spin::Mutex;
use vm_device::{Access, Device, DeviceManager, GuestAddress, InstanceId, IoResource, IoType, RangeState, Relocation};

/// The port of the address register; the data register follows.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// The port of the data register.
pub const CONFIG_DATA: u16 = 0xcfc;
/// The offset of the command register, whose bit 1 switches decoding of memory on.
pub const COMMAND: u32 = 0x04;
/// The offset of the first base address register.
pub const BAR0: u32 = 0x10;
/// In the command register: accesses to memory are decoded.
pub const MEMORY_ENABLE: u32 = 1 << 1;

/// The address register's value for a dword of the configuration space of function 0 of a device on bus 0.
pub const fn config_address(device: u32, register: u32) -> u32 {
    1 << 31 | device << 11 | register
}

/// The host bridge. Function 0 of device number 1 on its bus has one memory BAR: range 0 of the device it was told of.
pub struct PciBus<'d> {
    manager: &'d DeviceManager<'d>,
    state: Mutex<State>,
}

struct State {
    config_address: u32,
    behind: Option<InstanceId>,
    moves: u32,
    refused: u32,
}

impl<'d> PciBus<'d> {
    /// A bridge that moves ranges of `manager`.
    pub const fn new(manager: &'d DeviceManager<'d>) -> Self {
        Self { manager, state: Mutex::new(State { config_address: 0, behind: None, moves: 0, refused: 0 }) }
    }

    /// What it has to be registered with.
    pub const fn resource() -> IoResource {
        IoResource::pio(CONFIG_ADDRESS, 8)
    }

    /// Puts a registered device into slot 1.
    pub fn plug(&self, device: InstanceId) {
        self.state.lock().behind = Some(device);
    }

    /// How many times the guest moved the BAR, or switched its decoding, and how often that was refused.
    pub fn moves(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.moves, state.refused)
    }

    fn selected(&self) -> (Option<InstanceId>, u32) {
        let state = self.state.lock();
        let address = state.config_address;
        let device = state.behind.filter(|_| address & !0xff == config_address(1, 0));
        (device, address & 0xfc)
    }

    fn read_config(&self) -> u32 {
        let (Some(device), register) = self.selected() else { return u32::MAX };
        let Some(bar) = self.manager.range(device, 0) else { return u32::MAX };
        match register {
            0 => 0x1110_1234,
            COMMAND => u32::from(bar.state == RangeState::Decoded) * MEMORY_ENABLE,
            // A BAR that is as large as its alignment: reading its size is left to real devices.
            BAR0 => bar.range.first().0 as u32,
            _ => 0,
        }
    }

    fn write_config(&self, value: u32) {
        let (Some(device), register) = self.selected() else { return };
        let relocation = Relocation::new(device, 0);
        let relocation = match register {
            COMMAND if value & MEMORY_ENABLE != 0 => relocation.decoded(),
            COMMAND => relocation.reserved(),
            BAR0 => relocation.to(GuestAddress(u64::from(value & !0xf))),
            _ => return,
        };
        // Within the callback of the access; the state is not locked meanwhile, since an access to it may come by.
        let result = self.manager.relocate(&mut [relocation]);
        let mut state = self.state.lock();
        match result {
            Ok(()) => state.moves += 1,
            Err(_) => state.refused += 1,
        }
    }
}

impl<'d> Device<'d> for PciBus<'d> {
    fn name(&self) -> &str {
        "pci"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        if access.io_type() == IoType::Pio
            && let Ok(word) = <&mut [u8; 4]>::try_from(data)
        {
            *word = match access.offset() {
                0 => self.state.lock().config_address,
                4 => self.read_config(),
                _ => u32::MAX,
            }
            .to_le_bytes();
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        if let Ok(word) = data.try_into().map(u32::from_le_bytes) {
            match access.offset() {
                0 => self.state.lock().config_address = word,
                4 => self.write_config(word),
                _ => {}
            }
        }
    }
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

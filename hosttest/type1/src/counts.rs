//! How often the guest exited for which device.

use vm_device::{GuestAddress, IoType};

use crate::manager::MANAGER;
use crate::println;

/// How many names are counted by themselves: more than there are devices.
const NAMES: usize = 32;

/// Exits by the name of the device, which may be gone when they are printed.
pub struct Counts {
    devices: [(&'static str, u64); NAMES],
    none: u64,
}

impl Counts {
    /// No exits.
    pub const fn new() -> Self {
        Self { devices: [("", 0); NAMES], none: 0 }
    }

    /// Counts one exit.
    pub fn count(&mut self, address: GuestAddress, io_type: IoType) {
        let device = MANAGER.find_by_address(address, io_type).and_then(|(id, _)| MANAGER.device(id));
        let place = device.and_then(|device| {
            let place = self.devices.iter_mut().find(|(name, _)| *name == device.name || name.is_empty())?;
            place.0 = device.name;
            Some(&mut place.1)
        });
        *place.unwrap_or(&mut self.none) += 1;
    }

    /// The exits for the device of this name.
    pub fn of(&self, name: &str) -> u64 {
        self.devices.iter().find(|device| device.0 == name).map_or(0, |device| device.1)
    }

    /// Prints them.
    pub fn print(&self) {
        println!("exits per device:");
        for (name, exits) in self.devices.iter().filter(|(name, _)| !name.is_empty()) {
            println!("  {name:20} {exits:8}");
        }
        println!("  {:20} {:8}", "(no device)", self.none);
    }
}

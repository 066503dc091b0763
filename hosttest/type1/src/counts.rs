//! How often the guest exited for which device.

use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use vm_device::{AccessObserver, ObservedAccess};

use crate::manager::MANAGER;
use crate::println;

/// How many names are counted by themselves: more than there are devices.
const NAMES: usize = 32;

/// Exits by the name of the device, which may be gone when they are printed. The manager's observer.
pub struct Counts {
    table: Mutex<Table>,
    stopped: AtomicBool,
}

struct Table {
    devices: [(&'static str, u64); NAMES],
    none: u64,
}

/// The exits of the guest.
pub static COUNTS: Counts =
    Counts { table: Mutex::new(Table { devices: [("", 0); NAMES], none: 0 }), stopped: AtomicBool::new(false) };

impl AccessObserver for Counts {
    fn observe(&self, access: &ObservedAccess<'_>) {
        // A device has made one that is nested.
        if access.depth != 0 || self.stopped.load(Ordering::Relaxed) {
            return;
        }
        // An exit for a range that is memory reaches no device, and counts for the one that has the range.
        let owner = || MANAGER.find_by_address(access.address, access.io_type).map(|(id, _)| id);
        let device = access.device.or_else(owner).and_then(|id| MANAGER.device(id));
        let Table { devices, none } = &mut *self.table.lock();
        let place = device.and_then(|device| {
            let place = devices.iter_mut().find(|(name, _)| *name == device.name || name.is_empty())?;
            place.0 = device.name;
            Some(&mut place.1)
        });
        *place.unwrap_or(none) += 1;
    }
}

impl Counts {
    /// Counts no more.
    #[cfg(target_arch = "aarch64")]
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The exits for the device of this name.
    pub fn of(&self, name: &str) -> u64 {
        self.table.lock().devices.iter().find(|device| device.0 == name).map_or(0, |device| device.1)
    }

    /// The exits for all devices.
    #[cfg(target_arch = "riscv64")]
    pub fn claimed(&self) -> u64 {
        self.table.lock().devices.iter().map(|device| device.1).sum()
    }

    /// Prints them.
    pub fn print(&self) {
        let table = self.table.lock();
        println!("exits per device:");
        for (name, exits) in table.devices.iter().filter(|(name, _)| !name.is_empty()) {
            println!("  {name:20} {exits:8}");
        }
        println!("  {:20} {:8}", "(no device)", table.none);
    }
}

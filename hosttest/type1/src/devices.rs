//! The guests' devices that are no chipset devices of the crate. Each is a few lines: what a device is about is its registers.

use core::sync::atomic::Ordering;

use spin::Mutex;
use vm_device::{Access, Device, IrqLine, MappedRange, Owner, Rejected, Resources};

use crate::manager::{MANAGER, TOPOLOGY_CHANGED};
use crate::memory::Page;
use crate::nested::Backing;

/// A device that never answers: a bus, which gets what no device on it claims, or a device with ranges that are all
/// memory.
pub struct Silent(pub &'static str);

impl Device<'_> for Silent {
    fn name(&self) -> &str {
        self.0
    }

    /// The data stays at the open-bus value, as after a master abort.
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}

    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

/// A page of registers that keep what is written. Each range of the device shows them from the first on.
pub struct Scratch(pub Mutex<[u8; 4096]>);

impl Device<'_> for Scratch {
    fn name(&self) -> &str {
        "scratch"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load(&*self.0.lock(), data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        access.store(&mut *self.0.lock(), data);
    }
}

/// An interrupt at the guest's wish: a write asserts the line, a read takes the assertion back.
pub struct Bell<'d>(pub Mutex<IrqLine<'d>>);

impl<'d> Device<'d> for Bell<'d> {
    fn name(&self) -> &str {
        "bell"
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        *self.0.lock() = resources.irq(0);
        Ok(())
    }

    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(u8::from(self.0.lock().deassert().is_ok()));
    }

    fn write(&self, _: &Access<'_>, _: &[u8]) {
        // The line cannot be refused: it is one of the 32 that `Lines` has.
        let _ = self.0.lock().assert();
    }
}

/// The frame buffer has memory of its own, which the nested page tables map: accesses do not exit.
pub static FRAME_BUFFER: Silent = Silent("frame buffer");

/// What the small guest fills it with.
pub const FRAME: u32 = 0x5aa5_c33c;

/// What the guest sees as the frame buffer.
static FRAME_MEMORY: Mutex<Page<4096>> = Mutex::new(Page([0; 4096]));

/// Whether the guest filled the whole frame buffer.
pub fn frame_is_filled() -> bool {
    FRAME_MEMORY.lock().0.chunks(4).all(|pixel| pixel == FRAME.to_le_bytes())
}

/// Where in the machine a physically backed range lies, and what it is: a device's registers at their own address, but for the frame
/// buffer.
pub fn backing(mapped: &MappedRange<&str>) -> (u64, Backing) {
    match mapped.owner {
        Owner::Device { name, .. } if name == FRAME_BUFFER.0 => {
            (&raw const *FRAME_MEMORY.lock() as u64, Backing::Memory)
        }
        _ => (mapped.assigned.range.first().0, Backing::Registers),
    }
}

/// A write removes devices, by their paths, while the guest runs.
pub struct Eject {
    /// What it removes.
    pub paths: [&'static str; 2],
}

impl Device<'_> for Eject {
    fn name(&self) -> &str {
        "eject"
    }

    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}

    fn write(&self, _: &Access<'_>, _: &[u8]) {
        for path in self.paths {
            if MANAGER.find_by_path(path).is_ok_and(|id| MANAGER.unregister_device(id).is_ok()) {
                TOPOLOGY_CHANGED.store(true, Ordering::Relaxed);
            }
        }
    }
}

//! A PCI-to-PCI bridge.

use super::bus::Bus;
use super::config::{Config, Requests};
use super::function::Function;
use crate::access::Access;
use crate::device::Device;

/// A PCI-to-PCI bridge (PCI-to-PCI Bridge Architecture 1.2): a function whose header is of type 1, a bus behind it, and three
/// windows that the firmware opens: for ports (16 bits), for memory (32 bits), and for prefetchable memory (64 bits).
///
/// It is the parent of what is plugged into its bus. What lies in none of its windows, or in one that is closed or whose decoding
/// is off, is not reached, and is there again when a window around it opens. It has no base address registers, and forwards
/// nothing by rules of ISA or of a video card.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::devices::pci::{Bar, Bridge, Config, Function, HostBridge, Slot};
/// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
///
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// static HOST: HostBridge<'static> = HostBridge::new("pci", &MANAGER);
/// static BRIDGE: Bridge<'static> = Bridge::new("bridge", 0x1b36, 0x0001);
/// static DISK: Constant = Constant("disk", 7);
/// static FUNCTION: Function<'static> = Function::new(Config::new(0x1234, 1).bar(0, Bar::memory(0x1000)));
///
/// MANAGER.register_device(&HOST, None, &[HostBridge::PORTS], &[])?;
/// let bridge = MANAGER.register_device(&BRIDGE, None, &BRIDGE.requests(), &[])?;
/// HOST.bus().plug(BRIDGE.function(), Slot::new(2, 0), bridge)?;
/// let disk = MANAGER.register_device(&DISK, Some(bridge), &FUNCTION.requests(), &[])?;
/// BRIDGE.bus().plug(&FUNCTION, Slot::new(0, 0), disk)?;
/// assert_eq!(MANAGER.find_by_path("/bridge/disk"), Ok(disk));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Bridge<'d> {
    name: &'d str,
    function: Function<'d>,
}

impl<'d> Bridge<'d> {
    /// A bridge of a vendor, not plugged in.
    pub const fn new(name: &'d str, vendor: u16, device: u16) -> Self {
        Self { name, function: Function::new(Config::bridge(vendor, device)) }
    }

    /// What it has to be registered with: its windows.
    pub fn requests(&self) -> Requests {
        self.function.requests()
    }

    /// The bridge as a function of the bus that it is plugged into.
    pub const fn function(&self) -> &Function<'d> {
        &self.function
    }

    /// The bus behind it.
    pub const fn bus(&self) -> &Bus<'d> {
        &self.function.secondary
    }
}

/// An access to a window that nothing behind the bridge claims: a read is all ones, a write is lost (PCI-to-PCI Bridge
/// Architecture 1.2, 3.2.5: the master abort mode of the bridge control register).
impl Device<'_> for Bridge<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}

    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

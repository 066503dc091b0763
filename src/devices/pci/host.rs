//! The host bridge: how a guest reaches configuration spaces.

use core::sync::atomic::{AtomicU32, Ordering};

use super::bus::{Bus, Slot};
use super::function::Function;
use crate::access::Access;
use crate::address::IoType;
use crate::description::{Description, Role};
use crate::device::Device;
use crate::manager::DeviceManager;
use crate::resource::{IoResource, MAX_WINDOW_DEPTH};

/// A PCI host bridge: configuration mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2) at its ports, the enhanced configuration access
/// mechanism (PCI Express Base 3.0, 7.2.2) in its memory, and bus 0.
///
/// It is registered with [`PORTS`](Self::PORTS), with [`ecam`](Self::ecam), or with both. What the guest sees as the host
/// bridge, function 0 of device 0, is a function of its own: [`Config::i440fx`](super::Config::i440fx), for one.
///
/// The devices of bus 0 are registered beside it, or below a bus that has the windows of the machine: below the host bridge
/// itself is what lies between its ports, as the reset register at 0xcf9.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::devices::pci::{Config, Function, HostBridge, Slot};
/// use vm_device::{DeviceManager, IoRange, IoResource, IoType, Storage, SystemAllocator};
///
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// static HOST: HostBridge<'static> = HostBridge::new("pci", &MANAGER);
/// static I440FX: Function<'static> = Function::new(Config::i440fx());
/// static RESET: Constant = Constant("reset", 0);
///
/// let ranges = [HostBridge::PORTS, HostBridge::ecam(0xe000_0000, 255)];
/// let host = MANAGER.register_device(&HOST, None, &ranges, &[])?;
/// HOST.bus().plug(&I440FX, Slot::new(0, 0), host)?;
/// MANAGER.register_device(&RESET, Some(host), &[IoResource::pio(0xcf9, 1)], &[])?;
///
/// let mut data = [0; 4];
/// MANAGER.write(0xcf8_u16.into(), &0x8000_0000_u32.to_le_bytes(), IoType::Pio)?;
/// MANAGER.read(0xcfc_u16.into(), &mut data, IoType::Pio)?;
/// assert_eq!(u32::from_le_bytes(data), 0x1237_8086);
/// MANAGER.read(0xe000_0000_u64.into(), &mut data, IoType::Mmio)?;
/// assert_eq!(u32::from_le_bytes(data), 0x1237_8086);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HostBridge<'d> {
    name: &'d str,
    manager: &'d DeviceManager<'d>,
    /// What the guest wrote to the port CONFIG_ADDRESS.
    address: AtomicU32,
    bus: Bus<'d>,
}

/// CONFIG_ADDRESS: its reserved bits read 0.
const ADDRESS_BITS: u32 = ENABLE | 0x00ff_fffc;
/// An access to CONFIG_DATA is one to a configuration space.
const ENABLE: u32 = 1 << 31;
/// The length of CONFIG_ADDRESS, behind which CONFIG_DATA begins.
const DATA: u64 = 4;
/// The size of a configuration space in the enhanced mechanism, which has 12 bits for it.
const EXTENDED_SIZE: u64 = 0x1000;

/// Where an access to configuration space goes: bus, slot, offset.
type Target = (u8, Slot, usize);

impl<'d> HostBridge<'d> {
    /// The ports of configuration mechanism 1: CONFIG_ADDRESS at 0xcf8, CONFIG_DATA at 0xcfc.
    pub const PORTS: IoResource = IoResource::pio(0xcf8, 8).window();

    /// A bridge with an empty bus, which moves ranges of `manager`.
    pub const fn new(name: &'d str, manager: &'d DeviceManager<'d>) -> Self {
        Self { name, manager, address: AtomicU32::new(0), bus: Bus::new() }
    }

    /// The memory of the enhanced mechanism, from `base` on, for buses 0 to `last_bus`: 1 MiB for each. Its base is a multiple of
    /// its size, if the firmware or the system is to find it in the table that it is described in.
    ///
    /// ```
    /// use vm_device::devices::pci::HostBridge;
    ///
    /// assert_eq!(HostBridge::ecam(0xe000_0000, 255), vm_device::IoResource::mmio(0xe000_0000, 0x1000_0000));
    /// ```
    pub const fn ecam(base: u64, last_bus: u8) -> IoResource {
        IoResource::mmio(base, (last_bus as u64 + 1) << 20)
    }

    /// Bus 0.
    pub const fn bus(&self) -> &Bus<'d> {
        &self.bus
    }

    /// Where an access to CONFIG_DATA at `byte` of its 4 goes. `None`: the bridge passes the access on as one to a port.
    fn by_port(&self, byte: u64) -> Option<Target> {
        let address = self.address.load(Ordering::Relaxed);
        let [register, slot, bus, _] = address.to_le_bytes();
        (address & ENABLE != 0).then(|| (bus, Slot::from_bits(slot), usize::from(register) + byte as usize))
    }

    /// The function that an access goes to, and whether it is one of several of its device.
    fn function(&self, (bus, slot, _): Target) -> Option<(&'d Function<'d>, bool)> {
        self.bus.function(bus, slot)
    }

    /// A read that no function claims is all ones (PCI Local Bus 3.0, 6.1).
    fn read_config(&self, target: Target, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((function, is_one_of_several)) = self.function(target) {
            function.read(target.2, if is_one_of_several { SEVERAL } else { 0 }, data);
        }
    }

    fn write_config(&self, target: Target, data: &[u8]) {
        if let Some((function, _)) = self.function(target) {
            function.write(self.manager, target.2, data);
        }
    }
}

/// In the dword of the header type: the device has several functions.
const SEVERAL: u32 = 1 << 23;

/// Where an access to the memory of the enhanced mechanism goes, at this offset.
fn by_memory(offset: u64) -> Option<Target> {
    let bus = u8::try_from(offset >> 20).ok()?;
    Some((bus, Slot::from_bits((offset / EXTENDED_SIZE) as u8), (offset % EXTENDED_SIZE) as usize))
}

/// The number of bytes of an access to the ports that are before CONFIG_DATA.
fn before_data(offset: u64) -> usize {
    DATA.saturating_sub(offset) as usize
}

impl Device<'_> for HostBridge<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let offset = access.offset();
        if access.io_type() == IoType::Mmio {
            if let Some(target) = by_memory(offset) {
                self.read_config(target, data);
            }
        } else if let (0, Ok(register)) = (offset, <&mut [u8; 4]>::try_from(&mut *data)) {
            *register = self.address.load(Ordering::Relaxed).to_le_bytes();
        } else if let Some(data) = data.get_mut(before_data(offset)..).filter(|data| !data.is_empty())
            && let Some(target) = self.by_port(offset.saturating_sub(DATA))
        {
            self.read_config(target, data);
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let offset = access.offset();
        if access.io_type() == IoType::Mmio {
            if let Some(target) = by_memory(offset) {
                self.write_config(target, data);
            }
        } else if let (0, Ok(register)) = (offset, <[u8; 4]>::try_from(data)) {
            self.address.store(u32::from_le_bytes(register) & ADDRESS_BITS, Ordering::Relaxed);
        } else if let Some(data) = data.get(before_data(offset)..).filter(|data| !data.is_empty())
            && let Some(target) = self.by_port(offset.saturating_sub(DATA))
        {
            self.write_config(target, data);
        }
    }

    /// The ports and every function on the buses behind them get their registers as after reset: no base address register is
    /// decoded, no bridge forwards.
    fn reset(&self) {
        self.address.store(0, Ordering::Relaxed);
        self.bus.reset(self.manager, MAX_WINDOW_DEPTH);
    }

    fn describe(&self, description: &mut dyn Description) {
        description.role(Role::PciHost);
    }
}

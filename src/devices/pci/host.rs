//! The host bridge: how a guest reaches configuration spaces.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::bus::{Bus, Found, Slot};
use super::function::{Function, MAX_REPEATS};
use super::piix;
use super::pin::{Pin, PinLines};
use crate::access::Access;
use crate::address::IoType;
use crate::description::{Description, Role};
use crate::device::Device;
use crate::error::RerouteError;
use crate::instance::InstanceId;
use crate::interrupt::Gsi;
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
    board: Board<'d>,
    /// The line of a pin may not be the one that it leads to.
    unsettled: AtomicBool,
}

/// Where the pins of the slots of bus 0 lead.
enum Board<'d> {
    /// Nowhere: each device has the line that it was registered with.
    Unwired,
    /// To fixed lines.
    Lines(PinLines),
    /// To the inputs of the router that this function has.
    Router(&'d Function<'d>),
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
        let (address, unsettled) = (AtomicU32::new(0), AtomicBool::new(false));
        Self { name, manager, address, bus: Bus::new(), board: Board::Unwired, unsettled }
    }

    /// The interrupt pins of the slots lead to fixed lines.
    ///
    /// It concerns the functions that are [connected](Function::connect) with an interrupt of their device. Its line is that of the
    /// pin, which several may share, so it is registered as [`Unrouted`](crate::IrqResource::Unrouted). It gets the line when the
    /// guest writes to the configuration space of the function for the first time, or by [`route`](Self::route).
    #[must_use]
    pub const fn with_lines(mut self, lines: PinLines) -> Self {
        self.board = Board::Lines(lines);
        self
    }

    /// The interrupt pins of the slots lead to the inputs PIRQA# to PIRQD# ([`Pin::pirq`]) of the router that this function has:
    /// [`Config::piix3`](super::Config::piix3). Otherwise as [`with_lines`](Self::with_lines).
    ///
    /// A write to a register of the router moves the interrupts of all pins that lead there. When several vCPUs write at once, the
    /// lines end as the registers do.
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function, HostBridge, Pin, Slot};
    /// use vm_device::{DeviceManager, Gsi, IoRange, IoType, Storage, SystemAllocator};
    ///
    /// static STORAGE: Storage<8, 16, 2> = Storage::new();
    /// static MANAGER: DeviceManager<'static> =
    ///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
    /// static PIIX3: Function<'static> = Function::new(Config::piix3());
    /// static HOST: HostBridge<'static> = HostBridge::new("pci", &MANAGER).with_pirq_router(&PIIX3);
    ///
    /// let host = MANAGER.register_device(&HOST, None, &[HostBridge::PORTS], &[])?;
    /// HOST.bus().plug(&PIIX3, Slot::new(1, 0), host)?;
    /// assert_eq!(HOST.line(Slot::new(3, 0), Pin::A), None);
    /// // The firmware routes PIRQC# to line 11.
    /// MANAGER.write(0xcf8_u16.into(), &0x8000_0860_u32.to_le_bytes(), IoType::Pio)?;
    /// MANAGER.write(0xcfe_u16.into(), &[11], IoType::Pio)?;
    /// assert_eq!(HOST.line(Slot::new(3, 0), Pin::A), Some(Gsi(11)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn with_pirq_router(mut self, router: &'d Function<'d>) -> Self {
        self.board = Board::Router(router);
        self
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

    /// The line that a pin of a function in `slot` of bus 0 leads to now. `None`: to none, or the host bridge does not know.
    pub fn line(&self, slot: Slot, pin: Pin) -> Option<Gsi> {
        match self.board {
            Board::Unwired => None,
            Board::Lines(lines) => lines.line(slot, pin),
            Board::Router(router) => piix::line(router, pin.pirq(slot)),
        }
    }

    /// Gives the pins of all functions the lines that they lead to. The guest's writes do the same; a VMM calls it
    /// when it has plugged in a function whose device interrupts before the guest has written to its configuration space, or has
    /// changed the registers of the router itself.
    ///
    /// An interrupt whose line cannot be had keeps the one it has, if it has one. It may be called whenever
    /// [`reroute`](DeviceManager::reroute) may.
    pub fn route(&self) {
        if !matches!(self.board, Board::Unwired) {
            self.unsettled.store(false, Ordering::Relaxed);
            self.bus.each(MAX_WINDOW_DEPTH, &mut |found| self.route_pin(found));
        }
    }

    /// Moves the interrupt of a pin to where the pin leads.
    fn route_pin(&self, found: Found<'d>) {
        self.settle_pin(found, self.wanted(found));
    }

    /// The interrupt that is the pin of a function: of which device, its number, and the line that the pin leads to.
    fn wanted(&self, found: Found<'d>) -> Option<(InstanceId, usize, Option<Gsi>)> {
        let (id, index, pin) = found.function.pin()?;
        let (slot, pin) = found.on_bus_0(pin);
        Some((id, index, self.line(slot, pin)))
    }

    /// Moves the interrupt of a pin to where that led when the caller looked, and then to where it leads, until it leads there
    /// twice: another vCPU may have changed that meanwhile, and its own move came before.
    fn settle_pin(&self, found: Found<'d>, mut wanted: Option<(InstanceId, usize, Option<Gsi>)>) {
        for _ in 0..MAX_REPEATS {
            let Some((id, index, line)) = wanted else { return };
            let outcome = self.manager.reroute(id, index, line);
            let now = self.wanted(found);
            if now == wanted {
                // Another caller that moves it has not looked again yet, or the controller may take the level another time.
                let is_owed = matches!(outcome, Err(RerouteError::Busy { .. } | RerouteError::Controller { .. }));
                self.unsettled.fetch_or(is_owed, Ordering::Relaxed);
                return;
            }
            wanted = now;
        }
        self.unsettled.store(true, Ordering::Relaxed);
    }

    /// The pins follow a write to the configuration space of a function.
    fn follow(&self, written: Found<'d>) {
        match self.board {
            Board::Unwired => {}
            _ if self.unsettled.load(Ordering::Relaxed) => self.route(),
            Board::Router(router) if core::ptr::eq(router, written.function) => self.route(),
            _ => self.route_pin(written),
        }
    }

    /// Where an access to CONFIG_DATA at `byte` of its 4 goes. `None`: the bridge passes the access on as one to a port.
    fn by_port(&self, byte: u64) -> Option<Target> {
        let address = self.address.load(Ordering::Relaxed);
        let [register, slot, bus, _] = address.to_le_bytes();
        (address & ENABLE != 0).then(|| (bus, Slot::from_bits(slot), usize::from(register) + byte as usize))
    }

    /// The function that an access goes to.
    fn function(&self, (bus, slot, _): Target) -> Option<Found<'d>> {
        self.bus.function(bus, slot)
    }

    /// A read that no function claims is all ones (PCI Local Bus 3.0, 6.1).
    fn read_config(&self, target: Target, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(found) = self.function(target) {
            found.function.read(target.2, if found.is_one_of_several { SEVERAL } else { 0 }, data);
        }
    }

    fn write_config(&self, target: Target, data: &[u8]) {
        if let Some(found) = self.function(target) {
            found.function.write(self.manager, target.2, data);
            self.follow(found);
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
    /// decoded, no bridge forwards, no input of a router leads to a line.
    fn reset(&self) {
        self.address.store(0, Ordering::Relaxed);
        self.bus.each(MAX_WINDOW_DEPTH, &mut |found| found.function.reset(self.manager));
        self.route();
    }

    fn describe(&self, description: &mut dyn Description) {
        description.role(Role::PciHost);
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;
    use crate::address::IoRange;
    use crate::allocator::SystemAllocator;
    use crate::device::Rejected;
    use crate::manager::Storage;
    use crate::resource::{IrqResource, Resources};

    /// Interrupts by its function.
    struct Card<'d>(Function<'d>);

    impl<'d> Device<'d> for Card<'d> {
        fn name(&self) -> &str {
            "card"
        }
        fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
            self.0.connect(resources, 0);
            Ok(())
        }
    }

    #[test]
    fn a_move_that_comes_after_that_of_a_later_write_is_repeated() {
        let storage = Storage::<2, 2, 1>::new();
        let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 15));
        let router = Function::new(Config::piix3());
        let (host, card) = (
            HostBridge::new("pci", &manager).with_pirq_router(&router),
            Card(Function::new(Config::new(0x1234, 1).interrupt_pin(1))),
        );
        let id = manager.register_device(&card, None, &[], &[IrqResource::Unrouted]).unwrap();
        host.bus().plug(&card.0, Slot::new(1, 0), id).unwrap();
        let found = host.bus().function(0, Slot::new(1, 0)).unwrap();
        for value in [10, 11, 0x80, 5] {
            let looked = host.wanted(found);
            router.set_register(0x60, 0xff, value);
            host.route();
            host.settle_pin(found, looked);
            let line = if value == 0x80 { None } else { Some(Gsi(value)) };
            assert_eq!(manager.irq(id, 0).unwrap().gsi, line);
        }
    }
}

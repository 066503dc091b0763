//! The VMM of rust-vmm's `vm-device` design of 2019: a device manager with `register_device` and `unregister_device`, a host
//! bridge that keeps its configuration address, a device on its bus, and the loop that hands port I/O and MMIO to the manager.
//!
//! The loop is the design's own, over exits in the form in which `kvm-ioctls` returns them; here a list takes the place of the
//! virtual processor, so that the program runs anywhere.

use std::error::Error;
use std::sync::Mutex;

use vm_device::{
    Access, Device, DeviceManager, GuestAddress, GuestUsize, InstanceId, IoError, IoRange, IoResource, IoType,
    IrqResource, Rejected, Resources, Storage, SystemAllocator, UnregisterError,
};

/// The example of the design: a PCI host bridge that sets and returns its `config_address`, with a window of memory for what
/// is on its bus.
struct PciHostBridge {
    config_address: Mutex<[u8; 4]>,
}

impl Device<'_> for PciHostBridge {
    fn name(&self) -> &str {
        "pci-host-bridge"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        if access.io_type() == IoType::Pio {
            access.load(&*self.config_address.lock().expect("no callback panics"), data);
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        if access.io_type() == IoType::Pio {
            access.store(&mut *self.config_address.lock().expect("no callback panics"), data);
        }
    }
}

/// A device on the bus. It learns where it is, as in the design.
struct Card {
    memory: Mutex<[u8; 16]>,
    base: Mutex<Option<GuestAddress>>,
}

impl Device<'_> for Card {
    fn name(&self) -> &str {
        "card"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load(&*self.memory.lock().expect("no callback panics"), data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        access.store(&mut *self.memory.lock().expect("no callback panics"), data);
    }

    fn set_resources(&self, resources: &Resources<'_, '_>) -> Result<(), Rejected> {
        *self.base.lock().expect("no callback panics") = resources.ranges().first().map(|given| given.range.first());
        Ok(())
    }
}

/// An exit of a virtual processor.
enum VcpuExit<'a> {
    IoIn(u16, &'a mut [u8]),
    IoOut(u16, &'a [u8]),
    MmioRead(u64, &'a mut [u8]),
    MmioWrite(u64, &'a [u8]),
    Hlt,
}

/// The VMM: it has the manager, and the loop.
struct Vmm<'d> {
    device_manager: DeviceManager<'d>,
}

impl<'d> Vmm<'d> {
    fn new(storage: &'d Storage<'d, 8, 16, 1>) -> Self {
        let memory = IoRange::of::<0xc000_0000, 0xffff_ffff>();
        let allocator = SystemAllocator::new(memory).with_ports(IoRange::ALL_PORTS).with_irqs(5, 15);
        Self { device_manager: DeviceManager::new(storage, allocator) }
    }

    /// The loop of the design. Returns how many accesses reached no device.
    fn run_vcpu<'e>(&self, exits: impl IntoIterator<Item = VcpuExit<'e>>) -> u32 {
        let mut unclaimed = 0;
        for exit in exits {
            let result = match exit {
                VcpuExit::IoIn(port, data) => self.device_manager.read(port.into(), data, IoType::Pio),
                VcpuExit::IoOut(port, data) => self.device_manager.write(port.into(), data, IoType::Pio),
                VcpuExit::MmioRead(address, data) => self.device_manager.read(address.into(), data, IoType::Mmio),
                VcpuExit::MmioWrite(address, data) => self.device_manager.write(address.into(), data, IoType::Mmio),
                VcpuExit::Hlt => break,
            };
            unclaimed += u32::from(result == Err(IoError::Unclaimed));
        }
        unclaimed
    }

    fn print(&self) {
        print!("{}", self.device_manager.map());
    }
}

const CONFIG_ADDRESS: u16 = 0xcf8;
const BUS: u64 = 0xd000_0000;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let bridge = PciHostBridge { config_address: Mutex::new([0; 4]) };
    let card = Card { memory: Mutex::new([0; 16]), base: Mutex::new(None) };
    let storage = Storage::new();
    let vmm = Vmm::new(&storage);
    // An error names the devices that it is about, and is told while they are there.
    run(&vmm, &bridge, &card).map_err(|error| error.to_string().into())
}

fn run<'d>(vmm: &'d Vmm<'d>, bridge: &'d PciHostBridge, card: &'d Card) -> Result<(), Box<dyn Error + 'd>> {
    let manager = &vmm.device_manager;

    let window = IoResource::mmio(BUS, 0x1000_0000).window();
    let ports = IoResource::pio(CONFIG_ADDRESS, 8);
    let bus: InstanceId = manager.register_device(bridge, None, &[ports, window], &[])?;
    // Its address and its interrupt line are the manager's choice.
    let memory = IoResource::any(IoType::Mmio, GuestUsize(16)).aligned(16);
    let id = manager.register_device(card, Some(bus), &[memory], &[IrqResource::Any])?;
    let base = card.base.lock().expect("no callback panics").ok_or("the card was told where it is")?;
    println!("registered:");
    vmm.print();
    assert_eq!(base, GuestAddress(BUS));

    let (mut address, mut value, mut nothing) = ([0; 4], [0; 8], [0; 2]);
    let unclaimed = vmm.run_vcpu([
        VcpuExit::IoOut(CONFIG_ADDRESS, &0x8000_0800u32.to_le_bytes()),
        VcpuExit::IoIn(CONFIG_ADDRESS, &mut address),
        VcpuExit::MmioWrite(base.0 + 8, &[1, 2, 3, 4, 5, 6, 7, 8]),
        VcpuExit::MmioRead(base.0 + 8, &mut value),
        VcpuExit::MmioRead(0xc000_0000, &mut nothing),
        VcpuExit::Hlt,
    ]);
    println!("config_address: {:#x}; the card: {value:?}", u32::from_le_bytes(address));
    assert_eq!((u32::from_le_bytes(address), value), (0x8000_0800, [1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!((nothing, unclaimed), ([0xff; 2], 1));

    // A bus goes after what is on it.
    assert!(matches!(manager.unregister_device(bus), Err(UnregisterError::HasChildren { .. })));
    manager.unregister_device(id)?;
    let unclaimed = vmm.run_vcpu([VcpuExit::MmioRead(base.0, &mut nothing), VcpuExit::Hlt]);
    println!("without the card:");
    vmm.print();
    // The bus claims its window, and its bridge answers nothing there.
    assert_eq!((nothing, unclaimed), ([0xff; 2], 0));
    manager.unregister_device(bus)?;
    assert_eq!(manager.walk().count(), 0);
    Ok(())
}

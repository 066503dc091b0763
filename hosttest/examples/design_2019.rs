//! The VMM of rust-vmm's `vm-device` design of 2019: a struct that owns a device manager and its devices, a host bridge that keeps
//! its configuration address, a device on its bus, and the loop that hands port I/O and MMIO to the manager.
//!
//! The program has the design's shape, with this crate's names: devices are in `Arc`s, errors have `String`s, and nothing borrows.
//! The loop is the design's own, over exits in the form in which `kvm-ioctls` returns them; here a list takes the place of the
//! virtual processor, so that the program runs anywhere.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard};

use vm_device::owned::{Capacities, OwnedManager};
use vm_device::{
    Access, Device, GuestAddress, GuestUsize, InstanceId, IoError, IoRange, IoResource, IoType, IrqLine, IrqResource,
    RegisterError, Rejected, Resources, SystemAllocator, UnregisterError,
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

/// A device on the bus. It learns where it is and which interrupt it has, as in the design.
struct Card(Mutex<CardState>);

struct CardState {
    memory: [u8; 16],
    base: Option<GuestAddress>,
    interrupt: IrqLine<'static>,
}

impl Card {
    fn new() -> Self {
        Self(Mutex::new(CardState { memory: [0; 16], base: None, interrupt: IrqLine::DISCONNECTED }))
    }

    fn state(&self) -> MutexGuard<'_, CardState> {
        self.0.lock().expect("no callback panics")
    }
}

impl Device<'static> for Card {
    fn name(&self) -> &str {
        "card"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        access.load(&self.state().memory, data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        access.store(&mut self.state().memory, data);
    }

    fn set_resources(&self, resources: &Resources<'_, 'static>) -> Result<(), Rejected> {
        let mut state = self.state();
        state.base = resources.ranges().first().map(|given| given.range.first());
        state.interrupt = resources.irq(0);
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

const CONFIG_ADDRESS: u16 = 0xcf8;
const BUS: u64 = 0xd000_0000;

/// The VMM: it owns the manager and the devices, and has the loop.
struct Vmm {
    device_manager: OwnedManager,
    bridge: Arc<PciHostBridge>,
    card: Arc<Card>,
}

impl Vmm {
    fn new() -> Result<Self, Box<dyn Error>> {
        let memory = IoRange::of::<0xc000_0000, 0xffff_ffff>();
        let system_allocator = SystemAllocator::new(memory).with_ports(IoRange::ALL_PORTS).with_irqs(5, 15);
        let capacities = Capacities { devices: 8, ranges: 16, vcpus: 1 };
        Ok(Self {
            device_manager: OwnedManager::new(capacities, system_allocator)?,
            bridge: Arc::new(PciHostBridge { config_address: Mutex::new([0; 4]) }),
            card: Arc::new(Card::new()),
        })
    }

    fn add_bridge(&self) -> Result<InstanceId, RegisterError<String>> {
        let resources = [IoResource::pio(CONFIG_ADDRESS, 8), IoResource::mmio(BUS, 0x1000_0000).window()];
        self.device_manager.register_device(self.bridge.clone(), None, &resources, &[])
    }

    /// The card's address and its interrupt are the manager's choice.
    fn add_card(&self, bus: InstanceId) -> Result<InstanceId, RegisterError<String>> {
        let resources = [IoResource::any(IoType::Mmio, GuestUsize(16)).aligned(16)];
        self.device_manager.register_device(self.card.clone(), Some(bus), &resources, &[IrqResource::Any])
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

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let vmm = Vmm::new()?;
    let bus = vmm.add_bridge()?;
    let id = vmm.add_card(bus)?;
    println!("registered:");
    vmm.print();
    let interrupt = vmm.card.state().interrupt;
    let base = vmm.card.state().base.ok_or("the card was told where it is")?;
    assert_eq!((base, interrupt.gsi().map(|gsi| gsi.0)), (GuestAddress(BUS), Some(5)));

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
    assert!(matches!(vmm.device_manager.unregister_device(bus), Err(UnregisterError::HasChildren { .. })));
    let card = vmm.device_manager.unregister_device(id)?;
    let unclaimed = vmm.run_vcpu([VcpuExit::MmioRead(base.0, &mut nothing), VcpuExit::Hlt]);
    println!("without the {}:", card.name());
    vmm.print();
    // The bus claims its window, and its bridge answers nothing there. The card has no interrupt any more.
    assert_eq!((nothing, unclaimed, interrupt.gsi()), ([0xff; 2], 0, None));

    // The VMM has its devices for as long as it wants to.
    let Vmm { device_manager, bridge, card: _ } = vmm;
    drop(device_manager);
    assert_eq!(Arc::strong_count(&bridge), 1);
    Ok(())
}

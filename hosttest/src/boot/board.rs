//! The board of a PC: the devices of this crate, on a machine whose interrupt controllers and timer are KVM's.

use std::io;
use std::sync::Arc;

use embedded_io::{Read, ReadReady, Write, WriteReady};
use vm_device::devices::pci::{Config, Function, HostBridge, Slot};
use vm_device::devices::uart::Uart16550;
use vm_device::{
    AccessObserver, Device, DeviceManager, Gsi, InstanceId, IoRange, IoResource, IoType, IrqResource, Placement,
    Storage, SystemAllocator,
};

use crate::boot::error::BootError;
use crate::boot::image::Image;
use crate::boot::ram::{FOUR_GIB, Ram};
use crate::devices::firmware::{Cmos, DebugPort};
use crate::devices::i8042::I8042;
use crate::devices::reset_control::ResetControl;
use crate::vmm::clock::HostClock;
use crate::vmm::irq::KvmIrqchip;
use crate::vmm::memory::Memory;
use crate::vmm::power::Power;
use crate::vmm::vcpu::Vcpu;
use crate::vmm::vm::Vm;

/// The memory of the enhanced configuration mechanism: buses 0 to 255.
pub(super) const ECAM: [IoRange; 1] = [IoRange::of::<0xb000_0000, 0xbfff_ffff>()];
/// The IOAPIC and the local APICs, which KVM answers, and what lies between and after them: pages of KVM's own, the firmware.
const INTERRUPT_CONTROLLERS: IoRange = IoRange::of::<0xfec0_0000, 0xffff_ffff>();
/// KVM's own pages, below the local APICs.
const TASK_STATE: u64 = 0xfeff_d000;

/// What a board is made of.
pub struct Setup<'s, L, O> {
    /// The RAM in bytes: a multiple of 1 MiB, 2 MiB or more.
    pub memory: u64,
    /// The other end of the serial port COM1.
    pub serial: L,
    /// Is told of each access.
    pub observer: &'s O,
    /// What the machine starts.
    pub image: &'s Image,
}

/// The other end of a serial line. It has nothing to drop, since a device that borrows its manager must not have.
pub trait Line: Read + ReadReady + Write + WriteReady + Copy + Send {}

impl<L: Read + ReadReady + Write + WriteReady + Copy + Send> Line for L {}

/// The devices of a machine, and its memory. The machine itself is made when it is started.
pub struct Board<'b> {
    /// The manager of the devices.
    pub manager: &'b DeviceManager<'b>,
    /// The host bridge.
    pub host: &'b HostBridge<'b>,
    /// The time of the devices.
    pub clock: &'b HostClock,
    /// Moves what the other end of the serial port has for the guest, or has room for.
    pub poll_serial: &'b (dyn Fn() + Sync),
    /// The RAM, and the screen.
    pub ram: &'b Ram,
    /// The firmware's messages.
    pub debug: &'b DebugPort,
    pub(super) image: &'b Image,
    pub(super) power: &'b Power,
    irqchip: &'b KvmIrqchip,
    rom: Option<&'b Arc<Memory>>,
}

/// The bus of the devices that have fixed ports.
struct Isa;

impl Device<'_> for Isa {
    fn name(&self) -> &str {
        "isa"
    }
}

/// How many devices, ranges and processors there is room for.
type Room<'d> = Storage<'d, 48, 96, 16>;
/// How many processors a board has room for.
pub const MAX_CPUS: usize = 16;

/// Makes a board and calls `act` with it.
///
/// # Errors
/// What the host refuses, and a device that cannot be registered.
pub fn with_board<L: Line, O: AccessObserver, R>(
    setup: &Setup<'_, L, O>,
    act: impl FnOnce(&Board<'_>) -> R,
) -> Result<R, BootError> {
    let ram = Ram::new(setup.memory)?;
    let rom = match setup.image {
        Image::Firmware(firmware) => Some(Arc::new(firmware.rom()?)),
        Image::Kernel(_) => None,
    };
    let (clock, power, irqchip) = (HostClock::new(), Power::new(), KvmIrqchip::new());
    let (cmos, debug) = (Cmos::new(setup.memory.clamp(16 << 20, FOUR_GIB / 2)), DebugPort::new());
    let storage = Room::new();
    let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 23);
    let manager =
        DeviceManager::new(&storage, allocator).with_interrupt_controller(&irqchip).with_observer(setup.observer);
    let com1 = Uart16550::new("serial", setup.serial, &clock);
    let (keyboard, reset) = (I8042::new(), ResetControl::new(&power));
    let host = HostBridge::new("pci", &manager);
    let chipset = Function::new(Config::i440fx().subsystem(0x1af4, 0x1100));

    for range in ram.ranges().chain([INTERRUPT_CONTROLLERS]) {
        manager.reserve(IoType::Mmio, Placement::Fixed(range)).map_err(refused)?;
    }
    let isa = register(&manager, &Isa, None, &[], &[])?;
    register(&manager, &com1, Some(isa), &[com1.ports(0x3f8)], &[IrqResource::Fixed(Gsi(4))])?;
    register(&manager, &cmos, Some(isa), &[Cmos::resource()], &[])?;
    register(&manager, &debug, Some(isa), &[DebugPort::resource()], &[])?;
    register(&manager, &keyboard, Some(isa), &I8042::ports(), &I8042::interrupts())?;
    let host_ranges = match setup.image {
        Image::Firmware(_) => vec![HostBridge::PORTS],
        Image::Kernel(_) => vec![HostBridge::PORTS, HostBridge::ecam(ECAM[0].first().0, 255)],
    };
    let host_id = register(&manager, &host, None, &host_ranges, &[])?;
    register(&manager, &reset, Some(host_id), &[ResetControl::resource()], &[])?;
    host.bus().plug(&chipset, Slot::new(0, 0), host_id).map_err(refused)?;

    let poll_serial = || com1.poll();
    let board = Board {
        manager: &manager,
        host: &host,
        clock: &clock,
        poll_serial: &poll_serial,
        ram: &ram,
        debug: &debug,
        image: setup.image,
        power: &power,
        irqchip: &irqchip,
        rom: rom.as_ref(),
    };
    Ok(act(&board))
}

fn register<'d>(
    manager: &'d DeviceManager<'d>,
    device: &'d dyn Device<'d>,
    parent: Option<InstanceId>,
    ranges: &[IoResource],
    interrupts: &[IrqResource],
) -> Result<InstanceId, BootError> {
    manager.register_device(device, parent, ranges, interrupts).map_err(refused)
}

fn refused(error: impl std::fmt::Display) -> BootError {
    BootError::Device(error.to_string())
}

impl Board<'_> {
    /// A machine as after power-on, with this many processors.
    ///
    /// # Errors
    /// What the images or KVM refuse.
    pub(super) fn power_on(&self, kvm: &kvm_ioctls::Kvm, cpus: usize) -> Result<Vec<Vcpu>, BootError> {
        let entry = self.image.load(self.ram, None)?;
        let vm = Vm::with_tss_address(kvm, TASK_STATE.into())?;
        vm.create_irqchip()?;
        vm.create_pit()?;
        self.ram.map(&vm)?;
        if let Some(rom) = self.rom {
            vm.map_read_only((FOUR_GIB - rom.length()).into(), rom)?;
        }
        let vm = Arc::new(vm);
        self.irqchip.connect(&vm);
        let vcpus = (0..cpus as u64).map(|id| Vcpu::new(&vm, id)).collect::<Result<Vec<_>, _>>();
        let mut vcpus = vcpus.map_err(io::Error::from)?;
        if let Some(first) = vcpus.first_mut() {
            entry.start(first)?;
        }
        Ok(vcpus)
    }
}

//! The board of a PC: the devices of this crate, on a machine whose local APICs are KVM's, and its other interrupt controllers
//! too or not.

use std::io;
use std::sync::{Arc, Mutex};

use embedded_io::{Read, ReadReady, Write, WriteReady};
use vm_device::devices::debug_console::DebugConsole;
use vm_device::devices::fw_cfg::{FwCfg, Item};
use vm_device::devices::hpet::{Hpet, LegacyReplacement};
use vm_device::devices::i8042::I8042;
use vm_device::devices::pci::{Bridge, Config, Function, HostBridge, Pin, PinLines, Serial, Slot};
use vm_device::devices::pit::Pit;
use vm_device::devices::pm_timer::PmTimer;
use vm_device::devices::pm1::Pm1;
use vm_device::devices::post::PostPort;
use vm_device::devices::reset_control::ResetControl;
use vm_device::devices::rtc::Rtc;
use vm_device::devices::system_control::SystemControlA;
use vm_device::devices::uart::Uart16550;
use vm_device::tables::acpi::{self, Cpus, IoApic, IrqOverride};
use vm_device::tables::{PciInterrupts, PciRoot};
use vm_device::{
    Device, DeviceManager, Gsi, InstanceId, IoRange, IoResource, IoType, IrqResource, Placement, Storage,
    SystemAllocator,
};

use crate::boot::chips::{Chips, Controllers, CrateChips, CrateLines};
use crate::boot::error::BootError;
use crate::boot::image::Image;
use crate::boot::parameters::TABLES;
use crate::boot::ram::{FOUR_GIB, MIB, Ram};
use crate::devices::scratch::Scratch;
use crate::vmm::clock::HostClock;
use crate::vmm::counters::Counters;
use crate::vmm::injection::Intr;
use crate::vmm::ioapic::{self, KvmLocalApics};
use crate::vmm::irq::KvmIrqchip;
use crate::vmm::memory::Memory;
use crate::vmm::observers::Observers;
use crate::vmm::power::Power;
use crate::vmm::trace::Trace;
use crate::vmm::vcpu::Vcpu;
use crate::vmm::vm::Vm;

/// The memory of the enhanced configuration mechanism. Linux looks for functions on every bus that it is told of, without a reason
/// too: each bus costs 64 exits.
pub(super) const ECAM: IoRange = IoRange::of::<0xb000_0000, 0xb07f_ffff>();
const LAST_BUS: u8 = 7;
/// The local APICs, which KVM answers, pages of KVM's own, the firmware.
const MACHINE: IoRange = IoRange::of::<0xfee0_0000, 0xffff_ffff>();
/// The registers of KVM's IOAPIC.
const KVM_IOAPIC: IoRange = IoRange::of::<{ ioapic::BASE }, { ioapic::BASE + 0xfff }>();
/// The memory that PCI functions may be given: below 4 GiB, and above all RAM.
const PCI_MEMORY: [IoRange; 2] =
    [IoRange::of::<0xc000_0000, 0xfebf_ffff>(), IoRange::of::<0x20_0000_0000, 0x2f_ffff_ffff>()];
/// KVM's own pages, below the local APICs.
const TASK_STATE: u64 = 0xfeff_d000;
/// Where the HPET is.
const HPET: u64 = 0xfed0_0000;
/// The ports of KVM's 8259As.
const KVM_PORTS: [IoRange; 3] =
    [IoRange::of::<0x20, 0x21>(), IoRange::of::<0xa0, 0xa1>(), IoRange::of::<0x4d0, 0x4d1>()];

/// Where the registers of ACPI are, as SeaBIOS puts them.
const PM1: u16 = 0x600;
const PM_TIMER: u16 = 0x608;
/// The line of ACPI's events.
const SCI: Gsi = Gsi(9);
/// The lines that the pins of PCI functions lead to, where tables say so.
const PIN_LINES: PinLines = PinLines::new(Gsi(16), 8);

/// The other end of a serial line. It has nothing to drop, since a device that borrows its manager must not have.
pub trait Line: Read + ReadReady + Write + WriteReady + Copy + Send {}

impl<L: Read + ReadReady + Write + WriteReady + Copy + Send> Line for L {}

/// A PCI card without a driver: a function, and registers that keep what is written.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// The name of the device.
    pub name: &'static str,
    /// What it is.
    pub config: Config<'static>,
    /// Where it is: on bus 0, or behind the bridge.
    pub slot: Slot,
    /// Whether it is behind the bridge, which is in slot 3 of bus 0. Without such a card there is no bridge.
    pub is_behind_bridge: bool,
}

/// What a board is made of.
pub struct Setup<'s, L> {
    /// The RAM in bytes: a multiple of 1 MiB, 2 MiB or more.
    pub memory: u64,
    /// What the machine starts.
    pub image: &'s Image,
    /// The other end of the serial port COM1.
    pub serial: L,
    /// Where the messages of the firmware go, if it has a port for them.
    pub debug: L,
    /// The other ends of two PCI serial ports, which are there but not plugged in: see [`Board::plug`]. A port that is not plugged in
    /// receives all the same, so that no end may be that of another port that is read.
    pub pci_serial: [L; 2],
    /// Cards that are plugged in.
    pub cards: &'s [Card],
    /// Whose the interrupt controllers are.
    pub chips: Chips,
    /// Is told of each access, if there is one.
    pub trace: Option<&'s Trace>,
}

/// The devices of a machine, and its memory. The machine itself is made when it is started.
pub struct Board<'b> {
    /// The manager of the devices.
    pub manager: &'b DeviceManager<'b>,
    /// The host bridge.
    pub host: &'b HostBridge<'b>,
    /// The PCI-to-PCI bridge, if there is one.
    pub bridge: Option<(InstanceId, &'b Function<'b>)>,
    /// The cards, in their order.
    pub cards: Vec<(InstanceId, &'b Function<'b>)>,
    /// The time of the devices.
    pub clock: &'b HostClock,
    /// The accesses so far.
    pub counters: &'b Counters,
    /// The RAM, and the screen.
    pub ram: &'b Ram,
    /// Moves what the other ends of the serial ports have for the guest, or have room for.
    pub poll_serial: &'b (dyn Fn() + Sync),
    pub(super) image: &'b Image,
    pub(super) power: &'b Power,
    pub(super) controllers: Controllers<'b>,
    rom: Option<&'b Arc<Memory>>,
    /// What is plugged into bus 0 for good: its slot, and the device with its ranges, if it has any.
    fixed: Vec<(Slot, Option<InstanceId>, &'b Function<'b>)>,
    pci_serial: [Pluggable<'b>; 2],
    trace: Option<&'b Trace>,
}

/// A PCI serial port that comes and goes.
struct Pluggable<'b> {
    device: &'b (dyn Device<'b> + 'b),
    function: &'b Function<'b>,
    slot: Slot,
    id: Mutex<Option<InstanceId>>,
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
pub fn with_board<L: Line, R>(setup: &Setup<'_, L>, act: impl FnOnce(&Board<'_>) -> R) -> Result<R, BootError> {
    let ram = Ram::new(setup.memory)?;
    let (rom, is_firmware) = match setup.image {
        Image::Firmware(firmware) => (Some(Arc::new(firmware.rom()?)), true),
        Image::Kernel(_) => (None, false),
    };
    let (clock, power, counters) = (HostClock::new(), Power::new(), Counters::new());
    let (irqchip, apics, intr) = (KvmIrqchip::new(), KvmLocalApics::new(), Intr::new());
    let chips = CrateChips::new(&intr, &apics);
    let lines = CrateLines::new(&chips.pic, &chips.ioapic);
    let controllers = match setup.chips {
        Chips::Kvm => Controllers::Kvm(&irqchip),
        Chips::Crate => Controllers::Crate(&chips, &lines),
    };
    let observers = Observers(&counters, setup.trace);
    let replaced = LegacyReplacement::new();
    let (post, items) = (PostPort::new(), firmware_items(setup.memory));
    let items = items.each_ref().map(|(number, data)| Item::number(*number, data));

    let storage = Room::new();
    let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 23);
    let controller = controllers.of_manager();
    let manager =
        DeviceManager::new(&storage, allocator).with_interrupt_controller(controller).with_observer(&observers);
    let com1 = Uart16550::new("serial", setup.serial, &clock);
    let pit = Pit::new(&clock).with_legacy_replacement(&replaced);
    let rtc = Rtc::new(&clock).with_century(0x32).with_legacy_replacement(&replaced);
    let hpet = Hpet::new(&clock).with_legacy_replacement(&replaced);
    let (keyboard, fast_reset) = (I8042::new(&power), SystemControlA::new(&power));
    let (pm1, pm_timer) = (Pm1::new(&power), PmTimer::new(&clock));
    let reset = ResetControl::new(&power);
    let (debug, fw_cfg) = (DebugConsole::new(setup.debug), FwCfg::new(&items));

    let host_function = Function::new(Config::i440fx().subsystem(0x1af4, 0x1100));
    let piix3 = Function::new(Config::piix3());
    let piix4_power = Function::new(Config::piix4_power());
    let host = HostBridge::new("pci", &manager);
    let host = if is_firmware { host.with_pirq_router(&piix3) } else { host.with_lines(PIN_LINES) };
    let bridge = Bridge::new("bridge", 0x1b36, 1);
    let cards: Vec<_> =
        setup.cards.iter().map(|card| (Scratch::<256>::new(card.name), Function::new(card.config))).collect();
    let [first, second] = setup.pci_serial;
    let in_memory = Serial::in_memory("pci-serial", first, &clock);
    let on_ports = Serial::on_ports("pci-serial-ports", 0x1b36, 2, second, &clock);

    let register = |device, parent, ranges: &[IoResource], lines: &[IrqResource]| {
        manager.register_device(device, parent, ranges, lines).map_err(refused)
    };
    for range in ram.ranges().chain([MACHINE]) {
        manager.reserve(IoType::Mmio, Placement::Fixed(range)).map_err(refused)?;
    }
    let isa = register(&Isa, None, &[], &[])?;
    match setup.chips {
        Chips::Kvm => {
            manager.reserve(IoType::Mmio, Placement::Fixed(KVM_IOAPIC)).map_err(refused)?;
            for range in KVM_PORTS {
                manager.reserve(IoType::Pio, Placement::Fixed(range)).map_err(refused)?;
            }
        }
        Chips::Crate => {
            register(&chips.pic, Some(isa), &chips.pic.ports(), &[])?;
            register(&chips.ioapic, None, &[chips.ioapic.mmio(ioapic::BASE)], &[])?;
        }
    }
    register(&com1, Some(isa), &[com1.ports(0x3f8)], &[IrqResource::Fixed(Gsi(4))])?;
    let (timer, date) = (IrqResource::Shared(Gsi(0)), IrqResource::Shared(Gsi(8)));
    register(&pit, Some(isa), &pit.ports(), &[timer])?;
    register(&rtc, Some(isa), &[rtc.ports()], &[date])?;
    register(&hpet, None, &[hpet.mmio(HPET)], &[timer, date])?;
    register(&keyboard, Some(isa), &keyboard.ports(), &keyboard.interrupts())?;
    register(&fast_reset, Some(isa), &[fast_reset.port()], &[])?;
    register(&pm1, Some(isa), &[pm1.registers(PM1), pm1.command_port()], &[IrqResource::Shared(SCI)])?;
    register(&pm_timer, Some(isa), &[pm_timer.ports(PM_TIMER)], &[])?;
    register(&post, Some(isa), &[post.port()], &[])?;
    set_memory_size(&rtc, setup.memory);

    let ecam = (!is_firmware).then_some(HostBridge::ecam(ECAM.first().0, LAST_BUS));
    let host_ranges: Vec<_> = [HostBridge::PORTS].into_iter().chain(ecam).collect();
    let host_id = register(&host, None, &host_ranges, &[])?;
    register(&reset, Some(host_id), &[reset.port()], &[])?;
    host.bus().plug(&host_function, Slot::new(0, 0), host_id).map_err(refused)?;
    let mut fixed = vec![(Slot::new(0, 0), None, &host_function)];
    if is_firmware {
        register(&debug, Some(isa), &[debug.port(0x402)], &[])?;
        register(&fw_cfg, Some(isa), &[fw_cfg.ports()], &[])?;
        host.bus().plug(&piix3, Slot::new(1, 0), isa).map_err(refused)?;
        host.bus().plug(&piix4_power, Slot::new(1, 3), isa).map_err(refused)?;
        fixed.extend([(Slot::new(1, 0), None, &piix3), (Slot::new(1, 3), None, &piix4_power)]);
    }
    let mut bridge_id = None;
    if setup.cards.iter().any(|card| card.is_behind_bridge) {
        let id = register(&bridge, None, &bridge.requests(), &[])?;
        host.bus().plug(bridge.function(), Slot::new(3, 0), id).map_err(refused)?;
        fixed.push((Slot::new(3, 0), Some(id), bridge.function()));
        bridge_id = Some(id);
    }
    let mut plugged = Vec::new();
    for (card, (device, function)) in setup.cards.iter().zip(&cards) {
        let (parent, bus) = if card.is_behind_bridge { (bridge_id, bridge.bus()) } else { (None, host.bus()) };
        let id = register(device, parent, &function.requests(), &[])?;
        bus.plug(function, card.slot, id).map_err(refused)?;
        if !card.is_behind_bridge {
            fixed.push((card.slot, Some(id), function));
        }
        plugged.push((id, function));
    }

    let poll_serial = || {
        com1.poll();
        in_memory.poll();
        on_ports.poll();
    };
    let pluggable = |device, function, slot| Pluggable { device, function, slot, id: Mutex::default() };
    let board = Board {
        manager: &manager,
        host: &host,
        bridge: bridge_id.map(|id| (id, bridge.function())),
        cards: plugged,
        clock: &clock,
        counters: &counters,
        ram: &ram,
        poll_serial: &poll_serial,
        image: setup.image,
        power: &power,
        controllers,
        rom: rom.as_ref(),
        fixed,
        pci_serial: [
            pluggable(&in_memory, in_memory.function(), Slot::new(5, 0)),
            pluggable(&on_ports, on_ports.function(), Slot::new(13, 0)),
        ],
        trace: setup.trace,
    };
    board.name_devices();
    Ok(act(&board))
}

/// What a manager has refused.
pub(super) fn refused(error: impl std::fmt::Display) -> BootError {
    BootError::Device(error.to_string())
}

/// What firmware asks for by number: nothing but how much RAM there is, and how many processors.
fn firmware_items(memory: u64) -> [(u16, Vec<u8>); 2] {
    const RAM_SIZE: u16 = 3;
    const MAX_PROCESSORS: u16 = 15;
    [(RAM_SIZE, memory.to_le_bytes().into()), (MAX_PROCESSORS, (MAX_CPUS as u16).to_le_bytes().into())]
}

/// Where firmware of a PC looks for the size of the RAM in the memory of the clock: above 1 MiB in KiB, above 16 MiB in units of 64
/// KiB, above 4 GiB in the same units.
fn set_memory_size<C>(rtc: &Rtc<'_, C>, memory: u64) {
    let low = memory.min(super::ram::LOW_END);
    let above_1_mib = low.saturating_sub(MIB) >> 10;
    let above_16_mib = low.saturating_sub(16 * MIB) >> 16;
    let above_4_gib = (memory - low) >> 16;
    let words = [(0x17, above_1_mib.min(0xffff)), (0x30, above_1_mib.min(0xffff)), (0x34, above_16_mib)];
    for (index, word) in words.into_iter().chain([(0x5b, above_4_gib & 0xffff), (0x5d, above_4_gib >> 16)]) {
        let [low, high] = (word as u16).to_le_bytes();
        rtc.set_byte(index, low);
        rtc.set_byte(index + 1, high);
    }
}

impl<'b> Board<'b> {
    /// A machine as after power-on, with this many processors.
    ///
    /// # Errors
    /// What the images or KVM refuse.
    pub(super) fn power_on(&self, kvm: &kvm_ioctls::Kvm, cpus: usize) -> Result<Vec<Vcpu>, BootError> {
        let root_pointer = match self.image {
            Image::Firmware(_) => None,
            Image::Kernel(_) => Some(self.write_tables(cpus)?),
        };
        let entry = self.image.load(self.ram, root_pointer)?;
        let vm = Vm::with_tss_address(kvm, TASK_STATE.into())?;
        self.controllers.create(&vm)?;
        self.ram.map(&vm)?;
        if let Some(rom) = self.rom {
            vm.map_read_only((FOUR_GIB - rom.length()).into(), rom)?;
        }
        let vm = Arc::new(vm);
        self.controllers.connect(&vm);
        let vcpus = (0..cpus as u64).map(|id| Vcpu::new(&vm, id)).collect::<Result<Vec<_>, _>>();
        let mut vcpus = vcpus.map_err(io::Error::from)?;
        if let Some(first) = vcpus.first_mut() {
            entry.start(first)?;
        }
        Ok(vcpus)
    }

    /// Writes the ACPI tables of a machine with this many processors to where a kernel looks for them. Returns the address of the
    /// first one.
    fn write_tables(&self, cpus: usize) -> Result<u64, BootError> {
        let route = |device, pin| self.host.line(Slot::new(device, 0), Pin::from_register(pin)?);
        let root = PciRoot {
            ports: &PciRoot::PC_PORTS,
            memory: &PCI_MEMORY,
            interrupts: PciInterrupts::Routed(&route),
            ..PciRoot::NOTHING
        };
        // The crate's are devices, which say so themselves.
        let is_of_kvm = self.chips() == Chips::Kvm;
        let of_kvm = [IoApic { id: 0, address: ioapic::BASE, first_gsi: 0 }];
        let config = acpi::Config {
            cpus: Cpus::Sequential(cpus as u32),
            io_apics: if is_of_kvm { &of_kvm } else { &[] },
            overrides: &[IrqOverride { irq: 0, gsi: 2 }],
            has_pic: is_of_kvm,
            pci: &[root],
            ..acpi::Config::new()
        };
        let mut tables = vec![0; (MIB - TABLES) as usize];
        let written = acpi::write(self.manager, &config, TABLES.into(), &mut tables).map_err(refused)?;
        self.ram.write(TABLES, &tables[..written.length]).ok_or_else(|| refused("there is no RAM for the tables"))?;
        Ok(written.rsdp.0)
    }

    /// Tells those that show devices the paths of all that are registered.
    fn name_devices(&self) {
        let paths = || self.manager.walk().map(|info| (info.id, self.manager.path(info.id).to_string()));
        self.counters.name_devices(paths());
        if let Some(trace) = self.trace {
            trace.name_devices(paths());
        }
    }

    /// Whose the interrupt controllers are.
    pub fn chips(&self) -> Chips {
        self.controllers.chips()
    }

    /// What is plugged into bus 0 now: its slot, the device with its ranges, if it has any, and the function.
    pub fn functions(&self) -> Vec<(Slot, Option<InstanceId>, &'b Function<'b>)> {
        let plugged = self.pci_serial.iter().filter_map(|port| {
            let id = *port.id.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            id.map(|id| (port.slot, Some(id), port.function))
        });
        self.fixed.iter().copied().chain(plugged).collect()
    }

    /// Plugs in PCI serial port number `port`, 0 or 1: the one whose registers are in memory, in slot 5, or the one on ports, in slot
    /// 13, whose pin leads to the same line. The guest finds it when it looks for new functions.
    ///
    /// # Errors
    /// It is plugged in already, or what it asks for cannot be had.
    pub fn plug(&self, port: usize) -> Result<InstanceId, BootError> {
        let Pluggable { device, function, slot, id } = &self.pci_serial[port];
        let mut plugged = id.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if plugged.is_some() {
            return Err(refused("the serial port is plugged in already"));
        }
        let id = self
            .manager
            .register_device(*device, None, &function.requests(), &[IrqResource::Unrouted])
            .map_err(refused)?;
        self.host.bus().plug(function, *slot, id).map_err(refused)?;
        *plugged = Some(id);
        self.name_devices();
        Ok(id)
    }

    /// Pulls PCI serial port number `port` out, whatever its driver is doing. Returns the id that its device had.
    ///
    /// # Errors
    /// It is not plugged in, or its device is inside a callback for too long.
    pub fn unplug(&self, port: usize) -> Result<InstanceId, BootError> {
        let Pluggable { function, id, .. } = &self.pci_serial[port];
        let mut plugged = id.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let id = plugged.take().ok_or_else(|| refused("the serial port is not plugged in"))?;
        self.host.bus().unplug(function);
        self.manager.unregister_device(id).map_err(refused)?;
        Ok(id)
    }
}

//! SeaBIOS on a board of this crate's devices: it finds the functions behind the host bridge, sizes their base address registers,
//! gives them addresses and turns their decoding on, and the map is as it left the registers. Without `/dev/kvm` or SeaBIOS these
//! tests count as ignored; where `CI` is set, as failed.

mod needs;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hosttest::devices::firmware::DebugPort;
use hosttest::devices::scratch::Scratch;
use hosttest::vmm::clock::HostClock;
use hosttest::vmm::host::kvm;
use hosttest::vmm::irq::KvmIrqchip;
use hosttest::vmm::memory::{Memory, PAGE};
use hosttest::vmm::run::run;
use hosttest::vmm::vcpu::Vcpu;
use hosttest::vmm::vm::Vm;
use libtest_mimic::{Arguments, Failed};
use vm_device::devices::hpet::{Hpet, LegacyReplacement};
use vm_device::devices::pci::{Bar, Bridge, Config, Function, HostBridge, Pin, Slot};
use vm_device::devices::pit::Pit;
use vm_device::devices::rtc::Rtc;
use vm_device::devices::time::WallClock;
use vm_device::{
    Assigned, DeviceManager, Gsi, GuestAddress, InstanceId, IoRange, IoType, IrqResource, Placement, RangeState,
    Storage, SystemAllocator,
};

use needs::{Need, test};

fn main() -> ExitCode {
    let (kvm, seabios) = (Need::new("KVM", kvm()), Need::new("SeaBIOS", image()));
    let trials = vec![test("the_map_is_as_the_firmware_leaves_the_registers", &[&kvm, &seabios], boot)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

const LIMIT: Duration = Duration::from_secs(120);
/// What SeaBIOS says once the devices are set up, when it looks for something to boot from.
const AFTER_PCI: &str = "Scan for VGA option rom";

const RAM: u64 = 32 << 20;
/// RAM has a hole for the memory of a video card.
const HOLE: u64 = 0xa_0000;
const HOLE_END: u64 = 0xc_0000;
/// The last 128 KiB of the firmware are below 1 MiB as well.
const LOW_FIRMWARE: u64 = 0x2_0000;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The IOAPIC and the local APIC, which KVM answers, and what lies between and after them.
const INTERRUPT_CONTROLLERS: [IoRange; 2] =
    [IoRange::of::<0xfec0_0000, 0xfec0_0fff>(), IoRange::of::<0xfee0_0000, 0xffff_ffff>()];

/// The image of the firmware.
fn image() -> Result<PathBuf, String> {
    let path = std::env::var_os("VM_DEVICE_SEABIOS").map_or("/usr/share/seabios/bios.bin".into(), PathBuf::from);
    match path.exists() {
        true => Ok(path),
        false => Err(format!(
            "{} is not there: install Debian's package `seabios`, or set VM_DEVICE_SEABIOS to a bios.bin",
            path.display()
        )),
    }
}

/// What a function is made of, and the device whose ranges follow it.
struct Card<'d> {
    function: Function<'d>,
    device: Scratch<256>,
    /// The register of each range, in their order, and the bits of it that are an address.
    registers: &'static [(usize, u64)],
}

impl Card<'_> {
    fn new(name: &'static str, config: Config<'static>, registers: &'static [(usize, u64)]) -> Self {
        Self { function: Function::new(config), device: Scratch::new(name), registers }
    }

    /// The address in a base address register.
    fn address(&self, (register, mask): (usize, u64)) -> u64 {
        let low = self.function.register(register);
        let is_wide = low & 0b111 == 0b100;
        let high = if is_wide { self.function.register(register + 4) } else { 0 };
        (u64::from(high) << 32 | u64::from(low)) & mask
    }
}

const MEMORY: u64 = !0xf;
const PORTS: u64 = !0x3;

fn boot() -> Result<(), Failed> {
    let firmware = std::fs::read(image()?)?;
    let (irqchip, clock, replaced) = (KvmIrqchip::new(), HostClock::new(), LegacyReplacement::new());
    let storage = Storage::<'_, 16, 32, 2>::new();
    let manager = DeviceManager::new(
        &storage,
        SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 23),
    )
    .with_interrupt_controller(&irqchip);
    let (vm, low) = machine(&manager, &firmware)?;
    irqchip.connect(&vm);

    let pit = Pit::new(&clock).with_legacy_replacement(&replaced);
    let rtc = Rtc::new(&clock).with_century(0x32).with_legacy_replacement(&replaced);
    // What lies above 16 MiB, in units of 64 KiB: where firmware of the PC looks for it.
    for (index, byte) in (0x34..).zip((((RAM - (16 << 20)) >> 16) as u16).to_le_bytes()) {
        rtc.set_byte(index, byte);
    }
    let hpet = Hpet::new(&clock).with_legacy_replacement(&replaced);
    let (timer, date) = (IrqResource::Shared(Gsi(0)), IrqResource::Shared(Gsi(8)));
    manager.register_device(&pit, None, &pit.ports(), &[timer])?;
    manager.register_device(&rtc, None, &[rtc.ports()], &[date])?;
    manager.register_device(&hpet, None, &[hpet.mmio(0xfed0_0000)], &[timer, date])?;
    let debug = DebugPort::new();
    manager.register_device(&debug, None, &[DebugPort::resource()], &[])?;

    let isa = Function::new(Config::piix3());
    let host = HostBridge::new("pci", &manager).with_pirq_router(&isa);
    let host_id = manager.register_device(&host, None, &[HostBridge::PORTS], &[])?;
    // SeaBIOS sets a machine up whose host bridge is the one of QEMU.
    let chipset = Function::new(Config::i440fx().subsystem(0x1af4, 0x1100));
    host.bus().plug(&chipset, Slot::new(0, 0), host_id)?;
    host.bus().plug(&isa, Slot::new(1, 0), host_id)?;

    let disk = Card::new(
        "disk",
        Config::new(0x1234, 1)
            .class(0x01_8000)
            .bar(0, Bar::memory(0x4000))
            .bar(1, Bar::ports(0x40))
            // It has no room below 4 GiB.
            .bar(2, Bar::memory64(4 * GIB).prefetchable()),
        &[(0x10, MEMORY), (0x14, PORTS), (0x18, MEMORY)],
    );
    let network = Card::new(
        "network",
        Config::new(0x1234, 2).class(0x02_0000).bar(0, Bar::ports(0x20)).bar(5, Bar::memory(MIB)).interrupt_pin(1),
        &[(0x10, PORTS), (0x24, MEMORY)],
    );
    let behind = Card::new(
        "behind",
        Config::new(0x1234, 3)
            .class(0x07_8000)
            .bar(0, Bar::memory64(0x1000).prefetchable())
            .bar(3, Bar::memory(0x2000))
            .bar(4, Bar::ports(8))
            .interrupt_pin(1),
        &[(0x10, MEMORY), (0x1c, MEMORY), (0x20, PORTS)],
    );
    let bridge = Bridge::new("bridge", 0x1b36, 1);
    let bridge_id = manager.register_device(&bridge, None, &bridge.requests(), &[])?;
    host.bus().plug(bridge.function(), Slot::new(3, 0), bridge_id)?;
    let mut cards = Vec::new();
    for (card, parent, bus, slot) in [
        (&disk, None, host.bus(), Slot::new(4, 0)),
        (&network, None, host.bus(), Slot::new(2, 0)),
        (&behind, Some(bridge_id), bridge.bus(), Slot::new(0, 0)),
    ] {
        let id = manager.register_device(&card.device, parent, &card.function.requests(), &[])?;
        bus.plug(&card.function, slot, id)?;
        cards.push((card, id));
    }

    let mut vcpu = Vcpu::new(&vm, 0)?;
    let with_output = |error: String| format!("{error}\n{}", debug.output());
    let mut dispatcher = manager.dispatcher(0)?;
    thread::scope(|scope| {
        scope.spawn(|| clock.run(|now| manager.tick(now)));
        let tally = run(&mut vcpu, &mut dispatcher, LIMIT, || debug.says(AFTER_PCI));
        clock.stop();
        tally.map_err(|error| with_output(error.to_string()))
    })?;
    check_time(&low, clock.utc()).map_err(with_output)?;

    for (card, id) in cards {
        for (index, register) in card.registers.iter().enumerate() {
            check(&manager, id, index, card.address(*register)).map_err(with_output)?;
        }
    }
    // The firmware has routed the pins, and written where each leads into the interrupt line register of its function.
    let pins = [
        (&network, host.line(Slot::new(2, 0), Pin::A), 10),
        (&behind, host.line(Slot::new(3, 0), Pin::A.through_bridge(Slot::new(0, 0))), 11),
    ];
    for (card, line, expected) in pins {
        let found = (line, card.function.register(0x3c) & 0xff);
        if found != (Some(Gsi(expected)), expected) {
            return Err(with_output(format!("a pin leads to {line:?}, and its function says {}", found.1)).into());
        }
    }
    for (index, base) in windows(bridge.function()).into_iter().enumerate() {
        check(&manager, bridge_id, index, base).map_err(with_output)?;
    }
    Ok(())
}

/// Whether the firmware has set its clock by the RTC: to the ticks of the PIT since midnight, 18.2 a second, at 0x46c in the
/// BIOS data area. It loses ticks while it has its interrupts off.
fn check_time(ram: &Memory, utc: u64) -> Result<(), String> {
    let mut ticks = [0; 4];
    ram.read(0x46c, &mut ticks);
    let (shown, now) = (u64::from(u32::from_le_bytes(ticks)) * 10_000 / 182_065, utc / 1_000_000_000 % 86_400);
    let difference = now.abs_diff(shown);
    if difference.min(86_400 - difference) > 10 {
        return Err(format!("the firmware's clock is at {shown} s, and it is {now} s after midnight"));
    }
    Ok(())
}

/// RAM, of which the first part is returned, firmware, and KVM's interrupt controllers. None of it is for devices.
fn machine(manager: &DeviceManager<'_>, firmware: &[u8]) -> Result<(Arc<Vm>, Arc<Memory>), Failed> {
    let vm = Vm::new(&kvm()?)?;
    vm.create_irqchip()?;
    let (low, high) = (Arc::new(Memory::new(HOLE)?), Arc::new(Memory::new(RAM - HOLE_END)?));
    let size = (firmware.len() as u64).next_multiple_of(PAGE);
    let rom = Arc::new(Memory::new(size)?);
    rom.write(0, firmware);
    let last = firmware.len().saturating_sub(LOW_FIRMWARE as usize);
    high.write(MIB - LOW_FIRMWARE - HOLE_END, &firmware[last..]);
    vm.map(GuestAddress(0), &low)?;
    vm.map(GuestAddress(HOLE_END), &high)?;
    vm.map_read_only(GuestAddress(4 * GIB - size), &rom)?;
    for range in [IoRange::of::<0, { RAM - 1 }>()].into_iter().chain(INTERRUPT_CONTROLLERS) {
        manager.reserve(IoType::Mmio, Placement::Fixed(range))?;
    }
    Ok((Arc::new(vm), low))
}

/// The first addresses of a bridge's windows, as its registers say (PCI-to-PCI Bridge Architecture 1.2, 3.2.5.6 to 3.2.5.10).
fn windows(bridge: &Function<'_>) -> [u64; 3] {
    let [ports, memory, prefetchable] = [0x1c, 0x20, 0x24].map(|register| u64::from(bridge.register(register)));
    let above = u64::from(bridge.register(0x28)) << 32;
    [(ports & 0xf0) << 8, (memory & 0xfff0) << 16, above | (prefetchable & 0xfff0) << 16]
}

/// Whether the range is decoded at `base`, which the firmware has put there, and an access finds it up to its end.
fn check(manager: &DeviceManager<'_>, id: InstanceId, index: usize, base: u64) -> Result<(), String> {
    let Some(Assigned { io_type, range, state }) = manager.range(id, index) else {
        return Err(format!("{id} has no range {index}"));
    };
    if base == 0 || state != RangeState::Decoded || range.first().0 != base {
        return Err(format!("{id}: range {index} is {state} at {range}, and its register says {base:#x}"));
    }
    let found = manager.find_by_address(range.last(), io_type);
    if found != Some((id, index)) {
        return Err(format!("{id}: at the end of range {index}, at {range}, an access finds {found:?}"));
    }
    Ok(())
}

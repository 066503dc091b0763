//! The main job: a whole platform in `static`s, as in firmware, and a guest that uses all of it.

use std::fmt::{self, Write};

use kvm_ioctls::Kvm;
use vm_device::{Gsi, GuestAddress, GuestUsize, IoRange, IoResource, IoType, IrqResource, Owner, SystemAllocator};

use crate::devices::counted::{Count, Counted};
use crate::devices::interrupter::{ASSERT, Interrupter};
use crate::devices::pci::{CONFIG_ADDRESS, DummyHostBridge};
use crate::devices::scratch::Scratch;
use crate::devices::serial::Serial;
use crate::devices::verdict::Verdict;
use crate::guest::interrupts::{Trigger, enable, route, wait_for};
use crate::guest::serial::{print, print_hex};
use crate::guest::{mmio, pass, port};
use crate::irq::KvmIrqchip;
use crate::machine::{DATA, Machine};
use crate::memory::{Memory, PAGE};
use crate::run::{RunError, Tally, run};
use crate::scenarios::{Failure, LIMIT};
use crate::vcpu::Ring;
use crate::{Manager, check, interrupt_handler};

/// What the host bridge passes on to its bus: the devices' memory.
const WINDOW: u64 = 0xd000_0000;
const WINDOW_SIZE: u64 = 0x1000_0000;
/// The local APIC and the IOAPIC, which KVM answers itself, and what lies between and after them.
const INTERRUPT_CONTROLLERS: u64 = 0xfec0_0000;
const ABOVE_RAM: IoRange = match IoRange::new(GuestAddress(WINDOW), GuestAddress(u64::MAX)) {
    Ok(range) => range,
    Err(_) => IoRange::ALL_MEMORY,
};

static IRQCHIP: KvmIrqchip = KvmIrqchip::new();
static MANAGER: Manager<'static> =
    Manager::new(SystemAllocator::new(ABOVE_RAM).with_ports(IoRange::ALL_PORTS).with_irqs(16, 23))
        .with_interrupt_controller(&IRQCHIP);

static BRIDGE: Counted<DummyHostBridge> = Counted::new(DummyHostBridge::new());
static SERIAL: Counted<Serial> = Counted::new(Serial::new());
static SCRATCH: Counted<Scratch<256>> = Counted::new(Scratch::new("scratch"));
static VIDEO: Counted<Scratch<0>> = Counted::new(Scratch::new("video"));
static NETWORK: Counted<Interrupter<'static>> = Counted::new(Interrupter::new("network"));
static DISK: Counted<Interrupter<'static>> = Counted::new(Interrupter::new("disk"));
static VERDICT: Counted<Verdict> = Counted::new(Verdict::new());

const COUNTED: [&(dyn Count + 'static); 7] = [&BRIDGE, &SERIAL, &SCRATCH, &VIDEO, &NETWORK, &DISK, &VERDICT];

const NETWORK_PORT: u16 = 0xc000;
const DISK_PORT: u16 = 0xc010;
const SHARED_LINE: Gsi = Gsi(20);
const VECTOR: u8 = 0x50;

/// In the guest's memory: where the two ranges are that may lie anywhere, which the VMM tells, and what the handler counts.
const SCRATCH_BASE: u64 = DATA;
const VIDEO_BASE: u64 = DATA + 8;
const INTERRUPTS: u64 = DATA + 16;
const VIDEO_SIZE: u64 = 4 * PAGE;

interrupt_handler!(
    /// Lets each device that asserts the line take its assertion back, and counts these.
    quiet:
    "mov dx, {network}",
    "in al, dx",
    "test al, al",
    "jz 2f",
    "xor eax, eax",
    "out dx, al",
    "inc qword ptr [{count}]",
    "2:",
    "mov dx, {disk}",
    "in al, dx",
    "test al, al",
    "jz 3f",
    "xor eax, eax",
    "out dx, al",
    "inc qword ptr [{count}]",
    "3:";
    count = const INTERRUPTS, network = const NETWORK_PORT, disk = const DISK_PORT
);

extern "C" fn guest(_: u64) {
    print(b"hello from ring 3\n");

    port::write(CONFIG_ADDRESS, 0x8000_0000u32);
    check!(port::read::<u32>(CONFIG_ADDRESS), 0x8000_0000u32);
    print(b"host bridge: config_address ");
    print_hex(port::read::<u32>(CONFIG_ADDRESS).into());

    let scratch = mmio::read::<u64>(SCRATCH_BASE);
    print(b"\nscratch at ");
    print_hex(scratch);
    for word in 0..32 {
        mmio::write(scratch + 8 * word, word * word);
    }
    for word in 0..32 {
        check!(mmio::read::<u64>(scratch + 8 * word), word * word);
    }
    print(b": 32 words written and read\nbehind it, on the bus: ");
    let nobody = mmio::read::<u32>(WINDOW + WINDOW_SIZE - 4);
    check!(nobody, u32::MAX);
    print_hex(nobody.into());
    print(b", and where there is no bus: ");
    let nowhere = mmio::read::<u32>(WINDOW + WINDOW_SIZE);
    check!(nowhere, u32::MAX);
    print_hex(nowhere.into());

    let video = mmio::read::<u64>(VIDEO_BASE);
    print(b"\nvideo memory at ");
    print_hex(video);
    for word in 0..VIDEO_SIZE / 8 {
        mmio::write(video + 8 * word, !word);
    }
    check!(mmio::read::<u64>(video + VIDEO_SIZE - 8), !(VIDEO_SIZE / 8 - 1));
    print(b": filled without an exit\n");

    enable();
    route(SHARED_LINE.0, VECTOR, Trigger::Level);
    port::write(NETWORK_PORT, ASSERT);
    check!(wait_for(INTERRUPTS, 1), true);
    port::write(DISK_PORT, ASSERT);
    check!(wait_for(INTERRUPTS, 2), true);
    print(b"interrupts on the shared line: ");
    print_hex(mmio::read::<u64>(INTERRUPTS));
    check!(mmio::read::<u64>(INTERRUPTS), 2u64);
    print(b"\npassed\n");
    pass()
}

/// What is to be told about a run.
pub struct Report {
    /// Whether the guest passed, and what the run counted.
    pub result: Result<Tally, RunError>,
    backed_end: u64,
}

/// Registers everything, and runs the guest. Since all of it is `static`, that works once in a process.
///
/// # Errors
/// The platform could not be built, or what a device saw is not what the guest says it did.
pub fn build_and_run(kvm: &Kvm) -> Result<Report, Failure> {
    let machine = Machine::with_irqchip(kvm)?;
    IRQCHIP.connect(machine.vm());
    MANAGER.reserve(
        IoType::Mmio,
        IoRange::with_size(GuestAddress(INTERRUPT_CONTROLLERS), GuestUsize((4 << 30) - INTERRUPT_CONTROLLERS))?,
    )?;

    let window = IoResource::mmio(WINDOW, WINDOW_SIZE).window();
    let bridge =
        MANAGER.register_device(&BRIDGE, None, &[IoResource::pio(CONFIG_ADDRESS, 8), window], IrqResource::None)?;
    let on_bus = |device, resource, irq| MANAGER.register_device(device, Some(bridge), &[resource], irq);
    on_bus(&SERIAL, Serial::resource(), IrqResource::Any)?;
    let anywhere = |io_type, size| IoResource::any(io_type, GuestUsize(size)).aligned(PAGE);
    let scratch = on_bus(&SCRATCH, anywhere(IoType::Mmio, 256), IrqResource::None)?;
    let video = on_bus(&VIDEO, anywhere(IoType::PhysicalMmio, VIDEO_SIZE), IrqResource::None)?;
    on_bus(&NETWORK, IoResource::pio(NETWORK_PORT, 8), IrqResource::Shared(SHARED_LINE))?;
    on_bus(&DISK, IoResource::pio(DISK_PORT, 8), IrqResource::Shared(SHARED_LINE))?;
    MANAGER.register_device(&VERDICT, None, &[Verdict::resource()], IrqResource::None)?;

    let backed = machine.vm().back(MANAGER.address_map(IoType::Mmio))?;
    for (place, id) in [(SCRATCH_BASE, scratch), (VIDEO_BASE, video)] {
        let base = MANAGER.range(id, 0).map_or(0, |assigned| assigned.range.first().0);
        machine.ram().write_u64(place, base);
    }
    machine.set_interrupt_gate(VECTOR, quiet as *const () as u64);
    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let result = run(&mut vcpu, &mut MANAGER.dispatcher()?, VERDICT.device(), LIMIT);
    let end = |memory: &Memory| memory.read_u64(memory.length() - 8);
    Ok(Report { result, backed_end: backed.first().map_or(0, |(_, memory)| end(memory)) })
}

impl Report {
    /// Whether the guest passed, and its devices agree with it.
    pub fn passed(&self) -> bool {
        self.result.is_ok()
            && SERIAL.device().output().ends_with("passed\n")
            && self.backed_end == !(VIDEO_SIZE / 8 - 1)
            && VIDEO.counts().reads + VIDEO.counts().writes == 0
            && SCRATCH.counts().writes == 32
            && SCRATCH.counts().reads == 32
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Topology")?;
        for info in MANAGER.walk() {
            write!(f, "  {:indent$}{} ({})", "", info.name, info.id, indent = 2 * info.depth)?;
            if let Some(gsi) = info.gsi {
                write!(f, ", {gsi}")?;
            }
            writeln!(f)?;
        }
        for (title, io_type) in [("Ports", IoType::Pio), ("Memory", IoType::Mmio)] {
            writeln!(f, "\n{title}")?;
            for entry in MANAGER.address_map(io_type) {
                let owner = match entry.owner {
                    Owner::Device { name, .. } => name,
                    Owner::Vmm => "reserved",
                };
                let kind = match (entry.window, entry.assigned.io_type) {
                    (true, _) => " (window)",
                    (_, IoType::PhysicalMmio) => " (backed by memory)",
                    _ => "",
                };
                let range = entry.assigned.range;
                let addresses = format!("{:#x} - {:#x}", range.first().0, range.last().0);
                writeln!(f, "  {:indent$}{addresses:<36}{owner}{kind}", "", indent = 2 * entry.depth)?;
            }
        }
        writeln!(f, "\nSerial port")?;
        for line in SERIAL.device().output().lines() {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "\nExits\n  {:<12}{:>8}{:>8}{:>8}{:>14}", "device", "reads", "writes", "bytes", "time")?;
        for counted in COUNTED {
            let counts = counted.counts();
            let time = format!("{:.1?}", counts.time);
            let name = counted.counted_name();
            writeln!(f, "  {name:<12}{:>8}{:>8}{:>8}{time:>14}", counts.reads, counts.writes, counts.bytes)?;
        }
        if let Ok(tally) = &self.result {
            for (what, count) in
                [("unclaimed", tally.unclaimed), ("straddling", tally.straddling), ("refused", tally.refused)]
            {
                writeln!(f, "  {what:<12}{count:>8}")?;
            }
            writeln!(f, "  {:<12}{:>8} in {:.1?}", "all", tally.exits, tally.elapsed)?;
        }
        f.write_char('\n')?;
        match &self.result {
            Ok(_) if self.passed() => write!(f, "The guest passed."),
            Ok(_) => write!(f, "The guest says that it passed, but its devices saw something else."),
            Err(error) => write!(f, "{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_device::Device as _;

    #[test]
    fn every_device_is_counted_under_its_own_name() {
        let mut names = COUNTED.map(|counted| counted.counted_name()).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNTED.len());
        assert_eq!(BRIDGE.name(), "pci");
    }
}

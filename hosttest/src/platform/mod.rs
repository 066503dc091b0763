//! The main job: a whole platform in `static`s, as in firmware, and a guest that uses all of it. Where no guest can run, this
//! program makes the guest's accesses itself.

mod in_process;
mod layout;
mod lines;
mod program;

use std::fmt::{self, Write};
use std::io;

use kvm_ioctls::Kvm;
use vm_device::devices::time::HandClock;
use vm_device::devices::uart::Uart16550;
use vm_device::{
    DeviceManager, Gsi, GuestUsize, InstanceId, IoRange, IoResource, IoType, IrqResource, Storage, SystemAllocator,
};

use in_process::InProcess;
use layout::{DISK_PORT, INTERRUPTS, NETWORK_PORT, SCRATCH_BASE, VIDEO_BASE, VIDEO_SIZE, WINDOW, WINDOW_SIZE};
use lines::Lines;
use program::{Accessor, Word, program};

use crate::boot::capture::Capture;
use crate::devices::interrupter::Interrupter;
use crate::devices::pci::{CONFIG_ADDRESS, DummyHostBridge};
use crate::devices::scratch::Scratch;
use crate::devices::verdict::Verdict;
use crate::guest_side::interrupts::{Trigger, enable, route, wait_for};
use crate::guest_side::serial::COM1;
use crate::guest_side::{mmio, port};
use crate::guests::scenario::{Failure, LIMIT};
use crate::guests::verdict::{NotPassed, run_to_verdict};
use crate::interrupt_handler;
use crate::vmm::backing::{Backed, Backing};
use crate::vmm::counters::{Counters, Counts};
use crate::vmm::host::Unavailable;
use crate::vmm::machine::{Machine, RAM};
use crate::vmm::memory::{Memory, PAGE};
use crate::vmm::run::Tally;
use crate::vmm::vcpu::Ring;

/// The local APIC and the IOAPIC, which KVM answers itself, and what lies between and after them.
const INTERRUPT_CONTROLLERS: IoRange = IoRange::of::<0xfec0_0000, 0xffff_ffff>();
const ABOVE_RAM: IoRange = IoRange::of::<WINDOW, { u64::MAX }>();

static LINES: Lines = Lines::new();
static STORAGE: Storage<'static, 16, 32, 4> = Storage::new();
static MANAGER: DeviceManager<'static> =
    DeviceManager::new(&STORAGE, SystemAllocator::new(ABOVE_RAM).with_ports(IoRange::ALL_PORTS).with_irqs(16, 23))
        .with_interrupt_controller(&LINES)
        .with_listener(&BACKING)
        .with_observer(&COUNTERS);
static COUNTERS: Counters = Counters::new();
static BACKING: Backing = Backing::new();

static BRIDGE: DummyHostBridge = DummyHostBridge::new();
static CONSOLE: Capture = Capture::new();
/// Nothing is received, so that no time passes for it.
static SERIAL: Uart16550<'static, &Capture, HandClock> = Uart16550::new("serial", &CONSOLE, HandClock::new());
static SCRATCH: Scratch<256> = Scratch::new("scratch");
static VIDEO: Scratch<0> = Scratch::new("video");
static NETWORK: Interrupter<'static> = Interrupter::new("network");
static DISK: Interrupter<'static> = Interrupter::new("disk");
static VERDICT: Verdict = Verdict::new();

const SHARED_LINE: Gsi = Gsi(20);
const VECTOR: u8 = 0x50;

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

/// The guest's own processor: each access is an instruction.
struct Processor;

impl Accessor for Processor {
    const GREETING: &'static [u8] = b"hello from ring 3\n";

    #[inline(always)]
    fn port_read<T: Word + port::Width>(&mut self, port: u16) -> T {
        port::read(port)
    }

    #[inline(always)]
    fn port_write<T: Word + port::Width>(&mut self, port: u16, value: T) {
        port::write(port, value);
    }

    #[inline(always)]
    fn read<T: Word + mmio::Width>(&mut self, address: u64) -> T {
        mmio::read(address)
    }

    #[inline(always)]
    fn write<T: Word + mmio::Width>(&mut self, address: u64, value: T) {
        mmio::write(address, value);
    }

    #[inline(always)]
    fn enable_interrupts(&mut self) {
        enable();
        route(SHARED_LINE.0, VECTOR, Trigger::Level);
    }

    #[inline(always)]
    fn wait_for_interrupts(&mut self, count: u64) -> bool {
        wait_for(INTERRUPTS, count)
    }
}

extern "C" fn guest(_: u64) {
    program(&mut Processor);
    // The host does not run the guest again.
    loop {
        core::hint::spin_loop();
    }
}

/// What is to be told about a run.
pub struct Report {
    /// Whether the guest passed, and what the run counted.
    pub result: Result<Tally, NotPassed>,
    backed_end: u64,
    /// Why no guest ran, if none did.
    no_guest: Option<Unavailable>,
}

/// The devices at addresses that the allocator chose, which the guest is told.
struct Anywhere {
    scratch: InstanceId,
    video: InstanceId,
}

/// Registers everything.
fn build() -> Result<Anywhere, Failure> {
    MANAGER.reserve(IoType::Mmio, INTERRUPT_CONTROLLERS)?;

    let window = IoResource::mmio(WINDOW, WINDOW_SIZE).window();
    let bridge = MANAGER.register_device(&BRIDGE, None, &[IoResource::pio(CONFIG_ADDRESS, 8), window], &[])?;
    let on_bus = |device, resource, irqs| MANAGER.register_device(device, Some(bridge), &[resource], irqs);
    on_bus(&SERIAL, SERIAL.ports(COM1), &[IrqResource::Any])?;
    let anywhere = |io_type, size| IoResource::any(io_type, GuestUsize(size)).aligned(PAGE);
    let scratch = on_bus(&SCRATCH, anywhere(IoType::Mmio, 256), &[])?;
    let video = on_bus(&VIDEO, anywhere(IoType::PhysicalMmio, VIDEO_SIZE), &[])?;
    on_bus(&NETWORK, IoResource::pio(NETWORK_PORT, 8), &[IrqResource::Shared(SHARED_LINE)])?;
    on_bus(&DISK, IoResource::pio(DISK_PORT, 8), &[IrqResource::Shared(SHARED_LINE)])?;
    MANAGER.register_device(&VERDICT, None, &[Verdict::resource()], &[])?;
    Ok(Anywhere { scratch, video })
}

impl Anywhere {
    /// Puts the addresses into the guest's memory.
    fn tell(&self, ram: &Memory) {
        for (place, id) in [(SCRATCH_BASE, self.scratch), (VIDEO_BASE, self.video)] {
            let base = MANAGER.range(id, 0).map_or(0, |assigned| assigned.range.first().0);
            ram.write_u64(place, base);
        }
    }
}

/// The last word of the video memory.
fn end(backed: &[Backed]) -> u64 {
    backed.first().map_or(0, |Backed { memory, .. }| memory.read_u64(memory.length() - 8))
}

/// Registers everything, and runs the guest. Since all of it is `static`, that works once in a process.
///
/// # Errors
/// The platform could not be built, or what a device saw is not what the guest says it did.
pub fn build_and_run(kvm: &Kvm) -> Result<Report, Failure> {
    let machine = Machine::with_irqchip(kvm)?;
    LINES.connect(machine.vm());
    let anywhere = build()?;
    BACKING.connect(machine.vm())?;
    anywhere.tell(machine.ram());
    machine.set_interrupt_gate(VECTOR, quiet as *const () as u64);
    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let result = run_to_verdict(&mut vcpu, &mut MANAGER.dispatcher(0)?, &VERDICT, LIMIT);
    Ok(Report { result, backed_end: end(&BACKING.placed()), no_guest: None })
}

/// Registers everything, and makes the guest's accesses through a dispatcher, where no guest can run. Since all of it is
/// `static`, that works once in a process.
///
/// # Errors
/// As [`build_and_run`].
pub fn build_in_process(why: Unavailable) -> Result<Report, Failure> {
    let anywhere = build()?;
    let backed = BACKING.placed();
    let ram = Memory::new(RAM)?;
    anywhere.tell(&ram);
    let mut devices = MANAGER.dispatcher(0)?;
    let mut accesses = InProcess::new(&mut devices, &LINES, &ram, &backed);
    program(&mut accesses);
    let tally = accesses.tally();
    let verdict = VERDICT.given().ok_or_else(|| io::Error::other("the verdict did not reach its device"))?;
    let result = verdict.map(|()| tally).map_err(NotPassed::Failed);
    Ok(Report { result, backed_end: end(&backed), no_guest: Some(why) })
}

/// What was counted of the device with this path.
fn counts(path: &str) -> Counts {
    MANAGER.find_by_path(path).map(|id| COUNTERS.of(id)).unwrap_or_default()
}

impl Report {
    /// Whether the guest passed, and its devices agree with it.
    pub fn passed(&self) -> bool {
        self.result.is_ok()
            && CONSOLE.output().ends_with("passed\n")
            && self.backed_end == !(VIDEO_SIZE / 8 - 1)
            && matches!(counts("/pci/video"), Counts { reads: 0, writes: 0, .. })
            && matches!(counts("/pci/scratch"), Counts { reads: 32, writes: 32, .. })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.no_guest {
            writeln!(f, "No guest ran: {why}")?;
            writeln!(
                f,
                "  What follows is the same platform; its accesses were made in this process, without a guest.\n"
            )?;
        }
        write!(f, "{}", MANAGER.map())?;
        writeln!(f, "\nSerial port")?;
        for line in CONSOLE.output().lines() {
            writeln!(f, "  {line}")?;
        }
        let title = if self.no_guest.is_some() { "Accesses, none of them an exit" } else { "Exits" };
        writeln!(f, "\n{title}\n  {:<12}{:>8}{:>8}{:>8}{:>14}", "device", "reads", "writes", "bytes", "time")?;
        for info in MANAGER.walk() {
            let (name, counts) = (info.name, COUNTERS.of(info.id));
            let time = format!("{:.1?}", counts.time);
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
        match (&self.result, &self.no_guest) {
            (Ok(_), None) if self.passed() => write!(f, "The guest passed."),
            (Ok(_), None) => write!(f, "The guest says that it passed, but its devices saw something else."),
            (Err(error), None) => write!(f, "{error}"),
            (Ok(_), Some(_)) if self.passed() => write!(f, "No guest ran; its accesses, made in this process, passed."),
            (Ok(_), Some(_)) => {
                write!(f, "No guest ran; its accesses were made in this process, and a device missed some.")
            }
            (Err(NotPassed::Failed(finding)), Some(_)) => {
                write!(f, "No guest ran; its accesses were made in this process, and failed: {finding}")
            }
            (Err(error), Some(_)) => write!(f, "No guest ran: {error}"),
        }
    }
}

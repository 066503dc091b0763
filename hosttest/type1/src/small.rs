//! The machine of the small [`guest`], and the verdict over it.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

use spin::Mutex;
use vm_device::{AccessSizes, GuestUsize, IoResource, IoType, IrqLine, IrqResource, MappedRange, PortPassthrough, RegisterError};

use crate::counts::Counts;
use crate::devices::{Bell, Bus, Eject, Fifo, FrameBuffer, Post, Ring, Scratch};
use crate::exits::{Machine, Stop};
use crate::interrupts::Routing;
use crate::memory::GuestMemory;
use crate::nested::{MapError, Mappings};
use crate::svm::Vcpu;
use crate::uart::Uart;
use crate::{LINES, MANAGER, guest, println, serial, topology};

static ISA: Bus = Bus("isa");
static MEMORY_BUS: Bus = Bus("memory");
static UART: Uart<'static> = Uart::new();
// SAFETY: the image runs at CPL 0, and the UART touches no memory. The hypervisor writes to it too, and relies on nothing
// but that each character goes out.
static REAL_UART: PortPassthrough<'static> = unsafe { PortPassthrough::new("real uart", serial::COM1) };
static POST: Post = Post(AtomicU8::new(0));
static FIFO: Fifo = Fifo(Mutex::new(Ring::EMPTY));
static BELL: Bell<'static> = Bell(Mutex::new(IrqLine::DISCONNECTED));
static SCRATCH: Scratch = Scratch(Mutex::new([0; 256]));
static FRAME_BUFFER: FrameBuffer = FrameBuffer;
static EJECT: Eject = Eject { paths: ["/isa/scratch", "/memory/frame buffer"] };

fn register_devices() -> Result<(), RegisterError<'static>> {
    const NO_IRQ: IrqResource = IrqResource::None;
    let bytes = AccessSizes::BYTE | AccessSizes::SPLIT;
    // The bus answers at every port that no device on it claims.
    let isa = MANAGER.register_device(&ISA, None, &[IoResource::pio(0, 0x1_0000).window()], NO_IRQ)?;
    let on_isa = |device, ranges: &[IoResource], irq| MANAGER.register_device(device, Some(isa), ranges, irq);
    on_isa(&POST, &[IoResource::pio(guest::POST_PORT, 1)], NO_IRQ)?;
    on_isa(&REAL_UART, &[IoResource::pio(guest::REAL_UART_PORT, 8).sizes(PortPassthrough::SIZES)], NO_IRQ)?;
    on_isa(&UART, &[IoResource::pio(guest::UART_PORT, 8).sizes(bytes)], NO_IRQ)?;
    let scratch = [
        IoResource::pio(guest::SCRATCH_PORT, 16),
        IoResource::mmio(guest::SCRATCH_LOW, 0x100),
        IoResource::mmio(guest::SCRATCH_HIGH, 0x100),
    ];
    on_isa(&SCRATCH, &scratch, NO_IRQ)?;
    on_isa(&FIFO, &[IoResource::pio(guest::FIFO_PORT, 4)], NO_IRQ)?;
    on_isa(&BELL, &[IoResource::pio(guest::BELL_PORT, 1)], IrqResource::Fixed(guest::BELL_LINE))?;
    on_isa(&EJECT, &[IoResource::pio(guest::EJECT_PORT, 1)], NO_IRQ)?;

    let memory = MANAGER.register_device(&MEMORY_BUS, None, &[], NO_IRQ)?;
    let pages = IoResource::fixed(IoType::PhysicalMmio, guest::FRAME_BUFFER.into(), GuestUsize(0x1000));
    MANAGER.register_device(&FRAME_BUFFER, Some(memory), &[pages], NO_IRQ)?;
    Ok(())
}

/// Where a physically backed range lies in the machine's memory.
pub fn host_memory(_: &MappedRange<'_>) -> u64 {
    FrameBuffer::memory()
}

/// Runs the guest and judges what it did.
///
/// # Errors
/// The first thing that was not as it should be.
pub fn run(vcpu: &'static mut Vcpu, mappings: &'static mut Mappings) -> Result<(), Failure> {
    register_devices()?;
    LINES.route(Routing::From(guest::VECTOR_BASE));
    println!("topology:");
    topology::print();

    let memory = GuestMemory { end: 2 << 20 };
    mappings.map_all(memory)?;
    let vcpu = vcpu.enable(mappings.root())?;
    memory.write(guest::ENTRY.into(), guest::image()).ok_or("the guest does not fit its memory")?;
    vcpu.start_in_real_mode(guest::ENTRY);
    let devices = MANAGER.dispatcher().map_err(|_| "no dispatcher")?;
    let mut machine = Machine { vcpu, memory, mappings, devices, counts: Counts::new() };
    let ended = machine.run();
    println!("topology after hot removal:");
    topology::print();
    machine.counts.print();

    ended?;
    let post = POST.0.load(Ordering::Relaxed);
    if post != guest::DONE {
        return Err(Failure::Check(post));
    }
    let held = |condition: bool, what| if condition { Ok(()) } else { Err(Failure::Told(what)) };
    held(UART.transcript().as_bytes() == guest::TEXT.as_bytes(), "the UART did not send what the guest wrote")?;
    held(FrameBuffer::is_filled(), "the frame buffer is not what the guest drew")?;
    held(EJECT.paths.iter().all(|path| MANAGER.find_by_path(path).is_none()), "a removed device is still there")?;
    held(machine.counts.of("frame buffer") == 0, "an access to the frame buffer exited")?;
    Ok(())
}

/// What was not as it should be.
pub enum Failure {
    /// The guest's check with this number.
    Check(u8),
    /// Something else.
    Told(&'static str),
    /// A device could not be registered.
    Register(RegisterError<'static>),
    /// Memory could not be mapped.
    Map(MapError),
    /// The guest could not go on.
    Stop(Stop),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Check(post) => write!(f, "check {post:#04x} of the guest"),
            Failure::Told(what) => f.write_str(what),
            Failure::Register(error) => error.fmt(f),
            Failure::Map(error) => error.fmt(f),
            Failure::Stop(stop) => stop.fmt(f),
        }
    }
}

impl From<&'static str> for Failure {
    fn from(what: &'static str) -> Self {
        Failure::Told(what)
    }
}

impl From<RegisterError<'static>> for Failure {
    fn from(error: RegisterError<'static>) -> Self {
        Failure::Register(error)
    }
}

impl From<MapError> for Failure {
    fn from(error: MapError) -> Self {
        Failure::Map(error)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Failure::Stop(stop)
    }
}

//! The machine of the small [`guest`], and the verdict over it.

use spin::Mutex;
use vm_device::devices::post::PostPort;
use vm_device::{GuestUsize, IoResource, IoType, IrqLine, IrqResource, PortPassthrough, RegisterError};

use crate::counts::COUNTS;
use crate::devices::{Bell, Eject, FRAME_BUFFER, Fifo, Ring, Scratch, Silent, frame_is_filled};
use crate::failure::Failure;
use crate::interrupts::Routing;
use crate::manager::{LINES, MANAGER};
use crate::memory::GuestMemory;
use crate::wire::{TimeStampCounter, Uart, Wire};
use crate::{guest, serial};

static ISA: Silent = Silent("isa");
static MEMORY_BUS: Silent = Silent("memory");
static WIRE: Wire = Wire::new();
static UART: Uart = Uart::new("uart", &WIRE, TimeStampCounter);
// SAFETY: the image runs at CPL 0, and the UART touches no memory. The hypervisor writes to it too, and relies on nothing
// but that each character goes out.
static REAL_UART: PortPassthrough<'static> = unsafe { PortPassthrough::new("real uart", serial::COM1) };
static POST: PostPort = PostPort::new();
static FIFO: Fifo = Fifo(Mutex::new(Ring::EMPTY));
static BELL: Bell<'static> = Bell(Mutex::new(IrqLine::DISCONNECTED));
static SCRATCH: Scratch = Scratch(Mutex::new([0; 256]));
static EJECT: Eject = Eject { paths: ["/isa/scratch", "/memory/frame buffer"] };

fn register_devices() -> Result<(), RegisterError<&'static str>> {
    const NO_IRQ: &[IrqResource] = &[];
    // The bus answers at every port that no device on it claims.
    let isa = MANAGER.register_device(&ISA, None, &[IoResource::pio(0, 0x1_0000).window()], NO_IRQ)?;
    let on_isa = |device, ranges: &[IoResource], irqs| MANAGER.register_device(device, Some(isa), ranges, irqs);
    on_isa(&POST, &[POST.port()], NO_IRQ)?;
    on_isa(&REAL_UART, &[IoResource::pio(guest::REAL_UART_PORT, 8).sizes(PortPassthrough::SIZES)], NO_IRQ)?;
    on_isa(&UART, &[UART.ports(guest::UART_PORT)], NO_IRQ)?;
    let scratch = [
        IoResource::pio(guest::SCRATCH_PORT, 16),
        IoResource::mmio(guest::SCRATCH_LOW, 0x100),
        IoResource::mmio(guest::SCRATCH_HIGH, 0x100),
    ];
    on_isa(&SCRATCH, &scratch, NO_IRQ)?;
    on_isa(&FIFO, &[IoResource::pio(guest::FIFO_PORT, 4)], NO_IRQ)?;
    on_isa(&BELL, &[IoResource::pio(guest::BELL_PORT, 1)], &[IrqResource::Fixed(guest::BELL_LINE)])?;
    on_isa(&EJECT, &[IoResource::pio(guest::EJECT_PORT, 1)], NO_IRQ)?;

    let memory = MANAGER.register_device(&MEMORY_BUS, None, &[], NO_IRQ)?;
    let pages = IoResource::fixed(IoType::PhysicalMmio, guest::FRAME_BUFFER.into(), GuestUsize(0x1000));
    MANAGER.register_device(&FRAME_BUFFER, Some(memory), &[pages], NO_IRQ)?;
    Ok(())
}

/// Registers the devices and puts the guest into its memory.
///
/// # Errors
/// A device could not be registered.
pub fn load() -> Result<GuestMemory, Failure> {
    register_devices()?;
    LINES.route(Routing::From(guest::VECTOR_BASE));
    let memory = GuestMemory { end: 2 << 20 };
    memory.write(guest::ENTRY.into(), guest::image()).ok_or("the guest does not fit its memory")?;
    Ok(memory)
}

/// Judges what the guest did.
///
/// # Errors
/// The first thing that was not as it should be.
pub fn judge() -> Result<(), Failure> {
    let post = POST.last_code();
    if post != guest::DONE {
        return Err(Failure::Check(post));
    }
    let held = |condition: bool, what| if condition { Ok(()) } else { Err(Failure::Told(what)) };
    held(WIRE.transcript().as_bytes() == guest::TEXT.as_bytes(), "the UART did not send what the guest wrote")?;
    held(frame_is_filled(), "the frame buffer is not what the guest drew")?;
    held(EJECT.paths.iter().all(|path| MANAGER.find_by_path(path).is_err()), "a removed device is still there")?;
    held(COUNTS.of(FRAME_BUFFER.0) == 0, "an access to the frame buffer exited")
}

//! The guests: which one runs, and the machine of the small one.

use spin::Mutex;
use vm_device::devices::uart::Uart16550;
use vm_device::{GuestUsize, IoResource, IoType, IrqResource, PortPassthrough, RegisterError};

use super::boot::Loaded;
use super::fifo::{Fifo, Ring};
use super::host::{self, HostClock};
use super::interrupts::{Routing, route};
use super::{linux, program};
use crate::devices::FRAME_BUFFER;
use crate::failure::Failure;
use crate::machine::Guest;
use crate::manager::MANAGER;
use crate::memory::GuestMemory;
use crate::processor::vcpu::Vcpu;
use crate::small::{self, BELL, BUS, EJECT, POST, SCRATCH, WIRE};
use crate::wire::Wire;

pub use super::program::TEXT;

/// A serial port of the guest, whose line is the machine's own serial port.
pub type Uart = Uart16550<'static, &'static Wire, HostClock>;

static UART: Uart = Uart::new("uart", &WIRE, HostClock);
// SAFETY: the image runs at CPL 0, and the UART touches no memory. The hypervisor writes to it too, and the program
// of the small guest, which alone has it, leaves it so that each character goes out.
static REAL_UART: PortPassthrough<'static> = unsafe { PortPassthrough::new("real uart", host::COM1) };
static FIFO: Fifo = Fifo(Mutex::new(Ring::EMPTY));

/// Where the guest's memory lies in the machine's: below it is the hypervisor.
const GUEST_MEMORY: u64 = 64 << 20;
/// The part of the first MiB that is no memory: windows of adapters, and firmware.
const HOLE: core::ops::Range<u64> = 0xa_0000..0x10_0000;

/// The guest's memory up to `end`, but for the hole below 1 MiB.
pub fn memory(end: u64) -> GuestMemory {
    // SAFETY: the image ends below, which its linker script sees to, and QEMU has that much memory.
    unsafe { GuestMemory::new([0..HOLE.start, HOLE.end..end], GUEST_MEMORY) }
}

/// Loads the guest that the command line asks for: without one, the small guest.
///
/// # Errors
/// A device could not be registered, or there is no guest.
pub fn load(loaded: Loaded, vcpu: &mut Vcpu) -> Result<Guest, Failure> {
    let info = loaded.ok_or("not started by a PVH loader")?;
    if !info.command_line().is_empty() {
        return linux::load(info, vcpu);
    }
    register_devices()?;
    route(Routing::From(program::VECTOR_BASE));
    let memory = memory(2 << 20);
    small::write_image(memory, program::ENTRY.into()).ok_or("the guest does not fit its memory")?;
    vcpu.start_in_real_mode(program::ENTRY);
    Ok(Guest { memory, judge: small::judge })
}

fn register_devices() -> Result<(), RegisterError<&'static str>> {
    const NO_IRQ: &[IrqResource] = &[];
    // The bus answers at every port that no device on it claims.
    let bus = MANAGER.register_device(&BUS, None, &[IoResource::pio(0, 0x1_0000).window()], NO_IRQ)?;
    let on_bus = |device, ranges: &[IoResource], irqs| MANAGER.register_device(device, Some(bus), ranges, irqs);
    on_bus(&POST, &[POST.port()], NO_IRQ)?;
    on_bus(&REAL_UART, &[IoResource::pio(program::REAL_UART_PORT, 8).sizes(PortPassthrough::SIZES)], NO_IRQ)?;
    on_bus(&UART, &[UART.ports(program::UART_PORT)], NO_IRQ)?;
    let scratch = [
        IoResource::pio(program::SCRATCH_PORT, 16),
        IoResource::mmio(program::SCRATCH_LOW, 0x100),
        IoResource::mmio(program::SCRATCH_HIGH, 0x100),
    ];
    on_bus(&SCRATCH, &scratch, NO_IRQ)?;
    on_bus(&FIFO, &[IoResource::pio(program::FIFO_PORT, 4)], NO_IRQ)?;
    on_bus(&BELL, &[IoResource::pio(program::BELL_PORT, 1)], &[IrqResource::Fixed(program::BELL_LINE)])?;
    on_bus(&EJECT, &[IoResource::pio(program::EJECT_PORT, 1)], NO_IRQ)?;
    let frame = IoResource::fixed(IoType::PhysicalMmio, program::FRAME_BUFFER.into(), GuestUsize(0x1000));
    on_bus(&FRAME_BUFFER, &[frame], NO_IRQ)?;
    Ok(())
}

//! The guests: which one runs, and the machine of the small one.

use core::sync::atomic::Ordering;

use vm_device::devices::uart::Uart16550;
use vm_device::{GuestUsize, IoResource, IoType, IrqResource, RegisterError};

use super::boot::Loaded;
use super::exits::INSTRUCTIONS;
use super::host::HostClock;
use super::vcpu::Vcpu;
use super::{linux, program};
use crate::devices::FRAME_BUFFER;
use crate::failure::Failure;
use crate::machine::Guest;
use crate::manager::MANAGER;
use crate::memory::GuestMemory;
use crate::println;
use crate::small::{self, BELL, BUS, EJECT, POST, SCRATCH, WIRE};
use crate::wire::Wire;

pub use super::program::TEXT;

static UART: Uart16550<'static, &'static Wire, HostClock> = Uart16550::new("uart", &WIRE, HostClock);

/// Where the guest's memory lies in the machine's: below it is the hypervisor.
const GUEST_MEMORY: u64 = 0x8400_0000;
/// Where the guest finds it.
pub const MEMORY: u64 = program::MEMORY;

/// The guest's memory of `size` bytes.
pub fn memory(size: u64) -> GuestMemory {
    // SAFETY: the image ends below, which its linker script sees to, and QEMU has that much memory.
    unsafe { GuestMemory::new([MEMORY..MEMORY + size, 0..0], GUEST_MEMORY - MEMORY) }
}

/// Loads the guest that the command line asks for: without one, the small guest.
///
/// # Errors
/// A device could not be registered, or there is no guest.
pub fn load(loaded: Loaded, vcpu: &mut Vcpu) -> Result<Guest, Failure> {
    const SIZE: u64 = 2 << 20;
    if !loaded.command_line.is_empty() {
        return linux::load(loaded, vcpu);
    }
    register_devices()?;
    let memory = memory(SIZE);
    small::write_image(memory, MEMORY).ok_or("the guest does not fit its memory")?;
    vcpu.start_at(MEMORY, [0, 0]);
    Ok(Guest { memory, judge })
}

/// Judges what the guest did, and tells by which ways its instructions were known: not every processor tells them (QEMU 7.2 does not).
fn judge() -> Result<(), Failure> {
    let (told, decoded) = (INSTRUCTIONS.told.load(Ordering::Relaxed), INSTRUCTIONS.decoded.load(Ordering::Relaxed));
    println!("instructions: {told} told by htinst, {decoded} fetched and decoded");
    small::judge()
}

fn register_devices() -> Result<(), RegisterError<&'static str>> {
    const NO_IRQ: &[IrqResource] = &[];
    let bus = MANAGER.register_device(&BUS, None, &[], NO_IRQ)?;
    let on_bus = |device, ranges: &[IoResource], irqs| MANAGER.register_device(device, Some(bus), ranges, irqs);
    on_bus(&UART, &[UART.mmio(program::UART)], NO_IRQ)?;
    on_bus(&POST, &[IoResource::mmio(program::POST, 1)], NO_IRQ)?;
    on_bus(&BELL, &[IoResource::mmio(program::BELL, 1)], &[IrqResource::Fixed(program::BELL_LINE)])?;
    on_bus(&EJECT, &[IoResource::mmio(program::EJECT, 1)], NO_IRQ)?;
    on_bus(&SCRATCH, &[IoResource::mmio(program::SCRATCH, 0x1000)], NO_IRQ)?;
    let frame = IoResource::fixed(IoType::PhysicalMmio, program::FRAME_BUFFER.into(), GuestUsize(0x1000));
    on_bus(&FRAME_BUFFER, &[frame], NO_IRQ)?;
    Ok(())
}

//! The guests: which one runs, and the machine of the small one.

use core::arch::asm;

use vm_device::devices::pl011::Pl011;
use vm_device::{GuestUsize, IoResource, IoType, IrqResource, RegisterError};

use super::boot::Loaded;
use super::host::HostClock;
use super::vcpu::Vcpu;
use super::{linux, program, torture};
use crate::devices::FRAME_BUFFER;
use crate::failure::Failure;
use crate::machine::Guest;
use crate::manager::MANAGER;
use crate::memory::GuestMemory;
use crate::small::{self, BELL, BUS, EJECT, POST, SCRATCH, WIRE};
use crate::wire::Wire;

pub use super::program::TEXT;

static UART: Pl011<'static, &'static Wire, HostClock> = Pl011::new("uart", &WIRE, HostClock);

/// Where the guest's memory lies in the machine's: below it is the hypervisor.
const GUEST_MEMORY: u64 = 0x4400_0000;
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
    if let Some(arguments) = loaded.command_line.strip_prefix("torture ") {
        return torture::load(arguments, vcpu);
    }
    if !loaded.command_line.is_empty() {
        return linux::load(loaded, vcpu);
    }
    register_devices()?;
    let memory = write_image()?;
    vcpu.start_at(MEMORY, 0);
    Ok(Guest { memory, judge: small::judge })
}

/// Puts the programs of the small guest and of the torture into the guest's memory.
///
/// # Errors
/// They do not fit.
pub fn write_image() -> Result<GuestMemory, Failure> {
    const SIZE: u64 = 2 << 20;
    let memory = memory(SIZE);
    small::write_image(memory, MEMORY).ok_or("the guest does not fit its memory")?;
    clean(MEMORY, SIZE);
    Ok(memory)
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

/// Writes what the caches have of this part of the guest's memory to it: the guest begins without caches.
pub fn clean(address: u64, size: u64) {
    /// The smallest line of a cache.
    const LINE: usize = 16;
    let first = address - MEMORY + GUEST_MEMORY;
    for line in (first..first + size).step_by(LINE) {
        // SAFETY: the memory is there; what it holds does not change.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack)) };
    }
    // SAFETY: no instruction is cached that came from elsewhere.
    unsafe { asm!("dsb sy", "ic ialluis", "dsb sy", "isb", options(nostack)) };
}

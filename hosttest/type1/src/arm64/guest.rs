//! The small guest's machine.

use core::arch::asm;

use vm_device::devices::pl011::Pl011;
use vm_device::{GuestUsize, IoResource, IoType, IrqResource, RegisterError};

use super::boot::Loaded;
use super::host::HostClock;
use super::program;
use super::vcpu::Vcpu;
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
const SIZE: u64 = 2 << 20;

/// Loads the small guest.
///
/// # Errors
/// A device could not be registered.
pub fn load((): Loaded, vcpu: &mut Vcpu) -> Result<Guest, Failure> {
    register_devices()?;
    let (first, end) = (program::MEMORY, program::MEMORY + SIZE);
    // SAFETY: the image ends below, which its linker script sees to, and QEMU has that much memory.
    let memory = unsafe { GuestMemory::new([first..end, end..end], GUEST_MEMORY - first) };
    small::write_image(memory, first).ok_or("the guest does not fit its memory")?;
    clean(GUEST_MEMORY, SIZE);
    vcpu.start_at(first);
    Ok(Guest { memory, judge: small::judge })
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

/// Writes what the caches have of this memory to it: the guest begins without caches.
fn clean(address: u64, size: u64) {
    /// The smallest line of a cache.
    const LINE: usize = 16;
    for line in (address..address + size).step_by(LINE) {
        // SAFETY: the memory is there; what it holds does not change.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack)) };
    }
    // SAFETY: no instruction is cached that came from elsewhere.
    unsafe { asm!("dsb sy", "ic ialluis", "dsb sy", "isb", options(nostack)) };
}

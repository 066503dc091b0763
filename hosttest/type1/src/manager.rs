//! The manager of the guest's devices, and what stands beside it in `static`s.

use core::sync::atomic::AtomicBool;

use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};

use crate::counts::COUNTS;
use crate::interrupts::Lines;
#[cfg(target_arch = "aarch64")]
use crate::processor::barrier::HEAVY_BARRIER;

static STORAGE: Storage<'static, 24, 32, 2> = Storage::new();
/// The devices of the guest.
#[cfg(not(target_arch = "aarch64"))]
pub static MANAGER: DeviceManager<'static> = manager();
/// The devices of the guest. Two processors may access them: a removal interrupts the other, and an access has no fence.
#[cfg(target_arch = "aarch64")]
pub static MANAGER: DeviceManager<'static> = manager().with_asymmetric_fence(HEAVY_BARRIER);

const fn manager() -> DeviceManager<'static> {
    DeviceManager::new(
        &STORAGE,
        SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 63),
    )
    .with_interrupt_controller(&LINES)
    .with_observer(&COUNTS)
}

/// The interrupt lines of the guest.
pub static LINES: Lines = Lines::new();
/// Whether devices came or went since the guest's memory was mapped.
pub static TOPOLOGY_CHANGED: AtomicBool = AtomicBool::new(false);

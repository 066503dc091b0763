//! The manager of the guest's devices, and what stands beside it in `static`s.

use core::sync::atomic::AtomicBool;

use vm_device::{DeviceManager, Dispatcher, IoRange, SystemAllocator};

use crate::interrupts::Lines;

/// How many devices there is room for.
pub const MAX_DEVICES: usize = 24;
const MAX_RANGES: usize = 32;

type Manager = DeviceManager<'static, MAX_DEVICES, MAX_RANGES, 1>;
/// What answers the accesses of the virtual processor.
pub type Devices = Dispatcher<'static, MAX_DEVICES, MAX_RANGES, 1>;

/// The devices of the guest.
pub static MANAGER: Manager =
    DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 23))
        .with_interrupt_controller(&LINES);
/// The interrupt lines of the guest.
pub static LINES: Lines = Lines::new();
/// Whether devices came or went since the guest's memory was mapped.
pub static TOPOLOGY_CHANGED: AtomicBool = AtomicBool::new(false);

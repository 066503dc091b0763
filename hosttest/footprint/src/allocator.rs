//! What there is to give, and what a VMM takes for itself.

use vm_device::{DeviceManager, Fit, Gsi, GuestUsize, IoRange, IoType, Placement, SystemAllocator};

use crate::Manager;

pub fn make() -> SystemAllocator {
    let allocator = call!(SystemAllocator::new, IoRange::ALL_MEMORY);
    let allocator = call!(SystemAllocator::with_ports, allocator, IoRange::ALL_PORTS);
    call!(SystemAllocator::with_irqs, allocator, 5, 23)
}

pub fn reserve(manager: &'static Manager, io_type: IoType) {
    let any = Placement::Any { size: GuestUsize(1), align: 1, within: None, fit: Fit::Last };
    for placement in [any, call!(Placement::from, IoRange::ALL_PORTS)] {
        if let Ok(range) = call!(DeviceManager::reserve, manager, io_type, placement) {
            call!(DeviceManager::release, manager, io_type, range).ok();
        }
    }
    call!(DeviceManager::reserve_irq, manager, None).ok();
    call!(DeviceManager::release_irq, manager, Gsi(5)).ok();
}

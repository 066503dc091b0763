//! What a VMM allocates itself.

use vm_device::{Fit, Gsi, GuestUsize, IoRange, IoType, Placement, SystemAllocator};

use crate::Allocator;

pub fn make() -> Allocator {
    let allocator = call!(SystemAllocator::new, IoRange::ALL_MEMORY);
    let allocator = call!(SystemAllocator::with_ports, allocator, IoRange::ALL_PORTS);
    call!(SystemAllocator::with_irqs, allocator, 5, 23)
}

pub fn allocate(allocator: &mut Allocator, io_type: IoType) {
    let any = Placement::Any { size: GuestUsize(1), align: 1, within: None, fit: Fit::Last };
    if let Ok(range) = call!(SystemAllocator::allocate_io, allocator, io_type, any) {
        call!(SystemAllocator::free_io, allocator, io_type, range).ok();
    }
    call!(SystemAllocator::allocate_irq, allocator, None).ok();
    call!(SystemAllocator::free_irq, allocator, Gsi(5)).ok();
    if let Ok(id) = call!(SystemAllocator::allocate_instance_id, allocator) {
        call!(SystemAllocator::is_current, allocator, id);
        call!(SystemAllocator::free_instance_id, allocator, id).ok();
    }
}

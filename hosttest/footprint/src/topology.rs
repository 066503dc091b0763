//! Changes of the topology, and looking at it.

#[cfg(feature = "all")]
use core::hint::black_box;

#[cfg(feature = "all")]
use vm_device::{
    Access, Gsi, GuestAddress, GuestUsize, HeavyBarrier, IoType, OpenBus, Relocation, Storage, Straddling,
    SystemAllocator, Taken,
};
use vm_device::{Device, DeviceManager, InstanceId, IoResource, IrqResource};

use crate::Manager;
use crate::device::DEVICE;
#[cfg(feature = "all")]
use crate::{Room, device::CONTROLLER, device::LISTENER, device::OBSERVER, vcpu};

/// What every embedder does.
pub fn come_and_go(
    manager: &'static Manager,
    parent: Option<InstanceId>,
    requests: &[IoResource],
    irqs: &[IrqResource],
) {
    let device: &dyn Device<'static> = &DEVICE;
    if let Ok(id) = call!(DeviceManager::register_device, manager, device, parent, requests, irqs) {
        call!(DeviceManager::unregister_device, manager, id).ok();
    }
}

#[cfg(feature = "all")]
pub fn make(allocator: SystemAllocator) -> Manager {
    static OTHER: Room = Storage::new();
    black_box([call!(Storage::new), call!(Storage::default)] as [Room; 2]);
    let manager = call!(DeviceManager::new, &OTHER, allocator);
    let manager = call!(DeviceManager::with_interrupt_controller, manager, &CONTROLLER);
    let manager = call!(DeviceManager::with_listener, manager, &LISTENER);
    let manager = call!(DeviceManager::with_observer, manager, &OBSERVER);
    let manager = call!(DeviceManager::with_open_bus, manager, IoType::Pio, OpenBus(0));
    let manager = call!(DeviceManager::with_straddling, manager, IoType::Pio, Straddling::Split);
    let manager = call!(DeviceManager::with_removal_spins, manager, 1);
    // SAFETY: the image is never run.
    let barrier = unsafe { HeavyBarrier::new(black_box(|| {})) };
    call!(DeviceManager::with_asymmetric_fence, manager, barrier)
}

#[cfg(feature = "all")]
pub fn take(manager: &'static Manager, parent: Option<InstanceId>, requests: &[IoResource], irqs: &[IrqResource]) {
    let device: &dyn Device<'static> = &DEVICE;
    if let Ok(taken) = call!(DeviceManager::take, manager, "nothing", parent, requests, irqs) {
        call!(Taken::id, &taken);
        call!(Taken::range, &taken, 0);
        call!(Taken::irq, &taken, 0);
        call!(Taken::register, taken, device).ok();
    }
}

#[cfg(feature = "all")]
pub fn change(manager: &'static Manager, id: Option<InstanceId>, access: &Access<'_>) {
    let Some(id) = id else { return };
    let relocation = call!(Relocation::new, id, 0);
    let relocation = call!(Relocation::to, relocation, GuestAddress(0));
    let relocation = call!(Relocation::resized, relocation, GuestUsize(1));
    let relocation = call!(Relocation::decoded, relocation);
    let relocation = call!(Relocation::reserved, relocation);
    let relocation = call!(Relocation::unplaced, relocation);
    let relocation = call!(Relocation::waiting, relocation);
    call!(DeviceManager::relocate, manager, &mut [relocation]).ok();
    call!(DeviceManager::device, manager, id);
    call!(DeviceManager::range, manager, id, 0);
    call!(DeviceManager::irq, manager, id, 0);
    call!(DeviceManager::reroute, manager, id, 0, Some(Gsi(7))).ok();
    call!(DeviceManager::end_of_interrupt, manager, Gsi(7)).ok();
    call!(DeviceManager::path, manager, id);
    call!(DeviceManager::unregister_subtree, manager, id).ok();
    call!(DeviceManager::unregister_device_deferred, manager, id).ok();
    call!(DeviceManager::collect, manager);
    call!(DeviceManager::reset, manager).ok();
    call!(DeviceManager::tick, manager, 0);
    vcpu::remove_nested(manager, access, id);
}

#[cfg(feature = "all")]
pub fn look_around(manager: &'static Manager, path: &str, address: GuestAddress, io_type: IoType) {
    call!(DeviceManager::find_by_path, manager, path).ok();
    call!(DeviceManager::map, manager);
    call!(DeviceManager::find_by_address, manager, address, io_type);
    for device in DeviceManager::walk(manager) {
        black_box(&device);
    }
    for range in DeviceManager::address_map(manager, io_type) {
        black_box(&range);
    }
}

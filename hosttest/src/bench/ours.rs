//! This crate, with a portable and with an asymmetric fence, with and without a handle for each vCPU.

use vm_device::{
    Access, Device, DeviceManager, GuestAddress, HeavyBarrier, IoRange, IoResource, IoType, IrqResource, MEMORY_HINTS,
    PORT_HINTS, SystemAllocator,
};

use super::layout::Layout;
use super::subject::{Register, Subject, forever, of_kind};
use crate::membarrier::heavy_barrier;

/// Room for the largest layout, and a device that comes and goes: the same for every number of ranges, because the cost
/// is to follow the ranges in use.
const CAPACITY: usize = 4100;

pub(super) type Manager = DeviceManager<'static, CAPACITY, CAPACITY, 8>;

pub(super) struct Named<const KIND: u64> {
    name: String,
    register: Register<KIND>,
}

impl<const KIND: u64> Named<KIND> {
    pub(super) fn new(name: String) -> Self {
        Self { name, register: Register::new() }
    }
}

impl<const KIND: u64> Device<'_> for Named<KIND> {
    fn name(&self) -> &str {
        &self.name
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.register.answer(access.offset(), data);
    }
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

fn device<const KIND: u64>(name: String) -> &'static dyn Device<'static> {
    forever(Named::<KIND>::new(name))
}

/// A manager without devices, with the asymmetric fence or without. In a function of its own, because it is large and comes
/// by way of the stack.
#[inline(never)]
pub(super) fn manager(asymmetric: bool) -> &'static Manager {
    let manager = DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
    if asymmetric { forever(manager.with_asymmetric_fence(membarrier())) } else { forever(manager) }
}

pub(super) fn resource(io_type: IoType, (first, last): (u64, u64)) -> IoResource {
    let range = IoRange::new(GuestAddress(first), GuestAddress(last)).expect("a layout's ranges are in order");
    IoResource::at(io_type, range)
}

/// Registers one device for each range of the layout.
pub(super) fn fill(manager: &'static Manager, devices: &[&'static dyn Device<'static>], layout: &Layout) {
    for (device, range) in devices.iter().zip(&layout.ranges) {
        manager
            .register_device(*device, None, &[resource(layout.io_type, *range)], IrqResource::None)
            .expect("a layout's ranges are disjoint");
    }
}

pub(super) fn devices(layout: &Layout) -> Vec<&'static dyn Device<'static>> {
    (0..layout.ranges.len()).map(|i| of_kind!(i % layout.types, device(format!("device-{i}")))).collect()
}

fn filled(asymmetric: bool, layout: &Layout) -> &'static Manager {
    let manager = manager(asymmetric);
    fill(manager, &devices(layout), layout);
    manager
}

pub(super) const PORTABLE: &str = "this crate, handle";
pub(super) const ASYMMETRIC: &str = "this crate, handle, asymmetric";

/// With as many hints as serve the largest layouts too.
pub(super) const ROOMY: &str = "this crate, handle, 8192 hints";

/// The barrier of `membarrier(2)`.
fn membarrier() -> HeavyBarrier {
    heavy_barrier().unwrap_or_else(|unsupported| panic!("{unsupported}"))
}

pub(super) fn subjects(layout: &Layout) -> Vec<Subject> {
    match layout.io_type {
        IoType::Pio => in_space::<true>(layout),
        _ => in_space::<false>(layout),
    }
}

/// A VMM knows at each place of its code whether an exit is one of port I/O, and so do these readers.
const fn io_type<const IS_PORTS: bool>() -> IoType {
    if IS_PORTS { IoType::Pio } else { IoType::Mmio }
}

/// With a handle that has as many hints about ports and about memory.
fn by_handle<const IS_PORTS: bool, const PORTS: usize, const MEMORY: usize>(
    name: &'static str,
    manager: &'static Manager,
) -> Subject {
    Subject::new(name, move || {
        let mut vcpu = manager.dispatcher_with_hints::<PORTS, MEMORY>().expect("there are more handles than threads");
        move |address: u64, data: &mut [u8; 4]| {
            let _ = vcpu.read(GuestAddress(address), data, io_type::<IS_PORTS>());
        }
    })
}

fn in_space<const IS_PORTS: bool>(layout: &Layout) -> Vec<Subject> {
    let portable = filled(false, layout);
    let asymmetric = filled(true, layout);
    let anonymous = |manager: &'static Manager| {
        move || {
            move |address: u64, data: &mut [u8; 4]| {
                let _ = manager.read(GuestAddress(address), data, io_type::<IS_PORTS>());
            }
        }
    };
    let spare = [resource(layout.io_type, layout.spare())];
    let guest: &'static dyn Device<'static> = forever(Named::<0>::new("comes-and-goes".into()));
    let change = move |manager: &'static Manager| {
        move || {
            let id = manager.register_device(guest, None, &spare, IrqResource::None).expect("the place is free");
            manager.unregister_device(id).expect("the device is registered");
        }
    };
    vec![
        by_handle::<IS_PORTS, PORT_HINTS, MEMORY_HINTS>(PORTABLE, portable).with_change(change(portable)),
        by_handle::<IS_PORTS, PORT_HINTS, MEMORY_HINTS>(ASYMMETRIC, asymmetric).with_change(change(asymmetric)),
        by_handle::<IS_PORTS, 8192, 8192>(ROOMY, portable).with_change(change(portable)),
        by_handle::<IS_PORTS, 0, 0>("this crate, handle, no hints", portable).with_change(change(portable)),
        Subject::new("this crate, no handle", anonymous(portable)).with_change(change(portable)),
        Subject::new("this crate, no handle, asymmetric", anonymous(asymmetric)).with_change(change(asymmetric)),
    ]
}

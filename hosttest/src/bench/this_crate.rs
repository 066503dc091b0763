//! This crate, with a portable and with an asymmetric fence, with and without a handle for each vCPU.

use std::sync::LazyLock;

use vm_device::{
    Access, Device, DeviceManager, GuestAddress, HeavyBarrier, IoRange, IoResource, IoType, MEMORY_HINTS, PORT_HINTS,
    Storage, SystemAllocator,
};

use super::layout::Layout;
use super::subject::{Register, Subject, apart, leaked, of_kind};
use crate::vmm::membarrier::heavy_barrier;

/// Room for the largest layout, and a device that comes and goes: the same for every number of ranges, because the cost
/// is to follow the ranges in use.
const CAPACITY: usize = 4100;

type Room = Storage<'static, CAPACITY, CAPACITY, 8>;

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
    leaked(Named::<KIND>::new(name))
}

/// A manager without devices over all ports and all memory, with the asymmetric fence or without.
pub(super) fn manager(asymmetric: bool) -> &'static DeviceManager<'static> {
    manager_of(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS), asymmetric)
}

/// The same over what `allocator` has.
pub(super) fn manager_of(allocator: SystemAllocator, asymmetric: bool) -> &'static DeviceManager<'static> {
    let room: &'static Room = Box::leak(apart(Storage::new));
    let manager = DeviceManager::new(room, allocator);
    leaked(if asymmetric { manager.with_asymmetric_fence(membarrier()) } else { manager })
}

pub(super) fn resource(io_type: IoType, (first, last): (u64, u64)) -> IoResource {
    let range = IoRange::new(GuestAddress(first), GuestAddress(last)).expect("a layout's ranges are in order");
    IoResource::at(io_type, range)
}

/// Registers one device for each range of the layout.
pub(super) fn fill(
    manager: &'static DeviceManager<'static>,
    devices: &[&'static dyn Device<'static>],
    layout: &Layout,
) {
    for (device, range) in devices.iter().zip(&layout.ranges) {
        manager
            .register_device(*device, None, &[resource(layout.io_type, *range)], &[])
            .expect("a layout's ranges are disjoint");
    }
}

pub(super) fn devices(layout: &Layout) -> Vec<&'static dyn Device<'static>> {
    (0..layout.ranges.len()).map(|i| of_kind!(i % layout.types, device(format!("device-{i}")))).collect()
}

/// A manager of one subject's own, filled when the subject is used for the first time.
type Own =
    &'static LazyLock<&'static DeviceManager<'static>, Box<dyn FnOnce() -> &'static DeviceManager<'static> + Send>>;

fn own(asymmetric: bool, layout: &Layout) -> Own {
    let layout = layout.clone();
    leaked(LazyLock::new(Box::new(move || {
        let manager = manager(asymmetric);
        fill(manager, &devices(&layout), &layout);
        manager
    })))
}

pub(super) const PORTABLE: &str = "this crate, handle";

/// The same with another manager: what the two differ by is noise.
pub(super) const AGAIN: &str = "this crate, handle, again";
pub(super) const ASYMMETRIC: &str = "this crate, handle, asymmetric";

/// With as many hints as serve the largest layouts too.
pub(super) const ROOMY: &str = "this crate, handle, 8192 hints";
pub(super) const NO_HINTS: &str = "this crate, handle, no hints";
pub(super) const NO_HANDLE: &str = "this crate, no handle";

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
    manager: Own,
    layout: &Layout,
) -> Subject {
    let subject = Subject::new(name, move || {
        let mut vcpu = manager.dispatcher_with_hints::<PORTS, MEMORY>(0).expect("there are more handles than threads");
        move |address: u64, data: &mut [u8; 4]| {
            let _ = vcpu.read(GuestAddress(address), data, io_type::<IS_PORTS>());
        }
    });
    subject.with_change(change(manager, layout))
}

fn without_handle<const IS_PORTS: bool>(name: &'static str, manager: Own, layout: &Layout) -> Subject {
    let subject = Subject::new(name, move || {
        let manager: &'static DeviceManager<'static> = manager;
        move |address: u64, data: &mut [u8; 4]| {
            let _ = manager.read(GuestAddress(address), data, io_type::<IS_PORTS>());
        }
    });
    subject.with_change(change(manager, layout))
}

/// One more device comes and goes.
fn change(manager: Own, layout: &Layout) -> impl Fn() + Sync + 'static {
    let spare = [resource(layout.io_type, layout.spare())];
    let guest: &'static dyn Device<'static> = leaked(Named::<0>::new("comes-and-goes".into()));
    move || {
        let id = manager.register_device(guest, None, &spare, &[]).expect("the place is free");
        manager.unregister_device(id).expect("the device is registered");
    }
}

fn in_space<const IS_PORTS: bool>(layout: &Layout) -> Vec<Subject> {
    let portable = || own(false, layout);
    let asymmetric = || own(true, layout);
    vec![
        by_handle::<IS_PORTS, PORT_HINTS, MEMORY_HINTS>(PORTABLE, portable(), layout),
        by_handle::<IS_PORTS, PORT_HINTS, MEMORY_HINTS>(AGAIN, portable(), layout),
        by_handle::<IS_PORTS, PORT_HINTS, MEMORY_HINTS>(ASYMMETRIC, asymmetric(), layout),
        by_handle::<IS_PORTS, 8192, 8192>(ROOMY, portable(), layout),
        by_handle::<IS_PORTS, 256, 512>("this crate, handle, 512 hints", portable(), layout),
        by_handle::<IS_PORTS, 0, 0>(NO_HINTS, portable(), layout),
        without_handle::<IS_PORTS>(NO_HANDLE, portable(), layout),
        without_handle::<IS_PORTS>("this crate, no handle, asymmetric", asymmetric(), layout),
    ]
}

//! This crate, with a portable and with an asymmetric fence, with and without a handle for each vCPU, with a manager that borrows
//! and with one that owns.

use std::sync::{Arc, LazyLock};

use vm_device::owned::{Capacities, OwnedManager, SharedDevice};
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

/// How many handles there are: more than threads.
const HANDLES: usize = 8;

pub(super) type Room<'d> = Storage<'d, CAPACITY, CAPACITY, HANDLES>;

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

/// The memory of a manager.
pub(super) fn room<'d>() -> Box<Room<'d>> {
    apart(Storage::new)
}

/// A manager without devices over all ports and all memory, with the asymmetric fence or without.
pub(super) fn manager<'d>(room: &'d Room<'d>, asymmetric: bool) -> DeviceManager<'d> {
    let manager = DeviceManager::new(room, everything());
    if asymmetric { manager.with_asymmetric_fence(membarrier()) } else { manager }
}

pub(super) fn everything() -> SystemAllocator {
    SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS)
}

pub(super) fn resource(io_type: IoType, (first, last): (u64, u64)) -> IoResource {
    let range = IoRange::new(GuestAddress(first), GuestAddress(last)).expect("a layout's ranges are in order");
    IoResource::at(io_type, range)
}

/// Registers one device for each range of the layout.
pub(super) fn fill<'d>(
    manager: &'d DeviceManager<'d>,
    devices: impl IntoIterator<Item = &'d dyn Device<'d>>,
    layout: &Layout,
) {
    for (device, range) in devices.into_iter().zip(&layout.ranges) {
        manager
            .register_device(device, None, &[resource(layout.io_type, *range)], &[])
            .expect("a layout's ranges are disjoint");
    }
}

pub(super) fn device<const KIND: u64>(number: usize) -> Named<KIND> {
    Named::new(format!("device-{number}"))
}

/// A device that comes and goes.
pub(super) fn guest() -> Named<0> {
    Named::new("comes-and-goes".into())
}

/// A manager of one subject's own, filled when the subject is used for the first time.
type Own<M> = Arc<LazyLock<M, Box<dyn FnOnce() -> M + Send>>>;

fn own<M>(layout: &Layout, filled: impl FnOnce(&Layout) -> M + Send + 'static) -> Own<M> {
    let layout = layout.clone();
    Arc::new(LazyLock::new(Box::new(move || filled(&layout))))
}

/// The manager that borrows is what is measured, and its readers live as long as anybody likes: what they borrow stays.
fn borrowing(asymmetric: bool, layout: &Layout) -> Own<&'static DeviceManager<'static>> {
    fn stays<const KIND: u64>(number: usize) -> &'static dyn Device<'static> {
        leaked(device::<KIND>(number))
    }
    own(layout, move |layout| {
        let manager = leaked(manager(Box::leak(room()), asymmetric));
        fill(manager, (0..layout.ranges.len()).map(|number| of_kind!(number % layout.types, stays(number))), layout);
        manager
    })
}

fn owning(layout: &Layout) -> Own<OwnedManager> {
    fn shared<const KIND: u64>(number: usize) -> SharedDevice {
        Arc::new(device::<KIND>(number))
    }
    own(layout, |layout| {
        let capacities = Capacities { devices: CAPACITY, ranges: CAPACITY, vcpus: HANDLES };
        let manager = OwnedManager::new(capacities, everything()).expect("the capacities are in range");
        for (number, range) in layout.ranges.iter().enumerate() {
            let device = of_kind!(number % layout.types, shared(number));
            manager
                .register_device(device, None, &[resource(layout.io_type, *range)], &[])
                .expect("a layout's ranges are disjoint");
        }
        manager
    })
}

pub(super) const PORTABLE: &str = "this crate, handle";

/// The same with another manager: what the two differ by is noise.
pub(super) const AGAIN: &str = "this crate, handle, again";

/// The same with a manager that owns its devices: what the two differ by is what owning costs.
const OWNED: &str = "this crate, owned";
pub(super) const ASYMMETRIC: &str = "this crate, handle, asymmetric";

/// With as many hints as serve the largest layouts too.
pub(super) const ROOMY: &str = "this crate, handle, 8192 hints";
pub(super) const NO_HINTS: &str = "this crate, handle, no hints";
pub(super) const NO_HANDLE: &str = "this crate, no handle";

/// The barrier of `membarrier(2)`.
pub(super) fn membarrier() -> HeavyBarrier {
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
    manager: Own<&'static DeviceManager<'static>>,
    layout: &Layout,
) -> Subject {
    let subject = Subject::new(name, &manager, |manager| {
        let manager: &'static DeviceManager<'static> = **manager;
        let mut vcpu = manager.dispatcher_with_hints::<PORTS, MEMORY>(0).expect("there are more handles than threads");
        move |address: u64, data: &mut [u8; 4]| {
            let _ = vcpu.read(GuestAddress(address), data, io_type::<IS_PORTS>());
        }
    });
    subject.with_change(change(manager, layout))
}

fn without_handle<const IS_PORTS: bool>(
    name: &'static str,
    manager: Own<&'static DeviceManager<'static>>,
    layout: &Layout,
) -> Subject {
    let subject = Subject::new(name, &manager, |manager| {
        let manager: &'static DeviceManager<'static> = **manager;
        move |address: u64, data: &mut [u8; 4]| {
            let _ = manager.read(GuestAddress(address), data, io_type::<IS_PORTS>());
        }
    });
    subject.with_change(change(manager, layout))
}

/// One more device comes and goes.
fn change(manager: Own<&'static DeviceManager<'static>>, layout: &Layout) -> impl Fn() + Sync + 'static {
    let spare = [resource(layout.io_type, layout.spare())];
    let guest: &'static dyn Device<'static> = leaked(guest());
    move || {
        let id = manager.register_device(guest, None, &spare, &[]).expect("the place is free");
        manager.unregister_device(id).expect("the device is registered");
    }
}

/// With a handle of a manager that owns its devices.
fn by_owned_handle<const IS_PORTS: bool>(layout: &Layout) -> Subject {
    let (manager, spare) = (owning(layout), [resource(layout.io_type, layout.spare())]);
    let guest = Arc::new(guest());
    let subject = Subject::new(OWNED, &manager, |manager| {
        let mut vcpu = manager.dispatcher(0).expect("there are more handles than threads");
        move |address: u64, data: &mut [u8; 4]| {
            let _ = vcpu.read(GuestAddress(address), data, io_type::<IS_PORTS>());
        }
    });
    subject.with_change(move || {
        let id = manager.register_device(guest.clone(), None, &spare, &[]).expect("the place is free");
        manager.unregister_device(id).expect("the device is registered");
    })
}

fn in_space<const IS_PORTS: bool>(layout: &Layout) -> Vec<Subject> {
    let portable = || borrowing(false, layout);
    let asymmetric = || borrowing(true, layout);
    vec![
        by_handle::<IS_PORTS, PORT_HINTS, MEMORY_HINTS>(PORTABLE, portable(), layout),
        by_handle::<IS_PORTS, PORT_HINTS, MEMORY_HINTS>(AGAIN, portable(), layout),
        by_owned_handle::<IS_PORTS>(layout),
        by_handle::<IS_PORTS, PORT_HINTS, MEMORY_HINTS>(ASYMMETRIC, asymmetric(), layout),
        by_handle::<IS_PORTS, 8192, 8192>(ROOMY, portable(), layout),
        by_handle::<IS_PORTS, 256, 512>("this crate, handle, 512 hints", portable(), layout),
        by_handle::<IS_PORTS, 0, 0>(NO_HINTS, portable(), layout),
        without_handle::<IS_PORTS>(NO_HANDLE, portable(), layout),
        without_handle::<IS_PORTS>("this crate, no handle, asymmetric", asymmetric(), layout),
    ]
}

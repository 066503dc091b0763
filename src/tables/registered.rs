//! What tables are written from: either manager.

use crate::address::{IoRange, IoType};
use crate::description::Description;
use crate::error::Owner;
use crate::instance::InstanceId;
use crate::manager::DeviceManager;
use crate::resource::{Assigned, AssignedIrq};

/// What tables are written from: a [`DeviceManager`], or with the feature `alloc` an `OwnedManager`.
pub trait Registered: Source {}

impl<T: Source> Registered for T {}

/// What the writers look at. It is public in name only, so that no other crate implements it.
pub trait Source {
    /// Each device, in the order of the walk.
    fn each(&self, act: &mut dyn FnMut(&Entry<'_>));
    /// A range of a device.
    fn assigned(&self, id: InstanceId, index: usize) -> Option<Assigned>;
    /// A line of a device.
    fn assigned_irq(&self, id: InstanceId, index: usize) -> Option<AssignedIrq>;
    /// Each range of the space of `io_type` that has addresses and is no window, and the device that has it; `None` for the VMM.
    fn each_mapped(&self, io_type: IoType, act: &mut dyn FnMut(IoRange, Option<InstanceId>));
}

/// A device that is registered.
pub struct Entry<'a> {
    pub(super) id: InstanceId,
    pub(super) name: &'a str,
    /// Its own description of itself.
    pub(super) describe: &'a dyn Fn(&mut dyn Description),
}

fn holder<N>(owner: &Owner<N>) -> Option<InstanceId> {
    match owner {
        Owner::Device { id, .. } => Some(*id),
        Owner::Vmm => None,
    }
}

impl Source for DeviceManager<'_> {
    fn each(&self, act: &mut dyn FnMut(&Entry<'_>)) {
        for info in self.walk() {
            let describe = |description: &mut dyn Description| info.device.describe(description);
            act(&Entry { id: info.id, name: info.name, describe: &describe });
        }
    }
    fn assigned(&self, id: InstanceId, index: usize) -> Option<Assigned> {
        self.range(id, index)
    }
    fn assigned_irq(&self, id: InstanceId, index: usize) -> Option<AssignedIrq> {
        self.irq(id, index)
    }
    fn each_mapped(&self, io_type: IoType, act: &mut dyn FnMut(IoRange, Option<InstanceId>)) {
        for mapped in self.address_map(io_type).filter(|mapped| !mapped.window) {
            act(mapped.assigned.range, holder(&mapped.owner));
        }
    }
}

#[cfg(feature = "alloc")]
impl Source for crate::owned::OwnedManager {
    fn each(&self, act: &mut dyn FnMut(&Entry<'_>)) {
        for info in self.walk() {
            let describe = |description: &mut dyn Description| {
                if let Some(device) = &info.device {
                    device.describe(description);
                }
            };
            act(&Entry { id: info.id, name: &info.name, describe: &describe });
        }
    }
    fn assigned(&self, id: InstanceId, index: usize) -> Option<Assigned> {
        self.range(id, index)
    }
    fn assigned_irq(&self, id: InstanceId, index: usize) -> Option<AssignedIrq> {
        self.irq(id, index)
    }
    fn each_mapped(&self, io_type: IoType, act: &mut dyn FnMut(IoRange, Option<InstanceId>)) {
        for mapped in self.address_map(io_type).into_iter().filter(|mapped| !mapped.window) {
            act(mapped.assigned.range, holder(&mapped.owner));
        }
    }
}

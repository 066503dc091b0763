//! Look-ups in the topology and the address map of an owned manager.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{OwnedManager, SharedDevice};
use crate::address::{GuestAddress, IoType};
use crate::error::PathError;
use crate::instance::InstanceId;
use crate::manager::MappedRange;
use crate::resource::{Assigned, AssignedIrq};

/// A bus or a device in the topology: as [`DeviceInfo`](crate::DeviceInfo), for as long as one likes.
#[derive(Clone)]
pub struct OwnedDeviceInfo {
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    pub name: String,
    /// The device itself; `None` if it does not exist yet, or is gone by now.
    pub device: Option<SharedDevice>,
    /// The bus it is on; `None` at the root.
    pub parent: Option<InstanceId>,
    /// How many buses are above it.
    pub depth: usize,
}

impl core::fmt::Debug for OwnedDeviceInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OwnedDeviceInfo")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("parent", &self.parent)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

impl OwnedManager {
    /// The device with this id; `None` if there is none, or none any more.
    pub fn device(&self, id: InstanceId) -> Option<SharedDevice> {
        self.inner().device(id)
    }

    /// Every device, depth first, siblings in the order of their registration: see [`DeviceManager::walk`](crate::DeviceManager::walk).
    ///
    /// ```
    /// use std::sync::Arc;
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::owned::{Capacities, OwnedManager};
    /// use vm_device::{IoRange, SystemAllocator};
    ///
    /// let capacities = Capacities { devices: 8, ranges: 16, vcpus: 2 };
    /// let manager = OwnedManager::new(capacities, SystemAllocator::new(IoRange::ALL_MEMORY))?;
    /// let bus = manager.register_device(Arc::new(Constant("pci", 1)), None, &[], &[])?;
    /// manager.register_device(Arc::new(Constant("disk", 2)), Some(bus), &[], &[])?;
    /// let tree: Vec<_> = manager.walk().into_iter().map(|info| (info.depth, info.name)).collect();
    /// assert_eq!(tree, [(0, "pci".into()), (1, "disk".into())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn walk(&self) -> Vec<OwnedDeviceInfo> {
        let (inner, _call) = self.call();
        let outlines = inner.manager().walk_with(|state, node| {
            let parent = node.parent.map(|parent| state.tree.id(parent));
            (state.tree.id(node.index()), node.name, parent, state.tree.ancestors(node.index()).count())
        });
        let infos = outlines.map(|(id, name, parent, depth)| OwnedDeviceInfo {
            id,
            name: name.into(),
            device: inner.device(id),
            parent,
            depth,
        });
        infos.collect()
    }

    /// See [`DeviceManager::address_map`](crate::DeviceManager::address_map).
    pub fn address_map(&self, io_type: IoType) -> Vec<MappedRange<String>> {
        let (inner, _call) = self.call();
        inner.manager().address_map(io_type).map(|range| range.map_names(String::from)).collect()
    }

    /// The map of devices and ranges as text: see [`DeviceManager::map`](crate::DeviceManager::map).
    pub fn map(&self) -> String {
        let (inner, _call) = self.call();
        inner.manager().map().to_string()
    }

    /// The path of a device; empty if there is none with this id: see [`DeviceManager::path`](crate::DeviceManager::path).
    pub fn path(&self, id: InstanceId) -> String {
        let (inner, _call) = self.call();
        inner.manager().path(id).to_string()
    }

    /// See [`DeviceManager::find_by_path`](crate::DeviceManager::find_by_path).
    ///
    /// # Errors
    /// As there.
    pub fn find_by_path(&self, path: &str) -> Result<InstanceId, PathError> {
        self.inner().manager().find_by_path(path)
    }

    /// See [`DeviceManager::find_by_address`](crate::DeviceManager::find_by_address).
    pub fn find_by_address(&self, address: GuestAddress, io_type: IoType) -> Option<(InstanceId, usize)> {
        self.inner().manager().find_by_address(address, io_type)
    }

    /// See [`DeviceManager::range`](crate::DeviceManager::range).
    pub fn range(&self, id: InstanceId, index: usize) -> Option<Assigned> {
        self.inner().manager().range(id, index)
    }

    /// See [`DeviceManager::irq`](crate::DeviceManager::irq).
    pub fn irq(&self, id: InstanceId, index: usize) -> Option<AssignedIrq> {
        self.inner().manager().irq(id, index)
    }
}

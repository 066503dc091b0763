//! Looking at the topology and the address map.
//!
//! Iterators take the manager's lock for one step at a time, so that what is done between the steps may call the manager.
//! They show what is there when they come by; a walk ends early if the device it stands at is removed.

use crate::address::{GuestAddress, IoType};
use crate::allocator::InstanceId;
use crate::device::Device;
use crate::error::Owner;
use crate::interrupt::Gsi;
use crate::manager::DeviceManager;
use crate::resource::Assigned;
use crate::state::State;
use crate::topology::{NONE, Node};

/// A bus or a device in the topology.
#[derive(Clone, Copy)]
pub struct DeviceInfo<'d> {
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    pub name: &'d str,
    /// The device itself.
    pub device: &'d dyn Device<'d>,
    /// The bus it is on; `None` at the root.
    pub parent: Option<InstanceId>,
    /// How many buses are above it.
    pub depth: usize,
    /// Its interrupt line.
    pub gsi: Option<Gsi>,
}

impl core::fmt::Debug for DeviceInfo<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeviceInfo")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("parent", &self.parent)
            .field("depth", &self.depth)
            .field("gsi", &self.gsi)
            .finish_non_exhaustive()
    }
}

/// A range in the address map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappedRange<'d> {
    /// Whose it is.
    pub owner: Owner<'d>,
    /// Which of the owner's ranges; 0 for the VMM's.
    pub range_index: usize,
    /// Its kind, its place, and whether accesses reach it.
    pub assigned: Assigned,
    /// Whether it is a window.
    pub window: bool,
    /// How many windows are around it.
    pub depth: usize,
}

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> DeviceManager<'d, DEVICES, RANGES, VCPUS> {
    /// The device with this id; `None` if there is none, or none any more.
    pub fn device(&self, id: InstanceId) -> Option<DeviceInfo<'d>> {
        let state = self.state();
        state.topology.get(id).map(|node| state.info(node))
    }

    /// Range number `index` of a device.
    pub fn range(&self, id: InstanceId, index: usize) -> Option<Assigned> {
        let state = self.state();
        state.topology.get(id)?;
        state.ranges_of(id.index).nth(index).map(|(_, range)| range.assigned())
    }

    /// The device at a path of names from the root: `/pci/serial`.
    pub fn find_by_path(&self, path: &str) -> Option<InstanceId> {
        let state = self.state();
        let mut parent = NONE;
        let mut rest = path.strip_prefix('/')?;
        loop {
            // Byte by byte: the search of `str` for a character is longer than all of this.
            let end = rest.bytes().position(|byte| byte == b'/');
            let (name, more) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
            let node = state.topology.child(parent, name)?;
            match more.get(1..) {
                Some(more) => (parent, rest) = (node.id.index, more),
                None => return Some(node.id),
            }
        }
    }

    /// The device whose range holds an address, and which of its ranges: the innermost, whether it is decoded or not.
    pub fn find_by_address(&self, address: GuestAddress, io_type: IoType) -> Option<(InstanceId, usize)> {
        let state = self.state();
        let (_, range) = state.allocator.pool.innermost(io_type, address)?;
        Some((state.topology.node(range.node)?.id, range.index().into()))
    }

    /// Every device, depth first, siblings in the order of their registration.
    pub fn walk(&self) -> impl Iterator<Item = DeviceInfo<'d>> {
        let mut previous: Option<InstanceId> = None;
        core::iter::from_fn(move || {
            let state = self.state();
            let next = match previous {
                None => state.topology.first_root(),
                Some(id) => state.topology.next_in_walk(state.topology.get(id)?.id.index, NONE),
            };
            let node = state.topology.node(next)?;
            previous = Some(node.id);
            Some(state.info(node))
        })
    }

    /// Every range of the space of `io_type`, by address, a window before the ranges in it. Both kinds of MMIO are in
    /// one map: a VMM finds there what to map as memory.
    pub fn address_map(&self, io_type: IoType) -> impl Iterator<Item = MappedRange<'d>> {
        let mut key = None;
        core::iter::from_fn(move || {
            let state = self.state();
            let range = state.allocator.pool.next_after(io_type, key)?;
            key = Some(range.key());
            Some(MappedRange {
                owner: state.owner(range.node),
                range_index: range.index().into(),
                assigned: range.assigned(),
                window: range.is_window(),
                depth: range.depth.into(),
            })
        })
    }
}

impl<'d, const DEVICES: usize, const RANGES: usize> State<'d, DEVICES, RANGES> {
    fn info(&self, node: &Node<'d>) -> DeviceInfo<'d> {
        DeviceInfo {
            id: node.id,
            name: node.name,
            device: node.device,
            parent: self.topology.node(node.parent).map(|parent| parent.id),
            depth: self.topology.depth(node.id.index),
            gsi: node.irq.and_then(|irq| self.line(irq.wire)).map(|line| line.gsi),
        }
    }
}

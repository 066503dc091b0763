//! Looking at the topology and the address map.
//!
//! Iterators take the manager's lock for one step at a time, so that what is done between the steps may call the manager.
//! They show what is there when they come by; a walk ends early if the device it stands at is removed.

use crate::address::{GuestAddress, IoType};
use crate::device::Device;
use crate::error::Owner;
use crate::instance::InstanceId;
use crate::interrupt::Gsi;
use crate::manager::device_manager::DeviceManager;
use crate::manager::state::State;
use crate::manager::tree::Node;
use crate::resource::Assigned;

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

impl<'d> DeviceManager<'d> {
    /// The device with this id; `None` if there is none, or none any more.
    pub fn device(&self, id: InstanceId) -> Option<DeviceInfo<'d>> {
        let mut locked = self.lock()?;
        let state = locked.state();
        state.tree.get(id).map(|node| info(&state, node))
    }

    /// Range number `index` of a device.
    pub fn range(&self, id: InstanceId, index: usize) -> Option<Assigned> {
        let mut locked = self.lock()?;
        let state = locked.state();
        state.tree.get(id)?;
        state.ranges_of(id.index).nth(index).map(|(_, range)| range.assigned())
    }

    /// The device at a path of names from the root: `/pci/serial`.
    pub fn find_by_path(&self, path: &str) -> Option<InstanceId> {
        let mut locked = self.lock()?;
        let state = locked.state();
        let mut parent = None;
        let mut rest = path.strip_prefix('/')?;
        loop {
            // Byte by byte: the search of `str` for a character is longer than all of this.
            let end = rest.bytes().position(|byte| byte == b'/');
            let (name, more) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
            let node = state.tree.child(parent, name)?;
            match more.get(1..) {
                Some(more) => (parent, rest) = (Some(node.index()), more),
                None => return Some(node.id()),
            }
        }
    }

    /// The device whose range holds an address, and which of its ranges: the innermost, whether it is decoded or not.
    pub fn find_by_address(&self, address: GuestAddress, io_type: IoType) -> Option<(InstanceId, usize)> {
        let mut locked = self.lock()?;
        let state = locked.state();
        let (_, range) = state.pool.innermost(io_type.space(), address)?;
        Some((state.tree.node(range.node?)?.id(), range.index().into()))
    }

    /// Every device, depth first, siblings in the order of their registration.
    pub fn walk(&self) -> impl Iterator<Item = DeviceInfo<'d>> {
        let mut previous: Option<InstanceId> = None;
        core::iter::from_fn(move || {
            let mut locked = self.lock()?;
            let state = locked.state();
            let next = match previous {
                None => state.tree.first_root(),
                Some(id) => state.tree.next_in_walk(state.tree.get(id)?.index(), None),
            };
            let node = state.tree.node(next?)?;
            previous = Some(node.id());
            Some(info(&state, node))
        })
    }

    /// Every range of the space of `io_type`, by address, a window before the ranges in it. Both kinds of MMIO are in
    /// one map: a VMM finds there what to map as memory.
    pub fn address_map(&self, io_type: IoType) -> impl Iterator<Item = MappedRange<'d>> {
        let mut key = None;
        core::iter::from_fn(move || {
            let mut locked = self.lock()?;
            let state = locked.state();
            let range = state.pool.next_after(io_type.space(), key)?;
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

fn info<'d>(state: &State<'_, 'd>, node: &Node<'d>) -> DeviceInfo<'d> {
    DeviceInfo {
        id: node.id(),
        name: node.name,
        device: node.device,
        parent: node.parent.and_then(|parent| state.tree.node(parent)).map(|parent| parent.id()),
        depth: state.tree.ancestors(node.index()).count(),
        gsi: node.line.and_then(|share| state.line(share.line)).map(|record| record.gsi),
    }
}

//! The writers' state, behind the manager's lock: pools, tree and lines. They agree whenever the lock is free.

use heapless::Vec;

use crate::allocator::{IdStorage, IrqPool, IrqStorage, Pool, PoolStorage, RangeRecord, SystemAllocator};
use crate::arrays::{Arrays, InPlace};
#[cfg(feature = "alloc")]
use crate::arrays::{Boxed, Exhausted, boxed};
use crate::error::{IrqError, Owner};
use crate::indices::{ConnectionIndex, NodeIndex, SlotIndex};
use crate::manager::line::LineRecord;
use crate::manager::storage::Parts;
use crate::manager::tree::{NodeState, Tree, TreeStorage};
use crate::resource::MAX_RANGES_PER_DEVICE;

/// The memory of the writers' state; all zeros at first.
pub(crate) struct StateStorage<'d, D: Arrays, R: Arrays> {
    pool: PoolStorage<R>,
    ids: IdStorage<D>,
    irqs: IrqStorage,
    tree: TreeStorage<'d, D>,
    lines: D::Of<LineRecord>,
    /// Of each connection, the next one of the same device.
    next_connections: R::Of<Option<ConnectionIndex>>,
    left: Left,
    is_used: bool,
}

/// What is left for `collect`, and for the caller that calls the listener; and what one caller at a time does.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    /// How many removals.
    pub(crate) deferred: u16,
    /// How many lines are owed.
    pub(crate) owed: u16,
    /// Whether a caller has the turn to call the listener.
    pub(crate) telling: bool,
    /// Whether a caller resets the devices.
    pub(crate) resetting: bool,
}

impl Left {
    const NONE: Self = Self { deferred: 0, owed: 0, telling: false, resetting: false };
}

impl<const DEVICES: usize, const RANGES: usize> StateStorage<'_, InPlace<DEVICES>, InPlace<RANGES>> {
    pub(crate) const fn new() -> Self {
        Self {
            pool: PoolStorage::new(),
            ids: IdStorage::new(),
            irqs: IrqStorage::new(),
            tree: TreeStorage::new(),
            lines: [LineRecord::FREE; DEVICES],
            next_connections: [None; RANGES],
            left: Left::NONE,
            is_used: false,
        }
    }
}

#[cfg(feature = "alloc")]
impl StateStorage<'_, Boxed, Boxed> {
    /// With room for so many devices and ranges. The ids begin with these generations.
    pub(crate) fn boxed(
        devices: usize,
        ranges: usize,
        generations: impl Iterator<Item = u32>,
    ) -> Result<Self, Exhausted> {
        Ok(Self {
            pool: PoolStorage::boxed(ranges)?,
            ids: IdStorage::boxed(devices, generations)?,
            irqs: IrqStorage::new(),
            tree: TreeStorage::boxed(devices)?,
            lines: boxed(devices, || LineRecord::FREE)?,
            next_connections: boxed(ranges, || None)?,
            left: Left::NONE,
            is_used: false,
        })
    }
}

/// A [`StateStorage`] of any capacity.
pub(crate) trait StateCells<'d>: Send {
    /// The state in it, of a virtual machine with these resources.
    fn state(&mut self, parts: &'d (dyn Parts<'d> + 'd), allocator: &SystemAllocator) -> State<'_, 'd>;

    /// Whether a manager uses it. From now on one does.
    fn replace_is_used(&mut self) -> bool;
}

impl<'d, D: Arrays, R: Arrays> StateCells<'d> for StateStorage<'d, D, R> {
    fn state(&mut self, parts: &'d (dyn Parts<'d> + 'd), allocator: &SystemAllocator) -> State<'_, 'd> {
        let Self { pool, ids, irqs, tree, lines, next_connections, left, .. } = self;
        let irqs = allocator.irqs().and_then(|(first, last)| irqs.pool(first, last));
        let (lines, next_connections) = (lines.as_mut(), next_connections.as_mut());
        State { pool: pool.pool(allocator), irqs, tree: tree.tree(ids.pool()), lines, next_connections, left, parts }
    }

    fn replace_is_used(&mut self) -> bool {
        core::mem::replace(&mut self.is_used, true)
    }
}

/// The writers' state, whatever its capacity.
pub(crate) struct State<'s, 'd> {
    pub(crate) pool: Pool<'s>,
    pub(crate) irqs: Result<IrqPool<'s>, IrqError>,
    pub(crate) tree: Tree<'s, 'd>,
    pub(crate) lines: &'s mut [LineRecord],
    pub(crate) next_connections: &'s mut [Option<ConnectionIndex>],
    pub(crate) left: &'s mut Left,
    /// What readers and handles use of the lines.
    pub(crate) parts: &'d (dyn Parts<'d> + 'd),
}

impl<'d> State<'_, 'd> {
    pub(crate) fn range(&self, index: SlotIndex) -> Option<&RangeRecord> {
        self.pool.range(index)
    }

    /// The ranges of a node, in the order of the requests, with their indices.
    pub(crate) fn ranges_of(&self, node: NodeIndex) -> impl Iterator<Item = (SlotIndex, &RangeRecord)> {
        let mut next = self.tree.node(node).and_then(|node| node.first_range);
        core::iter::from_fn(move || {
            let index = next?;
            let range = self.range(index)?;
            next = range.next;
            Some((index, range))
        })
    }

    /// The indices of a node's ranges.
    pub(crate) fn slots_of(&self, node: NodeIndex) -> Vec<SlotIndex, MAX_RANGES_PER_DEVICE> {
        let mut slots = Vec::new();
        for (slot, _) in self.ranges_of(node) {
            // A node has no more ranges than there is room for.
            let _ = slots.push(slot);
        }
        slots
    }

    /// Whether the device of a range is registered, and not being removed.
    pub(crate) fn is_live(&self, range: &RangeRecord) -> bool {
        range.node.and_then(|node| self.tree.node(node)).is_some_and(|node| node.state == NodeState::LIVE)
    }

    /// The owner of what belongs to this node, or to the VMM.
    pub(crate) fn owner(&self, node: Option<NodeIndex>) -> Owner<&'d str> {
        match node.and_then(|node| self.tree.node(node)) {
            Some(node) => Owner::Device { id: self.tree.id(node.index()), name: node.name },
            None => Owner::Vmm,
        }
    }

    /// The innermost dispatched window around a range.
    pub(crate) fn dispatched_window(&self, range: &RangeRecord) -> Option<SlotIndex> {
        let mut around = range.container;
        loop {
            let index = around?;
            let window = self.range(index)?;
            if window.is_dispatched() {
                return Some(index);
            }
            around = window.container;
        }
    }

    /// Gives back everything that a node has, and the node. The node has no children, no reader is in its slots, and no handle
    /// is in use.
    pub(crate) fn give_back(&mut self, index: NodeIndex) {
        let Some(node) = self.tree.unlink(index) else { return };
        self.give_back_interrupts(node.first_connection);
        self.give_back_ranges(node.first_range);
        // The id is current as long as the node is linked.
        let _ = self.tree.ids.free(self.tree.id(index));
    }

    #[inline(never)]
    pub(crate) fn give_back_ranges(&mut self, first: Option<SlotIndex>) {
        let mut next = first;
        while let Some((index, range)) = next.and_then(|index| Some((index, *self.range(index)?))) {
            self.pool.drop_wish(index);
            // Nothing lies in the windows of a device without children.
            self.pool.remove(index);
            next = range.next;
        }
    }
}

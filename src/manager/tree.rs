//! The tree of buses and devices, in a fixed array.
//!
//! # Invariants
//! - A node's parent is linked as long as the node is.
//! - Siblings stand in the order of their registration. They may have one name.

use crate::allocator::IdPool;
use crate::arrays::{Arrays, InPlace};
#[cfg(feature = "alloc")]
use crate::arrays::{Boxed, Exhausted, boxed};
use crate::device::Device;
use crate::indices::{ConnectionIndex, NodeIndex, SlotIndex};
use crate::instance::InstanceId;

/// What a node is in, from its registration to the end of its removal. A number and not an enum: the `None` of an
/// `Option<Node>` would be an unused value of the enum, and not all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeState(u8);

impl NodeState {
    /// Its resources are taken, the device has not accepted them yet, and no access reaches it.
    pub(crate) const REGISTERING: Self = Self(0);
    /// Accesses reach it.
    pub(crate) const LIVE: Self = Self(1);
    /// No access reaches it any more; a caller is removing it, and finishes the removal or leaves the node as `DEFERRED`.
    pub(crate) const REMOVING: Self = Self(2);
    /// No access reaches it any more, no caller is removing it, and the heavy barrier has not been executed since.
    pub(crate) const UNFENCED: Self = Self(3);
    /// As `UNFENCED`, while `collect` executes the barrier.
    pub(crate) const FENCING: Self = Self(4);
    /// No access reaches it any more, and the barrier has been executed since: the next `collect` finishes it.
    pub(crate) const DEFERRED: Self = Self(5);
}

/// A bus or a device.
#[derive(Clone, Copy)]
pub(crate) struct Node<'d> {
    pub(crate) device: &'d dyn Device<'d>,
    pub(crate) name: &'d str,
    index: NodeIndex,
    pub(crate) state: NodeState,
    /// How many calls of the device are under way that are no accesses.
    pub(crate) calls: u8,
    /// How many nodes had been linked when this one was, itself included: a node that is linked later has a greater number.
    pub(crate) sequence: u64,
    pub(crate) parent: Option<NodeIndex>,
    pub(crate) first_child: Option<NodeIndex>,
    pub(crate) next_sibling: Option<NodeIndex>,
    /// The sibling before; for the first child, the last one.
    previous_sibling: Option<NodeIndex>,
    /// The first of the node's ranges, which are linked in the order of the requests.
    pub(crate) first_range: Option<SlotIndex>,
    /// The first of the node's interrupts, which are linked in the order of the requests.
    pub(crate) first_connection: Option<ConnectionIndex>,
}

impl Node<'_> {
    pub(crate) fn index(&self) -> NodeIndex {
        self.index
    }
}

/// A node to be linked.
#[derive(Clone, Copy)]
pub(crate) struct NewNode<'d> {
    pub(crate) id: InstanceId,
    pub(crate) device: &'d dyn Device<'d>,
    pub(crate) name: &'d str,
    pub(crate) parent: Option<NodeIndex>,
    pub(crate) first_range: Option<SlotIndex>,
    /// The first of the node's interrupts, which are linked in the order of the requests.
    pub(crate) first_connection: Option<ConnectionIndex>,
}

/// The memory of the tree; all zeros at first.
pub(crate) struct TreeStorage<'d, D: Arrays> {
    nodes: D::Of<Option<Node<'d>>>,
    roots: Roots,
}

struct Roots {
    first: Option<NodeIndex>,
    /// How many nodes have been linked so far. It takes centuries to overflow.
    linked: u64,
}

impl Roots {
    const NEW: Self = Self { first: None, linked: 0 };
}

impl<const DEVICES: usize> TreeStorage<'_, InPlace<DEVICES>> {
    pub(crate) const fn new() -> Self {
        Self { nodes: [None; DEVICES], roots: Roots::NEW }
    }
}

#[cfg(feature = "alloc")]
impl TreeStorage<'_, Boxed> {
    /// With room for so many nodes.
    pub(crate) fn boxed(devices: usize) -> Result<Self, Exhausted> {
        Ok(Self { nodes: boxed(devices, || None)?, roots: Roots::NEW })
    }
}

impl<'d, D: Arrays> TreeStorage<'d, D> {
    pub(crate) fn tree<'s>(&'s mut self, ids: IdPool<'s>) -> Tree<'s, 'd> {
        Tree { nodes: self.nodes.as_mut(), roots: &mut self.roots, ids }
    }
}

/// The nodes, by their indices, which are those of their instance ids.
pub(crate) struct Tree<'s, 'd> {
    nodes: &'s mut [Option<Node<'d>>],
    roots: &'s mut Roots,
    /// A node has an id that is in use, and the pool has its generation.
    pub(crate) ids: IdPool<'s>,
}

impl<'d> Tree<'_, 'd> {
    /// For how many nodes there is room.
    pub(crate) fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// The node at an index, whatever its generation.
    #[inline(never)]
    pub(crate) fn node(&self, index: NodeIndex) -> Option<&Node<'d>> {
        self.nodes.get(index.position())?.as_ref()
    }

    #[inline(never)]
    pub(crate) fn node_mut(&mut self, index: NodeIndex) -> Option<&mut Node<'d>> {
        self.nodes.get_mut(index.position())?.as_mut()
    }

    /// The id of the node at an index.
    pub(crate) fn id(&self, index: NodeIndex) -> InstanceId {
        self.ids.current(index)
    }

    /// The node that the id names; `None` if it is stale.
    pub(crate) fn get(&self, id: InstanceId) -> Option<&Node<'d>> {
        self.node(id.index).filter(|_| self.ids.is_current(id))
    }

    /// As [`get`](Self::get), to change.
    pub(crate) fn get_mut(&mut self, id: InstanceId) -> Option<&mut Node<'d>> {
        if self.ids.is_current(id) { self.node_mut(id.index) } else { None }
    }

    /// The children of `parent`, or the roots, in the order of their registration.
    pub(crate) fn children(&self, parent: Option<NodeIndex>) -> impl Iterator<Item = &Node<'d>> {
        let mut next = self.first_child_of(parent);
        core::iter::from_fn(move || {
            let node = self.node(next?)?;
            next = node.next_sibling;
            Some(node)
        })
    }

    /// Links a new node as the last child of its parent. The caller has allocated the id.
    pub(crate) fn link(&mut self, new: NewNode<'d>) {
        let NewNode { id, device, name, parent, first_range, first_connection } = new;
        let index = id.index;
        self.roots.linked = self.roots.linked.wrapping_add(1);
        let sequence = self.roots.linked;
        let first = self.first_child_of(parent);
        let last = first.and_then(|first| self.node(first)?.previous_sibling);
        self.set_next(last, parent, Some(index));
        if let Some(first) = first.and_then(|first| self.node_mut(first)) {
            first.previous_sibling = Some(index);
        }
        if let Some(cell) = self.nodes.get_mut(index.position()) {
            *cell = Some(Node {
                device,
                name,
                index,
                state: NodeState::REGISTERING,
                calls: 0,
                sequence,
                parent,
                first_child: None,
                next_sibling: None,
                previous_sibling: last.or(Some(index)),
                first_range,
                first_connection,
            });
        }
    }

    /// Unlinks a node without children.
    pub(crate) fn unlink(&mut self, index: NodeIndex) -> Option<Node<'d>> {
        let node = self.nodes.get_mut(index.position())?.take()?;
        let is_first = self.first_child_of(node.parent) == Some(index);
        self.set_next(node.previous_sibling.filter(|_| !is_first), node.parent, node.next_sibling);
        // Behind the last child comes the first.
        let after = node.next_sibling.or_else(|| self.first_child_of(node.parent));
        if let Some(after) = after.and_then(|after| self.node_mut(after)) {
            after.previous_sibling = node.previous_sibling;
        }
        Some(node)
    }

    /// Makes `child` the child of `parent` behind `previous`, or the first.
    #[inline(never)]
    fn set_next(&mut self, previous: Option<NodeIndex>, parent: Option<NodeIndex>, child: Option<NodeIndex>) {
        if let Some(previous) = previous.and_then(|previous| self.node_mut(previous)) {
            previous.next_sibling = child;
        } else if let Some(parent) = parent.and_then(|parent| self.node_mut(parent)) {
            parent.first_child = child;
        } else {
            self.roots.first = child;
        }
    }

    pub(crate) fn first_root(&self) -> Option<NodeIndex> {
        self.roots.first
    }

    /// The first child of `parent`, or the first root.
    fn first_child_of(&self, parent: Option<NodeIndex>) -> Option<NodeIndex> {
        parent.map_or(self.roots.first, |parent| self.node(parent)?.first_child)
    }

    /// The node after `index` in a depth-first walk that does not leave the subtree of `top`.
    pub(crate) fn next_in_walk(&self, index: NodeIndex, top: Option<NodeIndex>) -> Option<NodeIndex> {
        let node = self.node(index)?;
        if node.first_child.is_some() {
            return node.first_child;
        }
        let mut at = Some(index);
        while at != top {
            let node = self.node(at?)?;
            if node.next_sibling.is_some() {
                return node.next_sibling;
            }
            at = node.parent;
        }
        None
    }

    /// The nodes of the subtree of `top`, from the top down.
    pub(crate) fn subtree(&self, top: NodeIndex) -> impl Iterator<Item = &Node<'d>> {
        let mut next = Some(top);
        core::iter::from_fn(move || {
            let index = next?;
            let node = self.node(index)?;
            next = self.next_in_walk(index, Some(top));
            Some(node)
        })
    }

    /// Every node, in no order.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node<'d>> {
        self.nodes.iter().flatten()
    }

    /// As [`nodes`](Self::nodes), to change.
    pub(crate) fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node<'d>> {
        self.nodes.iter_mut().flatten()
    }

    /// How many nodes have been linked so far.
    pub(crate) fn linked(&self) -> u64 {
        self.roots.linked
    }

    /// The ancestors of a node, from its parent up.
    pub(crate) fn ancestors(&self, index: NodeIndex) -> impl Iterator<Item = NodeIndex> {
        let parent_of = |index: NodeIndex| self.node(index)?.parent;
        core::iter::successors(parent_of(index), move |index| parent_of(*index))
    }

    /// Whether `ancestor` is `index` itself or above it.
    pub(crate) fn is_within(&self, index: NodeIndex, ancestor: NodeIndex) -> bool {
        index == ancestor || self.ancestors(index).any(|above| above == ancestor)
    }
}

const _: () = assert!(size_of::<Option<Node<'_>>>() <= 56, "a node has no gaps");

//! The tree of buses and devices, in a fixed array.
//!
//! # Invariants
//! - A node is linked in the tree and in its name's chain, or it is neither.
//! - A node's parent is linked as long as the node is.
//! - Siblings have different names, and stand in the order of their registration.

use crate::allocator::InstanceId;
pub(crate) use crate::allocator::NONE;
use crate::device::Device;

/// Where a node stands between its registration and the end of its removal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// Its resources are taken, it has not been told of them yet, and no access reaches it.
    Registering,
    /// Accesses reach it.
    Live,
    /// No access reaches it any more; a caller has it in hand, and finishes it or leaves it as `Deferred`.
    Leaving,
    /// No access reaches it any more, no caller has it in hand, and the heavy barrier has not been executed since.
    Unfenced,
    /// As `Unfenced`, while `collect` executes the barrier.
    Fencing,
    /// No access reaches it any more, and the barrier has been executed since: the next `collect` finishes it.
    Deferred,
}

/// A device's place on an interrupt line.
#[derive(Clone, Copy)]
pub(crate) struct WireUse {
    pub(crate) wire: u16,
    /// Which bit of the wire's sources is the device's.
    source: u8,
}

impl WireUse {
    /// For source number `source` of the wire, less than [`MAX_SHARING`](crate::MAX_SHARING).
    pub(crate) fn new(wire: u16, source: u32) -> Self {
        Self { wire, source: source as u8 }
    }

    /// The bit of the source.
    pub(crate) fn source(self) -> u32 {
        1_u32.wrapping_shl(self.source.into())
    }
}

/// A bus or a device.
#[derive(Clone, Copy)]
pub(crate) struct Node<'d> {
    pub(crate) device: &'d dyn Device<'d>,
    pub(crate) name: &'d str,
    pub(crate) id: InstanceId,
    pub(crate) life: Life,
    /// How many nodes had been linked when this one was, itself included: what is linked later has a greater number.
    pub(crate) sequence: u64,
    pub(crate) parent: u16,
    pub(crate) first_child: u16,
    last_child: u16,
    pub(crate) next_sibling: u16,
    previous_sibling: u16,
    /// The next node whose name falls into the same chain.
    next_in_chain: u16,
    /// The first of the node's ranges, which form a chain in the order of the requests.
    pub(crate) first_range: u16,
    pub(crate) irq: Option<WireUse>,
}

/// The nodes, by the index part of their instance ids.
pub(crate) struct Topology<'d, const DEVICES: usize> {
    nodes: [Option<Node<'d>>; DEVICES],
    first_root: u16,
    last_root: u16,
    /// How many nodes have been linked so far. It takes centuries to come to its end.
    linked: u64,
    /// The heads of the chains of names: so that neither registration nor a look-up by path scans the siblings.
    chains: [u16; DEVICES],
}

impl<'d, const DEVICES: usize> Topology<'d, DEVICES> {
    pub(crate) const fn new() -> Self {
        Self { nodes: [None; DEVICES], first_root: NONE, last_root: NONE, linked: 0, chains: [NONE; DEVICES] }
    }

    /// The node at an index, whoever holds it.
    #[inline(never)]
    pub(crate) fn node(&self, index: u16) -> Option<&Node<'d>> {
        self.nodes.get(index as usize)?.as_ref()
    }

    #[inline(never)]
    pub(crate) fn node_mut(&mut self, index: u16) -> Option<&mut Node<'d>> {
        self.nodes.get_mut(index as usize)?.as_mut()
    }

    /// The node that the id names; `None` if it is stale.
    pub(crate) fn get(&self, id: InstanceId) -> Option<&Node<'d>> {
        self.node(id.index).filter(|node| node.id == id)
    }

    /// The child of `parent` (or the root, for [`NONE`]) with that name.
    pub(crate) fn child(&self, parent: u16, name: &str) -> Option<&Node<'d>> {
        let mut next = *self.chains.get(chain(parent, name, DEVICES))?;
        while let Some(node) = self.node(next) {
            // Byte by byte: names are short, and `memcmp` is longer than all of this.
            if node.parent == parent && node.name.bytes().eq(name.bytes()) {
                return Some(node);
            }
            next = node.next_in_chain;
        }
        None
    }

    /// Links a new node as the last child of `parent`. The caller has checked that the name is free, and allocated the
    /// id.
    pub(crate) fn link(
        &mut self,
        id: InstanceId,
        device: &'d dyn Device<'d>,
        name: &'d str,
        parent: u16,
        first_range: u16,
        irq: Option<WireUse>,
    ) {
        let index = id.index;
        self.linked = self.linked.wrapping_add(1);
        let sequence = self.linked;
        let previous_sibling = self.node(parent).map_or(self.last_root, |parent| parent.last_child);
        let next_in_chain = match self.chains.get_mut(chain(parent, name, DEVICES)) {
            Some(head) => core::mem::replace(head, index),
            None => NONE,
        };
        self.set_next(previous_sibling, parent, index);
        self.set_previous(NONE, parent, index);
        if let Some(place) = self.nodes.get_mut(index as usize) {
            *place = Some(Node {
                device,
                name,
                id,
                life: Life::Registering,
                sequence,
                parent,
                first_child: NONE,
                last_child: NONE,
                next_sibling: NONE,
                previous_sibling,
                next_in_chain,
                first_range,
                irq,
            });
        }
    }

    /// Takes a node without children out.
    pub(crate) fn unlink(&mut self, index: u16) -> Option<Node<'d>> {
        let node = self.nodes.get_mut(index as usize)?.take()?;
        self.set_next(node.previous_sibling, node.parent, node.next_sibling);
        self.set_previous(node.next_sibling, node.parent, node.previous_sibling);
        let head = self.chains.get_mut(chain(node.parent, node.name, DEVICES))?;
        let mut before = *head;
        if before == index {
            *head = node.next_in_chain;
        }
        while let Some(other) = self.node_mut(before) {
            before = other.next_in_chain;
            if before == index {
                other.next_in_chain = node.next_in_chain;
            }
        }
        Some(node)
    }

    /// Says which child of `parent` follows `previous`, or is the first.
    #[inline(never)]
    fn set_next(&mut self, previous: u16, parent: u16, child: u16) {
        if let Some(previous) = self.node_mut(previous) {
            previous.next_sibling = child;
        } else if let Some(parent) = self.node_mut(parent) {
            parent.first_child = child;
        } else {
            self.first_root = child;
        }
    }

    /// Says which child of `parent` stands before `next`, or is the last.
    #[inline(never)]
    fn set_previous(&mut self, next: u16, parent: u16, child: u16) {
        if let Some(next) = self.node_mut(next) {
            next.previous_sibling = child;
        } else if let Some(parent) = self.node_mut(parent) {
            parent.last_child = child;
        } else {
            self.last_root = child;
        }
    }

    pub(crate) fn first_root(&self) -> u16 {
        self.first_root
    }

    /// The node after `index` in a depth-first walk that does not leave the subtree of `top`.
    pub(crate) fn next_in_walk(&self, index: u16, top: u16) -> u16 {
        let Some(node) = self.node(index) else { return NONE };
        if node.first_child != NONE {
            return node.first_child;
        }
        let mut at = index;
        while at != top {
            let Some(node) = self.node(at) else { return NONE };
            if node.next_sibling != NONE {
                return node.next_sibling;
            }
            at = node.parent;
        }
        NONE
    }

    /// The nodes of the subtree of `top`, from the top down.
    pub(crate) fn subtree(&self, top: u16) -> impl Iterator<Item = &Node<'d>> {
        let mut next = top;
        core::iter::from_fn(move || {
            let node = self.node(next)?;
            next = self.next_in_walk(next, top);
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
        self.linked
    }

    /// How many ancestors a node has.
    pub(crate) fn depth(&self, index: u16) -> usize {
        let mut depth = 0;
        let mut at = self.node(index).map_or(NONE, |node| node.parent);
        while let Some(node) = self.node(at) {
            depth += 1;
            at = node.parent;
        }
        depth
    }

    /// Whether `ancestor` is `index` itself or above it.
    pub(crate) fn is_within(&self, index: u16, ancestor: u16) -> bool {
        let mut at = index;
        while at != ancestor {
            let Some(node) = self.node(at) else { return false };
            at = node.parent;
        }
        at != NONE
    }
}

/// Which chain the name of a child of `parent` falls into: FNV-1a over both.
#[inline(never)]
fn chain(parent: u16, name: &str, chains: usize) -> usize {
    let mut hash = 0x811c_9dc5_u32 ^ parent as u32;
    for byte in name.bytes() {
        hash = (hash ^ byte as u32).wrapping_mul(0x0100_0193);
    }
    (hash as usize).checked_rem(chains).unwrap_or(0)
}

//! Taking devices away while vCPUs use them.
//!
//! A removal has four steps. It waits, for a bounded time, for the callbacks that run when it is called: if one does
//! not end, it may be the caller's own, and the removal gives up before it has changed anything. Then it publishes an
//! index without the device and retires the device's slots: from then on no access enters. Then it waits for those that
//! entered in between, each of which ends, because none of them can be waiting for this removal: a removal of theirs
//! would have found the caller's callback running, and given up in its own first step. Last, everything the device had
//! is given back.

use crate::access::{Access, Parent};
use crate::allocator::InstanceId;
use crate::dispatcher::Nested;
use crate::error::UnregisterError;
use crate::interrupt::Connection;
use crate::manager::DeviceManager;
use crate::state::State;
use crate::sync::spin_once;
use crate::topology::{Life, NONE};

/// What is to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Device,
    Subtree,
}

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> DeviceManager<'d, DEVICES, RANGES, VCPUS> {
    /// Removes a device that has no children. When the call returns, no vCPU is inside the device's callbacks, none
    /// will enter them again, the device's interrupt is deasserted, and everything it had is free; the id is never used
    /// again.
    ///
    /// It waits for the callbacks of this device only. A callback that is running when the call is made is waited for
    /// as long as the manager's patience lasts ([`with_patience`](Self::with_patience)), one that starts before the
    /// device has become unreachable for as long as it takes. Callbacks of accesses without a
    /// [`Dispatcher`](crate::Dispatcher) are counted and not told apart: where several vCPUs keep a device busy in this
    /// way, the patience may end before there was a moment without any.
    ///
    /// When another vCPU is just telling the controller of a change of the same shared line, that vCPU tells it of the
    /// deassertion too, and the call returns without waiting for it.
    ///
    /// # Errors
    /// [`UnregisterError`]; nothing has changed then, and accesses still reach the device. From within the device's own
    /// callback it is [`InUse`](UnregisterError::InUse), after the patience, or at once
    /// [`InOwnCallback`](UnregisterError::InOwnCallback) through [`nested`](Self::nested).
    pub fn unregister_device(&'d self, id: InstanceId) -> Result<(), UnregisterError<'d>> {
        self.remove(id, Scope::Device, None)
    }

    /// Removes a device together with everything below it, in one act: accesses find either the whole subtree or
    /// nothing of it. As [`unregister_device`](Self::unregister_device) otherwise.
    ///
    /// # Errors
    /// As [`unregister_device`](Self::unregister_device), for any device of the subtree, `HasChildren` excepted.
    pub fn unregister_subtree(&'d self, id: InstanceId) -> Result<(), UnregisterError<'d>> {
        self.remove(id, Scope::Subtree, None)
    }

    /// Removes a device without waiting: for a device that removes itself from its own callback, and for two that
    /// remove each other. When the call returns, no access will enter the device again; callbacks that are running go
    /// on, and what the device had stays taken until they have ended and the next [`collect`](Self::collect), or
    /// registration, has come by: its place in the topology and in the address map, its name, and its interrupt line,
    /// asserted if it was.
    ///
    /// # Errors
    /// [`UnregisterError`], all but `InUse` and `InOwnCallback`. Nothing has changed then.
    pub fn unregister_device_deferred(&'d self, id: InstanceId) -> Result<(), UnregisterError<'d>> {
        let mut state = self.state();
        self.check(&state, id, Scope::Device)?;
        self.make_unreachable(&mut state, id.index, Life::Deferred);
        state.deferred = state.deferred.saturating_add(1);
        self.slots.barrier();
        Ok(())
    }

    /// Finishes deferred removals whose callbacks have ended. How many have not: their devices may still be running.
    pub fn collect(&'d self) -> usize {
        loop {
            let (index, connection) = {
                let mut state = self.state();
                if state.deferred == 0 {
                    return 0;
                }
                let Some(index) = self.find_quiet(&state) else { return state.deferred as usize };
                state.deferred = state.deferred.saturating_sub(1);
                if let Some(node) = state.topology.node_mut(index) {
                    node.life = Life::Leaving;
                }
                (index, self.connection(&state, index))
            };
            self.finish(index, connection);
        }
    }

    /// A deferred node that nobody is inside any more.
    fn find_quiet(&self, state: &State<'d, DEVICES, RANGES>) -> Option<u16> {
        let mut index = state.topology.first_root();
        while let Some(node) = state.topology.node(index) {
            if node.life == Life::Deferred
                && state.ranges_of(index).all(|(slot, _)| self.slots.reclaim(slot))
                && self.gates.get(index as usize).is_none_or(|gate| gate.is_idle())
            {
                return Some(index);
            }
            index = state.topology.next_in_walk(index, NONE);
        }
        None
    }

    fn remove(&'d self, id: InstanceId, scope: Scope, within: Option<&Access<'_>>) -> Result<(), UnregisterError<'d>> {
        self.wait_for_current_callbacks(id, scope, within)?;
        let top = id.index;
        {
            let mut state = self.state();
            self.check(&state, id, scope)?;
            self.make_unreachable(&mut state, top, Life::Leaving);
        }
        self.slots.barrier();
        // The nodes are all leaving: nobody else links or unlinks any below the top, and the top's parent stays.
        loop {
            let (leaf, slots, connection) = {
                let state = self.state();
                let leaf = last_leaf(&state, top);
                (leaf, state.slots_of(leaf), self.connection(&state, leaf))
            };
            for slot in slots {
                while !self.slots.reclaim(slot) {
                    spin_once();
                }
            }
            self.finish(leaf, connection);
            if leaf == top {
                return Ok(());
            }
        }
    }

    /// The first step: nothing has changed when it gives up.
    fn wait_for_current_callbacks(
        &self,
        id: InstanceId,
        scope: Scope,
        within: Option<&Access<'_>>,
    ) -> Result<(), UnregisterError<'d>> {
        let mut patience = self.patience;
        let mut index = id.index;
        loop {
            let (name, slots, next) = {
                let state = self.state();
                self.check(&state, id, scope)?;
                // Another registration may have changed the subtree meanwhile; what it added has no callback running
                // that began before this call.
                let Some(node) = state.topology.node(index) else { return Ok(()) };
                (node.name, state.slots_of(index), state.topology.next_in_walk(index, id.index))
            };
            if chain(within).any(|access| access.caller.manager == self.identity() && access.node == index) {
                return Err(UnregisterError::InOwnCallback { device: name });
            }
            if !slots.iter().all(|slot| self.slots.wait_for_current_readers(*slot, &mut patience)) {
                return Err(UnregisterError::InUse { device: name });
            }
            if next == NONE {
                return Ok(());
            }
            index = next;
        }
    }

    /// Whether the device, or its subtree, may go.
    fn check(
        &self,
        state: &State<'d, DEVICES, RANGES>,
        id: InstanceId,
        scope: Scope,
    ) -> Result<(), UnregisterError<'d>> {
        let top = state.topology.get(id).ok_or(UnregisterError::NotFound { id })?;
        if scope == Scope::Device
            && let Some(child) = state.topology.node(top.first_child)
        {
            return Err(UnregisterError::HasChildren { device: top.name, child: child.name });
        }
        let mut index = id.index;
        while let Some(node) = state.topology.node(index) {
            if node.life != Life::Live {
                return Err(UnregisterError::Busy { device: node.name });
            }
            index = state.topology.next_in_walk(index, id.index);
        }
        Ok(())
    }

    /// Publishes an index without the subtree of `top` and retires its slots.
    fn make_unreachable(&self, state: &mut State<'d, DEVICES, RANGES>, top: u16, life: Life) {
        let mut index = top;
        let mut dispatched = false;
        while let Some(node) = state.topology.node_mut(index) {
            node.life = life;
            dispatched |= state.ranges_of(index).any(|(_, range)| range.is_dispatched());
            index = state.topology.next_in_walk(index, top);
        }
        let alone = state.topology.node(top).is_none_or(|node| node.first_child == NONE);
        if dispatched {
            self.publish(|edit| {
                if !alone {
                    return self.index_rebuild(edit, state);
                }
                for (slot, range) in state.ranges_of(top) {
                    self.index_remove(edit, slot, range, state);
                }
            });
        }
        index = top;
        while state.topology.node(index).is_some() {
            for (slot, _) in state.ranges_of(index) {
                self.slots.retire(slot);
            }
            if let Some(gate) = self.gates.get(index as usize) {
                gate.close();
            }
            index = state.topology.next_in_walk(index, top);
        }
    }

    /// The last step, for a node that no reader is in and whose interrupt handles are turned away.
    pub(crate) fn finish(&self, index: u16, connection: Option<Connection<'d>>) {
        if let Some(gate) = self.gates.get(index as usize) {
            gate.wait_idle();
        }
        if let Some(connection) = connection {
            connection.release(self.controller);
        }
        self.state().give_back(index);
    }
}

/// The node of the subtree that a depth-first walk comes to first of those without children.
fn last_leaf<const DEVICES: usize, const RANGES: usize>(state: &State<'_, DEVICES, RANGES>, top: u16) -> u16 {
    let mut leaf = top;
    while let Some(node) = state.topology.node(leaf)
        && node.first_child != NONE
    {
        leaf = node.first_child;
    }
    leaf
}

/// The access, the one it is nested in, and so on up to the guest's.
fn chain<'a>(access: Option<&Access<'a>>) -> impl Iterator<Item = Parent<'a>> {
    core::iter::successors(access.map(Access::as_parent), |access| access.caller.parent.copied())
}

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> Nested<'_, 'd, DEVICES, RANGES, VCPUS> {
    /// As [`DeviceManager::unregister_device`], but refused at once if it would wait for the caller itself.
    ///
    /// # Errors
    /// As [`DeviceManager::unregister_device`]; [`InOwnCallback`](UnregisterError::InOwnCallback) if the access, or one
    /// that it is nested in, is the device's.
    pub fn unregister_device(&self, id: InstanceId) -> Result<(), UnregisterError<'d>> {
        self.manager.remove(id, Scope::Device, Some(self.access))
    }

    /// As [`DeviceManager::unregister_subtree`], but refused at once if it would wait for the caller itself.
    ///
    /// # Errors
    /// As [`unregister_device`](Self::unregister_device), `HasChildren` excepted.
    pub fn unregister_subtree(&self, id: InstanceId) -> Result<(), UnregisterError<'d>> {
        self.manager.remove(id, Scope::Subtree, Some(self.access))
    }
}

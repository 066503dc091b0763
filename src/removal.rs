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
use crate::interrupt::{Connection, Gate};
use crate::manager::DeviceManager;
use crate::state::State;
use crate::sync::spin_once;
use crate::topology::{Life, NONE, Node};

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
    /// device has become unreachable until it returns. Callbacks of accesses without a
    /// [`Dispatcher`](crate::Dispatcher) are counted and not told apart: where several vCPUs keep a device busy in this
    /// way, the patience may end before there was a moment without any.
    ///
    /// Where another caller is telling the controller of a change of the same shared line, that one tells it of the
    /// deassertion too, and the call returns without waiting for it. Where the controller does not take the deassertion,
    /// [`collect`](Self::collect) tells it again; a line that no device has any more stays taken until then. Where the heavy
    /// barrier or the controller unwinds, the device is unreachable, and what is left of the removal is left to `collect`.
    ///
    /// # Errors
    /// [`UnregisterError`]; nothing has changed then, and accesses still reach the device. From within the device's own
    /// callback it is [`InUse`](UnregisterError::InUse), after the patience, or at once
    /// [`InOwnCallback`](UnregisterError::InOwnCallback) through [`nested`](Self::nested).
    pub fn unregister_device(&'d self, id: InstanceId) -> Result<(), UnregisterError<'d>> {
        self.remove(id, Scope::Device, None)
    }

    /// Removes a device together with everything below it, in one act: accesses find either the whole subtree or
    /// nothing of it. As [`unregister_device`](Self::unregister_device) otherwise, with one patience for the subtree as it is
    /// when it becomes unreachable, whatever is registered in it or removed from it meanwhile.
    ///
    /// # Errors
    /// As [`unregister_device`](Self::unregister_device), for any device of the subtree, `HasChildren` excepted.
    pub fn unregister_subtree(&'d self, id: InstanceId) -> Result<(), UnregisterError<'d>> {
        self.remove(id, Scope::Subtree, None)
    }

    /// Removes a device without waiting: for a device that removes itself from its own callback, and for two that
    /// remove each other. When the call returns, no access will enter the device again; callbacks that are running go
    /// on, and what the device had stays taken until they have ended and the next [`collect`](Self::collect), or
    /// registration, finds that: its place in the topology and in the address map, its name, and its interrupt line,
    /// asserted if it was.
    ///
    /// # Errors
    /// [`UnregisterError`], all but `InUse` and `InOwnCallback`. Nothing has changed then.
    pub fn unregister_device_deferred(&'d self, id: InstanceId) -> Result<(), UnregisterError<'d>> {
        let mut state = self.state();
        self.check(&state, id, Scope::Device)?;
        self.make_unreachable(&mut state, id.index, Life::Unfenced);
        state.deferred = state.deferred.saturating_add(1);
        Ok(())
    }

    /// Finishes what removals have left: deferred ones whose callbacks have ended, and interrupt lines whose level the
    /// controller had not taken when a device was removed. How many of both are left: devices that may still be running, and
    /// lines that may still be asserted.
    ///
    /// With the asymmetric fence, it executes the heavy barrier once if there are deferred removals for which that has not
    /// been done. Each registration calls it first.
    pub fn collect(&'d self) -> usize {
        self.fence_deferred();
        let mut from = 0;
        while let Some((index, parent)) = self.take_deferred(from) {
            let (slots, connection) = {
                let state = self.state();
                (state.slots_of(index), self.connection(&state, index))
            };
            let is_idle = self.gates.get(index as usize).is_none_or(Gate::is_idle);
            if is_idle && slots.iter().all(|slot| self.slots.reclaim(*slot)) {
                self.finish(index, connection, true);
                // The last child of a bus that is deferred, too, may have gone.
                from = parent.min(index.saturating_add(1));
            } else {
                self.set_life(index, Life::Deferred);
                from = index.saturating_add(1);
            }
        }
        self.tell_owed();
        let state = self.state();
        usize::from(state.deferred) + usize::from(state.owed)
    }

    /// Executes the heavy barrier for the deferred removals that it has not been executed for, unless another caller does.
    fn fence_deferred(&self) {
        {
            let mut state = self.state();
            if state.deferred == 0 || state.topology.nodes().any(|node| node.life == Life::Fencing) {
                return;
            }
            let mut unfenced = false;
            for node in state.topology.nodes_mut().filter(|node| node.life == Life::Unfenced) {
                node.life = Life::Fencing;
                unfenced = true;
            }
            if !unfenced {
                return;
            }
        }
        let mut fenced = OnDrop::new(Life::Unfenced, |life| {
            for node in self.state().topology.nodes_mut().filter(|node| node.life == Life::Fencing) {
                node.life = *life;
            }
        });
        self.slots.barrier();
        fenced.value = Life::Deferred;
    }

    /// Takes in hand a deferred node without children, the first from index `from` on. With the index of its parent.
    fn take_deferred(&self, from: u16) -> Option<(u16, u16)> {
        let mut state = self.state();
        if state.deferred == 0 {
            return None;
        }
        let is_ready =
            |node: &&mut Node<'d>| node.life == Life::Deferred && node.first_child == NONE && node.id.index >= from;
        let node = state.topology.nodes_mut().find(is_ready)?;
        node.life = Life::Leaving;
        Some((node.id.index, node.parent))
    }

    fn set_life(&self, index: u16, life: Life) {
        if let Some(node) = self.state().topology.node_mut(index) {
            node.life = life;
        }
    }

    /// Tells the controller the levels that it had not taken when a device was removed.
    fn tell_owed(&'d self) {
        let mut from = 0;
        loop {
            let (used, connection) = {
                let mut state = self.state();
                if state.owed == 0 {
                    return;
                }
                let Some(used) = state.take_owed(from) else { return };
                (used, self.connection_of(&state, used))
            };
            from = used.wire.saturating_add(1);
            let _give_back = OnDrop::new((), |()| {
                let mut state = self.state();
                state.give_back_owed(used, is_settled(connection));
            });
            if let Some(connection) = connection {
                connection.release(self.controller);
            }
        }
    }

    fn remove(&'d self, id: InstanceId, scope: Scope, within: Option<&Access<'_>>) -> Result<(), UnregisterError<'d>> {
        self.wait_and_make_unreachable(id, scope, within)?;
        // If the barrier or the controller unwinds, what is left of the subtree waits for `collect`.
        let mut left = OnDrop::new(true, |left| {
            if *left {
                self.defer(id);
            }
        });
        self.slots.barrier();
        // The nodes are all leaving: nobody else links or unlinks any below the top, and the top's parent stays.
        loop {
            let (leaf, slots, connection) = {
                let state = self.state();
                let leaf = first_leaf(&state, id.index);
                (leaf, state.slots_of(leaf), self.connection(&state, leaf))
            };
            for slot in slots {
                while !self.slots.reclaim(slot) {
                    spin_once();
                }
            }
            self.finish(leaf, connection, false);
            if leaf == id.index {
                left.value = false;
                return Ok(());
            }
        }
    }

    /// Leaves a subtree that is leaving to `collect`.
    fn defer(&self, top: InstanceId) {
        let mut state = self.state();
        let mut index = state.topology.get(top).map_or(NONE, |node| node.id.index);
        while let Some(node) = state.topology.node_mut(index) {
            node.life = Life::Unfenced;
            state.deferred = state.deferred.saturating_add(1);
            index = state.topology.next_in_walk(index, top.index);
        }
    }

    /// The first two steps. For each device of the subtree, it waits until the callbacks have ended that it finds running.
    /// When it finds, in one hold of the lock, that it has waited for every device of the subtree, it makes them all
    /// unreachable in the same hold. Nothing has changed when it gives up.
    fn wait_and_make_unreachable(
        &self,
        id: InstanceId,
        scope: Scope,
        within: Option<&Access<'_>>,
    ) -> Result<(), UnregisterError<'d>> {
        let mut patience = self.patience;
        // In the order in which the nodes were linked: that stays, whatever is linked and unlinked meanwhile.
        let (mut waited_for, mut linked) = (0, None);
        loop {
            let (name, slots) = {
                let mut state = self.state();
                self.check(&state, id, scope)?;
                let subtree = || state.topology.subtree(id.index);
                let is_own = |node: &&Node<'_>| {
                    let own =
                        |access: Parent<'_>| access.caller.manager == self.identity() && access.node == node.id.index;
                    chain(within).any(own)
                };
                if let Some(own) = subtree().find(is_own) {
                    return Err(UnregisterError::InOwnCallback { device: own.name });
                }
                let linked = *linked.get_or_insert(state.topology.linked());
                let next = subtree().filter(|node| node.sequence > waited_for).min_by_key(|node| node.sequence);
                let Some(next) = next else {
                    self.make_unreachable(&mut state, id.index, Life::Leaving);
                    return Ok(());
                };
                waited_for = next.sequence;
                if next.sequence > linked {
                    // Registered after the call: the patience bounds the number of these.
                    let in_use = UnregisterError::InUse { device: next.name };
                    patience = patience.checked_sub(1).ok_or(in_use)?;
                }
                (next.name, state.slots_of(next.id.index))
            };
            if !slots.iter().all(|slot| self.slots.wait_for_current_readers(*slot, &mut patience)) {
                return Err(UnregisterError::InUse { device: name });
            }
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

    /// The last step, for a node that no reader is in and whose interrupt handles are turned away. It is taken even if the
    /// controller unwinds. `deferred` says that the node counts among the deferred ones.
    pub(crate) fn finish(&self, index: u16, connection: Option<Connection<'d>>, deferred: bool) {
        let _give_back = OnDrop::new((), |()| {
            let mut state = self.state();
            state.give_back(index, is_settled(connection));
            state.deferred = state.deferred.saturating_sub(deferred.into());
        });
        if let Some(gate) = self.gates.get(index as usize) {
            gate.wait_idle();
        }
        if let Some(connection) = connection {
            connection.release(self.controller);
        }
    }
}

/// Whether the controller has taken the level of a line. For the last device on it, only what is seen under the lock counts:
/// until then another one may be driving the line.
fn is_settled(connection: Option<Connection<'_>>) -> bool {
    connection.is_none_or(|connection| connection.wire.is_settled())
}

/// The node of the subtree that a depth-first walk comes to first of those without children.
fn first_leaf<const DEVICES: usize, const RANGES: usize>(state: &State<'_, DEVICES, RANGES>, top: u16) -> u16 {
    let mut leaf = top;
    while let Some(node) = state.topology.node(leaf)
        && node.first_child != NONE
    {
        leaf = node.first_child;
    }
    leaf
}

/// Does something when it is dropped, whether what comes before that returns or unwinds.
struct OnDrop<T, F: FnMut(&mut T)> {
    value: T,
    act: F,
}

impl<T, F: FnMut(&mut T)> OnDrop<T, F> {
    fn new(value: T, act: F) -> Self {
        Self { value, act }
    }
}

impl<T, F: FnMut(&mut T)> Drop for OnDrop<T, F> {
    fn drop(&mut self) {
        (self.act)(&mut self.value);
    }
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

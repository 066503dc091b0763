//! Taking devices away while vCPUs use them.
//!
//! A removal has four steps:
//!
//! 1. It waits, for a bounded time, for the callbacks that run when it is called. A callback that does not end may be the
//!    caller's own: the removal gives up, and has changed nothing.
//! 2. It publishes an index without the device and retires the device's slots. From then on no access enters.
//! 3. It waits for the callbacks that began in between. Each of them ends, because none can wait for this removal: a removal
//!    that such a callback calls finds the caller's own callback running, and gives up in its first step.
//! 4. Everything that the device had is given back.

use crate::access::{Access, OuterAccess};
use crate::error::UnregisterError;
use crate::indices::NodeIndex;
use crate::instance::InstanceId;
use crate::interrupt::HandleGate;
use crate::manager::device_manager::DeviceManager;
use crate::manager::notify::Turn;
use crate::manager::on_drop::OnDrop;
use crate::manager::state::State;
use crate::manager::tree::{Node, NodeState};
use crate::manager::wait::Wait;
use crate::resource::MAX_IRQS_PER_DEVICE;
use crate::sync::spin_once;

/// What a removal removes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Device,
    Subtree,
}

impl<'d> DeviceManager<'d> {
    /// Removes a device that has no children. When the call returns, no vCPU is inside the device's callbacks, none
    /// will enter them again, the device's interrupt is deasserted, and everything it had is free; the id is never used
    /// again.
    ///
    /// It waits for the callbacks of this device only. For callbacks that are running when it is called, it waits at most as
    /// long as the manager's spin limit says ([`with_removal_spins`](Self::with_removal_spins)). For callbacks that start
    /// before the device has become unreachable, it waits until they return. Accesses without a
    /// [`Dispatcher`](crate::Dispatcher) may be counted, and counted callbacks are not told apart: where several vCPUs keep a
    /// device busy in this way, the spin limit may end before there was a moment without any.
    ///
    /// Where another caller is telling the controller of a change of the same shared line, that caller tells it of the
    /// deassertion too, and the removal returns without waiting for it. Where the controller does not take the deassertion,
    /// [`collect`](Self::collect) tells it again; a line that no device has any more stays taken until then. Where the heavy
    /// barrier or the controller unwinds, the device is unreachable, and the rest of the removal is left to `collect`.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, IoError, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// let device = Constant("card", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let range = [IoResource::mmio(0x1000, 0x1000)];
    /// let card = manager.register_device(&device, None, &range, &[]).unwrap();
    /// assert_eq!(manager.unregister_device(card), Ok(()));
    ///
    /// // No access reaches it any more, and everything it had is free.
    /// let mut data = [0; 1];
    /// assert_eq!(manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio), Err(IoError::Unclaimed));
    /// assert!(manager.register_device(&device, None, &range, &[]).is_ok());
    /// ```
    ///
    /// # Errors
    /// [`UnregisterError`]; nothing has changed then, and accesses still reach the device. From within the device's own
    /// callback it is [`InUse`](UnregisterError::InUse), at the spin limit, or through [`nested`](Self::nested) at once
    /// [`InOwnCallback`](UnregisterError::InOwnCallback).
    pub fn unregister_device(&'d self, id: InstanceId) -> Result<(), UnregisterError<&'d str>> {
        self.remove(id, Scope::Device, None)
    }

    /// Removes a device together with everything below it, in one act: accesses find either the whole subtree or
    /// nothing of it. As [`unregister_device`](Self::unregister_device) otherwise. It removes the subtree as it is when it
    /// becomes unreachable. One spin limit holds for all of it, whatever is registered in it or removed from it meanwhile.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
    ///
    /// let (dock, disk) = (Constant("dock", 1), Constant("disk", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let bus = manager.register_device(&dock, None, &[], &[]).unwrap();
    /// manager.register_device(&disk, Some(bus), &[], &[]).unwrap();
    /// assert_eq!(manager.unregister_subtree(bus), Ok(()));
    /// assert_eq!(manager.walk().count(), 0);
    /// ```
    ///
    /// # Errors
    /// As [`unregister_device`](Self::unregister_device), for any device of the subtree, `HasChildren` excepted.
    pub fn unregister_subtree(&'d self, id: InstanceId) -> Result<(), UnregisterError<&'d str>> {
        self.remove(id, Scope::Subtree, None)
    }

    /// Removes a device without waiting: for a device that removes itself from its own callback, and for two that
    /// remove each other. When the call returns, no access will enter the device again, and callbacks that are running go on.
    ///
    /// What the device had stays taken until these callbacks have ended and the next [`collect`](Self::collect), or
    /// registration, finds that: its node in the topology, its ranges in the address map, and its interrupt line, asserted if it
    /// was.
    ///
    /// ```
    /// use vm_device::{
    ///     Access, Device, DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// /// A card that the guest ejects by a write to the card's own register.
    /// struct Card<'d>(&'d DeviceManager<'d>);
    ///
    /// impl<'d> Device<'d> for Card<'d> {
    ///     fn name(&self) -> &str {
    ///         "card"
    ///     }
    ///     fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    ///     fn write(&self, _: &Access<'_>, _: &[u8]) {
    ///         if let Ok(card) = self.0.find_by_path("/card") {
    ///             let _ = self.0.unregister_device_deferred(card);
    ///         }
    ///     }
    /// }
    ///
    /// static STORAGE: Storage<8, 16, 2> = Storage::new();
    /// static MANAGER: DeviceManager<'static> = DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// static CARD: Card<'static> = Card(&MANAGER);
    ///
    /// MANAGER.register_device(&CARD, None, &[IoResource::mmio(0x1000, 4)], &[])?;
    /// MANAGER.dispatcher(0)?.write(GuestAddress(0x1000), &[1], IoType::Mmio)?;
    /// // The callback has ended: nothing is left to wait for.
    /// assert_eq!(MANAGER.collect(), 0);
    /// assert_eq!(MANAGER.walk().count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`UnregisterError`], all but `InUse` and `InOwnCallback`. Nothing has changed then.
    pub fn unregister_device_deferred(&'d self, id: InstanceId) -> Result<(), UnregisterError<&'d str>> {
        let mut locked = self.lock().ok_or(UnregisterError::NotFound { id })?;
        let mut state = locked.state();
        check(&state, id, Scope::Device)?;
        self.make_unreachable(&mut state, id.index, NodeState::UNFENCED);
        state.left.deferred = state.left.deferred.saturating_add(1);
        Ok(())
    }

    /// Makes every device unreachable, and leaves the removals to [`collect`](Self::collect). No other call of the manager is
    /// under way.
    #[cfg(feature = "alloc")]
    pub(crate) fn unregister_all_deferred(&self) {
        self.with_state(|state| {
            let is_left = |node: &&mut Node<'d>| {
                [NodeState::UNFENCED, NodeState::FENCING, NodeState::DEFERRED].contains(&node.state)
            };
            for node in state.tree.nodes_mut().filter(|node| !is_left(node)) {
                node.state = NodeState::UNFENCED;
                state.left.deferred = state.left.deferred.saturating_add(1);
            }
            self.publish(|pass| self.index_rebuild(pass, state));
            state.pool.used().for_each(|slot| self.slots.retire(slot));
            for node in state.tree.nodes() {
                self.gate(node.index()).map(HandleGate::close);
            }
        });
    }

    /// Finishes what removals have left: deferred removals of devices without running callbacks, and interrupt lines with a
    /// level that the controller had not taken when a device was removed. Returns how many of both are left: devices that may
    /// still be running, and lines that may still be asserted.
    ///
    /// With the asymmetric fence, it executes the heavy barrier once if there are deferred removals that need it. Each
    /// registration calls `collect` first.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, IoRange, IoResource, IoType, Storage, SystemAllocator};
    ///
    /// let device = Constant("card", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let range = [IoResource::mmio(0x1000, 0x1000)];
    /// let card = manager.register_device(&device, None, &range, &[]).unwrap();
    /// manager.unregister_device_deferred(card).unwrap();
    /// // Its range stays taken until the removal is finished.
    /// assert_eq!(manager.address_map(IoType::Mmio).count(), 1);
    /// assert_eq!(manager.collect(), 0);
    /// assert_eq!(manager.address_map(IoType::Mmio).count(), 0);
    /// ```
    pub fn collect(&'d self) -> usize {
        if self.left() == 0 {
            return 0;
        }
        self.fence_deferred();
        let mut from = 0;
        while let Some((index, parent)) = self.take_deferred(from) {
            let Some(slots) = self.with_state(|state| state.slots_of(index)) else { break };
            let is_idle = self.gate(index).is_none_or(HandleGate::is_idle);
            let next = index.position().saturating_add(1);
            if is_idle && slots.iter().all(|slot| self.slots.reclaim(*slot)) && self.tell_deferred_leaving(index) {
                self.finish(index, true);
                // This may have been the last child of a bus that is deferred too: its turn is next.
                from = parent.map_or(next, |parent| parent.position().min(next));
            } else {
                self.with_state(|state| state.set_deferred(index));
                from = next;
            }
        }
        self.tell_owed();
        let _ = self.tell(None);
        self.left()
    }

    /// Tells the listener that the ranges of a deferred node leave. `false` if another caller is in the listener.
    fn tell_deferred_leaving(&self, index: NodeIndex) -> bool {
        if self.listener.is_none() {
            return true;
        }
        let turn = self.with_state(|state| match state.has_told(index) {
            true => self.take_turn(state).then_some(true),
            false => Some(false),
        });
        match turn {
            Some(Some(true)) => {
                let turn = self.turn();
                let mut again = OnDrop::new(true, |again| {
                    if *again {
                        self.with_state(|state| state.set_deferred(index));
                    }
                });
                self.tell_all_leaving(index);
                again.value = false;
                drop(turn);
                true
            }
            Some(Some(false)) => true,
            _ => false,
        }
    }

    /// Tells the listener that every range leaves of which it was told. No other call of the manager is under way.
    #[cfg(feature = "alloc")]
    pub(crate) fn tell_everything_leaving(&self) {
        let mut from = 0;
        let next = |from| {
            self.with_state(|state| state.tree.nodes().map(Node::index).find(|node| node.position() >= from)).flatten()
        };
        while let Some(node) = next(from) {
            self.tell_all_leaving(node);
            from = node.position().saturating_add(1);
        }
    }

    /// How many deferred removals and owed lines there are.
    fn left(&self) -> usize {
        self.with_state(|state| usize::from(state.left.deferred) + usize::from(state.left.owed)).unwrap_or(0)
    }

    /// Executes the heavy barrier for the deferred removals that still need it, unless another caller is executing it.
    fn fence_deferred(&self) {
        let is_called_for = self.with_state(|state| {
            if state.left.deferred == 0 || state.tree.nodes().any(|node| node.state == NodeState::FENCING) {
                return false;
            }
            let mut unfenced = false;
            for node in state.tree.nodes_mut().filter(|node| node.state == NodeState::UNFENCED) {
                node.state = NodeState::FENCING;
                unfenced = true;
            }
            unfenced
        });
        if is_called_for != Some(true) {
            return;
        }
        let mut fenced = OnDrop::new(NodeState::UNFENCED, |new| {
            self.with_state(|state| {
                for node in state.tree.nodes_mut().filter(|node| node.state == NodeState::FENCING) {
                    node.state = *new;
                }
            });
        });
        self.slots.barrier();
        fenced.value = NodeState::DEFERRED;
    }

    /// Takes over the removal of a deferred node without children and calls under way, the first from position `from` on. With its parent.
    fn take_deferred(&self, from: usize) -> Option<(NodeIndex, Option<NodeIndex>)> {
        let is_ready = |node: &&mut Node<'d>| {
            let is_idle = node.first_child.is_none() && node.calls == 0;
            node.state == NodeState::DEFERRED && is_idle && node.index().position() >= from
        };
        self.with_state(|state| {
            if state.left.deferred == 0 {
                return None;
            }
            let node = state.tree.nodes_mut().find(is_ready)?;
            node.state = NodeState::REMOVING;
            Some((node.index(), node.parent))
        })?
    }

    /// Tells the controller the levels that it had not taken when a device was removed.
    fn tell_owed(&'d self) {
        let mut after = None;
        let take = |after| {
            self.with_state(|state| {
                if state.left.owed == 0 {
                    return None;
                }
                let share = state.take_owed(after)?;
                Some((share, state.source(share)))
            })
        };
        while let Some(Some((share, source))) = take(after) {
            after = Some(share.line);
            let _give_back = OnDrop::new((), |()| {
                self.with_state(|state| state.give_back_owed(share));
            });
            if let Some(source) = source {
                source.release(self.controller);
            }
        }
    }

    pub(crate) fn remove(
        &'d self,
        id: InstanceId,
        scope: Scope,
        within: Option<&Access<'_>>,
    ) -> Result<(), UnregisterError<&'d str>> {
        let mut turn = self.wait_and_make_unreachable(id, scope, within)?;
        // If the barrier, the controller or the listener unwinds, the rest of the subtree is left to `collect`.
        let mut left = OnDrop::new(true, |left| {
            if *left {
                self.with_state(|state| state.defer(id));
            }
        });
        self.slots.barrier();
        // All nodes are being removed: no other caller links or unlinks a node below the top, and the top's parent stays.
        loop {
            let leaf = self.with_state(|state| {
                let leaf = first_leaf(state, id.index);
                (leaf, state.slots_of(leaf))
            });
            let Some((leaf, slots)) = leaf else { return Ok(()) };
            for &slot in &slots {
                while !self.slots.reclaim(slot) {
                    spin_once();
                }
            }
            self.tell_all_leaving(leaf);
            self.finish(leaf, false);
            if leaf == id.index {
                left.value = false;
                let _ = self.tell(turn.take());
                return Ok(());
            }
        }
    }

    /// The first two steps. For each device of the subtree, it waits until the callbacks that it finds running have ended. When
    /// it finds, under the lock, that it has waited for every device of the subtree, it makes all of them unreachable before it
    /// unlocks. Nothing has changed when it gives up. Where the listener has to be told, it returns the turn to do so.
    fn wait_and_make_unreachable(
        &self,
        id: InstanceId,
        scope: Scope,
        within: Option<&Access<'_>>,
    ) -> Result<Option<Turn<'_, 'd>>, UnregisterError<&'d str>> {
        let mut wait = Wait::new(self.removal_spins);
        let in_use = |device| UnregisterError::InUse { device };
        loop {
            let running = {
                let mut locked = self.lock().ok_or(UnregisterError::NotFound { id })?;
                let mut state = locked.state();
                check(&state, id, scope)?;
                let subtree = || state.tree.subtree(id.index);
                let is_own = |node: &&Node<'_>| {
                    let own = |access: OuterAccess<'_>| {
                        access.caller.manager == self.identity() && access.node == Some(node.index())
                    };
                    outer_accesses(within).any(own)
                };
                if let Some(own) = subtree().find(is_own) {
                    return Err(UnregisterError::InOwnCallback { device: own.name });
                }
                match wait.next(&state, subtree()).map_err(in_use)? {
                    Some(running) => running,
                    None => {
                        let is_told = self.listener.is_some() && state.has_told(id.index);
                        if !is_told || self.take_turn(&mut state) {
                            self.make_unreachable(&mut state, id.index, NodeState::REMOVING);
                            return Ok(is_told.then(|| self.turn()));
                        }
                        // Another caller is in the listener: it is waited for as the callbacks are.
                        let device = state.tree.get(id).map_or("", |node| node.name);
                        wait.spend(device).map_err(in_use)?
                    }
                }
            };
            self.wait_for(&running, &mut wait).map_err(in_use)?;
        }
    }

    /// Publishes an index without the subtree of `top` and retires its slots.
    fn make_unreachable(&self, state: &mut State<'_, 'd>, top: NodeIndex, new: NodeState) {
        let mut dispatched = false;
        let mut next = Some(top);
        while let Some(index) = next {
            if let Some(node) = state.tree.node_mut(index) {
                node.state = new;
            }
            dispatched |= state.ranges_of(index).any(|(_, range)| range.is_dispatched());
            next = state.tree.next_in_walk(index, Some(top));
        }
        let alone = state.tree.node(top).is_none_or(|node| node.first_child.is_none());
        if dispatched {
            self.publish(|pass| {
                if !alone {
                    return self.index_rebuild(pass, state);
                }
                for (slot, range) in state.ranges_of(top) {
                    self.index_remove(pass, slot, range, state);
                }
            });
        }
        next = Some(top);
        while let Some(index) = next {
            for (slot, _) in state.ranges_of(index) {
                self.slots.retire(slot);
            }
            if let Some(gate) = self.gate(index) {
                gate.close();
            }
            next = state.tree.next_in_walk(index, Some(top));
        }
    }

    /// The last step, for a node without readers and with a closed gate. The node is given back even if the controller unwinds.
    /// `deferred` says that the node counts among the deferred ones.
    pub(crate) fn finish(&self, index: NodeIndex, deferred: bool) {
        let _give_back = OnDrop::new((), |()| {
            self.with_state(|state| {
                state.give_back(index);
                state.left.deferred = state.left.deferred.saturating_sub(deferred.into());
                self.sweep(state);
            });
        });
        if let Some(gate) = self.gate(index) {
            gate.wait_idle();
        }
        let mut interrupts = 0..MAX_IRQS_PER_DEVICE;
        // No handle is in use any more, and no move is under way: what is read here stays.
        while let Some(connection) =
            self.with_state(|state| state.connections_of(index).nth(interrupts.next()?)).flatten()
        {
            let source = self.with_state(|state| state.source(connection.share()?)).flatten();
            if let Some(source) = source {
                source.release(self.controller);
            }
        }
    }
}

/// Checks that the device, or its subtree, may be removed.
fn check<'d>(state: &State<'_, 'd>, id: InstanceId, scope: Scope) -> Result<(), UnregisterError<&'d str>> {
    let top = state.tree.get(id).ok_or(UnregisterError::NotFound { id })?;
    if scope == Scope::Device
        && let Some(child) = top.first_child.and_then(|child| state.tree.node(child))
    {
        return Err(UnregisterError::HasChildren { device: top.name, child: child.name });
    }
    match state.tree.subtree(id.index).find(|node| node.state != NodeState::LIVE) {
        Some(node) => Err(UnregisterError::Busy { device: node.name }),
        None => Ok(()),
    }
}

impl State<'_, '_> {
    /// Leaves a node to the next `collect`.
    fn set_deferred(&mut self, index: NodeIndex) {
        if let Some(node) = self.tree.node_mut(index) {
            node.state = NodeState::DEFERRED;
        }
    }

    /// Leaves a subtree that is being removed to `collect`.
    pub(super) fn defer(&mut self, top: InstanceId) {
        let mut next = self.tree.get(top).map(|node| node.index());
        while let Some(index) = next {
            if let Some(node) = self.tree.node_mut(index) {
                node.state = NodeState::UNFENCED;
                self.left.deferred = self.left.deferred.saturating_add(1);
            }
            next = self.tree.next_in_walk(index, Some(top.index));
        }
    }
}

/// The first node without children in a depth-first walk of the subtree.
fn first_leaf(state: &State<'_, '_>, top: NodeIndex) -> NodeIndex {
    let first_child = |index: &NodeIndex| state.tree.node(*index)?.first_child;
    core::iter::successors(Some(top), first_child).last().unwrap_or(top)
}

/// The access, the access it is nested in, and so on up to the guest's.
pub(super) fn outer_accesses<'a>(access: Option<&Access<'a>>) -> impl Iterator<Item = OuterAccess<'a>> {
    core::iter::successors(access.map(Access::as_outer), |access| access.caller.outer.copied())
}

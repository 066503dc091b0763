//! Calls of devices that are no accesses: no slot knows of them, so that they are counted in the node of the device.
//!
//! A removal waits for them as it does for callbacks, and `collect` finishes a deferred removal when there are none.

use crate::device::Device;
use crate::instance::InstanceId;
use crate::manager::device_manager::DeviceManager;
use crate::manager::state::State;
use crate::manager::tree::NodeState;
use crate::sync::spin_once;

/// A call of a device that is under way, until it is dropped, at a return or while unwinding. The manager's lock is not held
/// meanwhile.
pub(crate) struct Call<'m, 'd> {
    manager: &'m DeviceManager<'d>,
    pub(crate) id: InstanceId,
    pub(crate) device: &'d dyn Device<'d>,
}

impl<'d> DeviceManager<'d> {
    /// Begins a call of the device with this id; see [`State::begin_call`].
    pub(crate) fn begin_call(&self, id: InstanceId) -> Option<Call<'_, 'd>> {
        let device = self.with_state(|state| state.begin_call(id))??;
        Some(Call { manager: self, id, device })
    }

    /// As [`begin_call`](Self::begin_call), but waits where as many calls are under way as are counted: `None` says that the device
    /// is not registered.
    pub(crate) fn wait_for_call(&self, id: InstanceId) -> Option<Call<'_, 'd>> {
        loop {
            if let Some(call) = self.begin_call(id) {
                return Some(call);
            }
            if !self.with_state(|state| state.tree.get(id).is_some_and(|node| node.state == NodeState::LIVE))? {
                return None;
            }
            spin_once();
        }
    }
}

impl Drop for Call<'_, '_> {
    fn drop(&mut self) {
        self.manager.with_state(|state| state.end_call(self.id));
    }
}

impl<'d> State<'_, 'd> {
    /// Counts a call of a device that begins, and returns the device. `None` if no device with this id is registered, or it is
    /// being removed, or as many calls of it are under way as are counted, which are 255.
    ///
    /// Until [`end_call`](Self::end_call), the node stays in the tree.
    pub(crate) fn begin_call(&mut self, id: InstanceId) -> Option<&'d dyn Device<'d>> {
        let node = self.tree.get_mut(id).filter(|node| node.state == NodeState::LIVE)?;
        node.calls = node.calls.checked_add(1)?;
        Some(node.device)
    }

    /// Counts a call that [`begin_call`](Self::begin_call) has counted as ended.
    pub(crate) fn end_call(&mut self, id: InstanceId) {
        if let Some(node) = self.tree.get_mut(id) {
            node.calls = node.calls.saturating_sub(1);
        }
    }
}

impl<'d> DeviceManager<'d> {
    /// Calls every device that was linked by then and is registered, a bus before what is on it, one after the other. Until the
    /// next one is called, the last one stays in the tree, so that the walk does not lose its place.
    pub(crate) fn call_each(&self, linked: u64, mut act: impl FnMut(&'d dyn Device<'d>)) {
        let mut last: Option<Call<'_, 'd>> = None;
        let next = |last: &Option<Call<'_, 'd>>| {
            let after = last.as_ref().map(|call| call.id);
            self.with_state(|state| state.next_to_call(after, linked))?
        };
        while let Some(id) = next(&last) {
            // It may be on its way out by now, and is skipped then; or as many calls of it are under way as can be.
            let Some(call) = self.begin_call(id) else {
                spin_once();
                continue;
            };
            let device = call.device;
            // The call before ends here, in its place: it is no argument of a function that returns when its device may be gone.
            last = Some(call);
            act(device);
        }
    }
}

impl State<'_, '_> {
    /// The next registered device behind one that is in the tree, or the first, of those that were linked by then.
    fn next_to_call(&self, after: Option<InstanceId>, linked: u64) -> Option<InstanceId> {
        let mut next = match after {
            Some(id) => self.tree.next_in_walk(id.index, None),
            None => self.tree.first_root(),
        };
        loop {
            let node = self.tree.node(next?)?;
            if node.state == NodeState::LIVE && node.sequence <= linked {
                return Some(self.tree.id(node.index()));
            }
            next = self.tree.next_in_walk(node.index(), None);
        }
    }
}

//! Waiting for the callbacks that run when a caller begins to wait: the first step of a removal, and of a reset.

use heapless::Vec;

use crate::indices::SlotIndex;
use crate::manager::device_manager::DeviceManager;
use crate::manager::state::State;
use crate::manager::tree::Node;
use crate::resource::MAX_RANGES_PER_DEVICE;
use crate::sync::spin_once;

/// How far a caller has waited for the devices of a subtree, or for all of them.
///
/// Devices are waited for in the order in which they were linked: others that come and go meanwhile do not change it.
pub(super) struct Wait {
    /// How many turns are left.
    spins: u32,
    /// The sequence number of the last device that was waited for.
    waited_for: u64,
    /// How many nodes had been linked when the waiting began.
    linked: Option<u64>,
}

/// What is waited for next: the callbacks that are running in these slots of a device, or something else that takes turns.
pub(super) struct Running<'d> {
    pub(super) device: &'d str,
    slots: Vec<SlotIndex, MAX_RANGES_PER_DEVICE>,
}

impl Wait {
    pub(super) fn new(spins: u32) -> Self {
        Self { spins, waited_for: 0, linked: None }
    }

    /// What is waited for next, under the lock. `None` when each of `nodes` was waited for, and no call of any of them is under
    /// way. An error, with the device, if the spin limit has been reached.
    pub(super) fn next<'n, 'd: 'n>(
        &mut self,
        state: &State<'_, 'd>,
        nodes: impl Iterator<Item = &'n Node<'d>>,
    ) -> Result<Option<Running<'d>>, &'d str> {
        let linked = *self.linked.get_or_insert(state.tree.linked());
        let (mut next, mut called) = (None::<&Node<'d>>, None);
        for node in nodes {
            if node.calls != 0 {
                called = Some(node.name);
            }
            if node.sequence > self.waited_for && next.is_none_or(|next| node.sequence < next.sequence) {
                next = Some(node);
            }
        }
        match (next, called) {
            (Some(next), _) => {
                self.waited_for = next.sequence;
                if next.sequence > linked {
                    // Registered after the call: the spin limit bounds the number of these.
                    self.spend(next.name)?;
                }
                Ok(Some(Running { device: next.name, slots: state.slots_of(next.index()) }))
            }
            (None, Some(device)) => self.spend(device).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Takes one turn, for something of a device that no slot tells of.
    pub(super) fn spend<'d>(&mut self, device: &'d str) -> Result<Running<'d>, &'d str> {
        self.spins = self.spins.checked_sub(1).ok_or(device)?;
        Ok(Running { device, slots: Vec::new() })
    }
}

impl<'d> DeviceManager<'d> {
    /// Waits for what [`Wait::next`] has found, without the lock. An error, with the device, at the spin limit.
    pub(super) fn wait_for(&self, running: &Running<'d>, wait: &mut Wait) -> Result<(), &'d str> {
        if running.slots.is_empty() {
            spin_once();
        }
        match running.slots.iter().all(|slot| self.slots.wait_for_current_readers(*slot, &mut wait.spins)) {
            true => Ok(()),
            false => Err(running.device),
        }
    }
}

//! The ranges that wait for a place get it when it becomes free.
//!
//! # Worst case
//! A sweep looks at each waiting range once for each depth of windows that there can be, and tries to place it once.

use crate::indices::SlotIndex;
use crate::manager::device_manager::DeviceManager;
use crate::manager::state::State;
use crate::manager::tree::NodeState;
use crate::resource::MAX_WINDOW_DEPTH;

/// What a transaction has changed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Changed {
    /// A range that accesses reach, or reached.
    pub(crate) dispatched: bool,
    /// A window.
    pub(crate) windows: bool,
}

impl Changed {
    pub(crate) fn add(&mut self, other: Self) {
        self.dispatched |= other.dispatched;
        self.windows |= other.windows;
    }
}

impl<'d> DeviceManager<'d> {
    /// Places the waiting ranges whose places have become free, and publishes that.
    pub(crate) fn sweep(&self, state: &mut State<'_, 'd>) {
        let changed = state.sweep_waiting();
        if changed.windows {
            self.publish(|pass| self.index_rebuild(pass, state));
        } else if changed.dispatched {
            self.publish(|pass| self.index_insert_marked(pass, state));
        }
        state.forget_marks();
    }
}

impl State<'_, '_> {
    /// Places the waiting ranges whose places are free: windows before what lies in them, and those that have waited longer
    /// before others. What is being removed gets no place. It marks what it has placed.
    pub(crate) fn sweep_waiting(&mut self) -> Changed {
        let mut changed = Changed::default();
        if !self.pool.has_waiting() {
            return changed;
        }
        for depth in 0..=MAX_WINDOW_DEPTH as u8 {
            let (mut before, mut next) = (None, self.pool.first_waiting());
            while let Some(slot) = next {
                next = self.pool.next_waiting(slot);
                let is_at_depth = self.range(slot).is_some_and(|range| range.depth() == depth);
                if is_at_depth && self.is_registered(slot) && self.try_to_place(slot, before) {
                    self.pool.mark(slot, true);
                    if let Some(range) = self.range(slot) {
                        changed.windows |= range.is_window();
                        changed.dispatched |= range.is_dispatched();
                    }
                } else {
                    before = Some(slot);
                }
            }
        }
        changed
    }

    /// Calls `act` for each marked range with so many windows around it.
    pub(crate) fn for_each_marked(&mut self, depth: u8, act: impl Fn(&mut Self, SlotIndex)) {
        let mut from = 0;
        while let Some((slot, next)) = self.pool.next_marked(from) {
            from = next;
            if self.range(slot).is_some_and(|range| range.depth() == depth) {
                act(self, slot);
            }
        }
    }

    /// Whether the device of a range is registered or being registered, and not being removed.
    fn is_registered(&self, slot: SlotIndex) -> bool {
        let node = self.range(slot).and_then(|range| self.tree.node(range.node?));
        node.is_some_and(|node| matches!(node.state, NodeState::LIVE | NodeState::REGISTERING))
    }

    /// Places a range where it wants to lie, if that is possible. `before` is as for [`put_at`](Self::put_at).
    pub(crate) fn try_to_place(&mut self, slot: SlotIndex, before: Option<SlotIndex>) -> bool {
        let Some(range) = self.range(slot).copied() else { return false };
        self.put_at(slot, range.range, range.is_decoded(), before).is_ok()
    }

    /// Takes the marks away.
    pub(crate) fn forget_marks(&mut self) {
        let mut from = 0;
        while let Some((slot, next)) = self.pool.next_marked(from) {
            self.pool.mark(slot, false);
            from = next;
        }
    }
}

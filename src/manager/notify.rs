//! The listener is told of the places of ranges.
//!
//! A range of which the listener was told stays at its place until it was told that the range leaves. So a change that takes
//! such a range away has two parts. In the first, the change is tried and undone, and the listener is told, without the lock.
//! In the second, when no range is left to be told of, the change is made.
//!
//! One caller at a time has the *turn*: it alone calls the listener. Another caller whose change takes away a range of which the
//! listener was told leaves its changes to the one that has the turn, as *wishes*, which are kept in records that are not in
//! use. Other changes need no turn: at its end, the caller that has it looks for ranges that were placed meanwhile.

use crate::allocator::{RangeRecord, Told};
use crate::error::RelocateError;
use crate::indices::{NodeIndex, SlotIndex};
use crate::listener::{PlacedRange, RangeListener};
use crate::manager::device_manager::DeviceManager;
use crate::manager::on_drop::OnDrop;
use crate::manager::relocate::Relocation;
use crate::manager::state::State;

/// How many wishes of others a caller fulfils before it gives up the turn: so that a guest cannot keep a vCPU there.
const MAX_WISHES: usize = 64;

/// The turn to call the listener, until it is dropped.
pub(crate) struct Turn<'m, 'd>(&'m DeviceManager<'d>);

impl Drop for Turn<'_, '_> {
    fn drop(&mut self) {
        self.0.with_state(|state| {
            state.forget_leaving();
            state.left.telling = false;
        });
    }
}

/// What a change waits for.
enum Step<'d> {
    /// The change is made, or left to the caller that has the turn.
    Done,
    /// The listener is to be told that this range leaves. The caller has the turn.
    Leaves(SlotIndex, PlacedRange<'d>),
}

/// A placement that the listener has refused.
#[derive(Clone, Copy)]
pub(crate) struct RefusedPlace<'d> {
    pub(crate) device: &'d str,
    pub(crate) index: usize,
    pub(crate) code: u32,
}

impl<'d> DeviceManager<'d> {
    /// Takes the turn, unless another caller has it.
    pub(crate) fn take_turn(&self, state: &mut State<'_, 'd>) -> bool {
        self.listener.is_some() && !core::mem::replace(&mut state.left.telling, true)
    }

    /// The turn that [`take_turn`](Self::take_turn) has taken.
    pub(crate) fn turn(&self) -> Turn<'_, 'd> {
        Turn(self)
    }

    /// See [`Telling::tell`].
    pub(crate) fn tell(&self, turn: Option<Turn<'_, 'd>>) -> Option<RefusedPlace<'d>> {
        self.listener?.tell(self, turn)
    }

    /// See [`Telling::tell_all_leaving`].
    pub(crate) fn tell_all_leaving(&self, node: NodeIndex) {
        if let Some(listener) = self.listener {
            listener.tell_all_leaving(self, node);
        }
    }
}

/// What a manager with a listener does, behind a trait object: so that a program whose managers have none is linked without the
/// code. Every listener is one.
pub(crate) trait Telling<'d>: Sync {
    /// Makes a transaction, as [`DeviceManager::relocate`], and tells the listener.
    fn relocate(
        &self,
        manager: &DeviceManager<'d>,
        relocations: &mut [Relocation],
    ) -> Result<(), RelocateError<&'d str>>;

    /// Tells the listener of all ranges that have been placed, and fulfils the wishes of other callers; unless another caller
    /// has the turn, which then does so. Returns the first placement that the listener has refused.
    fn tell(&self, manager: &DeviceManager<'d>, turn: Option<Turn<'_, 'd>>) -> Option<RefusedPlace<'d>>;

    /// Tells the listener that every range of a device leaves. The caller has the turn, if there is anything to tell.
    fn tell_all_leaving(&self, manager: &DeviceManager<'d>, node: NodeIndex);

    /// Tells the listener of the places of a device that is being registered. The caller has the turn.
    fn tell_registered(&self, manager: &DeviceManager<'d>, node: NodeIndex) -> Result<(), RefusedPlace<'d>>;
}

impl<'d, L: RangeListener> Telling<'d> for L {
    fn relocate(
        &self,
        manager: &DeviceManager<'d>,
        relocations: &mut [Relocation],
    ) -> Result<(), RelocateError<&'d str>> {
        Teller { manager, listener: self }.relocate(relocations)
    }
    fn tell(&self, manager: &DeviceManager<'d>, turn: Option<Turn<'_, 'd>>) -> Option<RefusedPlace<'d>> {
        Teller { manager, listener: self }.tell(turn)
    }
    fn tell_all_leaving(&self, manager: &DeviceManager<'d>, node: NodeIndex) {
        Teller { manager, listener: self }.tell_all_leaving(node);
    }
    fn tell_registered(&self, manager: &DeviceManager<'d>, node: NodeIndex) -> Result<(), RefusedPlace<'d>> {
        Teller { manager, listener: self }.tell_registered(node)
    }
}

/// A manager and its listener. Its code exists once for all listeners.
struct Teller<'m, 'd> {
    manager: &'m DeviceManager<'d>,
    listener: &'m dyn RangeListener,
}

impl<'m, 'd> Teller<'m, 'd> {
    fn relocate(&self, relocations: &mut [Relocation]) -> Result<(), RelocateError<&'d str>> {
        let mut turn = None;
        let outcome = self.change_and_tell(relocations, &mut turn);
        let refused = self.tell(turn);
        outcome?;
        match refused {
            Some(RefusedPlace { device, index, code }) => Err(RelocateError::ListenerRefused { device, index, code }),
            None => Ok(()),
        }
    }

    fn change_and_tell(
        &self,
        relocations: &mut [Relocation],
        turn: &mut Option<Turn<'m, 'd>>,
    ) -> Result<(), RelocateError<&'d str>> {
        loop {
            let has_turn = turn.is_some();
            relocations.iter_mut().for_each(|relocation| relocation.set_follows(!has_turn));
            let step = self.manager.with_state(|state| {
                let Some((slot, range)) = state.first_leaving(relocations)? else {
                    let outcome = self.manager.relocate_under_lock(state, relocations);
                    state.forget_leaving();
                    // What others have wished while this caller told the listener is later than its own change.
                    if outcome.is_ok() && !has_turn {
                        state.drop_wishes(relocations);
                    }
                    return outcome.map(|()| Step::Done);
                };
                if has_turn {
                    return Ok(Step::Leaves(slot, range));
                }
                if self.manager.take_turn(state) {
                    // What is left of earlier turns is earlier than this change.
                    state.drop_wishes(relocations);
                    return Ok(Step::Leaves(slot, range));
                }
                state.wish(relocations).map(|()| Step::Done)
            });
            // The storage is this manager's, or else no range has a place.
            let Some(step) = step else { return self.manager.relocate_nowhere(relocations) };
            let Step::Leaves(slot, range) = step? else { return Ok(()) };
            turn.get_or_insert_with(|| self.manager.turn());
            self.tell_leaving(slot, &range);
        }
    }

    /// Makes the oldest wish. While the listener is told of what leaves, it is still a wish: a later change may take its place.
    /// The caller has the turn.
    fn fulfil_first_wish(&self) {
        let next = |state: &mut State<'_, 'd>| {
            let Some(wish) = state.first_wish() else {
                // A later change has taken its place.
                state.pool.drop_first_wish();
                state.forget_leaving();
                return None;
            };
            let mut wish = [wish];
            if let Ok(Some(leaving)) = state.first_leaving(&mut wish) {
                return Some(leaving);
            }
            state.pool.drop_first_wish();
            // A wish that cannot be fulfilled leaves the range where it is.
            let _ = self.manager.relocate_under_lock(state, &mut wish);
            state.forget_leaving();
            None
        };
        while let Some(Some((slot, range))) = self.manager.with_state(next) {
            self.tell_leaving(slot, &range);
        }
    }

    /// The caller has the turn.
    fn tell_leaving(&self, slot: SlotIndex, range: &PlacedRange<'d>) {
        self.listener.leaving(range);
        self.manager.with_state(|state| state.pool.set_told(slot, Told::Leaving));
    }

    fn tell_all_leaving(&self, node: NodeIndex) {
        let next = |state: &mut State<'_, 'd>| {
            let slot =
                state.ranges_of(node).map(|(slot, _)| slot).find(|slot| state.pool.told(*slot) == Told::Placed)?;
            Some((slot, state.placed_range(slot)?))
        };
        while let Some(Some((slot, range))) = self.manager.with_state(next) {
            self.tell_leaving(slot, &range);
        }
    }

    fn tell_registered(&self, node: NodeIndex) -> Result<(), RefusedPlace<'d>> {
        while let Some(Some((slot, range))) = self.manager.with_state(|state| state.take_untold(Some(node))) {
            if let Err(refused) = self.tell_placed(slot, &range) {
                self.tell_all_leaving(node);
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Tells the listener of a place that [`take_untold`](State::take_untold) has found.
    fn tell_placed(&self, slot: SlotIndex, range: &PlacedRange<'d>) -> Result<(), RefusedPlace<'d>> {
        // The range counts as told while the listener is called, so that nobody moves it.
        let mut told = OnDrop::new(Told::Refused, |told| {
            self.manager.with_state(|state| state.pool.set_told(slot, *told));
        });
        let Err(rejected) = self.listener.placed(range) else {
            told.value = Told::Placed;
            return Ok(());
        };
        let name = self.manager.with_state(|state| state.tree.get(range.id).map(|node| node.name)).flatten();
        Err(RefusedPlace { device: name.unwrap_or(""), index: range.range_index, code: rejected.code() })
    }

    fn tell(&self, turn: Option<Turn<'_, 'd>>) -> Option<RefusedPlace<'d>> {
        let mut turn = turn;
        if turn.is_none() {
            let is_mine = self.manager.with_state(|state| state.has_news() && self.manager.take_turn(state))?;
            turn = Some(is_mine.then(|| self.manager.turn())?);
        }
        let mut refused = None;
        let ranges = self.manager.with_state(|state| {
            state.retry_refused();
            state.pool.capacity()
        })?;
        for wishes in 0..=MAX_WISHES {
            // More are there only if another caller moves ranges that the listener refuses again and again.
            for _ in 0..ranges {
                let Some(Some((slot, range))) = self.manager.with_state(|state| state.take_untold(None)) else { break };
                if let Err(error) = self.tell_placed(slot, &range) {
                    refused.get_or_insert(error);
                }
            }
            // The turn ends under the lock under which there was nothing left to do.
            let next = self.manager.with_state(|state| {
                let is_wished = wishes < MAX_WISHES && state.pool.has_wishes();
                if !is_wished && state.find_untold(None).is_none() {
                    state.left.telling = false;
                }
                (is_wished, state.left.telling)
            });
            match next {
                Some((true, _)) => self.fulfil_first_wish(),
                Some((false, true)) => {}
                _ => {
                    core::mem::forget(turn);
                    break;
                }
            }
        }
        refused
    }
}

impl<'d> State<'_, 'd> {
    /// A range as the listener is told of it.
    pub(crate) fn placed_range(&self, slot: SlotIndex) -> Option<PlacedRange<'d>> {
        let range = self.range(slot)?;
        let node = self.tree.node(range.node?)?;
        Some(PlacedRange {
            id: self.tree.id(node.index()),
            device: node.device,
            range_index: range.index().into(),
            io_type: range.io_type(),
            range: range.range,
            window: range.is_window(),
        })
    }

    /// A range that accesses may reach, and of which the listener has not been told: of this device, or of any that is
    /// registered.
    fn find_untold(&self, node: Option<NodeIndex>) -> Option<SlotIndex> {
        let is_meant = |range: &RangeRecord| if node.is_some() { range.node == node } else { self.is_live(range) };
        self.pool.find_told(Told::Nothing, |range| range.is_decoded() && is_meant(range))
    }

    /// As [`find_untold`](Self::find_untold); from now on the range counts as told.
    fn take_untold(&mut self, node: Option<NodeIndex>) -> Option<(SlotIndex, PlacedRange<'d>)> {
        let slot = self.find_untold(node)?;
        self.pool.set_told(slot, Told::Placed);
        Some((slot, self.placed_range(slot)?))
    }

    /// Whether the listener is to be told of a place of this device.
    pub(crate) fn has_untold(&self, node: NodeIndex) -> bool {
        self.find_untold(Some(node)).is_some()
    }

    /// Whether the listener was told of a place in the subtree of `top`.
    pub(crate) fn has_told(&self, top: NodeIndex) -> bool {
        let in_subtree = |range: &RangeRecord| range.node.is_some_and(|node| self.tree.is_within(node, top));
        self.pool.find_told(Told::Placed, in_subtree).is_some()
    }

    /// Whether there is anything for the caller that has the turn to do.
    fn has_news(&self) -> bool {
        let was_refused = || self.pool.find_told(Told::Refused, |_| true).is_some();
        self.pool.has_wishes() || self.find_untold(None).is_some() || was_refused()
    }

    /// The listener is to be told again of what it has refused.
    fn retry_refused(&mut self) {
        while let Some(slot) = self.pool.find_told(Told::Refused, |_| true) {
            self.pool.set_told(slot, Told::Nothing);
        }
    }

    /// The listener was told that a range leaves, and it did not: it is to be told that the range is placed.
    fn forget_leaving(&mut self) {
        while let Some(slot) = self.pool.find_told(Told::Leaving, |_| true) {
            self.pool.set_told(slot, Told::Nothing);
        }
    }
}

//! Changes of ranges, made by the manager and by the model.

use vm_device::{Accesses, GuestAddress, GuestUsize, InstanceId, RangeState, RelocateError, Relocation};

use crate::history::{Move, Target};
use crate::plain::{Model, Place};
use crate::platform::address;
use crate::steps::Run;

/// The change of one range that a transaction asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    id: InstanceId,
    index: usize,
    to: Option<u64>,
    size: Option<u64>,
    state: Option<RangeState>,
}

impl Change {
    fn relocation(&self) -> Relocation {
        let mut relocation = Relocation::new(self.id, self.index);
        if let Some(to) = self.to {
            relocation = relocation.to(GuestAddress(to));
        }
        if let Some(size) = self.size {
            relocation = relocation.resized(GuestUsize(size));
        }
        match self.state {
            None => relocation,
            Some(RangeState::Decoded) => relocation.decoded(),
            Some(RangeState::Reserved) => relocation.reserved(),
            Some(RangeState::Unplaced) => relocation.unplaced(),
            Some(RangeState::Waiting) => relocation.waiting(),
        }
    }

    /// What becomes of the range, if it is let.
    fn target(&self, old: &Place) -> Option<Place> {
        let state = self.state.unwrap_or(match (old.state.is_placed(), self.to) {
            (false, Some(_)) => RangeState::Decoded,
            _ => old.state,
        });
        let decoded = match (self.state, state) {
            (None, RangeState::Waiting) => old.decoded,
            (_, state) => state != RangeState::Reserved,
        };
        let first = match (state, self.to) {
            (RangeState::Unplaced, _) => 0,
            (_, Some(to)) => to,
            (_, None) if old.state == RangeState::Unplaced => return None,
            (_, None) => old.first,
        };
        if self.size.is_some() && !old.window {
            return None;
        }
        let span = match self.size {
            Some(size) => size.checked_sub(1)?,
            None => old.last - old.first,
        };
        let last = first.checked_add(span).filter(|last| *last <= old.io_type.last_address().0)?;
        (first % old.align == 0).then_some(Place { first, last, state, decoded, ..*old })
    }
}

impl<V: Accesses> Run<'_, V> {
    pub(crate) fn relocate(&mut self, moves: &[Move]) -> bool {
        let changes = self.changes(moves);
        let mut relocations: Vec<_> = changes.iter().map(Change::relocation).collect();
        let got = self.manager.relocate(&mut relocations);
        match (got, self.changed(&changes)) {
            (Ok(()), Some(model)) => {
                self.model = model;
                false
            }
            (Err(error), None) => {
                if let RelocateError::NotFound { id } = error {
                    assert!(self.model.instances.iter().all(|instance| instance.id != id));
                }
                true
            }
            (got, model) => panic!("{got:?} for {changes:?}, where the model has {model:?} after {:?}", self.model),
        }
    }

    fn changes(&self, moves: &[Move]) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for step in moves {
            let id = self.pick(step.device);
            if id == self.model.relay() {
                continue;
            }
            let count = self.model.instances.iter().find(|instance| instance.id == id).map_or(0, |i| i.places.len());
            let index = step.range % (count + 1);
            let mut change = Change { id, index, to: None, size: step.size, state: step.state };
            let Some(place) = self.place(id, index) else {
                changes.push(change);
                continue;
            };
            if !place.window && step.device % 8 != 0 {
                change.size = None;
            }
            let all: Vec<_> = self.model.places().map(|(.., place)| place.first).collect();
            match step.to {
                Target::Stay => {}
                Target::Cell(cell) => change.to = Some(address(place.io_type, cell)),
                Target::Onto(pick) => change.to = Some(all[pick % all.len()]),
                Target::Inside(offset) => {
                    let above = self.model.above(self.model.instance(id).parent);
                    let mut all = above.iter().flat_map(|bus| &self.model.instance(*bus).places);
                    let window = all.find(|other| other.window && other.io_type.same_space(place.io_type));
                    change.to = Some(window.map_or(offset, |window| window.first.wrapping_add(offset)));
                }
                Target::Swap => {
                    if let Some(last) = changes.last_mut()
                        && let Some(other) = self.place(last.id, last.index)
                    {
                        last.to = Some(place.first);
                        change.to = Some(other.first);
                    }
                }
            }
            changes.push(change);
            if let (true, true, Some(to)) = (step.with_contents, place.window && place.state.is_placed(), change.to) {
                for (owner, index, inside) in self.model.placed() {
                    let Some(below) = owner else { continue };
                    if below != id && self.model.above(owner).contains(&id) && place.contains(inside) {
                        let to = Some(to.wrapping_add(inside.first - place.first));
                        // The contents first, so that the order of the list is put to the test.
                        changes.insert(0, Change { id: below, index, to, size: None, state: None });
                    }
                }
            }
        }
        changes
    }

    pub(crate) fn place(&self, id: InstanceId, index: usize) -> Option<&Place> {
        self.model.instances.iter().find(|instance| instance.id == id)?.places.get(index)
    }

    /// The model after the transaction, if it is possible.
    fn changed(&self, changes: &[Change]) -> Option<Model> {
        let before = &self.model;
        let mut named = Vec::new();
        for (position, change) in changes.iter().enumerate() {
            let Change { id, index, .. } = *change;
            if !self.is_live(id) || changes[..position].iter().any(|other| (other.id, other.index) == (id, index)) {
                return None;
            }
            let old = self.place(id, index)?;
            let new = change.target(old)?;
            let has_it = old.state == new.state || (old.state, new.state) == (RangeState::Decoded, RangeState::Waiting);
            let stays = has_it && (old.first, old.last, old.decoded) == (new.first, new.last, new.decoded)
                || (old.state, new.state) == (RangeState::Unplaced, RangeState::Unplaced)
                    && (old.first, old.last) == (new.first, new.last);
            named.push((id, index, *old, new, !stays));
        }
        // What lies in a window that changes goes with it, named or not.
        let goes = |owner: InstanceId, place: &Place| {
            named.iter().any(|(id, _, window, _, changes)| {
                *changes
                    && window.window
                    && window.state.is_placed()
                    && window.contains(place)
                    && *id != owner
                    && before.above(Some(owner)).contains(id)
            })
        };
        let mut after = before.clone();
        let mut displaced = Vec::new();
        for (owner, index, place) in before.placed() {
            let Some(id) = owner else { continue };
            if goes(id, place) && !named.iter().any(|(other, number, ..)| (*other, *number) == (id, index)) {
                displaced.push((before.depth(id, index), id, index));
                after.range_mut(id, index).state = RangeState::Unplaced;
            }
        }
        let is_out = |(id, _, old, _, changes): &&(_, _, Place, Place, bool)| {
            *changes || (old.state.is_placed() && goes(*id, old))
        };
        let named: Vec<_> = named.iter().filter(is_out).collect();
        for (id, index, _, new, _) in &named {
            let state = if new.state.is_placed() { RangeState::Unplaced } else { new.state };
            *after.range_mut(*id, *index) = Place { state, since: after.time, ..*new };
        }
        // Windows before what lies in them, and at each depth what is named before what is not.
        let strict = named.iter().filter(|(.., new, _)| new.state.is_placed());
        let strict = strict.map(|(id, index, ..)| (before.depth(*id, *index), false, *id, *index));
        let displaced = displaced.into_iter().map(|(depth, id, index)| (depth, true, id, index));
        let mut all: Vec<_> = strict.chain(displaced).collect();
        all.sort_by_key(|(depth, is_displaced, ..)| (*depth, *is_displaced));
        for (_, is_displaced, id, index) in all {
            if !after.try_to_place(id, index) {
                if !is_displaced {
                    return None;
                }
                let time = after.time;
                let place = after.range_mut(id, index);
                (place.state, place.since) = (RangeState::Waiting, time);
            }
        }
        after.sweep(&self.is_placed());
        Some(after)
    }
}

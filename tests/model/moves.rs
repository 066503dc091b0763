//! Moves, made by the manager and by the model.

use vm_device::{Accesses, GuestAddress, InstanceId, RangeRefusal, RelocateError, Relocation};

use crate::history::Move;
use crate::plain::{Model, Place};
use crate::platform::address;
use crate::steps::Run;

impl<V: Accesses> Run<'_, V> {
    pub(crate) fn relocate(&mut self, moves: &[Move]) -> bool {
        let mut relocations = Vec::new();
        // Which range, where to, and whether it is decoded then.
        let mut changes: Vec<(InstanceId, usize, Option<u64>, Option<bool>)> = Vec::new();
        for step in moves {
            let id = self.pick(step.device);
            if id == self.model.relay() {
                continue;
            }
            let Some(instance) = self.model.instances.iter().find(|instance| instance.id == id) else {
                changes.push((id, step.range, None, None));
                continue;
            };
            let index = if instance.places.is_empty() { 0 } else { step.range % (instance.places.len() + 1) };
            let Some(place) = instance.places.get(index) else {
                changes.push((id, index, None, None));
                continue;
            };
            let to = step.to.map(|cell| address(place.io_type, cell));
            if let (true, Some((other, other_index, _, _))) = (step.swap, changes.last().copied())
                && let Some(other_place) = self.place(other, other_index)
            {
                changes.last_mut().unwrap().2 = Some(place.first);
                changes.push((id, index, Some(other_place.first), step.decoded));
                continue;
            }
            changes.push((id, index, to, step.decoded));
            if let (true, true, Some(to)) = (step.with_contents, place.window, to) {
                for below in self.model.subtree(id) {
                    for (index, inside) in self.model.instance(below).places.iter().enumerate() {
                        if below != id && place.contains(inside) {
                            let offset = inside.first - place.first;
                            // The contents first, so that the order of the list is put to the test.
                            changes.insert(0, (below, index, Some(to.wrapping_add(offset)), None));
                        }
                    }
                }
            }
        }
        for (id, index, to, decoded) in &changes {
            let mut relocation = Relocation::new(*id, *index);
            if let Some(to) = to {
                relocation = relocation.to(GuestAddress(*to));
            }
            if let Some(decoded) = decoded {
                relocation = relocation.decoded(*decoded);
            }
            relocations.push(relocation);
        }
        let moved = self.moved(&changes);
        match (self.manager.relocate(&mut relocations), moved) {
            (Ok(()), Some(model)) => {
                self.model = model;
                false
            }
            (Err(error), None) => {
                if let RelocateError::Range { refusal: refusal @ RangeRefusal::WindowInUse { .. }, .. } = error {
                    self.check_range(refusal);
                }
                true
            }
            (got, model) => panic!("{got:?} for {changes:?}, where the model has {model:?} after {:?}", self.model),
        }
    }

    pub(crate) fn place(&self, id: InstanceId, index: usize) -> Option<&Place> {
        self.model.instances.iter().find(|instance| instance.id == id)?.places.get(index)
    }

    /// The model after the moves, if they are possible.
    pub(crate) fn moved(&self, changes: &[(InstanceId, usize, Option<u64>, Option<bool>)]) -> Option<Model> {
        let mut after = self.model.clone();
        let mut moved = Vec::new();
        for (position, (id, index, to, decoded)) in changes.iter().enumerate() {
            if !self.is_live(*id) || changes[..position].iter().any(|(a, b, ..)| (a, b) == (id, index)) {
                return None;
            }
            let instance = after.instances.iter_mut().find(|instance| instance.id == *id)?;
            let place = instance.places.get_mut(*index)?;
            place.decoded = decoded.unwrap_or(place.decoded);
            let to = to.unwrap_or(place.first);
            if to != place.first {
                moved.push((*id, *index));
            }
            let top = place.io_type.last_address().0;
            place.last = to.checked_add(place.last - place.first).filter(|last| *last <= top)?;
            place.first = to;
            if to % place.align != 0 {
                return None;
            }
        }
        for (id, index) in &moved {
            let old = self.place(*id, *index)?;
            let new = after.instance(*id).places[*index];
            let above = after.above(after.instance(*id).parent);
            for (owner, other_index, other) in after.places() {
                let too = owner.is_some_and(|owner| moved.contains(&(owner, other_index)));
                if (owner, other_index) == (Some(*id), *index) {
                    continue;
                }
                let below = owner.is_some_and(|owner| owner != *id && after.above(Some(owner)).contains(id));
                // What stays while a window moves away from around it.
                if !too && old.window && below && old.contains(other) {
                    return None;
                }
                let outer = owner.is_some_and(|owner| above.contains(&owner)) && other.window && other.contains(&new);
                let inner = below && new.window && new.contains(other) && too;
                if new.overlaps(other) && !outer && !inner {
                    return None;
                }
            }
        }
        Some(after)
    }
}

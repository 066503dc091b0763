//! The model: a list of devices with their ranges, and every question answered by looking at all of them.

use vm_device::{
    AccessSizes, Assigned, AssignedIrq, GuestAddress, InstanceId, IoError, IoRange, IoType, MAX_WINDOW_DEPTH,
    RangeState,
};

use crate::fixture::Call;
use crate::history::{Ask, Where};
use crate::platform::address;
use crate::relay::Io;

/// A range: where it lies, or wants to lie while it waits; an unplaced one begins at 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) io_type: IoType,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) window: bool,
    pub(crate) state: RangeState,
    /// Whether it is decoded where it lies, or will be.
    pub(crate) decoded: bool,
    /// The transaction in which it began to wait.
    pub(crate) since: usize,
    /// What the first address stays a multiple of.
    pub(crate) align: u64,
    pub(crate) sizes: AccessSizes,
}

impl Place {
    /// Puts the range in a state that has a place.
    pub(crate) fn put(&mut self) {
        self.state = if self.decoded { RangeState::Decoded } else { RangeState::Reserved };
    }
    pub(crate) fn overlaps(&self, other: &Place) -> bool {
        self.io_type.same_space(other.io_type) && self.first <= other.last && other.first <= self.last
    }
    pub(crate) fn contains(&self, other: &Place) -> bool {
        self.io_type.same_space(other.io_type) && self.first <= other.first && other.last <= self.last
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) recorder: usize,
    pub(crate) parent: Option<InstanceId>,
    pub(crate) places: Vec<Place>,
    pub(crate) irqs: Vec<Irq>,
    pub(crate) deferred: bool,
}

/// An interrupt of a device: its line, if it has one, and whether others may have the same.
pub(crate) type Irq = AssignedIrq;

/// What a registration gives: the ranges and the interrupts.
pub(crate) type Given = (Vec<Place>, Vec<Irq>);

#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// For how many devices and ranges there is room.
    pub(crate) devices: usize,
    pub(crate) ranges: usize,
    /// In the order of registration.
    pub(crate) instances: Vec<Instance>,
    pub(crate) reserved: Vec<Place>,
    /// How many transactions there were.
    pub(crate) time: usize,
}

impl Model {
    pub(crate) fn instance(&self, id: InstanceId) -> &Instance {
        self.instances.iter().find(|instance| instance.id == id).unwrap()
    }

    pub(crate) fn above(&self, id: Option<InstanceId>) -> Vec<InstanceId> {
        let mut above = Vec::new();
        let mut next = id;
        while let Some(id) = next {
            above.push(id);
            next = self.instance(id).parent;
        }
        above
    }

    pub(crate) fn children(&self, parent: Option<InstanceId>) -> Vec<&Instance> {
        self.instances.iter().filter(|instance| instance.parent == parent).collect()
    }

    /// A device and all below it, children before their parents.
    pub(crate) fn subtree(&self, id: InstanceId) -> Vec<InstanceId> {
        let mut all: Vec<_> = self.children(Some(id)).iter().flat_map(|child| self.subtree(child.id)).collect();
        all.push(id);
        all
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = (Option<InstanceId>, usize, &Place)> {
        let devices = self
            .instances
            .iter()
            .flat_map(|instance| instance.places.iter().enumerate().map(|(i, place)| (Some(instance.id), i, place)));
        devices.chain(self.reserved.iter().map(|place| (None, 0, place)))
    }

    /// The ranges that have addresses.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (Option<InstanceId>, usize, &Place)> {
        self.places().filter(|(.., place)| place.state.is_placed())
    }

    /// The buses from `parent` up that have a window for the space.
    fn buses(&self, io_type: IoType, parent: Option<InstanceId>) -> Vec<&Instance> {
        let above = self.above(parent).into_iter().map(|bus| self.instance(bus));
        above.filter(|bus| bus.places.iter().any(|place| place.window && place.io_type.same_space(io_type))).collect()
    }

    /// Whether so few windows are around a range of a child of `parent` as there can be.
    pub(crate) fn is_shallow(&self, io_type: IoType, parent: Option<InstanceId>) -> bool {
        self.buses(io_type, parent).len() <= MAX_WINDOW_DEPTH
    }

    /// The windows that a range of a child of `parent` has to lie in one of now; `None` if it lies directly in the space.
    fn windows(&self, like: &Place, parent: Option<InstanceId>) -> Option<Vec<(InstanceId, Place)>> {
        let bus = *self.buses(like.io_type, parent).first()?;
        let serves = |window: &&Place| {
            window.window
                && window.io_type.same_space(like.io_type)
                && window.state.is_placed()
                && (window.state == RangeState::Decoded || !like.decoded)
        };
        Some(bus.places.iter().filter(serves).map(|window| (bus.id, *window)).collect())
    }

    /// Whether there is room for one more range.
    pub(crate) fn has_room(&self) -> bool {
        self.places().count() < self.ranges
    }

    /// Whether a range of a child of `parent` that has no place may lie there: in a window of the nearest bus that has some, and
    /// outside of all others, the windows above it excepted.
    pub(crate) fn fits(&self, place: &Place, parent: Option<InstanceId>) -> bool {
        let above = self.above(parent);
        self.windows(place, parent).is_none_or(|windows| windows.iter().any(|(_, window)| window.contains(place)))
            && self.placed().all(|(owner, _, other)| {
                !other.overlaps(place)
                    || (other.window && other.contains(place) && owner.is_some_and(|owner| above.contains(&owner)))
            })
    }

    pub(crate) fn range_mut(&mut self, id: InstanceId, index: usize) -> &mut Place {
        let instance = self.instances.iter_mut().find(|instance| instance.id == id);
        &mut instance.unwrap().places[index]
    }

    /// Puts a range without a place where it wants to lie, if it fits there. Whether it did.
    pub(crate) fn try_to_place(&mut self, id: InstanceId, index: usize) -> bool {
        let instance = self.instance(id);
        let fits = self.fits(&instance.places[index], instance.parent);
        if fits {
            self.range_mut(id, index).put();
        }
        fits
    }

    /// How many windows are around a range, or are to be.
    pub(crate) fn depth(&self, id: InstanceId, index: usize) -> usize {
        let instance = self.instance(id);
        self.buses(instance.places[index].io_type, instance.parent).len()
    }

    /// Tries the waiting ranges once. Of two that began to wait in one transaction, and have as many windows around them, the
    /// manager is free to take either: `is_placed` says which it has placed.
    pub(crate) fn sweep(&mut self, is_placed: &dyn Fn(InstanceId, usize) -> bool) {
        let waiting = self.places().filter(|(.., place)| place.state == RangeState::Waiting);
        let mut waiting: Vec<_> = waiting
            .map(|(owner, index, place)| {
                let id = owner.unwrap();
                (self.depth(id, index), place.since, !is_placed(id, index), id, index)
            })
            .collect();
        waiting.sort_by_key(|(depth, since, is_second, ..)| (*depth, *since, *is_second));
        for (.., id, index) in waiting {
            // What is being removed gets no new place.
            if !self.instance(id).deferred {
                self.try_to_place(id, index);
            }
        }
    }

    /// Every address from `from` to `to` that is near one of the two, upwards: so near that all ranges there can be, each with
    /// a hole before it that is useless for its alignment, do not fill it. (A window that a swap has moved to the place of a
    /// range in the other space lies far from both ends of its own.)
    pub(crate) fn candidates(from: u64, to: u64) -> Vec<u64> {
        const NEAR: u64 = 1000;
        let low = from.saturating_add(NEAR).min(to);
        let high = to.saturating_sub(NEAR).max(low);
        (from..=low).chain(high..=to).filter(|_| from <= to).collect()
    }

    /// The first place that serves, by trying all.
    pub(crate) fn anywhere(&self, ask: &Ask, parent: Option<InstanceId>, like: Place) -> Option<Place> {
        let Where::Any { size, align, limits, last_fit } = ask.place else { unreachable!() };
        let windows = self.windows(&like, parent);
        let top = like.io_type.last_address().0;
        let whole = Place { first: 0, last: top, ..like };
        let containers = windows.unwrap_or_else(|| vec![(InstanceId::clone(&self.relay()), whole)]);
        let rooted = containers.len() == 1 && containers[0].0 == self.relay();
        for (bus, container) in containers {
            let (low, high) =
                limits.map_or((0, top), |(low, high)| (address(like.io_type, low), address(like.io_type, high)));
            let (from, to) = (low.max(container.first), high.min(container.last));
            let mut firsts = Self::candidates(from, to);
            if last_fit {
                firsts.reverse();
            }
            let above = self.above(Some(bus));
            let found = firsts.into_iter().find_map(|first| {
                let last = first.checked_add(size - 1).filter(|last| *last <= to)?;
                let place = Place { first, last, ..like };
                let free = self.placed().all(|(owner, _, other)| {
                    let around = !rooted
                        && other.window
                        && other.contains(&container)
                        && owner.is_some_and(|owner| above.contains(&owner));
                    !other.overlaps(&place) || around
                });
                (first % align == 0 && free).then_some(place)
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The relay is the first instance and owns no window.
    pub(crate) fn relay(&self) -> InstanceId {
        self.instances[0].id
    }

    /// Which range answers an access: of all that have its first and its last byte, the one of the device furthest down the
    /// tree.
    pub(crate) fn dispatched(&self, io_type: IoType, first: u64, last: u64) -> Option<(&Instance, usize, &Place)> {
        let all = self.instances.iter().flat_map(|instance| {
            instance.places.iter().enumerate().map(move |(index, place)| (instance, index, place))
        });
        all.filter(|(instance, _, place)| {
            !instance.deferred
                && place.state == RangeState::Decoded
                && place.io_type != IoType::PhysicalMmio
                && place.io_type.same_space(io_type)
                && (place.first..=place.last).contains(&first)
                && (place.first..=place.last).contains(&last)
        })
        .max_by_key(|(instance, ..)| self.above(Some(instance.id)).len())
    }

    pub(crate) fn owner(&self, io_type: IoType, address: u64) -> Option<(InstanceId, usize)> {
        let all = self.placed().filter_map(|(owner, index, place)| Some((owner?, index, place)));
        all.filter(|(.., place)| place.io_type.same_space(io_type) && (place.first..=place.last).contains(&address))
            .max_by_key(|(owner, ..)| self.above(Some(*owner)).len())
            .map(|(owner, index, _)| (owner, index))
    }

    /// The device that an access reaches and its calls, or why it reaches none.
    pub(crate) fn access(&self, io: Io) -> Result<(usize, Vec<Call>), IoError> {
        let Io { io_type, address, write, element, length } = io;
        let unit = if element == 0 { length } else { element };
        if length == 0 || length % unit != 0 {
            return Err(IoError::InvalidLength);
        }
        if io_type == IoType::PhysicalMmio {
            return Err(IoError::NotDispatched);
        }
        let top = io_type.last_address().0;
        if address > top {
            return Err(IoError::Unclaimed);
        }
        if unit as u64 - 1 > top - address {
            return Err(IoError::Straddling);
        }
        let last = address + (unit as u64 - 1);
        let Some((instance, range_index, place)) = self.dispatched(io_type, address, last) else {
            let is_touched = (address..=last).any(|byte| self.dispatched(io_type, byte, byte).is_some());
            return Err(if is_touched { IoError::Straddling } else { IoError::Unclaimed });
        };
        let base = place.first;
        let call = |offset, length| Call { write, range_index, address: address + offset, base, length };
        let power = unit.is_power_of_two();
        let known = match unit {
            1 => AccessSizes::BYTE,
            2 => AccessSizes::WORD,
            4 => AccessSizes::DWORD,
            8 => AccessSizes::QWORD,
            _ => AccessSizes::OTHER,
        };
        let aligned = !place.sizes.contains(AccessSizes::ALIGNED) || !power || (address - base) % unit as u64 == 0;
        let each: Vec<Call> = if place.sizes.contains(known) && aligned {
            vec![call(0, unit)]
        } else if place.sizes.contains(AccessSizes::SPLIT) {
            (0..unit as u64).map(|offset| call(offset, 1)).collect()
        } else {
            return Err(IoError::RefusedSize);
        };
        let count = length / unit;
        Ok((instance.recorder, (0..count).flat_map(|_| each.iter().copied()).collect()))
    }

    /// Takes devices away, one after the other.
    pub(crate) fn remove(&mut self, ids: &[InstanceId], is_placed: &dyn Fn(InstanceId, usize) -> bool) {
        // None of them gets a place any more.
        self.instances.iter_mut().filter(|instance| ids.contains(&instance.id)).for_each(|i| i.deferred = true);
        for id in ids {
            self.instances.retain(|instance| instance.id != *id);
            self.sweep(is_placed);
        }
    }
}

pub(crate) fn assigned(place: &Place) -> Assigned {
    let range = IoRange::new(GuestAddress(place.first), GuestAddress(place.last)).unwrap();
    Assigned { io_type: place.io_type, range, state: place.state }
}

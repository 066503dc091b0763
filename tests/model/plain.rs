//! The model: a list of devices with their ranges, and every question answered by looking at all of them.

use vm_device::{AccessSizes, Assigned, Gsi, GuestAddress, InstanceId, IoError, IoRange, IoType};

use crate::fixture::Call;
use crate::history::{Ask, Where};
use crate::platform::address;
use crate::relay::Io;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) io_type: IoType,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) window: bool,
    pub(crate) decoded: bool,
    /// What the first address stays a multiple of.
    pub(crate) align: u64,
    pub(crate) sizes: AccessSizes,
}

impl Place {
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
    pub(crate) irq: Option<(Gsi, bool)>,
    pub(crate) deferred: bool,
}

/// What a registration gives: the ranges, and the line and whether it is shared.
pub(crate) type Given = (Vec<Place>, Option<(Gsi, bool)>);

#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// For how many devices and ranges there is room.
    pub(crate) devices: usize,
    pub(crate) ranges: usize,
    /// In the order of registration.
    pub(crate) instances: Vec<Instance>,
    pub(crate) reserved: Vec<Place>,
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

    pub(crate) fn subtree(&self, id: InstanceId) -> Vec<InstanceId> {
        let mut all = vec![id];
        for child in self.children(Some(id)) {
            all.extend(self.subtree(child.id));
        }
        all
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = (Option<InstanceId>, usize, &Place)> {
        let devices = self
            .instances
            .iter()
            .flat_map(|instance| instance.places.iter().enumerate().map(|(i, place)| (Some(instance.id), i, place)));
        devices.chain(self.reserved.iter().map(|place| (None, 0, place)))
    }

    /// Whether there is room for one more range.
    pub(crate) fn has_room(&self) -> bool {
        self.places().count() < self.ranges
    }

    /// Whether a new range of a child of `parent` may lie there: outside of all others, the windows above it excepted.
    pub(crate) fn fits(&self, place: &Place, parent: Option<InstanceId>) -> bool {
        let above = self.above(parent);
        self.has_room()
            && self.places().all(|(owner, _, other)| {
                !other.overlaps(place)
                    || (other.window && other.contains(place) && owner.is_some_and(|owner| above.contains(&owner)))
            })
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
        let windows = self.above(parent).into_iter().find_map(|bus| {
            let windows = self.instance(bus).places.iter().filter(|w| w.window && w.io_type.same_space(like.io_type));
            let windows: Vec<_> = windows.map(|window| (bus, *window)).collect();
            (!windows.is_empty()).then_some(windows)
        });
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
                let free = self.has_room()
                    && self.places().all(|(owner, _, other)| {
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
                && place.decoded
                && place.io_type != IoType::PhysicalMmio
                && place.io_type.same_space(io_type)
                && (place.first..=place.last).contains(&first)
                && (place.first..=place.last).contains(&last)
        })
        .max_by_key(|(instance, ..)| self.above(Some(instance.id)).len())
    }

    pub(crate) fn owner(&self, io_type: IoType, address: u64) -> Option<(InstanceId, usize)> {
        let all = self.places().filter_map(|(owner, index, place)| Some((owner?, index, place)));
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

    pub(crate) fn remove(&mut self, ids: &[InstanceId]) {
        self.instances.retain(|instance| !ids.contains(&instance.id));
    }

    pub(crate) fn collect(&mut self) {
        self.instances.retain(|instance| !instance.deferred);
    }
}

pub(crate) fn assigned(place: &Place) -> Assigned {
    let range = IoRange::new(GuestAddress(place.first), GuestAddress(place.last)).unwrap();
    Assigned { io_type: place.io_type, range, decoded: place.decoded }
}

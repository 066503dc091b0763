//! A registration takes its ranges, line and id, or nothing.

use crate::address::{GuestAddress, GuestUsize, IoRange, IoType, RangeError, Space};
use crate::allocator::{FreeRange, Holder, RangeRecord, Refusal};
use crate::device::Device;
use crate::error::{Owner, RangeRefusal, RegisterError};
use crate::indices::{NodeIndex, SlotIndex};
use crate::instance::InstanceId;
use crate::manager::state::State;
use crate::manager::tree::{NewNode, NodeState};
use crate::resource::{
    IoResource, IrqResource, MAX_IRQS_PER_DEVICE, MAX_RANGES_PER_DEVICE, MAX_WINDOW_DEPTH, Placement, RangeState,
};

/// What a registration asks for.
#[derive(Clone, Copy)]
pub(crate) struct Request<'r, 'd> {
    pub(crate) device: &'d dyn Device<'d>,
    pub(crate) name: &'d str,
    pub(crate) parent: Option<InstanceId>,
    pub(crate) ranges: &'r [IoResource],
    pub(crate) irqs: &'r [IrqResource],
}

/// A device that takes ranges.
#[derive(Clone, Copy)]
pub(crate) struct Taker {
    pub(crate) node: NodeIndex,
    pub(crate) parent: Option<NodeIndex>,
}

impl<'d> State<'_, 'd> {
    /// Takes everything a device asks for and links its node, or takes nothing.
    pub(crate) fn take(&mut self, request: &Request<'_, 'd>) -> Result<InstanceId, RegisterError<&'d str>> {
        let Request { device, name, ranges, .. } = *request;
        if name.is_empty() || name.bytes().any(|byte| matches!(byte, b'/' | b'@')) {
            return Err(RegisterError::InvalidName { device: name });
        }
        let parent = match request.parent {
            None => None,
            Some(id) => match self.tree.get(id) {
                Some(node) if node.state == NodeState::LIVE => Some(id.index),
                _ => return Err(RegisterError::NoSuchParent { device: name, parent: id }),
            },
        };
        if ranges.len() > MAX_RANGES_PER_DEVICE {
            let (asked, limit) = (ranges.len(), MAX_RANGES_PER_DEVICE);
            return Err(RegisterError::TooManyRanges { device: name, asked, limit });
        }
        if request.irqs.len() > MAX_IRQS_PER_DEVICE {
            let (asked, limit) = (request.irqs.len(), MAX_IRQS_PER_DEVICE);
            return Err(RegisterError::TooManyIrqs { device: name, asked, limit });
        }
        let too_many = RegisterError::TooManyDevices { device: name, capacity: self.tree.capacity() };
        let id = self.tree.ids.next().ok_or(too_many)?;
        let first_range = self.take_ranges(name, Taker { node: id.index, parent }, ranges)?;
        let first_connection = match self.take_interrupts(request.irqs) {
            Ok(first) => first,
            Err((index, refusal)) => {
                self.give_back_ranges(first_range);
                return Err(RegisterError::Irq { device: name, index, refusal });
            }
        };
        // It is the id that `next` has named.
        let _ = self.tree.ids.allocate();
        self.tree.link(NewNode { id, device, name, parent, first_range, first_connection });
        Ok(id)
    }

    /// Takes the ranges as a linked list, and returns the first.
    fn take_ranges(
        &mut self,
        device: &'d str,
        taker: Taker,
        requests: &[IoResource],
    ) -> Result<Option<SlotIndex>, RegisterError<&'d str>> {
        let (mut first, mut last) = (None, None::<SlotIndex>);
        for (index, request) in requests.iter().enumerate() {
            match self.take_range(taker, index, request) {
                Ok(slot) => {
                    match last.and_then(|last| self.pool.range_mut(last)) {
                        Some(previous) => previous.next = Some(slot),
                        None => first = Some(slot),
                    }
                    last = Some(slot);
                }
                Err(refusal) => {
                    self.give_back_ranges(first);
                    return Err(RegisterError::Range { device, index, io_type: request.io_type(), refusal });
                }
            }
        }
        Ok(first)
    }

    fn take_range(
        &mut self,
        taker: Taker,
        index: usize,
        request: &IoResource,
    ) -> Result<SlotIndex, RangeRefusal<Owner<&'d str>>> {
        let placement = request.placement.as_ref().map_err(|error| RangeRefusal::Invalid(*error))?;
        let (io_type, state) = (request.io_type(), request.state());
        let range = RangeRecord::new(Some(taker.node), io_type);
        let depth = self.depth_below(io_type.space(), taker.parent)?;
        let mut range = range.with_request(index, request.is_window(), state != RangeState::Reserved, depth);
        let free = match state {
            RangeState::Unplaced => {
                range.range = unplaced(io_type, placement)?;
                check_fixed(range.range, &IoResource::at(io_type, range.range).aligned(request.alignment()))?;
                None
            }
            RangeState::Waiting => {
                let Placement::Fixed(wanted) = *placement else { return Err(RangeRefusal::NoAddress) };
                check_fixed(wanted, request)?;
                check_space(io_type, wanted)?;
                range.range = wanted;
                self.find_free(io_type, placement, taker, true).ok()
            }
            RangeState::Decoded | RangeState::Reserved => {
                if let Placement::Fixed(wanted) = *placement {
                    check_fixed(wanted, request)?;
                }
                Some(self.find_free(io_type, placement, taker, state == RangeState::Decoded)?)
            }
        };
        let slot = match free {
            Some(free) => self.pool.insert(&free, range),
            None => self.pool.insert_unplaced(range),
        };
        let slot = slot.map_err(|error| self.refusal(error))?;
        self.pool.set_alignment(slot, request.alignment());
        if free.is_none() && state == RangeState::Waiting {
            self.pool.wait_for(slot, range.range);
        }
        Ok(slot)
    }

    /// The pool's reason, with the owner of what is in the way.
    pub(crate) fn refusal(&self, refusal: Refusal) -> RangeRefusal<Owner<&'d str>> {
        refusal.map_owner(|holder| self.owner(holder.node))
    }

    /// Finds a free place for a range of a device: in a window of the nearest bus above the device that has one for the space,
    /// or else directly in the space. A range that is to be `decoded` needs a window that is.
    pub(crate) fn find_free(
        &mut self,
        io_type: IoType,
        placement: &Placement,
        taker: Taker,
        decoded: bool,
    ) -> Result<FreeRange, RangeRefusal<Owner<&'d str>>> {
        if let Placement::Fixed(range) = *placement {
            check_space(io_type, range)?;
        }
        let bus = self.buses_with_window(io_type.space(), taker.parent).next();
        let found = match bus {
            None => self.pool.find_free(io_type, placement, None),
            Some(bus) => self.find_in_windows(io_type, placement, bus, decoded)?,
        };
        found.map_err(|refusal| match refusal {
            RangeRefusal::Overlap { wanted, taken, owner: Holder { node: Some(node), .. } }
                if node == taker.node && self.tree.node(node).is_none() =>
            {
                RangeRefusal::OverlapsOwnRequest { wanted, taken }
            }
            RangeRefusal::Overlap { wanted, taken, owner: Holder { node: Some(node), .. } }
                if taker.parent.is_some_and(|parent| self.tree.is_within(parent, node)) =>
            {
                RangeRefusal::NotInWindow { wanted, taken, bus: self.owner(Some(node)) }
            }
            other => self.refusal(other),
        })
    }

    /// Finds a free place in a window of a bus. The outer error says that none of its windows can hold anything now.
    fn find_in_windows(
        &mut self,
        io_type: IoType,
        placement: &Placement,
        bus: NodeIndex,
        decoded: bool,
    ) -> Result<Result<FreeRange, Refusal>, RangeRefusal<Owner<&'d str>>> {
        let (mut asked, mut next) = (None, self.tree.node(bus).and_then(|bus| bus.first_range));
        while let Some((index, window)) = next.and_then(|index| Some((index, *self.range(index)?))) {
            next = window.next;
            let state = window.state();
            if !window.is_window_for(io_type.space()) || !state.is_placed() || (decoded && !window.is_decoded()) {
                continue;
            }
            asked = Some(index);
            let found = self.pool.find_free(io_type, placement, asked);
            // What another window of the bus is for is no reason.
            if !matches!(found, Err(RangeRefusal::OutsideWindow { .. } | RangeRefusal::NoRoom { .. })) {
                return Ok(found);
            }
        }
        match asked {
            // It is asked once more, for the reason: to keep the reason takes more code.
            Some(_) => Ok(self.pool.find_free(io_type, placement, asked)),
            None => Err(RangeRefusal::NoDecodedWindow { bus: self.owner(Some(bus)) }),
        }
    }

    /// The buses from `parent` up that have a window for the space, in any state.
    fn buses_with_window(&self, space: Space, parent: Option<NodeIndex>) -> impl Iterator<Item = NodeIndex> {
        let above = parent.into_iter().chain(parent.into_iter().flat_map(|parent| self.tree.ancestors(parent)));
        above.filter(move |bus| self.ranges_of(*bus).any(|(_, range)| range.is_window_for(space)))
    }

    /// The window around a device's range: of the nearest bus above the device that has one for the space.
    pub(crate) fn window_around(&self, range: &RangeRecord) -> Option<SlotIndex> {
        let parent = self.tree.node(range.node?)?.parent;
        let bus = self.buses_with_window(range.space(), parent).next()?;
        let holds = |window: &RangeRecord| {
            window.is_window_for(range.space()) && window.is_placed() && window.range.contains_range(range.range)
        };
        self.ranges_of(bus).find(|(_, window)| holds(window)).map(|(slot, _)| slot)
    }

    /// How many windows are around a range of a child of `parent` wherever it is placed.
    fn depth_below(&self, space: Space, parent: Option<NodeIndex>) -> Result<u8, RangeRefusal<Owner<&'d str>>> {
        let depth = self.buses_with_window(space, parent).count();
        match self.buses_with_window(space, parent).next() {
            Some(bus) if depth > MAX_WINDOW_DEPTH => Err(RangeRefusal::TooDeep { bus: self.owner(Some(bus)) }),
            _ => Ok(depth as u8),
        }
    }
}

/// Checks that a range does not pass the last address of its space.
pub(crate) fn check_space<O>(io_type: IoType, range: IoRange) -> Result<(), RangeRefusal<O>> {
    let last = io_type.last_address();
    match range.last() > last {
        true => Err(RangeRefusal::Invalid(RangeError::BeyondSpace { range, last })),
        false => Ok(()),
    }
}

/// The size of an unplaced range, from address 0 on.
fn unplaced<O>(io_type: IoType, placement: &Placement) -> Result<IoRange, RangeRefusal<O>> {
    let range = match *placement {
        Placement::Fixed(range) => range.moved_to(GuestAddress(0)),
        Placement::Any { size, .. } => IoRange::with_size(GuestAddress(0), size),
    };
    let range = range.map_err(|_| RangeRefusal::Empty)?;
    check_space(io_type, range)?;
    Ok(range)
}

/// Checks that a fixed range has the alignment and the limits of its request.
fn check_fixed<O>(wanted: IoRange, request: &IoResource) -> Result<(), RangeRefusal<O>> {
    let align = request.alignment();
    if !align.is_power_of_two() {
        return Err(RangeRefusal::BadAlignment { align });
    }
    if wanted.first().0 & align.wrapping_sub(1) != 0 {
        return Err(RangeRefusal::Misaligned { wanted: wanted.first(), alignment: GuestUsize(align) });
    }
    match request.limits() {
        Some(limits) if !limits.contains_range(wanted) => Err(RangeRefusal::OutsideLimits { wanted, limits }),
        _ => Ok(()),
    }
}

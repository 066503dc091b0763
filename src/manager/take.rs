//! A registration takes its name, ranges, line and id, or nothing.

use crate::address::{GuestUsize, IoRange, IoType, RangeError};
use crate::allocator::{FreeRange, Holder, RangeRecord, Refusal};
use crate::device::Device;
use crate::error::{Owner, RangeRefusal, RegisterError};
use crate::indices::{NodeIndex, SlotIndex};
use crate::instance::InstanceId;
use crate::manager::state::State;
use crate::manager::tree::{NewNode, NodeState};
use crate::resource::{IoResource, IrqResource, MAX_RANGES_PER_DEVICE, Placement};

/// What a registration asks for.
#[derive(Clone, Copy)]
pub(crate) struct Request<'r, 'd> {
    pub(crate) device: &'d dyn Device<'d>,
    pub(crate) name: &'d str,
    pub(crate) parent: Option<InstanceId>,
    pub(crate) ranges: &'r [IoResource],
    pub(crate) irq: IrqResource,
}

/// A device that takes ranges.
#[derive(Clone, Copy)]
pub(crate) struct Taker {
    pub(crate) node: NodeIndex,
    pub(crate) parent: Option<NodeIndex>,
}

impl<'d> State<'_, 'd> {
    /// Takes everything a device asks for and links its node, or takes nothing.
    pub(crate) fn take(&mut self, request: &Request<'_, 'd>) -> Result<InstanceId, RegisterError<'d>> {
        let Request { device, name, ranges, .. } = *request;
        if name.is_empty() || name.bytes().any(|byte| byte == b'/') {
            return Err(RegisterError::InvalidName { device: name });
        }
        let parent = match request.parent {
            None => None,
            Some(id) => match self.tree.get(id) {
                Some(node) if node.state == NodeState::LIVE => Some(id.index),
                _ => return Err(RegisterError::NoSuchParent { device: name, parent: id }),
            },
        };
        if let Some(holder) = self.tree.child(parent, name) {
            return Err(RegisterError::NameTaken { device: name, holder: holder.id() });
        }
        if ranges.len() > MAX_RANGES_PER_DEVICE {
            let (asked, limit) = (ranges.len(), MAX_RANGES_PER_DEVICE);
            return Err(RegisterError::TooManyRanges { device: name, asked, limit });
        }
        let too_many = RegisterError::TooManyDevices { device: name, capacity: self.tree.capacity() };
        let id = self.ids.next().ok_or(too_many)?;
        let first_range = self.take_ranges(name, Taker { node: id.index, parent }, ranges)?;
        let line = match self.take_line(name, request.irq) {
            Ok(line) => line,
            Err(error) => {
                self.give_back_ranges(first_range);
                return Err(error);
            }
        };
        // It is the id that `next` has named.
        let _ = self.ids.allocate();
        self.tree.link(NewNode { id, device, name, parent, first_range, line });
        Ok(id)
    }

    /// Takes the ranges as a linked list, and returns the first.
    fn take_ranges(
        &mut self,
        device: &'d str,
        taker: Taker,
        requests: &[IoResource],
    ) -> Result<Option<SlotIndex>, RegisterError<'d>> {
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
    ) -> Result<SlotIndex, RangeRefusal<Owner<'d>>> {
        let placement = request.placement.as_ref().map_err(|error| RangeRefusal::Invalid(*error))?;
        if let Placement::Fixed(range) = *placement {
            check_fixed(range, request)?;
        }
        let free = self.find_free(request.io_type(), placement, taker)?;
        let range = RangeRecord::new(Some(taker.node), request.io_type());
        let range = range.with_request(index, request.is_window(), request.is_decoded());
        let slot = self.pool.insert(&free, range).map_err(|error| self.refusal(error))?;
        self.pool.set_alignment(slot, request.alignment());
        Ok(slot)
    }

    /// The pool's reason, with the owner of what is in the way.
    pub(crate) fn refusal(&self, refusal: Refusal) -> RangeRefusal<Owner<'d>> {
        refusal.map_owner(|holder| self.owner(holder.node))
    }

    /// Finds a free place for a range of a device: in the windows of the buses above the device, where there are any.
    pub(crate) fn find_free(
        &mut self,
        io_type: IoType,
        placement: &Placement,
        taker: Taker,
    ) -> Result<FreeRange, RangeRefusal<Owner<'d>>> {
        if let Placement::Fixed(range) = *placement {
            let last = io_type.last_address();
            if range.last() > last {
                return Err(RangeRefusal::Invalid(RangeError::BeyondSpace { range, last }));
            }
        }
        self.find_below(io_type, placement, taker.parent).map_err(|refusal| match refusal {
            RangeRefusal::Overlap { wanted, taken, owner: Holder { node: Some(node), .. } }
                if node == taker.node && self.tree.node(node).is_none() =>
            {
                RangeRefusal::OverlapsOwnRequest { wanted, taken }
            }
            RangeRefusal::Overlap { wanted, taken, owner: Holder { node: Some(node), is_window } }
                if taker.parent.is_some_and(|parent| self.tree.is_within(parent, node)) =>
            {
                RangeRefusal::NotInWindow { wanted, taken, bus: self.owner(Some(node)), is_window }
            }
            other => self.refusal(other),
        })
    }

    fn find_below(
        &mut self,
        io_type: IoType,
        placement: &Placement,
        parent: Option<NodeIndex>,
    ) -> Result<FreeRange, Refusal> {
        if let Placement::Fixed(wanted) = *placement {
            return self.pool.find_free(io_type, placement, self.window_around(io_type, wanted, parent));
        }
        // Anywhere: in a window of the nearest ancestor that has one for this space.
        let (mut ancestor, mut refused) = (parent, None);
        while let Some(node) = ancestor.and_then(|ancestor| self.tree.node(ancestor)) {
            ancestor = node.parent;
            let mut next = node.first_range;
            while let Some((index, range)) = next.and_then(|index| Some((index, *self.range(index)?))) {
                if range.is_window() && range.space() == io_type.space() {
                    let found = self.pool.find_free(io_type, placement, Some(index));
                    if found.is_ok() {
                        return found;
                    }
                    refused = Some(index);
                }
                next = range.next;
            }
            if refused.is_some() {
                break;
            }
        }
        // Where a window has refused, it is asked once more, for the reason: to keep the reason takes more code.
        self.pool.find_free(io_type, placement, refused)
    }

    /// The innermost window around `wanted` that belongs to `parent` or a bus above it.
    fn window_around(&self, io_type: IoType, wanted: IoRange, parent: Option<NodeIndex>) -> Option<SlotIndex> {
        let parent = parent?;
        let (mut index, mut range) = self.pool.innermost(io_type.space(), wanted.first())?;
        loop {
            let is_above = range.node.is_some_and(|node| self.tree.is_within(parent, node));
            if range.is_window() && range.range.contains_range(wanted) && is_above {
                return Some(index);
            }
            index = range.container?;
            range = self.range(index)?;
        }
    }
}

/// Checks that a fixed range has the alignment and the limits of its request.
fn check_fixed(wanted: IoRange, request: &IoResource) -> Result<(), RangeRefusal<Owner<'static>>> {
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

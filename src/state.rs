//! The writer's state, behind the manager's lock: allocator, topology and lines, which always agree.

use heapless::Vec;

use crate::address::{GuestUsize, IoRange, IoType, RangeError};
use crate::allocator::{
    InstanceId, IrqError, MAX_RANGES_PER_DEVICE, PENDING, Place, PoolError, Range, SystemAllocator,
};
use crate::device::Device;
use crate::error::{Owner, RangeRefusal, RegisterError};
use crate::interrupt::{Gsi, MAX_SHARING};
use crate::resource::{IoResource, IrqResource, Placement};
use crate::topology::{Life, NONE, Node, Topology, WireUse};

/// One interrupt line in use.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    pub(crate) gsi: Gsi,
    /// The sources given out, a bit each.
    sources: u32,
    pub(crate) shared: bool,
    /// The controller had not taken the line's level when a device was taken off it: `collect` tells it again.
    owed: bool,
}

impl Line {
    fn is_free(&self) -> bool {
        self.sources == 0 && !self.owed
    }

    const FREE: Self = Self { gsi: Gsi(0), sources: 0, shared: false, owed: false };

    /// The source of a caller that tells the controller an owed level. It asserts nothing, and is none of the devices'.
    const COLLECTOR: u32 = 1 << MAX_SHARING;
}

pub(crate) struct State<'d, const DEVICES: usize, const RANGES: usize> {
    pub(crate) allocator: SystemAllocator<DEVICES, RANGES>,
    pub(crate) topology: Topology<'d, DEVICES>,
    lines: [Line; DEVICES],
    /// How many removals are left to `collect`.
    pub(crate) deferred: u16,
    /// How many lines are owed.
    pub(crate) owed: u16,
}

/// What a registration asks for, from the device's own words.
#[derive(Clone, Copy)]
pub(crate) struct Request<'r, 'd> {
    pub(crate) device: &'d dyn Device<'d>,
    pub(crate) name: &'d str,
    pub(crate) parent: Option<InstanceId>,
    pub(crate) ranges: &'r [IoResource],
    pub(crate) irq: IrqResource,
}

impl<'d, const DEVICES: usize, const RANGES: usize> State<'d, DEVICES, RANGES> {
    pub(crate) const fn new(allocator: SystemAllocator<DEVICES, RANGES>) -> Self {
        Self { allocator, topology: Topology::new(), lines: [Line::FREE; DEVICES], deferred: 0, owed: 0 }
    }

    pub(crate) fn range(&self, slot: u16) -> Option<&Range> {
        self.allocator.pool.range(slot)
    }

    pub(crate) fn range_mut(&mut self, slot: u16) -> Option<&mut Range> {
        self.allocator.pool.range_mut(slot)
    }

    /// The ranges of a chain, in the order of the requests, with the numbers of their slots.
    pub(crate) fn chain(&self, first: u16) -> impl Iterator<Item = (u16, &Range)> {
        let mut next = first;
        core::iter::from_fn(move || {
            let slot = next;
            let range = self.range(slot)?;
            next = range.next;
            Some((slot, range))
        })
    }

    /// The ranges of a node.
    pub(crate) fn ranges_of(&self, node: u16) -> impl Iterator<Item = (u16, &Range)> {
        self.chain(self.topology.node(node).map_or(NONE, |node| node.first_range))
    }

    /// The numbers of the slots of a node's ranges.
    pub(crate) fn slots_of(&self, node: u16) -> Vec<u16, MAX_RANGES_PER_DEVICE> {
        let mut slots = Vec::new();
        for (slot, _) in self.ranges_of(node) {
            // A node has no more ranges than there is room for.
            let _ = slots.push(slot);
        }
        slots
    }

    pub(crate) fn line(&self, place: u16) -> Option<&Line> {
        self.lines.get(place as usize)
    }

    /// Whose a range is.
    pub(crate) fn owner(&self, node: u16) -> Owner<'d> {
        match self.topology.node(node) {
            Some(node) => Owner::Device { id: node.id, name: node.name },
            None => Owner::Vmm,
        }
    }

    /// The pool's reason, with the owner of what is in the way.
    pub(crate) fn refusal(&self, error: &PoolError) -> RangeRefusal<'d> {
        match *error {
            PoolError::Overlap { wanted, taken } if taken.owner == PENDING => {
                RangeRefusal::AskedTwice { wanted, taken: taken.range }
            }
            PoolError::Overlap { wanted, taken } => {
                RangeRefusal::Overlap { wanted, taken: taken.range, owner: self.owner(taken.owner) }
            }
            PoolError::WindowInUse { inside, .. } => {
                RangeRefusal::WindowInUse { inside: inside.range, owner: self.owner(inside.owner) }
            }
            other => RangeRefusal::Pool(other),
        }
    }

    /// Takes everything a device asks for and links its node, or takes nothing.
    pub(crate) fn take(&mut self, request: &Request<'_, 'd>) -> Result<InstanceId, RegisterError<'d>> {
        let Request { device, name, ranges, .. } = *request;
        if name.is_empty() || name.bytes().any(|byte| byte == b'/') {
            return Err(RegisterError::InvalidName { device: name });
        }
        let parent = match request.parent {
            None => NONE,
            Some(id) => match self.topology.get(id) {
                Some(node) if node.life == Life::Live => id.index,
                _ => return Err(RegisterError::NoSuchParent { device: name, parent: id }),
            },
        };
        if let Some(holder) = self.topology.child(parent, name) {
            return Err(RegisterError::NameTaken { device: name, holder: holder.id });
        }
        if ranges.len() > MAX_RANGES_PER_DEVICE {
            let (asked, limit) = (ranges.len(), MAX_RANGES_PER_DEVICE);
            return Err(RegisterError::TooManyRanges { device: name, asked, limit });
        }
        let first_range = self.take_ranges(name, parent, ranges)?;
        let irq = match self.take_irq(name, request.irq) {
            Ok(irq) => irq,
            Err(error) => {
                self.give_back_ranges(first_range);
                return Err(error);
            }
        };
        let Ok(id) = self.allocator.allocate_instance_id() else {
            self.give_back_irq(irq, true);
            self.give_back_ranges(first_range);
            return Err(RegisterError::TooManyDevices { device: name, capacity: DEVICES });
        };
        let mut slot = first_range;
        while let Some(range) = self.range_mut(slot) {
            range.node = id.index;
            slot = range.next;
        }
        self.topology.link(id, device, name, parent, first_range, irq);
        Ok(id)
    }

    /// Gives back everything a node has, and the node. It has no children, and no reader is in its slots. `is_settled` says
    /// that the controller has taken the level of the node's line.
    pub(crate) fn give_back(&mut self, index: u16, is_settled: bool) {
        let Some(node) = self.topology.unlink(index) else { return };
        self.give_back_irq(node.irq, is_settled);
        self.give_back_ranges(node.first_range);
        // The id is current as long as the node is linked.
        let _ = self.allocator.free_instance_id(node.id);
    }

    /// Takes the ranges, as a chain. The first of the chain, or [`NONE`] if there are none.
    fn take_ranges(&mut self, name: &'d str, parent: u16, requests: &[IoResource]) -> Result<u16, RegisterError<'d>> {
        let (mut first, mut last) = (NONE, NONE);
        for (index, request) in requests.iter().enumerate() {
            match self.take_range(parent, index, request) {
                Ok(slot) => {
                    match self.range_mut(last) {
                        Some(previous) => previous.next = slot,
                        None => first = slot,
                    }
                    last = slot;
                }
                Err(refusal) => {
                    self.give_back_ranges(first);
                    return Err(RegisterError::Range { device: name, index, io_type: request.io_type(), refusal });
                }
            }
        }
        Ok(first)
    }

    fn take_range(&mut self, parent: u16, index: usize, request: &IoResource) -> Result<u16, RangeRefusal<'d>> {
        let placement = request.placement.as_ref().map_err(|error| RangeRefusal::Invalid(*error))?;
        if let Placement::Fixed(range) = *placement {
            check_fixed(range, request)?;
        }
        let place = self.place(request.io_type(), placement, parent)?;
        let range = Range::new(PENDING, request.io_type());
        let range = range.described(index, request.is_window(), request.is_decoded());
        let slot = self.allocator.pool.insert(&place, range).map_err(RangeRefusal::Pool)?;
        self.allocator.pool.set_alignment(slot, request.alignment());
        Ok(slot)
    }

    #[inline(never)]
    fn give_back_ranges(&mut self, first: u16) {
        let mut slot = first;
        while let Some(&range) = self.range(slot) {
            // A range in the chain is allocated, and nothing lies in the windows of a device without children.
            let _ = self.allocator.pool.remove(slot);
            slot = range.next;
        }
    }

    /// Finds a place for a range of a child of `parent`: in the windows above it, where there are any.
    pub(crate) fn place(
        &mut self,
        io_type: IoType,
        placement: &Placement,
        parent: u16,
    ) -> Result<Place, RangeRefusal<'d>> {
        if let Placement::Fixed(range) = *placement {
            let last = io_type.last_address();
            if range.last() > last {
                return Err(RangeRefusal::Invalid(RangeError::BeyondSpace { range, last }));
            }
        }
        self.find(io_type, placement, parent).map_err(|error| match (error, self.refusal(&error)) {
            (PoolError::Overlap { taken: block, .. }, RangeRefusal::Overlap { wanted, taken, owner: bus })
                if self.topology.is_within(parent, block.owner) =>
            {
                RangeRefusal::NotInWindow { wanted, taken, bus, is_window: block.window }
            }
            (_, refusal) => refusal,
        })
    }

    fn find(&mut self, io_type: IoType, placement: &Placement, parent: u16) -> Result<Place, PoolError> {
        if let Placement::Fixed(wanted) = *placement {
            return self.allocator.pool.find(io_type, placement, self.window_around(io_type, wanted, parent));
        }
        // Any place: in a window of the nearest ancestor that has one for this space.
        let (mut ancestor, mut refused) = (parent, NONE);
        while let Some(&Node { parent: above, first_range, .. }) = self.topology.node(ancestor) {
            let mut slot = first_range;
            while let Some(&range) = self.range(slot) {
                if range.is_window() && range.io_type().same_space(io_type) {
                    let found = self.allocator.pool.find(io_type, placement, slot);
                    if found.is_ok() {
                        return found;
                    }
                    refused = slot;
                }
                slot = range.next;
            }
            if refused != NONE {
                break;
            }
            ancestor = above;
        }
        // A window that has refused says why, once more: to keep what it said is longer.
        self.allocator.pool.find(io_type, placement, refused)
    }

    /// The innermost window around `wanted` that belongs to `parent` or a bus above it; [`NONE`] if there is none.
    fn window_around(&self, io_type: IoType, wanted: IoRange, parent: u16) -> u16 {
        let mut slot = self.allocator.pool.innermost(io_type, wanted.first()).map_or(NONE, |(slot, _)| slot);
        while let Some(range) = self.range(slot) {
            if range.is_window() && range.range.contains_range(wanted) && self.topology.is_within(parent, range.node) {
                break;
            }
            slot = range.container;
        }
        slot
    }

    /// The innermost dispatched window around a range.
    pub(crate) fn dispatched_window(&self, range: &Range) -> Option<u16> {
        let mut slot = range.container;
        while let Some(window) = self.range(slot) {
            if window.is_dispatched() {
                return Some(slot);
            }
            slot = window.container;
        }
        None
    }

    fn take_irq(&mut self, name: &'d str, irq: IrqResource) -> Result<Option<WireUse>, RegisterError<'d>> {
        let (wanted, shared) = match irq {
            IrqResource::None => return Ok(None),
            IrqResource::Any => (None, false),
            IrqResource::Fixed(gsi) => (Some(gsi), false),
            IrqResource::Shared(gsi) => (Some(gsi), true),
        };
        match self.allocator.allocate_line(wanted) {
            Ok(gsi) => {
                // There are as many places as devices, and a device has one line; but some may be owed.
                let Some((line, wire)) = self.lines.iter_mut().zip(0..).find(|(line, _)| line.is_free()) else {
                    let _ = self.allocator.free_irq(gsi);
                    return Err(RegisterError::LinesOwed { device: name });
                };
                *line = Line { gsi, sources: 1, shared, owed: false };
                Ok(Some(WireUse::new(wire, 0)))
            }
            Err(IrqError::InUse { gsi }) => self.share_irq(name, gsi, shared),
            Err(error) => Err(RegisterError::Irq { device: name, error }),
        }
    }

    /// A further source on a line that is in use.
    fn share_irq(&mut self, name: &'d str, gsi: Gsi, shared: bool) -> Result<Option<WireUse>, RegisterError<'d>> {
        match self.lines.iter_mut().zip(0..).find(|(line, _)| line.gsi == gsi && !line.is_free()) {
            // No device has it: it is owed. The wire knows what the controller has taken, and the device goes on from there.
            Some((line, wire)) if line.sources & !Line::COLLECTOR == 0 => {
                let used = WireUse::new(wire, 0);
                (line.sources, line.shared) = (line.sources | used.source(), shared);
                Ok(Some(used))
            }
            Some((line, wire)) if shared && line.shared => {
                let free = line.sources.trailing_ones();
                if free as usize >= MAX_SHARING {
                    return Err(RegisterError::TooManySharing { device: name, gsi });
                }
                let used = WireUse::new(wire, free);
                line.sources |= used.source();
                Ok(Some(used))
            }
            _ => {
                let owner = self.irq_owner(gsi);
                Err(RegisterError::IrqTaken { device: name, gsi, owner })
            }
        }
    }

    /// Who holds a line: of several, the first in the walk.
    fn irq_owner(&self, gsi: Gsi) -> Owner<'d> {
        let mut index = self.topology.first_root();
        while let Some(node) = self.topology.node(index) {
            if node.irq.and_then(|irq| self.line(irq.wire)).is_some_and(|line| line.gsi == gsi) {
                return Owner::Device { id: node.id, name: node.name };
            }
            index = self.topology.next_in_walk(index, NONE);
        }
        Owner::Vmm
    }

    /// Takes a source off its line. `is_settled` says that the controller has taken the line's level.
    fn give_back_irq(&mut self, irq: Option<WireUse>, is_settled: bool) {
        let Some(used) = irq else { return };
        let Some(line) = self.lines.get_mut(used.wire as usize) else { return };
        line.sources &= !used.source();
        if !is_settled && !line.owed {
            line.owed = true;
            self.owed = self.owed.saturating_add(1);
        }
        if line.is_free() {
            // The line is allocated as long as it has a source, or is owed.
            let _ = self.allocator.free_irq(line.gsi);
        }
    }

    /// Takes an owed line in hand, the first from place `from` on.
    pub(crate) fn take_owed(&mut self, from: u16) -> Option<WireUse> {
        let in_reach = |line: &Line| line.owed && line.sources & Line::COLLECTOR == 0;
        let (line, wire) = self.lines.iter_mut().zip(0..).skip(from.into()).find(|(line, _)| in_reach(line))?;
        line.sources |= Line::COLLECTOR;
        Some(WireUse::new(wire, Line::COLLECTOR.trailing_zeros()))
    }

    /// Gives back a line that was taken in hand. If it `is_settled`, it is owed no more.
    pub(crate) fn give_back_owed(&mut self, used: WireUse, is_settled: bool) {
        if let Some(line) = self.lines.get_mut(used.wire as usize)
            && is_settled
        {
            line.owed = false;
            self.owed = self.owed.saturating_sub(1);
        }
        self.give_back_irq(Some(used), is_settled);
    }
}

/// Whether a fixed range is what the rest of its request says.
fn check_fixed(wanted: IoRange, request: &IoResource) -> Result<(), RangeRefusal<'static>> {
    let align = request.alignment();
    if !align.is_power_of_two() {
        return Err(RangeRefusal::Pool(PoolError::BadAlignment { align }));
    }
    if wanted.first().0 & align.wrapping_sub(1) != 0 {
        return Err(RangeRefusal::Misaligned { wanted: wanted.first(), alignment: GuestUsize(align) });
    }
    match request.limits() {
        Some(limits) if !limits.contains_range(wanted) => Err(RangeRefusal::OutsideLimits { wanted, limits }),
        _ => Ok(()),
    }
}

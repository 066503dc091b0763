//! The writer's state, behind the manager's lock: allocator, topology, ranges and lines, which always agree.

use heapless::Vec;

use crate::address::{GuestAddress, IoRange, IoType};
use crate::allocator::{AllocateError, Block, InstanceId, IrqError, PoolError, RESERVED, SystemAllocator};
use crate::device::Device;
use crate::error::{Owner, RangeRefusal, RegisterError};
use crate::freelist::FreeList;
use crate::interrupt::{Gsi, MAX_SHARING};
use crate::resource::{Assigned, IoResource, IrqResource, Placement};
use crate::topology::{Life, NONE, Topology, WireUse};

/// How many ranges one device can have.
pub const MAX_RANGES_PER_DEVICE: usize = 16;

/// One range of a device. Its place in the array is the number of its slot.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub(crate) range: IoRange,
    /// The device.
    pub(crate) node: u16,
    /// Which of the device's ranges.
    pub(crate) index: u16,
    /// The device's next range.
    pub(crate) next: u16,
    /// The range of the innermost window around this one.
    pub(crate) container: u16,
    /// How many windows are around it.
    pub(crate) depth: u8,
    pub(crate) io_type: IoType,
    pub(crate) window: bool,
    pub(crate) decoded: bool,
}

impl Range {
    const EMPTY: Self = Self {
        range: IoRange::ALL_PORTS,
        node: NONE,
        index: 0,
        next: NONE,
        container: NONE,
        depth: 0,
        io_type: IoType::Pio,
        window: false,
        decoded: false,
    };

    pub(crate) fn assigned(&self) -> Assigned {
        Assigned { io_type: self.io_type, range: self.range, decoded: self.decoded }
    }

    /// Whether accesses are to reach the range through the index.
    pub(crate) fn is_dispatched(&self) -> bool {
        self.decoded && self.io_type != IoType::PhysicalMmio
    }
}

/// One interrupt line in use.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    pub(crate) gsi: Gsi,
    /// The sources given out, a bit each; 0 if the place is free.
    sources: u32,
    pub(crate) shared: bool,
}

pub(crate) struct State<'d, const DEVICES: usize, const RANGES: usize> {
    pub(crate) allocator: SystemAllocator<DEVICES, RANGES>,
    pub(crate) topology: Topology<'d, DEVICES>,
    ranges: [Range; RANGES],
    free_ranges: FreeList<RANGES>,
    lines: [Line; DEVICES],
    free_lines: FreeList<DEVICES>,
    /// How many nodes are [`Life::Deferred`].
    pub(crate) deferred: u16,
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
        Self {
            allocator,
            topology: Topology::new(),
            ranges: [Range::EMPTY; RANGES],
            free_ranges: FreeList::new(),
            lines: [Line { gsi: Gsi(0), sources: 0, shared: false }; DEVICES],
            free_lines: FreeList::new(),
            deferred: 0,
        }
    }

    pub(crate) fn range(&self, slot: u16) -> Option<&Range> {
        self.ranges.get(slot as usize)
    }

    pub(crate) fn range_mut(&mut self, slot: u16) -> Option<&mut Range> {
        self.ranges.get_mut(slot as usize)
    }

    /// The ranges of a chain, in the order of the requests, with the numbers of their slots.
    pub(crate) fn chain(&self, first: u16) -> impl Iterator<Item = (u16, &Range)> {
        let entry = |slot| self.range(slot).map(|range| (slot, range));
        core::iter::successors(entry(first), move |(_, range)| entry(range.next))
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

    /// Whose a block is.
    pub(crate) fn owner(&self, block: Block) -> Owner<'d> {
        let node = self.range(block.owner).and_then(|range| self.topology.node(range.node));
        match node {
            Some(node) if block.owner != RESERVED => Owner::Device { id: node.id, name: node.name },
            _ => Owner::Vmm,
        }
    }

    /// The pool's reason, with the owner of what is in the way.
    pub(crate) fn refusal(&self, error: PoolError) -> RangeRefusal<'d> {
        // The ranges of a registration have no node before all of them are taken.
        let asked = |block: Block| self.range(block.owner).is_some_and(|range| range.node == NONE);
        match error {
            PoolError::Overlap { wanted, taken } if asked(taken) => {
                RangeRefusal::AskedTwice { wanted, taken: taken.range }
            }
            PoolError::Overlap { wanted, taken } => {
                RangeRefusal::Overlap { wanted, taken: taken.range, owner: self.owner(taken) }
            }
            PoolError::WindowInUse { inside, .. } => {
                RangeRefusal::WindowInUse { inside: inside.range, owner: self.owner(inside) }
            }
            other => RangeRefusal::Pool(other),
        }
    }

    /// Takes everything a device asks for and links its node, or takes nothing.
    pub(crate) fn take(&mut self, request: &Request<'_, 'd>) -> Result<InstanceId, RegisterError<'d>> {
        let Request { device, name, ranges, .. } = *request;
        if name.is_empty() || name.contains('/') {
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
            self.give_back_irq(irq);
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

    /// Gives back everything a node has, and the node. It has no children, and no reader is in its slots.
    pub(crate) fn give_back(&mut self, index: u16) {
        let Some(&node) = self.topology.node(index) else { return };
        self.topology.unlink(index);
        self.give_back_irq(node.irq);
        self.give_back_ranges(node.first_range);
        // The id is current as long as the node is linked.
        let _ = self.allocator.free_instance_id(node.id);
    }

    /// Takes the ranges, as a chain. The first of the chain, or [`NONE`] if there are none.
    fn take_ranges(&mut self, name: &'d str, parent: u16, requests: &[IoResource]) -> Result<u16, RegisterError<'d>> {
        let (mut first, mut last) = (NONE, NONE);
        for (index, request) in requests.iter().enumerate() {
            match self.take_range(parent, index as u16, request) {
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

    fn take_range(&mut self, parent: u16, index: u16, request: &IoResource) -> Result<u16, RangeRefusal<'d>> {
        let placement = request.placement().map_err(RangeRefusal::Invalid)?;
        let slot = self.free_ranges.take().ok_or(RangeRefusal::Pool(PoolError::Full { capacity: RANGES }))?;
        let placed = self.place(request.io_type(), placement, parent, request.is_window(), slot);
        match (placed, self.range_mut(slot)) {
            (Ok((range, container, depth)), Some(place)) => {
                *place = Range {
                    range,
                    node: NONE,
                    index,
                    next: NONE,
                    container,
                    depth,
                    io_type: request.io_type(),
                    window: request.is_window(),
                    decoded: request.is_decoded(),
                };
                Ok(slot)
            }
            (placed, _) => {
                self.free_ranges.give_back(slot);
                Err(placed.err().unwrap_or(RangeRefusal::Pool(PoolError::Full { capacity: RANGES })))
            }
        }
    }

    fn give_back_ranges(&mut self, first: u16) {
        let mut slot = first;
        while let Some(&range) = self.range(slot) {
            // A range in the chain is allocated, and nothing lies in the windows of a device without children.
            let _ = self.allocator.io_free(range.io_type, range.range, slot);
            self.free_ranges.give_back(slot);
            slot = range.next;
        }
    }

    /// Allocates a range for a child of `parent`: in the windows above it, where there are any. The range, the range
    /// number of the window around it, and how many windows are.
    pub(crate) fn place(
        &mut self,
        io_type: IoType,
        placement: Placement,
        parent: u16,
        window: bool,
        slot: u16,
    ) -> Result<(IoRange, u16, u8), RangeRefusal<'d>> {
        if let Placement::Fixed(wanted) = placement {
            let last = io_type.last_address();
            if wanted.last() > last {
                return Err(RangeRefusal::Invalid(crate::RangeError::BeyondSpace { range: wanted, last }));
            }
            return self.place_in(io_type, placement, self.window_around(io_type, wanted, parent), window, slot);
        }
        // Any place: in a window of the nearest ancestor that has one for this space.
        let mut ancestor = parent;
        while let Some(node) = self.topology.node(ancestor) {
            let above = node.parent;
            let mut refusal = None;
            let mut next = node.first_range;
            while let Some(&range) = self.range(next) {
                if range.window && range.io_type.same_space(io_type) {
                    match self.place_in(io_type, placement, Some((next, range)), window, slot) {
                        Err(error) => refusal = Some(error),
                        placed => return placed,
                    }
                }
                next = range.next;
            }
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            ancestor = above;
        }
        self.place_in(io_type, placement, None, window, slot)
    }

    fn place_in(
        &mut self,
        io_type: IoType,
        placement: Placement,
        around: Option<(u16, Range)>,
        window: bool,
        slot: u16,
    ) -> Result<(IoRange, u16, u8), RangeRefusal<'d>> {
        let container =
            around.map(|(owner, range)| Block { range: range.range, depth: range.depth, window: true, owner });
        let range = self
            .allocator
            .io_allocate(io_type, placement, container, window, slot)
            .map_err(|error| self.refusal(error))?;
        Ok((range, around.map_or(NONE, |(owner, _)| owner), around.map_or(0, |(_, range)| range.depth + 1)))
    }

    /// The innermost window around `wanted` that belongs to `parent` or a bus above it.
    fn window_around(&self, io_type: IoType, wanted: IoRange, parent: u16) -> Option<(u16, Range)> {
        let mut slot = self.allocator.io_innermost(io_type, wanted.first().0)?.owner;
        while let Some(&range) = self.range(slot) {
            if range.window && range.range.contains_range(wanted) && self.topology.is_within(parent, range.node) {
                return Some((slot, range));
            }
            slot = range.container;
        }
        None
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
        match self.allocator.allocate_irq(wanted) {
            Ok(gsi) => {
                // There are as many places as devices, and a device has one line.
                let Some(place) = self.free_lines.take() else {
                    let _ = self.allocator.free_irq(gsi);
                    return Err(RegisterError::TooManyDevices { device: name, capacity: DEVICES });
                };
                if let Some(line) = self.lines.get_mut(place as usize) {
                    *line = Line { gsi, sources: 1, shared };
                }
                Ok(Some(WireUse { wire: place, source: 1 }))
            }
            Err(error) => match (error, wanted) {
                (AllocateError::Irq(IrqError::InUse { .. }), Some(gsi)) => self.share_irq(name, gsi, shared),
                (AllocateError::Irq(IrqError::OutsidePool { .. } | IrqError::NoPool), Some(gsi)) => {
                    Err(RegisterError::IrqOutsidePool { device: name, gsi })
                }
                _ => Err(RegisterError::NoIrqLeft { device: name }),
            },
        }
    }

    /// A further source on a line that is in use.
    fn share_irq(&mut self, name: &'d str, gsi: Gsi, shared: bool) -> Result<Option<WireUse>, RegisterError<'d>> {
        let found = self.lines.iter_mut().zip(0..).find(|(line, _)| line.sources != 0 && line.gsi == gsi);
        match found {
            Some((line, wire)) if shared && line.shared => {
                let free = line.sources.trailing_ones();
                if free as usize >= MAX_SHARING {
                    return Err(RegisterError::TooManySharing { device: name, gsi });
                }
                let source = 1 << free;
                line.sources |= source;
                Ok(Some(WireUse { wire, source }))
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

    fn give_back_irq(&mut self, irq: Option<WireUse>) {
        let Some(WireUse { wire, source }) = irq else { return };
        let Some(line) = self.lines.get_mut(wire as usize) else { return };
        line.sources &= !source;
        if line.sources == 0 {
            // The line is allocated as long as it has a source.
            let _ = self.allocator.free_irq(line.gsi);
            self.free_lines.give_back(wire);
        }
    }

    /// Which range an address belongs to: the innermost, decoded or not.
    pub(crate) fn range_at(&self, io_type: IoType, address: GuestAddress) -> Option<&Range> {
        let block = self.allocator.io_innermost(io_type, address.0)?;
        if block.owner == RESERVED { None } else { self.range(block.owner) }
    }
}

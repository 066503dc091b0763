//! What the allocator keeps of one range.

use super::told::Told;
use crate::address::{IoRange, IoType, Space};
use crate::error::RangeRefusal;
use crate::indices::{NodeIndex, SlotIndex};
use crate::resource::{Assigned, MAX_RANGES_PER_DEVICE, MAX_WINDOW_DEPTH, RangeState};

/// The holder of a range that is in the way of another, and whether that range is a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    /// The device; `None` for the VMM.
    pub(crate) node: Option<NodeIndex>,
    pub(crate) is_window: bool,
}

/// The pool's reasons.
pub(crate) type Refusal = RangeRefusal<Holder>;

const INDEX: u8 = 0b1111;
const MMIO: u8 = 1 << 4;
const PHYSICAL: u8 = 1 << 5;
const WINDOW: u8 = 1 << 6;
const DECODED: u8 = 1 << 7;

const _: () = assert!(MAX_RANGES_PER_DEVICE == INDEX as usize + 1, "the index of a range has four bits");

const DEPTH: u8 = 0b1111;
const PLACED: u8 = 1 << 4;
const WAITING: u8 = 1 << 5;
const TOLD: u8 = 0b11 << 6;
const TOLD_PLACED: u8 = 0b01 << 6;
const TOLD_LEAVING: u8 = 0b10 << 6;
const TOLD_REFUSED: u8 = 0b11 << 6;

const _: () = assert!(MAX_WINDOW_DEPTH <= DEPTH as usize, "the depth of a range has four bits");

/// A free place: where a range may lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FreeRange {
    pub(crate) range: IoRange,
    /// The innermost window around it.
    pub(crate) container: Option<SlotIndex>,
    /// How many windows are around it.
    pub(crate) depth: u8,
    /// Its position in the order of the ranges, valid until the next change of the pool.
    pub(super) at: usize,
}

/// One range, a device's or the VMM's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RangeRecord {
    /// Where it lies, or wants to lie; an unplaced one has its size here, from address 0 on.
    pub(crate) range: IoRange,
    /// The innermost window around it. While it waits, the range that began to wait next.
    pub(crate) container: Option<SlotIndex>,
    /// The device; `None` for the VMM.
    pub(crate) node: Option<NodeIndex>,
    /// The device's next range; of a record that is not in use, the next such one.
    pub(crate) next: Option<SlotIndex>,
    /// How many windows are around it, whether it has a place or waits for one, and what the listener was told of the place.
    level: u8,
    /// Which of the device's ranges, its kind, whether it is a window, and whether it is decoded where it lies.
    kind: u8,
}

const _: () = assert!(size_of::<RangeRecord>() == 24);

impl RangeRecord {
    /// All zeros.
    pub(super) const UNUSED: Self =
        Self { range: IoRange::of::<0, 0>(), container: None, node: None, next: None, level: 0, kind: 0 };

    /// A range of a device or of the VMM, as yet without addresses and without a next range.
    pub(crate) fn new(node: Option<NodeIndex>, io_type: IoType) -> Self {
        let kind = match io_type {
            IoType::Pio => 0,
            IoType::Mmio => MMIO,
            IoType::PhysicalMmio => MMIO | PHYSICAL,
        };
        Self { node, kind, ..Self::UNUSED }
    }

    /// The same range as number `index` of its device, with the properties of its request and so many windows around it.
    pub(crate) fn with_request(mut self, index: usize, window: bool, decoded: bool, depth: u8) -> Self {
        self.level = depth & DEPTH;
        self.kind |= index as u8 & INDEX;
        if window {
            self.kind |= WINDOW;
        }
        self.set_decoded(decoded);
        self
    }

    pub(super) fn set_place(&mut self, free: &FreeRange) {
        if self.range != free.range {
            self.set_told(Told::Nothing);
        }
        (self.range, self.container) = (free.range, free.container);
        self.level = self.level & !WAITING | PLACED;
    }

    /// Puts it back as it was placed before.
    pub(super) fn restore_place(&mut self, old: &Self) {
        (self.range, self.container, self.level) = (old.range, old.container, old.level | PLACED);
    }

    pub(super) fn set_waiting(&mut self, next: Option<SlotIndex>) {
        self.container = next;
        self.level = self.level & DEPTH | WAITING;
    }

    /// The listener's knowledge stays: the range may go back where it was.
    pub(super) fn set_unplaced(&mut self) {
        self.level &= DEPTH | TOLD;
    }

    /// What the listener was told of its place.
    pub(crate) fn told(&self) -> Told {
        match self.level & TOLD {
            TOLD_PLACED => Told::Placed,
            TOLD_LEAVING => Told::Leaving,
            TOLD_REFUSED => Told::Refused,
            _ => Told::Nothing,
        }
    }

    pub(crate) fn set_told(&mut self, told: Told) {
        self.level = self.level & !TOLD
            | match told {
                Told::Nothing => 0,
                Told::Placed => TOLD_PLACED,
                Told::Leaving => TOLD_LEAVING,
                Told::Refused => TOLD_REFUSED,
            };
    }

    /// How many windows are around it, or are to be: it has as many buses above it that have a window for its space.
    pub(crate) fn depth(&self) -> u8 {
        self.level & DEPTH
    }

    /// Whether it has addresses.
    pub(crate) fn is_placed(&self) -> bool {
        self.level & PLACED != 0
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.level & WAITING != 0
    }

    pub(crate) fn state(&self) -> RangeState {
        match (self.is_placed(), self.is_waiting()) {
            (true, _) if self.is_decoded() => RangeState::Decoded,
            (true, _) => RangeState::Reserved,
            (false, true) => RangeState::Waiting,
            (false, false) => RangeState::Unplaced,
        }
    }

    /// The same range as it is to be: in another place, size and state. It is no record of a placed range.
    pub(crate) fn wished(mut self, to: IoRange, state: RangeState, decoded: bool) -> Self {
        self.range = to;
        self.level &= DEPTH;
        match state {
            RangeState::Unplaced => {}
            RangeState::Waiting => self.level |= WAITING,
            RangeState::Decoded | RangeState::Reserved => self.level |= PLACED,
        }
        self.set_decoded(decoded);
        self
    }

    /// Which of the device's ranges.
    pub(crate) fn index(&self) -> u8 {
        self.kind & INDEX
    }

    pub(crate) fn io_type(&self) -> IoType {
        match (self.kind & MMIO, self.kind & PHYSICAL) {
            (0, _) => IoType::Pio,
            (_, 0) => IoType::Mmio,
            _ => IoType::PhysicalMmio,
        }
    }

    pub(crate) fn space(&self) -> Space {
        if self.kind & MMIO == 0 { Space::Ports } else { Space::Memory }
    }

    /// Whether the range holds those of a bus's children.
    pub(crate) fn is_window(&self) -> bool {
        self.kind & WINDOW != 0
    }

    /// Whether the range is a window for what lies in this space.
    pub(crate) fn is_window_for(&self, space: Space) -> bool {
        self.is_window() && self.space() == space
    }

    /// Whether it is decoded where it lies, or will be.
    pub(crate) fn is_decoded(&self) -> bool {
        self.kind & DECODED != 0
    }

    pub(crate) fn set_decoded(&mut self, decoded: bool) {
        self.kind &= !DECODED;
        if decoded {
            self.kind |= DECODED;
        }
    }

    /// Whether accesses are to reach the range through the index.
    pub(crate) fn is_dispatched(&self) -> bool {
        self.is_placed() && self.kind & (DECODED | PHYSICAL) == DECODED
    }

    pub(crate) fn assigned(&self) -> Assigned {
        Assigned { io_type: self.io_type(), range: self.range, state: self.state() }
    }

    /// What the order of its space is sorted by.
    pub(crate) fn key(&self) -> (u64, u8) {
        (self.range.first().0, self.depth())
    }

    pub(crate) fn holder(&self) -> Holder {
        Holder { node: self.node, is_window: self.is_window() }
    }
}

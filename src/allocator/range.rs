//! What the allocator keeps of one range.

use core::fmt;

use crate::address::{IoRange, IoType};
use crate::resource::Assigned;

/// The owner of a block that belongs to no device.
pub const RESERVED: u16 = u16::MAX;

/// No range and no node: the end of a chain, and the container of what lies in no window.
pub(crate) const NONE: u16 = u16::MAX;

/// The owner of a range whose registration has not taken everything yet.
pub(crate) const PENDING: u16 = u16::MAX - 1;

/// How many ranges one device can have.
pub const MAX_RANGES_PER_DEVICE: usize = 16;

/// An allocated range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Block {
    /// Where it lies.
    pub range: IoRange,
    /// In how many windows it lies.
    pub depth: u8,
    /// Whether it is a window: a bus's range that holds its children's.
    pub window: bool,
    /// The index of the device it belongs to, or [`RESERVED`].
    pub owner: u16,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of ", self.range)?;
        match self.owner {
            RESERVED => f.write_str("the VMM"),
            index => write!(f, "device {index}"),
        }
    }
}

const INDEX: u8 = 0b1111;
const MMIO: u8 = 1 << 4;
const PHYSICAL: u8 = 1 << 5;
const WINDOW: u8 = 1 << 6;
const DECODED: u8 = 1 << 7;

const _: () = assert!(MAX_RANGES_PER_DEVICE == INDEX as usize + 1, "the index of a range has four bits");

/// A free place: where a range may lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) range: IoRange,
    /// The number of the innermost window around it, if there is one.
    pub(crate) container: u16,
    /// How many windows are around it.
    pub(crate) depth: u8,
    /// Where in the order of the ranges it belongs, until the next change of the pool.
    pub(super) at: usize,
}

/// One range, a device's or the VMM's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    pub(crate) range: IoRange,
    /// The number of the innermost window around it, if there is one.
    pub(crate) container: u16,
    /// The index of the device, [`PENDING`] or [`RESERVED`].
    pub(crate) node: u16,
    /// The device's next range; of a record that is not in use, the next such one.
    pub(crate) next: u16,
    /// How many windows are around it.
    pub(crate) depth: u8,
    /// Which of the device's ranges, its kind, whether it is a window, and whether it is decoded.
    kind: u8,
}

const _: () = assert!(size_of::<Range>() == 24);

impl Range {
    pub(super) const UNUSED: Self =
        Self { range: IoRange::ALL_PORTS, container: NONE, node: RESERVED, next: NONE, depth: 0, kind: 0 };

    /// A range of the device with index `node`, the last one of its chain, as yet without a place.
    pub(crate) fn new(node: u16, io_type: IoType) -> Self {
        let kind = match io_type {
            IoType::Pio => 0,
            IoType::Mmio => MMIO,
            IoType::PhysicalMmio => MMIO | PHYSICAL,
        };
        Self { node, kind, ..Self::UNUSED }
    }

    /// The same range as number `index` of its device.
    pub(crate) fn described(mut self, index: usize, window: bool, decoded: bool) -> Self {
        self.kind |= index as u8 & INDEX;
        if window {
            self.kind |= WINDOW;
        }
        self.set_decoded(decoded);
        self
    }

    pub(super) fn set_place(&mut self, place: &Place) {
        (self.range, self.container, self.depth) = (place.range, place.container, place.depth);
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

    /// Whether the range holds those of a bus's children.
    pub(crate) fn is_window(&self) -> bool {
        self.kind & WINDOW != 0
    }

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
        self.kind & (DECODED | PHYSICAL) == DECODED
    }

    pub(crate) fn assigned(&self) -> Assigned {
        Assigned { io_type: self.io_type(), range: self.range, decoded: self.is_decoded() }
    }

    /// Its place in the order of its space.
    pub(crate) fn key(&self) -> (u64, u8) {
        (self.range.first().0, self.depth)
    }

    /// What an error tells of it.
    pub(super) fn block(&self) -> Block {
        Block { range: self.range, depth: self.depth, window: self.is_window(), owner: self.node }
    }
}

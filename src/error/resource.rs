//! Why a range or an interrupt line could not be had, or not be given back.

use core::fmt;

use super::{Owner, STORAGE_IN_USE};
use crate::address::{GuestAddress, GuestUsize, IoRange, RangeError};
use crate::interrupt::{Gsi, MAX_SHARING};
use crate::resource::MAX_WINDOW_DEPTH;

/// Why a range could not be had, or not be given back. Nothing has changed then.
///
/// `O` names the holder of what is in the way: in the errors that a VMM gets, it is an [`Owner`](super::Owner).
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{DeviceManager, IoRange, IoResource, Storage, SystemAllocator};
///
/// let (first, second) = (Constant("first", 1), Constant("second", 2));
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let page = [IoResource::mmio(0x1000, 0x1000)];
/// manager.register_device(&first, None, &page, &[]).unwrap();
/// let error = manager.register_device(&second, None, &page, &[]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "mmio request 0 of \"second\": [0x1000, 0x1fff] overlaps [0x1000, 0x1fff], which belongs to \"first\" (#0)",
/// );
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RangeRefusal<O> {
    /// It is no range.
    Invalid(RangeError),
    /// A range of size 0.
    Empty,
    /// An alignment that is no power of two.
    BadAlignment {
        /// The alignment that was asked for.
        align: u64,
    },
    /// The range would not start at a multiple of the alignment of its request.
    Misaligned {
        /// Where it would start.
        wanted: GuestAddress,
        /// The alignment.
        alignment: GuestUsize,
    },
    /// A fixed range does not lie within the limits of its request.
    OutsideLimits {
        /// What was asked for.
        wanted: IoRange,
        /// The limits.
        limits: IoRange,
    },
    /// The allocator was given no ports.
    NoPorts,
    /// The bounds given for the ports pass port `0xffff`.
    BeyondPorts {
        /// The bounds that were given.
        bounds: IoRange,
    },
    /// The range does not lie within the allocator's bounds.
    OutsidePool {
        /// What was asked for.
        wanted: IoRange,
        /// The bounds of the space.
        pool: IoRange,
    },
    /// The range does not lie within the window it was to be allocated in.
    OutsideWindow {
        /// What was asked for.
        wanted: IoRange,
        /// The window.
        window: IoRange,
        /// The bus that has the window.
        owner: O,
    },
    /// Another range is in the way.
    Overlap {
        /// What was asked for.
        wanted: IoRange,
        /// The lowest range in the way.
        taken: IoRange,
        /// Its holder.
        owner: O,
    },
    /// A range of a bus above the device is in the way, which is not a window.
    NotInWindow {
        /// What was asked for.
        wanted: IoRange,
        /// The range of the bus.
        taken: IoRange,
        /// The bus.
        bus: O,
    },
    /// The bus above the device has windows for the space, but none that anything can lie in now: they have no addresses, or
    /// they are not decoded and the range is to be.
    NoDecodedWindow {
        /// The bus.
        bus: O,
    },
    /// A range that is to wait, or an unplaced one that is to be placed, and no address was given.
    NoAddress,
    /// Only a window can change its size.
    NotAWindow,
    /// Another range that the same registration asks for is in the way.
    OverlapsOwnRequest {
        /// What was asked for.
        wanted: IoRange,
        /// What an earlier request of the device is given.
        taken: IoRange,
    },
    /// No free place is large enough.
    NoRoom {
        /// The size that was asked for.
        size: GuestUsize,
        /// The alignment that was asked for.
        align: u64,
        /// Where the range was to lie.
        within: IoRange,
    },
    /// There is no room for another range.
    Full {
        /// For how many ranges there is room: those of both spaces, and those of the VMM, together.
        capacity: usize,
    },
    /// More than [`MAX_WINDOW_DEPTH`](crate::MAX_WINDOW_DEPTH) buses above the device have a window for the space.
    TooDeep {
        /// The nearest of these buses.
        bus: O,
    },
    /// The VMM has no range that is exactly this one.
    NotAllocated {
        /// The range that was to be given back.
        range: IoRange,
    },
    /// Another manager uses the storage.
    StorageInUse,
}

impl<O> RangeRefusal<O> {
    /// The same refusal, with the holders named as `name` does.
    pub(crate) fn map_owner<P>(self, name: impl FnOnce(O) -> P) -> RangeRefusal<P> {
        match self {
            Self::Invalid(error) => RangeRefusal::Invalid(error),
            Self::Empty => RangeRefusal::Empty,
            Self::BadAlignment { align } => RangeRefusal::BadAlignment { align },
            Self::Misaligned { wanted, alignment } => RangeRefusal::Misaligned { wanted, alignment },
            Self::OutsideLimits { wanted, limits } => RangeRefusal::OutsideLimits { wanted, limits },
            Self::NoPorts => RangeRefusal::NoPorts,
            Self::BeyondPorts { bounds } => RangeRefusal::BeyondPorts { bounds },
            Self::OutsidePool { wanted, pool } => RangeRefusal::OutsidePool { wanted, pool },
            Self::OutsideWindow { wanted, window, owner } => {
                RangeRefusal::OutsideWindow { wanted, window, owner: name(owner) }
            }
            Self::Overlap { wanted, taken, owner } => RangeRefusal::Overlap { wanted, taken, owner: name(owner) },
            Self::NotInWindow { wanted, taken, bus } => RangeRefusal::NotInWindow { wanted, taken, bus: name(bus) },
            Self::NoDecodedWindow { bus } => RangeRefusal::NoDecodedWindow { bus: name(bus) },
            Self::NoAddress => RangeRefusal::NoAddress,
            Self::NotAWindow => RangeRefusal::NotAWindow,
            Self::OverlapsOwnRequest { wanted, taken } => RangeRefusal::OverlapsOwnRequest { wanted, taken },
            Self::NoRoom { size, align, within } => RangeRefusal::NoRoom { size, align, within },
            Self::Full { capacity } => RangeRefusal::Full { capacity },
            Self::TooDeep { bus } => RangeRefusal::TooDeep { bus: name(bus) },
            Self::NotAllocated { range } => RangeRefusal::NotAllocated { range },
            Self::StorageInUse => RangeRefusal::StorageInUse,
        }
    }
}

impl<O: fmt::Display> fmt::Display for RangeRefusal<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::Empty => f.write_str("a range of size 0 cannot be allocated"),
            Self::BadAlignment { align } => write!(f, "the alignment {align:#x} is no power of two"),
            Self::Misaligned { wanted, alignment } => {
                let below = GuestAddress(wanted.0 & !alignment.0.wrapping_sub(1));
                write!(
                    f,
                    "{wanted} is no multiple of {alignment}, the alignment that the range was asked for with; {below} is"
                )
            }
            Self::OutsideLimits { wanted, limits } => {
                write!(f, "{wanted} lies outside {limits}, the limits that it was asked for with")
            }
            Self::NoPorts => f.write_str("the allocator was given no ports: `with_ports` gives it some"),
            Self::BeyondPorts { bounds } => {
                write!(f, "the ports that the allocator was given by `with_ports`, {bounds}, pass port 0xffff")
            }
            Self::OutsidePool { wanted, pool } => write!(f, "{wanted} lies outside the pool {pool}"),
            Self::OutsideWindow { wanted, window, owner } => {
                write!(f, "{wanted} lies outside {window}, the window of {owner}")
            }
            Self::Overlap { wanted, taken, owner } => write!(f, "{wanted} overlaps {taken}, which belongs to {owner}"),
            Self::NotInWindow { wanted, taken, bus } => {
                write!(
                    f,
                    "{wanted} overlaps {taken}, which belongs to {bus}, a bus above the device, and is not a window"
                )?;
                f.write_str(": ask for that range with `.window()`")
            }
            Self::NoDecodedWindow { bus } => {
                write!(f, "no window of {bus}, the bus above the device, is decoded now")?;
                f.write_str(": a range that may wait for one is asked for with `.waiting()`")
            }
            Self::NoAddress => f.write_str("no address was given: `fixed` or `to` gives one"),
            Self::NotAWindow => f.write_str("only a window can change its size"),
            Self::OverlapsOwnRequest { wanted, taken } => {
                write!(f, "{wanted} overlaps {taken}, which the device itself has asked for")
            }
            Self::NoRoom { size, align, within } => {
                write!(f, "no free range of size {size}, aligned to {align:#x}, lies within {within}")
            }
            Self::Full { capacity } => {
                write!(f, "all {capacity} ranges are in use, as many as `RANGES` says, those of the VMM included")
            }
            Self::TooDeep { bus } => {
                write!(
                    f,
                    "more than {MAX_WINDOW_DEPTH} buses above the device have a window for the space, from {bus} up"
                )
            }
            Self::NotAllocated { range } => write!(f, "{range} is not allocated to the VMM"),
            Self::StorageInUse => f.write_str(STORAGE_IN_USE),
        }
    }
}

impl<O: fmt::Debug + fmt::Display> core::error::Error for RangeRefusal<O> {}

/// How many interrupt lines an allocator can hold.
pub const MAX_LINES: u32 = 1024;

/// Why an interrupt line was not allocated or freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IrqError {
    /// The allocator was given no lines.
    NoPool,
    /// The lines the allocator was given are in reverse order, or more than [`MAX_LINES`].
    BadBounds {
        /// The line given as the first.
        first: Gsi,
        /// The line given as the last.
        last: Gsi,
    },
    /// The line is not one of the allocator's.
    OutsidePool {
        /// The line that was asked for.
        gsi: Gsi,
        /// The first line of the allocator.
        first: Gsi,
        /// The last line of the allocator.
        last: Gsi,
    },
    /// The line is in use.
    InUse {
        /// The line that was asked for.
        gsi: Gsi,
    },
    /// The line to be freed is not in use.
    NotAllocated {
        /// The line.
        gsi: Gsi,
    },
    /// Another manager uses the storage.
    StorageInUse,
    /// All lines are in use.
    NoneFree {
        /// The first line of the allocator.
        first: Gsi,
        /// The last line of the allocator.
        last: Gsi,
    },
}

impl fmt::Display for IrqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IrqError::NoPool => f.write_str("the allocator was given no lines: `with_irqs` gives it some"),
            IrqError::BadBounds { first, last } if first > last => {
                write!(f, "the lines that the allocator was given by `with_irqs` are reversed: the last, {last}, ")?;
                write!(f, "lies before the first, {first}")
            }
            IrqError::BadBounds { first, last } => {
                write!(f, "the lines that the allocator was given by `with_irqs`, {first} to {last}, ")?;
                write!(f, "are more than {MAX_LINES}")
            }
            IrqError::OutsidePool { gsi, first, last } => {
                write!(f, "{gsi} is none of the allocator's lines, {first} to {last}")
            }
            IrqError::InUse { gsi } => write!(f, "{gsi} is in use"),
            IrqError::StorageInUse => f.write_str(STORAGE_IN_USE),
            IrqError::NotAllocated { gsi } => write!(f, "{gsi} is not in use"),
            IrqError::NoneFree { first, last } => {
                write!(f, "all of the allocator's lines, {first} to {last}, are in use")
            }
        }
    }
}

impl core::error::Error for IrqError {}

/// Why a device does not get an interrupt line. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IrqRefusal<N> {
    /// The line is in use, and at least one of the two devices did not request it as shared.
    Taken {
        /// The line.
        gsi: Gsi,
        /// A device that holds it, or the VMM.
        owner: Owner<N>,
    },
    /// As many interrupts share the line as can: [`MAX_SHARING`](crate::MAX_SHARING).
    LineFull {
        /// The line.
        gsi: Gsi,
    },
    /// There is no room for another line.
    TooManyLines {
        /// For how many lines there is room.
        capacity: usize,
        /// How many of them have no device any more, but a level that the controller has not taken yet.
        owed: usize,
    },
    /// There is no room for another interrupt.
    TooManyInterrupts {
        /// For how many interrupts there is room.
        capacity: usize,
    },
    /// The line is not one of the allocator's, none is free, or there are none.
    Pool(IrqError),
}

impl<N: fmt::Display> fmt::Display for IrqRefusal<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { gsi, owner } => {
                write!(f, "{gsi} belongs to {owner}")?;
                match owner {
                    Owner::Device { .. } => f.write_str(": to share it, both ask for `IrqResource::Shared`"),
                    Owner::Vmm => Ok(()),
                }
            }
            Self::LineFull { gsi } => write!(f, "{MAX_SHARING} interrupts share {gsi}, as many as can"),
            Self::TooManyLines { capacity, owed: 0 } => {
                write!(f, "all {capacity} lines are in use, as many as `DEVICES` says")
            }
            Self::TooManyLines { capacity, owed } => {
                write!(
                    f,
                    "all {capacity} lines are in use, as many as `DEVICES` says; the controller has to take the "
                )?;
                write!(f, "deassertion of {owed} of them, lines of removed devices, which `collect` tells it again")
            }
            Self::TooManyInterrupts { capacity } => {
                write!(f, "all {capacity} interrupts are in use, as many as `RANGES` says")
            }
            Self::Pool(error) => error.fmt(f),
        }
    }
}

impl<N: fmt::Debug + fmt::Display> core::error::Error for IrqRefusal<N> {}

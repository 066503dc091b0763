//! What can go wrong when the topology changes, told with the names of both parties.

use core::fmt;

use crate::address::{GuestAddress, GuestUsize, IoRange, IoType, RangeError};
use crate::allocator::{InstanceId, IrqError, PoolError};
use crate::interrupt::{Gsi, MAX_SHARING};

/// Who holds a range or a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner<'d> {
    /// A device.
    Device {
        /// Its id.
        id: InstanceId,
        /// Its name.
        name: &'d str,
    },
    /// The VMM, by [`reserve`](crate::DeviceManager::reserve) or by an allocation before the manager was made.
    Vmm,
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Device { id, name } => write!(f, "\"{name}\" ({id})"),
            Owner::Vmm => f.write_str("the VMM"),
        }
    }
}

/// Why a range could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RangeRefusal<'d> {
    /// It is no range.
    Invalid(RangeError),
    /// The range would not start at a multiple of the alignment that it was asked for with.
    Misaligned {
        /// Where it would start.
        wanted: GuestAddress,
        /// The alignment.
        alignment: GuestUsize,
    },
    /// A fixed range does not lie within the limits that it was asked for with.
    OutsideLimits {
        /// What was asked for.
        wanted: IoRange,
        /// The limits.
        limits: IoRange,
    },
    /// Another range is in the way.
    Overlap {
        /// What was asked for.
        wanted: IoRange,
        /// What is there.
        taken: IoRange,
        /// Whose it is.
        owner: Owner<'d>,
    },
    /// A range of a bus above the device is in the way: it is not a window, or it does not hold the whole.
    NotInWindow {
        /// What was asked for.
        wanted: IoRange,
        /// The range of the bus.
        taken: IoRange,
        /// The bus.
        bus: Owner<'d>,
        /// Whether the range of the bus is a window.
        is_window: bool,
    },
    /// Another range that the same registration asks for is in the way.
    AskedTwice {
        /// What was asked for.
        wanted: IoRange,
        /// What an earlier request of the device is given.
        taken: IoRange,
    },
    /// The window cannot move away from under a range that lies in it.
    WindowInUse {
        /// A range in the window.
        inside: IoRange,
        /// Whose it is.
        owner: Owner<'d>,
    },
    /// Any other reason of the pool: no room, outside its bounds, no pool for this space, a full pool.
    Pool(PoolError),
}

impl fmt::Display for RangeRefusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeRefusal::Invalid(error) => error.fmt(f),
            RangeRefusal::Misaligned { wanted, alignment } => {
                let below = GuestAddress(wanted.0 & !alignment.0.wrapping_sub(1));
                write!(
                    f,
                    "{wanted} is no multiple of {alignment}, the alignment that the range was asked for with; {below} is"
                )
            }
            RangeRefusal::OutsideLimits { wanted, limits } => {
                write!(f, "{wanted} lies outside {limits}, the limits that it was asked for with")
            }
            RangeRefusal::NotInWindow { wanted, taken, bus, is_window: false } => {
                write!(
                    f,
                    "{wanted} overlaps {taken}, which belongs to {bus}, a bus above the device, and is not a window"
                )?;
                f.write_str(": ask for that range with `.window()`")
            }
            RangeRefusal::NotInWindow { wanted, taken, bus, is_window: true } => {
                write!(f, "{wanted} is not wholly inside {taken}, the window of {bus}, a bus above the device")
            }
            RangeRefusal::Overlap { wanted, taken, owner } => {
                write!(f, "{wanted} overlaps {taken}, which belongs to {owner}")
            }
            RangeRefusal::AskedTwice { wanted, taken } => {
                write!(f, "{wanted} overlaps {taken}, which the device itself has asked for")
            }
            RangeRefusal::WindowInUse { inside, owner } => {
                write!(f, "the window holds {inside}, which belongs to {owner}")
            }
            RangeRefusal::Pool(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RangeRefusal<'_> {}

/// Why a device could not be registered. Nothing has changed then: no id, range, line or node is taken, and the device
/// can be registered again with other requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RegisterError<'d> {
    /// The name is empty or contains a `/`.
    InvalidName {
        /// The name.
        device: &'d str,
    },
    /// The parent has a child of that name.
    NameTaken {
        /// The name.
        device: &'d str,
        /// Who has it.
        holder: InstanceId,
    },
    /// The parent is not registered, or is just being registered or removed.
    NoSuchParent {
        /// The device.
        device: &'d str,
        /// The id given as its parent's.
        parent: InstanceId,
    },
    /// More ranges than one device can have.
    TooManyRanges {
        /// The device.
        device: &'d str,
        /// How many it asks for.
        asked: usize,
        /// How many it can have: [`MAX_RANGES_PER_DEVICE`](crate::MAX_RANGES_PER_DEVICE).
        limit: usize,
    },
    /// A range cannot be had.
    Range {
        /// The device.
        device: &'d str,
        /// Which of its requests.
        index: usize,
        /// The space of the range.
        io_type: IoType,
        /// Why not.
        refusal: RangeRefusal<'d>,
    },
    /// The line is in use, and at least one of the two does not ask for it as shared.
    IrqTaken {
        /// The device.
        device: &'d str,
        /// The line.
        gsi: Gsi,
        /// A device that holds it.
        owner: Owner<'d>,
    },
    /// Any other reason why the device gets no line: none of the allocator's, none free, no lines to give.
    Irq {
        /// The device.
        device: &'d str,
        /// Why.
        error: IrqError,
    },
    /// Lines of removed devices, whose deassertion the controller has not taken, need the room of the device's.
    LinesOwed {
        /// The device.
        device: &'d str,
    },
    /// As many devices share the line as can: [`MAX_SHARING`](crate::MAX_SHARING).
    TooManySharing {
        /// The device.
        device: &'d str,
        /// The line.
        gsi: Gsi,
    },
    /// The manager has no room for another device.
    TooManyDevices {
        /// The device.
        device: &'d str,
        /// How many it has room for.
        capacity: usize,
    },
    /// The device does not accept what it was given.
    Rejected {
        /// The device.
        device: &'d str,
    },
}

impl fmt::Display for RegisterError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterError::InvalidName { device } => {
                write!(f, "\"{device}\" is no name for a device: it is empty or contains a '/'")
            }
            RegisterError::NameTaken { device, holder } => {
                write!(f, "the parent of \"{device}\" has a child of that name, {holder}")
            }
            RegisterError::NoSuchParent { device, parent } => {
                write!(f, "{parent}, which is to be the parent of \"{device}\", is not registered, or not completely")
            }
            RegisterError::TooManyRanges { device, asked, limit } => {
                write!(f, "\"{device}\" asks for {asked} ranges; a device can have {limit}")
            }
            RegisterError::Range { device, index, io_type, refusal } => {
                write!(f, "{io_type} request {index} of \"{device}\": {refusal}")
            }
            RegisterError::IrqTaken { device, gsi, owner } => {
                write!(f, "{gsi}, which \"{device}\" asks for, belongs to {owner}")?;
                match owner {
                    Owner::Device { .. } => f.write_str(": to share it, both ask for `IrqResource::Shared`"),
                    Owner::Vmm => Ok(()),
                }
            }
            RegisterError::Irq { device, error } => write!(f, "the interrupt line of \"{device}\": {error}"),
            RegisterError::LinesOwed { device } => {
                write!(
                    f,
                    "no room is left for the line of \"{device}\": the controller has to take the deassertion of lines of "
                )?;
                f.write_str("removed devices first, which `collect` tells it again")
            }
            RegisterError::TooManySharing { device, gsi } => {
                write!(f, "{gsi} has no room for \"{device}\": {MAX_SHARING} devices share it, as many as can")
            }
            RegisterError::TooManyDevices { device, capacity } => {
                write!(
                    f,
                    "there is no room for \"{device}\": all {capacity} devices are in use, as many as `DEVICES` says"
                )
            }
            RegisterError::Rejected { device } => write!(f, "\"{device}\" does not accept its resources"),
        }
    }
}

impl core::error::Error for RegisterError<'_> {}

/// Why a device could not be removed. Nothing has changed then, and accesses still reach it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UnregisterError<'d> {
    /// No device has this id, or none any more.
    NotFound {
        /// The id.
        id: InstanceId,
    },
    /// The bus has children.
    HasChildren {
        /// The bus.
        device: &'d str,
        /// Its first child.
        child: &'d str,
    },
    /// The device is just being registered, or removed, by somebody else.
    Busy {
        /// The device.
        device: &'d str,
    },
    /// The call was made from within the device's own callback, for whose end it would have to wait.
    /// [`unregister_device_deferred`](crate::DeviceManager::unregister_device_deferred) is for that case.
    InOwnCallback {
        /// The device.
        device: &'d str,
    },
    /// A callback of the device that was running when the call was made has not ended within the manager's patience;
    /// perhaps the call was made from within it.
    InUse {
        /// The device.
        device: &'d str,
    },
}

impl fmt::Display for UnregisterError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnregisterError::NotFound { id } => write!(f, "no device has the id {id}"),
            UnregisterError::HasChildren { device, child } => {
                write!(
                    f,
                    "the bus \"{device}\" has children, \"{child}\" for one: `unregister_subtree` removes all of it"
                )
            }
            UnregisterError::Busy { device } => {
                write!(f, "\"{device}\" is just being registered or removed by somebody else")
            }
            UnregisterError::InOwnCallback { device } => {
                write!(f, "\"{device}\" is removed from within its own callback by `unregister_device_deferred` only")
            }
            UnregisterError::InUse { device } => {
                write!(f, "a callback of \"{device}\" has not ended; was it to be removed from within it?")
            }
        }
    }
}

impl core::error::Error for UnregisterError<'_> {}

/// Why ranges could not be moved. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RelocateError<'d> {
    /// No device has this id, or none any more.
    NotFound {
        /// The id.
        id: InstanceId,
    },
    /// The device is just being registered or removed.
    Busy {
        /// The device.
        device: &'d str,
    },
    /// The device has no range of that number.
    NoSuchRange {
        /// The device.
        device: &'d str,
        /// The number given.
        index: usize,
    },
    /// The same range is named twice.
    NamedTwice {
        /// The device.
        device: &'d str,
        /// The number of its range.
        index: usize,
    },
    /// More ranges than one transaction can move.
    TooMany {
        /// How many were named.
        asked: usize,
        /// How many can be: [`MAX_RELOCATIONS`](crate::MAX_RELOCATIONS).
        limit: usize,
    },
    /// The new place cannot be had.
    Range {
        /// The device.
        device: &'d str,
        /// Which of its ranges.
        index: usize,
        /// The address it was to move to.
        to: GuestAddress,
        /// Why not.
        refusal: RangeRefusal<'d>,
    },
}

impl fmt::Display for RelocateError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RelocateError::NotFound { id } => write!(f, "no device has the id {id}"),
            RelocateError::Busy { device } => write!(f, "\"{device}\" is just being registered or removed"),
            RelocateError::NoSuchRange { device, index } => write!(f, "\"{device}\" has no range {index}"),
            RelocateError::NamedTwice { device, index } => {
                write!(f, "range {index} of \"{device}\" is named twice in one transaction")
            }
            RelocateError::TooMany { asked, limit } => {
                write!(f, "{asked} ranges in one transaction; it can move {limit}")
            }
            RelocateError::Range { device, index, to, refusal } => {
                write!(f, "range {index} of \"{device}\" to {to}: {refusal}")
            }
        }
    }
}

impl core::error::Error for RelocateError<'_> {}

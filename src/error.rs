//! The errors of changes of the topology. Each names both parties.

use core::fmt;

use crate::address::{GuestAddress, GuestUsize, IoRange, IoType, RangeError};
use crate::instance::InstanceId;
use crate::interrupt::{Gsi, MAX_SHARING};

/// The holder of a range or a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner<'d> {
    /// A device.
    Device {
        /// Its id.
        id: InstanceId,
        /// Its name.
        name: &'d str,
    },
    /// The VMM, by [`reserve`](crate::DeviceManager::reserve) or [`reserve_irq`](crate::DeviceManager::reserve_irq).
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

/// Why a range could not be had, or not be given back. Nothing has changed then.
///
/// `O` names the holder of what is in the way: in the errors that a VMM gets, it is an [`Owner`].
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{DeviceManager, IoRange, IoResource, IrqResource, Storage, SystemAllocator};
///
/// let (first, second) = (Constant("first", 1), Constant("second", 2));
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let page = [IoResource::mmio(0x1000, 0x1000)];
/// manager.register_device(&first, None, &page, IrqResource::None).unwrap();
/// let error = manager.register_device(&second, None, &page, IrqResource::None).unwrap_err();
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
    /// A range of a bus above the device is in the way: it is not a window, or it does not hold the whole.
    NotInWindow {
        /// What was asked for.
        wanted: IoRange,
        /// The range of the bus.
        taken: IoRange,
        /// The bus.
        bus: O,
        /// Whether the range of the bus is a window.
        is_window: bool,
    },
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
    /// Windows are nested too deeply for anything to lie in the innermost.
    TooDeep {
        /// The innermost window, with 255 others around it.
        window: IoRange,
        /// The bus that has the window.
        owner: O,
    },
    /// The window cannot move away from under a range that lies in it.
    WindowInUse {
        /// The lowest range in the window.
        inside: IoRange,
        /// Its holder.
        owner: O,
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
    pub(crate) fn map_owner<P>(self, name: impl Fn(O) -> P) -> RangeRefusal<P> {
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
            Self::NotInWindow { wanted, taken, bus, is_window } => {
                RangeRefusal::NotInWindow { wanted, taken, bus: name(bus), is_window }
            }
            Self::OverlapsOwnRequest { wanted, taken } => RangeRefusal::OverlapsOwnRequest { wanted, taken },
            Self::NoRoom { size, align, within } => RangeRefusal::NoRoom { size, align, within },
            Self::Full { capacity } => RangeRefusal::Full { capacity },
            Self::TooDeep { window, owner } => RangeRefusal::TooDeep { window, owner: name(owner) },
            Self::WindowInUse { inside, owner } => RangeRefusal::WindowInUse { inside, owner: name(owner) },
            Self::NotAllocated { range } => RangeRefusal::NotAllocated { range },
            Self::StorageInUse => RangeRefusal::StorageInUse,
        }
    }
}

/// What an error says of a storage that another manager has.
const STORAGE_IN_USE: &str = "the manager's storage belongs to another manager, which used it first";

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
            Self::NotInWindow { wanted, taken, bus, is_window: false } => {
                write!(
                    f,
                    "{wanted} overlaps {taken}, which belongs to {bus}, a bus above the device, and is not a window"
                )?;
                f.write_str(": ask for that range with `.window()`")
            }
            Self::NotInWindow { wanted, taken, bus, is_window: true } => {
                write!(f, "{wanted} is not wholly inside {taken}, the window of {bus}, a bus above the device")
            }
            Self::OverlapsOwnRequest { wanted, taken } => {
                write!(f, "{wanted} overlaps {taken}, which the device itself has asked for")
            }
            Self::NoRoom { size, align, within } => {
                write!(f, "no free range of size {size}, aligned to {align:#x}, lies within {within}")
            }
            Self::Full { capacity } => {
                write!(f, "all {capacity} ranges are in use, as many as `RANGES` says, those of the VMM included")
            }
            Self::TooDeep { window, owner } => {
                write!(f, "{window}, the window of {owner}, is nested too deeply to hold anything")
            }
            Self::WindowInUse { inside, owner } => write!(f, "the window holds {inside}, which belongs to {owner}"),
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

/// Why there is no further [`Dispatcher`](crate::Dispatcher).
///
/// ```
/// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
///
/// let storage = Storage::<8, 16, 1>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let _vcpu = manager.dispatcher();
/// let error = manager.dispatcher().err().unwrap();
/// assert_eq!(error.to_string(), "all 1 dispatchers are in use, as many as `VCPUS` says");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DispatcherError {
    /// There are as many as the storage has room for.
    Exhausted {
        /// How many there can be.
        capacity: usize,
    },
    /// Another manager uses the storage.
    StorageInUse,
}

impl fmt::Display for DispatcherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DispatcherError::Exhausted { capacity } => {
                write!(f, "all {capacity} dispatchers are in use, as many as `VCPUS` says")
            }
            DispatcherError::StorageInUse => f.write_str(STORAGE_IN_USE),
        }
    }
}

impl core::error::Error for DispatcherError {}

/// Why a device could not be registered. Nothing has changed then: no id, range, line or node is taken, and the device
/// can be registered again with other requests.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{DeviceManager, IoRange, IrqResource, RegisterError, Storage, SystemAllocator};
///
/// let (first, second) = (Constant("disk", 1), Constant("disk", 2));
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let holder = manager.register_device(&first, None, &[], IrqResource::None).unwrap();
/// let refused = manager.register_device(&second, None, &[], IrqResource::None);
/// assert_eq!(refused, Err(RegisterError::NameTaken { device: "disk", holder }));
/// ```
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
        /// The device that has the name.
        holder: InstanceId,
    },
    /// The parent is not registered, or is being registered or removed.
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
        refusal: RangeRefusal<Owner<'d>>,
    },
    /// The line is in use, and at least one of the two devices did not request it as shared.
    IrqTaken {
        /// The device.
        device: &'d str,
        /// The line.
        gsi: Gsi,
        /// A device that holds it.
        owner: Owner<'d>,
    },
    /// Any other reason why the device gets no line: the line is not one of the allocator's, none is free, or there are none.
    Irq {
        /// The device.
        device: &'d str,
        /// Why.
        error: IrqError,
    },
    /// Lines of removed devices fill the room for lines: the controller has not taken their deassertion yet.
    LinesOwed {
        /// The device.
        device: &'d str,
    },
    /// As many devices share the line as can: [`MAX_SHARING`](crate::MAX_SHARING).
    LineFull {
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
    /// Another manager uses the storage.
    StorageInUse {
        /// The device.
        device: &'d str,
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
            RegisterError::LineFull { device, gsi } => {
                write!(f, "{gsi} has no room for \"{device}\": {MAX_SHARING} devices share it, as many as can")
            }
            RegisterError::TooManyDevices { device, capacity } => {
                write!(
                    f,
                    "there is no room for \"{device}\": all {capacity} devices are in use, as many as `DEVICES` says"
                )
            }
            RegisterError::StorageInUse { device } => {
                write!(f, "\"{device}\" cannot be registered: {STORAGE_IN_USE}")
            }
            RegisterError::Rejected { device } => write!(f, "\"{device}\" does not accept its resources"),
        }
    }
}

impl core::error::Error for RegisterError<'_> {}

/// Why a device could not be removed. Nothing has changed then, and accesses still reach it.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{DeviceManager, IoRange, IrqResource, Storage, SystemAllocator, UnregisterError};
///
/// let (bus, disk) = (Constant("bus", 1), Constant("disk", 2));
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let id = manager.register_device(&bus, None, &[], IrqResource::None).unwrap();
/// manager.register_device(&disk, Some(id), &[], IrqResource::None).unwrap();
/// let refused = manager.unregister_device(id);
/// assert_eq!(refused, Err(UnregisterError::HasChildren { device: "bus", child: "disk" }));
/// ```
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
    /// The device is being registered or removed by another caller.
    Busy {
        /// The device.
        device: &'d str,
    },
    /// The call was made from within the device's own callback, and would have to wait for the end of it.
    /// [`unregister_device_deferred`](crate::DeviceManager::unregister_device_deferred) is for that case.
    InOwnCallback {
        /// The device.
        device: &'d str,
    },
    /// A callback of the device that was running when the call was made has not ended within the manager's spin limit
    /// ([`with_removal_spins`](crate::DeviceManager::with_removal_spins)). Perhaps the call was made from within it.
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
                write!(f, "\"{device}\" is being registered or removed by another caller")
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
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{
///     DeviceManager, GuestAddress, IoRange, IoResource, IrqResource, RelocateError, Relocation, Storage,
///     SystemAllocator,
/// };
///
/// let device = Constant("disk", 1);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let id = manager.register_device(&device, None, &[IoResource::mmio(0x1000, 0x1000)], IrqResource::None).unwrap();
/// let refused = manager.relocate(&[Relocation::new(id, 1).to(GuestAddress(0x2000))]);
/// assert_eq!(refused, Err(RelocateError::NoSuchRange { device: "disk", index: 1 }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RelocateError<'d> {
    /// No device has this id, or none any more.
    NotFound {
        /// The id.
        id: InstanceId,
    },
    /// The device is being registered or removed.
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
        refusal: RangeRefusal<Owner<'d>>,
    },
}

impl fmt::Display for RelocateError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RelocateError::NotFound { id } => write!(f, "no device has the id {id}"),
            RelocateError::Busy { device } => write!(f, "\"{device}\" is being registered or removed"),
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

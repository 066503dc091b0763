//! Why a device could not be registered, removed or moved, and why there is no further dispatcher.

use core::fmt;

use super::{IrqRefusal, Owner, RangeRefusal, STORAGE_IN_USE};
use crate::address::{GuestAddress, IoType};
use crate::instance::InstanceId;
use crate::interrupt::{Gsi, InterruptError};

/// Why there is no further [`Dispatcher`](crate::Dispatcher).
///
/// ```
/// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
///
/// let storage = Storage::<8, 16, 1>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let _vcpu = manager.dispatcher(0);
/// let error = manager.dispatcher(0).err().unwrap();
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
/// use vm_device::{DeviceManager, IoRange, RegisterError, Storage, SystemAllocator};
///
/// let (first, second) = (Constant("disk", 1), Constant("sd/a", 2));
/// let storage = Storage::<1, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// manager.register_device(&first, None, &[], &[]).unwrap();
/// let refused = manager.register_device(&second, None, &[], &[]);
/// assert_eq!(refused, Err(RegisterError::InvalidName { device: "sd/a" }));
/// let refused = manager.register_device(&first, None, &[], &[]);
/// assert_eq!(refused, Err(RegisterError::TooManyDevices { device: "disk", capacity: 1 }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RegisterError<N> {
    /// The name is empty or contains a `/` or a `@`, which stand between the parts of a path.
    InvalidName {
        /// The name.
        device: N,
    },
    /// The parent is not registered, or is being registered or removed.
    NoSuchParent {
        /// The device.
        device: N,
        /// The id given as its parent's.
        parent: InstanceId,
    },
    /// More ranges than one device can have.
    TooManyRanges {
        /// The device.
        device: N,
        /// How many it asks for.
        asked: usize,
        /// How many it can have: [`MAX_RANGES_PER_DEVICE`](crate::MAX_RANGES_PER_DEVICE).
        limit: usize,
    },
    /// A range cannot be had.
    Range {
        /// The device.
        device: N,
        /// Which of its requests.
        index: usize,
        /// The space of the range.
        io_type: IoType,
        /// Why not.
        refusal: RangeRefusal<Owner<N>>,
    },
    /// More interrupts than one device can have.
    TooManyIrqs {
        /// The device.
        device: N,
        /// How many it asks for.
        asked: usize,
        /// How many it can have: [`MAX_IRQS_PER_DEVICE`](crate::MAX_IRQS_PER_DEVICE).
        limit: usize,
    },
    /// An interrupt cannot be had.
    Irq {
        /// The device.
        device: N,
        /// Which of its requests.
        index: usize,
        /// Why not.
        refusal: IrqRefusal<N>,
    },
    /// The manager has no room for another device.
    TooManyDevices {
        /// The device.
        device: N,
        /// How many it has room for.
        capacity: usize,
    },
    /// Another manager uses the storage.
    StorageInUse {
        /// The device.
        device: N,
    },
    /// The device has another name than the one for which its resources were [taken](crate::DeviceManager::take).
    OtherName {
        /// The name of the device.
        device: N,
        /// The name that was given.
        taken: N,
    },
    /// The [`RangeListener`](crate::RangeListener) has refused the place of a range.
    ListenerRefused {
        /// The device.
        device: N,
        /// Which of its ranges.
        index: usize,
        /// The code of its [`Rejected`](crate::Rejected).
        code: u32,
    },
    /// The device does not accept what it was given.
    Rejected {
        /// The device.
        device: N,
        /// The code of its [`Rejected`](crate::Rejected).
        code: u32,
    },
}

impl<N: fmt::Display> fmt::Display for RegisterError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterError::InvalidName { device } => {
                write!(f, "\"{device}\" is no name for a device: it is empty or contains a '/' or a '@'")
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
            RegisterError::TooManyIrqs { device, asked, limit } => {
                write!(f, "\"{device}\" asks for {asked} interrupts; a device can have {limit}")
            }
            RegisterError::Irq { device, index, refusal } => {
                write!(f, "interrupt request {index} of \"{device}\": {refusal}")
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
            RegisterError::OtherName { device, taken } => {
                write!(f, "\"{device}\" cannot have what was taken for \"{taken}\": a device keeps the name")
            }
            RegisterError::ListenerRefused { device, index, code } => {
                write!(f, "the listener has refused the place of range {index} of \"{device}\" (code {code})")
            }
            RegisterError::Rejected { device, code } => {
                write!(f, "\"{device}\" does not accept its resources (code {code})")
            }
        }
    }
}

impl<N: fmt::Debug + fmt::Display> core::error::Error for RegisterError<N> {}

/// Why a device could not be removed. Nothing has changed then, and accesses still reach it.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator, UnregisterError};
///
/// let (bus, disk) = (Constant("bus", 1), Constant("disk", 2));
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let id = manager.register_device(&bus, None, &[], &[]).unwrap();
/// manager.register_device(&disk, Some(id), &[], &[]).unwrap();
/// let refused = manager.unregister_device(id);
/// assert_eq!(refused, Err(UnregisterError::HasChildren { device: "bus", child: "disk" }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UnregisterError<N> {
    /// No device has this id, or none any more.
    NotFound {
        /// The id.
        id: InstanceId,
    },
    /// The bus has children.
    HasChildren {
        /// The bus.
        device: N,
        /// Its first child.
        child: N,
    },
    /// The device is being registered or removed by another caller.
    Busy {
        /// The device.
        device: N,
    },
    /// The call was made from within the device's own callback, and would have to wait for the end of it.
    /// [`unregister_device_deferred`](crate::DeviceManager::unregister_device_deferred) is for that case.
    InOwnCallback {
        /// The device.
        device: N,
    },
    /// A callback of the device that was running when the call was made has not ended within the manager's spin limit
    /// ([`with_removal_spins`](crate::DeviceManager::with_removal_spins)). Perhaps the call was made from within it.
    InUse {
        /// The device.
        device: N,
    },
}

impl<N: fmt::Display> fmt::Display for UnregisterError<N> {
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

impl<N: fmt::Debug + fmt::Display> core::error::Error for UnregisterError<N> {}

/// Why ranges could not be moved. Nothing has changed then.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{
///     DeviceManager, GuestAddress, IoRange, IoResource, RelocateError, Relocation, Storage,
///     SystemAllocator,
/// };
///
/// let device = Constant("disk", 1);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let id = manager.register_device(&device, None, &[IoResource::mmio(0x1000, 0x1000)], &[]).unwrap();
/// let refused = manager.relocate(&mut [Relocation::new(id, 1).to(GuestAddress(0x2000))]);
/// assert_eq!(refused, Err(RelocateError::NoSuchRange { device: "disk", index: 1 }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RelocateError<N> {
    /// No device has this id, or none any more.
    NotFound {
        /// The id.
        id: InstanceId,
    },
    /// The device is being registered or removed.
    Busy {
        /// The device.
        device: N,
    },
    /// The device has no range of that number.
    NoSuchRange {
        /// The device.
        device: N,
        /// The number given.
        index: usize,
    },
    /// The same range is named twice.
    NamedTwice {
        /// The device.
        device: N,
        /// The number of its range.
        index: usize,
    },
    /// The change is made, and the [`RangeListener`](crate::RangeListener) has refused the place of a range: of this one or of one
    /// that has been waiting. It is told again with the next change.
    ListenerRefused {
        /// The device.
        device: N,
        /// Which of its ranges.
        index: usize,
        /// The code of its [`Rejected`](crate::Rejected).
        code: u32,
    },
    /// The new place cannot be had.
    Range {
        /// The device.
        device: N,
        /// Which of its ranges.
        index: usize,
        /// The address it was to move to.
        to: GuestAddress,
        /// Why not.
        refusal: RangeRefusal<Owner<N>>,
    },
}

impl<N: fmt::Display> fmt::Display for RelocateError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RelocateError::NotFound { id } => write!(f, "no device has the id {id}"),
            RelocateError::Busy { device } => write!(f, "\"{device}\" is being registered or removed"),
            RelocateError::NoSuchRange { device, index } => write!(f, "\"{device}\" has no range {index}"),
            RelocateError::NamedTwice { device, index } => {
                write!(f, "range {index} of \"{device}\" is named twice in one transaction")
            }
            RelocateError::ListenerRefused { device, index, code } => {
                write!(
                    f,
                    "the listener has refused the place of range {index} of \"{device}\", which has it (code {code})"
                )
            }
            RelocateError::Range { device, index, to, refusal } => {
                write!(f, "range {index} of \"{device}\" to {to}: {refusal}")
            }
        }
    }
}

impl<N: fmt::Debug + fmt::Display> core::error::Error for RelocateError<N> {}

/// Why an interrupt was not moved to another line. It has kept its line then.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{DeviceManager, Gsi, IoRange, IrqResource, RerouteError, Storage, SystemAllocator};
///
/// let card = Constant("card", 1);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 23));
/// let id = manager.register_device(&card, None, &[], &[IrqResource::Any]).unwrap();
/// let refused = manager.reroute(id, 1, Some(Gsi(4)));
/// assert_eq!(refused, Err(RerouteError::NoSuchInterrupt { device: "card", index: 1 }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RerouteError<N> {
    /// No device has the id any more, or ever had.
    NotFound {
        /// The id.
        id: InstanceId,
    },
    /// The device is being registered or removed, or another caller moves the same interrupt.
    Busy {
        /// The device.
        device: N,
    },
    /// The device has fewer interrupts.
    NoSuchInterrupt {
        /// The device.
        device: N,
        /// The number that was given.
        index: usize,
    },
    /// The line cannot be had.
    Line {
        /// The device.
        device: N,
        /// Which of its interrupts.
        index: usize,
        /// Why not.
        refusal: IrqRefusal<N>,
    },
    /// The interrupt is asserted, and the interrupt controller has not taken that on the new line.
    Controller {
        /// The device.
        device: N,
        /// Which of its interrupts.
        index: usize,
        /// The new line.
        gsi: Gsi,
        /// What the controller has said.
        error: InterruptError,
    },
}

impl<N: fmt::Display> fmt::Display for RerouteError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RerouteError::NotFound { id } => write!(f, "no device has the id {id}"),
            RerouteError::Busy { device } => {
                write!(f, "\"{device}\" is being registered or removed, or another caller moves the same interrupt")
            }
            RerouteError::NoSuchInterrupt { device, index } => write!(f, "\"{device}\" has no interrupt {index}"),
            RerouteError::Line { device, index, refusal } => write!(f, "interrupt {index} of \"{device}\": {refusal}"),
            RerouteError::Controller { device, index, gsi, error } => {
                write!(f, "interrupt {index} of \"{device}\", which is asserted, to {gsi}: {error}")
            }
        }
    }
}

impl<N: fmt::Debug + fmt::Display> core::error::Error for RerouteError<N> {}

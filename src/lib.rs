//! Device model and device manager for virtual machine monitors.
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

mod access;
mod address;
mod allocator;
mod device;
mod dispatch;
mod error;
mod freelist;
mod inspection;
mod interrupt;
mod manager;
mod relocation;
mod removal;
mod resource;
mod slots;
mod state;
mod sync;
mod table;
mod topology;

pub use access::{Access, IoError, MAX_DEPTH, OpenBus};
pub use address::{GuestAddress, GuestUsize, IoRange, IoType, RangeError};
pub use allocator::{
    AllocateError, Block, IdError, InstanceId, IrqError, MAX_LINES, PoolError, RESERVED, SystemAllocator,
};
pub use device::{Device, Doorbell, Rejected};
pub use dispatch::{Dispatcher, Nested, NoDispatcher};
pub use error::{Owner, RangeRefusal, RegisterError, RelocateError, UnregisterError};
pub use inspection::{DeviceInfo, MappedRange};
pub use interrupt::{Gsi, InterruptController, InterruptError, IrqLine, MAX_SHARING};
pub use manager::DeviceManager;
pub use relocation::{MAX_RELOCATIONS, Relocation};
pub use resource::{AccessSizes, Assigned, Fit, IoResource, IrqResource, Placement, Resources};
pub use slots::{HeavyBarrier, MAX_ANONYMOUS};
pub use state::MAX_RANGES_PER_DEVICE;

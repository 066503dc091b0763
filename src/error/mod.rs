//! The errors of changes of the topology. Each names both parties.

mod change;
mod names;
mod path;
mod reset;
mod resource;

use core::fmt;

pub use change::{DispatcherError, RegisterError, RelocateError, RerouteError, UnregisterError};
pub use path::PathError;
pub use reset::ResetError;
pub use resource::{IrqError, IrqRefusal, MAX_LINES, RangeRefusal};

use crate::instance::InstanceId;

/// The holder of a range or a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner<N> {
    /// A device.
    Device {
        /// Its id.
        id: InstanceId,
        /// Its name.
        name: N,
    },
    /// The VMM, by [`reserve`](crate::DeviceManager::reserve) or [`reserve_irq`](crate::DeviceManager::reserve_irq).
    Vmm,
}

impl<N: fmt::Display> fmt::Display for Owner<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Device { id, name } => write!(f, "\"{name}\" ({id})"),
            Owner::Vmm => f.write_str("the VMM"),
        }
    }
}

/// What an error says of a storage that another manager has.
const STORAGE_IN_USE: &str = "the manager's storage belongs to another manager, which used it first";

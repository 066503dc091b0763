//! How a guest's access gets to its device: without a handle, through a vCPU's handle, or from within a callback.

mod accesses;
mod handle;
mod nested;
mod observed;
mod path;
mod straddling;

pub use accesses::Accesses;
#[cfg(feature = "alloc")]
pub(crate) use accesses::accesses;
pub use handle::{Dispatcher, MEMORY_HINTS, PORT_HINTS};
pub use nested::Nested;

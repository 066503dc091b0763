//! VM exits of a type-1 hypervisor, as accesses that a [`DeviceManager`](crate::DeviceManager) can dispatch.
//!
//! A hypervisor without an operating system under it gets its guests' accesses as numbers of the processor. The modules here
//! stand between them and [`read`](crate::DeviceManager::read) and [`write`](crate::DeviceManager::write): [`x86`] for AMD's
//! SVM and Intel's VMX.
//!
//! All of it is pure functions over numbers: no hardware is touched, no memory allocated, and no value of an argument
//! makes them panic. (The decoder that the feature `instruction` brings has panics that no input is known to reach.)

mod memory;
mod size;
pub mod x86;

pub use memory::{MemoryAccess, MemoryAccessKind};
pub use size::Size;

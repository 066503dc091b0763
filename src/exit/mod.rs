//! VM exits of a type-1 hypervisor, as accesses that a [`DeviceManager`](crate::DeviceManager) can dispatch.
//!
//! A hypervisor without an operating system under it gets its guests' accesses as numbers of the processor. The modules here
//! turn them into calls of [`read`](crate::DeviceManager::read) and [`write`](crate::DeviceManager::write): [`x86`] for AMD's
//! SVM and Intel's VMX, [`arm64`] for EL2 of Arm, [`riscv64`] for the hypervisor extension of RISC-V.
//!
//! All of it is pure functions over numbers. They touch no hardware, allocate no memory, and panic for no argument.

pub mod arm64;
mod guest;
mod memory;
mod operand;
pub mod riscv64;
mod size;
pub mod x86;

pub use guest::{ExecuteError, Guest};
pub use memory::{MemoryAccess, MemoryAccessKind};
pub use operand::{MAX_OPERAND, PAGE, pieces};
pub use size::Size;

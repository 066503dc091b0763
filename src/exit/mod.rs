//! VM exits of a type-1 hypervisor, as accesses that a [`DeviceManager`](crate::DeviceManager) can dispatch.
//!
//! A hypervisor without an operating system under it gets its guests' accesses as numbers of the processor. The modules here
//! turn them into calls of [`read`](crate::DeviceManager::read) and [`write`](crate::DeviceManager::write): [`x86`] for AMD's
//! SVM and Intel's VMX, [`arm64`] for EL2 of Arm, [`riscv64`] for the hypervisor extension of RISC-V.
//!
//! All of them read alike:
//!
//! | | x86 | Arm | RISC-V |
//! |---|---|---|---|
//! | the numbers of the exit become an access, or an `ExitError` | [`svm`](x86::svm::memory_access), [`vmx`](x86::vmx::memory_access) | [`data_abort`](arm64::data_abort) | [`guest_page_fault`](riscv64::guest_page_fault) |
//! | where they do not say enough, the instruction is decoded | [`decode`](x86::instruction::decode) | [`decode`](arm64::instruction::decode) | [`decode`](riscv64::instruction::decode) |
//! | it is executed, with the guest's `Registers` and `Mode`, and the [`Guest`] | [`execute`](x86::instruction::Instruction::execute) | [`execute`](arm64::instruction::Instruction::execute) | [`execute`](riscv64::instruction::Instruction::execute) |
//! | an access of the page walk, which is none to a device | [`page_walk`](MemoryAccess::page_walk) | [`PageWalk`](arm64::DataAbort::PageWalk) | [`page_walk`](riscv64::GuestPageFault::page_walk) |
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

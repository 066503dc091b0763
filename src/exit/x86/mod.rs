//! VM exits of x86, and the instructions that cause them.
//!
//! A hypervisor gets its guests' accesses as numbers in a control block: AMD's `EXITINFO1` and `EXITINFO2`, Intel's exit
//! qualification.
//!
//! | the exit | becomes | afterwards |
//! |---|---|---|
//! | `IN`, `OUT`, `INS`, `OUTS` | a [`PortAccess`], by [`svm::port_access`] or [`vmx::port_access`] | [`PortAccess::execute`] |
//! | nested page fault, EPT violation | a [`MemoryAccess`], by [`svm::memory_access`] or [`vmx::memory_access`] | the instruction has to be decoded |
//! | the instruction that touched MMIO | an `Instruction`, by `instruction::decode` | `Instruction::execute` |
//!
//! ```
//! use vm_device::exit::x86::{PortDirection, Mode, Registers, Size, svm};
//!
//! // `in eax, dx` at 0x1000 in long mode: TYPE, SZ32, port 0xcf8; the next RIP in EXITINFO2.
//! let mut registers = Registers { rip: 0x1000, ..Registers::default() };
//! let access = svm::port_access(0x0cf8_0041, 0x1001, Mode::Bits64)?;
//! assert_eq!((access.port, access.size, access.direction), (0xcf8, Size::Dword, PortDirection::In));
//!
//! // Here the manager reads the port. The value that it has read completes the instruction.
//! access.complete(&mut registers, 0x8000_0000);
//! assert_eq!((registers.rax(), registers.rip), (0x8000_0000, 0x1001));
//! # Ok::<(), vm_device::exit::x86::ExitError>(())
//! ```
//!
//! # What stays with the hypervisor
//! - Completing an instruction also ends the interrupt shadow of a preceding `STI` or `MOV SS` (the guest interruptibility
//!   state), and raises a debug exception if the guest single-steps (`RFLAGS.TF`). Both are control-block fields, not
//!   registers.
//! - Injecting the exception that a [fault](crate::exit::Guest::Fault) stands for. RIP is at the instruction then.
//! - Bits of the vector registers above the 256th. An AVX move clears them with the upper half (Intel SDM vol. 1, 15.5): a
//!   hypervisor whose guests have AVX-512 does that for the registers that
//!   [`Instruction::vector`](instruction::Instruction::vector) says it for.

mod complete;
mod guest;
pub mod instruction;
mod mode;
mod port;
mod registers;
mod string;
pub mod svm;
pub mod vmx;

pub use guest::X86Guest;
pub use mode::{AddressSize, Mode, Segment};
pub use port::{ExitError, PortAccess, PortDirection, Repeat, StringForm};
pub use registers::{Gpr, Register, Registers, Rflags};
pub use string::MAX_BURST;

pub use super::memory::{MemoryAccess, MemoryAccessKind};
pub use super::size::Size;

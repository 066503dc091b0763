//! VM exits of RISC-V with the hypervisor extension: guest-page faults of 64-bit guests.
//!
//! A hypervisor in HS-mode gets its guests' accesses as traps: `scause`, `stval`, `htval` and `htinst`.
//!
//! | the exit | becomes | afterwards |
//! |---|---|---|
//! | load or store/AMO guest-page fault | a [`GuestPageFault`], by [`guest_page_fault`] | the instruction is known or has to be decoded |
//! | its instruction, where `htinst` tells it | an [`Instruction`](instruction::Instruction), by [`GuestPageFault::instruction`] | [`execute`](instruction::Instruction::execute) |
//! | its instruction, where `htinst` is 0 | the same, by [`instruction::fetch`] and [`instruction::decode`] | the same |
//!
//! ```
//! use vm_device::GuestAddress;
//! use vm_device::exit::Size;
//! use vm_device::exit::riscv64::{Mode, Registers, guest_page_fault};
//!
//! // `sb a0, 0(a1)` to a UART at 0x1000_0000: SB with x10 in `htinst`.
//! let mut registers = Registers { pc: 0x8020_0000, ..Registers::default() };
//! registers.set(10, 0x41);
//! let fault = guest_page_fault(23, 0xffff_ffc6_0000_1000, 0x1000_0000 >> 2, 0x00a0_0023)?;
//! let instruction = fault.instruction().unwrap().expect("htinst tells it");
//! assert_eq!((fault.address, instruction.size()), (Some(GuestAddress(0x1000_0000)), Size::Byte));
//! assert_eq!(instruction.output(&registers, Mode::default()), 0x41);
//!
//! // Here the manager writes it.
//! instruction.complete(&mut registers, Mode::default(), 0);
//! assert_eq!(registers.pc, 0x8020_0004);
//! # Ok::<(), vm_device::exit::riscv64::ExitError>(())
//! ```
//!
//! [`execute`](instruction::Instruction::execute) does all of it with a [`Guest`](super::Guest), and is for operands over two pages
//! and addresses that the exit does not tell besides. [`output`](instruction::Instruction::output) and
//! [`complete`](instruction::Instruction::complete) alone are for operands that are
//! [aligned](GuestPageFault::virtual_address), which lie in one page.
//!
//! # What stays with the hypervisor
//! - The exceptions that a guest gets: guest page tables without an entry (page fault), an instruction that is refused (access
//!   fault), an instruction fetched from a device (instruction access fault, 1).
//! - A trigger that the guest set on the instruction, and the counters that count it.
//! - Faults of the hypervisor's own `HLV`, `HLVX` and `HSV`: SPV of `hstatus` is clear at them.

mod fault;
pub mod instruction;
mod mode;
mod registers;

pub use fault::{
    ExitError, GuestPageFault, INSTRUCTION_GUEST_PAGE_FAULT, LOAD_GUEST_PAGE_FAULT, STORE_GUEST_PAGE_FAULT,
    guest_page_fault,
};
pub use mode::Mode;
pub use registers::Registers;

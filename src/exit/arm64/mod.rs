//! Exits of Arm to EL2, and the instructions that cause them.
//!
//! A guest that touches an address that stage 2 does not map leaves with a data abort. ESR_EL2 describes the loads and stores
//! of one general-purpose register without writeback. Of all others, such as pairs and post-index stores, which drivers do
//! use, it says no more than that they read or write, and its fields for the register hold nothing.
//!
//! | the exit | becomes | afterwards |
//! |---|---|---|
//! | data abort with a valid syndrome | [`DataAbort::Transfer`], by [`data_abort`] | [`Transfer::complete`], or all at once [`Transfer::execute`] |
//! | data abort without one | [`DataAbort::Instruction`] | [`instruction::fetch`], [`instruction::decode`], [`Instruction::execute`](instruction::Instruction::execute) |
//! | cache maintenance | [`DataAbort::CacheMaintenance`] | [`DataAbort::skip`] |
//! | data abort of the page walk | [`DataAbort::PageWalk`] | memory that is mapped late is mapped; else the guest gets an abort |
//! | anything else | an [`ExitError`] that names it | |
//!
//! ```
//! use vm_device::exit::arm64::instruction::{decode, fetch};
//! use vm_device::exit::arm64::{DataAbort, Exit, Mode, Registers, data_abort};
//! # use vm_device::GuestAddress;
//! # use vm_device::exit::{Guest, MemoryAccessKind};
//! # struct Machine { device: Vec<u8> }
//! # impl Guest for Machine {
//! #     type Fault = ();
//! #     fn translate(&mut self, address: u64, _: MemoryAccessKind) -> Result<GuestAddress, ()> { Ok(GuestAddress(address)) }
//! #     fn read(&mut self, _: GuestAddress, data: &mut [u8]) -> Result<(), ()> {
//! #         data.copy_from_slice(&0xb800_4443_u32.to_le_bytes()); Ok(())
//! #     }
//! #     fn write(&mut self, _: GuestAddress, data: &[u8]) -> Result<(), ()> { self.device.extend(data); Ok(()) }
//! # }
//! # let mut guest = Machine { device: Vec::new() };
//!
//! // `str w3, [x2], #4` at 0x8000: no ISV, WnR.
//! let exit = Exit { esr: 0x9200_0047, far: 0xa000_0000, hpfar: 0x9_0000 };
//! let mut registers = Registers { pc: 0x8000, spsr: 5, ..Registers::default() };
//! (registers.x[2], registers.x[3]) = (0xa000_0000, 0x1234_5678);
//! let mode = Mode::new(registers.spsr, 0);
//!
//! match data_abort(exit).expect("an access") {
//!     DataAbort::Transfer(transfer) => transfer.execute(&mut registers, mode, &mut guest).expect("no fault"),
//!     DataAbort::Instruction(fault) => {
//!         let word = fetch(&registers, &mut guest).expect("no fault");
//!         let instruction = decode(word, mode).expect("an instruction that is known");
//!         instruction.execute(&mut registers, mode, &fault, &mut guest).expect("no fault");
//!     }
//!     abort @ DataAbort::CacheMaintenance(_) => abort.skip(&mut registers),
//!     DataAbort::PageWalk(_) => panic!("the guest's page tables are not in memory"),
//! }
//! assert_eq!(guest.device, [0x78, 0x56, 0x34, 0x12]);
//! assert_eq!((registers.x[2], registers.pc), (0xa000_0004, 0x8004));
//! ```
//!
//! # AArch32 guests
//! Accesses with a valid syndrome are complete: the number of the register is that of AArch64, and the IT state goes on. Without
//! one, [`instruction::decode`] refuses them by name.
//!
//! # What stays with the hypervisor
//! A guest that is stepped (MDSCR_EL1.SS) gets its exception when it returns, because PSTATE.SS becomes 0. Exceptions that a
//! refused exit is to cause in the guest, such as a synchronous external abort, are for the hypervisor to inject.

mod data_abort;
mod error;
pub mod instruction;
mod mode;
mod registers;
mod transfer;

pub use data_abort::{Cause, DATA_ABORT_LOWER_LEVEL, DataAbort, Exit, Stage2Fault, data_abort};
pub use error::ExitError;
pub use mode::Mode;
pub use registers::Registers;
pub use transfer::{Register, Transfer};

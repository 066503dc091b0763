//! The guest's own page tables, as the processor reads them.

use core::arch::asm;

use vm_device::GuestAddress;
use vm_device::exit::MemoryAccessKind;
use vm_device::exit::arm64::State;

use super::vcpu::{mrs, msr};

/// Address translation by stage 1, for these rights.
macro_rules! translate {
    ($instruction:literal, $address:expr) => {
        // SAFETY: the instruction reads the guest's tables, and changes PAR_EL1 alone.
        unsafe { asm!(concat!("at ", $instruction, ", {}"), "isb", in(reg) $address, options(nostack)) }
    };
}

/// The guest physical address of a virtual one, if the guest's page tables allow this access to it.
///
/// # Errors
/// The status code of the fault (Arm ARM DDI 0487, "PAR_EL1", FST).
pub fn translate(state: State, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, u64> {
    const FAULT: u64 = 1;
    const PAGE: u64 = 0x0000_ffff_ffff_f000;
    let guests_own = mrs!("par_el1");
    match (state.level(), kind) {
        (0, MemoryAccessKind::Write) => translate!("s1e0w", address),
        (0, _) => translate!("s1e0r", address),
        (_, MemoryAccessKind::Write) => translate!("s1e1w", address),
        _ => translate!("s1e1r", address),
    }
    let outcome = mrs!("par_el1");
    msr!("par_el1", guests_own);
    if outcome & FAULT != 0 { Err(outcome >> 1 & 0x3f) } else { Ok(GuestAddress(outcome & PAGE | address & 0xfff)) }
}

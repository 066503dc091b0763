//! Exceptions and NMIs while the hypervisor's own code runs. A guest that has interrupt controllers of the machine can send NMIs, which
//! nothing holds back then; with SVM the global interrupt flag does.

use core::arch::naked_asm;

use spin::Mutex;

use super::host::{Ending, leave};
use crate::memory::Page;
use crate::println;

/// The interrupt descriptor table. Vectors of interrupts have no gate: they are masked.
static TABLE: Mutex<Page<4096>> = Mutex::new(Page([0; 4096]));

const NMI: usize = 2;
/// How many vectors are of exceptions.
const EXCEPTIONS: usize = 32;

/// The address of the table, which is written here, for code of this segment.
pub fn table(code: u16) -> u64 {
    /// A gate of 64 bits for interrupts, present (Intel SDM vol. 3A, 6.14.1).
    const INTERRUPT_GATE: u64 = 0x8e << 40;
    let mut table = TABLE.lock();
    for (vector, gate) in table.0.chunks_exact_mut(16).take(EXCEPTIONS).enumerate() {
        let entry = if vector == NMI { nmi as *const () } else { exception as *const () } as u64;
        let low = entry & 0xffff | u64::from(code) << 16 | INTERRUPT_GATE | (entry >> 16 & 0xffff) << 48;
        gate[..8].copy_from_slice(&low.to_le_bytes());
        gate[8..].copy_from_slice(&(entry >> 32).to_le_bytes());
    }
    &raw const table.0 as u64
}

/// An NMI: the guest sent it, and it is ignored.
///
/// # Safety
/// Only the gate comes here.
#[unsafe(naked)]
unsafe extern "sysv64" fn nmi() {
    naked_asm!("iretq")
}

/// An exception: a mistake of the hypervisor's.
///
/// # Safety
/// Only the gates come here.
#[unsafe(naked)]
unsafe extern "sysv64" fn exception() {
    naked_asm!("mov rdi, [rsp]", "mov rsi, [rsp + 8]", "and rsp, -16", "call {}", "ud2", sym own_exception)
}

/// With an error code that is the first, and where it happened the second; without, the latter is the first.
extern "sysv64" fn own_exception(first: u64, second: u64) -> ! {
    println!("verdict: FAILED, an exception in the hypervisor: {first:#x}, {second:#x}");
    leave(Ending::Failed)
}

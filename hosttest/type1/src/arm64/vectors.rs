//! Entering the guest, and the exception vectors of EL2, by which it is left.

use core::arch::{asm, global_asm, naked_asm};
use core::mem::offset_of;

use vm_device::exit::arm64::Registers;

use super::host::{Ending, leave};
use super::vcpu::Context;
use super::{barrier, gic};
use crate::println;

/// The general-purpose registers in a context; the others stand in [`Registers`] too.
const X: usize = offset_of!(Context, registers) + offset_of!(Registers, x);
const PC: usize = offset_of!(Context, registers) + offset_of!(Registers, pc);
const SPSR: usize = offset_of!(Context, registers) + offset_of!(Registers, spsr);
const V: usize = offset_of!(Context, vectors);
const FPCR: usize = offset_of!(Context, fpcr);
const FPSR: usize = offset_of!(Context, fpsr);

global_asm!(
    // From the hypervisor itself: there is nothing to go on with.
    ".macro own number",
    ".balign 128",
    "mov x0, #\\number",
    "b {own}",
    ".endm",
    // From the guest: `number` says which of the four vectors.
    ".macro exit number",
    ".balign 128",
    "stp x0, x1, [sp, #-16]!",
    "mov x0, #\\number",
    "b {leave_guest}",
    ".endm",
    ".section .text.vectors, \"ax\", @progbits",
    ".balign 2048",
    ".global hypervisor_vectors",
    "hypervisor_vectors:",
    "own 0; own 1; own 2; own 3; own 4",
    ".balign 128",
    "b {own_interrupt}",
    "own 6; own 7",
    "exit 0; exit 1; exit 2; exit 3; exit 0; exit 1; exit 2; exit 3",
    ".text",
    own = sym own_exception,
    own_interrupt = sym own_interrupt,
    leave_guest = sym leave_guest,
);

/// Swaps the registers with the guest's, and runs it until its next exit. Returns which vector that took: 0 for a synchronous
/// exception, 1 for an interrupt, 2 for a fast one, 3 for an SError.
///
/// # Safety
/// The guest is confined to memory of its own.
#[unsafe(naked)]
pub unsafe extern "C" fn enter(context: *mut Context) -> u64 {
    naked_asm!(
        "stp x29, x30, [sp, #-160]!",
        "stp x19, x20, [sp, #16]; stp x21, x22, [sp, #32]; stp x23, x24, [sp, #48]",
        "stp x25, x26, [sp, #64]; stp x27, x28, [sp, #80]",
        "stp d8, d9, [sp, #96]; stp d10, d11, [sp, #112]; stp d12, d13, [sp, #128]; stp d14, d15, [sp, #144]",
        "msr tpidr_el2, x0",
        "add x1, x0, #{V}",
        "ldp q0, q1, [x1]; ldp q2, q3, [x1, #32]; ldp q4, q5, [x1, #64]; ldp q6, q7, [x1, #96]",
        "ldp q8, q9, [x1, #128]; ldp q10, q11, [x1, #160]; ldp q12, q13, [x1, #192]; ldp q14, q15, [x1, #224]",
        "ldp q16, q17, [x1, #256]; ldp q18, q19, [x1, #288]; ldp q20, q21, [x1, #320]; ldp q22, q23, [x1, #352]",
        "ldp q24, q25, [x1, #384]; ldp q26, q27, [x1, #416]; ldp q28, q29, [x1, #448]; ldp q30, q31, [x1, #480]",
        "ldr x1, [x0, #{FPCR}]; msr fpcr, x1",
        "ldr x1, [x0, #{FPSR}]; msr fpsr, x1",
        "ldr x1, [x0, #{PC}]; msr elr_el2, x1",
        "ldr x1, [x0, #{SPSR}]; msr spsr_el2, x1",
        "add x30, x0, #{X}",
        "ldp x0, x1, [x30]; ldp x2, x3, [x30, #16]; ldp x4, x5, [x30, #32]; ldp x6, x7, [x30, #48]",
        "ldp x8, x9, [x30, #64]; ldp x10, x11, [x30, #80]; ldp x12, x13, [x30, #96]; ldp x14, x15, [x30, #112]",
        "ldp x16, x17, [x30, #128]; ldp x18, x19, [x30, #144]; ldp x20, x21, [x30, #160]; ldp x22, x23, [x30, #176]",
        "ldp x24, x25, [x30, #192]; ldp x26, x27, [x30, #208]; ldp x28, x29, [x30, #224]; ldr x30, [x30, #240]",
        "eret",
        V = const V,
        FPCR = const FPCR,
        FPSR = const FPSR,
        PC = const PC,
        SPSR = const SPSR,
        X = const X,
    )
}

/// The other half of [`enter`], which a vector jumps to with the guest's `x0` and `x1` on the stack.
///
/// # Safety
/// Only the vectors come here.
#[unsafe(naked)]
unsafe extern "C" fn leave_guest() {
    naked_asm!(
        "mrs x1, tpidr_el2",
        "add x1, x1, #{X}",
        "stp x2, x3, [x1, #16]; stp x4, x5, [x1, #32]; stp x6, x7, [x1, #48]",
        "stp x8, x9, [x1, #64]; stp x10, x11, [x1, #80]; stp x12, x13, [x1, #96]; stp x14, x15, [x1, #112]",
        "stp x16, x17, [x1, #128]; stp x18, x19, [x1, #144]; stp x20, x21, [x1, #160]; stp x22, x23, [x1, #176]",
        "stp x24, x25, [x1, #192]; stp x26, x27, [x1, #208]; stp x28, x29, [x1, #224]; str x30, [x1, #240]",
        "ldp x2, x3, [sp], #16",
        "stp x2, x3, [x1]",
        "mrs x1, tpidr_el2",
        "mrs x2, elr_el2; str x2, [x1, #{PC}]",
        "mrs x2, spsr_el2; str x2, [x1, #{SPSR}]",
        "mrs x2, fpcr; str x2, [x1, #{FPCR}]",
        "mrs x2, fpsr; str x2, [x1, #{FPSR}]",
        "add x1, x1, #{V}",
        "stp q0, q1, [x1]; stp q2, q3, [x1, #32]; stp q4, q5, [x1, #64]; stp q6, q7, [x1, #96]",
        "stp q8, q9, [x1, #128]; stp q10, q11, [x1, #160]; stp q12, q13, [x1, #192]; stp q14, q15, [x1, #224]",
        "stp q16, q17, [x1, #256]; stp q18, q19, [x1, #288]; stp q20, q21, [x1, #320]; stp q22, q23, [x1, #352]",
        "stp q24, q25, [x1, #384]; stp q26, q27, [x1, #416]; stp q28, q29, [x1, #448]; stp q30, q31, [x1, #480]",
        "ldp x19, x20, [sp, #16]; ldp x21, x22, [sp, #32]; ldp x23, x24, [sp, #48]",
        "ldp x25, x26, [sp, #64]; ldp x27, x28, [sp, #80]",
        "ldp d8, d9, [sp, #96]; ldp d10, d11, [sp, #112]; ldp d12, d13, [sp, #128]; ldp d14, d15, [sp, #144]",
        "ldp x29, x30, [sp], #160",
        "ret",
        V = const V,
        FPCR = const FPCR,
        FPSR = const FPSR,
        PC = const PC,
        SPSR = const SPSR,
        X = const X,
    )
}

/// An interrupt while the hypervisor's own code ran, which goes on afterwards: a callback of a device as a rule. It keeps every
/// register that Rust code may change.
///
/// # Safety
/// Only the vector comes here.
#[unsafe(naked)]
unsafe extern "C" fn own_interrupt() {
    naked_asm!(
        "sub sp, sp, #544",
        "stp x0, x1, [sp]; stp x2, x3, [sp, #16]; stp x4, x5, [sp, #32]; stp x6, x7, [sp, #48]",
        "stp x8, x9, [sp, #64]; stp x10, x11, [sp, #80]; stp x12, x13, [sp, #96]; stp x14, x15, [sp, #112]",
        "stp x16, x17, [sp, #128]; stp x18, x30, [sp, #144]",
        "stp q0, q1, [sp, #160]; stp q2, q3, [sp, #192]; stp q4, q5, [sp, #224]; stp q6, q7, [sp, #256]",
        "stp q16, q17, [sp, #288]; stp q18, q19, [sp, #320]; stp q20, q21, [sp, #352]; stp q22, q23, [sp, #384]",
        "stp q24, q25, [sp, #416]; stp q26, q27, [sp, #448]; stp q28, q29, [sp, #480]; stp q30, q31, [sp, #512]",
        "bl {interrupted}",
        "ldp q0, q1, [sp, #160]; ldp q2, q3, [sp, #192]; ldp q4, q5, [sp, #224]; ldp q6, q7, [sp, #256]",
        "ldp q16, q17, [sp, #288]; ldp q18, q19, [sp, #320]; ldp q20, q21, [sp, #352]; ldp q22, q23, [sp, #384]",
        "ldp q24, q25, [sp, #416]; ldp q26, q27, [sp, #448]; ldp q28, q29, [sp, #480]; ldp q30, q31, [sp, #512]",
        "ldp x2, x3, [sp, #16]; ldp x4, x5, [sp, #32]; ldp x6, x7, [sp, #48]",
        "ldp x8, x9, [sp, #64]; ldp x10, x11, [sp, #80]; ldp x12, x13, [sp, #96]; ldp x14, x15, [sp, #112]",
        "ldp x16, x17, [sp, #128]; ldp x18, x30, [sp, #144]",
        "ldp x0, x1, [sp]",
        "add sp, sp, #544",
        "eret",
        interrupted = sym interrupted,
    )
}

/// The only interrupt that comes to the hypervisor is another processor's.
extern "C" fn interrupted() {
    let number = gic::acknowledge();
    if number == gic::BARRIER {
        barrier::interrupted();
    }
    gic::end(number);
}

/// The hypervisor's own code caused an exception: a mistake of its own.
extern "C" fn own_exception(vector: u64) -> ! {
    let (esr, elr, far): (u64, u64, u64);
    // SAFETY: reading the registers touches no memory.
    unsafe {
        asm!("mrs {}, esr_el2", "mrs {}, elr_el2", "mrs {}, far_el2", out(reg) esr, out(reg) elr, out(reg) far,
            options(nomem, nostack));
    }
    println!("verdict: FAILED, exception {vector} in the hypervisor: syndrome {esr:#x}, at {elr:#x}, address {far:#x}");
    leave(Ending::Failed)
}

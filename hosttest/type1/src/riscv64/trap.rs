//! Entering the guest, and the trap vector of HS-mode, by which it is left.

use core::arch::{asm, global_asm, naked_asm};
use core::mem::offset_of;

use vm_device::exit::riscv64::Registers;

use super::host::{Ending, leave};
use super::vcpu::Context;
use crate::println;

const X: usize = offset_of!(Context, registers) + offset_of!(Registers, x);
const PC: usize = offset_of!(Context, registers) + offset_of!(Registers, pc);
const F: usize = offset_of!(Context, floats);
const FCSR: usize = offset_of!(Context, fcsr);
const HOST: usize = offset_of!(Context, host_stack);

/// An instruction for each of the registers `x1` to `x31` but `a0`, which has the address of the context.
macro_rules! each_register {
    ($instruction:literal) => {
        concat!(
            ".irp number, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n",
            $instruction,
            " x\\number, {X} + 8 * \\number(a0)\n",
            ".endr"
        )
    };
}

/// An instruction for each of the registers `f0` to `f31`.
macro_rules! each_float {
    ($instruction:literal) => {
        concat!(
            ".irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n",
            $instruction,
            " f\\number, {F} + 8 * \\number(a0)\n",
            ".endr"
        )
    };
}

/// An instruction for each register that a function keeps, on the stack.
macro_rules! each_kept {
    ($integer:literal, $float:literal) => {
        concat!(
            $integer,
            " ra, 0(sp)\n",
            $integer,
            " gp, 8(sp)\n",
            $integer,
            " tp, 16(sp)\n",
            ".irp number, 0,1,2,3,4,5,6,7,8,9,10,11\n",
            $integer,
            " s\\number, 24 + 8 * \\number(sp)\n",
            $float,
            " fs\\number, 120 + 8 * \\number(sp)\n",
            ".endr"
        )
    };
}

/// Swaps the registers with the guest's, and runs it until its next exit.
///
/// # Safety
/// The guest is confined to memory of its own.
#[unsafe(naked)]
pub unsafe extern "C" fn enter(context: *mut Context) {
    naked_asm!(
        ".option push",
        ".option arch, +d",
        "addi sp, sp, -224",
        each_kept!("sd", "fsd"),
        "sd sp, {HOST}(a0)",
        "csrw sscratch, a0",
        "lla t0, leave_guest",
        "csrw stvec, t0",
        "ld t0, {PC}(a0)",
        "csrw sepc, t0",
        each_float!("fld"),
        "ld t0, {FCSR}(a0)",
        "csrw fcsr, t0",
        each_register!("ld"),
        "ld a0, {X} + 80(a0)",
        "sret",
        ".option pop",
        X = const X,
        PC = const PC,
        F = const F,
        FCSR = const FCSR,
        HOST = const HOST,
    )
}

global_asm!(
    // The other half of `enter`, and the trap vector while the guest runs.
    ".text",
    ".option push",
    ".option arch, +d",
    ".balign 4",
    "leave_guest:",
    "csrrw a0, sscratch, a0",
    each_register!("sd"),
    "csrr t0, sscratch",
    "sd t0, {X} + 80(a0)",
    "csrr t0, sepc",
    "sd t0, {PC}(a0)",
    each_float!("fsd"),
    "csrr t0, fcsr",
    "sd t0, {FCSR}(a0)",
    "lla t0, own_trap",
    "csrw stvec, t0",
    "ld sp, {HOST}(a0)",
    each_kept!("ld", "fld"),
    "addi sp, sp, 224",
    "ret",
    // The trap vector while the hypervisor runs: there is nothing to go on with.
    ".global own_trap",
    ".balign 4",
    "own_trap: j {own_exception}",
    ".option pop",
    X = const X,
    PC = const PC,
    F = const F,
    FCSR = const FCSR,
    HOST = const HOST,
    own_exception = sym own_exception,
);

/// The hypervisor's own code caused an exception: a mistake of its own.
extern "C" fn own_exception() -> ! {
    let (cause, pc, value): (u64, u64, u64);
    // SAFETY: reading the registers touches no memory.
    unsafe {
        asm!("csrr {}, scause", "csrr {}, sepc", "csrr {}, stval", out(reg) cause, out(reg) pc, out(reg) value,
            options(nomem, nostack));
    }
    println!("verdict: FAILED, exception {cause} in the hypervisor: at {pc:#x}, value {value:#x}");
    leave(Ending::Failed)
}

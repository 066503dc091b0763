//! From the loader to Rust: the entry point, which is entered in M-mode, and the way to HS-mode.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::device_tree::bootargs;

global_asm!(
    ".section .boot, \"ax\", @progbits",
    ".option push",
    ".option arch, +h",
    ".global boot_start",
    "boot_start:",
    "csrw mie, zero",
    "lla t0, own_trap",
    "csrw stvec, t0",
    // The first hart alone.
    "csrr t0, mhartid",
    "bnez t0, 2f",
    "lla t0, 3f",
    "csrw mtvec, t0",
    "lla sp, boot_stack_top",
    // HS-mode may access all of the memory (PMP): one range, from 0 to the last address.
    "li t0, -1",
    "csrw pmpaddr0, t0",
    "li t0, 0x1f",
    "csrw pmpcfg0, t0",
    // It has all exceptions and interrupts, the counters, and a timer of its own (STCE of `menvcfg`).
    "li t0, -1",
    "csrw medeleg, t0",
    "csrw mideleg, t0",
    "csrw mcounteren, t0",
    "li t0, 1 << 63",
    "csrw 0x30a, t0",
    "csrr a0, misa",
    // MPP: to S-mode, with floating point (FS) in use.
    "li t0, 0x7880",
    "csrc mstatus, t0",
    "li t0, 0x6800",
    "csrs mstatus, t0",
    "lla t0, {start}",
    "csrw mepc, t0",
    "mret",
    "2: wfi",
    "j 2b",
    // An exception in M-mode: there is nothing to go on with. The machine ends with the exit code 2.
    ".balign 4",
    "3: li t0, 0x100000",
    "li t1, 0x23333",
    "sw t1, (t0)",
    "j 2b",
    ".option pop",
    ".section .bss.boot, \"aw\", @nobits",
    ".balign 4096",
    ".skip 65536",
    "boot_stack_top:",
    ".text",
    start = sym start,
);

/// What the loader tells.
pub struct Loaded {
    /// The image's command line.
    pub command_line: &'static str,
}

/// `misa`: which extensions the processor has. Only M-mode can read it.
static EXTENSIONS: AtomicU64 = AtomicU64::new(0);

/// Whether the processor has the hypervisor extension.
pub fn has_hypervisor_extension() -> bool {
    EXTENSIONS.load(Ordering::Relaxed) & 1 << (b'H' - b'A') != 0
}

extern "C" fn start(extensions: u64, tree: usize) -> ! {
    EXTENSIONS.store(extensions, Ordering::Relaxed);
    // SAFETY: the loader has put the machine's device tree there, which the guest has no part of.
    let command_line = unsafe { bootargs(tree) }.unwrap_or_default();
    crate::start(Loaded { command_line })
}

//! From the loader to Rust: the entry point, which is entered at EL2 without translation, and the way to caches and vectors.

use core::arch::global_asm;

use super::processors;
use crate::device_tree::bootargs;

global_asm!(
    ".section .boot, \"ax\", @progbits",
    ".global boot_start",
    "boot_start:",
    "adrp x19, boot_stack_top",
    "adr x20, 1f",
    "b 2f",
    "1: bl {start}",
    // The second processor, by `CPU_ON` of the machine's firmware.
    ".global boot_second",
    "boot_second:",
    "adrp x19, boot_second_stack_top",
    "adr x20, 1f",
    "b 2f",
    "1: bl {second}",
    "2: msr daifset, #0xf",
    "mov sp, x19",
    // The hypervisor's own code uses the vector registers: no trap of them (CPTR_EL2; its RES1 bits).
    "mov x0, #0x33ff",
    "msr cptr_el2, x0",
    "adrp x0, hypervisor_vectors",
    "add x0, x0, :lo12:hypervisor_vectors",
    "msr vbar_el2, x0",
    // Attribute 0: memory, cached. Attribute 1: devices, nGnRE.
    "mov x0, #0x04ff",
    "msr mair_el2, x0",
    // Addresses of 39 bits in pages of 4 KiB (T0SZ 25), tables in cached memory, physical addresses of 40 bits; RES1.
    "movz x0, #0x3519",
    "movk x0, #0x8082, lsl #16",
    "msr tcr_el2, x0",
    "adrp x0, boot_table",
    "msr ttbr0_el2, x0",
    "dsb sy",
    "tlbi alle2",
    "dsb sy",
    "isb",
    // M, C, I; RES1.
    "movz x0, #0x1835",
    "movk x0, #0x30c5, lsl #16",
    "msr sctlr_el2, x0",
    "isb",
    "mov x29, xzr",
    "mov x30, xzr",
    "br x20",
    // The first GiB are devices, the second is memory, each mapped to itself.
    ".section .data.boot, \"aw\", @progbits",
    ".balign 4096",
    "boot_table: .quad 0x0040000000000445, 0x40000741",
    ".fill 510, 8, 0",
    ".section .bss.boot, \"aw\", @nobits",
    ".balign 4096",
    ".skip 65536",
    "boot_stack_top:",
    ".skip 65536",
    "boot_second_stack_top:",
    ".text",
    start = sym start,
    second = sym second,
);

/// What the loader tells.
pub struct Loaded {
    /// The image's command line.
    pub command_line: &'static str,
}

extern "C" fn start() -> ! {
    /// Where QEMU puts the machine's device tree: at the start of its memory.
    const TREE: usize = 0x4000_0000;
    // SAFETY: there is memory, which the guest has no part of.
    let command_line = unsafe { bootargs(TREE) }.unwrap_or_default();
    crate::start(Loaded { command_line })
}

extern "C" fn second() -> ! {
    processors::second()
}

/// Where the second processor begins.
pub fn second_entry() -> u64 {
    unsafe extern "C" {
        static boot_second: u8;
    }
    &raw const boot_second as u64
}

//! The small guest: a program at EL1, with page tables of its own.
//!
//! Devices are mapped at their addresses. The scratch device is mapped a second time, in pages of Normal memory between pages of
//! memory, where accesses may lie across two pages; and the last page there is one that no device has.

use core::arch::global_asm;

use vm_device::Gsi;

use crate::devices::FRAME;
use crate::small::DONE;

/// Where the guest's memory is, and where it begins to run.
pub const MEMORY: u64 = 0x4000_0000;
/// What it sends to the emulated UART.
pub const TEXT: &str = "EL1; done\n";
/// The line that the bell drives.
pub const BELL_LINE: Gsi = Gsi(37);

/// The emulated UART.
pub const UART: u64 = 0x0900_0000;
/// The number of the check that is made.
pub const POST: u64 = 0x0a00_0000;
/// A write asserts the interrupt line, a read takes it back.
pub const BELL: u64 = 0x0a00_1000;
/// A write removes the scratch device and the frame buffer.
pub const EJECT: u64 = 0x0a00_2000;
/// The scratch device: a page of registers.
pub const SCRATCH: u64 = 0x0b00_0000;
/// The frame buffer: memory.
pub const FRAME_BUFFER: u64 = 0x0c00_0000;

/// Where no device is.
const NOTHING: u64 = 0x0d00_0000;
/// Pages of memory beside the scratch device's.
const PAGES: u64 = MEMORY + 0x1_0000;

/// The virtual addresses of the pages: memory, scratch, memory, scratch, none, scratch, nothing.
const WINDOW: u64 = 0x8000_0000;
/// A virtual address whose page table is where no device is.
const LOST: u64 = 0xc000_0000;

global_asm!(
    // The number of the check that follows.
    ".macro post code",
    "mov w27, #\\code",
    "strb w27, [x28]",
    ".endm",
    // A register has this value.
    ".macro expect register, value",
    "ldr x26, =\\value",
    "cmp \\register, x26",
    "b.ne guest_fail",
    ".endm",
    // An exception of this class (and status, if it is an abort) is next, and the guest goes on here.
    ".macro expected register, mask, value",
    "ldr x25, =\\mask",
    "and x25, \\register, x25",
    "expect x25, \\value",
    ".endm",
    ".section .guest, \"ax\", @progbits",
    "guest_start:",
    "adrp x0, guest_stack",
    "mov sp, x0",
    "adrp x0, guest_vectors",
    "add x0, x0, :lo12:guest_vectors",
    "msr vbar_el1, x0",
    "mov x0, #3 << 20", // Vector registers.
    "msr cpacr_el1, x0",
    // Attribute 0: memory, cached; 1: devices; 2: memory, not cached.
    "ldr x0, =0x4404ff",
    "msr mair_el1, x0",
    "ldr x0, =0x200803519", // TCR_EL1: 39 bits, 4 KiB, no second table (EPD1), physical addresses of 40 bits.
    "msr tcr_el1, x0",
    "adrp x0, guest_level_1",
    "msr ttbr0_el1, x0",
    "dsb sy",
    "isb",
    "mrs x0, sctlr_el1",
    "mov x1, #0x1005", // M, C, I
    "orr x0, x0, x1",
    "msr sctlr_el1, x0",
    "isb",
    "ldr x28, ={POST}",
    //
    "post 0x10", // A text to the UART: each byte by a store with writeback.
    "ldr x1, ={UART}",
    "adr x2, guest_text",
    "bl guest_print",
    //
    "post 0x11", // All sizes and signs.
    "ldr x1, ={SCRATCH}",
    "ldr x2, =0x8182838485868788",
    "str x2, [x1]",
    "ldr x3, [x1]",
    "expect x3, 0x8182838485868788",
    "ldrb w3, [x1]",
    "expect x3, 0x88",
    "ldrsb w3, [x1, #1]",
    "expect x3, 0xffffff87",
    "ldrsb x3, [x1, #1]",
    "expect x3, 0xffffffffffffff87",
    "ldrh w3, [x1, #2]",
    "expect x3, 0x8586",
    "ldrsh w3, [x1, #2]",
    "expect x3, 0xffff8586",
    "ldrsh x3, [x1, #2]",
    "expect x3, 0xffffffffffff8586",
    "ldr w3, [x1, #4]",
    "expect x3, 0x81828384",
    "ldrsw x3, [x1, #4]",
    "expect x3, 0xffffffff81828384",
    "strb w2, [x1, #8]",
    "strh w2, [x1, #10]",
    "str w2, [x1, #12]",
    "strb wzr, [x1, #9]",
    "ldr x3, [x1, #8]",
    "expect x3, 0x8586878887880088",
    "ldr wzr, [x1]",
    "ldar w3, [x1]",
    "expect x3, 0x85868788",
    "add x4, x1, #16",
    "stlr x2, [x4]",
    "ldur x3, [x1, #16]",
    "expect x3, 0x8182838485868788",
    "mov w5, #-2",
    "ldr w3, [x4, w5, sxtw #2]",
    "expect x3, 0x87880088",
    //
    "post 0x12", // Writeback.
    "mov x4, x1",
    "str w2, [x4], #4",
    "strh wzr, [x4], #2",
    "strb wzr, [x4, #1]!",
    "ldr x5, ={SCRATCH} + 7",
    "cmp x4, x5",
    "b.ne guest_fail",
    "ldr x3, [x4, #-7]!",
    "expect x3, 0x0082000085868788",
    "cmp x4, x1",
    "b.ne guest_fail",
    "ldrsh x4, [x1], #8", // Of the base counts what is loaded only where it is the base.
    "expect x4, 0xffffffffffff8788",
    "sub x1, x1, #8",
    //
    "post 0x13", // Pairs.
    "mov x5, #0x55",
    "stp x2, x5, [x1, #32]",
    "ldp x3, x4, [x1, #32]",
    "expect x3, 0x8182838485868788",
    "expect x4, 0x55",
    "ldpsw x3, x4, [x1, #32]",
    "expect x3, 0xffffffff85868788",
    "expect x4, 0xffffffff81828384",
    "mov x6, x1",
    "stp w5, w2, [x6, #48]!",
    "ldp w3, w4, [x6], #-48",
    "expect x3, 0x55",
    "expect x4, 0x85868788",
    "cmp x6, x1",
    "b.ne guest_fail",
    "ldnp x3, x4, [x1, #32]",
    "expect x4, 0x55",
    //
    "post 0x14", // Vector registers of 16 to 1 bytes.
    "fmov d0, x2",
    "fmov v0.d[1], x5",
    "stp q0, q0, [x1, #64]",
    "ldr q1, [x1, #80]",
    "fmov x3, d1",
    "fmov x4, v1.d[1]",
    "expect x3, 0x8182838485868788",
    "expect x4, 0x55",
    "ldr s1, [x1, #64]",
    "fmov x3, d1",
    "fmov x4, v1.d[1]",
    "expect x3, 0x85868788",
    "expect x4, 0",
    "ldr b1, [x1, #64]",
    "fmov x3, d1",
    "expect x3, 0x88",
    "str h0, [x1, #64]!",
    "ldp d1, d2, [x1], #-64",
    "fmov x4, d2",
    "expect x4, 0x55",
    //
    "post 0x15", // Across two pages: memory and a device, either way, at each place.
    "ldr x7, ={WINDOW} + 0xff8",
    "bl guest_cross",
    "post 0x16",
    "ldr x7, ={WINDOW} + 0x1ff8",
    "bl guest_cross",
    "post 0x17", // What is before the second page is in the first: no byte more was written.
    "ldr x1, ={WINDOW} + 0xff8",
    "mov x2, #-1",
    "stp x2, x2, [x1]",
    "ldr x3, =0x1122334455667788",
    "str x3, [x1, #3]",
    "ldp x3, x4, [x1]",
    "expect x3, 0x4455667788ffffff",
    "expect x4, 0xffffffffff112233",
    "post 0x18", // Each register of a pair at its own place.
    "ldr x2, =0x1122334455667788",
    "mov x5, #0x55",
    "stp x2, x5, [x1, #-8]",
    "ldr x1, ={WINDOW} + 0xff4",
    "stp x2, x5, [x1]",
    "ldp x3, x4, [x1]",
    "expect x3, 0x1122334455667788",
    "expect x4, 0x55",
    "fmov d0, x2",
    "fmov v0.d[1], x5",
    "str q0, [x1, #3]",
    "ldr q1, [x1, #3]",
    "fmov x3, d1",
    "fmov x4, v1.d[1]",
    "expect x3, 0x1122334455667788",
    "expect x4, 0x55",
    "post 0x19", // The second page is not mapped: the guest has the fault, and nothing was written.
    "ldr x1, ={WINDOW} + 0x3ff8",
    "str xzr, [x1]",
    "mov x7, x1",
    "adr x24, 1f",
    "str x2, [x7, #4]!",
    "b guest_fail",
    "1: expected x22, 0xfe00007f, 0x96000047", // A data abort of the same level, a translation fault of level 3.
    "ldr x3, ={WINDOW} + 0x4000",
    "cmp x23, x3",
    "b.ne guest_fail",
    "cmp x7, x1",
    "b.ne guest_fail",
    "ldr x3, [x1]",
    "cbnz x3, guest_fail",
    //
    "post 0x1a", // Where no device is: all ones, and across the end of a device too.
    "ldr x1, ={WINDOW} + 0x6000",
    "ldr x3, [x1]",
    "expect x3, -1",
    "ldrb w3, [x1]",
    "expect x3, 0xff",
    "str xzr, [x1], #8",
    "ldr x1, ={WINDOW} + 0x5ffc",
    "str x2, [x1]",
    "ldr x3, [x1]",
    "expect x3, 0xffffffff55667788",
    //
    "post 0x1b", // Each register by itself, and no other: loaded, kept at an exit, stored.
    "ldr x1, ={SCRATCH}",
    ".irp number, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 29, 30",
    "mov w\\number, #0x100 + \\number",
    ".endr",
    ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
    "mov w26, #0x80 + \\number",
    "strb w26, [x1, #\\number]",
    "movi v\\number\\().2d, #0xffffffffffffffff",
    ".endr",
    ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
    "ldr b\\number, [x1, #\\number]",
    ".endr",
    "cmp xzr, xzr",
    "str b31, [x1, #32]!",
    "b.ne guest_fail", // Nor the flags.
    ".irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
    "fmov x26, d\\number",
    "cmp x26, #0x80 + \\number",
    "b.ne guest_fail",
    "fmov x26, v\\number\\().d[1]",
    "cbnz x26, guest_fail",
    ".endr",
    ".irp number, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 29, 30",
    "cmp x\\number, #0x100 + \\number",
    "b.ne guest_fail",
    "strh w\\number, [x1], #-2",
    "ldrb w\\number, [x1, #3]!",
    "cmp x\\number, #1",
    "b.ne guest_fail",
    "sub x1, x1, #1",
    ".endr",
    "adrp x2, guest_stack",
    "cmp sp, x2",
    "b.ne guest_fail",
    "mov sp, x1",
    "ldrh w3, [sp], #16",
    "cmp w3, #0x100 + 30",
    "b.ne guest_fail",
    "add x1, x1, #16",
    "cmp sp, x1",
    "b.ne guest_fail",
    //
    "post 0x20", // An interrupt: at once, then held back until interrupts are enabled.
    "msr icc_pmr_el1, x2",
    "mov x0, #0xff",
    "msr icc_pmr_el1, x0",
    "mov x0, #1",
    "msr icc_igrpen1_el1, x0",
    "isb",
    "ldr x1, ={BELL}",
    "mov x21, xzr",
    "msr daifclr, #2",
    "strb wzr, [x1]",
    "isb",
    "cmp x21, #1",
    "b.ne guest_fail",
    "msr daifset, #2",
    "strb wzr, [x1]",
    "isb",
    "cmp x21, #1",
    "b.ne guest_fail",
    "wfi",
    "msr daifclr, #2",
    "isb",
    "msr daifset, #2",
    "cmp x21, #2",
    "b.ne guest_fail",
    //
    "post 0x21", // The frame buffer is memory.
    "ldr x1, ={FRAME_BUFFER}",
    "ldr w2, ={FRAME}",
    "mov x3, #1024",
    "2: str w2, [x1], #4",
    "sub x3, x3, #1",
    "cbnz x3, 2b",
    "dsb sy",
    "ldr w3, [x1, #-4]",
    "cmp w3, w2",
    "b.ne guest_fail",
    //
    "post 0x22", // A device that is gone reads all ones, as MMIO and as memory, and takes writes.
    "ldr x1, ={EJECT}",
    "strb wzr, [x1]",
    "ldr x1, ={SCRATCH}",
    "str xzr, [x1]",
    "ldp x3, x4, [x1], #16",
    "expect x3, -1",
    "expect x4, -1",
    "ldr x1, ={FRAME_BUFFER}",
    "ldr x3, [x1]",
    "expect x3, -1",
    //
    "post 0x30", // Calls that nobody knows.
    "ldr x0, =0xc5001234",
    "hvc #0",
    "expect x0, -1",
    "ldr x0, =0xc5001234",
    "smc #0",
    "expect x0, -1",
    "ldr x0, =0x84000000",
    "hvc #0",
    "expect x0, 0x10001",
    "post 0x31", // A register that the guest does not have: an undefined instruction.
    "adr x24, 1f",
    "mrs x0, actlr_el1",
    "b guest_fail",
    "1: expected x22, 0xfe000000, 0x02000000",
    "post 0x32", // Instructions from a device: an external abort.
    "adr x24, 1f",
    "ldr x1, ={WINDOW} + 0x6000",
    "br x1",
    "1: expected x22, 0xfe00007f, 0x86000010",
    "cmp x23, x1",
    "b.ne guest_fail",
    "post 0x33", // Page tables in a device: an external abort of the walk.
    "adr x24, 1f",
    "ldr x1, ={LOST}",
    "ldr x3, [x1]",
    "b guest_fail",
    "1: expected x22, 0xfe00007f, 0x96000010",
    "cmp x23, x1",
    "b.ne guest_fail",
    //
    "ldr x1, ={UART}",
    "adr x2, guest_end_text",
    "bl guest_print",
    "post {DONE}",
    "guest_fail:",
    "ldr x0, =0x84000008", // SYSTEM_OFF
    "hvc #0",
    "b guest_fail",
    //
    // Stores and loads 8 bytes at x7 and at the 7 places that follow, and 4 and 2 bytes too.
    "guest_cross:",
    "mov x8, #8",
    "ldr x2, =0x1122334455667788",
    "1: mvn x2, x2",
    "str x2, [x7]",
    "ldr x3, [x7]",
    "cmp x2, x3",
    "b.ne guest_fail",
    "ror x2, x2, #8",
    "str w2, [x7]",
    "ldr w3, [x7]",
    "cmp w2, w3",
    "b.ne guest_fail",
    "ror x2, x2, #8",
    "strh w2, [x7]",
    "ldrh w3, [x7], #1",
    "and w4, w2, #0xffff",
    "cmp w3, w4",
    "b.ne guest_fail",
    "sub x8, x8, #1",
    "cbnz x8, 1b",
    "ret",
    //
    // Sends the text at x2 to the UART at x1, when its FIFO has room.
    "guest_print:",
    "ldrb w3, [x2], #1",
    "cbz w3, 2f",
    "1: ldr w4, [x1, #0x18]",
    "tbnz w4, #5, 1b",
    "strb w3, [x1]",
    "b guest_print",
    "2: ret",
    "guest_text: .asciz \"EL1; \"",
    "guest_end_text: .asciz \"done\\n\"",
    ".balign 4",
    ".ltorg",
    //
    ".balign 2048",
    "guest_vectors:",
    ".fill 128, 4, 0x14000000", // b .
    // From EL1 with its own stack pointer: a synchronous exception that is expected, then an interrupt.
    ".org guest_vectors + 0x200",
    "cbz x24, guest_fail",
    "mrs x22, esr_el1",
    "mrs x23, far_el1",
    "msr elr_el1, x24",
    "mov x24, xzr",
    "eret",
    ".org guest_vectors + 0x280",
    "mrs x20, icc_iar1_el1",
    "cmp x20, #{BELL_LINE}",
    "b.ne guest_fail",
    "ldr x19, ={BELL}",
    "ldrb w18, [x19]",
    "msr icc_eoir1_el1, x20",
    "add x21, x21, #1",
    "eret",
    ".ltorg",
    ".org guest_vectors + 0x800",
    //
    // Page tables: of 1 GiB each, then of the window's pages.
    ".balign 4096",
    "guest_level_1:",
    ".quad 0x0000000000000405", // Devices, each at its own address.
    ".quad 0x40000701",         // Memory, likewise.
    ".quad guest_level_2 + 3",
    ".quad {NOTHING} + 3",
    ".fill 508, 8, 0",
    "guest_level_2:",
    ".quad guest_level_3 + 3",
    ".fill 511, 8, 0",
    "guest_level_3:",
    ".quad {PAGES} + 0x70b, {SCRATCH} + 0x70b, {PAGES} + 0x170b, {SCRATCH} + 0x70b, 0",
    ".quad {SCRATCH} + 0x70b, {NOTHING} + 0x70b",
    ".fill 505, 8, 0",
    ".balign 4096",
    ".skip 4096",
    "guest_stack:",
    ".quad 0",
    ".text",
    UART = const UART,
    POST = const POST,
    BELL = const BELL,
    BELL_LINE = const BELL_LINE.0,
    EJECT = const EJECT,
    SCRATCH = const SCRATCH,
    FRAME_BUFFER = const FRAME_BUFFER,
    FRAME = const FRAME,
    NOTHING = const NOTHING,
    PAGES = const PAGES,
    WINDOW = const WINDOW,
    LOST = const LOST,
    DONE = const DONE,
);

//! The small guest: a program in VS-mode, with page tables of its own.
//!
//! Devices are mapped at their addresses. The scratch device is mapped a second time, in pages between pages of memory, where
//! accesses may lie across two pages; and the last page there is one that no device has.

use core::arch::global_asm;

use vm_device::Gsi;

use crate::devices::FRAME;
use crate::small::DONE;

/// Where the guest's memory is, and where it begins to run.
pub const MEMORY: u64 = 0x4000_0000;
/// What it sends to the emulated UART.
pub const TEXT: &str = "VS; done\n";
/// The line that the bell drives.
pub const BELL_LINE: Gsi = Gsi(1);

/// The emulated UART.
pub const UART: u64 = 0x1000_0000;
/// The number of the check that is made.
pub const POST: u64 = 0x1100_0000;
/// A write asserts the interrupt line, a read takes it back.
pub const BELL: u64 = 0x1100_1000;
/// A write removes the scratch device and the frame buffer.
pub const EJECT: u64 = 0x1100_2000;
/// The scratch device: a page of registers.
pub const SCRATCH: u64 = 0x1200_0000;
/// The frame buffer: memory, where the root of the nested tables is more than one table.
pub const FRAME_BUFFER: u64 = 0x80_1300_0000;

/// Where no device is.
const NOTHING: u64 = 0x1400_0000;
/// The page tables.
const TABLES: u64 = MEMORY + 0x8000;
/// Pages of memory beside the scratch device's.
const PAGES: u64 = MEMORY + 0x1_0000;

/// The virtual addresses of the pages: memory, scratch, memory, scratch, none, scratch, nothing, and for a
/// program of the guest's, memory and scratch.
const WINDOW: u64 = 0x8000_0000;
/// The virtual address of the frame buffer.
const FRAME_WINDOW: u64 = WINDOW + 0x40_0000;
/// A virtual address whose page table is where no device is.
const LOST: u64 = 0xc000_0000;

/// An entry of a page table: for a page of memory that may be read, written and fetched, of a device that may be read and written, or
/// for another table.
const fn entry(address: u64, flags: u64) -> u64 {
    address >> 2 | flags
}
const TABLE: u64 = 1;
const MEMORY_PAGE: u64 = 0xcf;
const DEVICE_PAGE: u64 = 0xc7;
const USER_PAGE: u64 = 0xdf;
/// It may be fetched from, so that the second stage refuses it.
const FETCHED_PAGE: u64 = 0xcf;

global_asm!(
    // The number of the check that follows.
    ".macro post code",
    "li t6, \\code",
    "sb t6, (s11)",
    ".endm",
    // A register has this value.
    ".macro expect register, value",
    "li t6, \\value",
    "beq \\register, t6, .Lheld\\@",
    "j guest_fail",
    ".Lheld\\@:",
    ".endm",
    // The exception that was caught has this cause, and this value of `stval`.
    ".macro expect_trap cause, value",
    "expect s9, \\cause",
    "expect s8, \\value",
    ".endm",
    ".section .guest, \"ax\", @progbits",
    ".option push",
    ".option arch, +a, +d, +c",
    ".option norvc",
    ".option norelax",
    "guest_start:",
    "lla sp, guest_stack",
    "lla t0, guest_trap",
    "csrw stvec, t0",
    "li t0, 0x2000", // Floating point.
    "csrs sstatus, t0",
    "lla t0, guest_level_2",
    "srli t0, t0, 12",
    "li t1, 8 << 60", // Sv39
    "or t0, t0, t1",
    "csrw satp, t0",
    "sfence.vma",
    "li s11, {POST}",
    "li s10, 0",
    //
    "post 0x10", // A text to the UART.
    "li a1, {UART}",
    "lla a2, guest_text",
    "call guest_print",
    //
    "post 0x11", // All sizes and signs. The instruction is told or decoded, in turns: all twice, and the second time the other way.
    "call guest_sizes",
    "lb zero, (s11)",
    "post 0x12",
    "call guest_sizes",
    "call guest_compressed",
    "lb zero, (s11)",
    "call guest_compressed",
    //
    "post 0x13", // Across two pages: memory and a device, either way, at each place.
    "li a1, {WINDOW} + 0xff8",
    "call guest_cross",
    "post 0x14",
    "li a1, {WINDOW} + 0x1ff8",
    "call guest_cross",
    "post 0x15", // What is before the second page is in the first: no byte more was written.
    "li a1, {WINDOW} + 0xff8",
    "li a2, -1",
    "sd a2, (a1)",
    "sd a2, 8(a1)",
    "li a2, 0x1122334455667788",
    "sd a2, 3(a1)",
    "ld a3, (a1)",
    "expect a3, 0x4455667788ffffff",
    "ld a3, 8(a1)",
    "expect a3, 0xffffffffff112233",
    "post 0x16", // The second page is not mapped: the guest has the fault, and nothing was written.
    "li a1, {WINDOW} + 0x3ff8",
    "sd zero, (a1)",
    "lla s10, 9f",
    "sd a2, 4(a1)",
    "j guest_fail",
    "9: expect_trap 15, {WINDOW} + 0x4000",
    "ld a3, (a1)",
    "bnez a3, guest_fail",
    "lla s10, 9f",
    "li a3, 0x55",
    "ld a3, 4(a1)",
    "j guest_fail",
    "9: expect_trap 13, {WINDOW} + 0x4000",
    "expect a3, 0x55",
    "post 0x17", // It is a program's: the kernel reaches it only if it wants to. Once by each way.
    "li a1, {WINDOW} + 0x6ffc",
    "call guest_users",
    "lb zero, (s11)",
    "call guest_users",
    //
    "post 0x18", // Where no device is: all ones, and across the end of a device too.
    "li a1, {WINDOW} + 0x6000",
    "ld a3, (a1)",
    "expect a3, -1",
    "lbu a3, (a1)",
    "expect a3, 0xff",
    "sd zero, (a1)",
    "li a1, {WINDOW} + 0x5ffc",
    "li a2, 0x1122334455667788",
    "sd a2, (a1)",
    "ld a3, (a1)",
    "expect a3, 0xffffffff55667788",
    //
    "post 0x19", // Each register by itself, and no other: stored, loaded, kept at an exit.
    "call guest_registers",
    "lb zero, (s11)",
    "call guest_registers",
    //
    "post 0x1a", // What is not executed: atomic operations and floating point in a device. The guest has an access fault.
    "li a1, {SCRATCH}",
    "lla s10, 9f",
    "amoadd.w a3, a2, (a1)",
    "j guest_fail",
    "9: ori s9, s9, 2", // Some processors read it first.
    "expect_trap 7, {SCRATCH}",
    "lla s10, 9f",
    "fld fa0, (a1)",
    "j guest_fail",
    "9: expect_trap 5, {SCRATCH}",
    "lla s10, 9f",
    "lr.w a3, (a1)",
    "j guest_fail",
    "9: expect_trap 5, {SCRATCH}",
    "lla a4, guest_word", // In memory they are.
    "amoadd.w a3, s11, (a4)",
    "lw a3, (a4)",
    "bne a3, s11, guest_fail",
    //
    "post 0x1b", // A program of the guest's, in its own page, with a device of its own.
    "li t0, 1 << 18", // SUM
    "csrs sstatus, t0",
    "li a1, {WINDOW} + 0x7000",
    "lla a2, guest_program",
    "ld a3, (a2)",
    "sd a3, (a1)",
    "ld a3, 8(a2)",
    "sd a3, 8(a1)",
    "fence.i",
    "csrc sstatus, t0",
    "li a2, 0x1122334455667788",
    "li a3, 0",
    "li a4, {WINDOW} + 0x8000",
    "li t0, 0x100", // SPP
    "csrc sstatus, t0",
    "csrw sepc, a1",
    "lla s10, 9f",
    "sret",
    "9: expect s9, 8",
    "expect a3, 0x11223344",
    "lla s10, 9f", // The kernel does not reach the device as long as it does not want to.
    "sd a2, (a4)",
    "j guest_fail",
    "9: expect_trap 15, {WINDOW} + 0x8000",
    //
    "post 0x20", // An interrupt: at once, then held back until interrupts are enabled.
    "li a1, {BELL}",
    "li s7, 0",
    "li t0, 0x222",
    "csrw sie, t0",
    "csrsi sstatus, 2",
    "sb zero, (a1)",
    "nop",
    "expect s7, 1",
    "csrci sstatus, 2",
    "sb zero, (a1)",
    "nop",
    "expect s7, 1",
    "wfi",
    "csrsi sstatus, 2",
    "nop",
    "csrci sstatus, 2",
    "expect s7, 2",
    "post 0x21", // Those of the timer, and by software.
    "li s6, 0",
    "csrr a0, time",
    "li t0, 20000",
    "add a0, a0, t0",
    "mv s4, a0",
    "call guest_set_timer",
    "expect a0, 0",
    "csrsi sstatus, 2",
    "1: wfi",
    "beqz s6, 1b",
    "csrr a0, time",
    "bltu a0, s4, guest_fail",
    "expect s6, 1",
    "li s5, 0",
    "csrsi sip, 2",
    "nop",
    "expect s5, 1",
    "csrci sstatus, 2",
    //
    "post 0x22", // The frame buffer is memory.
    "li a1, {FRAME_WINDOW}",
    "li a2, {FRAME}",
    "li a3, 1024",
    "2: sw a2, (a1)",
    "addi a1, a1, 4",
    "addi a3, a3, -1",
    "bnez a3, 2b",
    "lw a3, -4(a1)",
    "bne a3, a2, guest_fail",
    //
    "post 0x23", // A device that is gone reads all ones, as MMIO and as memory, and takes writes.
    "li a1, {EJECT}",
    "sb zero, (a1)",
    "li a1, {SCRATCH}",
    "sd zero, (a1)",
    "ld a3, (a1)",
    "expect a3, -1",
    "lw a3, 4(a1)",
    "expect a3, -1",
    "li a1, {FRAME_WINDOW}",
    "sw zero, (a1)",
    "lwu a3, (a1)",
    "expect a3, 0xffffffff",
    //
    "post 0x30", // Calls: what there is, and some that nobody knows.
    "li a7, 0x10",
    "li a6, 0",
    "ecall",
    "expect a0, 0",
    "expect a1, 0x1000000",
    "li a6, 3",
    "li a0, 0x53525354",
    "ecall",
    "expect a0, 0",
    "expect a1, 1",
    "li a0, 0x12345678",
    "ecall",
    "expect a1, 0",
    "li a7, 0x12345678",
    "ecall",
    "expect a0, -2",
    "li a7, 0x53525354",
    "li a6, 0",
    "li a0, 0x77",
    "ecall",
    "expect a0, -3",
    "post 0x31", // Instructions that there are not: none at all, of the hypervisor extension, and of M-mode.
    ".irp word, 0, 0xffffffff, 0x6805c573, 0x62000073, 0x30002573, 0x30200073, 0x60002573, 0x68002573",
    "lla s10, 9f",
    ".4byte \\word",
    "j guest_fail",
    "9: expect s9, 2",
    ".endr",
    "lla s10, 9f",
    "8: ebreak",
    "j guest_fail",
    "9: lla t6, 8b",
    "expect s9, 3",
    "post 0x32", // Instructions from a device, and from where none is: an access fault.
    "li a1, {WINDOW} + 0x5000",
    "lla s10, 9f",
    "jr a1",
    "9: expect_trap 1, {WINDOW} + 0x5000",
    "li a1, {WINDOW} + 0x6000",
    "lla s10, 9f",
    "jr a1",
    "9: expect_trap 1, {WINDOW} + 0x6000",
    "post 0x33", // Page tables where no memory is: an access fault of what needed them.
    "li a1, {LOST} + 0x123",
    "lla s10, 9f",
    "lb a3, (a1)",
    "j guest_fail",
    "9: expect_trap 5, {LOST} + 0x123",
    "lla s10, 9f",
    "sb a3, (a1)",
    "j guest_fail",
    "9: ori s9, s9, 2", // Some processors say that it is the table that was read.
    "expect_trap 7, {LOST} + 0x123",
    "li a1, {LOST}",
    "lla s10, 9f",
    "jr a1",
    "9: expect s8, {LOST}",
    "li a1, {LOST} - 4", // And of the second page of an operand.
    "lla s10, 9f",
    "sd a3, (a1)",
    "j guest_fail",
    "9: ori s9, s9, 2",
    "expect_trap 7, {LOST}",
    "post 0x34", // Physical addresses that the second stage does not translate.
    "li a1, {WINDOW} + 0x200000",
    "ld a3, (a1)",
    "expect a3, -1",
    "sd a3, (a1)",
    "post 0x35", // The stack where no memory is: what is pushed is gone.
    "mv a4, sp",
    "li sp, {NOTHING} + 0x800",
    "addi sp, sp, -16",
    "sd a4, 8(sp)",
    "ld a3, 8(sp)",
    "mv sp, a4",
    "expect a3, -1",
    //
    "li a1, {UART}",
    "lla a2, guest_end_text",
    "call guest_print",
    "post {DONE}",
    "guest_fail:",
    "li a7, 0x53525354", // SRST: off.
    "li a6, 0",
    "li a0, 0",
    "li a1, 0",
    "ecall",
    "j guest_fail",
    //
    "guest_sizes:",
    "li a1, {SCRATCH}",
    "li a2, 0x8182838485868788",
    "sd a2, (a1)",
    "ld a3, (a1)",
    "expect a3, 0x8182838485868788",
    "lbu a3, (a1)",
    "expect a3, 0x88",
    "lb a3, 1(a1)",
    "expect a3, 0xffffffffffffff87",
    "lhu a3, 2(a1)",
    "expect a3, 0x8586",
    "lh a3, 2(a1)",
    "expect a3, 0xffffffffffff8586",
    "lwu a3, 4(a1)",
    "expect a3, 0x81828384",
    "lw a3, 4(a1)",
    "expect a3, 0xffffffff81828384",
    "sb a2, 8(a1)",
    "sh a2, 10(a1)",
    "sw a2, 12(a1)",
    "sb zero, 9(a1)",
    "ld a3, 8(a1)",
    "expect a3, 0x8586878887880088",
    "ld zero, (a1)",
    "lw a1, 8(a1)", // Into its own base.
    "expect a1, 0xffffffff87880088",
    "li a1, {SCRATCH} + 0x7ff",
    "sw a2, -0x7ff + 0x10(a1)",
    "lhu a3, -0x7ff + 0x10(a1)",
    "expect a3, 0x8788",
    "li a1, {SCRATCH} + 3", // Not aligned, in one page.
    "sd a2, (a1)",
    "ld a3, (a1)",
    "expect a3, 0x8182838485868788",
    "lh a3, -1(a1)",
    "expect a3, 0xffffffffffff8886",
    "ret",
    //
    // Each load and store of two bytes.
    "guest_compressed:",
    ".option push",
    ".option rvc",
    "mv a4, sp",
    "li a1, {SCRATCH} + 0x40",
    "li sp, {SCRATCH} + 0x40",
    "li a2, 0x8182838485868788",
    "c.sd a2, 8(a1)",
    "c.ld a3, 8(a1)",
    "bne a3, a2, 3f",
    "c.lw a3, 12(a1)",
    "li t6, 0xffffffff81828384",
    "bne a3, t6, 3f",
    "c.sw a2, 12(a1)",
    "c.lw a3, 12(a1)",
    "li t6, 0xffffffff85868788",
    "bne a3, t6, 3f",
    "c.sdsp a2, 248(sp)",
    "c.ldsp s4, 248(sp)",
    "bne s4, a2, 3f",
    "c.swsp a2, 252(sp)",
    "c.lwsp s4, 252(sp)",
    "bne s4, t6, 3f",
    "c.ldsp s4, 248(sp)",
    "li t6, 0x8586878885868788",
    "bne s4, t6, 3f",
    "mv sp, a4",
    "ret",
    "3: j guest_fail",
    ".option pop",
    //
    // Stores and loads 8 bytes at a1 and at the 7 places that follow, and 4 and 2 bytes too.
    "guest_cross:",
    "li a4, 8",
    "li a2, 0x1122334455667788",
    "1: not a2, a2",
    "sd a2, (a1)",
    "ld a3, (a1)",
    "bne a2, a3, 3f",
    "srai a2, a2, 8",
    "sw a2, (a1)",
    "lw a3, (a1)",
    "sext.w a5, a2",
    "bne a5, a3, 3f",
    "sh a2, (a1)",
    "lhu a3, (a1)",
    "xor a5, a2, a3",
    "slli a5, a5, 48",
    "bnez a5, 3f",
    "addi a1, a1, 1",
    "addi a4, a4, -1",
    "bnez a4, 1b",
    "ret",
    "3: j guest_fail",
    //
    // A store at a1, where the second page is one of a program's.
    "guest_users:",
    "li a2, 0x1122334455667788",
    "lla s10, 9f",
    "sd a2, (a1)",
    "j guest_fail",
    "9: expect_trap 15, {WINDOW} + 0x7000",
    "li t0, 1 << 18", // SUM
    "csrs sstatus, t0",
    "sd a2, (a1)",
    "lwu a3, 4(a1)",
    "csrc sstatus, t0",
    "expect a3, 0x11223344",
    "ret",
    //
    // Loads and stores each register but one, then that one.
    "guest_registers:",
    "csrw sscratch, sp",
    "fmv.d.x fa5, ra",
    "li x31, {SCRATCH}",
    ".irp number, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "sd x\\number, 8 * \\number(x31)", // What the program has in them is kept there.
    "li x\\number, 0x100 + \\number",
    ".endr",
    ".irp number, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "sh x\\number, 0x200 + 2 * \\number(x31)",
    ".endr",
    ".irp number, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "xori x\\number, x\\number, 0x100 + \\number",
    "bnez x\\number, 3f",
    "lh x\\number, 0x200 + 2 * \\number(x31)",
    ".endr",
    ".irp number, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "xori x\\number, x\\number, 0x100 + \\number",
    "bnez x\\number, 3f",
    ".endr",
    "mv x1, x31",
    "li x31, 0x11f",
    "sh x31, 0x240(x1)",
    "lbu x31, 0x241(x1)",
    "xori x31, x31, 1",
    "bnez x31, 3f",
    "mv x31, x1",
    ".irp number, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "ld x\\number, 8 * \\number(x31)",
    ".endr",
    "csrr t6, sscratch",
    "bne t6, sp, 3f",
    "fmv.x.d t6, fa5",
    "bne t6, ra, 3f",
    "ret",
    "3: j guest_fail",
    //
    "guest_set_timer:",
    "li a7, 0x54494d45",
    "li a6, 0",
    "ecall",
    "ret",
    //
    // Sends the text at a2 to the UART at a1, when its transmitter has room.
    "guest_print:",
    "lbu a3, (a2)",
    "beqz a3, 2f",
    "addi a2, a2, 1",
    "1: lbu a4, 5(a1)",
    "andi a4, a4, 0x20",
    "beqz a4, 1b",
    "sb a3, (a1)",
    "j guest_print",
    "2: ret",
    "guest_text: .asciz \"VS; \"",
    "guest_end_text: .asciz \"done\\n\"",
    //
    // An exception that is expected, or an interrupt.
    ".balign 4",
    "guest_trap:",
    "csrr s9, scause",
    "bltz s9, 1f",
    "csrr s8, stval",
    "beqz s10, guest_fail",
    "csrw sepc, s10",
    "li s10, 0",
    "li t6, 0x100", // SPP: to the kernel, also from its program.
    "csrs sstatus, t6",
    "sret",
    "1: slli s9, s9, 1",
    "srli s9, s9, 1",
    "addi s9, s9, -5",
    "beqz s9, 2f",
    "bltz s9, 3f",
    "li t6, {BELL}", // External.
    "lb zero, (t6)",
    "addi s7, s7, 1",
    "sret",
    "2: addi s6, s6, 1", // Of the timer.
    "mv s3, ra",
    "li a0, -1",
    "call guest_set_timer",
    "mv ra, s3",
    "sret",
    "3: addi s5, s5, 1", // By software.
    "csrci sip, 2",
    "sret",
    ".balign 8",
    "guest_word: .quad 0",
    "guest_program: sd a2, 0x10(a4)",
    "lwu a3, 0x14(a4)",
    "ecall",
    "nop",
    //
    // Page tables: of 1 GiB each, then of 2 MiB, then of the window's pages.
    ".org guest_start + {TABLES} - {MEMORY}",
    "guest_level_2:",
    ".quad {DEVICES}",          // Devices, each at its own address.
    ".quad {MEMORIES}",         // Memory, likewise.
    ".quad {LEVEL_1}",
    ".quad {LOST_TABLE}",
    ".fill 508, 8, 0",
    "guest_level_1:",
    ".quad {LEVEL_0}",
    ".quad {FAR}",
    ".quad {FRAME_PAGE}",
    ".fill 508, 8, 0",
    ".quad {LAST_LEVEL_0}",
    "guest_level_0:",
    ".quad {FIRST}, {SCRATCH_PAGE}, {SECOND}, {SCRATCH_PAGE}, 0, {SCRATCH_PAGE}, {NOTHING_PAGE}, {USERS}, {USERS_SCRATCH}",
    ".fill 503, 8, 0",
    "guest_last_level_0:",
    ".fill 511, 8, 0",
    ".quad {SCRATCH_PAGE}",
    ".balign 4096",
    ".skip 4096",
    "guest_stack:",
    ".quad 0",
    ".option pop",
    ".text",
    UART = const UART,
    POST = const POST,
    BELL = const BELL,
    EJECT = const EJECT,
    SCRATCH = const SCRATCH,
    FRAME_WINDOW = const FRAME_WINDOW,
    FRAME = const FRAME as i32,
    NOTHING = const NOTHING,
    WINDOW = const WINDOW,
    LOST = const LOST,
    DONE = const DONE,
    DEVICES = const entry(0, DEVICE_PAGE),
    MEMORIES = const entry(MEMORY, MEMORY_PAGE),
    MEMORY = const MEMORY,
    TABLES = const TABLES,
    LEVEL_1 = const entry(TABLES + 0x1000, TABLE),
    LEVEL_0 = const entry(TABLES + 0x2000, TABLE),
    LAST_LEVEL_0 = const entry(TABLES + 0x3000, TABLE),
    LOST_TABLE = const entry(NOTHING, TABLE),
    // Beyond what the second stage translates.
    FAR = const entry(1 << 45, DEVICE_PAGE),
    FRAME_PAGE = const entry(FRAME_BUFFER, DEVICE_PAGE),
    FIRST = const entry(PAGES, MEMORY_PAGE),
    SECOND = const entry(PAGES + 0x1000, MEMORY_PAGE),
    SCRATCH_PAGE = const entry(SCRATCH, FETCHED_PAGE),
    NOTHING_PAGE = const entry(NOTHING, FETCHED_PAGE),
    USERS = const entry(PAGES + 0x2000, USER_PAGE),
    USERS_SCRATCH = const entry(SCRATCH, USER_PAGE),
);

//! The small guest: one program that goes from real mode through protected mode to long mode, and checks on its way
//! that every kind of access does to its registers and to memory what it does on hardware.
//!
//! Before each check it writes the number of the check to port 0x80, where firmware writes its POST codes; where a check
//! fails it halts. So the last code tells how far it came, and [`DONE`] that every check held.

use core::arch::global_asm;

use vm_device::Gsi;

use crate::devices::FRAME;
use crate::small::DONE;

/// Where the guest lies in its memory and begins to run.
pub const ENTRY: u16 = 0x1000;
/// What it sends to the emulated UART.
pub const TEXT: &str = "real mode; protected mode; long mode; done\n";
/// The interrupt vector that the guest gives line 0.
pub const VECTOR_BASE: u8 = 0x20;
/// The line that the bell drives.
pub const BELL_LINE: Gsi = Gsi(5);

/// The emulated UART.
pub const UART_PORT: u16 = 0x3f8;
/// Where the guest finds the real UART.
pub const REAL_UART_PORT: u16 = 0x2f8;
/// 16 ports of the scratch device: the first 16 bytes of its registers.
pub const SCRATCH_PORT: u16 = 0x500;
/// Its registers in memory, for real mode: where the graphics adapter has its window.
pub const SCRATCH_LOW: u64 = 0xb_0000;
/// Its registers in memory, for the other modes.
pub const SCRATCH_HIGH: u64 = 0xd000_0000;
/// The FIFO.
pub const FIFO_PORT: u16 = 0x510;
/// A write asserts the interrupt line, a read takes it back.
pub const BELL_PORT: u16 = 0x520;
/// A write removes the scratch device and the frame buffer.
pub const EJECT_PORT: u16 = 0x530;
/// The frame buffer: memory.
pub const FRAME_BUFFER: u64 = 0xd010_0000;

global_asm!(
    ".macro post code",
    "mov al, \\code",
    "out 0x80, al",
    ".endm",
    ".section .guest, \"ax\", @progbits",
    //
    // Real mode.
    //
    ".code16",
    "xor ax, ax",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "mov sp, 0x1000",
    "cld",
    "post 0x10", // A string to the UART.
    "mov si, offset guest_text",
    "mov cx, 11",
    "mov dx, {UART}",
    "rep outsb",
    "post 0x11", // Bytes into the FIFO come back as double words.
    "mov si, offset guest_text",
    "mov cx, 12",
    "mov dx, {FIFO}",
    "rep outsb",
    "mov di, 0x3000",
    "mov cx, 3",
    "rep insd",
    "cmp di, 0x300c",
    "jne guest_fail",
    "mov si, offset guest_text",
    "mov di, 0x3000",
    "mov cx, 12",
    "repe cmpsb",
    "jne guest_fail",
    "post 0x12", // IN merges 8 and 16 bits into the register.
    "mov dx, {SCRATCH_PORT}",
    "mov eax, 0x11223344",
    "out dx, eax",
    "mov eax, 0xaabbccdd",
    "in al, dx",
    "cmp eax, 0xaabbcc44",
    "jne guest_fail",
    "in ax, dx",
    "cmp eax, 0xaabb3344",
    "jne guest_fail",
    "in eax, dx",
    "cmp eax, 0x11223344",
    "jne guest_fail",
    "post 0x13", // A port without a device, and an access over the end of a device: all ones.
    "mov dx, 0x7777",
    "in eax, dx",
    "cmp eax, -1",
    "jne guest_fail",
    "mov dx, {SCRATCH_PORT} + 14",
    "xor eax, eax",
    "in eax, dx",
    "cmp eax, -1",
    "jne guest_fail",
    "post 0x14", // MMIO, with read-modify-write. What was written to the ports is seen there.
    "mov ax, {SCRATCH_LOW} >> 4",
    "mov es, ax",
    "cmp dword ptr es:[0], 0x11223344",
    "jne guest_fail",
    "mov word ptr es:[0x10], 0x00f0",
    "or word ptr es:[0x10], 0x0f0f",
    "cmp word ptr es:[0x10], 0x0fff",
    "jne guest_fail",
    "mov al, 0x5a",
    "xchg byte ptr es:[0x11], al",
    "cmp al, 0x0f",
    "jne guest_fail",
    "cmp word ptr es:[0x10], 0x5aff",
    "jne guest_fail",
    "lgdt [guest_gdt_pointer]",
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    "ljmp 8, offset guest_protected_mode",
    //
    // Protected mode.
    //
    ".code32",
    "guest_protected_mode:",
    "mov eax, 16",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "post 0x20", // The frame buffer is memory.
    "mov edi, {FRAME_BUFFER}",
    "mov ecx, 1024",
    "mov eax, {FRAME}",
    "rep stosd",
    "mov edi, {FRAME_BUFFER}",
    "mov ecx, 1024",
    "repe scasd",
    "jne guest_fail",
    "post 0x21", // Strings from memory to MMIO and back.
    "mov esi, offset guest_text",
    "mov edi, {SCRATCH_HIGH} + 0x20",
    "mov ecx, 3",
    "rep movsd",
    "cmp edi, {SCRATCH_HIGH} + 0x2c",
    "jne guest_fail",
    "mov esi, {SCRATCH_HIGH} + 0x20",
    "mov edi, 0x3100",
    "mov ecx, 12",
    "rep movsb",
    "mov esi, offset guest_text",
    "mov edi, 0x3100",
    "mov ecx, 12",
    "repe cmpsb",
    "jne guest_fail",
    "mov edi, {SCRATCH_HIGH} + 0x30",
    "mov eax, 0x01020304",
    "mov ecx, 2",
    "rep stosd",
    "cmp dword ptr [{SCRATCH_HIGH} + 0x34], 0x01020304",
    "jne guest_fail",
    "post 0x22", // Strings downwards.
    "std",
    "mov esi, offset guest_text + 3",
    "mov ecx, 4",
    "mov edx, {FIFO}",
    "rep outsb",
    "cld",
    "in eax, dx",
    "bswap eax",
    "cmp eax, [guest_text]",
    "jne guest_fail",
    "mov esi, offset guest_text + 11",
    "mov ecx, 16",
    "mov edx, {UART}",
    "rep outsb",
    // Page tables of four pages of 1 GiB, mapped to themselves.
    "mov dword ptr [0x4000], 0x5003",
    "mov dword ptr [0x5000], 0x00000083",
    "mov dword ptr [0x5008], 0x40000083",
    "mov dword ptr [0x5010], 0x80000083",
    "mov dword ptr [0x5018], 0xc0000083",
    "mov eax, 0x4000",
    "mov cr3, eax",
    "mov eax, cr4",
    "or eax, 1 << 5",
    "mov cr4, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 1 << 8",
    "wrmsr",
    "mov eax, cr0",
    "or eax, 0x80000000",
    "mov cr0, eax",
    "ljmp 24, offset guest_long_mode",
    //
    // Long mode.
    //
    ".code64",
    "guest_long_mode:",
    "mov esp, 0x1000",
    "mov ebx, {SCRATCH_HIGH}",
    "post 0x30", // 64 bits, and zero and sign extension.
    "mov rax, 0x1122334455667788",
    "mov [rbx + 0x40], rax",
    "cmp [rbx + 0x40], rax",
    "jne guest_fail",
    "movzx ecx, byte ptr [rbx + 0x40]",
    "cmp rcx, 0x88",
    "jne guest_fail",
    "movsx rcx, byte ptr [rbx + 0x40]",
    "cmp rcx, -0x78",
    "jne guest_fail",
    "mov dword ptr [rbx + 0x44], 0x80000000",
    "movsxd r9, dword ptr [rbx + 0x44]",
    "cmp r9, -0x80000000",
    "jne guest_fail",
    "mov rcx, -1",
    "mov ecx, [rbx + 0x44]",
    "shr rcx, 31",
    "cmp rcx, 1",
    "jne guest_fail",
    "mov [rbx + 0x40], ah",
    "cmp byte ptr [rbx + 0x40], 0x77",
    "jne guest_fail",
    "post 0x31", // Read-modify-write.
    "mov dword ptr [rbx + 0x48], 7",
    "add dword ptr [rbx + 0x48], 5",
    "sub dword ptr [rbx + 0x48], 2",
    "xor dword ptr [rbx + 0x48], 3",
    "and dword ptr [rbx + 0x48], 0xff",
    "mov ecx, 100",
    "lock xadd dword ptr [rbx + 0x48], ecx",
    "cmp ecx, 9",
    "jne guest_fail",
    "mov eax, 109",
    "mov ecx, 0xf0",
    "lock cmpxchg dword ptr [rbx + 0x48], ecx",
    "jne guest_fail",
    "lock bts dword ptr [rbx + 0x48], 0",
    "jc guest_fail",
    "btr dword ptr [rbx + 0x48], 4",
    "jnc guest_fail",
    "test dword ptr [rbx + 0x48], 0x10",
    "jnz guest_fail",
    "cmp dword ptr [rbx + 0x48], 0xe1",
    "jne guest_fail",
    "post 0x32", // An interrupt: at once, then held back until interrupts are enabled, and it ends a HLT.
    "lidt [guest_idt_pointer]",
    "mov edx, {BELL}",
    "sti",
    "out dx, al",
    "cmp dword ptr [guest_interrupts], 1",
    "jne guest_fail",
    "cli",
    "out dx, al",
    "cmp dword ptr [guest_interrupts], 1",
    "jne guest_fail",
    "sti",
    "hlt",
    "cli",
    "cmp dword ptr [guest_interrupts], 2",
    "jne guest_fail",
    "post 0x33", // The real UART.
    "mov esi, offset guest_real_text",
    "2:",
    "mov edx, {REAL_UART} + 5",
    "in al, dx",
    "test al, 0x20",
    "jz 2b",
    "mov edx, {REAL_UART}",
    "outsb",
    "cmp byte ptr [rsi], 0",
    "jne 2b",
    "post 0x34", // A device that is gone reads all ones, at ports, MMIO and memory, and takes writes.
    "mov edx, {EJECT}",
    "out dx, al",
    "mov edx, {SCRATCH_PORT}",
    "xor eax, eax",
    "in eax, dx",
    "cmp eax, -1",
    "jne guest_fail",
    "cmp qword ptr [rbx + 0x40], -1",
    "jne guest_fail",
    "mov dword ptr [rbx + 0x48], 0",
    "cmp dword ptr [rbx + 0x48], -1",
    "jne guest_fail",
    "mov ecx, {FRAME_BUFFER}",
    "cmp dword ptr [rcx], -1",
    "jne guest_fail",
    "mov esi, offset guest_text + 27",
    "mov ecx, 16",
    "mov edx, {UART}",
    "rep outsb",
    "post {DONE}",
    "guest_fail:",
    "cli",
    "hlt",
    "jmp guest_fail",
    "guest_interrupt:",
    "push rax",
    "push rdx",
    "mov edx, {BELL}",
    "in al, dx",
    "inc dword ptr [guest_interrupts]",
    "pop rdx",
    "pop rax",
    "iretq",
    ".balign 8",
    "guest_interrupts: .long 0, 0",
    "guest_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff",
    "guest_gdt_pointer: .word 31; .long guest_gdt, 0",
    ".balign 8",
    "guest_idt: .fill 2 * ({VECTOR_BASE} + {BELL_LINE}), 8, 0",
    ".word guest_interrupt, 24, 0x8e00, 0, 0, 0, 0, 0",
    "guest_idt_pointer: .word guest_idt_pointer - guest_idt - 1; .quad guest_idt",
    "guest_text: .ascii \"real mode; protected mode; long mode; done\\n\"",
    "guest_real_text: .asciz \"guest: the real UART, passed through\\n\"",
    ".text",
    UART = const UART_PORT,
    FIFO = const FIFO_PORT,
    SCRATCH_PORT = const SCRATCH_PORT,
    SCRATCH_LOW = const SCRATCH_LOW,
    SCRATCH_HIGH = const SCRATCH_HIGH,
    FRAME_BUFFER = const FRAME_BUFFER,
    FRAME = const FRAME,
    BELL = const BELL_PORT,
    BELL_LINE = const BELL_LINE.0,
    VECTOR_BASE = const VECTOR_BASE,
    REAL_UART = const REAL_UART_PORT,
    EJECT = const EJECT_PORT,
    DONE = const DONE,
);

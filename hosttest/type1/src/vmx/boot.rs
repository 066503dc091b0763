//! From the firmware to the PVH entry point: a loader of 512 bytes, the first sector of a disk. The image is in the sectors that
//! follow.
//!
//! The firmware loads the sector to 0x7c00 and enters it in real mode, with the number of the disk in `dl`. It loads the rest
//! by the extended reads of `INT 13h` (Phoenix, BIOS Enhanced Disk Drive Specification 3.0): all that fits below the firmware's
//! data. Behind the image are two sectors for it: the command line, and a table of files, which it copies to where they belong. Of
//! an entry the first word is where the file was loaded, the second where it belongs, the third its size, with which the table
//! ends if it is 0. It hands over no more than a PVH loader has to: there is no memory map.

use core::arch::global_asm;

pub use crate::x86::boot::*;

global_asm!(
    ".section .boot_sector, \"ax\", @progbits",
    ".code16",
    ".global boot_sector",
    "boot_sector:",
    "ljmp 0, offset boot_real_mode",
    "boot_real_mode:",
    "cli",
    "xor ax, ax",
    "mov ds, ax",
    "mov ss, ax",
    "mov sp, offset boot_sector",
    "cld",
    // The serial port: characters of 8 bits. The firmware has set its speed.
    "push dx",
    "mov dx, 0x3fb",
    "mov al, 3",
    "out dx, al",
    "pop dx",
    "mov cx, offset boot_sectors",
    "2:",
    "mov si, offset boot_packet",
    "mov ah, 0x42",
    "push cx",
    "push dx",
    "int 0x13",
    "pop dx",
    "pop cx",
    "jc boot_fail",
    "add word ptr [boot_packet + 6], 32", // The next segment: 512 bytes on.
    "inc word ptr [boot_packet + 8]",     // The next sector.
    "loop 2b",
    "cli",
    // No interrupt of the machine is for the guest: the 8259s mask them all.
    "mov al, 0xff",
    "out 0x21, al",
    "out 0xa1, al",
    // Address line 20 (PS/2 system control port A).
    "in al, 0x92",
    "or al, 2",
    "and al, 0xfe",
    "out 0x92, al",
    "lgdt [boot_sector_gdt_pointer]",
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    "ljmp 8, offset boot_protected_mode",
    ".code32",
    "boot_protected_mode:",
    "mov eax, 16",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "mov edi, offset boot_empty",
    "mov ecx, offset boot_empty_end",
    "sub ecx, edi",
    "xor eax, eax",
    "rep stosb",
    "mov ebx, offset boot_files",
    "2:",
    "mov esi, [ebx]",
    "mov edi, [ebx + 4]",
    "mov ecx, [ebx + 8]",
    "jecxz 3f",
    "rep movsb",
    "add ebx, 12",
    "jmp 2b",
    "3:",
    "mov ebx, offset boot_start_info",
    "jmp pvh_start",
    // A disk that cannot be read: a letter on the serial port, and no more.
    ".code16",
    "boot_fail:",
    "mov dx, 0x3f8",
    "mov al, 'D'",
    "out dx, al",
    "3:",
    "hlt",
    "jmp 3b",
    ".balign 8",
    "boot_sector_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff",
    "boot_sector_gdt_pointer: .word 23; .long boot_sector_gdt",
    // One sector to 0x7e0:0, the second of the disk.
    "boot_packet: .byte 16, 0; .word 1, 0, 0x7e0; .quad 1",
    "boot_start_info: .long 0x336ec578, 1, 0, 0; .quad 0, boot_command_line, 0, 0; .long 0, 0",
    ".org 510",
    ".word 0xaa55",
    ".text",
);

//! From the loader to Rust: the PVH entry point, which is entered in 32-bit protected mode without paging, with the
//! address of the start info in `ebx` (Xen, docs/misc/pvh.pandoc), and the way to long mode.

use core::arch::global_asm;

global_asm!(
    // The ELF note that names the entry point: XEN_ELFNOTE_PHYS32_ENTRY.
    ".section .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 8, 18",
    ".asciz \"Xen\"",
    ".quad pvh_start",
    ".section .boot, \"ax\", @progbits",
    ".code32",
    ".global pvh_start",
    "pvh_start:",
    "cld",
    "mov edi, ebx",
    "lea eax, [boot_pml4]",
    "mov cr3, eax",
    "mov eax, cr4",
    "or eax, 1 << 5", // PAE
    "mov cr4, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 1 << 8", // EFER.LME
    "wrmsr",
    "mov eax, cr0",
    "or eax, 0x80000001", // PG, PE
    "mov cr0, eax",
    "lgdt [boot_gdt_pointer]",
    "ljmp 8, offset long_mode",
    ".code64",
    "long_mode:",
    "mov ax, 16",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "lea rsp, [boot_stack_top]",
    "xor ebp, ebp",
    "call {start}",
    "ud2",
    ".balign 8",
    "boot_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "boot_gdt_pointer: .word 23; .quad boot_gdt",
    // The first 4 GiB, mapped to themselves in pages of 1 GiB: RAM, the real local APIC and IOAPIC.
    ".section .data.boot, \"aw\", @progbits",
    ".balign 4096",
    "boot_pml4: .quad boot_pdpt + 3; .fill 511, 8, 0",
    "boot_pdpt: .quad 0x00000083, 0x40000083, 0x80000083, 0xc0000083; .fill 508, 8, 0",
    ".section .bss.boot, \"aw\", @nobits",
    ".balign 16",
    ".skip 65536",
    "boot_stack_top:",
    ".text",
    start = sym crate::start,
);

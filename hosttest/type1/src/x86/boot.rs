//! From the loader to Rust: the PVH entry point, which is entered in 32-bit protected mode without paging, with the
//! address of the start info in `ebx` (Xen, docs/misc/pvh.pandoc), and the way to long mode.

use core::arch::global_asm;
use core::ffi::CStr;

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
    start = sym start,
);

/// What the loader tells: `None` if it is no PVH loader.
pub type Loaded = Option<&'static StartInfo>;

/// Called with the physical address of the start info.
extern "sysv64" fn start(info: u64) -> ! {
    // SAFETY: the loader passed the address, and nothing writes below the image.
    crate::start(unsafe { StartInfo::at(info) })
}

/// What the loader tells (Xen, include/public/arch-x86/hvm/start_info.h).
#[repr(C)]
pub struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    /// The physical address of the ACPI root pointer, or 0.
    pub acpi_root_pointer: u64,
    memory_map: u64,
    memory_map_entries: u32,
}

/// One range of the machine's memory map.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct MemoryMapEntry {
    /// Its first address.
    pub base: u64,
    /// Its size in bytes.
    pub size: u64,
    /// What it is, in the numbers of ACPI 6.5, 15: 1 is memory for use.
    pub kind: u32,
    reserved: u32,
}

impl StartInfo {
    const MAGIC: u32 = 0x336e_c578;

    /// The start info at `address`.
    ///
    /// # Safety
    /// `address` is what the PVH loader handed over, and what it points to is never changed.
    unsafe fn at(address: u64) -> Option<&'static Self> {
        // SAFETY: the loader put the structure there, below 4 GiB, all of which is mapped.
        let info = unsafe { &*(address as *const Self) };
        (info.magic == Self::MAGIC && info.version >= 1).then_some(info)
    }

    /// The image's command line.
    pub fn command_line(&self) -> &'static str {
        if self.command_line == 0 {
            return "";
        }
        // SAFETY: the loader put a string there that ends in 0.
        unsafe { CStr::from_ptr(self.command_line as *const _) }.to_str().unwrap_or_default()
    }

    /// The machine's memory map.
    pub fn memory_map(&self) -> &'static [MemoryMapEntry] {
        if self.memory_map == 0 {
            return &[];
        }
        // SAFETY: the loader put that many entries there.
        unsafe { core::slice::from_raw_parts(self.memory_map as *const _, self.memory_map_entries as usize) }
    }
}

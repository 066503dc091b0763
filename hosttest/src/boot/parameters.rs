//! What a kernel is told when it starts: as Linux' boot protocol says (Linux, Documentation/arch/x86/boot.rst), or as PVH does (Xen,
//! public/arch-x86/hvm/start_info.h).

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::ByteValued;

use crate::boot::board::ECAM;
use crate::boot::ram::{FOUR_GIB, MIB, Ram, VIDEO};

/// Where they lie.
const PARAMETERS: u64 = 0x7000;
const MODULES: u64 = 0x7100;
const MEMORY_MAP: u64 = 0x7200;
const COMMAND_LINE: u64 = 0x2_0000;
/// The room for the command line, its end included.
pub(super) const COMMAND_LINE_SIZE: usize = 0x1_0000;

/// Where firmware keeps its own data, below the hole for a video card.
const FIRMWARE_DATA: u64 = 0x9_fc00;
/// Where firmware's tables are looked for.
pub(super) const TABLES: u64 = 0xe_0000;

/// Kinds of memory (ACPI 6.5, 15, table 15.1).
const USABLE: u32 = 1;
const RESERVED: u32 = 2;

/// What a kernel is told.
pub(super) struct Parameters<'a> {
    pub(super) command_line: &'a str,
    /// Address and size of the initial RAM disk.
    pub(super) initrd: (u64, u32),
    /// Where ACPI's RSDP lies.
    pub(super) root_pointer: Option<u64>,
    /// The first address after the RAM below 4 GiB.
    pub(super) low_end: u64,
    /// The size of the RAM above 4 GiB.
    pub(super) high_size: u64,
}

impl Parameters<'_> {
    /// The memory map: first address, size, kind.
    fn memory_map(&self) -> impl Iterator<Item = (u64, u64, u32)> {
        [
            (0, FIRMWARE_DATA, USABLE),
            (FIRMWARE_DATA, VIDEO - FIRMWARE_DATA, RESERVED),
            (TABLES, MIB - TABLES, RESERVED),
            (MIB, self.low_end - MIB, USABLE),
            (ECAM.first().0, ECAM.last().0 - ECAM.first().0 + 1, RESERVED),
            (FOUR_GIB, self.high_size, USABLE),
        ]
        .into_iter()
        .filter(|(_, size, _)| *size > 0)
    }

    /// Writes them for Linux. Returns where they lie. `None` if there is no RAM there.
    pub(super) fn write_linux(&self, ram: &Ram, header: setup_header) -> Option<u64> {
        let mut parameters = boot_params { hdr: header, ..Default::default() };
        parameters.hdr.type_of_loader = 0xff;
        parameters.hdr.vid_mode = 0xffff;
        parameters.hdr.cmd_line_ptr = COMMAND_LINE as u32;
        (parameters.hdr.ramdisk_image, parameters.hdr.ramdisk_size) = (self.initrd.0 as u32, self.initrd.1);
        parameters.acpi_rsdp_addr = self.root_pointer.unwrap_or(0);
        for ((addr, size, type_), entry) in self.memory_map().zip(&mut parameters.e820_table) {
            *entry = boot_e820_entry { addr, size, r#type: type_ };
            parameters.e820_entries += 1;
        }
        self.write_command_line(ram)?;
        ram.write(PARAMETERS, parameters.as_slice())?;
        Some(PARAMETERS)
    }

    /// Writes them as PVH has them. Returns where they lie. `None` if there is no RAM there.
    pub(super) fn write_pvh(&self, ram: &Ram) -> Option<u64> {
        const MAGIC: u32 = 0x336e_c578;
        let (paddr, size) = (self.initrd.0, self.initrd.1.into());
        ram.write(MODULES, hvm_modlist_entry { paddr, size, ..Default::default() }.as_slice())?;
        let mut memmap_entries = 0;
        for (addr, size, type_) in self.memory_map() {
            let entry = hvm_memmap_table_entry { addr, size, type_, reserved: 0 };
            ram.write(MEMORY_MAP + u64::from(memmap_entries) * entry.as_slice().len() as u64, entry.as_slice())?;
            memmap_entries += 1;
        }
        self.write_command_line(ram)?;
        let information = hvm_start_info {
            magic: MAGIC,
            version: 1,
            nr_modules: u32::from(size > 0),
            modlist_paddr: MODULES,
            cmdline_paddr: COMMAND_LINE,
            rsdp_paddr: self.root_pointer.unwrap_or(0),
            memmap_paddr: MEMORY_MAP,
            memmap_entries,
            ..Default::default()
        };
        ram.write(PARAMETERS, information.as_slice())?;
        Some(PARAMETERS)
    }

    fn write_command_line(&self, ram: &Ram) -> Option<()> {
        ram.write(COMMAND_LINE, self.command_line.as_bytes())?;
        ram.write(COMMAND_LINE + self.command_line.len() as u64, &[0])
    }
}

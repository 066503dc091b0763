//! The entries of the stage-2 tables: guest physical addresses of 39 bits, in pages of 4 KiB (Arm ARM DDI 0487, D8.3 "Translation
//! table descriptor formats").

use crate::nested::Backing;

/// How many levels of tables there are. The first is the architecture's level 1.
pub const LEVELS: u32 = 3;
/// How many tables of 512 entries the root is.
pub const ROOT_TABLES: usize = 1;

const VALID: u64 = 1;
/// A table, or a page at the last level; without it, a block.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// MemAttr: Normal memory, cached; device memory, nGnRE.
const MEMORY: u64 = 0b1111 << 2;
const REGISTERS: u64 = 0b0001 << 2;
/// The guest may read and write it, inner shareable, with the access flag.
const ALLOWED: u64 = 0b11 << 6 | 0b11 << 8 | 1 << 10;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// An entry for what is at `host`: a page of 4 KiB at level 0, of 2 MiB at level 1.
pub fn leaf(host: u64, level: u32, backing: Backing) -> u64 {
    let attributes = match backing {
        Backing::Memory => MEMORY,
        Backing::Registers => REGISTERS,
    };
    let page = if level == 0 { TABLE_OR_PAGE } else { 0 };
    host | page | attributes | ALLOWED | VALID
}

/// An entry for the table at `address`.
pub fn table(address: u64) -> u64 {
    address | TABLE_OR_PAGE | VALID
}

/// The address of the table that an entry is for.
pub fn next_table(entry: u64) -> u64 {
    entry & ADDRESS
}

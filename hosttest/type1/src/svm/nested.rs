//! The entries of SVM's nested page tables, which are those of long mode (AMD APM vol. 2, 15.25 and 5.3).

use crate::nested::Backing;

/// How many levels of tables there are.
pub const LEVELS: u32 = 4;
/// How many tables of 512 entries the root is.
pub const ROOT_TABLES: usize = 1;

const PRESENT_WRITABLE_USER: u64 = 7;
const LARGE: u64 = 1 << 7;
/// PWT and PCD: not cached, by the page attribute table as it is after power-on.
const UNCACHED: u64 = 0b11 << 3;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// An entry for what is at `host`: a page of 4 KiB at level 0, of 2 MiB at level 1.
pub fn leaf(host: u64, level: u32, backing: Backing) -> u64 {
    let uncached = if backing == Backing::Registers { UNCACHED } else { 0 };
    let large = if level == 0 { 0 } else { LARGE };
    host | large | uncached | PRESENT_WRITABLE_USER
}

/// An entry for the table at `address`.
pub fn table(address: u64) -> u64 {
    address | PRESENT_WRITABLE_USER
}

/// The address of the table that an entry is for.
pub fn next_table(entry: u64) -> u64 {
    entry & ADDRESS
}

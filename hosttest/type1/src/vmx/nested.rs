//! The entries of the extended page tables (Intel SDM vol. 3C, 29.3.2).

use crate::nested::Backing;

/// How many levels of tables there are.
pub const LEVELS: u32 = 4;
/// How many tables of 512 entries the root is.
pub const ROOT_TABLES: usize = 1;

const READ_WRITE_EXECUTE: u64 = 7;
const LARGE: u64 = 1 << 7;
/// The memory type write-back, in bits 5:3. That of registers is 0, uncacheable.
const WRITE_BACK: u64 = 6 << 3;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// An entry for what is at `host`: a page of 4 KiB at level 0, of 2 MiB at level 1.
pub fn leaf(host: u64, level: u32, backing: Backing) -> u64 {
    let memory_type = if backing == Backing::Memory { WRITE_BACK } else { 0 };
    let large = if level == 0 { 0 } else { LARGE };
    host | large | memory_type | READ_WRITE_EXECUTE
}

/// An entry for the table at `address`.
pub fn table(address: u64) -> u64 {
    address | READ_WRITE_EXECUTE
}

/// The address of the table that an entry is for.
pub fn next_table(entry: u64) -> u64 {
    entry & ADDRESS
}

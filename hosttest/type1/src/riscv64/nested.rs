//! The entries of the G-stage tables: guest physical addresses of 41 bits, in pages of 4 KiB (RISC-V ISA manual vol. II, "Hypervisor
//! Guest Address Translation and Protection Register", Sv39x4).

use crate::nested::Backing;

/// How many levels of tables there are.
pub const LEVELS: u32 = 3;
/// How many tables of 512 entries the root is: it takes 2 bits of an address more than another one.
pub const ROOT_TABLES: usize = 4;

const VALID: u64 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const FETCH: u64 = 1 << 3;
/// U: all accesses of a guest count as a user's. A and D: it is as if it had been accessed and written.
const USED: u64 = 1 << 4 | 1 << 6 | 1 << 7;

/// An entry for what is at `host`: a page of 4 KiB at level 0, of 2 MiB at level 1.
pub fn leaf(host: u64, _level: u32, backing: Backing) -> u64 {
    let fetch = match backing {
        Backing::Memory => FETCH,
        Backing::Registers => 0,
    };
    host >> 2 | fetch | READ | WRITE | USED | VALID
}

/// An entry for the table at `address`.
pub fn table(address: u64) -> u64 {
    address >> 2 | VALID
}

/// The address of the table that an entry is for.
pub fn next_table(entry: u64) -> u64 {
    entry >> 10 << 12
}

//! Page tables of a guest in long mode (Intel SDM vol. 3A, 4.5: four levels).

use crate::vmm::memory::{Memory, PAGE};

/// The size of a large page, in bytes.
pub const LARGE_PAGE: u64 = 2 << 20;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Page tables in a guest's RAM, which starts at guest physical address 0. Every page is accessible from ring 3.
pub struct PageTables<'m> {
    ram: &'m Memory,
    root: u64,
    next: u64,
    end: u64,
}

impl<'m> PageTables<'m> {
    /// Tables that take their pages from `first` up to `end` (exclusive), which is zeroed.
    pub fn new(ram: &'m Memory, first: u64, end: u64) -> Self {
        Self { ram, root: first, next: first + PAGE, end }
    }

    /// The guest physical address for CR3.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Shows `length` bytes of guest physical memory from `physical` at `address`, in pages of `page` bytes ([`PAGE`] or
    /// [`LARGE_PAGE`]), of which all three are multiples.
    ///
    /// # Panics
    /// If the room for tables is used up.
    pub fn map(&mut self, address: u64, physical: u64, length: u64, page: u64, writable: bool) {
        let flags = PRESENT | USER | if writable { WRITABLE } else { 0 };
        for offset in (0..length).step_by(page as usize) {
            let (leaf_level, size) = if page == LARGE_PAGE { (1, LARGE) } else { (0, 0) };
            let mut table = self.root;
            for level in (leaf_level + 1..4).rev() {
                table = self.below(table, index(address + offset, level));
            }
            let entry = table + 8 * index(address + offset, leaf_level);
            self.ram.write_u64(entry, (physical + offset) | flags | size);
        }
    }

    /// The table an entry of `table` refers to, made if there is none.
    fn below(&mut self, table: u64, index: u64) -> u64 {
        let entry = self.ram.read_u64(table + 8 * index);
        if entry & PRESENT != 0 {
            return entry & ADDRESS;
        }
        assert!(self.next < self.end, "no room for page tables up to {:#x}", self.end);
        let new = self.next;
        self.next += PAGE;
        self.ram.write_u64(table + 8 * index, new | PRESENT | WRITABLE | USER);
        new
    }
}

/// The index of `address` into a table: level 3 is the root, level 0 holds 4 KiB pages.
fn index(address: u64, level: u32) -> u64 {
    address >> (12 + 9 * level) & 0x1ff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(ram: &Memory, root: u64, address: u64) -> Option<u64> {
        let mut table = root;
        for level in (0..4).rev() {
            let entry = ram.read_u64(table + 8 * index(address, level));
            if entry & PRESENT == 0 {
                return None;
            }
            let span = 1u64 << (12 + 9 * level);
            if level == 0 || entry & LARGE != 0 {
                return Some((entry & ADDRESS & !(span - 1)) + address % span);
            }
            table = entry & ADDRESS;
        }
        None
    }

    #[test]
    fn translates_small_and_large_pages() {
        let ram = Memory::new(0x2_0000).unwrap();
        let mut tables = PageTables::new(&ram, 0x1000, 0x2_0000);
        tables.map(0, 0, 2 * LARGE_PAGE, LARGE_PAGE, true);
        tables.map(0x5555_5555_4000, 0x4_0000_0000, 3 * PAGE, PAGE, false);
        assert_eq!(walk(&ram, tables.root(), 0x20_0123), Some(0x20_0123));
        assert_eq!(walk(&ram, tables.root(), 0x5555_5555_6789), Some(0x4_0000_2789));
        assert_eq!(walk(&ram, tables.root(), 0x5555_5555_7000), None);
        assert_eq!(walk(&ram, tables.root(), 2 * LARGE_PAGE), None);
    }
}

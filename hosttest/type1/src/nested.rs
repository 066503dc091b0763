//! The nested page tables: which guest physical addresses are memory, and so cause no exit (AMD APM vol. 2, 15.25).

use vm_device::IoRange;

use crate::svm::Page;

const PRESENT_WRITABLE_USER: u64 = 7;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PAGE: u64 = 1 << 12;
const LARGE_PAGE: u64 = 1 << 21;

/// How many tables there are: the root, one for 512 GiB, four for the first 4 GiB, and the rest for small pages.
const TABLES: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Table([u64; 512]);

const _: () = assert!(size_of::<Table>() == size_of::<Page<4096>>());

/// Nested page tables, the root first.
pub struct NestedTables {
    tables: [Table; TABLES],
    used: usize,
}

/// A range cannot be mapped.
#[derive(Debug)]
pub enum MapError {
    /// It does not begin and end on pages.
    Unaligned(IoRange),
    /// There are no more tables.
    Full,
}

impl NestedTables {
    /// Tables that map nothing.
    pub const fn new() -> Self {
        Self { tables: [Table([0; 512]); TABLES], used: 1 }
    }

    /// The physical address of the root.
    pub fn root(&self) -> u64 {
        &raw const self.tables as u64
    }

    /// Maps nothing any more.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Lets the guest physical addresses of `range` be the memory of the machine from `host` on, in pages of 2 MiB where
    /// they fit.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(&mut self, range: IoRange, host: u64) -> Result<(), MapError> {
        let (mut guest, last) = (range.first().0, range.last().0);
        if (guest | host | last.wrapping_add(1)) % PAGE != 0 {
            return Err(MapError::Unaligned(range));
        }
        let offset = host.wrapping_sub(guest);
        while guest <= last {
            let host = guest.wrapping_add(offset);
            let large = (guest | host) % LARGE_PAGE == 0 && last - guest >= LARGE_PAGE - 1;
            let (level, size, flag) = if large { (1, LARGE_PAGE, LARGE) } else { (0, PAGE, 0) };
            *self.entry(guest, level)? = host | flag | PRESENT_WRITABLE_USER;
            guest += size;
        }
        Ok(())
    }

    /// The entry for `address` at `level`: 0 for a page of 4 KiB, 1 for one of 2 MiB.
    fn entry(&mut self, address: u64, level: u32) -> Result<&mut u64, MapError> {
        let index = |level: u32| (address >> (12 + 9 * level)) as usize % 512;
        let first = self.root();
        let mut table = 0;
        for upper in (level + 1..=3).rev() {
            let entry = self.tables[table].0[index(upper)];
            table = if entry == 0 {
                let next = self.used;
                if next == TABLES {
                    return Err(MapError::Full);
                }
                self.used += 1;
                self.tables[table].0[index(upper)] = first + next as u64 * PAGE | PRESENT_WRITABLE_USER;
                next
            } else {
                ((entry & ADDRESS) - first) as usize / PAGE as usize
            };
        }
        Ok(&mut self.tables[table].0[index(level)])
    }
}

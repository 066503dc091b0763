//! The nested page tables: which guest physical addresses are memory, and so cause no exit. Their entries are the processor's
//! own; that 9 bits of an address choose an entry of each level, and 12 a byte of a page, holds on every processor here.

use core::fmt;
use core::sync::atomic::Ordering;

use spin::Mutex;
use vm_device::{IoRange, IoType, MappedRange, RangeState};

use crate::devices::backing;
use crate::manager::{MANAGER, TOPOLOGY_CHANGED};
use crate::memory::{GuestMemory, PAGE};
use crate::processor::nested::{LEVELS, ROOT_TABLES, leaf, next_table, table};
use crate::processor::vcpu::Vcpu;

/// What a range is backed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// Memory, which is cached.
    Memory,
    /// Registers of a device of the machine.
    Registers,
}

const LARGE_PAGE: u64 = 1 << 21;

/// How many tables there are: the root, those for the first 4 GiB, and the rest for small pages.
const TABLES: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Table([u64; 512]);

/// The nested page tables, the root first, which begins where the largest root has to.
#[repr(C, align(16384))]
pub struct Mappings {
    tables: [Table; TABLES],
    used: usize,
}

/// A range cannot be mapped.
#[derive(Debug)]
pub enum MapError {
    /// It does not begin and end on pages.
    Unaligned(IoRange),
    /// There are no more tables.
    Full(IoRange),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapError::Unaligned(range) => write!(f, "{range} does not begin and end on pages"),
            MapError::Full(range) => write!(f, "no more page tables for {range}"),
        }
    }
}

impl Mappings {
    /// Tables that map nothing.
    pub const fn new() -> Self {
        Self { tables: [Table([0; 512]); TABLES], used: ROOT_TABLES }
    }

    /// The physical address of the root.
    pub fn root(&self) -> u64 {
        &raw const self.tables as u64
    }

    /// Maps the guest's memory, and every range that the manager lists as backed by memory.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_all(&mut self, memory: GuestMemory) -> Result<(), MapError> {
        self.tables.iter_mut().for_each(|table| table.0.fill(0));
        self.used = ROOT_TABLES;
        for (range, host) in memory.ranges() {
            self.map(range, host, Backing::Memory)?;
        }
        for mapped in backed() {
            let (host, backing) = backing(&mapped);
            self.map(mapped.assigned.range, host, backing)?;
        }
        Ok(())
    }

    /// Unmaps what is neither the guest's memory nor a range that the manager lists as backed by memory. All else stays as it is:
    /// another virtual processor may run meanwhile.
    pub fn unmap_removed(&mut self, memory: GuestMemory) {
        for root in 0..ROOT_TABLES {
            self.unmap_removed_below(root, LEVELS - 1, (root as u64) << (12 + 9 * LEVELS), memory);
        }
    }

    /// The same in the table at `place`, of which the first entry is for `address`.
    fn unmap_removed_below(&mut self, place: usize, level: u32, address: u64, memory: GuestMemory) {
        for index in 0..512 {
            let (entry, address) = (self.tables[place].0[index], address + ((index as u64) << (12 + 9 * level)));
            // What the guest has is no part of these tables.
            let lower = next_table(entry).wrapping_sub(self.root()) / PAGE;
            match entry {
                0 => {}
                _ if level > 0 && lower < TABLES as u64 => {
                    self.unmap_removed_below(lower as usize, level - 1, address, memory)
                }
                _ if is_mapped(address, memory) => {}
                _ => self.tables[place].0[index] = 0,
            }
        }
    }

    /// Lets the guest physical addresses of `range` be those of the machine from `host` on, in pages of 2 MiB where
    /// they fit.
    fn map(&mut self, range: IoRange, host: u64, backing: Backing) -> Result<(), MapError> {
        let (mut guest, last) = (range.first().0, range.last().0);
        if !(guest | host | last.wrapping_add(1)).is_multiple_of(PAGE) {
            return Err(MapError::Unaligned(range));
        }
        let offset = host.wrapping_sub(guest);
        while guest <= last {
            let host = guest.wrapping_add(offset);
            let large = (guest | host).is_multiple_of(LARGE_PAGE) && last - guest >= LARGE_PAGE - 1;
            let (level, size) = if large { (1, LARGE_PAGE) } else { (0, PAGE) };
            *self.entry(guest, level).ok_or(MapError::Full(range))? = leaf(host, level, backing);
            guest += size;
        }
        Ok(())
    }

    /// The entry for `address` at `level`: 0 for a page of 4 KiB, 1 for one of 2 MiB. `None` if that takes another
    /// table, and there is none.
    fn entry(&mut self, address: u64, level: u32) -> Option<&mut u64> {
        let root = self.root();
        // The root may be several tables, one behind the other.
        let first = (address >> (12 + 9 * (LEVELS - 1))) as usize % (512 * ROOT_TABLES);
        let (mut place, mut index) = (first / 512, first % 512);
        for lower in (level..LEVELS - 1).rev() {
            let entry = &mut self.tables[place].0[index];
            if *entry == 0 {
                if self.used == TABLES {
                    return None;
                }
                *entry = table(root + self.used as u64 * PAGE);
                self.used += 1;
            }
            place = (next_table(*entry) - root) as usize / PAGE as usize;
            index = (address >> (12 + 9 * lower)) as usize % 512;
        }
        Some(&mut self.tables[place].0[index])
    }
}

/// The ranges that the manager lists as backed by memory.
fn backed() -> impl Iterator<Item = MappedRange<&'static str>> {
    MANAGER.address_map(IoType::PhysicalMmio).filter(|MappedRange { assigned, .. }| {
        assigned.io_type == IoType::PhysicalMmio && assigned.state == RangeState::Decoded
    })
}

/// Whether a guest physical address is one of the guest's memory, or of such a range.
fn is_mapped(address: u64, memory: GuestMemory) -> bool {
    let has_it = |range: IoRange| range.first().0 <= address && address <= range.last().0;
    memory.ranges().any(|(range, _)| has_it(range)) || backed().any(|mapped| has_it(mapped.assigned.range))
}

/// Unmaps what is no longer there if devices went, and lets the processors forget what they knew. Another virtual processor that comes
/// here meanwhile waits for that.
pub fn refresh(mappings: &Mutex<Mappings>, memory: GuestMemory, vcpu: &mut Vcpu) {
    let mut mappings = mappings.lock();
    if TOPOLOGY_CHANGED.swap(false, Ordering::Relaxed) {
        mappings.unmap_removed(memory);
        vcpu.forget_translations();
    }
}

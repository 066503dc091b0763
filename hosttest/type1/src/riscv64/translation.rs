//! The guest's own page tables (RISC-V ISA manual vol. II, "Virtual Address Translation Process").

use vm_device::GuestAddress;
use vm_device::exit::MemoryAccessKind;

use crate::memory::GuestMemory;

/// What of the guest's state counts for its translation.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// `vsatp`: the format of the tables, and where their root is.
    pub satp: u64,
    /// `vsstatus`: whether the kernel may access the pages of its programs (SUM), and whether what may be fetched may be read (MXR).
    pub status: u64,
    /// Whether the guest's kernel runs, and not a program of it.
    pub is_kernel: bool,
}

/// Why there is no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Untranslated {
    /// The tables do not allow it: a page fault.
    Page,
    /// The tables are where no memory is: an access fault.
    Access,
}

mod entry {
    pub const VALID: u64 = 1;
    pub const READ: u64 = 1 << 1;
    pub const WRITE: u64 = 1 << 2;
    pub const FETCH: u64 = 1 << 3;
    pub const USER: u64 = 1 << 4;
    pub const ACCESSED: u64 = 1 << 6;
    pub const DIRTY: u64 = 1 << 7;
    pub const LEAF: u64 = READ | WRITE | FETCH;
    /// Bits that have to be clear: no extension that uses them is on.
    pub const RESERVED: u64 = 0x3ff << 54;
}

const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;

impl Paging {
    /// The guest physical address of a virtual one, if the guest's page tables allow this access to it. As its processor does, it marks
    /// the page as accessed, and as written.
    ///
    /// # Errors
    /// [`Untranslated`].
    pub fn translate(
        self,
        memory: GuestMemory,
        address: u64,
        kind: MemoryAccessKind,
    ) -> Result<GuestAddress, Untranslated> {
        let levels = match self.satp >> 60 {
            0 => return Ok(GuestAddress(address)),
            mode @ 8..=10 => mode - 5,
            _ => return Err(Untranslated::Page),
        };
        // The bits above those that are translated are as the last of these.
        let unused = 64 - (12 + 9 * levels);
        if ((address << unused) as i64 >> unused) as u64 != address {
            return Err(Untranslated::Page);
        }
        let mut table = (self.satp & ((1 << 44) - 1)) << 12;
        for level in (0..levels).rev() {
            let shift = 12 + 9 * level;
            let place = table | (address >> shift & 0x1ff) << 3;
            let mut bytes = [0; 8];
            memory.read(place, &mut bytes).ok_or(Untranslated::Access)?;
            let found = u64::from_le_bytes(bytes);
            let is_written_only = found & (entry::READ | entry::WRITE) == entry::WRITE;
            if found & entry::VALID == 0 || is_written_only || found & entry::RESERVED != 0 {
                return Err(Untranslated::Page);
            }
            let target = found >> 10 << 12;
            if found & entry::LEAF == 0 {
                table = target;
                continue;
            }
            let within = (1 << shift) - 1;
            if !self.allows(found, kind) || target & within != 0 {
                return Err(Untranslated::Page);
            }
            let mark = if kind == MemoryAccessKind::Write { entry::ACCESSED | entry::DIRTY } else { entry::ACCESSED };
            if found & mark != mark {
                memory.write(place, &(found | mark).to_le_bytes()).ok_or(Untranslated::Access)?;
            }
            return Ok(GuestAddress(target | address & within));
        }
        Err(Untranslated::Page)
    }

    /// Whether a page with this entry may be accessed so.
    fn allows(self, found: u64, kind: MemoryAccessKind) -> bool {
        let is_users = found & entry::USER != 0;
        let is_reached = match (self.is_kernel, is_users) {
            (true, true) => kind != MemoryAccessKind::Fetch && self.status & SUM != 0,
            (is_kernel, is_users) => is_kernel != is_users,
        };
        let needed = match kind {
            MemoryAccessKind::Write => entry::WRITE,
            MemoryAccessKind::Fetch => entry::FETCH,
            _ if self.status & MXR != 0 => entry::READ | entry::FETCH,
            _ => entry::READ,
        };
        is_reached && found & needed != 0
    }
}

//! The guest's own page tables.

use vm_device::GuestAddress;
use vm_device::exit::x86::MemoryAccessKind;

use super::fault::{Exception, Fault};
use super::stop::Stop;
use crate::memory::GuestMemory;
use crate::processor::vcpu::Vcpu;

/// Bits of the control registers: CR0.WP and CR0.PG.
const WRITE_PROTECT: u64 = 1 << 16;
const PAGING: u64 = 1 << 31;

/// Bits of an entry.
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NOT_EXECUTABLE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bits of the error code of a page fault (Intel SDM vol. 3A, 4.7).
const FAULT_PRESENT: u32 = 1 << 0;
const FAULT_WRITE: u32 = 1 << 1;
const FAULT_USER: u32 = 1 << 2;
const FAULT_FETCH: u32 = 1 << 4;

/// The guest physical address of a linear one, by the guest's page tables: none, or those of long mode with four levels (Intel SDM
/// vol. 3A, 4.5). The processor has walked them before the exit, and set what they say of accesses, for the first page of an
/// operand; for the next, neither is done here.
///
/// # Errors
/// The page fault that the guest gets, or a stop for tables that cannot be walked.
pub fn translate(memory: GuestMemory, vcpu: &Vcpu, linear: u64, kind: MemoryAccessKind) -> Result<GuestAddress, Fault> {
    if vcpu.cr0() & PAGING == 0 {
        return Ok(GuestAddress(linear & 0xffff_ffff));
    }
    if !vcpu.is_in_long_mode() {
        return Err(Stop::Paging { linear }.into());
    }
    let mut error_code = match kind {
        MemoryAccessKind::Read => 0,
        MemoryAccessKind::Write => FAULT_WRITE,
        MemoryAccessKind::Fetch => FAULT_FETCH,
    };
    let is_user = vcpu.privilege_level() == 3;
    if is_user {
        error_code |= FAULT_USER;
    }
    let mut table = vcpu.cr3() & ADDRESS;
    let mut rights = WRITABLE | USER;
    for level in (0..4).rev() {
        let shift = 12 + 9 * level;
        let place = table + (linear >> shift & 0x1ff) * 8;
        let mut entry = [0; 8];
        memory.read(place, &mut entry).ok_or(Stop::PageTables { address: GuestAddress(place) })?;
        let entry = u64::from_le_bytes(entry);
        if entry & PRESENT == 0 {
            return Err(Exception::page_fault(error_code, linear).into());
        }
        rights = rights & entry | (rights | entry) & NOT_EXECUTABLE;
        table = entry & ADDRESS;
        if level == 0 || level < 3 && entry & LARGE != 0 {
            let is_write_refused = rights & WRITABLE == 0 && (is_user || vcpu.cr0() & WRITE_PROTECT != 0);
            let is_refused = is_user && rights & USER == 0
                || kind == MemoryAccessKind::Write && is_write_refused
                || kind == MemoryAccessKind::Fetch && rights & NOT_EXECUTABLE != 0;
            if is_refused {
                return Err(Exception::page_fault(error_code | FAULT_PRESENT, linear).into());
            }
            let within = (1 << shift) - 1;
            return Ok(GuestAddress(table & !within | linear & within));
        }
    }
    Err(Stop::Paging { linear }.into())
}

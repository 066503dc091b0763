//! The guest's own page tables.

use crate::memory::GuestMemory;
use crate::processor::vcpu::Vcpu;

/// The guest physical address of a linear one, by the guest's page tables: none, or those of long mode (AMD APM
/// vol. 2, 5.3). `None` if nothing is mapped there.
pub fn translate(memory: GuestMemory, vcpu: &Vcpu, linear: u64) -> Option<u64> {
    const PAGING: u64 = 1 << 31;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    if vcpu.cr0() & PAGING == 0 {
        return Some(linear & 0xffff_ffff);
    }
    if !vcpu.is_in_long_mode() {
        return None;
    }
    let mut table = vcpu.cr3() & ADDRESS;
    for level in (0..4).rev() {
        let shift = 12 + 9 * level;
        let mut entry = [0; 8];
        memory.read(table + (linear >> shift & 0x1ff) * 8, &mut entry)?;
        let entry = u64::from_le_bytes(entry);
        if entry & 1 == 0 {
            return None;
        }
        table = entry & ADDRESS;
        if level == 0 || entry & 1 << 7 != 0 {
            let within = (1 << shift) - 1;
            return Some(table & !within | linear & within);
        }
    }
    None
}

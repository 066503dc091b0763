//! The guest's own page tables, and its memory by linear addresses.

use crate::memory::{GuestMemory, PAGE};
use crate::processor::vcpu::Vcpu;

/// Reads at a linear address, and tells how many bytes could be read before one that is not mapped, or no memory.
pub fn read_linear(memory: GuestMemory, vcpu: &Vcpu, linear: u64, data: &mut [u8]) -> usize {
    let mut done = 0;
    while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let (linear, length) = within_page(linear, done, rest.len());
        let read = translate(memory, vcpu, linear).and_then(|address| memory.read(address, &mut rest[..length]));
        if read.is_none() {
            break;
        }
        done += length;
    }
    done
}

/// Writes at a linear address, and tells how many bytes could be written.
pub fn write_linear(memory: GuestMemory, vcpu: &Vcpu, linear: u64, data: &[u8]) -> usize {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        let (linear, length) = within_page(linear, done, rest.len());
        let written = translate(memory, vcpu, linear).and_then(|address| memory.write(address, &rest[..length]));
        if written.is_none() {
            break;
        }
        done += length;
    }
    done
}

/// The guest physical address of a linear one, by the guest's page tables: none, or those of long mode (AMD APM
/// vol. 2, 5.3). `None` if nothing is mapped there.
pub fn translate(memory: GuestMemory, vcpu: &Vcpu, linear: u64) -> Option<u64> {
    const PAGING: u64 = 1 << 31;
    const LONG_MODE_ACTIVE: u64 = 1 << 10;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    if vcpu.vmcb.cr0 & PAGING == 0 {
        return Some(linear & 0xffff_ffff);
    }
    if vcpu.vmcb.efer & LONG_MODE_ACTIVE == 0 {
        return None;
    }
    let mut table = vcpu.vmcb.cr3 & ADDRESS;
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

/// The linear address `done` bytes further on, and how many of `rest` bytes lie in the same page.
fn within_page(linear: u64, done: usize, rest: usize) -> (u64, usize) {
    let linear = linear.wrapping_add(done as u64);
    (linear, rest.min((PAGE - linear % PAGE) as usize))
}

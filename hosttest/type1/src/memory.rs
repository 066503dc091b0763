//! The guest's memory, as the hypervisor reads and writes it.

use vm_device::IoRange;
use vm_device::exit::pieces;

use crate::svm::Vcpu;

/// Where the guest's memory lies in the machine's: below it is the hypervisor.
pub const GUEST_MEMORY: u64 = 64 << 20;

/// The part of the first MiB that is no memory: windows of adapters, and firmware.
pub const HOLE: core::ops::Range<u64> = 0xa_0000..0x10_0000;

/// The guest's memory: guest physical addresses from 0 on, but for the [`HOLE`].
#[derive(Clone, Copy)]
pub struct GuestMemory {
    /// The address behind the last byte.
    pub end: u64,
}

impl GuestMemory {
    /// The ranges of memory, and where each lies in the machine's.
    pub fn ranges(self) -> impl Iterator<Item = (IoRange, u64)> {
        [(0, HOLE.start - 1), (HOLE.end, self.end - 1)]
            .into_iter()
            .filter_map(|(first, last)| Some((IoRange::new(first.into(), last.into()).ok()?, GUEST_MEMORY + first)))
    }

    fn host(self, address: u64, length: usize) -> Option<*mut u8> {
        let end = address.checked_add(length as u64)?;
        let hole = address < HOLE.end && HOLE.start < end;
        (end <= self.end && !hole).then(|| (GUEST_MEMORY + address) as *mut u8)
    }

    /// Reads at the guest physical `address`. `None` if that is not all memory.
    pub fn read(self, address: u64, data: &mut [u8]) -> Option<()> {
        let source = self.host(address, data.len())?;
        // SAFETY: the range lies in the guest's memory, to which there are no references, so it does not overlap `data`.
        unsafe { core::ptr::copy_nonoverlapping(source, data.as_mut_ptr(), data.len()) };
        Some(())
    }

    /// Writes at the guest physical `address`. `None` if that is not all memory.
    pub fn write(self, address: u64, data: &[u8]) -> Option<()> {
        let target = self.host(address, data.len())?;
        // SAFETY: as in `read`.
        unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), target, data.len()) };
        Some(())
    }

    /// Reads at a linear address, at most a page, and tells how many bytes could be read before one that is not mapped, or no
    /// memory.
    pub fn read_linear(self, vcpu: &Vcpu, linear: u64, data: &mut [u8]) -> usize {
        let mut done = 0;
        for (linear, length) in pieces(linear, data.len(), u64::MAX) {
            let piece = &mut data[done..done + length];
            if self.translate(vcpu, linear).and_then(|address| self.read(address, piece)).is_none() {
                break;
            }
            done += length;
        }
        done
    }

    /// The guest physical address of a linear one, by the guest's page tables: none, or those of long mode (AMD APM
    /// vol. 2, 5.3). `None` if nothing is mapped there.
    pub fn translate(self, vcpu: &Vcpu, linear: u64) -> Option<u64> {
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
            self.read(table + (linear >> shift & 0x1ff) * 8, &mut entry)?;
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
}

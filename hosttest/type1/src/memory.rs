//! The guest's memory, as the hypervisor reads and writes it.

use crate::svm::Vmcb;

/// Where the guest's memory lies in the machine's: below it is the hypervisor.
pub const GUEST_MEMORY: u64 = 64 << 20;

/// The guest's memory: guest physical addresses from 0 on.
#[derive(Clone, Copy)]
pub struct GuestMemory {
    /// Its size in bytes.
    pub size: u64,
}

impl GuestMemory {
    fn host(self, address: u64, length: usize) -> Option<*mut u8> {
        let end = address.checked_add(length as u64)?;
        (end <= self.size).then(|| (GUEST_MEMORY + address) as *mut u8)
    }

    /// Reads at the guest physical `address`. `None` if that is not all memory.
    pub fn read(self, address: u64, data: &mut [u8]) -> Option<()> {
        let source = self.host(address, data.len())?;
        // SAFETY: the range lies in the guest's memory, of which there are no references, so it does not overlap `data`.
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

    fn read_u64(self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// The guest physical address of a linear one, by the guest's page tables (AMD APM vol. 2, 5.3): none, or those of
    /// long mode. `None` if nothing is mapped there.
    pub fn translate(self, vcpu: &Vmcb, linear: u64) -> Option<u64> {
        const PAGING: u64 = 1 << 31;
        const LONG_MODE_ACTIVE: u64 = 1 << 10;
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        if vcpu.cr0 & PAGING == 0 {
            return Some(linear & 0xffff_ffff);
        }
        if vcpu.efer & LONG_MODE_ACTIVE == 0 {
            return None;
        }
        let mut table = vcpu.cr3 & ADDRESS;
        for level in (0..4).rev() {
            let shift = 12 + 9 * level;
            let entry = self.read_u64(table + (linear >> shift & 0x1ff) * 8)?;
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

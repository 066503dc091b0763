//! The guest's memory, as the hypervisor reads and writes it.

use core::ops::Range;

use vm_device::IoRange;

/// Memory for the processor: aligned to pages.
#[repr(C, align(4096))]
pub struct Page<const BYTES: usize>(pub [u8; BYTES]);

/// The size of a page in bytes.
pub const PAGE: u64 = 4096;

/// The guest's memory: up to two ranges of guest physical addresses.
#[derive(Clone, Copy)]
pub struct GuestMemory {
    /// First and last address of each range.
    ranges: [(u64, u64); 2],
    /// How much further on each byte lies in the machine's memory.
    offset: u64,
}

impl GuestMemory {
    /// Memory at these guest physical addresses, which may be empty ranges. It lies `offset` bytes further on in the machine's.
    ///
    /// # Safety
    /// That is memory of the machine, and nothing but the guest uses it.
    pub const unsafe fn new(ranges: [Range<u64>; 2], offset: u64) -> Self {
        Self { ranges: [(ranges[0].start, ranges[0].end), (ranges[1].start, ranges[1].end)], offset }
    }

    /// The ranges, and where each lies in the machine's memory.
    pub fn ranges(self) -> impl Iterator<Item = (IoRange, u64)> {
        self.ranges.into_iter().filter(|(first, end)| first < end).filter_map(move |(first, end)| {
            Some((IoRange::new(first.into(), (end - 1).into()).ok()?, first + self.offset))
        })
    }

    fn host(self, address: u64, length: usize) -> Option<*mut u8> {
        let end = address.checked_add(length as u64)?;
        let inside = self.ranges.iter().any(|range| range.0 <= address && end <= range.1);
        inside.then(|| (address + self.offset) as *mut u8)
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
}

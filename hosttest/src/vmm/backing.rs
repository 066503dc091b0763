//! Memory for the [`PhysicalMmio`](IoType::PhysicalMmio) ranges of an address map.

use std::io;
use std::sync::Arc;

use vm_device::{IoRange, IoType, MappedRange, RangeState};

use crate::vmm::memory::{Memory, PAGE};

/// A physically backed range of a device, and the memory behind it.
pub struct Backed {
    /// Where it is.
    pub range: IoRange,
    /// What the guest sees there.
    pub memory: Arc<Memory>,
}

/// Memory for every physically backed range of an address map that is decoded.
///
/// # Errors
/// What the host refuses: no memory, a range that is not made of whole pages.
pub fn backing<'d>(map: impl Iterator<Item = MappedRange<'d>>) -> io::Result<Vec<Backed>> {
    let physical = |entry: &MappedRange<'d>| {
        entry.assigned.io_type == IoType::PhysicalMmio && entry.assigned.state == RangeState::Decoded
    };
    let back = |entry: MappedRange<'d>| {
        let range = entry.assigned.range;
        let size = range.size().map_or(0, |size| size.0);
        if !size.is_multiple_of(PAGE) {
            return Err(io::Error::other(format!("{range} of {} is not made of whole pages", entry.owner)));
        }
        Ok(Backed { range, memory: Arc::new(Memory::new(size)?) })
    };
    map.filter(physical).map(back).collect()
}

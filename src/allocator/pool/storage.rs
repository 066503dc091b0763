//! The memory of a pool, in place or on the heap.

use super::{Counts, Pool};
use crate::allocator::bounds::SystemAllocator;
use crate::allocator::range::RangeRecord;
use crate::arrays::{Arrays, InPlace};
#[cfg(feature = "alloc")]
use crate::arrays::{Boxed, Exhausted, boxed};
use crate::indices::SlotIndex;

/// The memory of a pool; all zeros at first.
pub(crate) struct PoolStorage<R: Arrays> {
    records: R::Of<RangeRecord>,
    alignments: R::Of<u8>,
    order: R::Of<Option<SlotIndex>>,
    counts: Counts,
}

impl<const RANGES: usize> PoolStorage<InPlace<RANGES>> {
    const CAPACITY: () =
        assert!(RANGES < u16::MAX as usize, "RANGES, the number of ranges there is room for, must be at most 65534");

    pub(crate) const fn new() -> Self {
        let () = Self::CAPACITY;
        Self {
            records: [RangeRecord::UNUSED; RANGES],
            alignments: [0; RANGES],
            order: [None; RANGES],
            counts: Counts::NEW,
        }
    }
}

#[cfg(feature = "alloc")]
impl PoolStorage<Boxed> {
    /// With room for so many ranges.
    pub(crate) fn boxed(ranges: usize) -> Result<Self, Exhausted> {
        Ok(Self {
            records: boxed(ranges, || RangeRecord::UNUSED)?,
            alignments: boxed(ranges, || 0)?,
            order: boxed(ranges, || None)?,
            counts: Counts::NEW,
        })
    }
}

impl<R: Arrays> PoolStorage<R> {
    pub(crate) fn pool(&mut self, allocator: &SystemAllocator) -> Pool<'_> {
        let Self { records, alignments, order, counts } = self;
        Pool {
            records: records.as_mut(),
            alignments: alignments.as_mut(),
            order: order.as_mut(),
            counts,
            allocator: *allocator,
        }
    }
}

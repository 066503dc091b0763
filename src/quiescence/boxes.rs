//! The memory of slots and of readers' words on the heap.

use alloc::boxed::Box;

use super::hazard::PerVcpu;
use super::slot::Slot;
use super::{Shared, Slots};
use crate::arrays::{Exhausted, boxed};

/// As [`SlotStorage`](super::SlotStorage), of capacities known at run time.
pub(crate) struct SlotBoxes<T> {
    /// By number; number 0 is never filled.
    slots: Box<[Slot<T>]>,
    vcpus: Box<[PerVcpu]>,
    shared: Shared,
}

impl<T> SlotBoxes<T> {
    pub(crate) fn new(ranges: usize, vcpus: usize) -> Result<Self, Exhausted> {
        let slots = boxed(ranges.saturating_add(1), Slot::new)?;
        Ok(Self { slots, vcpus: boxed(vcpus, PerVcpu::new)?, shared: Shared::new() })
    }

    /// As [`SlotStorage::slots`](super::SlotStorage::slots).
    pub(crate) fn slots(&self) -> Slots<'_, T> {
        Slots { slots: &self.slots, vcpus: &self.vcpus, shared: &self.shared, heavy_barrier: None }
    }
}

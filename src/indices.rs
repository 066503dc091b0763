//! The indices by which the core names its parts. Each part has a type of its own, so that none is taken for another. None of
//! them is zero, so that an `Option` of one is `None` in zeroed memory.

use core::num::NonZeroU16;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub(crate) struct $name(NonZeroU16);

        impl $name {
            /// The index of the element at `position` of an array, if it is among the first 65,535.
            #[inline(always)]
            pub(crate) fn at(position: usize) -> Option<Self> {
                NonZeroU16::new(u16::try_from(position.checked_add(1)?).ok()?).map(Self)
            }

            /// Where the element stands in its array.
            #[inline(always)]
            pub(crate) fn position(self) -> usize {
                usize::from(self.0.get()).wrapping_sub(1)
            }
        }
    };
}

index! {
    /// A slot, and the allocator's record of the same range.
    SlotIndex
}
index! {
    /// A node of the tree: a bus or a device.
    NodeIndex
}
index! {
    /// The record and the level of an interrupt line in use.
    LineIndex
}
index! {
    /// A connection: one interrupt of a device.
    ConnectionIndex
}
index! {
    /// The hazard record of a vCPU.
    RecordIndex
}

macro_rules! numbered {
    ($($name:ident)*) => {
        $(impl $name {
            /// The index with this [`number`](Self::number); 0 is the number of none.
            #[inline(always)]
            pub(crate) fn from_number(number: u16) -> Option<Self> {
                NonZeroU16::new(number).map(Self)
            }

            /// The index as a number, for a word in which 0 says "none": one more than the position.
            #[inline(always)]
            pub(crate) fn number(self) -> u16 {
                self.0.get()
            }
        })*
    };
}

numbered! { SlotIndex LineIndex }

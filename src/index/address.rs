//! The atomics that hold addresses: 16 bits for ports, 64 for memory.

use crate::address::Space;
use crate::sync::{AtomicU16, AtomicU64, Ordering};

/// An atomic that holds an address of one space.
pub(crate) trait AtomicAddress: 'static {
    const SPACE: Space;
    /// The last address of the space.
    const LAST: u64 = Self::SPACE.last_address().0;
    fn get(&self) -> u64;
    fn set(&self, address: u64);
}

macro_rules! atomic_address {
    ($atomic:ty, $integer:ty, $space:expr) => {
        impl AtomicAddress for $atomic {
            const SPACE: Space = $space;
            #[inline(always)]
            fn get(&self) -> u64 {
                self.load(Ordering::Relaxed) as u64
            }
            #[inline(always)]
            fn set(&self, address: u64) {
                self.store(address as $integer, Ordering::Relaxed);
            }
        }
    };
}

atomic_address!(AtomicU16, u16, Space::Ports);
atomic_address!(AtomicU64, u64, Space::Memory);

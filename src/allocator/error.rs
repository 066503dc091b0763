//! Why an address pool refuses.

use core::fmt;

use super::range::Block;
use crate::address::{GuestUsize, IoRange};

/// Why a range of addresses was not allocated or freed. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// There is no pool for this space: the allocator was given no ports.
    NoPool,
    /// The bounds given for the ports pass port `0xffff`.
    BeyondPorts {
        /// The bounds that were given.
        bounds: IoRange,
    },
    /// A range of size 0.
    Empty,
    /// An alignment that is no power of two.
    BadAlignment {
        /// The alignment that was asked for.
        align: u64,
    },
    /// The range does not lie within the pool.
    OutsidePool {
        /// The range that was asked for.
        wanted: IoRange,
        /// The bounds of the pool.
        pool: IoRange,
    },
    /// The range does not lie within the window it was to be allocated in.
    OutsideWindow {
        /// The range that was asked for.
        wanted: IoRange,
        /// The window.
        window: Block,
    },
    /// Something else is there.
    Overlap {
        /// The range that was asked for.
        wanted: IoRange,
        /// The lowest block in the way.
        taken: Block,
    },
    /// No free place is large enough.
    NoRoom {
        /// The size that was asked for.
        size: GuestUsize,
        /// The alignment that was asked for.
        align: u64,
        /// Where the range was to lie.
        within: IoRange,
    },
    /// There is no room for another range.
    Full {
        /// For how many ranges there is, those of both spaces and those of the VMM together.
        capacity: usize,
    },
    /// Windows are nested too deeply for anything to lie in the innermost.
    TooDeep {
        /// The innermost window, with 255 others around it.
        window: Block,
    },
    /// No block with this range and this owner is allocated.
    NotAllocated {
        /// The range that was to be freed.
        range: IoRange,
    },
    /// The window cannot be freed, since something is allocated in it.
    WindowInUse {
        /// The window.
        window: Block,
        /// The lowest block in it.
        inside: Block,
    },
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolError::NoPool => f.write_str("the allocator was given no ports: `with_ports` gives it some"),
            PoolError::BeyondPorts { bounds } => {
                write!(f, "the ports that the allocator was given by `with_ports`, {bounds}, pass port 0xffff")
            }
            PoolError::Empty => f.write_str("a range of size 0 cannot be allocated"),
            PoolError::BadAlignment { align } => write!(f, "the alignment {align:#x} is no power of two"),
            PoolError::OutsidePool { wanted, pool } => write!(f, "{wanted} lies outside the pool {pool}"),
            PoolError::OutsideWindow { wanted, window } => write!(f, "{wanted} lies outside the window {window}"),
            PoolError::Overlap { wanted, taken } => write!(f, "{wanted} overlaps {taken}"),
            PoolError::NoRoom { size, align, within } => {
                write!(f, "no free range of size {size}, aligned to {align:#x}, lies within {within}")
            }
            PoolError::Full { capacity } => {
                write!(f, "all {capacity} ranges are in use, as many as `RANGES` says, those of the VMM included")
            }
            PoolError::TooDeep { window } => write!(f, "the window {window} is nested too deeply to hold anything"),
            PoolError::NotAllocated { range } => write!(f, "{range} is not allocated to this owner"),
            PoolError::WindowInUse { window, inside } => {
                write!(f, "the window {window} cannot be freed while {inside} is allocated in it")
            }
        }
    }
}

impl core::error::Error for PoolError {}

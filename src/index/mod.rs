//! The sorted range table: segments of one address space, searched by every dispatch that no hint serves.
//!
//! # Invariants
//! At rest (between publications), for each of the two replicas:
//! - `starts` is strictly ascending over the first `length` entries, and all ones behind them;
//! - entry `i` says that from `starts[i]` on, up to the next start, accesses belong to the slot `owners[i]`, or to none if that
//!   is 0. Where the slot's range is no window and lies in none, they belong to it up to the range's last address, if that comes
//!   first;
//! - an entry stands at each first address of a range, and behind the last address of each window and of each range in a window,
//!   unless that is the last address of the space. No other entry stands anywhere.
//!
//! So the end of a window is a start, whatever the length in its slot says. And each start is the first address of a range, or
//! the one behind its last: n ranges have at most 2 n entries.
//!
//! A late reader may search a replica that is being changed. Its search ends with any result, and the version check throws the
//! result away. That is why every element is an atomic, and why no position here is taken to be in bounds.

mod address;
mod edit;
#[cfg(all(test, not(vm_device_loom)))]
mod edit_tests;
mod search;

pub(crate) use address::AtomicAddress;
pub(crate) use edit::IndexWriter;
use edit::Starts;
use search::{search_block, search_halves};

#[cfg(feature = "alloc")]
use alloc::boxed::Box;

use crate::address::Space;
#[cfg(feature = "alloc")]
use crate::arrays::{Exhausted, boxed};
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering, array, cold_path, const_fn};

/// The memory of the two replicas of one space's table; all zeros at first. Each has room for twice the number of ranges:
/// for both ends of each.
pub(crate) struct TableStorage<A, const RANGES: usize> {
    lengths: [AtomicU32; 2],
    starts: [[[A; RANGES]; 2]; 2],
    owners: [[[AtomicU16; RANGES]; 2]; 2],
}

/// The table of one space.
pub(crate) struct Table<'a, A> {
    /// How many entries each replica has.
    lengths: &'a [AtomicU32; 2],
    even: Replica<'a, A>,
    odd: Replica<'a, A>,
}

/// One replica of a table.
struct Replica<'a, A> {
    starts: &'a [A],
    owners: &'a [AtomicU16],
}

/// The entry that a search has found. From the address that was searched for up to `next`, the addresses in the owner's range
/// belong to the owner.
pub(crate) struct Entry {
    /// The number of a slot's index, or 0.
    pub(crate) owner: usize,
    pub(crate) next: u64,
}

macro_rules! storage {
    ($atomic:ty) => {
        impl<const RANGES: usize> TableStorage<$atomic, RANGES> {
            const_fn! {
                pub(crate) fn new() -> Self {
                    Self {
                        lengths: array![AtomicU32::new(0); 2],
                        starts: array![array![array![<$atomic>::new(0); RANGES]; 2]; 2],
                        owners: array![array![array![AtomicU16::new(0); RANGES]; 2]; 2],
                    }
                }
            }
        }
    };
}

storage!(AtomicU16);
storage!(AtomicU64);

/// As [`TableStorage`], on the heap, for a number of ranges known at run time.
#[cfg(feature = "alloc")]
pub(crate) struct TableBoxes<A> {
    lengths: [AtomicU32; 2],
    starts: [Box<[A]>; 2],
    owners: [Box<[AtomicU16]>; 2],
}

#[cfg(feature = "alloc")]
impl<A: Default> TableBoxes<A> {
    pub(crate) fn new(ranges: usize) -> Result<Self, Exhausted> {
        let entries = ranges.saturating_mul(2);
        let starts = || boxed(entries, A::default);
        let owners = || boxed(entries, || AtomicU16::new(0));
        Ok(Self {
            lengths: array![AtomicU32::new(0); 2],
            starts: [starts()?, starts()?],
            owners: [owners()?, owners()?],
        })
    }

    pub(crate) fn table(&self) -> Table<'_, A> {
        let Self { lengths, starts: [even, odd], owners: [even_owners, odd_owners] } = self;
        Table {
            lengths,
            even: Replica { starts: even, owners: even_owners },
            odd: Replica { starts: odd, owners: odd_owners },
        }
    }
}

impl<A, const RANGES: usize> TableStorage<A, RANGES> {
    pub(crate) const fn table(&self) -> Table<'_, A> {
        let Self { lengths, starts: [even, odd], owners: [even_owners, odd_owners] } = self;
        let (even_starts, odd_starts) = (even.as_flattened(), odd.as_flattened());
        let (even_owners, odd_owners) = (even_owners.as_flattened(), odd_owners.as_flattened());
        Table {
            lengths,
            even: Replica { starts: even_starts, owners: even_owners },
            odd: Replica { starts: odd_starts, owners: odd_owners },
        }
    }
}

impl<'a, A: AtomicAddress> Table<'a, A> {
    /// The replica that `version` selects, and its length. By a branch, which the processor predicts, so that the search need
    /// not wait for the version.
    #[inline(always)]
    fn replica(&self, version: u64) -> (&Replica<'a, A>, &'a AtomicU32) {
        let [even, odd] = self.lengths;
        if version & 1 == 0 {
            (&self.even, even)
        } else {
            cold_path();
            (&self.odd, odd)
        }
    }

    /// See [`Index::fill`].
    fn fill(&self) {
        for start in self.even.starts.iter().chain(self.odd.starts) {
            start.set(u64::MAX);
        }
    }

    fn writer(&self, version: u64, starts: fn(&'a [A]) -> Starts<'a>) -> IndexWriter<'a> {
        let (replica, length) = self.replica(version);
        IndexWriter::new(length, starts(replica.starts), replica.owners)
    }

    /// The entry for `address`, in the replica that `version` selects.
    #[inline(always)]
    pub(crate) fn find_entry(&self, version: u64, address: u64) -> Entry {
        let (replica, length) = self.replica(version);
        replica.find_entry(length, address)
    }
}

impl<A: AtomicAddress> Replica<'_, A> {
    /// The entry for `address`, which is below the last address of the space. For an address below the first start it is the
    /// first entry; the caller sees that the address lies before the owner's range. The `next` of the last entry is the last
    /// address of the space.
    #[inline(never)]
    fn find_entry(&self, length: &AtomicU32, address: u64) -> Entry {
        let length = length.load(Ordering::Relaxed) as usize;
        match search_block(self.starts, length, address) {
            Some(position) => self.entry_at(position),
            None => self.find_entry_by_halves(length, address),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_entry_by_halves(&self, length: usize, address: u64) -> Entry {
        self.entry_at(search_halves(self.starts, length, address))
    }

    #[inline(always)]
    fn entry_at(&self, position: usize) -> Entry {
        Entry {
            owner: self.owners.get(position).map_or(0, |owner| owner.load(Ordering::Relaxed).into()),
            next: self.starts.get(position + 1).map_or(A::LAST, A::get),
        }
    }
}

/// The tables of both spaces.
pub(crate) struct Index<'a> {
    pub(crate) ports: Table<'a, AtomicU16>,
    pub(crate) memory: Table<'a, AtomicU64>,
}

impl<'a> Index<'a> {
    /// Comes before the first publication: sets all starts to all ones, as they are behind those in use. An earlier search
    /// finds no owner in any entry.
    pub(crate) fn fill(&self) {
        self.ports.fill();
        self.memory.fill();
    }

    /// The replica of a space's table that `version` selects, for writers and the slow path. A writer changes it only while
    /// it is not the live one.
    #[inline(never)]
    pub(crate) fn writer(&self, space: Space, version: u64) -> IndexWriter<'a> {
        match space {
            Space::Ports => self.ports.writer(version, Starts::Ports),
            Space::Memory => self.memory.writer(version, Starts::Memory),
        }
    }
}

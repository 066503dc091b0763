//! Lower bounds of a dispatch: a call of the device, what finds it, and what the guarantee of removals needs.

use std::hint::cold_path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use vm_device::IoType;

use super::layout::Layout;
use super::subject::{Register, Subject, leaked, of_kind};

pub(super) const BARE_BOUND: &str = "a bare dyn call";
pub(super) const PROTECTED_BOUND: &str = "a bare dyn call, protected";
pub(super) const LAST_HIT_BOUND: &str = "a last hit and a dyn call, asymmetric";
const SEARCHED_BOUND: &str = "a search and a dyn call";
const SEARCHED_PROTECTED_BOUND: &str = "a search and a dyn call, protected";
pub(super) const HINTED_BOUND: &str = "a hint and a dyn call, protected";
pub(super) const HINTED_ASYMMETRIC_BOUND: &str = "a hint and a dyn call, asymmetric";

trait Bare: Sync {
    fn read(&self, offset: u64, data: &mut [u8]);
}

impl<const KIND: u64> Bare for Register<KIND> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.answer(offset, data);
    }
}

fn bare<const KIND: u64>() -> Box<dyn Bare + Send> {
    Box::new(Register::<KIND>::new())
}

/// The lower bounds, of several parts of a dispatch.
pub(super) fn lower_bounds(layout: &Layout) -> Vec<Subject> {
    // Each has a table of its own, so that none finds in the caches what another one has read.
    let table = || Arc::new(Table::of(layout));
    vec![
        bare_bound(table()),
        protected_bound(table()),
        last_hit_bound(Table::of(layout)),
        searched_bound(table()),
        searched_protected_bound(table()),
        hinted_bound::<PORTABLE>(HINTED_BOUND, table()),
        hinted_bound::<ASYMMETRIC>(HINTED_ASYMMETRIC_BOUND, table()),
    ]
}

/// All that is kept of one range, in one cache line.
#[repr(align(64))]
struct Range {
    first: u64,
    last: u64,
    device: Box<dyn Bare + Send>,
    /// What a removal changes.
    state: AtomicU32,
}

const OPEN: u32 = 1;

/// The ranges by address.
struct Table {
    starts: Vec<u64>,
    ranges: Vec<Range>,
    /// The logarithm of how many addresses have the same hint.
    granule: u32,
}

impl Table {
    fn of(layout: &Layout) -> Self {
        let starts = layout.ranges.iter().map(|(first, _)| *first).collect();
        let ranges = (layout.ranges.iter().enumerate())
            .map(|(i, &(first, last))| {
                let device = of_kind!(i % layout.types, bare());
                Range { first, last, device, state: AtomicU32::new(OPEN) }
            })
            .collect();
        let granule = if layout.io_type == IoType::Pio { 2 } else { 9 };
        Self { starts, ranges, granule }
    }

    /// The number of the last range that does not start above `address`.
    #[inline(always)]
    fn search(&self, address: u64) -> Option<usize> {
        self.starts.partition_point(|start| *start <= address).checked_sub(1)
    }

    /// The range, if the whole access is in it, and the offset into it.
    #[inline(always)]
    fn at(&self, number: usize, address: u64) -> Option<(&Range, u64)> {
        let range = self.ranges.get(number)?;
        (range.first <= address && address + 3 <= range.last).then(|| (range, address - range.first))
    }
}

/// Which fence orders a protection before what comes after it.
const PORTABLE: bool = false;
const ASYMMETRIC: bool = true;

/// The word of one thread.
#[repr(align(64))]
struct HazardWord(AtomicU32);

impl HazardWord {
    fn new() -> Box<Self> {
        Box::new(Self(AtomicU32::new(0)))
    }

    /// What a removal that waits for readers needs of them: a word that is written, and ordered before a look at the state that
    /// a removal changes, and that is cleared after the call.
    #[inline(always)]
    fn protected_call<const FENCE: bool>(&self, number: usize, range: &Range, offset: u64, data: &mut [u8]) {
        let word = number as u32 + 1;
        match FENCE {
            ASYMMETRIC => {
                self.0.store(word, Ordering::Release);
                compiler_fence(Ordering::SeqCst);
            }
            PORTABLE => {
                self.0.swap(word, Ordering::SeqCst);
            }
        }
        if range.state.load(Ordering::SeqCst) == OPEN {
            range.device.read(offset, data);
        }
        self.0.store(0, Ordering::Release);
    }
}

/// A bare call of the right device, which is known beforehand: what any dispatch has to add to.
fn bare_bound(table: Arc<Table>) -> Subject {
    Subject::new(BARE_BOUND, &table, |table| {
        move |number, data| {
            if let Some(range) = table.ranges.get(number as usize) {
                range.device.read(number, data);
            }
        }
    })
    .knowing_ranges()
}

/// The bare call, protected: what any dispatch with the guarantee has to add to.
fn protected_bound(table: Arc<Table>) -> Subject {
    Subject::new(PROTECTED_BOUND, &table, |table| {
        let word = HazardWord::new();
        move |number, data| {
            if let Some(range) = table.ranges.get(number as usize) {
                word.protected_call::<PORTABLE>(number as usize, range, number, data);
            }
        }
    })
    .knowing_ranges()
}

/// The range of the access before, if it has all of this one too, and the protected call: what any dispatch of one range
/// again and again has to add to.
fn last_hit_bound(table: Table) -> Subject {
    // It stays, because a reader keeps a reference into it from one access to the next.
    let table: &'static Table = leaked(table);
    Subject::new(LAST_HIT_BOUND, &Arc::new(table), |table| {
        let table: &'static Table = *table;
        let (word, mut last) = (HazardWord::new(), 0);
        let mut range = table.ranges.first();
        move |address: u64, data| {
            if range.is_none_or(|range| address < range.first || range.last < address + 3) {
                cold_path();
                last = table.search(address).unwrap_or_default();
                range = table.ranges.get(last);
            }
            if let Some(range) = range {
                word.protected_call::<ASYMMETRIC>(last, range, address - range.first, data);
            }
        }
    })
}

/// A search of a sorted array, and the bare call: what any dispatch that finds its device by address has to add to.
fn searched_bound(table: Arc<Table>) -> Subject {
    Subject::new(SEARCHED_BOUND, &table, |table| {
        move |address: u64, data| {
            if let Some((range, offset)) = table.search(address).and_then(|number| table.at(number, address)) {
                range.device.read(offset, data);
            }
        }
    })
}

/// The search, and the protected call: what any dispatch that does both has to add to.
fn searched_protected_bound(table: Arc<Table>) -> Subject {
    Subject::new(SEARCHED_PROTECTED_BOUND, &table, |table| {
        let word = HazardWord::new();
        move |address: u64, data| {
            if let Some(number) = table.search(address)
                && let Some((range, offset)) = table.at(number, address)
            {
                word.protected_call::<PORTABLE>(number, range, offset, data);
            }
        }
    })
}

/// So many that hardly any range evicts another.
const HINTS: usize = 8192;

/// A look where the range was found before, and the protected call: what any dispatch that finds its device without a search
/// has to add to.
fn hinted_bound<const FENCE: bool>(name: &'static str, table: Arc<Table>) -> Subject {
    Subject::new(name, &table, |table| {
        let (word, mut hints) = (HazardWord::new(), [0_u16; HINTS]);
        move |address: u64, data| {
            let near = (address >> table.granule) as usize;
            let Some(hint) = hints.get_mut((near ^ (near >> HINTS.ilog2())) % HINTS) else { return };
            let found = table.at((*hint).into(), address).or_else(|| {
                cold_path();
                *hint = table.search(address)? as u16;
                table.at((*hint).into(), address)
            });
            if let Some((range, offset)) = found {
                word.protected_call::<FENCE>((*hint).into(), range, offset, data);
            }
        }
    })
}

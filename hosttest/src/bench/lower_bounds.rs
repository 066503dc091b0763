//! The least that has to be done of a dispatch: a call of the device, what finds it, and what the guarantee of removals
//! needs.

use std::hint::cold_path;
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use vm_device::IoType;

use super::layout::Layout;
use super::subject::{Register, Subject, leaked, of_kind};

pub(super) const FLOOR: &str = "a bare dyn call";
pub(super) const ANNOUNCED_FLOOR: &str = "a bare dyn call, announced";
pub(super) const LAST_HIT_FLOOR: &str = "a last hit and a dyn call, asymmetric";
const SEARCHED_FLOOR: &str = "a search and a dyn call";
const SEARCHED_ANNOUNCED_FLOOR: &str = "a search and a dyn call, announced";
pub(super) const HINTED_FLOOR: &str = "a hint and a dyn call, announced";
pub(super) const HINTED_ASYMMETRIC_FLOOR: &str = "a hint and a dyn call, asymmetric";

trait Bare: Sync {
    fn read(&self, offset: u64, data: &mut [u8]);
}

impl<const KIND: u64> Bare for Register<KIND> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.answer(offset, data);
    }
}

fn bare<const KIND: u64>() -> &'static dyn Bare {
    leaked(Register::<KIND>::new())
}

/// The least that has to be done, of one part of a dispatch and of another.
pub(super) fn lower_bounds(layout: &Layout) -> Vec<Subject> {
    // A table each, so that none finds in the caches what another one has read.
    let table = || Table::of(layout);
    vec![
        floor(table()),
        announced_floor(table()),
        last_hit_floor(table()),
        searched_floor(table()),
        searched_announced_floor(table()),
        hinted_floor::<PORTABLE>(HINTED_FLOOR, table()),
        hinted_floor::<ASYMMETRIC>(HINTED_ASYMMETRIC_FLOOR, table()),
    ]
}

/// All that is kept of one range, in one cache line.
#[repr(align(64))]
struct Range {
    first: u64,
    last: u64,
    device: &'static dyn Bare,
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
    fn of(layout: &Layout) -> &'static Self {
        let starts = layout.ranges.iter().map(|(first, _)| *first).collect();
        let ranges = (layout.ranges.iter().enumerate())
            .map(|(i, &(first, last))| {
                let device = of_kind!(i % layout.types, bare());
                Range { first, last, device, state: AtomicU32::new(OPEN) }
            })
            .collect();
        let granule = if layout.io_type == IoType::Pio { 2 } else { 9 };
        leaked(Self { starts, ranges, granule })
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

/// Which fence orders an announcement before what comes after it.
const PORTABLE: bool = false;
const ASYMMETRIC: bool = true;

/// The word of one thread.
#[repr(align(64))]
struct Line(AtomicU32);

impl Line {
    fn new() -> &'static Self {
        leaked(Self(AtomicU32::new(0)))
    }

    /// What a removal that waits for readers needs of them: a word written and ordered before a look at what a removal
    /// changes, and taken back after the call.
    #[inline(always)]
    fn announced<const FENCE: bool>(&self, number: usize, range: &Range, offset: u64, data: &mut [u8]) {
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
fn floor(table: &'static Table) -> Subject {
    Subject::new(FLOOR, move || {
        move |number, data| {
            if let Some(range) = table.ranges.get(number as usize) {
                range.device.read(number, data);
            }
        }
    })
    .knowing_ranges()
}

/// The bare call, announced: what any dispatch with the guarantee has to add to.
fn announced_floor(table: &'static Table) -> Subject {
    Subject::new(ANNOUNCED_FLOOR, move || {
        let line = Line::new();
        move |number, data| {
            if let Some(range) = table.ranges.get(number as usize) {
                line.announced::<PORTABLE>(number as usize, range, number, data);
            }
        }
    })
    .knowing_ranges()
}

/// The range of the access before, if it has all of this one too, and the announced call: what any dispatch of one range
/// again and again has to add to.
fn last_hit_floor(table: &'static Table) -> Subject {
    Subject::new(LAST_HIT_FLOOR, move || {
        let (line, mut last) = (Line::new(), 0);
        let mut range = table.ranges.first();
        move |address: u64, data| {
            if range.is_none_or(|range| address < range.first || range.last < address + 3) {
                cold_path();
                last = table.search(address).unwrap_or_default();
                range = table.ranges.get(last);
            }
            if let Some(range) = range {
                line.announced::<ASYMMETRIC>(last, range, address - range.first, data);
            }
        }
    })
}

/// A search of a sorted array, and the bare call: what any dispatch that finds its device by address has to add to.
fn searched_floor(table: &'static Table) -> Subject {
    Subject::new(SEARCHED_FLOOR, move || {
        move |address: u64, data| {
            if let Some((range, offset)) = table.search(address).and_then(|number| table.at(number, address)) {
                range.device.read(offset, data);
            }
        }
    })
}

/// The search, and the announced call: what any dispatch that does both has to add to.
fn searched_announced_floor(table: &'static Table) -> Subject {
    Subject::new(SEARCHED_ANNOUNCED_FLOOR, move || {
        let line = Line::new();
        move |address: u64, data| {
            if let Some(number) = table.search(address)
                && let Some((range, offset)) = table.at(number, address)
            {
                line.announced::<PORTABLE>(number, range, offset, data);
            }
        }
    })
}

/// So many that hardly any range takes the place of another.
const HINTS: usize = 8192;

/// A look where the range was found before, and the announced call: what any dispatch that finds its device without a search
/// has to add to.
fn hinted_floor<const FENCE: bool>(name: &'static str, table: &'static Table) -> Subject {
    Subject::new(name, move || {
        let (line, mut hints) = (Line::new(), [0_u16; HINTS]);
        move |address: u64, data| {
            let near = (address >> table.granule) as usize;
            let Some(hint) = hints.get_mut((near ^ (near >> HINTS.ilog2())) % HINTS) else { return };
            let found = table.at((*hint).into(), address).or_else(|| {
                cold_path();
                *hint = table.search(address)? as u16;
                table.at((*hint).into(), address)
            });
            if let Some((range, offset)) = found {
                line.announced::<FENCE>((*hint).into(), range, offset, data);
            }
        }
    })
}

//! The least that has to be done of a dispatch: a call of the device, what finds it, and what the guarantee of removals
//! needs.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vm_device::IoType;

use super::layout::Layout;
use super::subject::{Register, Subject, forever, of_kind};

pub(super) const FLOOR: &str = "a bare dyn call";
pub(super) const ANNOUNCED_FLOOR: &str = "a bare dyn call, announced";
const SEARCHED_FLOOR: &str = "a search and a dyn call";
const SEARCHED_ANNOUNCED_FLOOR: &str = "a search and a dyn call, announced";
pub(super) const HINTED_FLOOR: &str = "a hint and a dyn call";
pub(super) const HINTED_ANNOUNCED_FLOOR: &str = "a hint and a dyn call, announced";

trait Bare: Sync {
    fn read(&self, offset: u64, data: &mut [u8]);
}

impl<const KIND: u64> Bare for Register<KIND> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.answer(offset, data);
    }
}

fn bare<const KIND: u64>() -> &'static dyn Bare {
    forever(Register::<KIND>::new())
}

fn bare_devices(layout: &Layout) -> &'static [&'static dyn Bare] {
    forever((0..layout.ranges.len()).map(|i| of_kind!(i % layout.types, bare())).collect::<Vec<_>>())
}

/// The least that has to be done, of one part of a dispatch and of another.
pub(super) fn floors(layout: &Layout) -> Vec<Subject> {
    vec![
        floor(layout),
        announced_floor(layout),
        searched_floor(layout),
        searched_announced_floor(layout),
        hinted_floor(layout),
        hinted_announced_floor(layout),
    ]
}

/// A bare call of the right device, which is known beforehand: what any dispatch has to add to.
fn floor(layout: &Layout) -> Subject {
    let devices = bare_devices(layout);
    Subject::new(FLOOR, move || {
        move |number, data| {
            if let Some(device) = devices.get(number as usize) {
                device.read(number, data);
            }
        }
    })
    .knowing_ranges()
}

/// What a removal that waits for readers needs of them: a word written and ordered before two looks at what a writer changes,
/// and taken back afterwards.
struct Guarantee {
    version: AtomicU64,
    states: Vec<AtomicU32>,
}

/// The word of one thread.
#[repr(align(64))]
struct Line(AtomicU32);

impl Guarantee {
    fn of(layout: &Layout) -> &'static Self {
        let states = layout.ranges.iter().map(|_| AtomicU32::new(1)).collect();
        forever(Self { version: AtomicU64::new(1), states })
    }

    #[inline(always)]
    fn announced(&self, line: &Line, number: usize, call: impl FnOnce()) {
        let Some(state) = self.states.get(number) else { return };
        line.0.swap(number as u32 + 1, Ordering::SeqCst);
        if self.version.load(Ordering::SeqCst) == 1 && state.load(Ordering::SeqCst) == 1 {
            call();
        }
        line.0.store(0, Ordering::Release);
    }
}

/// The bare call, announced: what any dispatch with the guarantee has to add to.
fn announced_floor(layout: &Layout) -> Subject {
    let (devices, guarantee) = (bare_devices(layout), Guarantee::of(layout));
    Subject::new(ANNOUNCED_FLOOR, move || {
        let line = forever(Line(AtomicU32::new(0)));
        move |number, data| {
            if let Some(device) = devices.get(number as usize) {
                guarantee.announced(line, number as usize, || device.read(number, data));
            }
        }
    })
    .knowing_ranges()
}

/// The devices by address, in sorted arrays.
struct Sorted {
    starts: Vec<u64>,
    ranges: Vec<(u64, u64, &'static dyn Bare)>,
}

impl Sorted {
    fn of(layout: &Layout) -> &'static Self {
        let starts = layout.ranges.iter().map(|(first, _)| *first).collect();
        let devices = bare_devices(layout).iter();
        let ranges =
            layout.ranges.iter().zip(devices).map(|((first, last), device)| (*first, *last, *device)).collect();
        forever(Self { starts, ranges })
    }

    /// The number of the range that has the whole access, the offset into it, and its device.
    #[inline(always)]
    fn find(&self, address: u64) -> Option<(usize, u64, &'static dyn Bare)> {
        self.at(self.starts.partition_point(|start| *start <= address).checked_sub(1)?, address)
    }

    /// The same, if it is this range.
    #[inline(always)]
    fn at(&self, number: usize, address: u64) -> Option<(usize, u64, &'static dyn Bare)> {
        let (first, last, device) = self.ranges.get(number)?;
        (*first <= address && address + 3 <= *last).then_some((number, address - first, *device))
    }
}

/// So many that hardly any range takes the place of another.
const HINTS: usize = 8192;

/// Where one thread found addresses before.
struct Hinted {
    sorted: &'static Sorted,
    hints: [u16; HINTS],
    /// The logarithm of how many addresses have the same hint.
    granule: u32,
}

impl Hinted {
    fn new(sorted: &'static Sorted, granule: u32) -> Self {
        Self { sorted, hints: [0; HINTS], granule }
    }

    fn granule(layout: &Layout) -> u32 {
        if layout.io_type == IoType::Pio { 2 } else { 9 }
    }

    #[inline(always)]
    fn find(&mut self, address: u64) -> Option<(usize, u64, &'static dyn Bare)> {
        let near = (address >> self.granule) as usize;
        let hint = self.hints.get_mut((near ^ (near >> HINTS.ilog2())) % HINTS)?;
        self.sorted.at((*hint).into(), address).or_else(|| {
            let found = self.sorted.find(address)?;
            *hint = found.0 as u16;
            Some(found)
        })
    }
}

/// A search of a sorted array, and the bare call: what any dispatch that finds its device by address has to add to.
fn searched_floor(layout: &Layout) -> Subject {
    let sorted = Sorted::of(layout);
    Subject::new(SEARCHED_FLOOR, move || {
        move |address: u64, data| {
            if let Some((_, offset, device)) = sorted.find(address) {
                device.read(offset, data);
            }
        }
    })
}

/// The search, and the announced call: what any dispatch that does both has to add to.
fn searched_announced_floor(layout: &Layout) -> Subject {
    let (sorted, guarantee) = (Sorted::of(layout), Guarantee::of(layout));
    Subject::new(SEARCHED_ANNOUNCED_FLOOR, move || {
        let line = forever(Line(AtomicU32::new(0)));
        move |address: u64, data| {
            if let Some((number, offset, device)) = sorted.find(address) {
                guarantee.announced(line, number, || device.read(offset, data));
            }
        }
    })
}

/// A look where the range was found before, and the bare call.
fn hinted_floor(layout: &Layout) -> Subject {
    let (sorted, granule) = (Sorted::of(layout), Hinted::granule(layout));
    Subject::new(HINTED_FLOOR, move || {
        let mut hinted = Hinted::new(sorted, granule);
        move |address: u64, data| {
            if let Some((_, offset, device)) = hinted.find(address) {
                device.read(offset, data);
            }
        }
    })
}

/// The look, and the announced call: what any dispatch that finds its device without a search has to add to.
fn hinted_announced_floor(layout: &Layout) -> Subject {
    let (sorted, granule, guarantee) = (Sorted::of(layout), Hinted::granule(layout), Guarantee::of(layout));
    Subject::new(HINTED_ANNOUNCED_FLOOR, move || {
        let line = forever(Line(AtomicU32::new(0)));
        let mut hinted = Hinted::new(sorted, granule);
        move |address: u64, data| {
            if let Some((number, offset, device)) = hinted.find(address) {
                guarantee.announced(line, number, || device.read(offset, data));
            }
        }
    })
}

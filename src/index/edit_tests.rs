//! Every order in which the ranges of a small nest can come and go, compared with a table made by looking at all of them.

use std::vec::Vec;

use super::*;
use crate::indices::SlotIndex;

/// A range of the nest: first and last address, and whether it is a window. A window stands before what lies in it.
type Nested = (u64, u64, bool);

/// Windows that touch each other, ranges with the first or the last address of their window, ranges that touch windows, and one
/// beside a hole.
const NEST: [Nested; 9] = [
    (2, 9, true),
    (10, 13, true),
    (2, 5, true),
    (4, 5, false),
    (9, 9, false),
    (0, 1, false),
    (14, 14, false),
    (11, 12, false),
    (16, 17, false),
];
const LAST: u64 = 17;

/// The innermost of the ranges in `set` around an address, `except` one.
fn innermost(set: u32, except: Option<usize>, address: u64) -> Option<usize> {
    let inside = |n: &usize| (NEST[*n].0..=NEST[*n].1).contains(&address);
    (0..NEST.len()).filter(|n| set & 1 << n != 0 && Some(*n) != except).filter(inside).min_by_key(|n| {
        let (first, last, _) = NEST[*n];
        last - first
    })
}

/// The window around a range.
fn around(set: u32, range: usize) -> Option<usize> {
    let (first, last, _) = NEST[range];
    innermost(set, Some(range), first).filter(|n| NEST[*n].0 <= first && last <= NEST[*n].1 && NEST[*n].2)
}

/// Whether `set` can be there: what lies in a window comes after it and goes before it.
fn is_whole(set: u32) -> bool {
    let windows = |n: usize| (0..n).filter(move |m| NEST[*m].2 && NEST[*m].0 <= NEST[n].0 && NEST[n].1 <= NEST[*m].1);
    (0..NEST.len()).filter(|n| set & 1 << n != 0).all(|n| windows(n).all(|m| set & 1 << m != 0))
}

/// The entries that the invariant asks for.
fn expected(set: u32, base: u64, space_last: u64) -> Vec<(u64, u16)> {
    let number = |n: usize| SlotIndex::at(n).map_or(0, SlotIndex::number);
    let here = (0..NEST.len()).filter(|n| set & 1 << n != 0);
    let ranges: Vec<_> = here.map(|n| (NEST[n], NEST[n].2 || around(set, n).is_some())).collect();
    let starts = (0..=LAST + 1).filter(|address| {
        let begins = ranges.iter().any(|((first, ..), _)| first == address);
        begins || ranges.iter().any(|((_, last, _), is_bounded)| *is_bounded && last + 1 == *address)
    });
    let starts = starts.filter(|address| base.checked_add(*address).is_some_and(|start| start <= space_last));
    starts.map(|address| (base + address, innermost(set, None, address).map_or(0, number))).collect()
}

/// Lets a range come or go.
fn change(writer: &IndexWriter<'_>, base: u64, set: u32, range: usize) {
    let (first, last, _) = NEST[range];
    let slot = |n: Option<usize>| n.and_then(SlotIndex::at);
    let window = slot(around(set, range));
    let owner = if set & 1 << range == 0 { SlotIndex::at(range) } else { window };
    let is_bounded = |slot: SlotIndex| NEST[slot.position()].2 || around(set, slot.position()).is_some();
    writer.assign(base + first, base + last, owner, window, &is_bounded);
}

fn check<'t, A: AtomicAddress>(
    storage: &'t TableStorage<A, { NEST.len() }>,
    base: u64,
    starts: fn(&'t [A]) -> Starts<'t>,
) {
    let table = storage.table();
    table.fill();
    let entries = || -> Vec<(u64, u16)> {
        let (Replica { starts, owners }, length) = table.replica(0);
        let length = length.load(Ordering::Relaxed) as usize;
        assert!(length <= starts.len(), "the table is full");
        assert!(starts[length..].iter().all(|start| start.get() == A::LAST));
        starts[..length]
            .iter()
            .zip(*owners)
            .map(|(start, owner)| (start.get(), owner.load(Ordering::Relaxed)))
            .collect()
    };
    // An interpreter has no time for all of them.
    let sets = (0..1 << NEST.len()).filter(|set| is_whole(*set)).step_by(if cfg!(miri) { 41 } else { 1 });
    for set in sets {
        for range in (0..NEST.len()).filter(|n| is_whole(set ^ 1 << n)) {
            table.writer(0, starts).clear();
            let mut built = 0;
            for n in (0..NEST.len()).filter(|n| set & 1 << n != 0) {
                change(&table.writer(0, starts), base, built, n);
                built |= 1 << n;
            }
            assert_eq!(entries(), expected(set, base, A::LAST), "{set:#b} at {base:#x}");
            change(&table.writer(0, starts), base, set, range);
            let set = set ^ 1 << range;
            let expected = expected(set, base, A::LAST);
            assert_eq!(entries(), expected, "{set:#b} at {base:#x}, after a change of {range}");
            assert!(expected.len() <= 2 * set.count_ones() as usize, "{set:#b}");
            for address in (base..=base + LAST).filter(|address| *address < A::LAST) {
                let Some(at) = expected.iter().rposition(|(start, _)| *start <= address) else { continue };
                let entry = table.find_entry(0, address);
                let next = expected.get(at + 1).map_or(A::LAST, |(start, _)| *start);
                assert_eq!((entry.owner, entry.next), (expected[at].1.into(), next), "{address:#x} of {set:#b}");
            }
        }
    }
}

#[test]
fn the_index_has_the_ends_of_windows_in_whichever_order_ranges_come_and_go() {
    for base in [0, 0x100, 0xffff - LAST] {
        check(&TableStorage::<AtomicU16, 9>::new(), base, Starts::Ports);
    }
    for base in [0, 0x100, u64::MAX - LAST] {
        check(&TableStorage::<AtomicU64, 9>::new(), base, Starts::Memory);
    }
}

//! The address pool, error by error, and against a model that tries every place.

extern crate std;

use std::vec::Vec as List;

use proptest::prelude::*;

use super::*;
use crate::address::GuestUsize;
use crate::allocator::Holder;
use crate::arrays::InPlace;
use crate::indices::{NodeIndex, SlotIndex};
use crate::resource::MAX_WINDOW_DEPTH;

/// How many ranges the pools of these tests hold.
const N: usize = 10;

fn range(first: u64, last: u64) -> IoRange {
    IoRange::new(GuestAddress(first), GuestAddress(last)).unwrap()
}

fn fixed(first: u64, last: u64) -> Placement {
    Placement::Fixed(range(first, last))
}

fn first_fit(size: u64, align: u64) -> Placement {
    Placement::Any { size: GuestUsize(size), align, within: None, fit: Fit::First }
}

fn last_fit(size: u64, align: u64) -> Placement {
    Placement::Any { size: GuestUsize(size), align, within: None, fit: Fit::Last }
}

/// The owner of what the VMM has taken.
const RESERVED: u16 = u16::MAX;

fn node(owner: u16) -> Option<NodeIndex> {
    (owner != RESERVED).then(|| NodeIndex::at(owner.into()).unwrap())
}

/// What the tests compare of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Block {
    range: IoRange,
    depth: u8,
    window: bool,
    owner: u16,
}

impl Block {
    fn of(record: &RangeRecord) -> Self {
        let owner = record.node.map_or(RESERVED, |node| node.position() as u16);
        Self { range: record.range, depth: record.depth(), window: record.is_window(), owner }
    }

    fn holder(self) -> Holder {
        Holder { node: node(self.owner), is_window: self.window }
    }

    fn overlap(self, wanted: IoRange) -> Refusal {
        RangeRefusal::Overlap { wanted, taken: self.range, owner: self.holder() }
    }

    fn outside(self, wanted: IoRange) -> Refusal {
        RangeRefusal::OutsideWindow { wanted, window: self.range, owner: self.holder() }
    }
}

/// A pool through one of its spaces.
struct Tested<const N: usize> {
    storage: PoolStorage<InPlace<N>>,
    allocator: SystemAllocator,
    io_type: IoType,
}

impl<const N: usize> Tested<N> {
    fn memory(bounds: IoRange) -> Self {
        Self { storage: PoolStorage::new(), allocator: SystemAllocator::new(bounds), io_type: IoType::Mmio }
    }

    fn ports(bounds: IoRange) -> Self {
        let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(bounds);
        Self { storage: PoolStorage::new(), allocator, io_type: IoType::Pio }
    }

    fn pool(&mut self) -> Pool<'_> {
        self.storage.pool(&self.allocator)
    }

    fn blocks(&mut self) -> List<Block> {
        let space = self.io_type.space();
        let pool = self.pool();
        let mut key = None;
        let next = || {
            let range = pool.next_after(space, key)?;
            key = Some(range.key());
            Some(Block::of(range))
        };
        core::iter::from_fn(next).collect()
    }

    fn index(&mut self, block: Block) -> SlotIndex {
        let space = self.io_type.space();
        let pool = self.pool();
        let is_it = |index: &SlotIndex| {
            let range = pool.range(*index).unwrap();
            range.space() == space && Block::of(range) == block
        };
        pool.indices().find(is_it).unwrap()
    }

    fn find(&mut self, placement: Placement, container: Option<Block>) -> Result<FreeRange, Refusal> {
        let (io_type, container) = (self.io_type, container.map(|block| self.index(block)));
        self.pool().find_free(io_type, &placement, container)
    }

    fn allocate(
        &mut self,
        placement: Placement,
        container: Option<Block>,
        window: bool,
        owner: u16,
    ) -> Result<IoRange, Refusal> {
        let place = self.find(placement, container)?;
        let range = RangeRecord::new(node(owner), self.io_type).with_request(0, window, false, place.depth);
        self.pool().insert(&place, range)?;
        Ok(place.range)
    }

    /// Frees a block, unless something lies in it. Whether it is free.
    fn free(&mut self, block: Block) -> bool {
        let index = self.index(block);
        self.pool().remove(index);
        !self.blocks().contains(&block)
    }

    fn free_at(&mut self, address: u64) -> bool {
        let block = self.innermost(address).unwrap();
        self.free(block)
    }

    /// Takes a block out, unless something lies in it, and puts it where `placement` says or back.
    fn relocate(
        &mut self,
        block: Block,
        placement: Placement,
        container: Option<Block>,
    ) -> Option<Result<IoRange, Refusal>> {
        let index = self.index(block);
        if !self.pool().unlink(index) {
            return None;
        }
        assert!(!self.pool().unlink(index), "it has no place any more");
        let old = *self.pool().range(index).unwrap();
        let place = self.find(placement, container);
        match place {
            Ok(place) => self.pool().put(index, &place),
            Err(_) => self.pool().put_back(index, &old),
        }
        Some(place.map(|place| place.range))
    }

    fn innermost(&mut self, address: u64) -> Option<Block> {
        let space = self.io_type.space();
        self.pool().innermost(space, GuestAddress(address)).map(|(_, range)| Block::of(range))
    }

    /// That the call is refused in this way, and changes nothing.
    #[track_caller]
    fn refuses(&mut self, placement: Placement, container: Option<Block>, error: Refusal) {
        let before = self.blocks();
        assert_eq!(self.allocate(placement, container, false, 1), Err(error));
        assert_eq!(self.blocks(), before);
    }

    fn window(&mut self, container: Option<Block>, first: u64, last: u64) -> Block {
        self.allocate(fixed(first, last), container, true, 0).unwrap();
        self.innermost(first).unwrap()
    }
}

type Memory = Tested<N>;

#[test]
fn the_first_and_the_last_byte_of_the_pool_can_be_freed() {
    let mut pool = Memory::memory(IoRange::ALL_MEMORY);
    for byte in [0, u64::MAX] {
        assert_eq!(pool.allocate(fixed(byte, byte), None, false, 1), Ok(range(byte, byte)));
    }
    for byte in [u64::MAX, 0] {
        assert!(pool.free_at(byte));
    }
    assert_eq!(pool.blocks(), []);
    assert_eq!(pool.allocate(Placement::Fixed(IoRange::ALL_MEMORY), None, false, 1), Ok(IoRange::ALL_MEMORY));
    assert!(pool.free_at(7));
    assert_eq!(pool.blocks(), []);
}

#[test]
fn an_unaligned_pool_end_hands_out_nothing_past_the_pool() {
    for bounds in [range(0x1000, 0x2ffe), range(0x1001, 0x2fff), range(0, 0x1ffe)] {
        let mut pool = Memory::memory(bounds);
        let first = pool.allocate(first_fit(0x1000, 0x1000), None, false, 1).unwrap();
        assert!(bounds.contains_range(first));
        let error = RangeRefusal::NoRoom { size: GuestUsize(0x1000), align: 0x1000, within: bounds };
        pool.refuses(first_fit(0x1000, 0x1000), None, error);
        pool.refuses(last_fit(0x1000, 0x1000), None, error);
    }
}

#[test]
fn a_range_that_starts_at_1_does_not_leak_when_it_is_freed() {
    let mut pool = Memory::memory(range(0, 0xf));
    pool.allocate(fixed(1, 4), None, false, 1).unwrap();
    assert!(pool.free_at(1));
    assert_eq!(pool.allocate(first_fit(0x10, 1), None, false, 1), Ok(range(0, 0xf)));
}

#[test]
fn sizes_and_alignments_near_the_top_of_the_space_do_not_overflow() {
    let mut pool = Memory::memory(IoRange::ALL_MEMORY);
    assert_eq!(pool.allocate(last_fit(u64::MAX, 1), None, false, 1), Ok(range(1, u64::MAX)));
    let error = RangeRefusal::NoRoom { size: GuestUsize(1), align: 1 << 63, within: IoRange::ALL_MEMORY };
    pool.allocate(fixed(0, 0), None, false, 1).unwrap();
    pool.refuses(first_fit(1, 1 << 63), None, error);

    let mut pool = Memory::memory(range(u64::MAX - 2, u64::MAX));
    let within = range(u64::MAX - 2, u64::MAX);
    for placement in [first_fit(1, 1 << 63), last_fit(1, 1 << 63), first_fit(1, 4), last_fit(1, 4)] {
        let Placement::Any { align, .. } = placement else { continue };
        pool.refuses(placement, None, RangeRefusal::NoRoom { size: GuestUsize(1), align, within });
    }
    for placement in [first_fit(4, 1), last_fit(4, 1), first_fit(u64::MAX, 1), last_fit(u64::MAX, 1)] {
        let Placement::Any { size, .. } = placement else { continue };
        pool.refuses(placement, None, RangeRefusal::NoRoom { size, align: 1, within });
    }
    assert_eq!(pool.allocate(first_fit(3, 1), None, false, 1), Ok(within));
}

#[test]
fn ports_reach_from_0_to_0xffff_and_no_further() {
    let bounds = range(0, 0x1_0000);
    let mut pool = Tested::<N>::ports(bounds);
    pool.refuses(fixed(0, 0), None, RangeRefusal::BeyondPorts { bounds });
    assert_eq!(pool.pool().release(IoType::Pio, range(0, 0)), Err(RangeRefusal::BeyondPorts { bounds }));
    let mut pool = Tested::<N>::ports(IoRange::ALL_PORTS);
    for wanted in [range(0xffff, 0x1_0000), range(0x1_0000, 0x1_0000)] {
        pool.refuses(Placement::Fixed(wanted), None, RangeRefusal::OutsidePool { wanted, pool: IoRange::ALL_PORTS });
        assert_eq!(pool.pool().release(IoType::Pio, wanted), Err(RangeRefusal::NotAllocated { range: wanted }));
        assert_eq!(pool.innermost(wanted.last().0), None);
    }
    assert_eq!(pool.allocate(first_fit(0x1_0000, 1), None, false, 1), Ok(IoRange::ALL_PORTS));
    assert!(pool.free_at(0));
    assert_eq!(pool.allocate(last_fit(8, 8), None, false, 1), Ok(range(0xfff8, 0xffff)));
}

#[test]
fn impossible_requests_are_refused() {
    let mut pool = Memory::memory(range(0x10, 0x1f));
    pool.refuses(first_fit(0, 1), None, RangeRefusal::Empty);
    for align in [0, 3, u64::MAX] {
        pool.refuses(first_fit(1, align), None, RangeRefusal::BadAlignment { align });
    }
    for wanted in [range(0xf, 0x10), range(0x1f, 0x20), range(0, 1)] {
        pool.refuses(Placement::Fixed(wanted), None, RangeRefusal::OutsidePool { wanted, pool: range(0x10, 0x1f) });
    }
    let within = range(0x20, 0x2f);
    let placement = Placement::Any { size: GuestUsize(1), align: 1, within: Some(within), fit: Fit::First };
    pool.refuses(placement, None, RangeRefusal::NoRoom { size: GuestUsize(1), align: 1, within });
}

#[test]
fn an_overlap_names_the_lowest_block_in_the_way() {
    let mut pool = Memory::memory(range(0, 0xff));
    for first in [0x30, 0x10, 0x20] {
        pool.allocate(fixed(first, first + 3), None, false, 7).unwrap();
    }
    for (first, last, taken) in [(0x13, 0x13, 0x10), (0, 0xff, 0x10), (0x14, 0x20, 0x20), (0x32, 0x40, 0x30)] {
        let wanted = range(first, last);
        let taken = pool.innermost(taken).unwrap();
        assert_eq!(taken.owner, 7);
        pool.refuses(Placement::Fixed(wanted), None, taken.overlap(wanted));
    }
}

#[test]
fn only_what_the_vmm_has_taken_is_released_as_the_vmms() {
    let mut pool = Memory::memory(range(0, 0xff));
    pool.allocate(fixed(0x20, 0x2f), None, false, 1).unwrap();
    let inner = pool.window(None, 0x30, 0x3f);
    pool.allocate(fixed(0x30, 0x3f), Some(inner), false, RESERVED).unwrap();
    assert_eq!(pool.pool().reserve(IoType::PhysicalMmio, &fixed(0x10, 0x1f)), Ok(range(0x10, 0x1f)));
    let before = pool.blocks();
    for range in [
        range(0x10, 0x1e),
        range(0x11, 0x1f),
        range(0, 0xf),
        range(0, 0xff),
        range(0x20, 0x2f),
        range(0x30, 0x3f),
        range(u64::MAX, u64::MAX),
    ] {
        assert_eq!(pool.pool().release(IoType::Mmio, range), Err(RangeRefusal::NotAllocated { range }));
        assert_eq!(pool.blocks(), before);
    }
    assert_eq!(pool.pool().release(IoType::Mmio, range(0x10, 0x1f)), Ok(()));
    let error = RangeRefusal::NotAllocated { range: range(0x10, 0x1f) };
    assert_eq!(pool.pool().release(IoType::Mmio, range(0x10, 0x1f)), Err(error));
}

#[test]
fn a_window_holds_blocks_and_is_freed_after_them() {
    let mut pool = Memory::memory(IoRange::ALL_MEMORY);
    let outer = pool.window(None, 0x100, 0x1ff);
    let inner = pool.window(Some(outer), 0x100, 0x10f);
    assert_eq!((outer.depth, inner.depth), (0, 1));
    // The whole of the inner window, by the same owner.
    pool.allocate(fixed(0x100, 0x10f), Some(inner), false, 0).unwrap();
    let block = pool.innermost(0x108).unwrap();
    assert_eq!((block.depth, block.window), (2, false));
    assert_eq!(pool.innermost(0x110), Some(outer));
    assert_eq!(pool.innermost(0x200), None);

    pool.refuses(fixed(0x150, 0x150), None, outer.overlap(range(0x150, 0x150)));
    let wanted = range(0x1ff, 0x200);
    pool.refuses(fixed(0x1ff, 0x200), Some(outer), outer.outside(wanted));
    assert_eq!(pool.allocate(first_fit(1, 1), Some(outer), false, 3), Ok(range(0x110, 0x110)));
    assert_eq!(pool.allocate(last_fit(1, 1), Some(outer), false, 3), Ok(range(0x1ff, 0x1ff)));

    let before = pool.blocks();
    for window in [outer, inner] {
        assert!(!pool.free(window));
        assert_eq!(pool.blocks(), before);
    }
    for inside in [block, inner, pool.innermost(0x110).unwrap(), pool.innermost(0x1ff).unwrap(), outer] {
        assert!(pool.free(inside));
    }
    assert_eq!(pool.blocks(), []);
}

#[test]
fn what_is_free_in_neighbouring_windows_stays_apart() {
    let mut pool = Memory::memory(range(0, 0x2f));
    let low = pool.window(None, 0, 0xf);
    let high = pool.window(None, 0x10, 0x1f);
    let error = RangeRefusal::NoRoom { size: GuestUsize(0x11), align: 1, within: low.range };
    pool.refuses(first_fit(0x11, 1), Some(low), error);
    assert_eq!(pool.allocate(first_fit(0x10, 1), None, false, 1), Ok(range(0x20, 0x2f)));
    assert_eq!(pool.allocate(last_fit(0x10, 1), Some(low), false, 1), Ok(range(0, 0xf)));
    assert_eq!(pool.allocate(first_fit(0x10, 1), Some(high), false, 1), Ok(range(0x10, 0x1f)));
}

#[test]
fn a_full_pool_refuses_before_any_change_in_both_spaces() {
    let mut pool = Memory::memory(range(0, 0xff));
    pool.allocator = pool.allocator.with_ports(IoRange::ALL_PORTS);
    // A window takes the room of one.
    let window = pool.window(None, 0x80, 0xff);
    pool.pool().reserve(IoType::Pio, &fixed(0, 0)).unwrap();
    for n in 2..N as u64 {
        pool.allocate(fixed(n * 4 + 1, n * 4 + 1), None, false, 1).unwrap();
    }
    let full = RangeRefusal::Full { capacity: N };
    for placement in [fixed(0, 0), first_fit(1, 1), last_fit(1, 1)] {
        pool.refuses(placement, None, full);
        pool.refuses(fixed(0x90, 0x90), Some(window), full);
        assert_eq!(pool.pool().reserve(IoType::Pio, &fixed(1, 1)), Err(full));
    }
    pool.pool().release(IoType::Pio, range(0, 0)).unwrap();
    assert_eq!(pool.allocate(first_fit(1, 1), None, false, 1), Ok(range(0, 0)));
}

#[test]
fn windows_are_nested_as_deep_as_stated() {
    let mut pool = Tested::<1024>::memory(IoRange::ALL_MEMORY);
    let mut container = None;
    for depth in 0..=MAX_WINDOW_DEPTH as u16 {
        pool.allocate(fixed(0, 9), container, true, depth).unwrap();
        container = pool.innermost(0);
        assert_eq!(container.unwrap().depth, depth as u8);
    }
    assert_eq!(pool.blocks().len(), MAX_WINDOW_DEPTH + 1);
    while let Some(innermost) = pool.innermost(5) {
        assert!(pool.free(innermost));
    }
    assert_eq!(pool.blocks(), []);
}

/// The ranges that wait, from the one that has waited longest.
fn waiting(pool: &Pool<'_>) -> List<SlotIndex> {
    core::iter::successors(pool.first_waiting(), |index| pool.next_waiting(*index)).collect()
}

#[test]
fn ranges_wait_in_the_order_in_which_they_began_to() {
    let mut tested = Memory::memory(range(0, 0xff));
    let mut pool = tested.pool();
    let records: List<_> =
        (0..5).map(|n| pool.insert_unplaced(RangeRecord::new(node(n), IoType::Mmio)).unwrap()).collect();
    for record in &records {
        pool.wait_for(*record, range(0, 9));
    }
    assert_eq!(waiting(&pool), records);
    // Each of them leaves, and goes back to where it was.
    for (at, record) in records.iter().enumerate() {
        let before = pool.waiting_before(*record, None);
        assert_eq!(before, at.checked_sub(1).map(|at| records[at]));
        pool.stop_waiting(*record, before);
        let others: List<_> = records.iter().copied().filter(|other| other != record).collect();
        assert_eq!(waiting(&pool), others);
        assert!(!pool.range(*record).unwrap().is_waiting());
        pool.wait_behind(*record, before);
        assert_eq!(waiting(&pool), records);
    }
    // One that leaves and comes again is the last.
    pool.stop_waiting(records[0], pool.waiting_before(records[0], None));
    pool.wait_for(records[0], range(0, 9));
    assert_eq!(waiting(&pool), [records[1], records[2], records[3], records[4], records[0]]);
    for record in records {
        pool.remove(record);
    }
    assert_eq!(waiting(&pool), []);
    assert!(!pool.has_waiting());
    for n in 0..N as u64 {
        pool.insert(
            &FreeRange { range: range(n, n), container: None, depth: 0, at: n as usize },
            RangeRecord::new(node(1), IoType::Mmio),
        )
        .unwrap();
    }
}

#[test]
fn the_contents_of_a_window_are_taken_out_and_put_back() {
    let mut tested = Memory::memory(range(0, 0xfff));
    let outer = tested.window(None, 0x100, 0x1ff);
    let inner = tested.window(Some(outer), 0x140, 0x17f);
    tested.allocate(fixed(0x150, 0x150), Some(inner), false, 3).unwrap();
    tested.allocate(fixed(0x180, 0x180), Some(outer), false, 3).unwrap();
    tested.allocate(fixed(0x200, 0x20f), None, false, 3).unwrap();
    tested.allocate(fixed(0x0, 0xff), None, false, 3).unwrap();
    let before = tested.blocks();
    let (outer_index, inner_index) = (tested.index(outer), tested.index(inner));
    for (window, inside) in [(outer_index, 3), (inner_index, 1)] {
        let mut pool = tested.pool();
        pool.displace_contents(window);
        let (mut from, mut marked) = (0, List::new());
        while let Some((slot, next)) = pool.next_marked(from) {
            marked.push(slot);
            from = next;
        }
        assert_eq!(marked.len(), inside);
        assert!(marked.iter().all(|slot| !pool.range(*slot).unwrap().is_placed()));
        assert_eq!(pool.indices().count(), before.len() - inside);
        for slot in marked {
            let old = *pool.range(slot).unwrap();
            pool.put_back(slot, &old);
            pool.mark(slot, false);
        }
        assert_eq!(tested.blocks(), before);
    }
}
#[test]
fn a_cursor_goes_on_when_its_block_is_gone() {
    let mut pool = Memory::memory(range(0, 0xff));
    for first in [0x10, 0x20, 0x30] {
        pool.allocate(fixed(first, first), None, false, 1).unwrap();
    }
    let seen = *pool.pool().next_after(Space::Memory, Some((0x10, 0))).unwrap();
    assert_eq!(seen.range, range(0x20, 0x20));
    assert!(pool.free(Block::of(&seen)));
    let next = *pool.pool().next_after(Space::Memory, Some(seen.key())).unwrap();
    assert_eq!(next.range, range(0x30, 0x30));
    assert_eq!(pool.pool().next_after(Space::Memory, Some(next.key())), None);
}

#[test]
fn a_search_leaves_out_what_is_full() {
    let mut pool = Memory::memory(range(0, 0xffff));
    let page = first_fit(0x1000, 0x1000);
    let starts = |pool: &mut Memory, size: u64| pool.pool().gaps(Space::Memory).starts(size - 1, 0xfff);
    for n in 0..8 {
        assert_eq!(pool.allocate(page, None, false, 1).unwrap().first().0, n * 0x1000);
    }
    assert_eq!(starts(&mut pool, 0x1000), (None, 0x7000));
    // A smaller one might fit in between; a larger one could not.
    assert_eq!(starts(&mut pool, 0x800), (None, 0));
    assert_eq!(starts(&mut pool, 0x2000), (None, 0x7000));
    // One hole is remembered beside what is known of the rest, and gone when it is filled.
    for hole in [0x3000, 0x5000, 0x1000] {
        assert!(pool.free_at(hole));
        assert_eq!(starts(&mut pool, 0x1000), (Some((hole - 0xfff, hole + 0xfff)), 0x7000));
        assert_eq!(pool.allocate(page, None, false, 1).unwrap().first().0, hole);
        assert_eq!(starts(&mut pool, 0x1000), (None, 0x7000));
    }
    // Of two, the rest begins at the higher one.
    for hole in [0x3000, 0x1000] {
        assert!(pool.free_at(hole));
    }
    assert_eq!(starts(&mut pool, 0x1000), (Some((1, 0x1fff)), 0x2001));
}

/// The size of the space the model tries every place of.
const SPACE: u64 = 48;

/// A pool of one space that keeps nothing but its blocks, each with its container.
struct Model {
    bounds: IoRange,
    blocks: List<(Block, Option<Block>)>,
}

impl Model {
    fn inside(&self, container: Option<Block>) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |(_, of)| *of == container).map(|(block, _)| block)
    }

    /// Where blocks of that size could start, if nothing but what is there kept them from it.
    fn places(&self, size: GuestUsize, align: u64, container: Option<Block>) -> List<IoRange> {
        let limits = container.map_or(self.bounds, |window| window.range);
        let serves = |place: &IoRange| {
            place.first().0.is_multiple_of(align)
                && limits.contains_range(*place)
                && !self.inside(container).any(|block| block.range.overlaps(*place))
        };
        let all = (0..SPACE).map(|offset| IoRange::with_size(GuestAddress(self.bounds.first().0 + offset), size));
        all.filter_map(Result::ok).filter(serves).collect()
    }

    fn place(&self, placement: Placement, container: Option<Block>) -> Result<IoRange, Refusal> {
        let limits = container.map_or(self.bounds, |window| window.range);
        match placement {
            Placement::Fixed(wanted) => {
                if !limits.contains_range(wanted) {
                    let pool = self.bounds;
                    let outside = RangeRefusal::OutsidePool { wanted, pool };
                    return Err(container.map_or(outside, |window| window.outside(wanted)));
                }
                let taken = self.inside(container).filter(|block| block.range.overlaps(wanted));
                taken.min_by_key(|block| block.range.first()).map_or(Ok(wanted), |taken| Err(taken.overlap(wanted)))
            }
            Placement::Any { size, align, within, fit } => {
                if size.0 == 0 {
                    return Err(RangeRefusal::Empty);
                }
                if align.count_ones() != 1 {
                    return Err(RangeRefusal::BadAlignment { align });
                }
                let within = within.unwrap_or(limits);
                let mut places = self.places(size, align, container).into_iter().filter(|p| within.contains_range(*p));
                let found = if fit == Fit::First { places.next() } else { places.next_back() };
                found.ok_or(RangeRefusal::NoRoom { size, align, within })
            }
        }
    }

    fn put(&mut self, range: IoRange, container: Option<Block>, window: bool, owner: u16) {
        let depth = container.map_or(0, |container| container.depth + 1);
        self.blocks.push((Block { range, depth, window, owner }, container));
    }

    fn free(&mut self, block: Block) -> bool {
        let is_free = self.inside(Some(block)).next().is_none();
        if is_free {
            self.blocks.retain(|(other, _)| *other != block);
        }
        is_free
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate { placement: Placement, container: Option<usize>, window: bool, owner: u16 },
    Free { pick: usize },
    Move { pick: usize, placement: Placement },
}

/// A range that may pass the pool by a little, unless the pool ends where the space does.
fn ranges(base: u64) -> impl Strategy<Value = IoRange> {
    (base..=base.saturating_add(SPACE + 2), 0..=SPACE / 4)
        .prop_map(|(first, span)| range(first, first.saturating_add(span)))
}

fn placements(base: u64) -> impl Strategy<Value = Placement> {
    let align =
        prop_oneof![8 => Just(1u64), 8 => Just(2), 4 => Just(8), 1 => Just(32), 1 => Just(1 << 63), 1 => 0..8u64];
    let size = prop_oneof![20 => 0..=SPACE / 6, 5 => Just(2), 1 => Just(SPACE), 1 => Just(u64::MAX)];
    // From the bottom of the pool, or in the middle.
    let limits = prop_oneof![(0..SPACE).prop_map(move |span| range(base, base + span)), ranges(base)];
    let fit = prop_oneof![3 => Just(Fit::First), 1 => Just(Fit::Last)];
    prop_oneof![
        1 => ranges(base).prop_map(Placement::Fixed),
        2 => (size, align, prop::option::weighted(0.2, limits), fit)
            .prop_map(|(size, align, within, fit)| Placement::Any { size: GuestUsize(size), align, within, fit }),
    ]
}

fn steps(base: u64) -> impl Strategy<Value = List<Step>> {
    let window = prop::bool::weighted(0.3);
    let allocate = (placements(base), prop::option::weighted(0.3, any::<usize>()), window, 0..3u16)
        .prop_map(|(placement, container, window, owner)| Step::Allocate { placement, container, window, owner });
    let free = any::<usize>().prop_map(|pick| Step::Free { pick });
    let relocate = (any::<usize>(), placements(base)).prop_map(|(pick, placement)| Step::Move { pick, placement });
    prop::collection::vec(prop_oneof![6 => allocate, 3 => free, 1 => relocate], 0..80)
}

/// What holds after each step.
fn agree(pool: &mut Memory, model: &Model) -> Result<(), TestCaseError> {
    let mut blocks: List<Block> = model.blocks.iter().map(|(block, _)| *block).collect();
    blocks.sort_by_key(|block| (block.range.first(), block.depth));
    prop_assert_eq!(pool.blocks(), blocks);
    for offset in 0..SPACE {
        let address = model.bounds.first().0 + offset;
        let has_it = model.blocks.iter().map(|(block, _)| *block);
        let innermost = has_it.filter(|block| block.range.contains(GuestAddress(address)));
        prop_assert_eq!(pool.innermost(address), innermost.max_by_key(|block| block.depth));
    }
    // What the next search would leave out is of no use.
    for (span, align) in (0..SPACE / 6).flat_map(|span| [1, 2, 8].map(|align| (span, align))) {
        let space = pool.io_type.space();
        let (part, rest) = pool.pool().gaps(space).starts(span, align - 1);
        for place in model.places(GuestUsize(span + 1), align, None) {
            let first = place.first().0;
            let looked_at = first >= rest || part.is_some_and(|(from, to)| (from..=to).contains(&first));
            prop_assert!(looked_at, "{:?} is free, of {:?} and from {}", place, part, rest);
        }
    }
    Ok(())
}

fn compare(mut pool: Memory, bounds: IoRange, steps: List<Step>) -> Result<(), TestCaseError> {
    let mut model = Model { bounds, blocks: List::new() };
    for step in steps {
        let known = |pick: usize| model.blocks.get(pick % model.blocks.len().max(1)).map(|(block, _)| *block);
        match step {
            Step::Allocate { placement, container, window, owner } => {
                let container = container.and_then(known).filter(|block| block.window);
                let place = model.place(placement, container);
                let full = model.blocks.len() == N && place.is_ok();
                let expected = if full { Err(RangeRefusal::Full { capacity: N }) } else { place };
                prop_assert_eq!(pool.allocate(placement, container, window, owner), expected);
                if let Ok(range) = expected {
                    model.put(range, container, window, owner);
                }
            }
            Step::Free { pick } => {
                let Some(block) = known(pick) else { continue };
                prop_assert_eq!(pool.free(block), model.free(block));
            }
            Step::Move { pick, placement } => {
                let Some(&(block, container)) = model.blocks.get(pick % model.blocks.len().max(1)) else { continue };
                let is_free = model.free(block);
                let moved = pool.relocate(block, placement, container);
                prop_assert_eq!(moved.is_some(), is_free);
                if let Some(moved) = moved {
                    // In the same container: how many windows are around a range never changes.
                    let place = model.place(placement, container);
                    model.put(place.unwrap_or(block.range), container, block.window, block.owner);
                    prop_assert_eq!(moved, place);
                }
            }
        }
        agree(&mut pool, &model)?;
    }
    Ok(())
}

const TOP: u64 = u64::MAX - (SPACE - 1);

proptest! {
    #[test]
    fn memory_agrees_with_a_model_at_the_bottom_of_the_space(steps in steps(0)) {
        let bounds = range(0, SPACE - 1);
        compare(Memory::memory(bounds), bounds, steps)?;
    }

    #[test]
    fn memory_agrees_with_a_model_at_the_top_of_the_space(steps in steps(TOP)) {
        let bounds = range(TOP, u64::MAX);
        compare(Memory::memory(bounds), bounds, steps)?;
    }

    #[test]
    fn ports_agree_with_a_model_at_the_top_of_the_space(steps in steps(0x1_0000 - SPACE)) {
        let bounds = range(0x1_0000 - SPACE, 0xffff);
        compare(Memory::ports(bounds), bounds, steps)?;
    }
}

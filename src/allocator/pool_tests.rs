//! The address pool, error by error, and against a model that tries every place.

extern crate std;

use std::string::ToString;
use std::vec::Vec as List;

use proptest::prelude::*;

use super::*;

/// How many ranges the pools of these tests hold.
const N: usize = 8;

type Memory = AddressPool<u64, N>;
type Snapshot = (List<Block>, List<(u64, u64, u8)>);

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

fn blocks<A: Address, const N: usize>(pool: &AddressPool<A, N>) -> List<Block> {
    let mut key = None;
    let next = || {
        let block = pool.next_after(key)?;
        key = Some(block.key());
        Some(block)
    };
    core::iter::from_fn(next).collect()
}

fn snapshot<A: Address, const N: usize>(pool: &AddressPool<A, N>) -> Snapshot {
    (blocks(pool), pool.gaps.iter().map(|gap| (gap.first(), gap.last(), gap.depth())).collect())
}

/// That the call is refused in this way, and changes nothing.
#[track_caller]
fn refuses<A: Address, const N: usize>(
    pool: &mut AddressPool<A, N>,
    placement: Placement,
    container: Option<Block>,
    window: bool,
    error: PoolError,
) {
    let before = snapshot(pool);
    assert_eq!(pool.allocate(placement, container, window, 1), Err(error));
    assert_eq!(snapshot(pool), before);
}

fn window(pool: &mut Memory, container: Option<Block>, first: u64, last: u64) -> Block {
    pool.allocate(fixed(first, last), container, true, 0).unwrap();
    pool.innermost(first).unwrap()
}

#[test]
fn the_first_and_the_last_byte_of_the_pool_can_be_freed() {
    let mut pool = Memory::memory(IoRange::ALL_MEMORY);
    let before = snapshot(&pool);
    for byte in [0, u64::MAX] {
        assert_eq!(pool.allocate(fixed(byte, byte), None, false, 1), Ok(range(byte, byte)));
    }
    for byte in [u64::MAX, 0] {
        assert_eq!(pool.free(range(byte, byte), 1).map(|block| block.range), Ok(range(byte, byte)));
    }
    assert_eq!(snapshot(&pool), before);
    assert_eq!(pool.allocate(Placement::Fixed(IoRange::ALL_MEMORY), None, false, 1), Ok(IoRange::ALL_MEMORY));
    pool.free(IoRange::ALL_MEMORY, 1).unwrap();
    assert_eq!(snapshot(&pool), before);
}

#[test]
fn an_unaligned_pool_end_hands_out_nothing_past_the_pool() {
    for bounds in [range(0x1000, 0x2ffe), range(0x1001, 0x2fff), range(0, 0x1ffe)] {
        let mut pool = Memory::memory(bounds);
        let first = pool.allocate(first_fit(0x1000, 0x1000), None, false, 1).unwrap();
        assert!(bounds.contains_range(first));
        let error = PoolError::NoRoom { size: GuestUsize(0x1000), align: 0x1000, within: bounds };
        refuses(&mut pool, first_fit(0x1000, 0x1000), None, false, error);
        refuses(&mut pool, last_fit(0x1000, 0x1000), None, false, error);
    }
}

#[test]
fn a_range_that_starts_at_1_does_not_leak_when_it_is_freed() {
    let mut pool = Memory::memory(range(0, 0xf));
    let before = snapshot(&pool);
    pool.allocate(fixed(1, 4), None, false, 1).unwrap();
    pool.free(range(1, 4), 1).unwrap();
    assert_eq!(snapshot(&pool), before);
    assert_eq!(pool.allocate(first_fit(0x10, 1), None, false, 1), Ok(range(0, 0xf)));
}

#[test]
fn sizes_and_alignments_near_the_top_of_the_space_do_not_overflow() {
    let mut pool = Memory::memory(IoRange::ALL_MEMORY);
    assert_eq!(pool.allocate(last_fit(u64::MAX, 1), None, false, 1), Ok(range(1, u64::MAX)));
    let error = PoolError::NoRoom { size: GuestUsize(1), align: 1 << 63, within: IoRange::ALL_MEMORY };
    pool.allocate(fixed(0, 0), None, false, 1).unwrap();
    refuses(&mut pool, first_fit(1, 1 << 63), None, false, error);

    let mut pool = Memory::memory(range(u64::MAX - 2, u64::MAX));
    let within = range(u64::MAX - 2, u64::MAX);
    for placement in [first_fit(1, 1 << 63), last_fit(1, 1 << 63), first_fit(1, 4), last_fit(1, 4)] {
        let Placement::Any { align, .. } = placement else { continue };
        refuses(&mut pool, placement, None, false, PoolError::NoRoom { size: GuestUsize(1), align, within });
    }
    for placement in [first_fit(4, 1), last_fit(4, 1), first_fit(u64::MAX, 1), last_fit(u64::MAX, 1)] {
        let Placement::Any { size, .. } = placement else { continue };
        refuses(&mut pool, placement, None, false, PoolError::NoRoom { size, align: 1, within });
    }
    assert_eq!(pool.allocate(first_fit(3, 1), None, false, 1), Ok(within));
}

#[test]
fn ports_reach_from_0_to_0xffff_and_no_further() {
    let bounds = range(0, 0x1_0000);
    assert_eq!(AddressPool::<u16, N>::ports(bounds).err(), Some(PoolError::BeyondPorts { bounds }));
    let mut pool = AddressPool::<u16, N>::ports(IoRange::ALL_PORTS).unwrap();
    for wanted in [range(0xffff, 0x1_0000), range(0x1_0000, 0x1_0000)] {
        let error = PoolError::OutsidePool { wanted, pool: IoRange::ALL_PORTS };
        refuses(&mut pool, Placement::Fixed(wanted), None, false, error);
        assert_eq!(pool.free(wanted, 1), Err(PoolError::NotAllocated { range: wanted }));
        assert_eq!(pool.innermost(wanted.last().0), None);
    }
    assert_eq!(pool.allocate(first_fit(0x1_0000, 1), None, false, 1), Ok(IoRange::ALL_PORTS));
    pool.free(IoRange::ALL_PORTS, 1).unwrap();
    assert_eq!(pool.allocate(last_fit(8, 8), None, false, 1), Ok(range(0xfff8, 0xffff)));
}

#[test]
fn impossible_requests_are_refused() {
    let mut pool = Memory::memory(range(0x10, 0x1f));
    refuses(&mut pool, first_fit(0, 1), None, false, PoolError::Empty);
    for align in [0, 3, u64::MAX] {
        refuses(&mut pool, first_fit(1, align), None, false, PoolError::BadAlignment { align });
    }
    for wanted in [range(0xf, 0x10), range(0x1f, 0x20), range(0, 1)] {
        let error = PoolError::OutsidePool { wanted, pool: range(0x10, 0x1f) };
        refuses(&mut pool, Placement::Fixed(wanted), None, false, error);
    }
    let within = range(0x20, 0x2f);
    let placement = Placement::Any { size: GuestUsize(1), align: 1, within: Some(within), fit: Fit::First };
    refuses(&mut pool, placement, None, false, PoolError::NoRoom { size: GuestUsize(1), align: 1, within });
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
        refuses(&mut pool, Placement::Fixed(wanted), None, false, PoolError::Overlap { wanted, taken });
    }
    let error = PoolError::Overlap { wanted: range(0, 0x10), taken: pool.innermost(0x10).unwrap() };
    assert_eq!(error.to_string(), "[0x0, 0x10] overlaps [0x10, 0x13] of device 7");
}

#[test]
fn only_what_is_allocated_is_freed_and_only_by_its_owner() {
    let mut pool = Memory::memory(range(0, 0xff));
    pool.allocate(fixed(0x10, 0x1f), None, false, 1).unwrap();
    let before = snapshot(&pool);
    for (range, owner) in [
        (range(0x10, 0x1f), 2),
        (range(0x10, 0x1e), 1),
        (range(0x11, 0x1f), 1),
        (range(0, 0xf), 1),
        (range(0, 0xff), 1),
        (range(u64::MAX, u64::MAX), 1),
    ] {
        assert_eq!(pool.free(range, owner), Err(PoolError::NotAllocated { range }));
        assert_eq!(snapshot(&pool), before);
    }
    assert!(pool.free(range(0x10, 0x1f), 1).is_ok());
    assert_eq!(pool.free(range(0x10, 0x1f), 1), Err(PoolError::NotAllocated { range: range(0x10, 0x1f) }));
}

#[test]
fn a_window_holds_blocks_and_is_freed_after_them() {
    let mut pool = Memory::memory(IoRange::ALL_MEMORY);
    let outer = window(&mut pool, None, 0x100, 0x1ff);
    let inner = window(&mut pool, Some(outer), 0x100, 0x10f);
    assert_eq!((outer.depth, inner.depth), (0, 1));
    // The whole of the inner window, by the same owner.
    pool.allocate(fixed(0x100, 0x10f), Some(inner), false, 0).unwrap();
    let block = pool.innermost(0x108).unwrap();
    assert_eq!((block.depth, block.window), (2, false));
    assert_eq!(pool.innermost(0x110), Some(outer));
    assert_eq!(pool.innermost(0x200), None);

    refuses(
        &mut pool,
        fixed(0x150, 0x150),
        None,
        false,
        PoolError::Overlap { wanted: range(0x150, 0x150), taken: outer },
    );
    let wanted = range(0x1ff, 0x200);
    refuses(&mut pool, fixed(0x1ff, 0x200), Some(outer), false, PoolError::OutsideWindow { wanted, window: outer });
    refuses(&mut pool, fixed(0x300, 0x300), Some(block), false, PoolError::NotAWindow { block });
    assert_eq!(pool.allocate(first_fit(1, 1), Some(outer), false, 3), Ok(range(0x110, 0x110)));
    assert_eq!(pool.allocate(last_fit(1, 1), Some(outer), false, 3), Ok(range(0x1ff, 0x1ff)));

    let before = snapshot(&pool);
    assert_eq!(pool.free(range(0x100, 0x1ff), 0), Err(PoolError::WindowInUse { window: outer, inside: inner }));
    assert_eq!(snapshot(&pool), before);
    // The innermost of two with the same range and owner goes first.
    assert_eq!(pool.free(range(0x100, 0x10f), 0), Ok(block));
    assert_eq!(pool.free(range(0x100, 0x10f), 0), Ok(inner));
    refuses(&mut pool, first_fit(1, 1), Some(inner), false, PoolError::NotAWindow { block: inner });
    pool.free(range(0x110, 0x110), 3).unwrap();
    pool.free(range(0x1ff, 0x1ff), 3).unwrap();
    assert_eq!(pool.free(range(0x100, 0x1ff), 0), Ok(outer));
    assert_eq!(snapshot(&pool), snapshot(&Memory::memory(IoRange::ALL_MEMORY)));
}

#[test]
fn gaps_of_neighbouring_windows_stay_apart() {
    let mut pool = Memory::memory(range(0, 0x2f));
    let low = window(&mut pool, None, 0, 0xf);
    let high = window(&mut pool, None, 0x10, 0x1f);
    let (end, start) = (range(8, 0xf), range(0x10, 0x17));
    for order in [[end, start], [start, end]] {
        pool.allocate(Placement::Fixed(end), Some(low), false, 5).unwrap();
        pool.allocate(Placement::Fixed(start), Some(high), false, 5).unwrap();
        for range in order {
            pool.free(range, 5).unwrap();
        }
        assert_eq!(snapshot(&pool).1, [(0, 0xf, 1), (0x10, 0x1f, 1), (0x20, 0x2f, 0)]);
    }
    let error = PoolError::NoRoom { size: GuestUsize(0x11), align: 1, within: low.range };
    refuses(&mut pool, first_fit(0x11, 1), Some(low), false, error);
}

#[test]
fn a_full_pool_refuses_before_any_change_and_can_always_be_freed() {
    // Blocks apart from each other and from both ends: as many gaps as there can be.
    let mut pool = Memory::memory(range(0, 0xff));
    for n in 0..N as u64 {
        pool.allocate(fixed(n * 4 + 1, n * 4 + 1), None, false, 1).unwrap();
    }
    assert_eq!((blocks(&pool).len(), snapshot(&pool).1.len()), (N, N + 1));
    for placement in [fixed(0, 0), first_fit(1, 1), fixed(0xff, 0xff)] {
        refuses(&mut pool, placement, None, false, PoolError::Full { capacity: N });
    }
    pool.free(range(5, 5), 1).unwrap();
    // Room for a block, not for a window.
    refuses(&mut pool, fixed(5, 5), None, true, PoolError::Full { capacity: N });
    pool.allocate(fixed(5, 5), None, false, 1).unwrap();

    // Blocks side by side: every second one that goes makes one more gap.
    let mut pool = Memory::memory(range(0, N as u64 - 1));
    for n in 0..N as u64 {
        assert_eq!(pool.allocate(first_fit(1, 1), None, false, 1), Ok(range(n, n)));
    }
    for n in (0..N as u64).step_by(2).chain((1..N as u64).step_by(2)) {
        pool.free(range(n, n), 1).unwrap();
    }
    assert_eq!(snapshot(&pool), (List::new(), std::vec![(0, N as u64 - 1, 0)]));

    // Windows, each with a gap before and in it.
    let mut pool = Memory::memory(range(0, 0xff));
    for n in 0..N as u64 / 2 {
        window(&mut pool, None, n * 4 + 1, n * 4 + 1);
    }
    assert_eq!(snapshot(&pool).1.len(), N + 1);
    refuses(&mut pool, first_fit(1, 1), None, false, PoolError::Full { capacity: N });
}

#[test]
fn windows_are_nested_256_deep_and_no_deeper() {
    let mut pool = AddressPool::<u64, 1024>::memory(IoRange::ALL_MEMORY);
    let mut container = None;
    for depth in 0..=u8::MAX {
        if depth == u8::MAX {
            let error = PoolError::TooDeep { window: container.unwrap() };
            refuses(&mut pool, fixed(0, 9), container, true, error);
        } else {
            pool.allocate(fixed(0, 9), container, true, depth.into()).unwrap();
            container = pool.innermost(0);
        }
    }
    assert_eq!(pool.allocate(fixed(0, 9), container, false, 255), Ok(range(0, 9)));
    assert_eq!(blocks(&pool).len(), 256);
    for owner in (0..=255).rev() {
        pool.free(range(0, 9), owner).unwrap();
    }
    assert_eq!(snapshot(&pool).1, [(0, u64::MAX, 0)]);
}

#[test]
fn a_cursor_goes_on_when_its_block_is_gone() {
    let mut pool = Memory::memory(range(0, 0xff));
    for first in [0x10, 0x20, 0x30] {
        pool.allocate(fixed(first, first), None, false, 1).unwrap();
    }
    let seen = pool.next_after(Some((0x10, 0))).unwrap();
    assert_eq!(seen.range, range(0x20, 0x20));
    pool.free(seen.range, 1).unwrap();
    let next = pool.next_after(Some(seen.key())).unwrap();
    assert_eq!(next.range, range(0x30, 0x30));
    assert_eq!(pool.next_after(Some(next.key())), None);
}

/// The size of the space the model tries every place of.
const SPACE: u64 = 48;

/// A pool that keeps nothing but its blocks, each with its container.
struct Model {
    bounds: IoRange,
    blocks: List<(Block, Option<Block>)>,
}

impl Model {
    fn inside(&self, container: Option<Block>) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |(_, of)| *of == container).map(|(block, _)| block)
    }

    fn room(&self) -> usize {
        self.blocks.iter().map(|(block, _)| if block.window { 2 } else { 1 }).sum()
    }

    fn limits(&self, container: Option<Block>) -> Result<IoRange, PoolError> {
        match container {
            None => Ok(self.bounds),
            Some(block) if block.window && self.blocks.iter().any(|(known, _)| *known == block) => Ok(block.range),
            Some(block) => Err(PoolError::NotAWindow { block }),
        }
    }

    fn place(&self, placement: Placement, container: Option<Block>) -> Result<IoRange, PoolError> {
        match placement {
            Placement::Fixed(wanted) => {
                let limits = self.limits(container)?;
                if !self.bounds.contains_range(wanted) {
                    return Err(PoolError::OutsidePool { wanted, pool: self.bounds });
                }
                if !limits.contains_range(wanted) {
                    return Err(PoolError::OutsideWindow { wanted, window: container.unwrap() });
                }
                let taken = self.inside(container).filter(|block| block.range.overlaps(wanted));
                taken
                    .min_by_key(|block| block.key())
                    .map_or(Ok(wanted), |taken| Err(PoolError::Overlap { wanted, taken: *taken }))
            }
            Placement::Any { size, align, within, fit } => {
                if size.0 == 0 {
                    return Err(PoolError::Empty);
                }
                if align.count_ones() != 1 {
                    return Err(PoolError::BadAlignment { align });
                }
                let limits = self.limits(container)?;
                let serves = |first: &IoRange| {
                    first.first().0.is_multiple_of(align)
                        && limits.contains_range(*first)
                        && within.is_none_or(|within| within.contains_range(*first))
                        && !self.inside(container).any(|block| block.range.overlaps(*first))
                };
                let mut places = (0..SPACE)
                    .filter_map(|offset| IoRange::with_size(GuestAddress(self.bounds.first().0 + offset), size).ok())
                    .filter(serves);
                let found = if fit == Fit::First { places.next() } else { places.next_back() };
                found.ok_or(PoolError::NoRoom { size, align, within: within.unwrap_or(limits) })
            }
        }
    }

    fn allocate(
        &mut self,
        placement: Placement,
        container: Option<Block>,
        window: bool,
        owner: u16,
    ) -> Result<IoRange, PoolError> {
        let range = self.place(placement, container)?;
        if self.room() + if window { 2 } else { 1 } > N {
            return Err(PoolError::Full { capacity: N });
        }
        let depth = container.map_or(0, |container| container.depth + 1);
        self.blocks.push((Block { range, depth, window, owner }, container));
        Ok(range)
    }

    fn free(&mut self, range: IoRange, owner: u16) -> Result<Block, PoolError> {
        let candidates = self.blocks.iter().enumerate();
        let (at, block) = candidates
            .filter(|(_, (block, _))| block.range == range && block.owner == owner)
            .max_by_key(|(_, (block, _))| block.depth)
            .map(|(at, (block, _))| (at, *block))
            .ok_or(PoolError::NotAllocated { range })?;
        if let Some(inside) = self.inside(Some(block)).min_by_key(|block| block.key()) {
            return Err(PoolError::WindowInUse { window: block, inside: *inside });
        }
        self.blocks.swap_remove(at);
        Ok(block)
    }

    /// The blocks in order, and of each container the longest runs of addresses that no block in it has.
    fn snapshot(&self) -> Snapshot {
        let mut blocks: List<Block> = self.blocks.iter().map(|(block, _)| *block).collect();
        blocks.sort_by_key(Block::key);
        let windows = blocks.iter().filter(|block| block.window).map(|block| (Some(*block), block.range));
        let mut gaps = List::<(u64, u64, u8)>::new();
        for (container, limits) in windows.chain([(None, self.bounds)]) {
            let depth = container.map_or(0, |container| container.depth + 1);
            let mut previous = None;
            for address in limits.first().0..=limits.last().0 {
                if self.inside(container).any(|block| block.range.contains(GuestAddress(address))) {
                    previous = None;
                    continue;
                }
                match previous {
                    Some(_) => gaps.last_mut().unwrap().1 = address,
                    None => gaps.push((address, address, depth)),
                }
                previous = Some(address);
            }
        }
        gaps.sort_unstable();
        (blocks, gaps)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate { placement: Placement, container: Option<usize>, window: bool, owner: u16 },
    Free { pick: usize, owner: Option<u16>, cut: bool },
}

/// A range that may pass the pool by a little, unless the pool ends where the space does.
fn ranges(base: u64) -> impl Strategy<Value = IoRange> {
    (base..=base.saturating_add(SPACE + 2), 0..=SPACE / 4)
        .prop_map(|(first, span)| range(first, first.saturating_add(span)))
}

fn placements(base: u64) -> impl Strategy<Value = Placement> {
    let align =
        prop_oneof![8 => Just(1u64), 8 => Just(2), 4 => Just(8), 1 => Just(32), 1 => Just(1 << 63), 1 => 0..8u64];
    let size = prop_oneof![20 => 0..=SPACE / 4, 1 => Just(SPACE), 1 => Just(u64::MAX)];
    let fit = prop_oneof![Just(Fit::First), Just(Fit::Last)];
    prop_oneof![
        ranges(base).prop_map(Placement::Fixed),
        (size, align, prop::option::weighted(0.2, ranges(base)), fit)
            .prop_map(|(size, align, within, fit)| Placement::Any { size: GuestUsize(size), align, within, fit }),
    ]
}

fn steps(base: u64) -> impl Strategy<Value = List<Step>> {
    let allocate = (placements(base), prop::option::of(any::<usize>()), prop::bool::weighted(0.4), 0..3u16)
        .prop_map(|(placement, container, window, owner)| Step::Allocate { placement, container, window, owner });
    let free = (any::<usize>(), prop::option::weighted(0.1, 0..3u16), prop::bool::weighted(0.05))
        .prop_map(|(pick, owner, cut)| Step::Free { pick, owner, cut });
    prop::collection::vec(prop_oneof![3 => allocate, 2 => free], 0..60)
}

fn compare<A: Address>(mut pool: AddressPool<A, N>, steps: List<Step>) -> Result<(), TestCaseError> {
    let mut model = Model { bounds: pool.bounds, blocks: List::new() };
    for step in steps {
        let known = |pick: usize| model.blocks.get(pick % model.blocks.len().max(1)).map(|(block, _)| *block);
        match step {
            Step::Allocate { placement, container, window, owner } => {
                let container = container.and_then(known);
                let expected = model.allocate(placement, container, window, owner);
                prop_assert_eq!(pool.allocate(placement, container, window, owner), expected);
            }
            Step::Free { pick, owner, cut } => {
                let Some(block) = known(pick) else { continue };
                let first = block.range.first().0;
                let range = if cut { range(first, first) } else { block.range };
                let owner = owner.unwrap_or(block.owner);
                prop_assert_eq!(pool.free(range, owner), model.free(range, owner));
            }
        }
        prop_assert_eq!(snapshot(&pool), model.snapshot());
        for offset in 0..SPACE {
            let address = model.bounds.first().0 + offset;
            let has_it = model.blocks.iter().map(|(block, _)| *block);
            let innermost = has_it.filter(|block| block.range.contains(GuestAddress(address)));
            prop_assert_eq!(pool.innermost(address), innermost.max_by_key(|block| block.depth));
        }
    }
    Ok(())
}

const TOP: u64 = u64::MAX - (SPACE - 1);

proptest! {
    #[test]
    fn memory_agrees_with_a_model_at_the_bottom_of_the_space(steps in steps(0)) {
        compare(Memory::memory(range(0, SPACE - 1)), steps)?;
    }

    #[test]
    fn memory_agrees_with_a_model_at_the_top_of_the_space(steps in steps(TOP)) {
        compare(Memory::memory(range(TOP, u64::MAX)), steps)?;
    }

    #[test]
    fn ports_agree_with_a_model_at_the_top_of_the_space(steps in steps(0x1_0000 - SPACE)) {
        compare(AddressPool::<u16, N>::ports(range(0x1_0000 - SPACE, 0xffff)).unwrap(), steps)?;
    }
}

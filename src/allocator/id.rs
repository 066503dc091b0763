//! Instance ids: an index, and how often that index was given out before.

use crate::arrays::{Arrays, InPlace};
#[cfg(feature = "alloc")]
use crate::arrays::{Boxed, Exhausted, boxed};
use crate::indices::NodeIndex;
use crate::instance::InstanceId;

/// The memory of the ids; all zeros at first. 6 bytes for each device.
pub(crate) struct IdStorage<D: Arrays> {
    generations: D::Of<u32>,
    /// An index in use links to itself; a free one links to the index that was freed after it.
    links: D::Of<Option<NodeIndex>>,
    queue: Queue,
}

/// The indices that were freed, in this order.
#[derive(Clone, Copy)]
struct Queue {
    oldest: Option<NodeIndex>,
    newest: Option<NodeIndex>,
    /// How many indices were ever used: the lowest ones.
    used: u16,
}

impl Queue {
    const NEW: Self = Self { oldest: None, newest: None, used: 0 };
}

impl<const DEVICES: usize> IdStorage<InPlace<DEVICES>> {
    const CAPACITY: () = assert!(
        DEVICES > 0 && DEVICES < u16::MAX as usize,
        "DEVICES, the number of devices there is room for, must be from 1 to 65534"
    );

    pub(crate) const fn new() -> Self {
        let () = Self::CAPACITY;
        Self { generations: [0; DEVICES], links: [None; DEVICES], queue: Queue::NEW }
    }
}

#[cfg(feature = "alloc")]
impl IdStorage<Boxed> {
    /// With room for so many ids, which begin with these generations.
    pub(crate) fn boxed(devices: usize, mut generations: impl Iterator<Item = u32>) -> Result<Self, Exhausted> {
        Ok(Self {
            generations: boxed(devices, || generations.next().unwrap_or(0))?,
            links: boxed(devices, || None)?,
            queue: Queue::NEW,
        })
    }
}

impl<D: Arrays> IdStorage<D> {
    pub(crate) fn pool(&mut self) -> IdPool<'_> {
        IdPool { generations: self.generations.as_mut(), links: self.links.as_mut(), queue: &mut self.queue }
    }
}

/// Instance ids.
///
/// Indices that were never used are given out first, then the one that was freed longest ago: so a free index rests as long as
/// possible, and generations are used up evenly. Every operation takes constant time.
pub(crate) struct IdPool<'s> {
    generations: &'s mut [u32],
    links: &'s mut [Option<NodeIndex>],
    queue: &'s mut Queue,
}

impl IdPool<'_> {
    /// The id that [`allocate`](Self::allocate) gives out next; `None` if all indices are in use, or retired.
    pub(crate) fn next(&self) -> Option<InstanceId> {
        let fresh = usize::from(self.queue.used);
        let index = if fresh < self.links.len() { NodeIndex::at(fresh)? } else { self.queue.oldest? };
        Some(InstanceId { index, generation: *self.generations.get(index.position())? })
    }

    pub(crate) fn allocate(&mut self) -> Option<InstanceId> {
        let id = self.next()?;
        let link = self.links.get_mut(id.index.position())?;
        if id.index.position() == usize::from(self.queue.used) {
            self.queue.used = self.queue.used.wrapping_add(1);
        } else {
            self.queue.oldest = *link;
            if link.is_none() {
                self.queue.newest = None;
            }
        }
        *link = Some(id.index);
        Some(id)
    }

    /// Frees an id that is in use. Whether it was.
    pub(crate) fn free(&mut self, id: InstanceId) -> bool {
        if !self.is_current(id) {
            return false;
        }
        let position = id.index.position();
        if let Some(link) = self.links.get_mut(position) {
            *link = None;
        }
        // An index that has used up its generations is retired: not in use, and not in the queue.
        if let Some(next) = id.generation.checked_add(1)
            && let Some(generation) = self.generations.get_mut(position)
        {
            *generation = next;
            match self.queue.newest.and_then(|newest| self.links.get_mut(newest.position())) {
                Some(link) => *link = Some(id.index),
                None => self.queue.oldest = Some(id.index),
            }
            self.queue.newest = Some(id.index);
        }
        true
    }

    /// The id with this index that is in use, or was used last.
    pub(crate) fn current(&self, index: NodeIndex) -> InstanceId {
        InstanceId { index, generation: self.generations.get(index.position()).map_or(0, |generation| *generation) }
    }

    /// Whether `id` is in use.
    pub(crate) fn is_current(&self, id: InstanceId) -> bool {
        let position = id.index.position();
        self.links.get(position) == Some(&Some(id.index)) && self.generations.get(position) == Some(&id.generation)
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    extern crate std;

    use std::collections::{BTreeMap, HashSet, VecDeque};
    use std::string::ToString;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn instance(position: usize, generation: u32) -> InstanceId {
        InstanceId { index: NodeIndex::at(position).unwrap(), generation }
    }

    #[test]
    fn ids_display_with_their_generation_from_the_second_on() {
        assert_eq!(instance(3, 0).to_string(), "#3");
        assert_eq!(instance(3, 1).to_string(), "#3.1");
    }

    #[test]
    fn a_freed_id_is_stale_and_its_index_comes_back_last() {
        let mut storage = IdStorage::<InPlace<3>>::new();
        let mut pool = storage.pool();
        let [a, b, c] = core::array::from_fn(|_| pool.allocate().unwrap());
        assert_eq!([a, b, c].map(|id| id.index.position()), [0, 1, 2]);
        assert_eq!(pool.allocate(), None);
        for id in [b, c, a] {
            assert!(pool.free(id));
            assert!(!pool.is_current(id));
            assert!(!pool.free(id));
        }
        for index in [1, 2, 0] {
            let id = pool.allocate().unwrap();
            assert_eq!(id, instance(index, 1));
            assert!(pool.is_current(id));
        }
        assert!(!pool.is_current(a));
    }

    #[test]
    fn an_id_that_was_never_given_out_is_stale() {
        let mut storage = IdStorage::<InPlace<2>>::new();
        let mut pool = storage.pool();
        let id = pool.allocate().unwrap();
        assert!(pool.free(id));
        // The generation that index 0 will have next, an index not used yet, and one that does not exist.
        for id in [instance(0, 1), instance(1, 0), instance(2, 0)] {
            assert!(!pool.is_current(id));
            assert!(!pool.free(id));
        }
    }

    #[test]
    fn an_index_whose_generations_are_used_up_is_retired() {
        let mut storage = IdStorage::<InPlace<2>>::new();
        let mut pool = storage.pool();
        pool.generations.fill(u32::MAX);
        let [a, b] = core::array::from_fn(|_| pool.allocate().unwrap());
        assert!(pool.free(a));
        assert!(!pool.free(a));
        assert_eq!(pool.allocate(), None);
        assert!(pool.free(b));
        assert_eq!(pool.allocate(), None);
    }

    proptest! {
        #[test]
        fn no_id_comes_twice_and_indices_rest_longest(steps in prop::collection::vec(any::<(bool, u8)>(), 0..200)) {
            let mut storage = IdStorage::<InPlace<5>>::new();
            let mut pool = storage.pool();
            let mut ever = HashSet::new();
            let mut live = Vec::new();
            let mut resting: VecDeque<NodeIndex> = (0..5).filter_map(NodeIndex::at).collect();
            let mut uses = BTreeMap::<NodeIndex, u32>::new();
            for (allocate, pick) in steps {
                if allocate {
                    match pool.allocate() {
                        Some(id) => {
                            prop_assert_eq!(Some(id.index), resting.pop_front());
                            prop_assert!(ever.insert(id));
                            let used = uses.entry(id.index).or_default();
                            prop_assert_eq!(id.generation, *used);
                            *used += 1;
                            live.push(id);
                        }
                        None => prop_assert!(resting.is_empty()),
                    }
                } else if !live.is_empty() {
                    let id = live.swap_remove(usize::from(pick) % live.len());
                    prop_assert!(pool.free(id));
                    resting.push_back(id.index);
                }
                for id in &ever {
                    prop_assert_eq!(pool.is_current(*id), live.contains(id));
                }
            }
        }
    }
}

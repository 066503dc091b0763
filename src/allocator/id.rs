//! Instance ids: an index, and how often that index was given away before.

use core::fmt;

/// Names one registration of a device.
///
/// An id is never given out twice: when an index is used again, it carries a new generation, and an index whose
/// generations are used up is retired. So an id of a device that is gone is an error wherever it is used, and never
/// another device.
///
/// It displays as `#3`, and as `#3.1` once the index was used before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InstanceId {
    pub(crate) index: u16,
    pub(crate) generation: u32,
}

impl InstanceId {
    pub(crate) const fn new(index: u16, generation: u32) -> Self {
        Self { index, generation }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "#{}", self.index),
            generation => write!(f, "#{}.{generation}", self.index),
        }
    }
}

/// Why an instance id was not allocated or freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IdError {
    /// All ids are in use, or retired.
    NoneFree {
        /// How many devices there is room for.
        capacity: usize,
    },
    /// The id is not in use: its device is gone, or it comes from another manager.
    Stale {
        /// The id.
        id: InstanceId,
    },
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdError::NoneFree { capacity } => write!(f, "no instance id is free of {capacity}"),
            IdError::Stale { id } => write!(f, "the instance id {id} is not in use"),
        }
    }
}

impl core::error::Error for IdError {}

/// The link of an index that is in use.
const IN_USE: u16 = u16::MAX;
/// The link of the last index in the queue, and of a retired one.
const END: u16 = u16::MAX - 1;

/// Instance ids for `DEVICES` devices; 6 bytes each.
///
/// Indices that were never used go first, then the one that was freed longest ago: a free index rests as long as it
/// can, and the generations are used up evenly. Every operation takes constant time.
pub(crate) struct IdPool<const DEVICES: usize> {
    generations: [u32; DEVICES],
    /// Each index is in use, or links to the index that was freed after it.
    links: [u16; DEVICES],
    /// The index freed longest ago, and the one freed last; `END` if there is none.
    oldest: u16,
    newest: u16,
    /// The lowest index that was never used.
    unused: u16,
}

impl<const DEVICES: usize> IdPool<DEVICES> {
    const CAPACITY: () = assert!(
        DEVICES > 0 && DEVICES <= END as usize,
        "DEVICES, the number of devices there is room for, must be from 1 to 65534"
    );

    pub(crate) const fn new() -> Self {
        let () = Self::CAPACITY;
        Self { generations: [0; DEVICES], links: [0; DEVICES], oldest: END, newest: END, unused: 0 }
    }

    /// # Errors
    /// [`IdError::NoneFree`].
    pub(crate) fn allocate(&mut self) -> Result<InstanceId, IdError> {
        let none_free = IdError::NoneFree { capacity: DEVICES };
        let fresh = usize::from(self.unused) < DEVICES;
        let index = if fresh { self.unused } else { self.oldest };
        let link = self.links.get_mut(usize::from(index)).ok_or(none_free)?;
        let generation = *self.generations.get(usize::from(index)).ok_or(none_free)?;
        if fresh {
            self.unused = self.unused.wrapping_add(1);
        } else {
            self.oldest = *link;
            if self.oldest == END {
                self.newest = END;
            }
        }
        *link = IN_USE;
        Ok(InstanceId::new(index, generation))
    }

    /// # Errors
    /// [`IdError::Stale`].
    pub(crate) fn free(&mut self, id: InstanceId) -> Result<(), IdError> {
        let stale = IdError::Stale { id };
        if !self.is_current(id) {
            return Err(stale);
        }
        let index = usize::from(id.index);
        *self.links.get_mut(index).ok_or(stale)? = END;
        let Some(next) = id.generation.checked_add(1) else {
            // In no queue and not in use: retired.
            return Ok(());
        };
        *self.generations.get_mut(index).ok_or(stale)? = next;
        match self.links.get_mut(usize::from(self.newest)) {
            Some(link) => *link = id.index,
            None => self.oldest = id.index,
        }
        self.newest = id.index;
        Ok(())
    }

    /// Whether `id` is in use.
    pub(crate) fn is_current(&self, id: InstanceId) -> bool {
        let index = usize::from(id.index);
        id.index < self.unused
            && self.links.get(index) == Some(&IN_USE)
            && self.generations.get(index) == Some(&id.generation)
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

    #[test]
    fn ids_display_with_their_generation_from_the_second_on() {
        assert_eq!(InstanceId::new(3, 0).to_string(), "#3");
        assert_eq!(InstanceId::new(3, 1).to_string(), "#3.1");
    }

    #[test]
    fn a_freed_id_is_stale_and_its_index_comes_back_last() {
        let mut pool = IdPool::<3>::new();
        let [a, b, c] = core::array::from_fn(|_| pool.allocate().unwrap());
        assert_eq!([a, b, c].map(|id| id.index), [0, 1, 2]);
        assert_eq!(pool.allocate(), Err(IdError::NoneFree { capacity: 3 }));
        for id in [b, c, a] {
            pool.free(id).unwrap();
            assert!(!pool.is_current(id));
            assert_eq!(pool.free(id), Err(IdError::Stale { id }));
        }
        for index in [1, 2, 0] {
            let id = pool.allocate().unwrap();
            assert_eq!(id, InstanceId::new(index, 1));
            assert!(pool.is_current(id));
        }
        assert!(!pool.is_current(a));
    }

    #[test]
    fn an_id_that_was_never_given_out_is_stale() {
        let mut pool = IdPool::<2>::new();
        let id = pool.allocate().unwrap();
        pool.free(id).unwrap();
        // The generation that index 0 will have next, an index not used yet, and one that does not exist.
        for id in [InstanceId::new(0, 1), InstanceId::new(1, 0), InstanceId::new(2, 0)] {
            assert!(!pool.is_current(id));
            assert_eq!(pool.free(id), Err(IdError::Stale { id }));
        }
    }

    #[test]
    fn an_index_whose_generations_are_used_up_is_retired() {
        let mut pool = IdPool::<2>::new();
        pool.generations = [u32::MAX; 2];
        let [a, b] = core::array::from_fn(|_| pool.allocate().unwrap());
        pool.free(a).unwrap();
        assert_eq!(pool.free(a), Err(IdError::Stale { id: a }));
        assert_eq!(pool.allocate(), Err(IdError::NoneFree { capacity: 2 }));
        pool.free(b).unwrap();
        assert_eq!(pool.allocate(), Err(IdError::NoneFree { capacity: 2 }));
    }

    proptest! {
        #[test]
        fn ids_are_unique_for_ever_and_indices_rest_longest(steps in prop::collection::vec(any::<(bool, u8)>(), 0..200)) {
            let mut pool = IdPool::<5>::new();
            let mut ever = HashSet::new();
            let mut live = Vec::new();
            let mut resting: VecDeque<u16> = (0..5).collect();
            let mut uses = BTreeMap::<u16, u32>::new();
            for (allocate, pick) in steps {
                if allocate {
                    match pool.allocate() {
                        Ok(id) => {
                            prop_assert_eq!(Some(id.index), resting.pop_front());
                            prop_assert!(ever.insert(id));
                            let used = uses.entry(id.index).or_default();
                            prop_assert_eq!(id.generation, *used);
                            *used += 1;
                            live.push(id);
                        }
                        Err(_) => prop_assert!(resting.is_empty()),
                    }
                } else if !live.is_empty() {
                    let id = live.swap_remove(usize::from(pick) % live.len());
                    prop_assert_eq!(pool.free(id), Ok(()));
                    resting.push_back(id.index);
                }
                for id in &ever {
                    prop_assert_eq!(pool.is_current(*id), live.contains(id));
                }
            }
        }
    }
}

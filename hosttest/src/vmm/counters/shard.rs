//! The counts of some of the vCPUs.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::time::Duration;

use vm_device::{AccessDirection, ObservedAccess};

use super::timeline::{Buckets, Scale};
use super::{Counts, Reached, Unanswered};

/// How many different accesses that nothing answered are told apart.
const MAX_UNANSWERED: usize = 4096;

/// Aligned so that the vCPUs of two of them share no cache line.
#[repr(align(128))]
pub(super) struct Shard {
    pub(super) exits: u64,
    pub(super) rows: BTreeMap<Reached, Row>,
    pub(super) unanswered: HashMap<Unanswered, u64, BuildHasherDefault<DefaultHasher>>,
    /// How many others were not answered, when there were too many to tell them apart.
    pub(super) unanswered_beside: u64,
    pub(super) scale: Scale,
}

pub(super) struct Row {
    pub(super) counts: Counts,
    pub(super) buckets: Buckets,
}

impl Row {
    fn new() -> Self {
        Self { counts: Counts::default(), buckets: Buckets::new() }
    }
}

impl Shard {
    pub(super) const fn new() -> Self {
        Self {
            exits: 0,
            rows: BTreeMap::new(),
            unanswered: HashMap::with_hasher(BuildHasherDefault::new()),
            unanswered_beside: 0,
            scale: Scale::new(),
        }
    }

    /// Counts an access, from one time to another, in nanoseconds.
    pub(super) fn count(&mut self, access: &ObservedAccess<'_>, started: u64, ended: u64) {
        self.exits += u64::from(access.depth == 0 && !access.is_piece);
        // The pieces of one that was split have been counted.
        let Some(reached) = Reached::of(access) else { return };
        if let Some(unanswered) = Unanswered::of(access) {
            self.count_unanswered(unanswered, 1);
        }
        let bucket = loop {
            match self.scale.bucket(started) {
                Some(bucket) => break bucket,
                None => self.coarsen(),
            }
        };
        let row = self.rows.entry(reached).or_insert_with(Row::new);
        row.buckets.count(bucket);
        let counts = &mut row.counts;
        match access.direction {
            AccessDirection::Read => counts.reads += 1,
            AccessDirection::Write => counts.writes += 1,
        }
        counts.strings += u64::from(access.element < access.data.len());
        counts.bytes += access.data.len() as u64;
        counts.time += Duration::from_nanos(ended.saturating_sub(started));
    }

    fn coarsen(&mut self) {
        self.scale = self.scale.doubled();
        self.rows.values_mut().for_each(|row| row.buckets.double());
    }

    fn count_unanswered(&mut self, unanswered: Unanswered, times: u64) {
        if self.unanswered.len() < MAX_UNANSWERED || self.unanswered.contains_key(&unanswered) {
            *self.unanswered.entry(unanswered).or_default() += times;
        } else {
            self.unanswered_beside += times;
        }
    }

    /// Adds the counts of another.
    pub(super) fn merge(&mut self, other: &Self) {
        while self.scale < other.scale {
            self.coarsen();
        }
        self.exits += other.exits;
        for (reached, row) in &other.rows {
            let own = self.rows.entry(*reached).or_insert_with(Row::new);
            own.counts += row.counts;
            own.buckets.merge(&row.buckets, other.scale, self.scale);
        }
        for (unanswered, count) in &other.unanswered {
            self.count_unanswered(*unanswered, *count);
        }
        self.unanswered_beside += other.unanswered_beside;
    }
}

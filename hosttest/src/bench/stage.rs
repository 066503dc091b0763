//! Accesses of one layout's ranges, by every subject.

use std::io;
use std::time::Duration;

use vm_device::IoType;

use super::layout::{Layout, Pattern, space_name};
use super::measure::{self, Eviction, interleaved};
use super::options::Plan;
use super::report::{Report, Work};
use super::subject::Subject;
use super::{lower_bounds, peer_locking, peers, this_crate};

/// How many addresses are accessed in turn, so that no branch predictor learns them.
const ADDRESSES: usize = 1 << 16;

/// How many of them each of several threads takes.
const ADDRESSES_OF_THREADS: usize = 1 << 14;

/// The subjects of one layout.
pub(super) struct Stage {
    layout: Layout,
    pub(super) subjects: Vec<Subject>,
}

impl Stage {
    pub(super) fn new(layout: Layout) -> Self {
        let mut subjects = lower_bounds::lower_bounds(&layout);
        subjects.extend(this_crate::subjects(&layout));
        subjects.extend(peers::subjects(&layout));
        subjects.extend(peer_locking::subjects(&layout));
        Self { layout, subjects }
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.subjects.iter().map(|subject| subject.name).collect()
    }

    /// What a subject is to read: a list of its own.
    pub(super) fn addresses(&self, subject: &Subject, pattern: Pattern) -> Vec<u64> {
        let mut addresses = self.layout.addresses(pattern, ADDRESSES);
        if subject.knows_range {
            let starts = &self.layout.ranges;
            addresses.iter_mut().for_each(|address| {
                *address = starts.partition_point(|(first, _)| first <= address) as u64 - 1;
            });
        }
        addresses
    }

    /// One pattern, on one thread and on two.
    pub(super) fn measure(&self, plan: &Plan, report: &mut Report, pattern: Pattern) -> io::Result<()> {
        let taking_part: Vec<_> = self
            .subjects
            .iter()
            // In a hole there is no device to call.
            .filter(|subject| pattern != Pattern::Miss || !subject.knows_range)
            .map(|subject| (subject, self.addresses(subject, pattern)))
            .collect();
        let names: Vec<_> = taking_part.iter().map(|(subject, _)| subject.name).collect();
        let (n, space) = (self.layout.ranges.len(), space_name(self.layout.io_type));
        let work = |threads| Work { bench: "dispatch", pattern: pattern.name().into(), space, n, threads };
        if plan.wants_threads(1) {
            report.progress(&work(1));
            let mut readers: Vec<_> = taking_part.iter().map(|(subject, _)| (subject.reader)()).collect();
            let figures = if pattern == Pattern::Cold {
                const ACCESSES: usize = 5;
                let mut eviction = Eviction::new();
                interleaved(plan.rounds.min(31), readers.len(), |which, round| {
                    let addresses = taking_part[which].1.chunks(ACCESSES).nth(round).unwrap_or_default();
                    eviction.cold(&mut *readers[which], addresses)
                })
            } else {
                interleaved(plan.rounds, readers.len(), |which, round| {
                    measure::one_thread(&mut *readers[which], &taking_part[which].1, round)
                })
            };
            report.add(&work(1), &names, &figures)?;
        }
        if plan.wants_threads(2)
            && pattern != Pattern::Cold
            && let [first, second, ..] = plan.processors[..]
        {
            report.progress(&work(2));
            let figures = interleaved(plan.rounds.min(31), taking_part.len(), |which, _| {
                let (subject, addresses) = &taking_part[which];
                measure::threads(subject, &[first, second], &addresses[..ADDRESSES_OF_THREADS])
            });
            report.add(&work(2), &names, &figures)?;
        }
        Ok(())
    }
}

/// While one processor reads, the other one adds and removes a device.
pub(super) fn churn(plan: &Plan, report: &mut Report, on: [usize; 2], n: usize) -> io::Result<()> {
    let pattern = Pattern::Random;
    let stage = Stage::new(Layout::new(IoType::Mmio, n, pattern.types()));
    let changing: Vec<_> = stage.subjects.iter().filter(|subject| subject.change.is_some()).collect();
    let addresses: Vec<_> = changing.iter().map(|subject| stage.addresses(subject, pattern)).collect();
    let names: Vec<_> = changing.iter().map(|subject| subject.name).collect();
    for (interval, name) in [(1000, "random, changed every 1 ms"), (10, "random, changed every 10 us")] {
        let work = Work { bench: "churn", pattern: name.into(), space: "mmio", n, threads: 1 };
        report.progress(&work);
        let figures = interleaved(plan.rounds.min(21), changing.len(), |which, _| {
            measure::while_changing(changing[which], on, Duration::from_micros(interval), &addresses[which])
        });
        report.add(&work, &names, &figures)?;
    }
    Ok(())
}

//! Timing: pinned threads, interleaved rounds, medians.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::subject::{Reader, Subject};

/// The median of the rounds and their extremes, in nanoseconds per operation.
#[derive(Clone, Copy)]
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// Half of what lies between the quartiles, in per cent of the median: half of the rounds were no further from it.
    pub(super) noise: f64,
}

impl Figure {
    pub(super) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |index: usize| samples.get(index).copied().unwrap_or(f64::NAN);
        let (median, last) = (at(samples.len() / 2), samples.len().saturating_sub(1));
        let noise = 50.0 * (at(3 * last / 4) - at(last / 4)) / median;
        Self { median, min: at(0), max: at(last), noise }
    }
}

/// Keeps the calling thread on one processor.
pub(super) fn pin(processor: usize) {
    // SAFETY: an all-zero cpu_set_t is an empty set, and the calls read and write that set only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// The processors the program may run on, in order.
pub(super) fn processors() -> Vec<usize> {
    // SAFETY: as in `pin`.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        (0..libc::CPU_SETSIZE as usize).filter(|processor| libc::CPU_ISSET(*processor, &set)).collect()
    }
}

/// Measures every one of `count` things once a round, so that what disturbs the machine disturbs all of them alike. Each
/// round begins with another one, so that none has always the same one before it.
pub(super) fn interleaved(rounds: usize, count: usize, mut once: impl FnMut(usize, usize) -> f64) -> Vec<Figure> {
    let mut samples = vec![Vec::with_capacity(rounds); count];
    for round in 0..=rounds {
        for turn in 0..count {
            let which = (turn + round) % count;
            let sample = once(which, round);
            // The first round warms up.
            if round > 0 {
                samples[which].push(sample);
            }
        }
    }
    samples.into_iter().map(Figure::of).collect()
}

/// Nanoseconds for each of `count` operations that `work` does together.
pub(super) fn per_operation(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e9 / count as f64
}

/// How many addresses one sample takes: so few that most samples fall between two disturbances of the machine.
const BATCH: usize = 4096;

/// One thread reads a batch of the addresses, another one in each round, after one that warms its caches: those of the
/// round before, which all other subjects have had since to drive it out.
pub(super) fn one_thread(reader: &mut dyn Reader, addresses: &[u64], round: usize) -> f64 {
    let batches = (addresses.len() / BATCH).max(1);
    let batch = |number: usize| addresses.chunks(BATCH).nth(number % batches).unwrap_or(addresses);
    reader.read_all(batch(round + batches - 1));
    let addresses = batch(round);
    per_operation(addresses.len(), || reader.read_all(addresses))
}

/// Every given processor reads all addresses; the time is over all of them together.
pub(super) fn threads(subject: &Subject, processors: &[usize], addresses: &[u64]) -> f64 {
    let ready = Barrier::new(processors.len());
    let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let running: Vec<_> = processors
            .iter()
            .map(|processor| {
                let ready = &ready;
                scope.spawn(move || {
                    pin(*processor);
                    let mut reader = (subject.reader)();
                    reader.read_all(addresses);
                    ready.wait();
                    let start = Instant::now();
                    reader.read_all(addresses);
                    reader.read_all(addresses);
                    (start, Instant::now())
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("a reader does not panic")).collect()
    });
    let first = spans.iter().map(|(start, _)| *start).min();
    let last = spans.iter().map(|(_, end)| *end).max();
    let elapsed = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
    elapsed.as_secs_f64() * 1e9 / (2 * processors.len() * addresses.len()) as f64
}

/// As [`one_thread`], while another processor changes the subject every `interval`.
pub(super) fn while_changing(subject: &Subject, processors: [usize; 2], interval: Duration, addresses: &[u64]) -> f64 {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(processors[1]);
            let Some(change) = &subject.change else { return };
            while !stop.load(Ordering::Relaxed) {
                let next = Instant::now() + interval;
                change();
                while Instant::now() < next {
                    std::hint::spin_loop();
                }
            }
        });
        let mut reader = (subject.reader)();
        let sample = per_operation(addresses.len(), || reader.read_all(addresses));
        stop.store(true, Ordering::Relaxed);
        sample
    })
}

/// Memory to push everything else out of the nearer caches.
pub(super) struct Eviction(Vec<u64>);

impl Eviction {
    pub(super) fn new() -> Self {
        Self(vec![1; (4 << 20) / size_of::<u64>()])
    }

    fn evict(&mut self) {
        for line in self.0.chunks_mut(8) {
            line[0] = line[0].wrapping_add(1);
        }
        black_box(&self.0);
    }

    /// The time of one access with cold caches, less the time of reading the clock.
    pub(super) fn cold(&mut self, reader: &mut dyn Reader, addresses: &[u64]) -> f64 {
        let mut samples: Vec<f64> = addresses
            .iter()
            .map(|&address| {
                self.evict();
                let start = Instant::now();
                let clock = start.elapsed();
                let start = Instant::now();
                // The closure has its own value of the address, which is not cold: an exit brings its address along.
                reader.read_all(std::slice::from_ref(&address));
                (start.elapsed().saturating_sub(clock)).as_secs_f64() * 1e9
            })
            .collect();
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_how_far_half_of_the_rounds_are_from_the_median() {
        let noise = |samples: &[f64]| Figure::of(samples.to_vec()).noise;
        assert_eq!(noise(&[10.0; 9]), 0.0);
        assert_eq!(noise(&[8.0, 12.0, 10.0, 9.0, 11.0]), 10.0);
        assert_eq!(noise(&[10.0, 10.0, 10.0, 10.0, 1000.0]), 0.0, "one disturbance is no noise of the median");
    }

    #[test]
    fn every_round_begins_with_another_one() {
        let mut order = Vec::new();
        let figures = interleaved(3, 3, |which, round| {
            order.push((round, which));
            which as f64
        });
        let firsts: Vec<_> = order.iter().step_by(3).copied().collect();
        assert_eq!(firsts, [(0, 0), (1, 1), (2, 2), (3, 0)]);
        assert_eq!(figures.iter().map(|figure| figure.median).collect::<Vec<_>>(), [0.0, 1.0, 2.0]);
    }
}

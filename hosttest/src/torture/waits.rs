//! How long accesses and removals took.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

/// How long something took: the longest exactly, the others to within an eighth.
#[derive(Clone, Debug)]
pub struct Waits {
    buckets: [u64; 512],
    longest: u64,
    /// The longest during which the kernel let no other thread run on the same processor.
    undisturbed: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self { buckets: [0; 512], longest: 0, undisturbed: 0 }
    }
}

impl Waits {
    /// Notes a wait of the calling thread, right after it.
    pub(crate) fn note(&mut self, time: Duration) {
        let nanoseconds = time.as_nanos() as u64;
        self.buckets[bucket(nanoseconds)] += 1;
        self.longest = self.longest.max(nanoseconds);
        if nanoseconds > self.undisturbed && !was_disturbed() {
            self.undisturbed = nanoseconds;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.longest = self.longest.max(other.longest);
        self.undisturbed = self.undisturbed.max(other.undisturbed);
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest)
    }

    /// The longest during which the kernel did not run another thread instead. (That a hypervisor below it stopped the whole
    /// processor, it cannot tell.)
    pub fn longest_undisturbed(&self) -> Duration {
        Duration::from_nanos(self.undisturbed)
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What `share` of all do not exceed, at most an eighth above the least such time; 0.5 is the median.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.count() as f64 * share) as u64;
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen > rank
        });
        Duration::from_nanos(found.map_or(self.longest, last).min(self.longest))
    }
}

/// Whether the calling thread has lost its processor to another since it was last asked.
fn was_disturbed() -> bool {
    thread_local! {
        static SWITCHES: Cell<i64> = const { Cell::new(0) };
    }
    // SAFETY: all zeros is a value of a structure of integers, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage
    };
    SWITCHES.replace(usage.ru_nivcsw) != usage.ru_nivcsw
}

/// Eight buckets for each power of two.
fn bucket(nanoseconds: u64) -> usize {
    if nanoseconds < 16 {
        return nanoseconds as usize;
    }
    let exponent = nanoseconds.ilog2() as usize;
    exponent * 8 - 16 + (nanoseconds >> (exponent - 3) & 7) as usize
}

/// The least time that falls into a bucket.
fn floor(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let exponent = bucket / 8 + 2;
    (8 + bucket as u64 % 8) << (exponent - 3)
}

/// The greatest time that falls into a bucket.
fn last(bucket: usize) -> u64 {
    let width = if bucket < 16 { 1 } else { 1 << (bucket / 8 - 1) };
    floor(bucket) + (width - 1)
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count() == 0 {
            return f.write_str("none");
        }
        let microseconds = |time: Duration| time.as_nanos() as f64 / 1000.0;
        write!(
            f,
            "median {:.2} us, 99 % within {:.2} us, longest {:.2} us, of those not preempted {:.2} us",
            microseconds(self.quantile(0.5)),
            microseconds(self.quantile(0.99)),
            microseconds(self.longest()),
            microseconds(self.longest_undisturbed())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_lies_between_its_floor_and_the_next() {
        for time in (0..5000).chain([u64::MAX / 3, u64::MAX]) {
            let bucket = bucket(time);
            assert!(floor(bucket) <= time && time - floor(bucket) <= time / 8, "{time} in bucket {bucket}");
            assert!(time <= last(bucket) && last(bucket) - time <= time / 8, "{time} in bucket {bucket}");
        }
    }

    #[test]
    fn the_median_and_the_longest_are_told_apart() {
        let mut waits = Waits::default();
        (0..99).for_each(|_| waits.note(Duration::from_nanos(10)));
        waits.note(Duration::from_millis(3));
        assert_eq!(waits.quantile(0.5), Duration::from_nanos(10));
        assert_eq!(waits.longest(), Duration::from_millis(3));
    }

    #[test]
    fn the_figures_of_a_line_grow_from_the_median_to_the_longest() {
        let mut waits = Waits { undisturbed: 86_900, ..Waits::default() };
        // As where other threads preempted most of them.
        for time in (1..=100).map(|number| 200_000 * number) {
            waits.buckets[bucket(time)] += 1;
            waits.longest = waits.longest.max(time);
        }
        let line = waits.to_string();
        let figures: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [median, _, within, longest, undisturbed] = figures[..] else { panic!("{line}") };
        assert!(10_000.0 <= median && median <= within && within <= longest && longest == 20_000.0, "{line}");
        assert!(within >= 19_800.0 && undisturbed == 86.9, "{line}");
        assert_eq!(Waits::default().to_string(), "none");
    }
}

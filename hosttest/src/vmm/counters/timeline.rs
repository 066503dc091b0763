//! How often something happened, over time: as many buckets as there are, the time of each twice as long when they do not
//! suffice.

use std::time::Duration;

/// How many buckets there are at most.
const BUCKETS: usize = 512;
/// The time of a bucket is `1 << FINEST` nanoseconds at first: about a millisecond.
const FINEST: u32 = 20;

/// The time of each bucket, which several rows of them share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Scale(u32);

impl Scale {
    pub(super) const fn new() -> Self {
        Self(FINEST)
    }

    /// The bucket of a time in nanoseconds. `None` if it lies behind the last one.
    pub(super) fn bucket(self, time: u64) -> Option<usize> {
        usize::try_from(time >> self.0).ok().filter(|bucket| *bucket < BUCKETS)
    }

    /// The next scale, of which a bucket is two of this one.
    pub(super) fn doubled(self) -> Self {
        Self((self.0 + 1).min(u64::BITS - 1))
    }

    pub(super) fn width(self) -> Duration {
        Duration::from_nanos(1 << self.0)
    }
}

/// The counts of one row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Buckets(pub(super) Vec<u64>);

impl Buckets {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// One more in this bucket.
    pub(super) fn count(&mut self, bucket: usize) {
        self.add(bucket, 1);
    }

    fn add(&mut self, bucket: usize, count: u64) {
        if self.0.len() <= bucket {
            self.0.resize(bucket + 1, 0);
        }
        self.0[bucket] += count;
    }

    /// The row in the next scale.
    pub(super) fn double(&mut self) {
        self.0 = self.0.chunks(2).map(|pair| pair.iter().sum()).collect();
    }

    /// Adds those of another row, which is of the scale `from` and not of `to`, as this one is.
    pub(super) fn merge(&mut self, other: &Self, from: Scale, to: Scale) {
        let shift = to.0.saturating_sub(from.0);
        for (bucket, count) in other.0.iter().enumerate() {
            self.add(bucket >> shift, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_row_has_the_same_sum_and_half_the_buckets() {
        let mut row = Buckets(vec![1, 2, 3, 4, 5]);
        row.double();
        assert_eq!(row.0, [3, 7, 5]);
    }

    #[test]
    fn rows_of_two_scales_add_up_in_the_coarser_one() {
        let (fine, coarse) = (Scale::new(), Scale::new().doubled());
        let mut row = Buckets(vec![10, 20]);
        row.merge(&Buckets(vec![1, 2, 3]), fine, coarse);
        assert_eq!(row.0, [13, 23]);
    }

    #[test]
    fn a_time_behind_the_last_bucket_is_in_one_of_the_next_scale() {
        let scale = Scale::new();
        let end = (BUCKETS as u64) << FINEST;
        assert_eq!((scale.bucket(end - 1), scale.bucket(end)), (Some(BUCKETS - 1), None));
        assert_eq!(scale.doubled().bucket(end), Some(BUCKETS / 2));
        assert_eq!(scale.doubled().width(), 2 * scale.width());
    }
}

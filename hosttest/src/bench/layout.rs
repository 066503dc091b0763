//! Where the ranges lie, and which addresses are accessed.

use vm_device::IoType;

/// A small generator (xorshift64*): the same addresses in each run, and no dependency for it.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit
    }
}

/// Ranges of irregular sizes with holes of irregular sizes between them.
#[derive(Clone)]
pub(super) struct Layout {
    pub(super) io_type: IoType,
    /// First and last address of each range, in ascending order.
    pub(super) ranges: Vec<(u64, u64)>,
    /// How many types of device take turns.
    pub(super) types: usize,
}

/// How many ranges of ports the densest layout has room for.
pub(super) const MOST_PORT_RANGES: usize = 4096;

impl Layout {
    pub(super) fn new(io_type: IoType, n: usize, types: usize) -> Self {
        let mut random = Random::new(n as u64);
        let mut base = if io_type == IoType::Pio { 0x10 } else { 0xe000_0000 };
        let ranges = (0..n)
            .map(|_| {
                let (size, hole) = match io_type {
                    IoType::Pio => (4 + 4 * random.below(2), 4 + random.below(5)),
                    _ => (0x10 << random.below(9), 0x10 * (1 + random.below(0x100))),
                };
                let range = (base, base + size - 1);
                base += size + hole;
                range
            })
            .collect();
        Self { io_type, ranges, types }
    }

    /// Where there is room for one range more, in memory for the largest: before all others, so that a table in an array
    /// moves them all.
    pub(super) fn spare(&self) -> (u64, u64) {
        let before = self.ranges.first().map_or(0, |(first, _)| first.saturating_sub(0x1000));
        (before, before + 3)
    }

    /// `count` addresses of aligned 4-byte accesses.
    pub(super) fn addresses(&self, pattern: Pattern, count: usize) -> Vec<u64> {
        let mut random = Random::new(0x5eed + count as u64);
        let n = self.ranges.len() as u64;
        let mut within = |which: u64| {
            let (first, last) = self.ranges[which as usize];
            first + 4 * random.below((last - first).div_ceil(4))
        };
        let mut choice = Random::new(0xc401ce);
        match pattern {
            Pattern::Same => vec![within(n / 2); count],
            Pattern::Random | Pattern::Types | Pattern::Cold => (0..count).map(|_| within(choice.below(n))).collect(),
            Pattern::Hot => {
                let hot: Vec<_> = (0..HOT).map(|_| choice.below(n)).collect();
                (0..count).map(|_| within(hot[choice.below(HOT) as usize])).collect()
            }
            Pattern::Miss => (0..count).map(|_| self.ranges[choice.below(n) as usize].1 + 1).collect(),
        }
    }
}

/// How many ranges the hot set has.
const HOT: u64 = 4;

/// Which ranges are accessed, in which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pattern {
    /// One address, over and over.
    Same,
    /// Uniformly random ranges.
    Random,
    /// Uniformly random ones of four ranges.
    Hot,
    /// The holes behind random ranges.
    Miss,
    /// Uniformly random ranges of devices of eight types.
    Types,
    /// Uniformly random ranges, each access after 4 MiB of other memory.
    Cold,
}

impl Pattern {
    pub(super) const ALL: [Self; 6] = [Self::Same, Self::Random, Self::Hot, Self::Miss, Self::Types, Self::Cold];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Random => "random",
            Self::Hot => "hot",
            Self::Miss => "miss",
            Self::Types => "types",
            Self::Cold => "cold",
        }
    }

    /// How many types of device the pattern is about.
    pub(super) fn types(self) -> usize {
        if self == Self::Types { 8 } else { 1 }
    }
}

/// What a space is called on the command line and in the results.
pub(super) fn space_name(io_type: IoType) -> &'static str {
    if io_type == IoType::Pio { "pio" } else { "mmio" }
}

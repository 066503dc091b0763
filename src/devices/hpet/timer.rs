//! A timer of an HPET: its comparator, without the main counter and the interrupt.
//!
//! Names and bits are those of the IA-PC HPET specification (Intel, 1.0a, 2.3.8 and 2.3.9). A tick is the number of a period of
//! the main counter's clock; `ahead` is how far the main counter is ahead of it, wrapping.

/// Configuration: level-triggered; the interrupt is on; periodic, and can be; 64 bits; the accumulator is set; 32 bits; the
/// line.
const LEVEL: u64 = 1 << 1;
const ENABLED: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const CAN_BE_PERIODIC: u64 = 1 << 4;
const HAS_64_BITS: u64 = 1 << 5;
const VALUE_SET: u64 = 1 << 6;
const IN_32_BITS: u64 = 1 << 8;
const ROUTE: u64 = 0x1f << ROUTE_SHIFT;
const ROUTE_SHIFT: u32 = 9;

#[derive(Clone, Copy)]
pub(super) struct Timer {
    /// The bits of the configuration that are written.
    config: u64,
    comparator: u64,
    /// What is added to the comparator when it matches.
    period: u64,
    /// The first tick at which a match counts.
    from: u64,
    /// A level-triggered interrupt is active.
    pub(super) status: bool,
}

/// `value` with the bits of `mask` from `new`.
pub(super) const fn merged(value: u64, new: u64, mask: u64) -> u64 {
    value & !mask | new & mask
}

impl Timer {
    pub(super) const fn new() -> Self {
        Self { config: 0, comparator: u64::MAX, period: 0, from: 0, status: false }
    }

    fn has(&self, bits: u64) -> bool {
        self.config & bits != 0
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.has(ENABLED)
    }

    pub(super) fn is_level(&self) -> bool {
        self.has(LEVEL)
    }

    /// The GSI that is selected.
    pub(super) fn route(&self) -> u32 {
        ((self.config & ROUTE) >> ROUTE_SHIFT) as u32
    }

    /// The bits that are compared.
    fn mask(&self) -> u64 {
        if self.has(IN_32_BITS) { u32::MAX.into() } else { u64::MAX }
    }

    /// How long a period is, in ticks; `None` if it is not periodic.
    pub(super) fn period(&self) -> Option<u64> {
        Some(self.period & self.mask()).filter(|period| self.has(PERIODIC) && *period != 0)
    }

    /// The first tick at which the comparator matches; `None` if it is beyond the end of the time.
    pub(super) fn next_match(&self, ahead: u64) -> Option<u64> {
        let counter = self.from.wrapping_add(ahead);
        self.from.checked_add(self.comparator.wrapping_sub(counter) & self.mask())
    }

    /// Compares up to a tick, and returns how many matches there were.
    pub(super) fn advance(&mut self, to: u64, ahead: u64) -> u64 {
        let matches = match self.next_match(ahead).and_then(|first| to.checked_sub(first)) {
            None => 0,
            Some(since) => match self.period() {
                None => 1,
                Some(period) => {
                    let matches = since.checked_div(period).unwrap_or(0).saturating_add(1);
                    self.comparator = self.comparator.wrapping_add(matches.wrapping_mul(period)) & self.mask();
                    matches
                }
            },
        };
        self.from = self.from.max(to.saturating_add(1));
        self.status |= matches != 0 && self.is_level();
        matches
    }

    /// Matches count from this tick on: the comparator has changed, or the main counter.
    pub(super) fn compare_from(&mut self, tick: u64) {
        self.from = tick;
    }

    pub(super) fn config(&self, routes: u32) -> u64 {
        self.config | CAN_BE_PERIODIC | HAS_64_BITS | u64::from(routes) << 32
    }

    pub(super) fn set_config(&mut self, value: u64, mask: u64, routes: u32) {
        let writable = LEVEL | ENABLED | PERIODIC | VALUE_SET | IN_32_BITS | ROUTE;
        let before = *self;
        self.config = merged(self.config, value, mask & writable);
        // A line that it cannot have is not selected.
        if 1_u32.checked_shl(self.route()).unwrap_or(0) & routes == 0 {
            self.config = merged(self.config, before.config, ROUTE);
        }
        if !self.has(PERIODIC) {
            self.config &= !VALUE_SET;
        }
        self.comparator &= self.mask();
        self.status &= self.is_level();
    }

    pub(super) const fn comparator(&self) -> u64 {
        self.comparator
    }

    /// Writes the comparator of a timer that is not periodic. Of one that is, the period, and the accumulator if that was asked
    /// for.
    pub(super) fn set_comparator(&mut self, value: u64, mask: u64, tick: u64) {
        let is_set = !self.has(PERIODIC) || self.has(VALUE_SET);
        if self.has(PERIODIC) {
            self.period = merged(self.period, value, mask);
        }
        if is_set {
            self.comparator = merged(self.comparator, value, mask) & self.mask();
            self.from = tick;
        }
        self.config &= !VALUE_SET;
    }
}

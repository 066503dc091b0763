//! A counter of an 8254, without the clock: times are numbers of CLK pulses.
//!
//! Names and behaviour are those of the 8254 data sheet (Intel 231164), "Mode Definitions". What the counting element holds,
//! and what OUT is, are computed from the time at which a count was loaded: nothing is counted one by one.

use core::num::NonZeroU64;

/// What a counter does with its count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Mode 0.
    InterruptOnTerminalCount,
    /// Mode 1.
    OneShot,
    /// Mode 2.
    RateGenerator,
    /// Mode 3.
    SquareWave,
    /// Mode 4.
    SoftwareStrobe,
    /// Mode 5.
    HardwareStrobe,
}

/// Which bytes of a count are written and read.
const LOW_ONLY: u8 = 1;
const HIGH_ONLY: u8 = 2;

/// A count that was loaded into the counting element.
#[derive(Clone, Copy)]
struct Run {
    count: NonZeroU64,
    /// When the counting element had counted `phase` pulses.
    start: u64,
    phase: u64,
    /// Whether it counts, or the gate is closed to the pulses.
    counts: bool,
}

impl Run {
    /// How many pulses were counted at a time, from `start` on.
    fn counted(&self, at: u64) -> u64 {
        let since = if self.counts { at.saturating_sub(self.start) } else { 0 };
        self.phase.saturating_add(since)
    }

    /// When so many pulses are counted.
    fn time_of(&self, counted: u64) -> u64 {
        self.start.saturating_add(counted.saturating_sub(self.phase))
    }

    /// The first half of a period of a square wave, which is the longer one.
    fn high_half(&self) -> u64 {
        self.count.get().div_ceil(2)
    }
}

/// One counter. Its functions are called with times that do not go back.
#[derive(Clone, Copy)]
pub(super) struct Counter {
    /// The bits of the control word that the status shows: which bytes, mode, BCD.
    control: u8,
    /// The count register.
    written: u16,
    /// The first byte of two.
    written_low: Option<u8>,
    reads_high: bool,
    latched: Option<u16>,
    latched_status: Option<u8>,
    gate: bool,
    /// A count was written since the control word.
    has_count: bool,
    /// The count register has what the counting element does not have yet.
    is_null: bool,
    /// When the count register is copied into the counting element.
    load_at: Option<u64>,
    run: Option<Run>,
    /// What the counting element holds without a run.
    residue: u16,
    /// The time up to which rises of OUT are counted.
    now: u64,
}

impl Counter {
    /// A counter without a count, in mode 3. The data sheet leaves undefined what it is before it is programmed.
    pub(super) const fn new(gate: bool) -> Self {
        Self {
            control: 0x36,
            written: 0,
            written_low: None,
            reads_high: false,
            latched: None,
            latched_status: None,
            gate,
            has_count: false,
            is_null: true,
            load_at: None,
            run: None,
            residue: 0,
            now: 0,
        }
    }

    fn mode(&self) -> Mode {
        match self.control >> 1 & 0b111 {
            0 => Mode::InterruptOnTerminalCount,
            1 => Mode::OneShot,
            4 => Mode::SoftwareStrobe,
            5 => Mode::HardwareStrobe,
            // The uppermost bit is of no importance to these.
            mode if mode & 1 == 0 => Mode::RateGenerator,
            _ => Mode::SquareWave,
        }
    }

    /// Whether the count is started again when it has ended.
    pub(super) fn is_periodic(&self) -> bool {
        matches!(self.mode(), Mode::RateGenerator | Mode::SquareWave)
    }

    fn is_triggered(&self) -> bool {
        matches!(self.mode(), Mode::OneShot | Mode::HardwareStrobe)
    }

    fn is_bcd(&self) -> bool {
        self.control & 1 != 0
    }

    fn bytes(&self) -> u8 {
        self.control >> 4
    }

    /// The count that is written, where 0 is the largest of all.
    pub(super) fn count(&self) -> NonZeroU64 {
        const LARGEST: NonZeroU64 = NonZeroU64::new(0x1_0000).unwrap();
        const LARGEST_BCD: NonZeroU64 = NonZeroU64::new(10_000).unwrap();
        if !self.is_bcd() {
            return NonZeroU64::new(self.written.into()).unwrap_or(LARGEST);
        }
        let digits = [12, 8, 4, 0].map(|shift| u64::from(self.written >> shift & 0xf));
        let count = digits.iter().fold(0_u64, |count, digit| count.wrapping_mul(10).wrapping_add(*digit));
        NonZeroU64::new(count).unwrap_or(LARGEST_BCD)
    }

    /// What the counting element holds.
    fn element(&self, at: u64) -> u16 {
        let Some(run) = self.run else { return self.residue };
        let (count, counted) = (run.count.get(), run.counted(at));
        match self.mode() {
            Mode::RateGenerator => self.encoded(count.saturating_sub(counted % run.count)),
            Mode::SquareWave => {
                let within = counted % run.count;
                let half = if within < run.high_half() { within } else { within.saturating_sub(run.high_half()) };
                self.encoded((count & !1).saturating_sub(half.saturating_mul(2)))
            }
            // These go on below 0.
            _ if self.is_bcd() => self.encoded((count % 10_000 + 10_000).saturating_sub(counted % 10_000)),
            _ => count.wrapping_sub(counted) as u16,
        }
    }

    fn encoded(&self, value: u64) -> u16 {
        if !self.is_bcd() {
            return value as u16;
        }
        let digits = (value / 1_000 % 10) << 12 | (value / 100 % 10) << 8 | (value / 10 % 10) << 4 | (value % 10);
        digits as u16
    }

    /// The level of OUT.
    pub(super) fn output(&self) -> bool {
        let mode = self.mode();
        let Some(run) = self.run else { return mode != Mode::InterruptOnTerminalCount };
        let (count, counted) = (run.count.get(), run.counted(self.now));
        match mode {
            Mode::InterruptOnTerminalCount | Mode::OneShot => counted >= count,
            // The shortest period of these is 2.
            _ if self.is_periodic() && (!run.counts || count == 1) => true,
            Mode::RateGenerator => counted % run.count != count - 1,
            Mode::SquareWave => counted % run.count < run.high_half(),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => counted != count,
        }
    }

    /// How many pulses are counted when OUT rises for the first time after so many; `None` if it does not.
    fn rise_after(&self, run: &Run, counted: u64) -> Option<u64> {
        let count = run.count.get();
        let rise = match self.mode() {
            _ if !run.counts => return None,
            Mode::RateGenerator | Mode::SquareWave if count == 1 => return None,
            Mode::RateGenerator | Mode::SquareWave => (counted / run.count).saturating_add(1).saturating_mul(count),
            Mode::InterruptOnTerminalCount | Mode::OneShot => count,
            Mode::SoftwareStrobe | Mode::HardwareStrobe => count.saturating_add(1),
        };
        Some(rise).filter(|rise| *rise > counted)
    }

    /// Lets the time go on to `to`, and returns how often OUT has risen.
    pub(super) fn advance(&mut self, to: u64) -> u64 {
        let mut rises = 0;
        if let Some(at) = self.load_at.filter(|at| *at <= to) {
            rises = self.count_until(at);
            self.load(at);
        }
        self.count_until(to).saturating_add(rises)
    }

    fn count_until(&mut self, to: u64) -> u64 {
        let from = core::mem::replace(&mut self.now, to);
        let Some(run) = self.run else { return 0 };
        let (from, to) = (run.counted(from), run.counted(to));
        match self.rise_after(&run, from) {
            Some(rise) if rise > to => 0,
            Some(_) if self.is_periodic() => (to / run.count).saturating_sub(from / run.count),
            Some(_) => 1,
            None => 0,
        }
    }

    /// Copies the count register into the counting element, in the place of a pulse that counts.
    fn load(&mut self, at: u64) {
        let count = self.count();
        let mut run = Run { count, start: at, phase: 0, counts: self.gate || self.is_triggered() };
        // A square wave takes a count at the end of either half.
        if let Some(old) = self.run.filter(|old| old.counts && self.mode() == Mode::SquareWave)
            && old.counted(at) % old.count != 0
        {
            run.phase = run.high_half();
        }
        (self.run, self.load_at, self.is_null) = (Some(run), None, false);
    }

    /// Whether OUT rises at a change that needs no pulse.
    fn counting_rise(&mut self, change: impl FnOnce(&mut Self)) -> u64 {
        let before = self.output();
        change(self);
        u64::from(!before && self.output())
    }

    /// When OUT rises next.
    pub(super) fn next_rise(&self) -> Option<u64> {
        let rise_of = |counter: &Self| {
            let run = counter.run?;
            counter.rise_after(&run, run.counted(counter.now)).map(|rise| run.time_of(rise))
        };
        let rise = rise_of(self);
        match self.load_at {
            Some(load) if rise.is_none_or(|rise| rise > load) => {
                let mut loaded = *self;
                if loaded.advance(load) != 0 { Some(load) } else { rise_of(&loaded) }
            }
            _ => rise,
        }
    }

    /// Takes a control word, and returns how often OUT has risen at once. So do the other changes.
    pub(super) fn control(&mut self, word: u8) -> u64 {
        self.counting_rise(|counter| {
            let residue = counter.element(counter.now);
            let now = counter.now;
            *counter = Self { control: word & 0x3f, residue, now, ..Self::new(counter.gate) };
        })
    }

    /// Takes a byte of a count.
    pub(super) fn write(&mut self, byte: u8) -> u64 {
        self.counting_rise(|counter| {
            let terminal = counter.mode() == Mode::InterruptOnTerminalCount;
            if terminal {
                // OUT goes low, and nothing is counted until all of the count is written.
                counter.residue = counter.element(counter.now);
                (counter.run, counter.load_at) = (None, None);
            }
            counter.written = match (counter.bytes(), counter.written_low) {
                (LOW_ONLY, _) => byte.into(),
                (HIGH_ONLY, _) => u16::from_le_bytes([0, byte]),
                (_, Some(low)) => u16::from_le_bytes([low, byte]),
                (_, None) => {
                    counter.written_low = Some(byte);
                    return;
                }
            };
            counter.written_low = None;
            (counter.has_count, counter.is_null) = (true, true);
            let next = counter.now.saturating_add(1);
            counter.load_at = match counter.run {
                _ if counter.is_triggered() => counter.load_at,
                // The period, or half of it, that has begun is completed; if it is stopped, a trigger begins another.
                Some(run) if counter.is_periodic() => counter.load_at.or_else(|| counter.end_of_part(&run)),
                _ => Some(next),
            };
        })
    }

    /// When the period of a rate generator, or the half of a square wave, ends.
    fn end_of_part(&self, run: &Run) -> Option<u64> {
        let counted = run.counted(self.now);
        let begun = counted.saturating_sub(counted % run.count);
        let is_high = self.mode() == Mode::SquareWave && counted % run.count < run.high_half();
        let length = if is_high { run.high_half() } else { run.count.get() };
        run.counts.then(|| run.time_of(begun.saturating_add(length)))
    }

    /// Opens the gate to the pulses, or closes it.
    pub(super) fn set_gate(&mut self, open: bool) -> u64 {
        if open == self.gate {
            return 0;
        }
        self.counting_rise(|counter| {
            let (now, is_triggered) = (counter.now, counter.is_triggered());
            let triggers = is_triggered || counter.is_periodic();
            counter.gate = open;
            if open && triggers && counter.has_count {
                counter.load_at = Some(now.saturating_add(1));
            }
            let Some(run) = counter.run.as_mut().filter(|_| !is_triggered) else { return };
            if !open {
                // A period that is stopped does not end. A trigger is not taken back.
                if triggers && run.counts {
                    counter.load_at = None;
                }
                (run.phase, run.counts) = (run.counted(now), false);
            } else if !triggers {
                (run.start, run.counts) = (now, true);
            }
        })
    }

    /// Latches the count, unless one is latched already.
    pub(super) fn latch(&mut self) {
        self.latched = self.latched.or(Some(self.element(self.now)));
    }

    /// Latches the status, unless one is latched already.
    pub(super) fn latch_status(&mut self) {
        let status = u8::from(self.output()) << 7 | u8::from(self.is_null) << 6 | self.control;
        self.latched_status = self.latched_status.or(Some(status));
    }

    /// Reads what is latched, or else the count.
    pub(super) fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched.unwrap_or(self.element(self.now)).to_le_bytes();
        let (byte, is_last) = match self.bytes() {
            LOW_ONLY => (low, true),
            HIGH_ONLY => (high, true),
            _ if self.reads_high => (high, true),
            _ => (low, false),
        };
        self.reads_high = !is_last;
        if is_last {
            self.latched = None;
        }
        byte
    }
}

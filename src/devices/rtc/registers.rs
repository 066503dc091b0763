//! The registers of an MC146818, without its clocks and its interrupt.
//!
//! Names and bits are those of the MC146818 data sheet (Motorola, "Registers" and "Update cycle").

use super::calendar::{DateTime, midnights, weekday};
use crate::devices::time::Rate;

const SECOND: u64 = 1_000_000_000;
/// How long before an update UIP is set.
const BEFORE_UPDATE: u64 = 244_000;
/// The divider's first stages: 32.768 kHz.
const RATE: Rate = Rate::new(512, 15_625_000);

const SECONDS: u8 = 0;
const SECONDS_ALARM: u8 = 1;
const MINUTES: u8 = 2;
const MINUTES_ALARM: u8 = 3;
const HOURS: u8 = 4;
const HOURS_ALARM: u8 = 5;
const WEEKDAY: u8 = 6;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const A: u8 = 10;
const B: u8 = 11;
const C: u8 = 12;
const D: u8 = 13;
/// Where the memory begins.
const MEMORY: u8 = 14;

/// In an hour of twelve.
const PM: u8 = 0x80;
/// An alarm byte with these bits matches everything.
const ANY: u8 = 0xc0;

/// Register A: an update is in progress; what the divider does; the rate of the periodic interrupt.
const UIP: u8 = 1 << 7;
const DIVIDER: u8 = 0b111 << 4;
const DIVIDER_HELD: u8 = 0b110 << 4;
const RATE_SELECT: u8 = 0x0f;

/// Register B: no updates; interrupts; the square wave; binary; 24 hours.
const SET: u8 = 1 << 7;
const PIE: u8 = 1 << 6;
const AIE: u8 = 1 << 5;
const UIE: u8 = 1 << 4;
const SQWE: u8 = 1 << 3;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;

/// Register C. Each of the flags is enabled by the same bit of register B.
const IRQF: u8 = 1 << 7;
const PF: u8 = PIE;
const AF: u8 = AIE;
const UF: u8 = UIE;

/// Register D: the memory has kept what it holds.
const VALID: u8 = 1 << 7;

/// What both clocks of the embedder say, in nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Time {
    pub(super) now: u64,
    pub(super) utc: u64,
}

pub(super) struct Registers {
    /// As the guest reads them, but for UIP, IRQF and register D.
    bytes: [u8; 128],
    century: Option<u8>,
    /// How far the divider is ahead of the time of day, in nanoseconds: less than a second.
    ahead: u64,
    /// The second of the divider that the bytes show; `None` until the time of day is known.
    shown: Option<u64>,
    /// When the divider was started, by the clock that never goes back.
    started: u64,
    /// How often its first stages have counted since then.
    counted: u64,
}

impl Registers {
    pub(super) const fn new() -> Self {
        let mut bytes = [0; 128];
        (bytes[A as usize], bytes[B as usize]) = (0x26, HOURS_24);
        Self { bytes, century: None, ahead: 0, shown: None, started: 0, counted: 0 }
    }

    pub(super) const fn with_century(mut self, index: u8) -> Self {
        self.century = if index >= MEMORY && index < 128 { Some(index) } else { None };
        self
    }

    pub(super) const fn century(&self) -> Option<u8> {
        self.century
    }

    fn get(&self, index: u8) -> u8 {
        self.bytes.get(usize::from(index)).copied().unwrap_or(0xff)
    }

    fn set(&mut self, index: u8, value: u8) {
        if let Some(byte) = self.bytes.get_mut(usize::from(index)) {
            *byte = value;
        }
    }

    fn has(&self, index: u8, bits: u8) -> bool {
        self.get(index) & bits != 0
    }

    fn is_divider_held(&self) -> bool {
        self.get(A) & DIVIDER_HELD == DIVIDER_HELD
    }

    fn updates(&self) -> bool {
        !self.has(B, SET) && !self.is_divider_held()
    }

    /// The second of the divider, and the nanoseconds that have passed of it.
    fn divider(&self, utc: u64) -> (u64, u64) {
        let time = utc.saturating_add(self.ahead);
        (time / SECOND, time % SECOND)
    }

    /// Updates what is due by now.
    pub(super) fn advance(&mut self, time: Time) {
        let (second, _) = self.divider(time.utc);
        let Some(shown) = self.shown else {
            self.show(i64::try_from(time.utc / SECOND).unwrap_or(i64::MAX));
            self.shown = Some(second);
            return;
        };
        let counted = RATE.ticks_at(time.now.saturating_sub(self.started)).max(self.counted);
        if let Some(period) = self.period()
            && counted >> period != self.counted >> period
        {
            self.raise(PF);
        }
        self.counted = counted;
        if self.updates() && second != shown {
            self.update((second as i64).wrapping_sub(shown as i64));
            self.shown = Some(second);
        }
    }

    /// The time of day goes on by so many seconds, or back, where the embedder has set its clock.
    fn update(&mut self, seconds: i64) {
        let date = self.date();
        let (from, to) = (date.seconds(), date.seconds().wrapping_add(seconds));
        if seconds > 0 {
            self.raise(UF);
            if self.seconds_to_alarm(date.second_of_day()).is_some_and(|alarm| i64::from(alarm) <= seconds) {
                self.raise(AF);
            }
        }
        // The guest may count the days of the week from where it likes.
        let weekday = i64::from(self.decoded(WEEKDAY)).wrapping_sub(1).wrapping_add(midnights(from, to)).rem_euclid(7);
        self.set_date(&DateTime::from_seconds(to));
        self.set(WEEKDAY, self.encoded(weekday as u8 + 1));
    }

    /// Shows a time, in seconds since 1970.
    fn show(&mut self, seconds: i64) {
        self.set_date(&DateTime::from_seconds(seconds));
        self.set(WEEKDAY, self.encoded(weekday(seconds)));
    }

    fn raise(&mut self, flag: u8) {
        self.set(C, self.get(C) | flag);
    }

    /// A byte of the time as a number: as it is, or of two digits.
    fn decoded(&self, index: u8) -> u8 {
        self.number(self.get(index))
    }

    fn number(&self, byte: u8) -> u8 {
        if self.has(B, BINARY) { byte } else { (byte >> 4).wrapping_mul(10).wrapping_add(byte & 0x0f) }
    }

    fn encoded(&self, value: u8) -> u8 {
        if self.has(B, BINARY) { value } else { (value / 10).wrapping_shl(4) | (value % 10) }
    }

    fn hour(&self, index: u8) -> u8 {
        if self.has(B, HOURS_24) {
            return self.decoded(index);
        }
        let byte = self.get(index);
        let afternoon = if byte & PM != 0 { 12 } else { 0 };
        match self.number(byte & !PM) {
            12 => afternoon,
            hour => hour.wrapping_add(afternoon),
        }
    }

    fn date(&self) -> DateTime {
        let year = u16::from(self.decoded(YEAR));
        let century = match self.century {
            Some(index) => self.decoded(index).into(),
            None if year < 70 => 20,
            None => 19,
        };
        DateTime {
            year: year.wrapping_add(century * 100),
            month: self.decoded(MONTH),
            day: self.decoded(DAY),
            hour: self.hour(HOURS),
            minute: self.decoded(MINUTES),
            second: self.decoded(SECONDS),
        }
    }

    fn set_date(&mut self, date: &DateTime) {
        let fields = [
            (SECONDS, date.second),
            (MINUTES, date.minute),
            (DAY, date.day),
            (MONTH, date.month),
            (YEAR, (date.year % 100) as u8),
        ];
        let century = self.century.map(|index| (index, (date.year / 100) as u8));
        for (index, value) in fields.into_iter().chain(century) {
            self.set(index, self.encoded(value));
        }
        let hour = match date.hour {
            hour if self.has(B, HOURS_24) => self.encoded(hour),
            hour => {
                let of_twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
                self.encoded(of_twelve) | if hour >= 12 { PM } else { 0 }
            }
        };
        self.set(HOURS, hour);
    }

    /// How many seconds after a second of the day the alarm is: 1 to 86,400. `None` if no time is that of the alarm.
    fn seconds_to_alarm(&self, from: u32) -> Option<u32> {
        let field = |index, value: u8, limit| match self.get(index) {
            ANY.. => Some(None),
            _ => (value < limit).then_some(Some(u32::from(value))),
        };
        let hour: Option<u32> = field(HOURS_ALARM, self.hour(HOURS_ALARM), 24)?;
        let minute: Option<u32> = field(MINUTES_ALARM, self.decoded(MINUTES_ALARM), 60)?;
        let second: Option<u32> = field(SECONDS_ALARM, self.decoded(SECONDS_ALARM), 60)?;
        let differs = |field: Option<u32>, value| field.is_some_and(|field| field != value);
        let mut at = from.saturating_add(1);
        // Each turn goes on to the next hour, minute or second: some hundred turns at most.
        while at <= from.saturating_add(86_400) {
            at = match at {
                _ if differs(hour, at / 3_600 % 24) => (at / 3_600 + 1).saturating_mul(3_600),
                _ if differs(minute, at / 60 % 60) => (at / 60 + 1).saturating_mul(60),
                _ if differs(second, at % 60) => at.saturating_add(1),
                _ => return at.checked_sub(from),
            };
        }
        None
    }

    /// How many of the first stages' counts there are in a period, as a power of two; `None` without periods.
    fn period(&self) -> Option<u32> {
        match u32::from(self.get(A) & RATE_SELECT) {
            0 => None,
            _ if self.is_divider_held() => None,
            rate @ (1 | 2) => Some(rate + 6),
            rate => Some(rate - 1),
        }
    }

    pub(super) fn interrupts(&self) -> bool {
        self.get(B) & self.get(C) & (PF | AF | UF) != 0
    }

    /// When the interrupt is asserted next, by the clock that never goes back; `None` if not, or if it is asserted now.
    pub(super) fn deadline(&self, time: Time) -> Option<u64> {
        if self.interrupts() {
            return None;
        }
        let period = self.period().filter(|_| self.has(B, PIE)).map(|period| {
            let next = (self.counted >> period).saturating_add(1) << period;
            self.started.saturating_add(RATE.time_of(next))
        });
        let in_seconds = |seconds: u32| {
            let (_, passed) = self.divider(time.utc);
            let until = u64::from(seconds).saturating_mul(SECOND).saturating_sub(passed);
            time.now.saturating_add(until)
        };
        let update = (self.updates() && self.has(B, UIE)).then(|| in_seconds(1));
        let alarm = (self.updates() && self.has(B, AIE))
            .then(|| self.seconds_to_alarm(self.date().second_of_day()))
            .flatten()
            .map(in_seconds);
        [period, update, alarm].into_iter().flatten().min()
    }

    /// Reads the register at an index.
    pub(super) fn read(&mut self, index: u8, time: Time) -> u8 {
        match index {
            A => {
                let (_, passed) = self.divider(time.utc);
                let is_near = self.updates() && passed >= SECOND - BEFORE_UPDATE;
                self.get(A) | if is_near { UIP } else { 0 }
            }
            C => {
                let flags = self.get(C) | if self.interrupts() { IRQF } else { 0 };
                self.set(C, 0);
                flags
            }
            D => VALID,
            _ => self.get(index),
        }
    }

    /// Writes the register at an index.
    pub(super) fn write(&mut self, index: u8, value: u8, time: Time) {
        let updated = self.updates();
        match index {
            A => {
                let held = self.is_divider_held();
                self.set(A, value & (DIVIDER | RATE_SELECT));
                if held && !self.is_divider_held() {
                    // The first update comes half a second later.
                    self.ahead = (SECOND + SECOND / 2).wrapping_sub(time.utc % SECOND) % SECOND;
                    (self.started, self.counted) = (time.now, 0);
                }
            }
            B if value & SET != 0 => self.set(B, value & !UIE),
            B => self.set(B, value),
            C | D => {}
            _ => self.set(index, value),
        }
        if !updated && self.updates() {
            self.shown = Some(self.divider(time.utc).0);
        }
    }

    /// A byte of the memory: `None` for the index of a register, or beyond the memory.
    pub(super) fn memory(&mut self, index: u8) -> Option<&mut u8> {
        let is_memory = index >= MEMORY && self.century != Some(index);
        self.bytes.get_mut(usize::from(index)).filter(|_| is_memory)
    }

    /// The reset input: time, memory and register A keep what they hold.
    pub(super) fn reset(&mut self) {
        self.set(B, self.get(B) & !(PIE | AIE | UIE | SQWE));
        self.set(C, 0);
    }
}

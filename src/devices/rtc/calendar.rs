//! Dates of the Gregorian calendar as numbers of days, and back.

/// A date and a time of day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DateTime {
    /// From 0 to 9999.
    pub(super) year: u16,
    /// From 1 to 12.
    pub(super) month: u8,
    /// From 1 on.
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

/// 400 years, after which the calendar repeats itself.
const CYCLE: i64 = 146_097;
/// From 0000-01-01 to 1970-01-01.
const TO_1970: i64 = 719_528;
/// After 9999 comes 0.
const ALL_DAYS: i64 = 25 * CYCLE;
const DAY: i64 = 86_400;

const fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of_year(year: u16) -> i64 {
    if is_leap(year) { 366 } else { 365 }
}

const fn days_of_month(year: u16, month: u8) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl DateTime {
    /// From the seconds since 1970; years beyond 9999 begin at 0 again.
    pub(super) fn from_seconds(seconds: i64) -> Self {
        let (mut days, of_day) =
            (seconds.div_euclid(DAY).wrapping_add(TO_1970).rem_euclid(ALL_DAYS), seconds.rem_euclid(DAY));
        // At most 400 and 12 turns.
        let mut year = (days / CYCLE * 400) as u16;
        days %= CYCLE;
        while days >= days_of_year(year) {
            days -= days_of_year(year);
            year = year.saturating_add(1);
        }
        let mut month = 1;
        while month < 12 && days >= days_of_month(year, month) {
            days -= days_of_month(year, month);
            month += 1;
        }
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        Self { year, month, day: days as u8 + 1, hour: hour as u8, minute: minute as u8, second: second as u8 }
    }

    /// The seconds since 1970. A field beyond its range counts on into the next one.
    pub(super) fn seconds(&self) -> i64 {
        let year = self.year % 10_000;
        let cycles = i64::from(year / 400);
        let years: i64 = (year / 400 * 400..year).map(days_of_year).sum();
        let months: i64 = (1..self.month.min(12)).map(|month| days_of_month(year, month)).sum();
        let days = cycles * CYCLE + years + months + i64::from(self.day) - 1 - TO_1970;
        days * DAY + i64::from(self.hour) * 3_600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }

    /// The number of the second in its day.
    pub(super) fn second_of_day(&self) -> u32 {
        u32::from(self.hour) * 3_600 + u32::from(self.minute) * 60 + u32::from(self.second)
    }
}

/// The day of the week, from 1 for Sunday.
pub(super) fn weekday(seconds: i64) -> u8 {
    // 1970-01-01 was a Thursday.
    (seconds.div_euclid(DAY).wrapping_add(4).rem_euclid(7)) as u8 + 1
}

/// How many midnights there are between two times.
pub(super) fn midnights(from: i64, to: i64) -> i64 {
    to.div_euclid(DAY).wrapping_sub(from.div_euclid(DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_and_days_are_dates() {
        let date = |year, month, day| DateTime { year, month, day, hour: 23, minute: 59, second: 58 };
        for (date, seconds) in [
            (date(1970, 1, 1), 86_398),
            (date(1999, 12, 31), 946_684_798),
            (date(2000, 2, 29), 951_868_798),
            (date(2038, 1, 19), 2_147_558_398),
            (date(2100, 2, 28), 4_107_542_398),
            (date(9999, 12, 31), 253_402_300_798),
        ] {
            assert_eq!((date.seconds(), DateTime::from_seconds(seconds)), (seconds, date));
        }
        // Each day is the next after the one before: around the beginning, a century that has no leap day, and one that has.
        let mut last = DateTime { year: 9999, month: 12, day: 31, hour: 0, minute: 0, second: 0 };
        for days in (0..2_000).chain(35_000..37_000).chain(145_000..147_000) {
            if days % 1_000 == 0 {
                last = DateTime::from_seconds((days - TO_1970 - 1) * DAY);
            }
            let seconds = (days - TO_1970) * DAY;
            let date = DateTime::from_seconds(seconds);
            assert_eq!(date.seconds(), seconds);
            let follows = match (date.month, date.day) {
                (1, 1) => (last.month, last.day) == (12, 31) && date.year == (last.year + 1) % 10_000,
                (month, 1) => month == last.month + 1 && i64::from(last.day) == days_of_month(last.year, last.month),
                (month, day) => (month, day) == (last.month, last.day + 1),
            };
            assert!(follows, "{last:?} {date:?}");
            last = date;
        }
    }

    #[test]
    fn the_ends_of_the_time_neither_overflow_nor_leave_the_calendar() {
        for seconds in [i64::MIN, -1, i64::MAX] {
            let date = DateTime::from_seconds(seconds);
            assert!(date.year <= 9999 && (1..=12).contains(&date.month) && (1..=31).contains(&date.day));
            assert!((1..=7).contains(&weekday(seconds)));
        }
        assert_eq!((weekday(0), weekday(3 * DAY), weekday(-1)), (5, 1, 4));
        let most = DateTime { year: u16::MAX, month: 255, day: 255, hour: 255, minute: 255, second: 255 };
        assert!(most.seconds() > 0);
    }
}

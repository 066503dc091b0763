//! The MC146818, as a guest sees it.
#![cfg(feature = "devices")]

mod fixture;

use vm_device::devices::rtc::Rtc;
use vm_device::devices::time::{Clock, HandClock};
use vm_device::{DeviceManager, Gsi, IoType, IrqResource};

use fixture::{Log, PC, Told, manager};

const SECOND: u64 = 1_000_000_000;

// Registers.
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
const CENTURY: u8 = 0x32;

// Register B.
const SET: u8 = 0x80;
const PIE: u8 = 0x40;
const AIE: u8 = 0x20;
const UIE: u8 = 0x10;
const BINARY: u8 = 0x04;
const HOURS_24: u8 = 0x02;

/// 2023-12-31 23:59:58, a Sunday.
const EVE: u64 = 1_704_067_198 * SECOND;

/// A guest with a real-time clock on line 8.
struct Machine<'m> {
    manager: &'m DeviceManager<'m>,
    rtc: &'m Rtc<'m, &'m HandClock>,
    clock: &'m HandClock,
    log: &'m Log,
}

/// At a time of day, with a century.
fn machine(utc: u64, test: impl FnOnce(&Machine<'_>)) {
    machine_with(Some(CENTURY), utc, test);
}

fn machine_with(century: Option<u8>, utc: u64, test: impl FnOnce(&Machine<'_>)) {
    let (clock, log) = (HandClock::new(), Log::default());
    clock.set_utc(utc);
    let rtc = Rtc::new(&clock);
    let rtc = if let Some(index) = century { rtc.with_century(index) } else { rtc };
    manager!(let manager = PC, with_interrupt_controller(&log));
    manager.register_device(&rtc, None, &[rtc.ports()], &[IrqResource::Fixed(Gsi(8))]).unwrap();
    test(&Machine { manager: &manager, rtc: &rtc, clock: &clock, log: &log });
}

impl Machine<'_> {
    fn read(&self, register: u8) -> u8 {
        let mut data = [0];
        self.manager.write(0x70_u16.into(), &[register], IoType::Pio).unwrap();
        self.manager.read(0x71_u16.into(), &mut data, IoType::Pio).unwrap();
        data[0]
    }

    fn write(&self, register: u8, value: u8) {
        self.manager.write(0x70_u16.into(), &[register], IoType::Pio).unwrap();
        self.manager.write(0x71_u16.into(), &[value], IoType::Pio).unwrap();
    }

    /// Century, year, month, day, hour, minute, second, day of the week.
    fn time(&self) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS, WEEKDAY].map(|register| self.read(register))
    }

    fn set_time(&self, time: [u8; 8]) {
        for (register, value) in [CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS, WEEKDAY].into_iter().zip(time) {
            self.write(register, value);
        }
    }

    /// Turns the clock, ticks, and returns how long it is to the next tick that was asked for.
    fn advance(&self, nanoseconds: u64) -> Option<u64> {
        let now = self.clock.advance(nanoseconds);
        self.manager.tick(now).map(|deadline| deadline - now)
    }

    /// The levels that line 8 was given.
    fn levels(&self) -> Vec<bool> {
        let level = |told| match told {
            Told::Level(8, level) => level,
            told => panic!("{told:?}"),
        };
        self.log.take().into_iter().map(level).collect()
    }
}

#[test]
fn after_power_on_it_has_the_time_of_day() {
    machine(EVE, |machine| {
        assert_eq!(machine.time(), [0x20, 0x23, 0x12, 0x31, 0x23, 0x59, 0x58, 1]);
        assert_eq!([A, B, C, D].map(|register| machine.read(register)), [0x26, HOURS_24, 0, 0x80]);
        assert_eq!(machine.advance(0), None);
        // Two seconds later it is another year.
        machine.advance(2 * SECOND);
        assert_eq!(machine.time(), [0x20, 0x24, 1, 1, 0, 0, 0, 2]);
        machine.advance(86_400 * 60 * SECOND);
        assert_eq!(machine.time(), [0x20, 0x24, 3, 1, 0, 0, 0, 6]);
    });
}

#[test]
fn the_host_may_set_its_clock_forwards_and_backwards() {
    machine(EVE, |machine| {
        machine.time();
        machine.clock.set_utc(EVE - 86_400 * SECOND);
        assert_eq!(machine.time(), [0x20, 0x23, 0x12, 0x30, 0x23, 0x59, 0x58, 7]);
        assert_eq!(machine.read(C) & UIE, 0);
        machine.clock.set_utc(EVE + 3 * SECOND);
        assert_eq!(machine.time(), [0x20, 0x24, 1, 1, 0, 0, 1, 2]);
    });
}

#[test]
fn a_guest_sets_a_time_of_its_own_which_goes_on() {
    machine(EVE, |machine| {
        machine.advance(SECOND / 2);
        machine.write(B, SET | HOURS_24 | UIE);
        // UIE is cleared with SET.
        assert_eq!(machine.read(B), SET | HOURS_24);
        machine.set_time([0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x57, 6]);
        machine.advance(100 * SECOND);
        assert_eq!(machine.time(), [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x57, 6]);
        assert_eq!(machine.read(C) & UIE, 0);
        machine.write(B, HOURS_24);
        // The divider has gone on: the next second is half a second away.
        machine.advance(SECOND / 2 - 1);
        assert_eq!(machine.time()[6], 0x57);
        machine.advance(1);
        assert_eq!(machine.time()[6], 0x58);
        machine.advance(2 * SECOND);
        assert_eq!(machine.time(), [0x20, 0x00, 1, 1, 0, 0, 0, 7]);
        // A byte at a time, while it goes.
        machine.write(HOURS, 0x12);
        machine.advance(SECOND);
        assert_eq!(machine.time(), [0x20, 0x00, 1, 1, 0x12, 0, 1, 7]);
    });
}

/// A number as register B wants it.
fn encoded(b: u8, number: u8) -> u8 {
    if b & BINARY != 0 { number } else { number / 10 * 16 + number % 10 }
}

#[test]
fn hours_are_12_or_24_in_bcd_or_binary() {
    // As the data sheet lists them: from midnight on, and the same after noon with the uppermost bit.
    let of_twelve = [12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    for b in [0, BINARY, HOURS_24, BINARY | HOURS_24] {
        let hours: Vec<u8> = match b & HOURS_24 {
            0 => [0, 0x80].iter().flat_map(|half| of_twelve.map(|hour| encoded(b, hour) | half)).collect(),
            _ => (0..24).map(|hour| encoded(b, hour)).collect(),
        };
        machine(EVE, |machine| {
            for (before, after) in hours.iter().zip(hours.iter().cycle().skip(1)) {
                machine.write(B, SET | b);
                let [century, year, minute] = [20, 24, 59].map(|number| encoded(b, number));
                machine.set_time([century, year, 2, 4, *before, minute, minute, 1]);
                machine.write(B, b);
                machine.advance(SECOND);
                // The day goes on after the last hour.
                let day = if *after == hours[0] { 5 } else { 4 };
                assert_eq!(machine.time()[3..7], [day, *after, 0, 0], "{b:#x} {before:#x}");
            }
        });
    }
}

#[test]
fn an_update_is_announced_244_us_before_it() {
    machine(EVE, |machine| {
        let uip = || machine.read(A) & 0x80 != 0;
        assert!(!uip());
        machine.advance(SECOND - 244_001);
        assert!(!uip());
        machine.advance(1);
        assert!(uip());
        assert_eq!(machine.read(SECONDS), 0x58);
        machine.advance(243_999);
        assert!(uip());
        machine.advance(1);
        assert!(!uip());
        assert_eq!(machine.read(SECONDS), 0x59);
        // Without updates it is never set, and cannot be written.
        machine.advance(SECOND - 100_000);
        assert!(uip());
        machine.write(B, SET | HOURS_24);
        machine.write(A, 0xa6);
        assert_eq!(machine.read(A), 0x26);
    });
}

#[test]
fn the_end_of_an_update_interrupts_until_register_c_is_read() {
    machine(EVE, |machine| {
        machine.write(B, UIE | HOURS_24);
        assert_eq!((machine.levels(), machine.advance(0)), (vec![], Some(SECOND)));
        machine.advance(SECOND - 1);
        assert_eq!(machine.levels(), []);
        // There is nothing to do while it is asserted.
        assert_eq!((machine.advance(1), machine.levels()), (None, vec![true]));
        machine.advance(5 * SECOND + SECOND / 4);
        assert_eq!((machine.levels(), machine.read(C) & !(PIE | AIE)), (vec![], 0x90));
        assert_eq!((machine.levels(), machine.read(C)), (vec![false], 0));
        assert_eq!(machine.advance(0), Some(SECOND * 3 / 4));
        // A flag is set without its interrupt too.
        machine.write(B, HOURS_24);
        assert_eq!(machine.advance(SECOND), None);
        assert_eq!((machine.read(C) & UIE, machine.levels()), (UIE, vec![]));
        // The interrupt that is enabled when its flag is set is asserted at once.
        machine.advance(SECOND);
        machine.write(B, UIE | HOURS_24);
        assert_eq!(machine.levels(), [true]);
        machine.write(B, HOURS_24);
        assert_eq!(machine.levels(), [false]);
    });
}

#[test]
fn periods_are_those_of_all_rates_and_do_not_drift() {
    // In counts of 32.768 kHz.
    let periods: [u64; 15] = [128, 256, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384];
    for (rate, period) in (1_u8..).zip(periods) {
        machine(EVE, |machine| {
            machine.write(A, 0x20 | rate);
            machine.write(B, PIE | HOURS_24);
            machine.read(C);
            machine.levels();
            for number in 1..20 {
                let due = (number * period * SECOND).div_ceil(32_768);
                assert_eq!(machine.advance(0), Some(due - machine.clock.now()), "rate {rate}");
                machine.advance(due - machine.clock.now());
                assert_eq!((machine.levels(), machine.read(C) & 0xc0), (vec![true], 0xc0), "rate {rate}");
                assert_eq!(machine.levels(), [false]);
            }
        });
    }
    // Rate 0 is none.
    machine(EVE, |machine| {
        machine.write(A, 0x20);
        machine.write(B, PIE | HOURS_24);
        assert_eq!((machine.advance(SECOND * 10), machine.read(C) & PIE), (None, 0));
    });
}

#[test]
fn an_alarm_matches_its_bytes_or_everything() {
    let alarm = |hour, minute, second, after: Option<u64>| {
        machine(EVE, |machine| {
            machine.advance(SECOND / 2);
            for (register, value) in [(HOURS_ALARM, hour), (MINUTES_ALARM, minute), (SECONDS_ALARM, second)] {
                machine.write(register, value);
            }
            machine.write(B, AIE | HOURS_24);
            machine.levels();
            let deadline = after.map(|seconds| seconds * SECOND - SECOND / 2);
            assert_eq!(machine.advance(0), deadline, "{hour:#x} {minute:#x} {second:#x}");
            let Some(deadline) = deadline else { return };
            machine.advance(deadline - 1);
            assert_eq!((machine.levels(), machine.read(C) & AIE), (vec![], 0));
            machine.advance(1);
            assert_eq!((machine.levels(), machine.read(C) & 0xa0), (vec![true], 0xa0));
        });
    };
    alarm(0xc0, 0xc0, 0xc0, Some(1));
    alarm(0xff, 0xff, 0x57, Some(59));
    alarm(0xff, 0xff, 0x58, Some(60));
    alarm(0xff, 0x00, 0xff, Some(2));
    alarm(0xff, 0x58, 0x00, Some(59 * 60 - 58));
    alarm(0x00, 0x00, 0x00, Some(2));
    alarm(0x23, 0x59, 0x58, Some(86_400));
    alarm(0x23, 0x59, 0xc0, Some(1));
    alarm(0x22, 0xff, 0xff, Some(22 * 3_600 + 2));
    alarm(0x22, 0x58, 0x57, Some(86_400 - 3_600 - 61));
    // No time is that of these.
    alarm(0x24, 0xff, 0xff, None);
    alarm(0xff, 0x60, 0xff, None);
    alarm(0xff, 0xff, 0x9a, None);
}

#[test]
fn an_alarm_is_not_missed_by_a_guest_that_looks_seldom() {
    machine(EVE, |machine| {
        [(HOURS_ALARM, 0x12), (MINUTES_ALARM, 0x34), (SECONDS_ALARM, 0x56)]
            .iter()
            .for_each(|(register, value)| machine.write(*register, *value));
        machine.advance(12 * 3_600 * SECOND);
        assert_eq!(machine.read(C) & AIE, 0);
        machine.advance(3_600 * SECOND);
        assert_eq!((machine.read(C) & AIE, machine.read(C) & AIE), (AIE, 0));
        // In hours of 12, by the afternoon.
        machine.write(B, SET);
        machine.set_time([0x20, 0x24, 1, 1, 0x11, 0x59, 0x59, 2]);
        [(HOURS_ALARM, 0x92), (MINUTES_ALARM, 0), (SECONDS_ALARM, 0)]
            .iter()
            .for_each(|(register, value)| machine.write(*register, *value));
        machine.write(B, AIE);
        machine.levels();
        machine.advance(SECOND);
        assert_eq!((machine.levels(), machine.time()[4]), (vec![true], 0x92));
    });
}

#[test]
fn a_divider_that_is_let_go_updates_half_a_second_later() {
    machine(EVE, |machine| {
        machine.write(B, UIE | HOURS_24);
        machine.advance(SECOND / 5);
        machine.write(A, 0x76);
        machine.read(C);
        assert_eq!(machine.advance(10 * SECOND), None);
        assert_eq!((machine.time()[6], machine.read(C)), (0x58, 0));
        machine.write(A, 0x26);
        assert_eq!(machine.advance(0), Some(SECOND / 2));
        machine.advance(SECOND / 2 - 1);
        assert_eq!(machine.time()[6], 0x58);
        machine.advance(1);
        assert_eq!(machine.time()[6], 0x59);
        // The periods begin with the divider.
        machine.write(A, 0x76);
        machine.write(B, PIE | HOURS_24);
        machine.read(C);
        machine.advance(12_345);
        machine.write(A, 0x2f);
        assert_eq!(machine.advance(0), Some(SECOND / 2));
    });
}

#[test]
fn a_reset_takes_interrupts_away_and_keeps_time_and_memory() {
    machine(EVE, |machine| {
        machine.write(B, PIE | AIE | UIE | 0x08 | BINARY | 0x01);
        machine.write(A, 0x2f);
        machine.write(0x40, 0x5a);
        machine.write(SECONDS_ALARM, 7);
        machine.advance(SECOND);
        assert_eq!(machine.levels(), [true]);
        machine.manager.reset().unwrap();
        assert_eq!(machine.levels(), [false]);
        assert_eq!(
            [A, B, C, D, 0x40, SECONDS_ALARM].map(|register| machine.read(register)),
            [0x2f, 0x05, 0, 0x80, 0x5a, 7]
        );
        assert_eq!(machine.advance(0), None);
    });
}

#[test]
fn a_level_that_was_refused_is_told_again() {
    machine(EVE, |machine| {
        machine.write(B, UIE | HOURS_24);
        machine.log.refuse(true);
        assert_eq!(machine.advance(SECOND), Some(1_000_000));
        assert_eq!(machine.levels(), [true]);
        machine.log.refuse(false);
        machine.advance(0);
        assert_eq!(machine.levels(), [true]);
        machine.advance(0);
        assert_eq!(machine.levels(), []);
        machine.log.refuse(true);
        machine.read(C);
        assert_eq!(machine.levels(), [false]);
        machine.log.refuse(false);
        machine.read(D);
        assert_eq!(machine.levels(), [false]);
    });
}

#[test]
fn memory_is_the_guests_and_the_embedders() {
    machine(EVE, |machine| {
        for index in 0x0e..=0x7f {
            let is_memory = index != CENTURY;
            assert_eq!(machine.rtc.byte(index), is_memory.then_some(0));
            assert_eq!(machine.rtc.set_byte(index, index ^ 0x55), is_memory);
        }
        for index in 0x0e..=0x7f {
            assert_eq!(machine.read(index), if index == CENTURY { 0x20 } else { index ^ 0x55 }, "{index:#x}");
        }
        // The uppermost bit of the index is that of the NMI.
        assert_eq!((machine.read(0x40), machine.read(0xc0)), (0x15, 0x15));
        machine.write(0xc0, 0x99);
        assert_eq!(machine.rtc.byte(0x40), Some(0x99));
        for index in [0, 9, 0x0d, 0x80, 0xff] {
            assert_eq!((machine.rtc.set_byte(index, 1), machine.rtc.byte(index)), (false, None));
        }
        // Registers C and D cannot be written.
        machine.write(C, 0xff);
        machine.write(D, 0);
        assert_eq!((machine.read(C) & 0x8f, machine.read(D)), (0, 0x80));
    });
}

#[test]
fn accesses_of_other_sizes_are_bytes() {
    machine(EVE, |machine| {
        // Index and value at once; the index reads as open bus.
        machine.manager.write(0x70_u16.into(), &[0x50, 0x77], IoType::Pio).unwrap();
        let mut data = [0; 2];
        machine.manager.read(0x70_u16.into(), &mut data, IoType::Pio).unwrap();
        assert_eq!(data, [0xff, 0x77]);
    });
}

#[test]
fn without_a_century_years_are_from_1970_to_2069() {
    machine_with(None, EVE, |machine| {
        assert_eq!(machine.rtc.byte(CENTURY), Some(0));
        // 2000 is a leap year; 1970 is not.
        for (year, next) in [(0x00, [0x00, 0x02, 0x29]), (0x69, [0x69, 0x03, 0x01]), (0x70, [0x70, 0x03, 0x01])] {
            machine.set_time([0x55, year, 0x02, 0x28, 0x23, 0x59, 0x59, 1]);
            machine.advance(SECOND);
            assert_eq!([YEAR, MONTH, DAY].map(|register| machine.read(register)), next);
        }
        assert_eq!(machine.read(CENTURY), 0x55);
    });
}

#[test]
fn whatever_a_guest_writes_as_time_goes_on_as_one() {
    machine(u64::MAX - 10 * SECOND, |machine| {
        for value in [0xff, 0x00, 0x99, 0x9a, 0x80, 0x7f] {
            for b in [0, HOURS_24, BINARY, BINARY | HOURS_24] {
                machine.write(B, b | AIE);
                for register in (SECONDS..=YEAR).chain([CENTURY]) {
                    machine.write(register, value);
                }
                machine.advance(SECOND / 3);
            }
        }
        machine.write(B, HOURS_24);
        machine.clock.set_utc(0);
        machine.advance(SECOND);
        let [_, _, month, day, hour, minute, second, weekday] = machine.time();
        let is_time = (1..=0x12).contains(&month) && (1..=0x31).contains(&day) && hour <= 0x23;
        assert!(is_time && minute <= 0x59 && second <= 0x59 && (1..=7).contains(&weekday));
    });
}

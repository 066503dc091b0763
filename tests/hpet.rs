//! The HPET, as a guest sees it.
#![cfg(feature = "devices")]

mod fixture;

use std::thread;

use vm_device::devices::hpet::{Hpet, LegacyReplacement};
use vm_device::devices::pit::Pit;
use vm_device::devices::rtc::Rtc;
use vm_device::devices::time::{Clock, HandClock};
use vm_device::{DeviceManager, Gsi, GuestAddress, IoRange, IoType, IrqResource, SystemAllocator};

use fixture::{Log, Told, manager, within_limit};

const BASE: u64 = 0xfed0_0000;
/// Nanoseconds.
const TICK: u64 = 100;

// Registers.
const CAPABILITIES: u64 = 0;
const CONFIGURATION: u64 = 0x10;
const STATUS: u64 = 0x20;
const COUNTER: u64 = 0xf0;
const fn config_of(timer: u64) -> u64 {
    0x100 + 0x20 * timer
}
const fn comparator_of(timer: u64) -> u64 {
    config_of(timer) + 8
}

// Of a timer's configuration.
const LEVEL: u64 = 0x02;
const ENABLED: u64 = 0x04;
const PERIODIC: u64 = 0x08;
const VALUE_SET: u64 = 0x40;
const IN_32_BITS: u64 = 0x100;
/// What reads as 1: it can be periodic, and has 64 bits.
const CAPABLE: u64 = 0x30;
const fn route(gsi: u64) -> u64 {
    gsi << 9
}

/// A guest with an HPET.
struct Machine<'m> {
    manager: &'m DeviceManager<'m>,
    clock: &'m HandClock,
    log: &'m Log,
}

/// With lines 20 to 22, of which the last is shared.
fn machine(test: impl FnOnce(&Machine<'_>)) {
    machine_of(100_000_000, test);
}

/// With a period in femtoseconds.
fn machine_of(period: u32, test: impl FnOnce(&Machine<'_>)) {
    let (clock, log) = (HandClock::new(), Log::default());
    let hpet = Hpet::new(&clock).with_period(period);
    manager!(let manager = SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 40), with_interrupt_controller(&log));
    let irqs = [IrqResource::Fixed(Gsi(20)), IrqResource::Fixed(Gsi(21)), IrqResource::Shared(Gsi(22))];
    manager.register_device(&hpet, None, &[hpet.mmio(BASE)], &irqs).unwrap();
    test(&Machine { manager: &manager, clock: &clock, log: &log });
}

impl Machine<'_> {
    fn bytes<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0xee; N];
        self.manager.read(GuestAddress(BASE + offset), &mut data, IoType::Mmio).unwrap();
        data
    }

    fn read(&self, register: u64) -> u64 {
        u64::from_le_bytes(self.bytes(register))
    }

    fn write(&self, register: u64, value: u64) {
        self.write_bytes(register, &value.to_le_bytes());
    }

    fn write_bytes(&self, offset: u64, bytes: &[u8]) {
        self.manager.write(GuestAddress(BASE + offset), bytes, IoType::Mmio).unwrap();
    }

    /// A timer's configuration and comparator.
    fn program(&self, timer: u64, config: u64, comparator: u64) {
        self.write(config_of(timer), config);
        self.write(comparator_of(timer), comparator);
    }

    /// Turns the clock by so many ticks, tells the device, and returns how many ticks it is to the next that it asked for.
    fn advance(&self, ticks: u64) -> Option<u64> {
        let now = self.clock.advance(ticks * TICK);
        self.manager.tick(now).map(|deadline| (deadline - now) / TICK)
    }
}

#[test]
fn after_power_on_and_after_a_reset_nothing_counts() {
    machine(|machine| {
        let check = || {
            assert_eq!(machine.read(CAPABILITIES), 0x05f5_e100_8086_2201);
            assert_eq!([CONFIGURATION, STATUS, COUNTER].map(|register| machine.read(register)), [0; 3]);
            for timer in 0..3 {
                assert_eq!(machine.read(config_of(timer)), 7 << 20 << 32 | CAPABLE);
                assert_eq!((machine.read(comparator_of(timer)), machine.read(comparator_of(timer) + 8)), (u64::MAX, 0));
            }
            assert_eq!((machine.advance(1_000), machine.read(COUNTER)), (None, 0));
        };
        check();
        machine.write(CONFIGURATION, 1);
        machine.program(0, LEVEL | ENABLED | route(20), 10);
        machine.program(1, ENABLED | PERIODIC | VALUE_SET | route(21), 2_000);
        assert_eq!(machine.advance(10), Some(1_990));
        assert_eq!((machine.read(STATUS), machine.log.take()), (1, vec![Told::Level(20, true)]));
        machine.manager.reset().unwrap();
        assert_eq!(machine.log.take(), [Told::Level(20, false)]);
        check();
        assert_eq!(machine.log.take(), []);
    });
}

#[test]
fn the_main_counter_counts_exactly_and_is_written_while_it_is_halted() {
    for (period, ticks_in_a_day) in [
        (100_000_000, 864_000_000_000_u128),
        (69_841_279, 86_400_000_000_000_000_000 / 69_841_279),
        (0, 86_400_000_000_000),
        (u32::MAX, 864_000_000_000),
    ] {
        machine_of(period, |machine| {
            let shown = machine.read(CAPABILITIES) >> 32;
            assert_eq!(shown, u64::from(period).clamp(1_000_000, 100_000_000));
            machine.write(CONFIGURATION, 1);
            machine.clock.advance(86_400_000_000_000);
            assert_eq!(machine.read(COUNTER), ticks_in_a_day as u64);
        });
    }
    machine(|machine| {
        machine.write(COUNTER, u64::MAX - 1);
        machine.advance(5);
        assert_eq!(machine.read(COUNTER), u64::MAX - 1);
        machine.write(CONFIGURATION, 1);
        machine.advance(3);
        // It wraps, and stands still again.
        assert_eq!(machine.read(COUNTER), 1);
        machine.write(CONFIGURATION, 0);
        machine.advance(3);
        assert_eq!(machine.read(COUNTER), 1);
        // A write while it counts takes effect too.
        machine.write(CONFIGURATION, 1);
        machine.write(COUNTER, 100);
        machine.advance(3);
        assert_eq!(machine.read(COUNTER), 103);
    });
}

#[test]
fn a_one_shot_timer_interrupts_once_by_an_edge() {
    machine(|machine| {
        machine.write(CONFIGURATION, 1);
        machine.program(0, ENABLED | route(20), 1_000);
        assert_eq!(machine.clock.asked_for(), Some(1_000 * TICK));
        assert_eq!((machine.advance(999), machine.log.take()), (Some(1), vec![]));
        // The counter would have to come around before it matches again, which is beyond the end of the time.
        assert_eq!((machine.advance(1), machine.log.take()), (None, vec![Told::Pulse(20)]));
        assert_eq!(machine.read(STATUS), 0);
        // The same comparator, when the counter is there, interrupts at once.
        machine.write(comparator_of(0), 1_000);
        assert_eq!(machine.log.take(), [Told::Pulse(20)]);
        machine.write(comparator_of(0), 999);
        assert_eq!(machine.log.take(), []);
        // One that is not enabled does not interrupt, nor does one while the counter stands.
        machine.program(0, route(20), 1_100);
        assert_eq!((machine.advance(100), machine.log.take()), (None, vec![]));
        machine.program(0, ENABLED | route(20), 1_200);
        machine.write(CONFIGURATION, 0);
        assert_eq!((machine.advance(100), machine.log.take()), (None, vec![]));
        machine.write(CONFIGURATION, 1);
        assert_eq!((machine.advance(100), machine.log.take()), (None, vec![Told::Pulse(20)]));
    });
}

#[test]
fn a_periodic_timer_does_not_drift_and_signals_missed_edges() {
    machine(|machine| {
        machine.write(CONFIGURATION, 1);
        machine.program(1, ENABLED | PERIODIC | VALUE_SET | route(21), 1_500);
        // The bit is cleared, and the second write is the period alone.
        assert_eq!(machine.read(config_of(1)) & 0xffff, ENABLED | PERIODIC | CAPABLE | route(21));
        machine.write(comparator_of(1), 2_000);
        assert_eq!(machine.read(comparator_of(1)), 1_500);
        assert_eq!(machine.advance(1_499), Some(1));
        for number in 0..100 {
            assert_eq!((machine.advance(1), machine.log.take()), (Some(2_000), vec![Told::Pulse(21)]), "{number}");
            assert_eq!(machine.read(comparator_of(1)), 1_500 + 2_000 * (number + 1));
            assert_eq!((machine.advance(1_999), machine.log.take()), (Some(1), vec![]));
        }
        assert_eq!((machine.advance(1 + 3 * 2_000), machine.log.take()), (Some(2_000), vec![Told::Pulse(21); 4]));
        machine.advance(100 * 2_000);
        assert_eq!(machine.log.take(), [Told::Pulse(21); 8]);
    });
}

#[test]
fn a_short_period_asks_for_no_more_than_a_tick_in_100_us() {
    machine(|machine| {
        machine.write(CONFIGURATION, 1);
        machine.program(0, ENABLED | PERIODIC | VALUE_SET | route(20), 400);
        assert_eq!((machine.advance(0), machine.log.take()), (Some(1_000), vec![]));
        machine.advance(1_000);
        assert_eq!(machine.log.take(), [Told::Pulse(20); 2]);
        // A period of 0 is none.
        machine.program(0, ENABLED | PERIODIC | VALUE_SET | route(20), 1 << 40);
        machine.program(0, ENABLED | PERIODIC | route(20), 0);
        assert_eq!(machine.advance(0), Some((1 << 40) - 1_000));
        machine.advance(1 << 40);
        assert_eq!(machine.log.take(), [Told::Pulse(20)]);
    });
}

#[test]
fn a_level_stays_until_its_status_is_cleared() {
    machine(|machine| {
        machine.write(CONFIGURATION, 1);
        machine.program(2, ENABLED | LEVEL | PERIODIC | VALUE_SET | route(20), 2_000);
        machine.program(1, LEVEL | route(21), 100);
        // While it is asserted, nothing is asked for.
        assert_eq!((machine.advance(2_500), machine.log.take()), (None, vec![Told::Level(20, true)]));
        // The status of one that is not enabled is set too.
        assert_eq!(machine.read(STATUS), 0b110);
        machine.write(STATUS, 0b001);
        assert_eq!((machine.read(STATUS), machine.log.take()), (0b110, vec![]));
        machine.write_bytes(STATUS + 1, &[0xff; 3]);
        assert_eq!(machine.read(STATUS), 0b110);
        machine.write_bytes(STATUS, &[0b100]);
        assert_eq!((machine.read(STATUS), machine.log.take()), (0b010, vec![Told::Level(20, false)]));
        assert_eq!(machine.advance(0), Some(1_500));
        machine.advance(1_500);
        assert_eq!(machine.log.take(), [Told::Level(20, true)]);
        // Without the counter there is no interrupt, and the status stays.
        machine.write(CONFIGURATION, 0);
        assert_eq!((machine.read(STATUS), machine.log.take()), (0b110, vec![Told::Level(20, false)]));
        machine.write(CONFIGURATION, 1);
        assert_eq!(machine.log.take(), [Told::Level(20, true)]);
        // An edge-triggered timer has no status.
        machine.write(config_of(2), ENABLED | route(20));
        assert_eq!((machine.read(STATUS), machine.log.take()), (0b010, vec![Told::Level(20, false)]));
    });
}

#[test]
fn timers_on_one_line_assert_it_together() {
    machine(|machine| {
        machine.write(CONFIGURATION, 1);
        machine.program(0, ENABLED | LEVEL | route(22), 10);
        machine.program(1, ENABLED | LEVEL | route(22), 20);
        machine.program(2, ENABLED | route(22), 30);
        machine.advance(20);
        assert_eq!((machine.read(STATUS), machine.log.take()), (0b11, vec![Told::Level(22, true)]));
        machine.write(STATUS, 0b01);
        assert_eq!(machine.log.take(), []);
        machine.write(STATUS, 0b10);
        assert_eq!(machine.log.take(), [Told::Level(22, false)]);
        // An edge on a line that is shared.
        machine.advance(10);
        assert_eq!(machine.log.take(), [Told::Level(22, true), Told::Level(22, false)]);
    });
}

#[test]
fn what_was_refused_is_signalled_again() {
    machine(|machine| {
        machine.write(CONFIGURATION, 1);
        machine.program(0, ENABLED | LEVEL | route(20), 10);
        machine.program(1, ENABLED | route(21), 10);
        machine.log.refuse(true);
        assert_eq!(machine.advance(10), Some(10_000));
        machine.log.take();
        machine.log.refuse(false);
        assert_eq!(machine.advance(1), None);
        assert_eq!(machine.log.take(), [Told::Level(20, true), Told::Pulse(21)]);
        machine.advance(1);
        assert_eq!(machine.log.take(), []);
        machine.log.refuse(true);
        machine.write(STATUS, 1);
        assert_eq!(machine.log.take(), [Told::Level(20, false)]);
        machine.log.refuse(false);
        machine.read(STATUS);
        assert_eq!(machine.log.take(), [Told::Level(20, false)]);
    });
}

#[test]
fn a_timer_of_32_bits_matches_the_low_half() {
    machine(|machine| {
        machine.write(COUNTER, 0x7_ffff_fff0);
        machine.write(CONFIGURATION, 1);
        machine.program(0, ENABLED | IN_32_BITS | route(20), 0x1234_5678_0000_0010);
        assert_eq!((machine.read(comparator_of(0)), machine.advance(0)), (0x10, Some(0x20)));
        machine.advance(0x20);
        assert_eq!(machine.log.take(), [Told::Pulse(20)]);
        // It comes again with each turn of the low half.
        assert_eq!(machine.advance(0), Some(1 << 32));
        // A period counts in 32 bits.
        machine.program(0, ENABLED | IN_32_BITS | PERIODIC | VALUE_SET | route(20), 0xffff_f000);
        machine.advance(0xffff_eff0);
        assert_eq!((machine.log.take(), machine.read(comparator_of(0))), (vec![Told::Pulse(20)], 0xffff_e000));
        // With it, what was written above 32 bits is gone.
        machine.program(1, 0, 0x1234_5678_9abc_def0);
        machine.write(config_of(1), IN_32_BITS);
        machine.write(config_of(1), 0);
        assert_eq!(machine.read(comparator_of(1)), 0x9abc_def0);
    });
}

#[test]
fn a_timer_selects_among_the_lines_that_there_are() {
    machine(|machine| {
        machine.write(config_of(0), ENABLED | route(21));
        for absent in [0, 2, 19, 23, 31] {
            machine.write(config_of(0), ENABLED | LEVEL | route(absent));
            assert_eq!(machine.read(config_of(0)) as u32, (ENABLED | LEVEL | CAPABLE | route(21)) as u32);
        }
        // A timer that has selected none interrupts nobody.
        machine.write(config_of(0), 0);
        machine.write(CONFIGURATION, 1);
        machine.program(2, ENABLED, 10);
        assert_eq!((machine.advance(20), machine.log.take()), (None, vec![]));
        // Bits that it does not have are not kept: messages, and what is reserved.
        machine.write(config_of(1), 0xffff_ffff_ffff_c1bf | VALUE_SET);
        assert_eq!(machine.read(config_of(1)) as u32, 0x17e | 0x100);
        machine.write(CONFIGURATION, u64::MAX);
        assert_eq!(machine.read(CONFIGURATION), 1);
        machine.write(CAPABILITIES, 0);
        assert_eq!(machine.read(CAPABILITIES) as u32, 0x8086_2201);
    });
}

#[test]
fn registers_are_accessed_in_every_size() {
    machine(|machine| {
        for byte in 0..8 {
            machine.write_bytes(COUNTER + byte, &[0x10 + byte as u8]);
        }
        assert_eq!(machine.bytes(COUNTER), 0x1716_1514_1312_1110_u64.to_le_bytes());
        assert_eq!((machine.bytes(COUNTER + 3), machine.bytes(COUNTER + 6)), ([0x13, 0x14, 0x15], [0x16, 0x17]));
        machine.write_bytes(COUNTER + 2, &[0xaa, 0xbb]);
        assert_eq!(machine.bytes(COUNTER + 1), [0x11, 0xaa, 0xbb, 0x14]);
        // Two registers at once.
        machine.write_bytes(config_of(0) + 6, &[0, 0, 1, 2, 3, 4]);
        assert_eq!(machine.read(comparator_of(0)), 0xffff_ffff_0403_0201);
        assert_eq!(machine.bytes(config_of(0) + 7), [0, 1, 2, 3, 4, 0xff, 0xff, 0xff]);
        // Halves of a comparator in periodic mode, for each of which the accumulator is set.
        machine.write(config_of(0), PERIODIC | VALUE_SET);
        machine.write_bytes(comparator_of(0), &0x1111_1111_u32.to_le_bytes());
        machine.write_bytes(comparator_of(0) + 4, &0x2222_2222_u32.to_le_bytes());
        assert_eq!(machine.read(comparator_of(0)), 0xffff_ffff_1111_1111);
        machine.write(config_of(0), PERIODIC | VALUE_SET);
        machine.write_bytes(comparator_of(0) + 4, &0x2222_2222_u32.to_le_bytes());
        assert_eq!(machine.read(comparator_of(0)), 0x2222_2222_1111_1111);
        // What there is not reads as 0.
        assert_eq!((machine.read(0x08), machine.read(0x160), machine.read(0x3f8)), (0, 0, 0));
        machine.write(0x168, 1);
    });
}

#[test]
fn it_works_up_to_the_end_of_the_time() {
    machine_of(0, |machine| {
        machine.clock.advance(u64::MAX - 10_000_000);
        machine.write(CONFIGURATION, 1);
        machine.program(0, ENABLED | route(20), 1_000);
        machine.program(1, ENABLED | PERIODIC | VALUE_SET | route(21), 3_000_000);
        assert_eq!(machine.manager.tick(machine.clock.now()), Some(u64::MAX - 10_000_000 + 1_000));
        machine.manager.tick(u64::MAX - 1);
        let mut told = machine.log.take();
        told.sort_by_key(|told| *told == Told::Pulse(21));
        assert_eq!(told, [Told::Pulse(20), Told::Pulse(21), Told::Pulse(21), Told::Pulse(21)]);
        // The next match is beyond.
        assert_eq!(machine.manager.tick(u64::MAX - 1), None);
        assert_eq!((machine.manager.tick(u64::MAX), machine.log.take()), (None, vec![]));
    });
}

#[test]
fn legacy_replacement_takes_the_interrupts_of_pit_and_rtc() {
    let (clock, log, replaced) = (HandClock::new(), Log::default(), LegacyReplacement::new());
    let hpet = Hpet::new(&clock).with_legacy_replacement(&replaced);
    let pit = Pit::new(&clock).with_legacy_replacement(&replaced);
    let rtc = Rtc::new(&clock).with_legacy_replacement(&replaced);
    let lines = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 23);
    manager!(let manager = lines, with_interrupt_controller(&log));
    let [timer, date] = [IrqResource::Shared(Gsi(2)), IrqResource::Shared(Gsi(8))];
    manager.register_device(&pit, None, &pit.ports(), &[timer]).unwrap();
    manager.register_device(&rtc, None, &[rtc.ports()], &[date]).unwrap();
    let irqs = [timer, date, IrqResource::Fixed(Gsi(20))];
    manager.register_device(&hpet, None, &[hpet.mmio(BASE)], &irqs).unwrap();
    let machine = Machine { manager: &manager, clock: &clock, log: &log };
    let out = |port: u16, value| manager.write(port.into(), &[value], IoType::Pio).unwrap();

    // The PIT counts 10 ms, and the RTC the seconds.
    [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e), (0x70, 0x0b), (0x71, 0x12)]
        .iter()
        .for_each(|(port, value)| out(*port, *value));
    clock.advance(1_000_000_000);
    manager.tick(clock.now());
    assert!(log.take().contains(&Told::Level(8, true)));
    assert_eq!(machine.read(CAPABILITIES) as u32, 0x8086_a201);
    // The first two lines are not among those that a timer can select.
    assert_eq!(machine.read(config_of(0)) >> 32, 1 << 20);

    clock.asked_for();
    machine.write(CONFIGURATION, 0b11);
    assert!(replaced.is_on());
    assert_eq!((machine.read(CONFIGURATION), clock.asked_for()), (0b11, Some(clock.now())));
    manager.tick(clock.now());
    assert_eq!(log.take(), [Told::Level(8, false)]);
    machine.program(0, ENABLED, 5_000_000);
    machine.program(1, ENABLED | LEVEL, 6_000_000);
    machine.program(2, ENABLED | route(20), 7_000_000);
    clock.advance(650_000_000);
    manager.tick(clock.now());
    assert_eq!(log.take(), [Told::Level(2, true), Told::Level(2, false), Told::Level(8, true)]);
    machine.write(STATUS, 2);
    clock.advance(100_000_000);
    manager.tick(clock.now());
    assert_eq!(log.take(), [Told::Level(8, false), Told::Pulse(20)]);

    // A reset gives them back.
    machine.manager.reset().unwrap();
    assert!(!replaced.is_on());
    [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)].iter().for_each(|(port, value)| out(*port, *value));
    log.take();
    clock.advance(10_001_000);
    manager.tick(clock.now());
    assert_eq!(log.take(), [Told::Level(2, true), Told::Level(2, false)]);
}

#[test]
fn several_processors_and_the_tick_see_one_time() {
    within_limit(|| {
        machine_of(1_000_000, |machine| {
            machine.write(CONFIGURATION, 1);
            machine.program(0, ENABLED | PERIODIC | VALUE_SET | route(20), 100_000);
            machine.program(1, ENABLED | LEVEL | PERIODIC | VALUE_SET | route(21), 70_000);
            let (manager, clock) = (machine.manager, machine.clock);
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let mut last = 0;
                        for _ in 0..5_000 {
                            let mut data = [0; 8];
                            manager.read(GuestAddress(BASE + COUNTER), &mut data, IoType::Mmio).unwrap();
                            let counter = u64::from_le_bytes(data);
                            assert!(counter >= last, "{counter} after {last}");
                            last = counter;
                            manager.write(GuestAddress(BASE + STATUS), &[0b10], IoType::Mmio).unwrap();
                        }
                    });
                }
                for _ in 0..5_000 {
                    manager.tick(clock.advance(777));
                }
            });
            let elapsed = machine.clock.now();
            let pulses = machine.log.take().iter().filter(|told| **told == Told::Pulse(20)).count() as u64;
            assert_eq!((machine.read(COUNTER), pulses), (elapsed, elapsed / 100_000));
        });
    });
}

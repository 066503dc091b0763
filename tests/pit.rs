//! The 8254, as a guest sees it.
#![cfg(feature = "devices")]

mod fixture;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use proptest::prelude::*;
use vm_device::devices::pit::Pit;
use vm_device::devices::time::{Clock, HandClock};
use vm_device::{DeviceManager, Gsi, InterruptError, IoType, IrqResource};

use fixture::{Log, OnLevel, PC, Told, manager};

const CONTROL: u16 = 0x43;
const PORT_B: u16 = 0x61;

/// The first nanosecond at which there were so many pulses: 105 in 88 microseconds.
fn time_of(pulses: u64) -> u64 {
    (pulses * 88_000).div_ceil(105)
}

/// A guest with a PIT, whose interrupt is line 0.
struct Machine<'m> {
    manager: &'m DeviceManager<'m>,
    clock: &'m HandClock,
    log: &'m Log,
}

fn machine_on(irq: IrqResource, test: impl FnOnce(&Machine<'_>)) {
    let (clock, log) = (HandClock::new(), Log::default());
    let pit = Pit::new(&clock);
    manager!(let manager = PC, with_interrupt_controller(&log));
    manager.register_device(&pit, None, &pit.ports(), &[irq]).unwrap();
    test(&Machine { manager: &manager, clock: &clock, log: &log });
}

fn machine(test: impl FnOnce(&Machine<'_>)) {
    machine_on(IrqResource::Fixed(Gsi(0)), test);
}

impl Machine<'_> {
    fn read(&self, port: u16) -> u8 {
        let mut data = [0];
        self.manager.read(port.into(), &mut data, IoType::Pio).unwrap();
        data[0]
    }

    fn write(&self, port: u16, value: u8) {
        self.manager.write(port.into(), &[value], IoType::Pio).unwrap();
    }

    /// A control word for a counter, and both bytes of its count.
    fn program(&self, counter: u16, mode: u8, count: u16) {
        self.write(CONTROL, (counter as u8) << 6 | 0x30 | mode << 1);
        count.to_le_bytes().iter().for_each(|byte| self.write(0x40 + counter, *byte));
    }

    /// Turns the clock to a pulse, and ticks nobody.
    fn turn_to(&self, pulse: u64) {
        self.clock.advance(time_of(pulse) - self.clock.now());
    }

    /// Turns the clock to a pulse, ticks, and returns how many edges that gave.
    fn edges_at(&self, pulse: u64) -> usize {
        self.turn_to(pulse);
        self.manager.tick(self.clock.now());
        self.edges()
    }

    fn edges(&self) -> usize {
        let told = self.log.take();
        told.iter().for_each(|told| assert_eq!(*told, Told::Pulse(0)));
        told.len()
    }

    /// The deadline, in pulses.
    fn deadline(&self) -> Option<u64> {
        self.manager.tick(self.clock.now()).map(|deadline| deadline * 105 / 88_000)
    }

    fn status(&self, counter: u16) -> u8 {
        self.write(CONTROL, 0xe0 | 2 << counter);
        self.read(0x40 + counter)
    }

    /// The count by the read-back command.
    fn count(&self, counter: u16) -> u16 {
        self.write(CONTROL, 0xd0 | 2 << counter);
        u16::from_le_bytes([(); 2].map(|()| self.read(0x40 + counter)))
    }

    fn output_of_counter_2(&self) -> bool {
        self.read(PORT_B) & 0x20 != 0
    }
}

#[test]
fn after_power_on_and_after_a_reset_no_counter_counts() {
    machine(|machine| {
        let check = || {
            assert_eq!([0, 1, 2].map(|counter| machine.status(counter)), [0xf6; 3]);
            assert_eq!(machine.read(PORT_B) & 0xef, 0x20);
            assert_eq!((machine.deadline(), machine.edges()), (None, 0));
        };
        check();
        for counter in 0..3 {
            machine.program(counter, 2, 1_000);
        }
        machine.write(PORT_B, 0xff);
        machine.turn_to(50);
        assert_eq!((machine.read(PORT_B) & 0xef, machine.deadline()), (0x2f, Some(1_001)));
        machine.manager.reset().unwrap();
        check();
        assert_eq!(machine.edges_at(1_000), 0);
    });
}

#[test]
fn a_rate_generator_interrupts_at_each_period_without_drift() {
    machine(|machine| {
        machine.program(0, 2, 11_932);
        assert_eq!(machine.clock.asked_for(), Some(time_of(11_933)));
        for period in 1..=1_000 {
            let due = 1 + period * 11_932;
            assert_eq!(machine.deadline(), Some(due));
            assert_eq!((machine.edges_at(due - 1), machine.edges_at(due)), (0, 1), "{period}");
        }
    });
}

#[test]
fn edges_that_were_missed_are_signalled_together_up_to_eight() {
    machine(|machine| {
        machine.program(0, 2, 1_000);
        assert_eq!(machine.edges_at(1 + 5_999), 5);
        assert_eq!(machine.edges_at(1 + 13_999), 8);
        assert_eq!(machine.edges_at(1 + 100_000), 8);
        assert_eq!((machine.edges_at(1 + 100_999), machine.edges_at(1 + 101_000)), (0, 1));
        // An access signals what is due as well.
        machine.turn_to(1 + 102_000);
        machine.read(0x42);
        assert_eq!(machine.edges(), 1);
    });
}

#[test]
fn a_short_period_asks_for_no_more_than_a_tick_in_100_us() {
    machine(|machine| {
        machine.program(0, 3, 40);
        let now = machine.clock.now();
        assert_eq!(machine.manager.tick(now), Some(now + 100_000));
        // 119 pulses.
        assert_eq!(machine.edges_at(119), 2);
        // One that is as long is exact. The control word lifts the output.
        machine.program(0, 2, 119);
        assert_eq!((machine.deadline(), machine.edges()), (Some(119 + 120), 1));
        // A count that is forbidden.
        for mode in [2, 3] {
            machine.program(0, mode, 1);
            assert_eq!(machine.edges_at(machine.clock.now() * 105 / 88_000 + 1_000), 0);
            assert_eq!((machine.deadline(), machine.status(0) & 0x80), (None, 0x80));
        }
    });
}

#[test]
fn a_refused_edge_is_signalled_again() {
    machine(|machine| {
        machine.program(0, 0, 10);
        machine.log.refuse(true);
        assert_eq!(machine.edges_at(11), 1);
        assert_eq!(machine.manager.tick(machine.clock.now()), Some(machine.clock.now() + 1_000_000));
        machine.log.take();
        machine.log.refuse(false);
        assert_eq!((machine.edges_at(12), machine.edges_at(13)), (1, 0));
        // A reset forgets it.
        machine.log.refuse(true);
        machine.program(0, 0, 10);
        assert_eq!(machine.edges_at(30), 1);
        machine.log.refuse(false);
        machine.manager.reset().unwrap();
        assert_eq!(machine.edges_at(40), 0);
    });
}

#[test]
fn an_edge_on_a_shared_line_is_a_level_for_a_moment() {
    machine_on(IrqResource::Shared(Gsi(2)), |machine| {
        machine.program(0, 2, 1_000);
        machine.turn_to(3_001);
        machine.manager.tick(machine.clock.now());
        assert_eq!(machine.log.take(), [Told::Level(2, true), Told::Level(2, false)].repeat(3));
    });
}

#[test]
fn a_level_for_a_moment_that_is_refused_as_it_falls_is_taken_back_by_the_next_call() {
    let (is_asserted, refuses) = (AtomicBool::new(false), AtomicBool::new(true));
    let controller = OnLevel(|asserted: bool| {
        if !asserted && refuses.load(Relaxed) {
            return Err(InterruptError::Refused);
        }
        is_asserted.store(asserted, Relaxed);
        Ok(())
    });
    let clock = HandClock::new();
    let pit = Pit::new(&clock);
    manager!(let manager = PC, with_interrupt_controller(&controller));
    manager.register_device(&pit, None, &pit.ports(), &[IrqResource::Shared(Gsi(2))]).unwrap();
    // Mode 0, a count of 10.
    for (port, value) in [(CONTROL, 0x30), (0x40, 10), (0x40, 0)] {
        manager.write(port.into(), &[value], IoType::Pio).unwrap();
    }
    manager.tick(clock.advance(time_of(20)));
    assert!(is_asserted.load(Relaxed));
    refuses.store(false, Relaxed);
    manager.tick(clock.now());
    assert!(!is_asserted.load(Relaxed));
}

#[test]
fn a_count_of_zero_is_the_largest_in_binary_and_in_bcd() {
    machine(|machine| {
        machine.program(0, 2, 0);
        assert_eq!(machine.deadline(), Some(1 + 65_536));
        machine.turn_to(1);
        assert_eq!(machine.count(0), 0);
        machine.turn_to(2);
        assert_eq!(machine.count(0), 0xffff);
        machine.write(CONTROL, 0x35);
        [0, 0].iter().for_each(|byte| machine.write(0x40, *byte));
        assert_eq!(machine.deadline(), Some(3 + 10_000));
        machine.turn_to(4);
        assert_eq!(machine.count(0), 0x9999);
        machine.turn_to(3 + 9_999);
        assert_eq!((machine.count(0), machine.status(0)), (0x0001, 0x35));
    });
}

#[test]
fn bcd_counts_in_digits_and_goes_on_below_zero() {
    machine(|machine| {
        machine.write(CONTROL, 0x31);
        [0x34, 0x12].iter().for_each(|byte| machine.write(0x40, *byte));
        machine.turn_to(1 + 235);
        assert_eq!(machine.count(0), 0x0999);
        assert_eq!((machine.edges_at(1 + 1_233), machine.edges_at(1 + 1_234)), (0, 1));
        assert_eq!(machine.count(0), 0);
        machine.turn_to(1 + 1_235);
        assert_eq!(machine.count(0), 0x9999);
    });
}

#[test]
fn counts_and_status_stay_latched_until_they_are_read() {
    machine(|machine| {
        machine.program(0, 2, 0x1234);
        machine.turn_to(1 + 0x34);
        machine.write(CONTROL, 0x00);
        machine.turn_to(1 + 0x35);
        // A second command changes nothing.
        machine.write(CONTROL, 0x00);
        assert_eq!(machine.read(0x40), 0x00);
        // Neither does one between the bytes.
        machine.write(CONTROL, 0x00);
        assert_eq!(machine.read(0x40), 0x12);
        // What is not latched is what is counted now.
        assert_eq!((machine.read(0x40), machine.read(0x40)), (0xff, 0x11));
        // Both, of two counters: the status comes first.
        machine.program(2, 0, 0x5678);
        machine.write(CONTROL, 0xca);
        assert_eq!([(); 4].map(|()| machine.read(0x40)), [0xb4, 0xff, 0x11, 0xff]);
        assert_eq!(machine.read(0x42), 0x70);
        // Counter 1 was not selected, and a control word takes back what is latched.
        assert_eq!(machine.status(1), 0xf6);
        machine.write(CONTROL, 0xe2);
        machine.write(CONTROL, 0x32);
        machine.write(CONTROL, 0xe2);
        assert_eq!(machine.read(0x40), 0xf2);
    });
}

#[test]
fn the_null_count_says_that_a_count_is_not_loaded() {
    machine(|machine| {
        machine.program(0, 2, 1_000);
        assert_eq!(machine.status(0), 0xf4);
        machine.turn_to(1);
        assert_eq!(machine.status(0), 0xb4);
        machine.turn_to(50);
        machine.write(0x40, 200);
        machine.write(0x40, 0);
        // The period that has begun is completed.
        assert_eq!((machine.status(0), machine.deadline()), (0xf4, Some(1_001)));
        assert_eq!((machine.edges_at(1_001), machine.status(0), machine.deadline()), (1, 0xb4, Some(1_201)));
    });
}

#[test]
fn one_byte_of_a_count_can_be_all() {
    machine(|machine| {
        machine.write(CONTROL, 0x14);
        machine.write(0x40, 200);
        machine.turn_to(1 + 7);
        assert_eq!((machine.read(0x40), machine.read(0x40), machine.deadline()), (193, 193, Some(201)));
        machine.write(CONTROL, 0x24);
        machine.write(0x40, 2);
        machine.turn_to(10);
        assert_eq!((machine.read(0x40), machine.deadline()), (1, Some(9 + 512)));
        machine.write(CONTROL, 0x00);
        assert_eq!((machine.read(0x40), machine.read(0x40)), (1, 1));
    });
}

#[test]
fn the_first_byte_of_two_stops_mode_0() {
    machine(|machine| {
        machine.program(0, 0, 100);
        machine.turn_to(51);
        machine.write(0x40, 10);
        machine.turn_to(80);
        assert_eq!((machine.count(0), machine.status(0), machine.deadline()), (50, 0x30, None));
        machine.write(0x40, 0);
        assert_eq!(machine.deadline(), Some(91));
    });
}

#[test]
fn a_control_word_that_lifts_the_output_is_an_edge() {
    machine(|machine| {
        machine.write(CONTROL, 0x30);
        assert_eq!(machine.edges(), 0);
        machine.write(CONTROL, 0x34);
        assert_eq!(machine.edges(), 1);
        machine.write(CONTROL, 0x36);
        assert_eq!(machine.edges(), 0);
    });
}

#[test]
fn port_b_opens_the_gate_and_shows_output_and_refresh() {
    machine(|machine| {
        machine.program(2, 0, 10);
        machine.turn_to(100);
        assert!(!machine.output_of_counter_2());
        machine.write(PORT_B, 0x01);
        machine.turn_to(109);
        assert!(!machine.output_of_counter_2());
        machine.turn_to(110);
        assert_eq!(machine.read(PORT_B) & 0xef, 0x21);
        // Refresh takes 18 pulses.
        for pulse in [180, 198, 216] {
            machine.turn_to(pulse - 1);
            let before = machine.read(PORT_B);
            machine.turn_to(pulse);
            assert_eq!(machine.read(PORT_B) ^ before, 0x10, "{pulse}");
        }
    });
}

#[test]
fn accesses_of_every_size_reach_their_registers() {
    machine(|machine| {
        machine.program(0, 2, 0x1234);
        machine.program(1, 2, 0x5678);
        machine.turn_to(1);
        let mut data = [0; 4];
        machine.manager.read(0x40_u16.into(), &mut data, IoType::Pio).unwrap();
        // The control port is open bus.
        assert_eq!(data, [0x34, 0x78, 0, 0xff]);
        machine.manager.write(0x42_u16.into(), &[5, 0xb0], IoType::Pio).unwrap();
        assert_eq!(machine.status(2), 0x70);
        // String accesses read one byte after the other.
        let mut bytes = [0; 3];
        machine.manager.read_string(0x40, 1, &mut bytes).unwrap();
        assert_eq!(bytes, [0x12, 0x34, 0x12]);
    });
}

#[test]
fn it_works_up_to_the_end_of_the_time() {
    machine(|machine| {
        machine.clock.advance(u64::MAX - 1_000_000_000);
        machine.program(0, 2, 1_000);
        let deadline = machine.manager.tick(machine.clock.now()).unwrap();
        assert!(deadline - machine.clock.now() < 840_000);
        machine.manager.tick(deadline);
        assert_eq!(machine.edges(), 1);
        machine.manager.tick(u64::MAX);
        assert_eq!(machine.edges(), 8);
        assert_eq!(machine.manager.tick(u64::MAX - 1), Some(u64::MAX));
    });
}

/// A counter as the data sheet tells it, pulse by pulse, with counts of one byte.
#[derive(Clone, Copy)]
struct Reference {
    mode: u8,
    written: Option<u32>,
    count: u32,
    element: i64,
    gate: bool,
    output: bool,
    /// The count is loaded with the next pulse.
    loads: bool,
    /// It counts, or waits for a trigger or a count.
    runs: bool,
    loaded: bool,
    rises: usize,
}

impl Reference {
    const fn new(gate: bool) -> Self {
        let (written, count) = (None, 0);
        Self {
            mode: 3,
            written,
            count,
            element: 0,
            gate,
            output: true,
            loads: false,
            runs: false,
            loaded: false,
            rises: 0,
        }
    }

    fn drive(&mut self, output: bool) {
        self.rises += usize::from(output && !self.output);
        self.output = output;
    }

    fn control(&mut self, mode: u8) {
        let Self { gate, rises, output, .. } = *self;
        *self = Self { mode, rises, output, ..Self::new(gate) };
        self.drive(mode != 0);
    }

    fn write(&mut self, count: u8) {
        self.written = Some(if count == 0 { 65_536 } else { count.into() });
        match self.mode {
            0 => {
                self.drive(false);
                (self.loads, self.runs) = (true, false);
            }
            4 => self.loads = true,
            2 | 3 if !self.loaded => self.loads = true,
            _ => {}
        }
    }

    fn set_gate(&mut self, gate: bool) {
        let rises = gate && !self.gate;
        self.gate = gate;
        match self.mode {
            1 | 5 if rises && self.written.is_some() => self.loads = true,
            2 | 3 if rises && self.written.is_some() => self.loads = true,
            2 | 3 if !gate => {
                self.runs = false;
                self.drive(true);
            }
            _ => {}
        }
    }

    fn load(&mut self, output: bool) {
        self.count = self.written.unwrap();
        self.element = if self.mode == 3 { self.count & !1 } else { self.count }.into();
        (self.loads, self.loaded) = (false, true);
        self.drive(output);
    }

    fn pulse(&mut self) {
        if self.loads {
            self.load(!matches!(self.mode, 0 | 1));
            self.runs = self.gate || !matches!(self.mode, 2 | 3);
            return;
        }
        if !self.runs || !self.gate && matches!(self.mode, 0 | 4) {
            return;
        }
        match self.mode {
            3 if self.element == 0 => self.load(false),
            3 => {
                self.element -= 2;
                // The first half of an odd count lasts a pulse longer.
                if self.element == 0 && (self.count.is_multiple_of(2) || !self.output) {
                    self.load(!self.output);
                }
            }
            2 => {
                self.element -= 1;
                self.drive(self.element != 1);
                if self.element == 0 {
                    self.load(true);
                }
            }
            _ => {
                self.element -= 1;
                match self.mode {
                    0 | 1 => self.drive(self.output || self.element == 0),
                    _ => self.drive(self.element != 0),
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Control(u8),
    Write(u8),
    Gate(bool),
    Pulses(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0_u8..6).prop_map(Step::Control),
        3 => prop_oneof![2_u8..12, Just(255), Just(0)].prop_map(Step::Write),
        2 => any::<bool>().prop_map(Step::Gate),
        6 => prop_oneof![0_u64..20, Just(300)].prop_map(Step::Pulses),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Counter 0, and counter 2 with its gate.
    #[test]
    fn counters_do_what_a_count_pulse_by_pulse_does(steps in steps()) {
        machine(|machine| {
            let mut pulse = 0;
            let mut references = [(0, Reference::new(true)), (2, Reference::new(false))];
            // One byte a count, from the beginning.
            for step in [Step::Control(3)].iter().chain(&steps) {
                for (counter, reference) in &mut references {
                    match *step {
                        Step::Control(mode) => {
                            machine.write(CONTROL, *counter << 6 | 0x10 | mode << 1);
                            reference.control(mode);
                        }
                        Step::Write(count) if count != 0 || reference.written.is_some() => {
                            machine.write(0x40 + u16::from(*counter), count);
                            reference.write(count);
                        }
                        Step::Gate(gate) if *counter == 2 => {
                            machine.write(PORT_B, gate.into());
                            reference.set_gate(gate);
                        }
                        Step::Pulses(pulses) => (0..pulses).for_each(|_| reference.pulse()),
                        _ => {}
                    }
                }
                if let Step::Pulses(pulses) = step {
                    pulse += pulses;
                    machine.turn_to(pulse);
                }
                machine.manager.tick(machine.clock.now());
                let rises = std::mem::take(&mut references[0].1.rises);
                assert_eq!(machine.edges(), rises.min(8), "edges at {pulse}");
                for (counter, reference) in &references {
                    machine.write(CONTROL, 0xc0 | 2 << counter);
                    let (status, count) = (machine.read(0x40 + u16::from(*counter)), machine.read(0x40 + u16::from(*counter)));
                    assert_eq!(status & 0x80 != 0, reference.output, "output of {counter} at {pulse}");
                    if reference.loaded {
                        assert_eq!(count, reference.element as u8, "count of {counter} at {pulse}");
                    }
                }
                // The next rise is at the deadline; those of short periods come together.
                let mut ahead = references[0].1;
                if !matches!(ahead.mode, 2 | 3) {
                    let next = (1..600).find(|_| {
                        ahead.pulse();
                        ahead.rises != 0
                    });
                    let deadline = machine.deadline().filter(|deadline| *deadline < pulse + 600);
                    assert_eq!(deadline, next.map(|pulses| pulse + pulses), "deadline at {pulse}");
                }
            }
        });
    }
}

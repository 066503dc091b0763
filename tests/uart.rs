//! The UART 16550A, as a guest sees it.
#![cfg(feature = "devices")]

mod fixture;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use vm_device::devices::time::HandClock;
use vm_device::devices::uart::Uart16550;
use vm_device::{DeviceManager, Gsi, GuestAddress, InterruptController, InterruptError, IoType, IrqResource};

use fixture::{Line, PC, manager, within_limit};

const COM1: u16 = 0x3f8;

// Registers.
const DATA: u16 = 0;
const IER: u16 = 1;
const IIR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const LSR: u16 = 5;
const MSR: u16 = 6;
const SCR: u16 = 7;

// Causes of an interrupt, with FIFOs.
const LINE_STATUS: u8 = 0xc6;
const RECEIVED: u8 = 0xc4;
const TIME_OUT: u8 = 0xcc;
const EMPTY: u8 = 0xc2;
const MODEM: u8 = 0xc0;
const NONE: u8 = 0xc1;

/// Four characters of 10 bits at 115,200 bits a second, in nanoseconds.
const FOUR_CHARACTERS: u64 = 347_220;

/// The level of line 4, whether levels are refused, and how often the line has risen.
#[derive(Default)]
struct Pic(AtomicBool, AtomicBool, AtomicUsize);

impl InterruptController for Pic {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        assert_eq!(gsi, Gsi(4));
        if self.1.load(SeqCst) {
            return Err(InterruptError::Refused);
        }
        let before = self.0.swap(asserted, SeqCst);
        self.2.fetch_add(usize::from(asserted && !before), SeqCst);
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }
}

/// A guest with a serial port.
struct Machine<'m> {
    manager: &'m DeviceManager<'m>,
    uart: &'m Uart16550<'m, Line, &'m HandClock>,
    line: Line,
    clock: &'m HandClock,
    pic: &'m Pic,
}

/// Runs a test with a serial port at COM1, with line 4.
fn machine(test: impl FnOnce(&Machine<'_>)) {
    let (line, clock, pic) = (Line::default(), HandClock::new(), Pic::default());
    let uart = Uart16550::new("serial", line.clone(), &clock);
    manager!(let manager = PC, with_interrupt_controller(&pic));
    manager.register_device(&uart, None, &[uart.ports(COM1)], &[IrqResource::Fixed(Gsi(4))]).unwrap();
    test(&Machine { manager: &manager, uart: &uart, line, clock: &clock, pic: &pic });
}

impl Machine<'_> {
    fn read(&self, register: u16) -> u8 {
        let mut data = [0];
        self.manager.read((COM1 + register).into(), &mut data, IoType::Pio).unwrap();
        data[0]
    }

    fn write(&self, register: u16, value: u8) {
        self.manager.write((COM1 + register).into(), &[value], IoType::Pio).unwrap();
    }

    /// Whether the interrupt is asserted, and the identification says the same.
    fn cause(&self) -> u8 {
        let asserted = self.pic.0.load(SeqCst);
        let cause = self.read(IIR);
        assert_eq!(asserted, cause & 1 == 0, "{cause:#x}");
        cause
    }

    fn is_asserted(&self) -> bool {
        self.pic.0.load(SeqCst)
    }

    /// Bytes come in, and the embedder says so.
    fn input(&self, bytes: &[u8]) {
        self.line.send(bytes);
        self.uart.poll();
    }

    fn sent(&self) -> Vec<u8> {
        self.line.sent()
    }

    /// With FIFOs, a trigger level by its code, and 8 bits a character.
    fn with_fifos(&self, trigger: u8) {
        self.write(LCR, 3);
        self.write(IIR, trigger << 6 | 0b111);
    }

    /// Reads characters that are of no interest.
    fn drop_received(&self, count: usize) {
        for _ in 0..count {
            self.read(DATA);
        }
    }

    fn registers(&self) -> [u8; 7] {
        [IER, IIR, LCR, MCR, LSR, MSR, SCR].map(|register| self.read(register))
    }
}

const AFTER_RESET: [u8; 7] = [0, 1, 0, 0, 0x60, 0xb0, 0];

#[test]
fn registers_are_as_after_power_on_and_a_reset_makes_them_so_again() {
    machine(|machine| {
        assert_eq!(machine.registers(), AFTER_RESET);
        machine.with_fifos(3);
        for (register, value) in [(IER, 0xff), (LCR, 0x1b), (MCR, 0xff), (SCR, 0x5a), (DATA, 0x12)] {
            machine.write(register, value);
        }
        assert_eq!(
            (machine.read(IER), machine.read(LCR), machine.read(MCR), machine.read(SCR)),
            (0x0f, 0x1b, 0x1f, 0x5a)
        );
        assert!(machine.is_asserted());
        machine.manager.reset().unwrap();
        assert!(!machine.is_asserted());
        assert_eq!(machine.registers(), AFTER_RESET);
        // The status registers and what lies behind the last register take nothing.
        machine.write(LSR, 0xff);
        machine.write(MSR, 0xff);
        assert_eq!(machine.registers(), AFTER_RESET);
    });
}

#[test]
fn the_divisor_stands_in_the_place_of_two_registers() {
    machine(|machine| {
        machine.write(IER, 5);
        machine.write(LCR, 0x83);
        assert_eq!((machine.read(DATA), machine.read(IER)), (1, 0));
        machine.write(DATA, 0x34);
        machine.write(IER, 0x12);
        assert_eq!((machine.read(DATA), machine.read(IER)), (0x34, 0x12));
        machine.write(LCR, 0x03);
        assert_eq!(machine.read(IER), 5);
        assert!(machine.sent().is_empty());
    });
}

#[test]
fn bytes_are_sent_in_order_and_whole() {
    machine(|machine| {
        machine.write(LCR, 3);
        for byte in 0..=255 {
            machine.write(DATA, byte);
            assert_eq!(machine.read(LSR), 0x60);
        }
        assert_eq!(machine.sent(), (0..=255).collect::<Vec<u8>>());
        // Whole, whatever their length is.
        for bits in 0..4 {
            machine.write(LCR, bits);
            machine.write(DATA, 0xff);
            machine.input(&[0xff]);
            assert_eq!((machine.sent(), machine.read(DATA)), (vec![0xff], 0xff));
        }
    });
}

#[test]
fn a_line_that_takes_nothing_leaves_the_transmitter_full() {
    machine(|machine| {
        machine.line.0.lock().room = 0;
        machine.write(IER, 2);
        assert_eq!(machine.read(IIR), 0x02);
        machine.write(DATA, 1);
        assert_eq!((machine.read(LSR), machine.read(IIR)), (0, 1));
        // Without FIFOs a byte that the guest does not wait for takes the place of the one before.
        machine.write(DATA, 2);
        machine.line.0.lock().room = 5;
        machine.uart.poll();
        assert_eq!((machine.sent(), machine.read(LSR), machine.is_asserted()), (vec![2], 0x60, true));
        assert_eq!((machine.read(IIR), machine.read(IIR), machine.is_asserted()), (2, 1, false));

        // With FIFOs there is room for 16, and no interrupt before all are sent.
        machine.with_fifos(0);
        machine.line.0.lock().room = 0;
        (0..18).for_each(|byte| machine.write(DATA, byte));
        machine.line.0.lock().room = 10;
        machine.uart.poll();
        assert_eq!((machine.sent().len(), machine.read(LSR), machine.cause()), (10, 0, NONE));
        machine.line.0.lock().room = 10;
        machine.manager.tick(0);
        assert_eq!((machine.sent(), machine.read(LSR)), ((10..16).collect(), 0x60));
        assert_eq!((machine.cause(), machine.cause()), (EMPTY, NONE));
    });
}

#[test]
fn what_waits_to_be_sent_goes_when_the_fifo_is_cleared_and_interrupts_when_it_is_gone() {
    machine(|machine| {
        machine.with_fifos(0);
        machine.line.0.lock().room = 0;
        machine.write(DATA, 1);
        // It is enabled while the transmitter is full.
        machine.write(IER, 2);
        assert_eq!(machine.cause(), NONE);
        machine.write(IIR, 0b101);
        assert_eq!((machine.read(LSR), machine.is_asserted()), (0x60, true));
        // A byte that is written ends the interrupt, too.
        machine.write(DATA, 2);
        assert!(!machine.is_asserted());
        machine.line.0.lock().room = 9;
        machine.uart.poll();
        assert_eq!((machine.sent(), machine.cause()), (vec![2], EMPTY));
        // Without FIFOs nothing of what was in them is left.
        machine.line.0.lock().room = 0;
        machine.write(DATA, 3);
        machine.write(IIR, 0);
        assert_eq!((machine.read(LSR), machine.read(IIR)), (0x60, 2));
    });
}

#[test]
fn a_level_that_is_refused_is_told_again_and_so_it_is_after_another_registration() {
    machine(|machine| {
        machine.pic.1.store(true, SeqCst);
        machine.write(IER, 2);
        assert!(!machine.is_asserted());
        assert_eq!(machine.clock.asked_for(), Some(1_000_000));
        machine.pic.1.store(false, SeqCst);
        assert_eq!(machine.manager.tick(machine.clock.advance(1_000_000)), None);
        assert!(machine.is_asserted());
        let id = machine.manager.find_by_path("/serial").unwrap();
        machine.manager.unregister_device(id).unwrap();
        assert!(!machine.is_asserted());
        let requests = [machine.uart.ports(COM1)];
        machine.manager.register_device(machine.uart, None, &requests, &[IrqResource::Fixed(Gsi(4))]).unwrap();
        machine.uart.poll();
        assert!(machine.is_asserted());
    });
}

#[test]
fn a_line_that_fails_loses_what_is_sent_and_the_guest_goes_on() {
    machine(|machine| {
        machine.line.0.lock().fails = true;
        machine.write(IER, 2);
        machine.write(DATA, 1);
        assert_eq!((machine.read(LSR), machine.read(IIR)), (0x60, 2));
        machine.line.0.lock().fails = false;
        machine.write(DATA, 2);
        assert_eq!(machine.sent(), [2]);
    });
}

#[test]
fn bytes_are_received_as_there_is_room_and_none_is_lost() {
    machine(|machine| {
        machine.input(&[1, 2, 3]);
        assert_eq!(machine.line.0.lock().input.len(), 2);
        for byte in 1..=3 {
            assert_eq!((machine.read(LSR), machine.read(DATA)), (0x61, byte));
        }
        assert_eq!((machine.read(LSR), machine.read(DATA)), (0x60, 0));
        machine.with_fifos(0);
        let input: Vec<u8> = (0..100).collect();
        machine.input(&input);
        assert_eq!(machine.line.0.lock().input.len(), 84);
        let received: Vec<u8> =
            std::iter::from_fn(|| (machine.read(LSR) == 0x61).then(|| machine.read(DATA))).collect();
        assert_eq!(received, input);
        // What is in the FIFO goes when it is cleared.
        machine.input(&[1, 2]);
        machine.write(IIR, 0b011);
        assert_eq!(machine.read(LSR), 0x60);
    });
}

#[test]
fn the_receiver_interrupts_at_its_trigger_level_or_when_four_characters_have_passed() {
    for (code, level) in [(0, 1), (1, 4), (2, 8), (3, 14)] {
        machine(|machine| {
            machine.with_fifos(code);
            machine.write(IER, 1);
            for count in 1..=level {
                machine.input(&[count]);
                assert_eq!(machine.cause(), if count == level { RECEIVED } else { NONE }, "{count} of {level}");
            }
            assert_eq!(machine.read(DATA), 1);
            assert_eq!(machine.cause(), NONE);
            if level > 1 {
                // The time begins with the last character that was received or read.
                assert_eq!(machine.manager.tick(0), Some(FOUR_CHARACTERS));
                assert_eq!(machine.clock.asked_for(), Some(FOUR_CHARACTERS));
                assert_eq!(machine.manager.tick(machine.clock.advance(FOUR_CHARACTERS - 1)), Some(FOUR_CHARACTERS));
                assert!(!machine.is_asserted());
                assert_eq!(machine.manager.tick(machine.clock.advance(1)), None);
                assert!(machine.is_asserted());
                assert_eq!((machine.cause(), machine.cause()), (TIME_OUT, TIME_OUT));
                machine.read(DATA);
                assert_eq!(machine.cause(), NONE);
                while machine.read(LSR) & 1 != 0 {
                    machine.read(DATA);
                }
                assert_eq!((machine.manager.tick(u64::MAX), machine.is_asserted()), (None, false));
            }
        });
    }
}

#[test]
fn a_slower_rate_and_more_bits_take_longer_to_time_out() {
    machine(|machine| {
        machine.with_fifos(3);
        machine.write(IER, 1);
        // 9,600 bits a second; 12 bits a character: parity, two stop bits.
        machine.write(LCR, 0x8f);
        machine.write(DATA, 12);
        machine.write(LCR, 0x0f);
        let began = machine.clock.advance(1_000_000_000);
        machine.input(&[1]);
        let after = machine.manager.tick(began).unwrap() - began;
        assert!((4_990_000..5_010_000).contains(&after), "{after}");
    });
}

/// In loopback each cause can be made, the least important first; the guest sees the most important, and does what ends it.
#[test]
fn interrupts_have_priorities_and_each_ends_by_its_own_act() {
    machine(|machine| {
        machine.with_fifos(1);
        machine.write(MCR, 0x10);
        machine.read(MSR);
        machine.write(IER, 0x0f);
        assert_eq!((machine.cause(), machine.cause()), (EMPTY, NONE));
        machine.write(MCR, 0x12);
        assert_eq!((machine.cause(), machine.cause()), (MODEM, MODEM));
        machine.write(DATA, 1);
        assert_eq!(machine.cause(), EMPTY);
        machine.write(DATA, 2);
        machine.clock.advance(FOUR_CHARACTERS);
        machine.uart.poll();
        assert_eq!(machine.cause(), TIME_OUT);
        machine.write(DATA, 3);
        machine.write(DATA, 4);
        assert_eq!(machine.cause(), RECEIVED);
        (0..13).for_each(|byte| machine.write(DATA, byte));
        assert_eq!(machine.cause(), LINE_STATUS);

        assert_eq!(machine.read(LSR), 0x63);
        assert_eq!((machine.read(LSR), machine.cause()), (0x61, RECEIVED));
        machine.drop_received(13);
        machine.clock.advance(FOUR_CHARACTERS);
        machine.uart.poll();
        assert_eq!(machine.cause(), TIME_OUT);
        machine.drop_received(3);
        assert_eq!((machine.cause(), machine.cause()), (EMPTY, MODEM));
        assert_eq!((machine.read(MSR), machine.cause()), (0x11, NONE));
        // What is not enabled does not interrupt.
        machine.write(IER, 0);
        machine.write(DATA, 1);
        machine.write(MCR, 0x10);
        assert_eq!(machine.cause(), NONE);
        assert!(machine.sent().is_empty());
    });
}

#[test]
fn the_transmitter_interrupts_when_it_is_enabled_and_when_it_becomes_empty() {
    machine(|machine| {
        machine.write(DATA, 1);
        assert_eq!(machine.cause(), 1);
        machine.write(IER, 2);
        assert_eq!((machine.cause(), machine.cause()), (2, 1));
        // Written again, it is enabled already.
        machine.write(IER, 2);
        assert_eq!(machine.cause(), 1);
        machine.write(DATA, 1);
        assert_eq!((machine.cause(), machine.cause()), (2, 1));
        machine.write(IER, 0);
        machine.write(IER, 2);
        assert_eq!(machine.cause(), 2);
    });
}

#[test]
fn loopback_returns_characters_breaks_and_the_lines_of_the_modem() {
    machine(|machine| {
        machine.write(LCR, 3);
        machine.write(MCR, 0x10);
        machine.input(&[8]);
        assert_eq!(machine.read(LSR), 0x60);
        machine.write(MCR, 0);
        assert_eq!((machine.read(LSR), machine.read(DATA)), (0x61, 8));
        machine.input(&[9]);
        machine.write(MCR, 0x10);
        machine.read(MSR);
        // Without FIFOs a character that nobody has read is lost.
        machine.write(DATA, 0x55);
        assert_eq!((machine.read(LSR), machine.read(DATA), machine.read(LSR)), (0x63, 0x55, 0x60));
        for (control, status) in [(0x11, 0x22), (0x13, 0x31), (0x1b, 0xb8), (0x1f, 0xf0), (0x1b, 0xb4), (0x10, 0x0b)] {
            machine.write(MCR, control);
            assert_eq!(machine.read(MSR), status, "{control:#x}");
            assert_eq!(machine.read(MSR), status & 0xf0);
        }
        machine.write(LCR, 0x43);
        assert_eq!((machine.read(LSR), machine.read(LSR), machine.read(DATA)), (0x79, 0x61, 0));
        // A break goes on until it ends, and is one character.
        machine.write(LCR, 0x43);
        assert_eq!(machine.read(LSR), 0x60);
        machine.with_fifos(0);
        machine.write(LCR, 0x43);
        assert_eq!((machine.read(LSR), machine.read(LSR)), (0xf9, 0x61));
        assert!(machine.sent().is_empty());
        // The other end is there again.
        machine.line.0.lock().input.push_back(7);
        machine.write(MCR, 0);
        assert_eq!((machine.read(DATA), machine.read(DATA), machine.read(MSR)), (0, 7, 0xbb));
    });
}

#[test]
fn a_string_is_sent_in_one_call() {
    machine(|machine| {
        machine.with_fifos(0);
        let text = [b'x'; 160];
        machine.manager.write_string(COM1, 1, &text).unwrap();
        assert_eq!((machine.sent(), machine.line.0.lock().writes <= 11), (text.to_vec(), true));
        // Of a line that takes a part, what has room is kept.
        machine.line.0.lock().room = 3;
        machine.manager.write_string(COM1, 1, &(0..30).collect::<Vec<u8>>()).unwrap();
        machine.line.0.lock().room = 100;
        machine.uart.poll();
        assert_eq!(machine.sent(), (0..19).collect::<Vec<u8>>());
        // To another register it is as many writes.
        machine.manager.write_string(COM1 + SCR, 1, &[1, 2, 3]).unwrap();
        assert_eq!(machine.read(SCR), 3);
    });
}

#[test]
fn an_access_of_several_bytes_is_one_to_each_register() {
    machine(|machine| {
        machine.write(LCR, 0x83);
        machine.manager.write(COM1.into(), &[0x34, 0x02], IoType::Pio).unwrap();
        let mut word = [0; 2];
        machine.manager.read(COM1.into(), &mut word, IoType::Pio).unwrap();
        assert_eq!(word, [0x34, 0x02]);
    });
}

#[test]
fn registers_in_memory_are_as_far_apart_as_asked_for() {
    let (line, clock) = (Line::default(), HandClock::new());
    let uart = Uart16550::new("serial", line.clone(), &clock).with_register_shift(2);
    manager!(let manager);
    manager.register_device(&uart, None, &[uart.mmio(0x1000_0000)], &[]).unwrap();
    let at = |register: u16| GuestAddress(0x1000_0000 + 4 * u64::from(register));
    for (register, value) in [(LCR, 3), (SCR, 0x5a)] {
        manager.write(at(register), &[value, 0xff, 0xff, 0xff], IoType::Mmio).unwrap();
        let (mut dword, mut byte) = ([0xff; 4], [0xff; 1]);
        manager.read(at(register), &mut dword, IoType::Mmio).unwrap();
        manager.read(at(register), &mut byte, IoType::Mmio).unwrap();
        assert_eq!((dword, byte), ([value, 0, 0, 0], [value]));
    }
    manager.write(at(DATA), b"a", IoType::Mmio).unwrap();
    manager.write(at(DATA), &u32::from(b'b').to_le_bytes(), IoType::Mmio).unwrap();
    assert_eq!(line.0.lock().sent, b"ab");
    // The last register, and nothing behind it.
    assert!(manager.read(GuestAddress(0x1000_0020), &mut [0], IoType::Mmio).is_err());
}

#[test]
fn bytes_from_another_thread_lose_no_interrupt() {
    within_limit(|| {
        machine(|machine| {
            let count = if cfg!(miri) { 20 } else { 20_000 };
            let received = AtomicUsize::new(0);
            machine.with_fifos(0);
            machine.write(IER, 1);
            let Machine { uart, line, .. } = machine;
            thread::scope(|scope| {
                scope.spawn(move || {
                    for byte in 0..count {
                        line.0.lock().input.push_back(byte as u8);
                        uart.poll();
                    }
                });
                // The guest sleeps until it is interrupted.
                while received.load(SeqCst) < count {
                    while !machine.is_asserted() {
                        thread::yield_now();
                    }
                    while machine.read(IIR) == RECEIVED {
                        let expected = received.fetch_add(1, SeqCst) as u8;
                        assert_eq!(machine.read(DATA), expected);
                    }
                }
            });
            assert!(!machine.is_asserted());
        });
    });
}

#[test]
fn an_interrupt_that_follows_another_at_once_is_an_edge() {
    machine(|machine| {
        let edges = || machine.pic.2.swap(0, SeqCst);
        // Without FIFOs the next byte comes in as soon as there is room for it.
        machine.write(IER, 1);
        machine.input(b"abc");
        for expected in *b"abc" {
            assert_eq!((edges(), machine.read(DATA)), (1, expected));
        }
        assert_eq!((edges(), machine.is_asserted()), (0, false));
        // With them there are enough for the trigger level all the time.
        machine.with_fifos(3);
        machine.input(&[0; 40]);
        assert_eq!(edges(), 1);
        machine.drop_received(26);
        assert_eq!((edges(), machine.is_asserted()), (0, true));

        // A byte that is written ends the interrupt of the transmitter, and is gone at once.
        machine.write(IER, 2);
        edges();
        for _ in 0..3 {
            machine.write(DATA, 0);
            assert_eq!((edges(), machine.is_asserted()), (1, true));
        }
        machine.manager.write_string(COM1, 1, &[0; 20]).unwrap();
        assert_eq!((edges(), machine.is_asserted()), (1, true));
    });
}

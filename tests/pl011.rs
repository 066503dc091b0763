//! The UART PL011, as a guest sees it.
#![cfg(feature = "devices")]

mod fixture;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use vm_device::devices::pl011::Pl011;
use vm_device::devices::time::HandClock;
use vm_device::{Device, DeviceManager, Gsi, InterruptError, IoType, IrqResource};

use fixture::{Line, OnLevel, at, manager, within_limit};

const BASE: u64 = 0x900_0000;

// Registers.
const DR: u64 = 0x000;
const RSR: u64 = 0x004;
const FR: u64 = 0x018;
const ILPR: u64 = 0x020;
const IBRD: u64 = 0x024;
const FBRD: u64 = 0x028;
const LCR_H: u64 = 0x02c;
const CR: u64 = 0x030;
const IFLS: u64 = 0x034;
const IMSC: u64 = 0x038;
const RIS: u64 = 0x03c;
const MIS: u64 = 0x040;
const ICR: u64 = 0x044;
const DMACR: u64 = 0x048;

// Interrupts.
const RX: u32 = 1 << 4;
const TX: u32 = 1 << 5;
const RT: u32 = 1 << 6;
const OE: u32 = 1 << 10;

/// Flags: the FIFOs are empty, and another machine is there.
const IDLE: u32 = 0x97;
const RXFF: u32 = 0x40;
const RXFE: u32 = 0x10;
const TXFE: u32 = 0x80;
const TXFF: u32 = 0x20;
const BUSY: u32 = 0x08;
const FIFOS: u32 = 0x70;

struct Machine<'m> {
    manager: &'m DeviceManager<'m>,
    uart: &'m Pl011<'m, Line, &'m HandClock>,
    line: Line,
    clock: &'m HandClock,
    is_asserted: &'m AtomicBool,
    refuses: &'m AtomicBool,
}

fn machine(test: impl FnOnce(&Machine<'_>)) {
    let (line, clock) = (Line::default(), HandClock::new());
    let (is_asserted, refuses) = (AtomicBool::new(false), AtomicBool::new(false));
    let controller = OnLevel(|level| {
        if refuses.load(SeqCst) {
            return Err(InterruptError::Refused);
        }
        is_asserted.store(level, SeqCst);
        Ok(())
    });
    let uart = Pl011::new("serial", line.clone(), &clock);
    manager!(let manager, with_interrupt_controller(&controller));
    manager.register_device(&uart, None, &[uart.mmio(BASE)], &[IrqResource::Fixed(Gsi(6))]).unwrap();
    let (is_asserted, refuses) = (&is_asserted, &refuses);
    test(&Machine { manager: &manager, uart: &uart, line, clock: &clock, is_asserted, refuses });
}

impl Machine<'_> {
    fn read(&self, register: u64) -> u32 {
        let mut data = [0xff; 4];
        self.manager.read(at(BASE + register), &mut data, IoType::Mmio).unwrap();
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u64, value: u32) {
        self.manager.write(at(BASE + register), &value.to_le_bytes(), IoType::Mmio).unwrap();
    }

    /// The raw interrupts; the line is as they and the mask say.
    fn raw(&self) -> u32 {
        let masked = self.read(MIS);
        assert_eq!(self.is_asserted.load(SeqCst), masked != 0, "{masked:#x}");
        let raw = self.read(RIS);
        assert_eq!(masked, raw & self.read(IMSC));
        raw
    }

    fn input(&self, bytes: &[u8]) {
        self.line.send(bytes);
        self.uart.poll();
    }

    fn sent(&self) -> Vec<u8> {
        self.line.sent()
    }

    fn take_all(&self) -> Vec<u8> {
        std::iter::from_fn(|| (self.read(FR) & RXFE == 0).then(|| self.read(DR) as u8)).collect()
    }

    /// All registers that read back, but for the data.
    fn registers(&self) -> [u32; 13] {
        [RSR, FR, ILPR, IBRD, FBRD, LCR_H, CR, IFLS, IMSC, RIS, MIS, ICR, DMACR].map(|register| self.read(register))
    }
}

const AFTER_RESET: [u32; 13] = [0, IDLE, 0, 0, 0, 0, 0x300, 0x12, 0, 0, 0, 0, 0];

#[test]
fn registers_are_as_after_power_on_and_a_reset_makes_them_so_again() {
    machine(|machine| {
        assert_eq!(machine.registers(), AFTER_RESET);
        for register in [ILPR, IBRD, FBRD, LCR_H, IFLS, IMSC, DMACR] {
            machine.write(register, 0xffff_ffff);
        }
        // In loopback, without what transmits.
        machine.write(CR, 0xfeff);
        machine.write(DR, 1);
        let [_, flags, values @ .., raw, masked, _, dma] = machine.registers();
        assert_eq!(values, [0xff, 0xffff, 0x3f, 0xff, 0xfe87, 0x3f, 0x7ff]);
        // The ring indicator has risen.
        assert_eq!((flags, raw, masked, dma), (0x100 | 0x17 | BUSY, 0x01, 0x01, 0x07));
        machine.manager.reset().unwrap();
        assert_eq!((machine.registers(), machine.sent()), (AFTER_RESET, vec![]));
    });
}

#[test]
fn it_says_what_it_is() {
    machine(|machine| {
        let ids: Vec<u32> = (0xfe0..0x1000).step_by(4).map(|register| machine.read(register)).collect();
        assert_eq!(ids, [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
        // Between them there is nothing.
        for register in [0x008, 0x01c, 0x04c, 0x080, 0xfdc] {
            machine.write(register, 0xffff_ffff);
            assert_eq!(machine.read(register), 0, "{register:#x}");
        }
        assert_eq!(machine.registers(), AFTER_RESET);
        // What can be read only stays.
        [FR, RIS, MIS, 0xfe0, 0xffc].into_iter().for_each(|register| machine.write(register, 0xffff_ffff));
        assert_eq!((machine.registers(), machine.read(0xfe0), machine.read(0xffc)), (AFTER_RESET, 0x11, 0xb1));
    });
}

#[test]
fn bytes_are_sent_in_order_whatever_the_guest_has_programmed() {
    machine(|machine| {
        machine.write(IMSC, TX);
        assert_eq!(machine.raw(), 0);
        for byte in 0..=255 {
            machine.write(DR, byte);
            assert_eq!((machine.read(FR), machine.raw()), (IDLE, TX));
            machine.write(ICR, TX);
            assert_eq!(machine.raw(), 0);
        }
        assert_eq!(machine.sent(), (0..=255).collect::<Vec<u8>>());
        // The transmitter is disabled, and enabled again.
        machine.write(CR, 0x201);
        machine.write(DR, 1);
        assert_eq!((machine.sent(), machine.read(FR) & (TXFF | TXFE | BUSY)), (vec![], TXFF | BUSY));
        machine.write(CR, 0x301);
        assert_eq!((machine.sent(), machine.read(FR), machine.raw()), (vec![1], IDLE, TX));
    });
}

#[test]
fn a_line_that_takes_nothing_leaves_the_fifo_full_and_it_interrupts_when_it_falls_to_its_level() {
    for (code, level) in [(0, 2), (1, 4), (2, 8), (3, 12), (4, 14)] {
        machine(|machine| {
            machine.write(LCR_H, FIFOS);
            machine.write(IFLS, code);
            machine.write(IMSC, TX);
            machine.write(DR, 0);
            assert_eq!(machine.raw(), TX);
            machine.line.0.lock().room = 0;
            for byte in 1..=16 {
                assert_eq!(
                    (machine.read(FR) & TXFF, machine.raw()),
                    (0, if byte > level + 1 { 0 } else { TX }),
                    "{byte}"
                );
                machine.write(DR, byte);
            }
            // There is no room for the 17th.
            assert_eq!(machine.read(FR) & (TXFF | TXFE | BUSY), TXFF | BUSY);
            machine.write(DR, 17);
            let above = 16 - level as usize - 1;
            machine.line.0.lock().room = above;
            machine.uart.poll();
            assert_eq!((machine.read(FR) & (TXFF | TXFE), machine.raw()), (0, 0));
            machine.line.0.lock().room = 1;
            machine.manager.tick(0);
            assert_eq!(machine.raw(), TX);
            machine.line.0.lock().room = 100;
            machine.uart.poll();
            assert_eq!((machine.sent(), machine.read(FR)), ((0..=16).collect(), IDLE));
        });
    }
    // Without FIFOs there is room for one.
    machine(|machine| {
        machine.write(IMSC, TX);
        machine.write(DR, 0);
        machine.line.0.lock().room = 0;
        machine.write(DR, 1);
        machine.write(DR, 2);
        assert_eq!((machine.read(FR) & TXFF, machine.raw()), (TXFF, 0));
        machine.line.0.lock().room = 9;
        machine.uart.poll();
        assert_eq!((machine.sent(), machine.raw()), (vec![0, 1], TX));
    });
}

#[test]
fn a_line_that_fails_loses_what_is_sent_and_the_guest_goes_on() {
    machine(|machine| {
        machine.line.0.lock().fails = true;
        machine.write(DR, 1);
        assert_eq!((machine.read(FR), machine.raw()), (IDLE, TX));
        machine.line.0.lock().fails = false;
        machine.write(DR, 2);
        assert_eq!(machine.sent(), [2]);
    });
}

#[test]
fn bytes_are_received_as_there_is_room_and_none_is_lost() {
    machine(|machine| {
        machine.input(&[1, 2, 3]);
        assert_eq!((machine.line.0.lock().input.len(), machine.read(FR) & (RXFF | RXFE)), (2, RXFF));
        assert_eq!((machine.take_all(), machine.read(DR)), (vec![1, 2, 3], 0));
        machine.write(LCR_H, FIFOS);
        let input: Vec<u8> = (0..100).collect();
        machine.input(&input);
        assert_eq!((machine.line.0.lock().input.len(), machine.read(FR) & RXFF), (84, RXFF));
        assert_eq!(machine.take_all(), input);
        // The receiver is disabled, and what comes waits at the other end.
        machine.write(CR, 0x101);
        machine.input(&[1]);
        assert_eq!((machine.line.0.lock().input.len(), machine.read(FR) & RXFE), (1, RXFE));
        machine.write(CR, 0x301);
        assert_eq!(machine.take_all(), [1]);
    });
}

#[test]
fn the_receiver_interrupts_at_its_trigger_level() {
    for (code, level) in [(0, 2), (1, 4), (2, 8), (3, 12), (4, 14)] {
        machine(|machine| {
            machine.write(LCR_H, FIFOS);
            machine.write(IFLS, code << 3);
            machine.write(IMSC, RX);
            for count in 1..=level {
                machine.input(&[count]);
                assert_eq!(machine.raw(), if count == level { RX } else { 0 }, "{count} of {level}");
            }
            assert_eq!((machine.read(DR), machine.raw()), (1, 0));
            machine.input(&[0]);
            // Cleared, it comes again with the next character.
            machine.write(ICR, RX);
            assert_eq!(machine.raw(), 0);
            machine.input(&[0]);
            assert_eq!(machine.raw(), RX);
            machine.take_all();
            assert_eq!(machine.raw(), 0);
        });
    }
    machine(|machine| {
        machine.write(IMSC, RX);
        machine.input(&[1]);
        assert_eq!((machine.raw(), machine.read(DR), machine.raw()), (RX, 1, 0));
    });
}

/// 32 bits at 115,384 bits a second: 24 MHz / 16 / 13.
const TIME: u64 = 277_333;

#[test]
fn the_receiver_times_out_when_32_bits_have_passed_since_the_last_character() {
    machine(|machine| {
        machine.write(IBRD, 13);
        machine.write(FBRD, 0);
        machine.write(LCR_H, FIFOS);
        machine.write(IMSC, RT);
        machine.clock.advance(5);
        machine.input(&[1, 2]);
        machine.clock.advance(10);
        machine.input(&[3]);
        assert_eq!((machine.clock.asked_for(), machine.manager.tick(15)), (Some(5 + TIME), Some(15 + TIME)));
        // A character that is read does not put it off.
        assert_eq!(machine.read(DR), 1);
        machine.clock.advance(TIME - 1);
        assert_eq!((machine.raw(), machine.clock.asked_for()), (0, Some(15 + TIME)));
        assert_eq!(machine.manager.tick(machine.clock.advance(1)), None);
        assert_eq!(machine.raw(), RT);
        // It ends when the last is read, or is cleared.
        assert_eq!((machine.read(DR), machine.raw(), machine.read(DR), machine.raw()), (2, RT, 3, 0));
        machine.input(&[4]);
        // The time that has passed is seen without a tick.
        machine.clock.advance(TIME);
        assert_eq!(machine.read(RIS), RT);
        machine.write(ICR, RT);
        assert_eq!((machine.raw(), machine.manager.tick(u64::MAX), machine.raw()), (0, None, 0));
        machine.input(&[5]);
        machine.take_all();
        assert_eq!((machine.manager.tick(u64::MAX), machine.raw()), (None, 0));
    });
}

#[test]
fn the_time_is_that_of_the_rate_as_it_was_when_the_line_control_was_written() {
    let times_out = |hertz: Option<u32>, whole, fraction| {
        let (line, clock) = (Line::default(), HandClock::new());
        let uart = Pl011::new("serial", line.clone(), &clock);
        let uart = if let Some(hertz) = hertz { uart.with_reference_clock(hertz) } else { uart };
        manager!(let manager);
        manager.register_device(&uart, None, &[uart.mmio(BASE)], &[]).unwrap();
        let write =
            |register, value: u32| manager.write(at(BASE + register), &value.to_le_bytes(), IoType::Mmio).unwrap();
        write(IBRD, whole);
        write(FBRD, fraction);
        write(LCR_H, FIFOS);
        // Not of effect until the next write of the line control.
        write(IBRD, 1);
        line.0.lock().input.push_back(1);
        uart.poll();
        manager.tick(0).unwrap()
    };
    assert_eq!(times_out(None, 13, 0), TIME);
    // 48 MHz / 16 / 26.0625
    assert_eq!(times_out(Some(48_000_000), 26, 4), 278_000);
    // A divisor that is none counts as 1, and no clock as the slowest.
    assert_eq!(times_out(Some(48_000_000), 0, 5), 10_666);
    assert_eq!(times_out(Some(0), 0xffff, 0x3f), 512 * 4_194_303 * 1_000_000_000 / 64);
}

#[test]
fn loopback_returns_characters_breaks_errors_and_the_lines_of_the_modem() {
    machine(|machine| {
        machine.write(LCR_H, FIFOS);
        machine.write(CR, 0x381);
        // The modem's lines have fallen: CTS, DCD, DSR.
        assert_eq!((machine.raw(), machine.read(FR)), (0x0e, 0x90));
        machine.write(ICR, 0x0e);
        machine.input(&[9]);
        for (control, flags, raw) in [
            (0x0b81, 0x91, 0x02),
            (0x0f81, 0x93, 0x08),
            (0x1f81, 0x97, 0x04),
            (0x3f81, 0x197, 0x01),
            (0x0381, 0x90, 0x0f),
        ] {
            machine.write(CR, control);
            assert_eq!((machine.read(FR), machine.raw()), (flags, raw), "{control:#x}");
            machine.write(ICR, raw);
        }
        machine.write(DR, 0x55);
        machine.write(LCR_H, FIFOS | 1);
        machine.write(LCR_H, FIFOS | 1);
        // The break is a framing error too.
        assert_eq!(machine.raw(), TX | 0x280);
        (2..20).for_each(|byte| machine.write(DR, byte));
        assert_eq!((machine.raw(), machine.read(RSR)), (RX | TX | OE | 0x280, 0x8));
        machine.write(RSR, 0xff);
        assert_eq!(machine.read(RSR), 0);
        assert_eq!((machine.read(DR), machine.read(RSR)), (0x855, 0x8));
        assert_eq!((machine.read(DR), machine.read(RSR)), (0x500, 0x5));
        assert_eq!((machine.read(DR), machine.read(RSR)), (0x002, 0x0));
        machine.write(ICR, 0x7ff);
        assert_eq!(machine.raw(), 0);
        assert_eq!(machine.take_all(), (3..16).collect::<Vec<u8>>());
        // A receiver that is disabled receives nothing of its own.
        machine.write(CR, 0x181);
        machine.write(DR, 1);
        machine.write(CR, 0x381);
        assert_eq!(machine.take_all(), []);
        assert!(machine.sent().is_empty());
        // The other end is there again.
        machine.write(CR, 0x301);
        assert_eq!((machine.read(DR), machine.read(FR)), (9, IDLE));
    });
}

#[test]
fn an_access_of_any_size_reaches_the_registers_that_it_has_bytes_of() {
    machine(|machine| {
        let write = |offset, data: &[u8]| machine.manager.write(at(BASE + offset), data, IoType::Mmio).unwrap();
        let read = |offset, size| {
            let mut data = vec![0xff; size];
            machine.manager.read(at(BASE + offset), &mut data, IoType::Mmio).unwrap();
            data
        };
        write(DR, b"a");
        write(DR, &[b'b', 0]);
        assert_eq!(machine.sent(), b"ab");
        // 64 bits are two registers, and their halves.
        write(IBRD, &[0x34, 0x12, 0, 0, 0x05, 0, 0, 0]);
        assert_eq!((read(IBRD, 8), read(IBRD + 1, 4)), (vec![0x34, 0x12, 0, 0, 5, 0, 0, 0], vec![0x12, 0, 0, 5]));
        // Without the lowest byte nothing is written, and a byte alone clears the others.
        write(IBRD + 1, &[0xff]);
        assert_eq!(machine.read(IBRD), 0x1234);
        write(IBRD + 2, &[0, 0, 0x06]);
        assert_eq!((machine.read(IBRD), machine.read(FBRD)), (0x1234, 6));
        write(IBRD, &[0x56]);
        assert_eq!(machine.read(IBRD), 0x56);
        machine.input(&[1]);
        assert_eq!((read(DR, 1), read(0xffd, 3)), (vec![1], vec![0; 3]));
        assert!(machine.manager.read(at(BASE + 0x1000), &mut [0], IoType::Mmio).is_err());
    });
}

#[test]
fn a_level_that_is_refused_is_told_again_and_a_reset_takes_it_back() {
    machine(|machine| {
        machine.refuses.store(true, SeqCst);
        machine.write(IMSC, TX);
        machine.write(DR, 1);
        machine.refuses.store(false, SeqCst);
        assert!(!machine.is_asserted.load(SeqCst));
        assert_eq!(machine.clock.asked_for(), Some(1_000_000));
        assert_eq!(machine.manager.tick(machine.clock.advance(1_000_000)), None);
        assert!(machine.is_asserted.load(SeqCst));
        machine.manager.reset().unwrap();
        assert!(!machine.is_asserted.load(SeqCst));
        assert_eq!(machine.registers(), AFTER_RESET);
        assert_eq!(machine.uart.tick(0), None);
    });
}

#[test]
fn bytes_from_another_thread_lose_no_interrupt() {
    within_limit(|| {
        machine(|machine| {
            let count = if cfg!(miri) { 20 } else { 20_000 };
            let received = AtomicUsize::new(0);
            machine.write(IMSC, RX);
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
                    while !machine.is_asserted.load(SeqCst) {
                        thread::yield_now();
                    }
                    while machine.read(MIS) == RX {
                        let expected = received.fetch_add(1, SeqCst) as u8;
                        assert_eq!(machine.read(DR), expected.into());
                    }
                }
            });
            assert!(!machine.is_asserted.load(SeqCst));
        });
    });
}

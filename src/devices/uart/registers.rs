//! The registers of a 16550A, without what is at the other end of the line.
//!
//! Names, bits and the order of interrupts are those of the PC16550D data sheet (Texas Instruments SNLS378, 8.0).

use heapless::Deque;

/// How many characters a FIFO holds.
pub(super) const DEPTH: usize = 16;
/// The frequency of the clock of a PC's UART, in Hz.
pub(super) const CLOCK: u32 = 1_843_200;

/// Register numbers. The first two are those of the divisor while `DLAB` is set.
pub(super) const DATA: u8 = 0;
const INTERRUPT_ENABLE: u8 = 1;
/// Interrupt identification when read, FIFO control when written.
const INTERRUPT_ID: u8 = 2;
const LINE_CONTROL: u8 = 3;
const MODEM_CONTROL: u8 = 4;
const LINE_STATUS: u8 = 5;
const MODEM_STATUS: u8 = 6;
const SCRATCH: u8 = 7;

/// Interrupt enable: received data, transmitter empty, line status, modem status.
const ENABLE_RECEIVED: u8 = 1 << 0;
const ENABLE_EMPTY: u8 = 1 << 1;
const ENABLE_LINE: u8 = 1 << 2;
const ENABLE_MODEM: u8 = 1 << 3;

/// Line control: longer stop, parity, break, and the divisor's registers in the place of others.
const STOP: u8 = 1 << 2;
const PARITY: u8 = 1 << 3;
const BREAK: u8 = 1 << 6;
const DLAB: u8 = 1 << 7;

/// Modem control.
const LOOPBACK: u8 = 1 << 4;

/// Line status.
const READY: u8 = 1 << 0;
const OVERRUN: u8 = 1 << 1;
const BREAK_RECEIVED: u8 = 1 << 4;
const FRAMING: u8 = 1 << 3;
const EMPTY: u8 = 0b11 << 5;
const ERROR_IN_FIFO: u8 = 1 << 7;

/// Modem status without loopback: another machine is there and ready (data carrier, data set ready, clear to send).
const CONNECTED: u8 = 0xb0;
/// In the modem status: the ring indicator, of which only the end is a change.
const RING: u8 = 1 << 6;

/// Why there is an interrupt, as the guest reads it, in the order of priorities.
const LINE_CAUSE: u8 = 0b0110;
const RECEIVED_CAUSE: u8 = 0b0100;
const TIMEOUT_CAUSE: u8 = 0b1100;
const EMPTY_CAUSE: u8 = 0b0010;
const MODEM_CAUSE: u8 = 0b0000;
const NO_CAUSE: u8 = 0b0001;

/// A character that was received, with the line status bits that came with it.
#[derive(Clone, Copy)]
struct Received {
    character: u8,
    errors: u8,
}

/// The state after a reset, but for the times.
pub(super) struct Registers {
    divisor: u16,
    interrupt_enable: u8,
    line_control: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    has_fifos: bool,
    /// How many characters are received before they interrupt.
    trigger: usize,
    received: Deque<Received, DEPTH>,
    overrun: bool,
    transmitted: Deque<u8, DEPTH>,
    /// The transmitter has become empty, and the guest has not been told by the interrupt identification.
    became_empty: bool,
    /// When a character was last received or read, in nanoseconds.
    touched: u64,
}

impl Registers {
    pub(super) const fn new() -> Self {
        Self {
            divisor: 1,
            interrupt_enable: 0,
            line_control: 0,
            modem_control: 0,
            modem_status: CONNECTED,
            scratch: 0,
            has_fifos: false,
            trigger: 1,
            received: Deque::new(),
            overrun: false,
            transmitted: Deque::new(),
            became_empty: false,
            touched: 0,
        }
    }

    /// Reads a register, from 0 to 7.
    pub(super) fn read(&mut self, register: u8, now: u64) -> u8 {
        let [low, high] = self.divisor.to_le_bytes();
        match register {
            DATA if self.line_control & DLAB != 0 => low,
            INTERRUPT_ENABLE if self.line_control & DLAB != 0 => high,
            DATA => {
                self.touched = now;
                self.received.pop_front().map_or(0, |received| received.character)
            }
            INTERRUPT_ENABLE => self.interrupt_enable,
            INTERRUPT_ID => {
                let cause = self.cause(now);
                if cause == EMPTY_CAUSE {
                    self.became_empty = false;
                }
                cause | if self.has_fifos { 0xc0 } else { 0 }
            }
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => {
                let status = self.line_status();
                self.overrun = false;
                if let Some(received) = self.received.front_mut() {
                    received.errors = 0;
                }
                status
            }
            MODEM_STATUS => {
                let status = self.modem_status;
                self.modem_status &= 0xf0;
                status
            }
            SCRATCH => self.scratch,
            _ => 0xff,
        }
    }

    /// Writes a register, from 0 to 7.
    pub(super) fn write(&mut self, register: u8, value: u8, now: u64) {
        let [low, high] = self.divisor.to_le_bytes();
        match register {
            DATA if self.line_control & DLAB != 0 => self.divisor = u16::from_le_bytes([value, high]),
            INTERRUPT_ENABLE if self.line_control & DLAB != 0 => self.divisor = u16::from_le_bytes([low, value]),
            DATA => self.transmit(value, now),
            INTERRUPT_ENABLE => {
                let enabled = value & !self.interrupt_enable;
                self.interrupt_enable = value & 0x0f;
                if enabled & ENABLE_EMPTY != 0 && self.transmitted.is_empty() {
                    self.became_empty = true;
                }
            }
            INTERRUPT_ID => self.control_fifos(value),
            LINE_CONTROL => {
                let begins = value & !self.line_control & BREAK != 0;
                self.line_control = value;
                if begins && self.is_looped_back() {
                    self.receive(0, BREAK_RECEIVED | FRAMING, now);
                }
            }
            MODEM_CONTROL => {
                self.modem_control = value & 0x1f;
                self.follow_modem_control();
            }
            SCRATCH => self.scratch = value,
            // Writes to the status registers are for the factory's tests.
            _ => {}
        }
    }

    fn transmit(&mut self, value: u8, now: u64) {
        self.became_empty = false;
        if self.is_looped_back() {
            self.receive(value, 0, now);
            self.became_empty = true;
            return;
        }
        // A guest that does not wait until there is room loses what it has written.
        if !self.has_fifos {
            self.transmitted.clear();
        }
        let _ = self.transmitted.push_back(value);
    }

    /// A character comes in.
    pub(super) fn receive(&mut self, character: u8, errors: u8, now: u64) {
        self.touched = now;
        if self.room() == 0 {
            self.overrun = true;
            // What was received last is lost, or without FIFOs what was received before it.
            if self.has_fifos {
                return;
            }
            self.received.clear();
        }
        let _ = self.received.push_back(Received { character, errors });
    }

    /// How many characters can be received.
    pub(super) fn room(&self) -> usize {
        self.depth().saturating_sub(self.received.len())
    }

    /// How many characters can be written before one is lost.
    pub(super) fn is_full(&self) -> bool {
        self.transmitted.len() >= self.depth()
    }

    fn depth(&self) -> usize {
        if self.has_fifos { DEPTH } else { 1 }
    }

    /// The characters to be sent, the oldest first, as far as they are one slice.
    pub(super) fn to_send(&self) -> &[u8] {
        self.transmitted.as_slices().0
    }

    /// So many characters were sent.
    pub(super) fn sent(&mut self, count: usize) {
        for _ in 0..count.min(DEPTH) {
            self.transmitted.pop_front();
        }
        self.became_empty |= count != 0 && self.transmitted.is_empty();
    }

    fn control_fifos(&mut self, value: u8) {
        let enable = value & 1 != 0;
        let changes = enable != self.has_fifos;
        self.has_fifos = enable;
        if changes || enable && value & 1 << 1 != 0 {
            self.received.clear();
        }
        if (changes || enable && value & 1 << 2 != 0) && !self.transmitted.is_empty() {
            self.transmitted.clear();
            self.became_empty = true;
        }
        // Without FIFOs the other bits are not programmed.
        if enable {
            self.trigger = match value >> 6 {
                0 => 1,
                1 => 4,
                2 => 8,
                _ => 14,
            };
        }
    }

    pub(super) fn is_looped_back(&self) -> bool {
        self.modem_control & LOOPBACK != 0
    }

    /// In loopback the outputs of the modem control are the inputs of the modem status: each change of an input is noted, of the ring
    /// indicator its end.
    fn follow_modem_control(&mut self) {
        let control = self.modem_control;
        let inputs = match self.is_looped_back() {
            // Request to send is clear to send, data terminal ready is data set ready, and so on.
            true => (control & 0b10) << 3 | (control & 0b01) << 5 | (control & 0b1100) << 4,
            false => CONNECTED,
        };
        let changed = (self.modem_status ^ inputs) & !(inputs & RING) & 0xf0;
        self.modem_status = inputs | (self.modem_status & 0x0f) | changed >> 4;
    }

    fn line_status(&self) -> u8 {
        let first = self.received.front().map_or(0, |received| READY | received.errors);
        let overrun = if self.overrun { OVERRUN } else { 0 };
        let empty = if self.transmitted.is_empty() { EMPTY } else { 0 };
        let has_errors = self.has_fifos && self.received.iter().any(|received| received.errors != 0);
        first | overrun | empty | if has_errors { ERROR_IN_FIFO } else { 0 }
    }

    /// The most important cause of an interrupt.
    fn cause(&self, now: u64) -> u8 {
        let enabled = |bit| self.interrupt_enable & bit != 0;
        let trigger = if self.has_fifos { self.trigger } else { 1 };
        let errors = OVERRUN | BREAK_RECEIVED | FRAMING;
        match () {
            () if enabled(ENABLE_LINE) && self.line_status() & errors != 0 => LINE_CAUSE,
            () if enabled(ENABLE_RECEIVED) && self.received.len() >= trigger => RECEIVED_CAUSE,
            () if self.times_out_at().is_some_and(|time| time <= now) => TIMEOUT_CAUSE,
            () if enabled(ENABLE_EMPTY) && self.became_empty => EMPTY_CAUSE,
            () if enabled(ENABLE_MODEM) && self.modem_status & 0x0f != 0 => MODEM_CAUSE,
            () => NO_CAUSE,
        }
    }

    pub(super) fn interrupts(&self, now: u64) -> bool {
        self.cause(now) != NO_CAUSE
    }

    /// When the characters in the receiver's FIFO interrupt although they are fewer than the trigger level: four characters' time
    /// after the last one was received or read.
    pub(super) fn times_out_at(&self) -> Option<u64> {
        let waits = self.has_fifos && self.interrupt_enable & ENABLE_RECEIVED != 0 && !self.received.is_empty();
        waits.then(|| self.touched.saturating_add(4_u64.saturating_mul(self.character_time())))
    }

    /// The time of a character on the line, in nanoseconds: start, data, parity and stop bits at 1.8432 MHz / 16 / divisor.
    fn character_time(&self) -> u64 {
        let control = self.line_control;
        let data = 5 + u64::from(control & 0b11);
        let bits = 1 + data + u64::from(control & PARITY != 0) + if control & STOP != 0 { 2 } else { 1 };
        bits.saturating_mul(self.divisor.max(1).into()).saturating_mul(16_000_000_000) / u64::from(CLOCK)
    }
}

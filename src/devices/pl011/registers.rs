//! The registers of a PL011, without what is at the other end of the line.
//!
//! Names, bits and values after reset are those of the PrimeCell UART (PL011) Technical Reference Manual, Arm DDI 0183, chapter 3.

use heapless::Deque;

/// How many characters a FIFO holds.
pub(super) const DEPTH: usize = 16;
/// How far apart registers are, in bytes.
pub(super) const REGISTER_SIZE: usize = 4;

/// Offsets of the registers: data, receive status, flags, IrDA, baud rate, line control, control, FIFO levels, interrupts, DMA.
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
/// The first of the eight registers that identify it, one byte each.
const ID: u64 = 0xfe0;

/// Part 0x011 of Arm's, revision 1; and the class of all PrimeCells.
const IDS: [u8; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// With a character that was received: framing, parity and break errors, and that one after it was lost.
const BREAK_RECEIVED: u16 = 0b101 << 8;
const OVERRUN: u16 = 1 << 11;

/// Flags.
const CTS: u16 = 1 << 0;
const DSR: u16 = 1 << 1;
const DCD: u16 = 1 << 2;
const BUSY: u16 = 1 << 3;
const RECEIVER_EMPTY: u16 = 1 << 4;
const TRANSMITTER_FULL: u16 = 1 << 5;
const RECEIVER_FULL: u16 = 1 << 6;
const TRANSMITTER_EMPTY: u16 = 1 << 7;
const RI: u16 = 1 << 8;
/// Modem lines without loopback: another machine is there and ready.
const CONNECTED: u16 = CTS | DSR | DCD;

/// Line control.
const BREAK: u8 = 1 << 0;
const FIFOS: u8 = 1 << 4;

/// Control.
const LOOPBACK: u16 = 1 << 7;
const TRANSMITS: u16 = 1 << 8;
const RECEIVES: u16 = 1 << 9;
const DTR: u16 = 1 << 10;
const RTS: u16 = 1 << 11;
const OUT1: u16 = 1 << 12;
const OUT2: u16 = 1 << 13;
const CONTROL_BITS: u16 = 0xff87;

/// Interrupts.
const RI_CHANGED: u16 = 1 << 0;
const CTS_CHANGED: u16 = 1 << 1;
const DCD_CHANGED: u16 = 1 << 2;
const DSR_CHANGED: u16 = 1 << 3;
const RECEIVED: u16 = 1 << 4;
const TRANSMITTED: u16 = 1 << 5;
const TIMED_OUT: u16 = 1 << 6;
const OVERRAN: u16 = 1 << 10;
const INTERRUPTS: u16 = 0x07ff;
/// The errors of a character, framing first, and how far below their bits in the data register these are.
const ERRORS: u16 = 0b111 << 7;
const ERROR_SHIFT: u32 = 1;

/// The state after a reset, but for the time.
pub(super) struct Registers {
    /// Characters as the data register has them: with their errors.
    received: Deque<u16, DEPTH>,
    transmitted: Deque<u8, DEPTH>,
    /// The receive status: the errors of the character that was read last.
    errors: u8,
    /// A character was lost after the last of those that were received.
    overrun: bool,
    irda: u8,
    /// The divisor in whole and in 64ths, and both together as they were when the line control was written.
    whole: u16,
    fraction: u8,
    divisor: u32,
    line_control: u8,
    control: u16,
    levels: u8,
    mask: u16,
    raw: u16,
    dma: u8,
    modem: u16,
    /// When a character was last received, in nanoseconds, if the time-out of the receiver is to come.
    waits_since: Option<u64>,
}

impl Registers {
    pub(super) const fn new() -> Self {
        Self {
            received: Deque::new(),
            transmitted: Deque::new(),
            errors: 0,
            overrun: false,
            irda: 0,
            whole: 0,
            fraction: 0,
            divisor: 0,
            line_control: 0,
            control: TRANSMITS | RECEIVES,
            levels: 0b01_0010,
            mask: 0,
            raw: 0,
            dma: 0,
            modem: CONNECTED,
            waits_since: None,
        }
    }

    /// Reads the register at an offset.
    pub(super) fn read(&mut self, register: u64) -> u32 {
        let value = match register {
            DR => self.read_data(),
            RSR => self.errors.into(),
            FR => self.flags(),
            ILPR => self.irda.into(),
            IBRD => self.whole,
            FBRD => self.fraction.into(),
            LCR_H => self.line_control.into(),
            CR => self.control,
            IFLS => self.levels.into(),
            IMSC => self.mask,
            RIS => self.raw,
            MIS => self.raw & self.mask,
            DMACR => self.dma.into(),
            ID.. => {
                let number = usize::try_from(register - ID).unwrap_or(usize::MAX) / REGISTER_SIZE;
                IDS.get(number).copied().unwrap_or(0).into()
            }
            _ => 0,
        };
        value.into()
    }

    /// Writes the register at an offset.
    pub(super) fn write(&mut self, register: u64, value: u16, now: u64) {
        let [low, _] = value.to_le_bytes();
        match register {
            DR => self.transmit(low),
            RSR => self.errors = 0,
            ILPR => self.irda = low,
            IBRD => self.whole = value,
            FBRD => self.fraction = low & 0x3f,
            LCR_H => {
                let begins = low & !self.line_control & BREAK != 0;
                self.line_control = low;
                self.divisor = u32::from(self.whole) << 6 | u32::from(self.fraction);
                if begins && self.is_looped_back() {
                    self.receive(BREAK_RECEIVED, now);
                }
            }
            CR => {
                self.control = value & CONTROL_BITS;
                self.follow_control();
            }
            IFLS => self.levels = low & 0x3f,
            IMSC => self.mask = value & INTERRUPTS,
            ICR => self.raw &= !value,
            DMACR => self.dma = low & 0x07,
            _ => {}
        }
    }

    fn read_data(&mut self) -> u16 {
        let character = self.received.pop_front().unwrap_or(0);
        let overrun = if core::mem::take(&mut self.overrun) { OVERRUN } else { 0 };
        let [_, errors] = (character | overrun).to_le_bytes();
        self.errors = errors;
        if self.received.len() < self.receive_trigger() {
            self.raw &= !RECEIVED;
        }
        if self.received.is_empty() {
            self.raw &= !TIMED_OUT;
            self.waits_since = None;
        }
        character | overrun
    }

    fn flags(&self) -> u16 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        self.modem
            | bit(!self.transmitted.is_empty(), BUSY)
            | bit(self.received.is_empty(), RECEIVER_EMPTY)
            | bit(self.transmitted.len() >= self.depth(), TRANSMITTER_FULL)
            | bit(self.room() == 0, RECEIVER_FULL)
            | bit(self.transmitted.is_empty(), TRANSMITTER_EMPTY)
    }

    fn transmit(&mut self, character: u8) {
        // A guest that does not wait until there is room loses what it writes.
        if self.transmitted.len() < self.depth() {
            let _ = self.transmitted.push_back(character);
        }
        if self.transmitted.len() > self.transmit_trigger() {
            self.raw &= !TRANSMITTED;
        }
    }

    /// A character comes in, with its errors.
    pub(super) fn receive(&mut self, character: u16, now: u64) {
        if self.room() == 0 {
            self.overrun = true;
            self.raw |= OVERRAN;
            let [_, errors] = OVERRUN.to_le_bytes();
            self.errors |= errors;
            return;
        }
        let _ = self.received.push_back(character);
        self.raw |= character >> ERROR_SHIFT & ERRORS;
        if self.received.len() >= self.receive_trigger() {
            self.raw |= RECEIVED;
        }
        self.waits_since = Some(now);
    }

    fn depth(&self) -> usize {
        if self.line_control & FIFOS != 0 { DEPTH } else { 1 }
    }

    fn room(&self) -> usize {
        self.depth().saturating_sub(self.received.len())
    }

    /// How many characters the receiver takes from the line.
    pub(super) fn takes(&self) -> usize {
        if self.control & RECEIVES != 0 { self.room() } else { 0 }
    }

    /// How many characters interrupt when they have been received.
    fn receive_trigger(&self) -> usize {
        if self.line_control & FIFOS != 0 { level(self.levels >> 3) } else { 1 }
    }

    /// How many characters interrupt when they are left to be sent.
    fn transmit_trigger(&self) -> usize {
        if self.line_control & FIFOS != 0 { level(self.levels) } else { 0 }
    }

    /// The characters to be sent, the oldest first, as far as they are one slice.
    pub(super) fn to_send(&self) -> &[u8] {
        if self.control & TRANSMITS != 0 { self.transmitted.as_slices().0 } else { &[] }
    }

    /// So many characters were sent.
    pub(super) fn sent(&mut self, count: usize) {
        for _ in 0..count.min(DEPTH) {
            self.transmitted.pop_front();
        }
        if count != 0 && self.transmitted.len() <= self.transmit_trigger() {
            self.raw |= TRANSMITTED;
        }
    }

    pub(super) fn is_looped_back(&self) -> bool {
        self.control & LOOPBACK != 0
    }

    /// Receives what there is to be sent.
    pub(super) fn loop_back(&mut self, now: u64) {
        while let Some(character) = self.to_send().first().copied() {
            self.sent(1);
            if self.control & RECEIVES != 0 {
                self.receive(character.into(), now);
            }
        }
    }

    /// In loopback the outputs of the modem control are the modem's lines. Each change of a line is an interrupt.
    fn follow_control(&mut self) {
        let control = self.control;
        let bit = |output, line| if control & output != 0 { line } else { 0 };
        let lines = match self.is_looped_back() {
            true => bit(RTS, CTS) | bit(DTR, DSR) | bit(OUT1, DCD) | bit(OUT2, RI),
            false => CONNECTED,
        };
        let changed = |line, interrupt| if (self.modem ^ lines) & line != 0 { interrupt } else { 0 };
        self.raw |=
            changed(CTS, CTS_CHANGED) | changed(DSR, DSR_CHANGED) | changed(DCD, DCD_CHANGED) | changed(RI, RI_CHANGED);
        self.modem = lines;
    }

    /// Whether the combined interrupt is asserted.
    pub(super) fn interrupts(&self) -> bool {
        self.raw & self.mask != 0
    }

    /// The receiver times out, if it is due.
    pub(super) fn time_out(&mut self, now: u64, reference: u32) {
        if self.times_out_at(reference).is_some_and(|time| time <= now) {
            self.raw |= TIMED_OUT;
            self.waits_since = None;
        }
    }

    /// When the receiver times out: the time of 32 bits on the line after the last character that was received, if any is left. The
    /// time of a bit is 16 periods of the reference clock, which is given in Hz, by the divisor.
    pub(super) fn times_out_at(&self, reference: u32) -> Option<u64> {
        let time =
            u64::from(self.divisor.max(64)).saturating_mul(32 * 16 * 1_000_000_000 / 64) / u64::from(reference.max(1));
        self.waits_since.map(|since| since.saturating_add(time))
    }
}

/// The trigger level that a code of three bits says, in eighths of the FIFO: one, two, four, six or seven.
const fn level(code: u8) -> usize {
    DEPTH / 8
        * match code & 0b111 {
            0 => 1,
            1 => 2,
            2 => 4,
            3 => 6,
            _ => 7,
        }
}

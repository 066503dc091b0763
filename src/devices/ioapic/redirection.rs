//! The lines of an IOAPIC: what asserts them, and where their interrupts go.

use crate::address::GuestAddress;
use crate::interrupt::Message;

/// What is in a redirection table entry (Intel 82093AA data sheet, 290566, 3.2.4).
const VECTOR: u64 = 0xff;
const DELIVERY_MODE: u64 = 0b111 << 8;
/// The highest delivery mode that is ended by the processor: fixed, and lowest priority.
const LOWEST_PRIORITY: u64 = 0b001 << 8;
const LOGICAL_DESTINATION: u64 = 1 << 11;
/// The interrupt is to be sent still.
const SEND_PENDING: u64 = 1 << 12;
/// The interrupt was sent, and has not ended: of level-triggered lines alone.
const REMOTE_IRR: u64 = 1 << 14;
const TRIGGERED_BY_LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const DESTINATION: u64 = 0xff << 56;
/// What a guest can write of each half.
const WRITABLE: [u64; 2] = [0x0001_afff, DESTINATION];

/// In the data of a message: asserted.
const ASSERT: u64 = 1 << 14;

/// Where the interrupts of a line of an [`Ioapic`](super::Ioapic) go, and how the line is triggered, as the guest has programmed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redirection(u64);

impl Redirection {
    const RESET: Self = Self(MASKED);

    const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// The message by which the line interrupts (Intel SDM vol. 3A, 11.11), and whether the line is masked.
    pub const fn message(self) -> Message {
        let address = 0xfee0_0000 | (self.0 & DESTINATION) >> 44 | (self.0 & LOGICAL_DESTINATION) >> 9;
        let level = if self.is_level_triggered() { TRIGGERED_BY_LEVEL } else { 0 };
        let data = self.0 & (VECTOR | DELIVERY_MODE) | level | ASSERT;
        Message { address: GuestAddress(address), data: data as u32, masked: self.has(MASKED) }
    }

    /// The vector of the line's interrupts.
    pub const fn vector(self) -> u8 {
        (self.0 & VECTOR) as u8
    }

    /// Whether an interrupt of the line lasts until the guest ends it. SMI, NMI, INIT and ExtINT are never so, whatever the guest
    /// has programmed (82093AA data sheet, 3.2.4, delivery mode).
    pub const fn is_level_triggered(self) -> bool {
        self.has(TRIGGERED_BY_LEVEL) && self.0 & DELIVERY_MODE <= LOWEST_PRIORITY
    }
}

/// An interrupt that is on its way to the local APICs.
#[derive(Clone, Copy)]
pub(super) struct Sending {
    pub(super) message: Message,
    /// Which of the line's interrupts it is.
    number: u16,
}

/// A line.
#[derive(Clone, Copy)]
pub(super) struct Pin {
    entry: Redirection,
    asserted: bool,
    /// An edge was seen, and is to be sent.
    edge: bool,
    /// How many changes of the entry are being told to the embedder. Nothing is sent meanwhile.
    untold: u16,
    /// How many interrupts were sent.
    sent: u16,
}

impl Pin {
    pub(super) const RESET: Self = Self { entry: Redirection::RESET, asserted: false, edge: false, untold: 0, sent: 0 };

    pub(super) const fn redirection(&self) -> Redirection {
        self.entry
    }

    /// Masks the line, as after power-on. What asserts it goes on to.
    pub(super) const fn reset(&mut self) {
        (self.entry, self.edge) = (Redirection::RESET, false);
    }

    /// Whether an interrupt is to be sent.
    pub(super) const fn is_due(&self) -> bool {
        let wanted = match self.entry.is_level_triggered() {
            true => self.asserted && !self.entry.has(REMOTE_IRR),
            false => self.edge,
        };
        wanted && !self.entry.has(MASKED)
    }

    /// One half of the entry as the guest reads it.
    pub(super) const fn read(&self, is_upper: bool) -> u32 {
        let entry = if self.is_due() { self.entry.0 | SEND_PENDING } else { self.entry.0 };
        (if is_upper { entry >> 32 } else { entry }) as u32
    }

    /// The guest writes one half of the entry, which the embedder is to be told.
    pub(super) const fn write(&mut self, is_upper: bool, value: u32) {
        let [lower, upper] = WRITABLE;
        let (writable, value) = if is_upper { (upper, (value as u64) << 32) } else { (lower, value as u64) };
        self.entry.0 = self.entry.0 & !writable | value & writable;
        if !self.entry.is_level_triggered() {
            self.entry.0 &= !REMOTE_IRR;
        }
        // An edge on a masked line is not held pending.
        self.edge &= !self.entry.has(MASKED) && !self.entry.is_level_triggered();
        self.begin_telling();
    }

    pub(super) const fn begin_telling(&mut self) {
        self.untold = self.untold.saturating_add(1);
    }

    pub(super) const fn end_telling(&mut self) {
        self.untold = self.untold.saturating_sub(1);
    }

    /// Asserts the line, or takes the assertion back.
    pub(super) const fn drive(&mut self, asserted: bool) {
        if asserted && !self.asserted {
            self.pulse();
        }
        self.asserted = asserted;
    }

    /// An edge, which is ignored where the line is masked (82093AA data sheet, 3.2.4, interrupt mask).
    pub(super) const fn pulse(&mut self) {
        self.edge |= !self.entry.has(MASKED) && !self.entry.is_level_triggered();
    }

    /// An interrupt with this vector has ended. Whether it was one of this line.
    pub(super) const fn end(&mut self, vector: u8) -> bool {
        let ends = self.entry.vector() == vector && self.entry.has(REMOTE_IRR);
        if ends {
            self.entry.0 &= !REMOTE_IRR;
        }
        ends
    }

    /// Begins to send the line's interrupt, if one is due. It counts as sent, because its end may come before the call that sends it
    /// has returned.
    pub(super) const fn begin_sending(&mut self) -> Option<Sending> {
        if !self.is_due() || self.untold != 0 {
            return None;
        }
        self.edge = false;
        if self.entry.is_level_triggered() {
            self.entry.0 |= REMOTE_IRR;
        }
        self.sent = self.sent.wrapping_add(1);
        Some(Sending { message: self.entry.message(), number: self.sent })
    }

    /// The local APICs have refused an interrupt: it is to be sent once more, unless the line has sent another since.
    pub(super) const fn refuse(&mut self, sending: Sending) {
        if self.sent != sending.number {
            return;
        }
        if self.entry.is_level_triggered() {
            self.entry.0 &= !REMOTE_IRR;
        } else {
            self.edge = !self.entry.has(MASKED);
        }
    }
}

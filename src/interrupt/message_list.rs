//! The messages of a device: where each is written, whether it is masked, and whether it is still to be sent.
//!
//! All of it is under one small lock, which is not held while the controller is called. A caller *takes* a message under the
//! lock: its pending bit is cleared, and the caller sends what the message was at that moment. So each signal is sent by one
//! caller, and none waits for another. A message that the controller does not take is pending again, unless it was withdrawn
//! meanwhile: its number of withdrawals says so.

use core::mem;

use super::controller::InterruptError;
use super::line::IrqLine;
use super::messages::Message;
use crate::address::GuestAddress;
use crate::sync::{Mutex, const_fn};

/// The messages of a device, in an array, or as a slice of any length: so that the code exists once.
pub(crate) struct MessageList<'d, E: ?Sized>(Mutex<State<'d, E>>);

struct State<'d, E: ?Sized> {
    irq: IrqLine<'d>,
    control: Control,
    /// A message may be pending that could be sent.
    owed: bool,
    entries: E,
}

/// What decides over all messages, beside the mask of each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) enabled: bool,
    pub(crate) masked: bool,
    /// They are held back for another reason than a mask.
    pub(crate) held: bool,
}

impl Control {
    const RESET: Self = Self { enabled: false, masked: false, held: false };

    const fn is_open(self) -> bool {
        self.enabled && !self.masked && !self.held
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Entry {
    message: Message,
    /// How often it was withdrawn: a caller that has taken it compares.
    withdrawals: u16,
    pending: bool,
}

/// The dwords of a message in the table of MSI-X (PCI Local Bus 3.0, 6.8.2).
const TABLE_DWORDS: usize = 4;
/// The bits of an address that can be written (6.8.2.6).
const ADDRESS_BITS: u32 = !0b11;
/// In the vector control: the message is masked. Its other bits are reserved, and read 0 (6.8.2.9).
const MASK: u32 = 1 << 0;

impl Entry {
    /// After power-on: masked (6.8.2.9).
    pub(super) const RESET: Self =
        Self { message: Message { address: GuestAddress(0), data: 0, masked: true }, withdrawals: 0, pending: false };

    /// Whether it is to be sent, as far as all are not held back.
    fn is_due(&self) -> bool {
        self.pending && !self.message.masked
    }

    fn withdraw(&mut self) {
        self.pending = false;
        self.withdrawals = self.withdrawals.wrapping_add(1);
    }

    /// A dword of the table.
    fn dword(&self, number: usize) -> u32 {
        let Message { address, data, masked } = self.message;
        match number {
            0 => address.0 as u32,
            1 => (address.0 >> 32) as u32,
            2 => data,
            _ => masked.into(),
        }
    }

    fn set_dword(&mut self, number: usize, value: u32) {
        let Message { address, data, masked } = &mut self.message;
        match number {
            0 => address.0 = address.0 >> 32 << 32 | u64::from(value & ADDRESS_BITS),
            1 => address.0 = u64::from(value) << 32 | address.0 & u64::from(u32::MAX),
            2 => *data = value,
            _ => *masked = value & MASK != 0,
        }
    }
}

/// What a caller has taken: it sends the message as it was then.
struct Taken<'d> {
    irq: IrqLine<'d>,
    number: usize,
    message: Message,
    withdrawals: u16,
}

impl<'d> State<'d, [Entry]> {
    /// Takes a message, if it is pending and may be sent.
    fn take(&mut self, number: usize) -> Option<Taken<'d>> {
        let entry = self.entries.get_mut(number).filter(|entry| self.control.is_open() && entry.is_due())?;
        entry.pending = false;
        Some(Taken { irq: self.irq, number, message: entry.message, withdrawals: entry.withdrawals })
    }

    /// Takes the first message from number `from` on that is pending and may be sent, and is not number `except`.
    fn take_next(&mut self, from: usize, except: Option<usize>) -> Option<Taken<'d>> {
        let mut rest = self.entries.iter().enumerate().skip(from);
        let (next, _) = rest.find(|(number, entry)| entry.is_due() && Some(*number) != except)?;
        self.take(next)
    }

    fn change(&mut self, number: usize, act: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(number) {
            act(entry);
            self.owed |= entry.is_due();
        }
    }

    fn change_control(&mut self, act: impl FnOnce(&mut Control)) {
        let old = self.control;
        act(&mut self.control);
        self.owed |= self.control.is_open() && self.control != old;
    }

    /// A dword of the array of pending bits, if it has that many: its size is a multiple of 8 bytes (PCI Local Bus 3.0, 6.8.2.10).
    fn pending_dword(&self, dword: usize) -> Option<u32> {
        let first = dword.checked_mul(32)?;
        if first >= self.entries.len().checked_next_multiple_of(64)? {
            return None;
        }
        let entries = self.entries.iter().skip(first).take(32).enumerate();
        Some(entries.fold(0, |bits, (bit, entry)| bits | u32::from(entry.pending) << bit))
    }
}

/// A message that is being sent. Dropping it before it was sent makes the message pending again: the controller has refused
/// it, or has unwound.
struct Sending<'a, 'd> {
    list: &'a MessageList<'d, [Entry]>,
    taken: Taken<'d>,
    sent: bool,
}

impl Sending<'_, '_> {
    fn send(mut self) -> Result<(), InterruptError> {
        let Message { address, data, .. } = self.taken.message;
        self.taken.irq.message(address, data)?;
        self.sent = true;
        Ok(())
    }
}

impl Drop for Sending<'_, '_> {
    fn drop(&mut self) {
        if self.sent {
            return;
        }
        let mut state = self.list.0.lock();
        let entry = state.entries.get_mut(self.taken.number);
        if let Some(entry) = entry.filter(|entry| entry.withdrawals == self.taken.withdrawals) {
            entry.pending = true;
        }
        // What was owed when this one was taken may be left too.
        state.owed = true;
    }
}

impl<'d, const N: usize> MessageList<'d, [Entry; N]> {
    const_fn! {
        pub(super) fn new(entries: [Entry; N]) -> Self {
            let irq = IrqLine::DISCONNECTED;
            Self(Mutex::new(State { irq, control: Control::RESET, owed: false, entries }))
        }
    }
}

impl<'d> MessageList<'d, [Entry]> {
    pub(super) fn connect(&self, irq: IrqLine<'d>) {
        self.0.lock().irq = irq;
    }

    pub(super) fn signal(&self, number: usize) -> Result<(), InterruptError> {
        let (taken, owed) = {
            let mut state = self.0.lock();
            state.entries.get_mut(number).ok_or(InterruptError::NoMessage)?.pending = true;
            (state.take(number), mem::take(&mut state.owed))
        };
        let outcome = taken.map_or(Ok(()), |taken| self.send(taken));
        if owed {
            self.send_pending(Some(number));
        }
        outcome
    }

    fn send(&self, taken: Taken<'d>) -> Result<(), InterruptError> {
        Sending { list: self, taken, sent: false }.send()
    }

    /// Sends what is pending and may be sent, in the order of the numbers, each message once; `except` for one.
    fn send_pending(&self, except: Option<usize>) {
        let mut from = 0;
        loop {
            // The lock is held in this line alone.
            let taken = self.0.lock().take_next(from, except);
            let Some(taken) = taken else { return };
            from = taken.number.saturating_add(1);
            // What is refused is pending again.
            let _ = self.send(taken);
        }
    }

    /// Sends what a change allows to send, and what the controller has refused before.
    pub(crate) fn settle(&self) {
        let owed = mem::take(&mut self.0.lock().owed);
        if owed {
            self.send_pending(None);
        }
    }

    /// A message is pending, and nothing is sent yet: [`settle`](Self::settle) does.
    #[cfg(feature = "devices")]
    pub(crate) fn mark(&self, number: usize) {
        self.0.lock().change(number, |entry| entry.pending = true);
    }

    pub(super) fn withdraw(&self, number: usize) {
        if let Some(entry) = self.0.lock().entries.get_mut(number) {
            entry.withdraw();
        }
    }

    pub(super) fn is_pending(&self, number: usize) -> bool {
        self.0.lock().entries.get(number).is_some_and(|entry| entry.pending)
    }

    pub(super) fn get(&self, number: usize) -> Option<Message> {
        self.0.lock().entries.get(number).map(|entry| entry.message)
    }

    /// Changes a message, and sends nothing yet: [`settle`](Self::settle) does.
    pub(crate) fn set(&self, number: usize, message: Message) {
        self.0.lock().change(number, |entry| entry.message = message);
    }

    pub(crate) fn control(&self) -> Control {
        self.0.lock().control
    }

    /// Changes what decides over all messages, and sends nothing yet: [`settle`](Self::settle) does.
    pub(crate) fn change_control(&self, act: impl FnOnce(&mut Control)) {
        self.0.lock().change_control(act);
    }

    pub(super) fn load_table(&self, offset: u64, data: &mut [u8]) {
        let state = self.0.lock();
        load(offset, data, |dword| {
            let entry = state.entries.get(dword / TABLE_DWORDS)?;
            Some(entry.dword(dword % TABLE_DWORDS))
        });
    }

    /// Writes the table, and sends nothing yet: [`settle`](Self::settle) does.
    pub(super) fn store_table(&self, offset: u64, data: &[u8]) {
        let Some(first) = first_dword(offset, data) else { return };
        let mut state = self.0.lock();
        for (number, bytes) in data.as_chunks().0.iter().enumerate() {
            let (dword, value) = (first.saturating_add(number), u32::from_le_bytes(*bytes));
            state.change(dword / TABLE_DWORDS, |entry| entry.set_dword(dword % TABLE_DWORDS, value));
        }
    }

    pub(crate) fn load_pending(&self, offset: u64, data: &mut [u8]) {
        let state = self.0.lock();
        load(offset, data, |dword| state.pending_dword(dword));
    }

    /// The state after power-on. The handle stays.
    pub(crate) fn reset(&self) {
        let mut state = self.0.lock();
        (state.control, state.owed) = (Control::RESET, false);
        for entry in &mut state.entries {
            entry.withdraw();
            entry.message = Entry::RESET.message;
        }
    }
}

/// The number of the dword at which an access begins, if it is one of whole dwords.
fn first_dword(offset: u64, data: &[u8]) -> Option<usize> {
    let is_whole = offset.is_multiple_of(4) && data.len().is_multiple_of(4);
    is_whole.then(|| usize::try_from(offset / 4).ok()).flatten()
}

/// Reads dwords, where there are any.
fn load(offset: u64, data: &mut [u8], value: impl Fn(usize) -> Option<u32>) {
    let Some(first) = first_dword(offset, data) else { return };
    for (number, bytes) in data.as_chunks_mut().0.iter_mut().enumerate() {
        if let Some(value) = value(first.saturating_add(number)) {
            *bytes = u32::to_le_bytes(value);
        }
    }
}

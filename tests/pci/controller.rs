//! An interrupt controller that keeps the levels of its lines and the messages, and a device that interrupts by its function.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use vm_device::{Gsi, InterruptController, InterruptError, Rejected, Resources};

use super::machine::*;

#[derive(Default)]
pub(crate) struct Controller {
    /// A bit for each line that is asserted.
    levels: AtomicU32,
    changes: Mutex<Vec<(u32, bool)>>,
    messages: Mutex<Vec<(u64, u32)>>,
    refuses: AtomicBool,
}

impl Controller {
    /// The lines that are asserted, a bit for each.
    pub(crate) fn asserted(&self) -> u32 {
        self.levels.load(SeqCst)
    }

    /// What has changed of the levels since the last call.
    pub(crate) fn changes(&self) -> Vec<(u32, bool)> {
        std::mem::take(&mut *self.changes.lock().unwrap())
    }

    /// The messages since the last call, address and data.
    pub(crate) fn messages(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *self.messages.lock().unwrap())
    }

    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, SeqCst);
    }

    fn answer(&self) -> Result<(), InterruptError> {
        if self.refuses.load(SeqCst) { Err(InterruptError::Refused) } else { Ok(()) }
    }
}

impl InterruptController for Controller {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        self.answer()?;
        match asserted {
            true => self.levels.fetch_or(1 << gsi.0, SeqCst),
            false => self.levels.fetch_and(!(1 << gsi.0), SeqCst),
        };
        self.changes.lock().unwrap().push((gsi.0, asserted));
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.answer()?;
        self.messages.lock().unwrap().push((address.0, data));
        Ok(())
    }
}

/// A function whose device does nothing but interrupt.
pub(crate) struct Card<'d>(pub Function<'d>);

impl Card<'_> {
    /// One with this pin, a message in its place, and 4 KiB of memory.
    pub(crate) fn with_pin(pin: u8) -> Self {
        let config = Config::new(0x1234, 1).bar(0, Bar::memory(0x1000)).interrupt_pin(pin);
        Self(Function::new(config).with_message(MSI as u8))
    }
}

impl<'d> Device<'d> for Card<'d> {
    fn name(&self) -> &str {
        "card"
    }
    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(7);
    }
    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.0.connect(resources, 0);
        Ok(())
    }
}

/// Where the capability MSI of a [`Card`] is, and of a serial port.
pub(crate) const MSI: u32 = 0x50;
pub(crate) const MSI_ENABLE: u32 = 1 << 16;
pub(crate) const BUS_MASTER: u32 = 4;
pub(crate) const INTERRUPT_DISABLE: u32 = 1 << 10;
pub(crate) const MESSAGE: (u64, u32) = (0xfee0_1000, 0x41);

/// Gives the message of function 0 of a device its address and data.
pub(crate) fn program_message(guest: Guest<'_>, device: u32) {
    guest.set(0, device, MSI + 4, MESSAGE.0 as u32);
    guest.set(0, device, MSI + 8, 0);
    guest.set(0, device, MSI + 0xc, MESSAGE.1);
}

/// All of memory, all ports, and the lines 0 to 23.
pub(crate) fn with_lines() -> SystemAllocator {
    everything().with_irqs(0, 23)
}

/// The bits of lines.
pub(crate) fn bits<const N: usize>(lines: [u32; N]) -> u32 {
    lines.into_iter().fold(0, |bits, line| bits | 1 << line)
}

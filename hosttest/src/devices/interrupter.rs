//! A device that interrupts when it is told to.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use spin::Mutex;
use vm_device::{Access, Device, GuestAddress, InterruptError, IrqLine, Rejected, Resources};

/// Written to offset 0: deassert the line.
pub const DEASSERT: u8 = 0;
/// Written to offset 0: assert the line.
pub const ASSERT: u8 = 1;
/// Written to offset 0: signal an edge.
pub const PULSE: u8 = 2;
/// Written to offset 0: send the message-signalled interrupt whose data is in the register at offset 4.
pub const MESSAGE: u8 = 3;

/// Where a message-signalled interrupt for processor 0 is written (Intel SDM vol. 3A, 11.11.1).
const MESSAGE_ADDRESS: GuestAddress = GuestAddress(0xfee0_0000);

/// Eight bytes of registers: a command at offset 0, which reads as 1 while the line is asserted by this device, and the data
/// of a message at offset 4.
pub struct Interrupter<'d> {
    name: &'static str,
    irq: Mutex<IrqLine<'d>>,
    asserted: AtomicU32,
    message: AtomicU32,
    refused: Mutex<Option<InterruptError>>,
    ends: AtomicU64,
}

impl<'d> Interrupter<'d> {
    /// One that is not connected yet.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            irq: Mutex::new(IrqLine::DISCONNECTED),
            asserted: AtomicU32::new(0),
            message: AtomicU32::new(0),
            refused: Mutex::new(None),
            ends: AtomicU64::new(0),
        }
    }

    /// The last error that its interrupt line gave.
    pub fn refused(&self) -> Option<InterruptError> {
        *self.refused.lock()
    }

    /// How many interrupts of its line have ended, as far as it was told.
    pub fn ends(&self) -> u64 {
        self.ends.load(Ordering::Relaxed)
    }
}

impl<'d> Device<'d> for Interrupter<'d> {
    fn name(&self) -> &str {
        self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        for (offset, register) in [(0, &self.asserted), (4, &self.message)] {
            access.load_at(offset, &register.load(Ordering::Acquire).to_le_bytes(), data);
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let irq = *self.irq.lock();
        let result = match (access.offset(), data) {
            (0, [DEASSERT]) => {
                self.asserted.store(0, Ordering::Release);
                irq.deassert()
            }
            (0, [ASSERT]) => {
                self.asserted.store(1, Ordering::Release);
                irq.assert()
            }
            (0, [PULSE]) => irq.pulse(),
            (0, [MESSAGE]) => irq.message(MESSAGE_ADDRESS, self.message.load(Ordering::Acquire)),
            (4, &[a, b, c, d]) => {
                self.message.store(u32::from_le_bytes([a, b, c, d]), Ordering::Release);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = result
            && error != InterruptError::Pending
        {
            *self.refused.lock() = Some(error);
        }
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        *self.irq.lock() = resources.irq(0);
        Ok(())
    }

    fn end_of_interrupt(&self, _: usize) {
        self.ends.fetch_add(1, Ordering::Relaxed);
    }

    /// It asserts nothing, and its registers are 0.
    fn reset(&self) {
        let irq = *self.irq.lock();
        self.message.store(0, Ordering::Release);
        if self.asserted.swap(0, Ordering::AcqRel) != 0
            && let Err(error) = irq.deassert()
            && error != InterruptError::Pending
        {
            *self.refused.lock() = Some(error);
        }
    }
}

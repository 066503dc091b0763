//! A device that interrupts by messages when it is told to.

use std::sync::atomic::{AtomicU32, Ordering};

use vm_device::{Access, Device, Messages, Rejected, Resources};

/// Where in the device's memory the table of MSI-X is.
pub const TABLE: u32 = 0;
/// Where its pending bits are.
pub const PENDING: u32 = 0x800;
/// Written with the number of a message of MSI-X: signal it.
pub const SIGNAL_MSIX: u64 = 0xc00;
/// Written with the number of a message of MSI: signal it.
pub const SIGNAL_MSI: u64 = 0xc04;

/// A page of memory: the table and the pending bits of MSI-X, and two registers that signal messages. It has `N` messages of MSI,
/// and as many of MSI-X.
pub struct Messenger<'d, const N: usize> {
    name: &'static str,
    msi: Messages<'d, N>,
    msix: Messages<'d, N>,
    signals: AtomicU32,
    refused: AtomicU32,
}

impl<'d, const N: usize> Messenger<'d, N> {
    /// One that is not connected yet.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            msi: Messages::new(),
            msix: Messages::new(),
            signals: AtomicU32::new(0),
            refused: AtomicU32::new(0),
        }
    }

    /// The messages of MSI.
    pub const fn msi(&self) -> &Messages<'d, N> {
        &self.msi
    }

    /// The messages of MSI-X.
    pub const fn msix(&self) -> &Messages<'d, N> {
        &self.msix
    }

    /// How many signals it was told to make.
    pub fn signals(&self) -> u32 {
        self.signals.load(Ordering::Relaxed)
    }

    /// How many of them gave an error.
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl<'d, const N: usize> Device<'d> for Messenger<'d, N> {
    fn name(&self) -> &str {
        self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        match access.offset() {
            offset if offset < PENDING.into() => self.msix.load_table(offset, data),
            offset => self.msix.load_pending(offset - u64::from(PENDING), data),
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let number = data.first_chunk().map_or(0, |number| u32::from_le_bytes(*number) as usize);
        let result = match access.offset() {
            SIGNAL_MSIX => self.msix.signal(number),
            SIGNAL_MSI => self.msi.signal(number),
            offset => return self.msix.store_table(offset, data),
        };
        self.signals.fetch_add(1, Ordering::Relaxed);
        if result.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.msi.connect(resources.irq(0));
        self.msix.connect(resources.irq(0));
        Ok(())
    }
}

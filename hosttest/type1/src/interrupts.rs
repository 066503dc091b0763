//! The interrupt lines of the guest, delivered by the processor's virtual interrupts.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vm_device::{Gsi, GuestAddress, InterruptController, InterruptError};

/// The lines that devices of the manager drive, all level-triggered: the guest is interrupted while one is asserted and
/// its interrupt flag is set, as by the INTR pin of a processor. So nothing has to be told when its handler is done.
pub struct Lines {
    asserted: AtomicU32,
    routing: AtomicU64,
}

/// Where the vector of a line comes from.
#[derive(Clone, Copy)]
pub enum Routing {
    /// Line 0 has this vector, and the others follow.
    From(u8),
    /// The redirection table of the machine's IOAPIC, which the guest programs.
    Ioapic,
}

const IOAPIC_ROUTING: u64 = u64::MAX;

impl Lines {
    /// No line is asserted.
    pub const fn new() -> Self {
        Self { asserted: AtomicU32::new(0), routing: AtomicU64::new(0) }
    }

    /// Sets where vectors come from.
    pub fn route(&self, routing: Routing) {
        let word = match routing {
            Routing::From(vector) => vector.into(),
            Routing::Ioapic => IOAPIC_ROUTING,
        };
        self.routing.store(word, Ordering::Relaxed);
    }

    /// The vector of the lowest asserted line that has one.
    pub fn vector(&self) -> Option<u8> {
        let asserted = self.asserted.load(Ordering::Relaxed);
        (0..32).filter(|line| asserted & 1 << line != 0).find_map(|line| match self.routing.load(Ordering::Relaxed) {
            IOAPIC_ROUTING => ioapic_vector(line),
            first => Some(first as u8 + line as u8),
        })
    }
}

impl InterruptController for Lines {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let line = 1u32.checked_shl(gsi.0).ok_or(InterruptError::Refused)?;
        if asserted {
            self.asserted.fetch_or(line, Ordering::Relaxed);
        } else {
            self.asserted.fetch_and(!line, Ordering::Relaxed);
        }
        Ok(())
    }

    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }

    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }
}

/// The vector that the machine's IOAPIC has for a line, unless it masks it (82093AA IOAPIC datasheet, 3.2.4).
fn ioapic_vector(line: u32) -> Option<u8> {
    const SELECT: *mut u32 = 0xfec0_0000 as *mut u32;
    const WINDOW: *mut u32 = 0xfec0_0010 as *mut u32;
    const MASKED: u32 = 1 << 16;
    // SAFETY: the registers are mapped at their address, and the guest, which uses them too, does not run now. It finds the
    // selection as it left it.
    let entry = unsafe {
        let selected = SELECT.read_volatile();
        SELECT.write_volatile(0x10 + 2 * line);
        let entry = WINDOW.read_volatile();
        SELECT.write_volatile(selected);
        entry
    };
    (entry & MASKED == 0).then_some(entry as u8)
}

//! From the interrupt lines of the guest to vectors.

use core::sync::atomic::{AtomicU64, Ordering};

use super::controllers::Ioapic;

/// Where the vector of a line comes from.
#[derive(Clone, Copy)]
pub enum Routing {
    /// Line 0 has this vector, and the others follow.
    From(u8),
    /// The redirection table of the machine's IOAPIC, which the guest programs.
    Ioapic,
}

const IOAPIC_ROUTING: u64 = u64::MAX;

static ROUTING: AtomicU64 = AtomicU64::new(0);

/// Sets where vectors come from.
pub fn route(routing: Routing) {
    let word = match routing {
        Routing::From(vector) => vector.into(),
        Routing::Ioapic => IOAPIC_ROUTING,
    };
    ROUTING.store(word, Ordering::Relaxed);
}

/// The vector of the lowest asserted line that has one.
pub fn vector(asserted: u64) -> Option<u8> {
    (0..24).filter(|line| asserted & 1 << line != 0).find_map(|line| match ROUTING.load(Ordering::Relaxed) {
        IOAPIC_ROUTING => ioapic_vector(line),
        first => Some(first as u8 + line as u8),
    })
}

/// The vector that the machine's IOAPIC has for a line, unless it masks it (82093AA IOAPIC datasheet, 3.2.4).
fn ioapic_vector(line: u32) -> Option<u8> {
    const MASKED: u32 = 1 << 16;
    let entry = Ioapic.entry(line);
    (entry & MASKED == 0).then_some(entry as u8)
}

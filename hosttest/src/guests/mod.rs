//! The guests: what each does, and what its devices must have seen.

pub mod access;
pub mod doorbell;
pub mod hotplug;
pub mod interrupts;
pub mod random;
pub mod scenario;
pub mod string_io;
pub mod verdict;
pub mod watchdog;

use scenario::Scenario;

/// All guests but the one of the platform.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [access::ALL, string_io::ALL, interrupts::ALL, hotplug::ALL, doorbell::ALL, random::ALL, watchdog::ALL]
        .into_iter()
        .flatten()
}

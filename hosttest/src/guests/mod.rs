//! The guests: what each does, and what its devices must have seen.
//!
//! A guest is an entry in the list of its file: a [`Scenario`], whose function registers devices, runs an `extern "C" fn` of
//! its own file in ring 3 by `verdict::run_guest`, and compares what the devices saw. What the guest's code is written with is
//! in [`guest_side`](crate::guest_side). A new topic is a file, and a line in [`all`]. `hosttest list` and the tests find them
//! there.

pub mod access;
pub mod backed;
pub mod doorbell;
pub mod ends;
pub mod hotplug;
pub mod i8042;
pub mod interrupts;
pub mod ioapic;
pub mod messages;
pub mod moved;
pub mod owned;
pub mod pci;
pub mod pic;
pub mod pirq;
pub mod ports;
pub mod random;
mod recorded;
pub mod reset;
pub mod scenario;
pub mod serial;
pub mod shown;
pub mod string_io;
pub mod verdict;
pub mod watchdog;

use scenario::Scenario;

/// All guests but the one of the platform.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    let topics = [
        access::ALL,
        backed::ALL,
        string_io::ALL,
        interrupts::ALL,
        i8042::ALL,
        ends::ALL,
        ioapic::ALL,
        messages::ALL,
        hotplug::ALL,
        doorbell::ALL,
        moved::ALL,
        owned::ALL,
        pci::ALL,
        pic::ALL,
        pirq::ALL,
        ports::ALL,
        random::ALL,
        reset::ALL,
        serial::ALL,
        watchdog::ALL,
    ];
    topics.into_iter().flatten()
}

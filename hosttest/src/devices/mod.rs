//! Devices for guests to find, each a plain user of the crate.

pub mod eject;
pub mod interrupter;
pub mod messenger;
pub mod pci;
pub mod pin_card;
pub mod scratch;
pub mod stream;
pub mod verdict;
pub mod witness;

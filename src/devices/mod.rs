//! Chipset devices, each a plain user of the public interface: nothing in them names a capacity, and each can stand in a
//! `static`.

pub mod ioapic;
pub mod pc_interrupts;
pub mod pci;
pub mod pic;
pub mod time;
pub mod uart;

//! Chipset devices, each a plain user of the public interface: nothing in them names a capacity, and each can stand in a
//! `static`.

pub mod hpet;
pub mod ioapic;
mod output;
pub mod pc_interrupts;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod pm_timer;
pub mod rtc;
pub mod time;
pub mod uart;

//! Chipset devices, each a plain user of the public interface: nothing in them names a capacity, and each can stand in a
//! `static`.

pub mod hpet;
mod output;
pub mod pci;
pub mod pit;
pub mod pm_timer;
pub mod rtc;
pub mod time;
pub mod uart;

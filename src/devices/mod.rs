//! Chipset devices, each a plain user of the public interface: nothing in them names a capacity, and each can stand in a
//! `static`.
//!
//! A serial port or a host bridge is made with a name, because a machine may have several that a user tells apart. Each other device is
//! named for its kind.

pub mod debug_console;
pub mod exit_port;
pub mod fw_cfg;
pub mod hpet;
pub mod i8042;
pub mod ioapic;
mod line;
mod output;
pub mod pc_interrupts;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod pl011;
pub mod pm1;
pub mod pm_timer;
pub mod post;
pub mod reset_control;
pub mod rtc;
pub mod system_control;
pub mod time;
pub mod uart;

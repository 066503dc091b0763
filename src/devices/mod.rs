//! Chipset devices, each a plain user of the public interface: nothing in them names a capacity, and each can stand in a
//! `static`.

pub mod debug_console;
pub mod exit_port;
pub mod fw_cfg;
pub mod i8042;
mod line;
pub mod pci;
mod pin;
pub mod pl011;
pub mod pm1;
pub mod post;
pub mod reset_control;
pub mod system_control;
pub mod time;
pub mod uart;

//! Conventional PCI: a host bridge with both mechanisms of configuration, functions whose base address registers move the ranges
//! of their devices, and bridges whose windows the firmware programs.
//!
//! | type | what it is |
//! |---|---|
//! | [`HostBridge`] | configuration mechanism 1, the enhanced (memory-mapped) mechanism, and bus 0 |
//! | [`Function`] | a configuration space and the ranges that follow it, made of a [`Config`] with [`Bar`]s and [`Register`]s |
//! | [`Messages`](crate::Messages) | what a function with the capability MSI or MSI-X interrupts by ([`Function::with_msi`], [`Function::with_msix`]) |
//! | [`Bridge`] | a PCI-to-PCI bridge: a function, windows, and a bus behind it |
//! | [`Bus`] | the functions that are plugged in, each in a [`Slot`] |
//!
//! All of it can stand in statics. A device is written as any other: it implements [`Device`](crate::Device), is registered
//! with the [`requests`](Function::requests) of its function, and then the function is [plugged in](Bus::plug). The example is at
//! [`Function`].
//!
//! # What the guest's writes do to the address map
//!
//! - While the command register does not enable a space, the ranges in it are [unplaced](crate::RangeState::Unplaced): they have
//!   no address and are in nobody's way, whatever the registers hold (PCI Local Bus 3.0, 6.2.2).
//! - When it does, a range lies where its register says, or [waits](crate::RangeState::Waiting) for that place: because something
//!   else is there, because no window around it is open, or because a register is being sized by a write of all ones. It gets
//!   the place when that changes. So base address registers can be written in any order, through each other's places.
//! - A write to the command register, or of several registers at once, is one transaction.
//!
//! # Interrupts
//!
//! A function that interrupts by messages has the capability MSI, MSI-X, or both, each with [`Messages`](crate::Messages) of the
//! device. The guest enables one of them, by then without the pin: [`Function::may_use_pin`] tells the device, and so does
//! [`Messages::is_enabled`](crate::Messages::is_enabled), without the function. A device looks each time before it interrupts, and takes an
//! assertion of its pin back when it finds messages enabled.
//!
//! Messages are written by the function as a bus master. While the command register does not enable that
//! ([`Command::BUS_MASTER`]), they are pending.
//!
//! # What is locked
//!
//! No lock is held while ranges are moved, or messages sent. When several vCPUs write registers of one function at once, the map ends as the
//! registers do.

mod bar;
mod bridge;
mod bus;
mod capability;
mod config;
mod function;
mod host;
mod piix;
mod pin;
mod serial;
mod window;

pub use bar::Bar;
pub use bridge::Bridge;
pub use bus::{Bus, PlugError, Slot};
pub use capability::InBar;
pub use config::{Command, Config, Register, Requests};
pub use function::Function;
pub use host::HostBridge;
pub use pin::{Pin, PinLines};
pub use serial::Serial;

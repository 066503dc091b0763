//! Interrupts: the trait a VMM implements, and the handle a device keeps.
//!
//! A *line* is an input of the interrupt controller, named by its GSI (global system interrupt, ACPI 6.5, 5.2.13). A
//! line may have several *sources*, one for each interrupt of a device that shares it; it is asserted while any of them asserts
//! it. A *connection* is one interrupt of a device: it is a source of one line, and can move to another. A *message* is a write
//! of the device's by which it interrupts without a line. This crate knows no vectors: a local APIC delivers them, and the
//! VMM's controller knows them.

mod connection;
mod controller;
mod gate;
mod level;
mod line;
mod message_list;
mod messages;

pub(crate) use connection::{Connection, LineShare};
pub use controller::{Gsi, InterruptController, InterruptError, MAX_SHARING};
pub(crate) use gate::HandleGate;
pub(crate) use level::{ControllerLine, LineLevel};
pub use line::IrqLine;
pub(crate) use line::{Wires, Wiring};
#[cfg(feature = "devices")]
pub(crate) use message_list::{Control, Entry, MessageList};
pub use messages::{Message, Messages};

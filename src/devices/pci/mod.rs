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
//! | [`Pin`], [`PinLines`] | an interrupt pin, and the lines that pins lead to on a board where nothing is routed |
//! | [`Config::i440fx`], [`Config::piix3`], [`Config::piix4_power`] | what firmware looks for on the boards that it knows |
//! | [`Serial`] | a serial port |
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
//! A device tells its function whether it has an interrupt for the guest ([`Function::set_interrupt`]), and the function does the
//! rest: it asserts its pin, unless the command register forbids that (PCI Local Bus 3.0, 6.2.2: interrupt disable), or sends the
//! message in the pin's place that the guest has enabled ([`Function::with_message`]). When the guest changes the one or the other,
//! the pin follows.
//!
//! Pins lead to lines: through bridges, each of which turns them ([`Pin::through_bridge`]), to bus 0, and from there as the board
//! is wired. The host bridge knows it: to fixed lines ([`HostBridge::with_lines`]), or to the router of a PIIX3, which the guest
//! programs ([`HostBridge::with_pirq_router`]). Interrupts that a function is [connected](Function::connect) with follow. The
//! interrupt line register is for software to remember, and moves nothing.
//!
//! A device with several messages has them in [`Messages`](crate::Messages), by the capability MSI, MSI-X, or both, and sends them
//! itself. The guest enables one of them, by then without the pin, which the function keeps quiet. A device that drives a line
//! without its function looks each time before it interrupts, at [`Function::may_use_pin`] or
//! [`Messages::is_enabled`](crate::Messages::is_enabled), and takes an assertion of its pin back when it finds messages enabled.
//!
//! Messages are written by the function as a bus master. While the command register does not enable that
//! ([`Command::BUS_MASTER`]), they are pending.
//!
//! # What is locked
//!
//! No lock is held while ranges or interrupts are moved, pins driven, or messages sent. When several vCPUs write registers of one
//! function at once, the map ends as the registers do, and so do the pins and their lines.
//!
//! # Hot plug
//!
//! A function may be [plugged in](Bus::plug) and [unplugged](Bus::unplug) while the guest runs, without notice as well: what its
//! driver reads of its configuration space is all ones then, and once its device is unregistered, what it reads of its ranges is
//! open bus. A removal waits for the vCPUs that are inside the device; where one has not come out,
//! [`unregister_device`](crate::DeviceManager::unregister_device) says so ([`InUse`](crate::UnregisterError::InUse)), and is
//! called again.

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

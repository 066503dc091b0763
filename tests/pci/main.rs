//! PCI: what a guest writes to configuration space, and where the ranges of devices are then.
#![cfg(feature = "devices")]

mod bars;
mod bridges;
mod controller;
#[allow(unused_macros, reason = "its managers are of other sizes")]
#[path = "../fixture/mod.rs"]
mod fixture;
mod functions;
mod hotplug;
mod machine;
mod mechanisms;
mod messages;
mod pins;
mod random;
mod serial;
mod threads;

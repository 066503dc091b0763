//! Devices of rust-vmm under a manager of this crate.

pub mod rtc;
pub mod serial;

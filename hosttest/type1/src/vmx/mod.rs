//! Intel VMX with EPT, on the machine of Bochs.

pub mod boot;
mod control;
mod exceptions;
mod exit;
pub mod exits;
pub mod host;
pub mod nested;
mod setup;
pub mod vcpu;
mod vmcs;

pub use crate::x86::guest;

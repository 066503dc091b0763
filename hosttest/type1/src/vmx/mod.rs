//! Intel VMX with EPT, on the machine of Bochs.

pub mod boot;
mod control;
pub mod exits;
pub mod host;
pub mod nested;
pub mod vcpu;
mod vmcs;

pub use crate::x86::guest;

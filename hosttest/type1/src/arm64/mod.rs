//! Arm with EL2: QEMU's machine `virt`, with a GICv3.

pub mod boot;
pub mod exits;
pub mod guest;
pub mod host;
mod linux;
pub mod nested;
mod program;
mod psci;
mod translation;
pub mod vcpu;
mod vectors;

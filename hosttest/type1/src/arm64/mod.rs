//! Arm with EL2: QEMU's machine `virt`, with a GICv3.

pub mod barrier;
pub mod boot;
pub mod exits;
mod gic;
pub mod guest;
pub mod host;
mod linux;
mod litmus;
pub mod nested;
mod processors;
mod program;
mod psci;
mod torture;
mod translation;
pub mod vcpu;
mod vectors;

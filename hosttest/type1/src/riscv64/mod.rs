//! RISC-V with the hypervisor extension: QEMU's machine `virt`.

pub mod boot;
pub mod exits;
pub mod guest;
pub mod host;
mod linux;
pub mod nested;
mod program;
mod sbi;
mod translation;
mod trap;
pub mod vcpu;
mod watch;

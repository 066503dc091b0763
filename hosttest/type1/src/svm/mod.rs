//! AMD SVM, on the machine of QEMU.

pub mod exits;
pub mod host;
pub mod nested;
pub mod vcpu;

pub use crate::x86::{boot, guest};

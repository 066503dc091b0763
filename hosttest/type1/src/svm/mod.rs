//! AMD SVM.

pub mod exits;
pub mod nested;
pub mod vcpu;

pub use crate::x86::{boot, guest, host};

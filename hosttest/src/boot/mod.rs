//! A whole PC of this crate's devices, which boots firmware or a kernel that nobody here has written.

pub mod board;
pub mod error;
pub mod image;
mod parameters;
pub mod ram;
pub mod run;
pub mod serial;

//! A whole PC of this crate's devices, which boots firmware or a kernel that nobody here has written, and what a boot is watched by.

pub mod board;
pub mod capture;
pub mod chips;
pub mod error;
pub mod image;
mod parameters;
pub mod picture;
pub mod ram;
pub mod run;
pub mod summary;
pub mod terminal;

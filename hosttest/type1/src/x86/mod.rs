//! What the processors of x86 have in common.

pub mod boot;
mod controllers;
mod cpuid;
pub mod exits;
pub mod fault;
mod fifo;
pub mod guest;
pub mod host;
pub mod interrupts;
mod linux;
pub mod paging;
mod program;
mod state;
pub mod stop;

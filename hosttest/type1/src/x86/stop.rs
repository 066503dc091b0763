//! Why the hypervisor gave its guest up.

use core::fmt;

use vm_device::exit::x86::ExitError;
use vm_device::exit::x86::instruction::{DecodeError, MAX_LENGTH};
use vm_device::{Failed, GuestAddress};

use crate::processor::vcpu::Exit;

/// Why the hypervisor gave its guest up.
#[derive(Debug)]
pub enum Stop {
    /// An exit it does not know.
    Exit(Exit),
    /// A device that failed.
    Device { code: u32 },
    /// An exit with impossible information.
    Information(ExitError),
    /// An instruction that touched MMIO and cannot be executed.
    Instruction(DecodeError),
    /// An instruction where no memory is.
    NotFetched { linear: u64 },
    /// Page tables of the guest's where no memory is.
    PageTables { address: GuestAddress },
    /// Page tables of a kind that the hypervisor does not walk: those of 32-bit code.
    Paging { linear: u64 },
    /// An instruction that moves a vector register, of which the hypervisor holds none.
    VectorRegister,
}

/// Why the hypervisor gave its guest up, and where it stood.
#[derive(Debug)]
pub struct Stopped {
    pub stop: Stop,
    /// The vector of the exception that it got last from the hypervisor, and where.
    pub injected: Option<(u8, u64)>,
    pub rip: u64,
    /// What stands there; as many as could be fetched count.
    pub bytes: [u8; MAX_LENGTH],
    pub length: usize,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = &self.bytes[..self.length];
        self.stop.fmt(f)?;
        if let Some((vector, rip)) = self.injected {
            write!(f, ", after exception {vector} for the instruction at {rip:#x}")?;
        }
        write!(f, ", at rip {:#x}", self.rip)?;
        f.write_str(if bytes.is_empty() { ", where no memory is" } else { ", bytes:" })?;
        bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Stop::Device { code: failed.code() }
    }
}

impl From<ExitError> for Stop {
    fn from(error: ExitError) -> Self {
        Stop::Information(error)
    }
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Stop::Instruction(error)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Exit(exit) => exit.fmt(f),
            Stop::Device { code } => write!(f, "a device failed (code {code})"),
            Stop::Information(error) => error.fmt(f),
            Stop::Instruction(error) => error.fmt(f),
            Stop::NotFetched { linear } => write!(f, "no instruction can be fetched at {linear:#x}"),
            Stop::PageTables { address } => write!(f, "page tables at {address}, where no memory is"),
            Stop::Paging { linear } => write!(f, "an operand at {linear:#x}, by page tables of 32-bit code"),
            Stop::VectorRegister => f.write_str("a move of a vector register"),
        }
    }
}

//! Why a virtual processor stopped running its guest.

use std::fmt;

use vm_device::GuestAddress;

/// Why `KVM_RUN` came back, as far as a VMM has to know.
#[derive(Debug)]
pub enum Exit<'a> {
    /// The guest reads a port: `data` holds elements of `element` bytes each; more than one for `REP INS`.
    PortRead {
        /// The port.
        port: u16,
        /// The element size: 1, 2 or 4.
        element: usize,
        /// To be filled before the next run.
        data: &'a mut [u8],
    },
    /// The guest writes a port: as [`PortRead`](Self::PortRead).
    PortWrite {
        /// The port.
        port: u16,
        /// The element size: 1, 2 or 4.
        element: usize,
        /// What is written.
        data: &'a [u8],
    },
    /// The guest reads memory that no slot maps; 1 to 8 bytes.
    MmioRead {
        /// The address of the first byte.
        address: GuestAddress,
        /// To be filled before the next run.
        data: &'a mut [u8],
    },
    /// The guest writes memory that no slot maps; 1 to 8 bytes.
    MmioWrite {
        /// The address of the first byte.
        address: GuestAddress,
        /// What is written.
        data: &'a [u8],
    },
    /// The guest has ended a level-triggered interrupt, without an in-kernel IOAPIC.
    InterruptEnded {
        /// The vector of the interrupt.
        vector: u8,
    },
    /// The guest executed `HLT`, without an in-kernel interrupt controller.
    Halted,
    /// A signal, or a processor that was not ready yet: run again.
    Interrupted,
    /// The guest cannot go on.
    Crashed(Crash),
}

/// Why a guest cannot go on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Crash {
    /// A triple fault, or a reset that the guest asked for.
    Shutdown,
    /// KVM could not emulate something (`KVM_EXIT_INTERNAL_ERROR`).
    InternalError {
        /// `KVM_INTERNAL_ERROR_*`: 1 is an instruction that the emulator does not know.
        suberror: u32,
    },
    /// The processor refused the state it was given.
    FailedEntry {
        /// The processor's own reason.
        reason: u64,
    },
    /// An exit that this harness gives no meaning to.
    Unexpected(String),
    /// `KVM_RUN` failed.
    Failed(kvm_ioctls::Error),
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Crash::Shutdown => f.write_str("a triple fault or a reset"),
            Crash::InternalError { suberror: 1 } => f.write_str("KVM cannot emulate the instruction"),
            Crash::InternalError { suberror } => write!(f, "internal error {suberror} of KVM"),
            Crash::FailedEntry { reason } => write!(f, "the processor refused its state, reason {reason:#x}"),
            Crash::Unexpected(exit) => write!(f, "an unexpected exit: {exit}"),
            Crash::Failed(error) => write!(f, "KVM_RUN failed: {error}"),
        }
    }
}

//! What an instruction needs of the guest, and of the machine around it.

use core::error::Error;
use core::fmt;

use super::memory::MemoryAccessKind;
use crate::address::GuestAddress;

/// What the embedder knows of a guest: its page tables, and what answers at an address.
///
/// An instruction asks for the place of every part of its operands first, and reads and writes only then. So a fault of the
/// translation leaves memory, devices and registers as they were.
pub trait Guest {
    /// Why an access cannot be made: the exception that the guest gets, or the reason to stop it.
    type Fault;

    /// The guest physical address of the virtual `address`, after the guest's own page tables, checked for this kind of
    /// access. Read-modify-write is a write. On x86 the virtual address is the linear address.
    ///
    /// # Errors
    /// As a rule the page fault that the guest gets.
    fn translate(&mut self, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, Self::Fault>;

    /// Reads up to 8 bytes that lie in one page: of memory, of a device, or of nothing.
    ///
    /// # Errors
    /// The reason to stop the guest. What the instruction has written before stays.
    fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), Self::Fault>;

    /// Writes up to 8 bytes that lie in one page: to memory, to a device, or to nothing.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn write(&mut self, address: GuestAddress, data: &[u8]) -> Result<(), Self::Fault>;

    /// The vector register with this number: the low 32 bytes on x86, the low 16 of them on Arm. `None` if the embedder does
    /// not hold them.
    fn vector(&mut self, number: u8) -> Option<[u8; 32]> {
        let _ = number;
        None
    }

    /// Sets the vector register with this number. Called only for a register that [`vector`](Self::vector) has given.
    fn set_vector(&mut self, number: u8, value: [u8; 32]) {
        let _ = (number, value);
    }
}

/// Why an instruction was not executed. The registers are as they were, but for elements of a string that were done before:
/// they stay done, and are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ExecuteError<F> {
    /// What [`Guest`] answered.
    Fault(F),
    /// The operand at this virtual address is not aligned as the instruction needs it: the guest gets the general-protection
    /// exception of x86, or the alignment fault of Arm.
    Misaligned(u64),
    /// The instruction moves a vector register, and the embedder holds none: see [`Guest::vector`].
    NoVectorRegisters,
}

impl<F> From<F> for ExecuteError<F> {
    fn from(fault: F) -> Self {
        ExecuteError::Fault(fault)
    }
}

impl<F: fmt::Display> fmt::Display for ExecuteError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecuteError::Fault(fault) => fault.fmt(f),
            ExecuteError::Misaligned(address) => write!(f, "the operand at {address:#x} is not aligned"),
            ExecuteError::NoVectorRegisters => f.write_str("the instruction moves a vector register, and none is held"),
        }
    }
}

impl<F: fmt::Debug + fmt::Display> Error for ExecuteError<F> {}

//! Accesses to memory that the nested page tables do not allow.

use crate::address::GuestAddress;

/// What a guest tried to do with memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryAccessKind {
    /// Reading data.
    Read,
    /// Writing data. A read-modify-write is a write too.
    Write,
    /// Fetching an instruction.
    Fetch,
}

/// One access to a guest physical address that the nested page tables do not allow.
///
/// ```
/// use vm_device::GuestAddress;
/// use vm_device::exit::x86::{MemoryAccessKind, vmx};
///
/// let access = vmx::memory_access(0x181, 0xfee0_0020);
/// assert_eq!((access.address, access.kind), (GuestAddress(0xfee0_0020), MemoryAccessKind::Read));
/// // Nothing is mapped there: it is for a device.
/// assert!(!access.mapped && !access.page_walk);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryAccess {
    /// The guest physical address.
    pub address: GuestAddress,
    /// What the guest tried.
    pub kind: MemoryAccessKind,
    /// The address is mapped, but not for this kind of access: a write to a read-only page.
    pub mapped: bool,
    /// The processor made the access by itself, as a rule to the guest's page tables: it is not the operand of an instruction,
    /// and decoding one does not help. Page tables in MMIO are a guest's mistake.
    pub page_walk: bool,
}

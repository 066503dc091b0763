//! Guest-page faults: what `scause`, `stval`, `htval` and `htinst` say.

use core::error::Error;
use core::fmt;

use super::instruction::{DecodeError, Instruction, transformed};
use crate::address::GuestAddress;
use crate::exit::memory::MemoryAccessKind;
use crate::exit::operand::PAGE;

/// `scause` of an instruction guest-page fault (RISC-V ISA manual vol. II, hypervisor extension, "Trap Cause Codes"; the others too).
pub const INSTRUCTION_GUEST_PAGE_FAULT: u64 = 20;
/// `scause` of a load guest-page fault.
pub const LOAD_GUEST_PAGE_FAULT: u64 = 21;
/// `scause` of a store/AMO guest-page fault.
pub const STORE_GUEST_PAGE_FAULT: u64 = 23;

/// The pseudoinstructions that `htinst` holds for an access to the guest's page tables (RISC-V ISA manual vol. II, hypervisor extension,
/// "Transformed Instruction or Pseudoinstruction for mtinst or htinst"): 0x2000, and two bits of any value. Bit 12 says that an entry has 64
/// bits, not 32, and bit 5 that it is written, not read.
const PAGE_WALK: u64 = 0x2000;
const PAGE_WALK_WIDE: u64 = 1 << 12;
const PAGE_WALK_WRITE: u64 = 1 << 5;

/// An access of a guest that its second stage of translation, `hgatp`, does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestPageFault {
    /// The guest physical address that faulted, if the exit told it: of an operand over two pages, that in the page that faulted.
    ///
    /// Where it is `None`, [`Guest::translate`](crate::exit::Guest::translate) of [`virtual_address`](Self::virtual_address) finds it.
    /// A processor that does not tell it does not tell an access of the page walk either: the translation finds that too. An
    /// address below 4 looks as if it was not told.
    pub address: Option<GuestAddress>,
    /// The guest virtual address that faulted. Of an access of the page walk, the one whose translation needed it.
    pub virtual_address: u64,
    /// What was tried at [`address`](Self::address). An atomic memory operation is a write, `LR` is a read.
    pub kind: MemoryAccessKind,
    /// The processor accessed the guest's page tables by itself: it is not the operand of an instruction, and no access to a
    /// device. Page tables in MMIO are a guest's mistake.
    pub page_walk: bool,
    /// `htinst`: what the processor tells of the instruction; see [`instruction`](Self::instruction).
    pub htinst: u32,
}

/// The guest-page fault of an exit with these `scause`, `stval`, `htval` and `htinst` (RISC-V ISA manual vol. II, hypervisor extension,
/// "Hypervisor Trap Value Register" and "Hypervisor Trap Instruction Register").
///
/// ```
/// use vm_device::GuestAddress;
/// use vm_device::exit::MemoryAccessKind;
/// use vm_device::exit::riscv64::{GuestPageFault, guest_page_fault};
///
/// // A load at 0x1000_0005 of the guest's physical memory.
/// let fault = guest_page_fault(21, 0xffff_ffc6_0000_1005, 0x1000_0005 >> 2, 0)?;
/// assert_eq!(
///     fault,
///     GuestPageFault {
///         address: Some(GuestAddress(0x1000_0005)),
///         virtual_address: 0xffff_ffc6_0000_1005,
///         kind: MemoryAccessKind::Read,
///         page_walk: false,
///         htinst: 0,
///     },
/// );
/// # Ok::<(), vm_device::exit::riscv64::ExitError>(())
/// ```
///
/// # Errors
/// [`ExitError`] if it is another exit, or if `htinst` has a bit above bit 31.
#[inline]
pub fn guest_page_fault(scause: u64, stval: u64, htval: u64, htinst: u64) -> Result<GuestPageFault, ExitError> {
    let original = match scause {
        INSTRUCTION_GUEST_PAGE_FAULT => MemoryAccessKind::Fetch,
        LOAD_GUEST_PAGE_FAULT => MemoryAccessKind::Read,
        STORE_GUEST_PAGE_FAULT => MemoryAccessKind::Write,
        _ => return Err(ExitError::Cause(scause)),
    };
    let word = u32::try_from(htinst).map_err(|_| ExitError::Instruction(htinst))?;
    let page_walk = htinst & !(PAGE_WALK_WIDE | PAGE_WALK_WRITE) == PAGE_WALK;
    let kind = match page_walk {
        true if htinst & PAGE_WALK_WRITE != 0 => MemoryAccessKind::Write,
        true => MemoryAccessKind::Read,
        false => original,
    };
    // The entries of page tables are aligned.
    let low = if page_walk { 0 } else { stval & 3 };
    Ok(GuestPageFault {
        address: if htval == 0 { None } else { Some(GuestAddress(htval << 2 | low)) },
        virtual_address: stval,
        kind,
        page_walk,
        htinst: word,
    })
}

impl GuestPageFault {
    /// The instruction, as far as the processor tells it in `htinst`; `None` where it does not. Then its bytes have to be read at
    /// [`pc`](super::Registers::pc), which [`fetch`](super::instruction::fetch) does, and [decoded](super::instruction::decode).
    ///
    /// ```
    /// use vm_device::exit::riscv64::guest_page_fault;
    /// use vm_device::exit::riscv64::instruction::{Instruction, Location, Operation};
    /// use vm_device::exit::Size;
    ///
    /// // `c.lw a0, 0(a1)`, transformed: LW with x10, bit 1 clear because it has two bytes.
    /// let fault = guest_page_fault(21, 0x3000, 0x400_0000, 0x2501).unwrap();
    /// let instruction = fault.instruction()?.unwrap();
    /// assert_eq!((instruction.operation(), instruction.size()), (Operation::Load, Size::Dword));
    /// assert_eq!((instruction.register(), instruction.length()), (10, 2));
    /// assert_eq!(instruction.location(), Location::Fault { offset: 0 });
    /// # Ok::<(), vm_device::exit::riscv64::instruction::DecodeError>(())
    /// ```
    ///
    /// # Errors
    /// [`DecodeError`] if the access is of the [page walk](Self::page_walk), if the instruction is none that is executed here, or if
    /// no processor writes this value for this fault. In the last case the bytes of the instruction may be tried.
    #[inline]
    pub fn instruction(&self) -> Result<Option<Instruction>, DecodeError> {
        match self.htinst {
            _ if self.page_walk => Err(DecodeError::PageWalk(self.htinst)),
            0 => Ok(None),
            htinst => {
                let instruction = transformed(htinst)?;
                if instruction.kind() == self.kind {
                    Ok(Some(instruction))
                } else {
                    Err(DecodeError::Malformed(htinst))
                }
            }
        }
    }

    /// The guest physical address of a byte in the page that an operand of this kind at `address` starts in, if the exit told it.
    ///
    /// The kind counts: another hart of the guest may have exchanged the instruction since, for one that the guest's page tables
    /// forbid. Where the upper bits of pointers are masked, `stval` is without them, and the page is another one.
    #[inline]
    pub(super) fn known(&self, address: u64, kind: MemoryAccessKind) -> Option<GuestAddress> {
        let same_page = (address ^ self.virtual_address) & !(PAGE - 1) == 0;
        if same_page && kind == self.kind && !self.page_walk { self.address } else { None }
    }
}

/// An exit that is no guest-page fault, or is not as the manual specifies it.
///
/// ```
/// use vm_device::exit::riscv64::{ExitError, guest_page_fault};
///
/// // An environment call from VS-mode.
/// assert_eq!(guest_page_fault(10, 0, 0, 0), Err(ExitError::Cause(10)));
/// assert_eq!(ExitError::Cause(10).to_string(), "scause 0xa is no guest-page fault");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ExitError {
    /// This `scause` is no guest-page fault.
    Cause(u64),
    /// This `htinst` has a bit above bit 31, which no instruction has.
    Instruction(u64),
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitError::Cause(scause) => write!(f, "scause {scause:#x} is no guest-page fault"),
            ExitError::Instruction(htinst) => write!(f, "htinst {htinst:#x} has more than 32 bits"),
        }
    }
}

impl Error for ExitError {}

//! Exits of AMD's SVM: what `EXITINFO1` and `EXITINFO2` of the VMCB say.

use bitflags::bitflags;

use super::mode::{AddressSize, Mode, Segment};
use super::port::{ExitError, PortAccess, PortDirection, Repeat, StringForm};
use crate::address::GuestAddress;
use crate::exit::memory::{MemoryAccess, MemoryAccessKind};
use crate::exit::size::Size;

/// `EXITCODE` of an intercepted `IN`, `OUT`, `INS` or `OUTS` (AMD APM vol. 2, appendix C).
pub const VMEXIT_IOIO: u64 = 0x7b;
/// `EXITCODE` of a nested page fault (AMD APM vol. 2, appendix C).
pub const VMEXIT_NPF: u64 = 0x400;

bitflags! {
    /// `EXITINFO1` of an IOIO intercept (AMD APM vol. 2, 15.10.2). SEG, bits 12:10, and PORT, bits 31:16, are numbers.
    ///
    /// ```
    /// use vm_device::exit::x86::svm::IoioInfo;
    ///
    /// // `in al, 0x60`.
    /// let info = IoioInfo::from_bits_retain(0x0060_0211);
    /// assert!(info.contains(IoioInfo::TYPE | IoioInfo::SZ8));
    /// assert!(!info.intersects(IoioInfo::STR | IoioInfo::REP));
    /// ```
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct IoioInfo: u64 {
        /// `IN` or `INS`; else `OUT` or `OUTS`.
        const TYPE = 1 << 0;
        /// `INS` or `OUTS`.
        const STR = 1 << 2;
        /// A REP prefix.
        const REP = 1 << 3;
        /// 1 byte.
        const SZ8 = 1 << 4;
        /// 2 bytes.
        const SZ16 = 1 << 5;
        /// 4 bytes.
        const SZ32 = 1 << 6;
        /// 16-bit addresses.
        const A16 = 1 << 7;
        /// 32-bit addresses.
        const A32 = 1 << 8;
        /// 64-bit addresses.
        const A64 = 1 << 9;
    }

    /// `EXITINFO1` of a nested page fault (AMD APM vol. 2, 15.25.6).
    ///
    /// ```
    /// use vm_device::exit::x86::svm::NestedPageFault;
    ///
    /// let fault = NestedPageFault::from_bits_retain(0x1_0000_0006);
    /// assert!(fault.contains(NestedPageFault::FINAL | NestedPageFault::RW));
    /// assert!(!fault.contains(NestedPageFault::P));
    /// ```
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct NestedPageFault: u64 {
        /// The nested page was present.
        const P = 1 << 0;
        /// The access was a write.
        const RW = 1 << 1;
        /// The access was a user access, as every access of the guest is to nested paging.
        const US = 1 << 2;
        /// A reserved bit was set in a nested page table entry.
        const RSV = 1 << 3;
        /// The access was an instruction fetch.
        const ID = 1 << 4;
        /// The access was a shadow stack access.
        const SS = 1 << 6;
        /// It happened while the guest's final physical address was translated.
        const FINAL = 1 << 32;
        /// It happened while an address of the guest's own page tables was translated.
        const PAGE_TABLE = 1 << 33;
        /// The supervisor shadow stack check failed.
        const SSS = 1 << 37;
    }
}

/// The port access of an IOIO intercept, from `EXITINFO1`, `EXITINFO2` (the RIP after the instruction), and the mode of
/// the guest.
///
/// SEG is valid only on processors with decode assists (CPUID Fn8000_000A, EDX bit 7), and emulations of SVM may leave
/// out the address size as well. Without an address size, the access gets that of `mode`, and DS. Where decode assists are
/// missing, correct string accesses with [`PortAccess::with_prefixes`] and the bytes of the instruction.
///
/// ```
/// use vm_device::exit::x86::{AddressSize, Mode, PortDirection, Repeat, Segment, Size, StringForm, svm};
///
/// // `rep outsb` to port 0x3f8 in 64-bit code: STR, REP, SZ8, A64, SEG = DS.
/// let access = svm::port_access(0x03f8_0e1c, 0x1002, Mode::Bits64)?;
/// assert_eq!((access.port, access.size, access.direction), (0x3f8, Size::Byte, PortDirection::Out));
/// let form = StringForm { repeat: Repeat::Count, address_size: AddressSize::Bits64, segment: Segment::Ds };
/// assert_eq!(access.string, Some(form));
/// assert_eq!(access.next_rip, 0x1002);
/// # Ok::<(), vm_device::exit::x86::ExitError>(())
/// ```
///
/// # Errors
/// [`ExitError`] if not exactly one of the sizes is set, or for a string instruction more than one address size or a
/// segment number above 5. A processor reports none of these.
pub fn port_access(exitinfo1: u64, exitinfo2: u64, mode: Mode) -> Result<PortAccess, ExitError> {
    let info = IoioInfo::from_bits_retain(exitinfo1);
    let sizes = IoioInfo::SZ8 | IoioInfo::SZ16 | IoioInfo::SZ32;
    let size = Size::from_bytes(((info & sizes).bits() >> 4) as usize).ok_or(ExitError::Size(exitinfo1))?;
    Ok(PortAccess {
        port: (exitinfo1 >> 16) as u16,
        size,
        direction: if info.contains(IoioInfo::TYPE) { PortDirection::In } else { PortDirection::Out },
        string: if info.contains(IoioInfo::STR) { Some(string_form(info, mode)?) } else { None },
        next_rip: exitinfo2,
        mode,
    })
}

fn string_form(info: IoioInfo, mode: Mode) -> Result<StringForm, ExitError> {
    let exitinfo1 = info.bits();
    let reported = match info & (IoioInfo::A16 | IoioInfo::A32 | IoioInfo::A64) {
        IoioInfo::A16 => Some(AddressSize::Bits16),
        IoioInfo::A32 => Some(AddressSize::Bits32),
        IoioInfo::A64 => Some(AddressSize::Bits64),
        none if none.is_empty() => None,
        _ => return Err(ExitError::AddressSize(exitinfo1)),
    };
    let (address_size, segment) = match reported {
        Some(size) => (size, Segment::from_number(exitinfo1 >> 10 & 7).ok_or(ExitError::Segment(exitinfo1))?),
        None => (mode.address_size(), Segment::Ds),
    };
    Ok(StringForm { repeat: Repeat::by_count(info.contains(IoioInfo::REP)), address_size, segment })
}

/// The memory access of a nested page fault, from `EXITINFO1` and `EXITINFO2` (the guest physical address).
///
/// ```
/// use vm_device::GuestAddress;
/// use vm_device::exit::x86::{MemoryAccess, MemoryAccessKind, svm};
///
/// // A write to an address that is not mapped.
/// assert_eq!(
///     svm::memory_access(0x1_0000_0006, 0xfec0_0000),
///     MemoryAccess {
///         address: GuestAddress(0xfec0_0000),
///         kind: MemoryAccessKind::Write,
///         mapped: false,
///         page_walk: false,
///     },
/// );
/// ```
pub fn memory_access(exitinfo1: u64, exitinfo2: u64) -> MemoryAccess {
    let fault = NestedPageFault::from_bits_retain(exitinfo1);
    MemoryAccess {
        address: GuestAddress(exitinfo2),
        kind: if fault.contains(NestedPageFault::ID) {
            MemoryAccessKind::Fetch
        } else if fault.contains(NestedPageFault::RW) {
            MemoryAccessKind::Write
        } else {
            MemoryAccessKind::Read
        },
        mapped: fault.contains(NestedPageFault::P),
        page_walk: fault.contains(NestedPageFault::PAGE_TABLE),
    }
}

//! Exits of Intel's VMX: what the exit qualification and the fields beside it say.

use bitflags::bitflags;

use super::mode::{AddressSize, Mode, Segment};
use super::port::{ExitError, PortAccess, PortDirection, Repeat, StringForm};
use crate::address::GuestAddress;
use crate::exit::memory::{MemoryAccess, MemoryAccessKind};
use crate::exit::size::Size;

/// Basic exit reason of `IN`, `OUT`, `INS` and `OUTS` (Intel SDM vol. 3D, appendix C).
pub const IO_INSTRUCTION: u16 = 30;
/// Basic exit reason of an EPT violation (Intel SDM vol. 3D, appendix C).
pub const EPT_VIOLATION: u16 = 48;

bitflags! {
    /// The exit qualification of an I/O instruction (Intel SDM vol. 3C, table 28-5). The size of the access, bits 2:0,
    /// and the port, bits 31:16, are numbers.
    ///
    /// ```
    /// use vm_device::exit::x86::vmx::IoQualification;
    ///
    /// // `rep insb` from the port in DX.
    /// let qualification = IoQualification::from_bits_retain(0x01f0_0038);
    /// assert!(qualification.contains(IoQualification::IN | IoQualification::STRING | IoQualification::REP));
    /// assert!(!qualification.contains(IoQualification::IMMEDIATE));
    /// ```
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct IoQualification: u64 {
        /// `IN` or `INS`; else `OUT` or `OUTS`.
        const IN = 1 << 3;
        /// `INS` or `OUTS`.
        const STRING = 1 << 4;
        /// A REP prefix.
        const REP = 1 << 5;
        /// The port is an immediate operand; else it is in DX.
        const IMMEDIATE = 1 << 6;
    }

    /// The exit qualification of an EPT violation (Intel SDM vol. 3C, table 28-7).
    ///
    /// ```
    /// use vm_device::exit::x86::vmx::EptViolation;
    ///
    /// // A data read of an address that is not mapped.
    /// let violation = EptViolation::from_bits_retain(0x181);
    /// assert!(violation.contains(EptViolation::READ | EptViolation::TRANSLATED));
    /// assert!(!violation.contains(EptViolation::READABLE));
    /// ```
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct EptViolation: u64 {
        /// The access was a data read. With [`WRITE`](Self::WRITE): a read-modify-write.
        const READ = 1 << 0;
        /// The access was a data write.
        const WRITE = 1 << 1;
        /// The access was an instruction fetch.
        const FETCH = 1 << 2;
        /// The guest physical address was readable.
        const READABLE = 1 << 3;
        /// The guest physical address was writable.
        const WRITABLE = 1 << 4;
        /// The guest physical address was executable; with mode-based execute control, in supervisor mode.
        const EXECUTABLE = 1 << 5;
        /// With mode-based execute control: the guest physical address was executable in user mode.
        const USER_EXECUTABLE = 1 << 6;
        /// The guest linear-address field is valid.
        const LINEAR_ADDRESS_VALID = 1 << 7;
        /// The access was to what the linear address translates to; else to a paging-structure entry on the way. Valid
        /// with [`LINEAR_ADDRESS_VALID`](Self::LINEAR_ADDRESS_VALID).
        const TRANSLATED = 1 << 8;
        /// Advanced exit information: the linear address is a user-mode one.
        const USER_LINEAR_ADDRESS = 1 << 9;
        /// Advanced exit information: the linear address is writable by the guest's paging.
        const LINEAR_ADDRESS_WRITABLE = 1 << 10;
        /// Advanced exit information: the linear address is execute-disable by the guest's paging.
        const LINEAR_ADDRESS_EXECUTE_DISABLE = 1 << 11;
        /// NMIs were unblocked by the `IRET` that caused it.
        const NMI_UNBLOCKING = 1 << 12;
        /// The access was a shadow-stack access.
        const SHADOW_STACK = 1 << 13;
        /// The guest physical address is a supervisor shadow-stack page (bit 60 of its EPT entry).
        const SUPERVISOR_SHADOW_STACK = 1 << 14;
        /// Guest-paging verification caused it.
        const GUEST_PAGING_VERIFICATION = 1 << 15;
        /// It was asynchronous to the instruction: trace output, for instance.
        const ASYNCHRONOUS = 1 << 16;
    }
}

/// What the VMCS says about an exit caused by an I/O instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoExit {
    /// The exit qualification.
    pub qualification: u64,
    /// The VM-exit instruction information, valid for `INS` and `OUTS` (Intel SDM vol. 3C, table 28-8) if bit 54 of
    /// the MSR `IA32_VMX_BASIC` is 1; else `None`.
    pub instruction_information: Option<u32>,
    /// The VM-exit instruction length, in bytes.
    pub instruction_length: u32,
    /// The guest's RIP: where the instruction is.
    pub rip: u64,
}

/// The port access of an I/O instruction exit, from the VMCS and the mode of the guest.
///
/// Without instruction information a string access gets the address size of `mode` and DS; correct it with
/// [`PortAccess::with_prefixes`] and the bytes of the instruction.
///
/// ```
/// use vm_device::exit::x86::{AddressSize, Mode, PortDirection, Repeat, Segment, Size, vmx};
///
/// // `rep fs outsd` with a 32-bit address size, to port 0x1f0.
/// let access = vmx::port_access(
///     vmx::IoExit {
///         qualification: 0x01f0_0033,
///         instruction_information: Some(4 << 15 | 1 << 7),
///         instruction_length: 4,
///         rip: 0x1000,
///     },
///     Mode::Bits64,
/// )?;
/// assert_eq!((access.port, access.size, access.direction), (0x1f0, Size::Dword, PortDirection::Out));
/// let form = access.string.unwrap();
/// assert_eq!((form.repeat, form.address_size, form.segment), (Repeat::Count, AddressSize::Bits32, Segment::Fs));
/// assert_eq!(access.next_rip, 0x1004);
/// # Ok::<(), vm_device::exit::x86::ExitError>(())
/// ```
///
/// # Errors
/// [`ExitError`] for a size, an address size or a segment that table 28-5 or 28-8 calls unused. A processor reports
/// none of these.
pub fn port_access(exit: IoExit, mode: Mode) -> Result<PortAccess, ExitError> {
    let qualification = IoQualification::from_bits_retain(exit.qualification);
    let direction = if qualification.contains(IoQualification::IN) { PortDirection::In } else { PortDirection::Out };
    Ok(PortAccess {
        port: (exit.qualification >> 16) as u16,
        size: match exit.qualification & 7 {
            0 => Size::Byte,
            1 => Size::Word,
            3 => Size::Dword,
            _ => return Err(ExitError::Size(exit.qualification)),
        },
        direction,
        string: if qualification.contains(IoQualification::STRING) {
            let repeat = Repeat::by_count(qualification.contains(IoQualification::REP));
            Some(string_form(exit.instruction_information, repeat, direction, mode)?)
        } else {
            None
        },
        next_rip: mode.instruction_pointer(exit.rip.wrapping_add(exit.instruction_length.into())),
        mode,
    })
}

fn string_form(
    information: Option<u32>,
    repeat: Repeat,
    direction: PortDirection,
    mode: Mode,
) -> Result<StringForm, ExitError> {
    let Some(information) = information.map(u64::from) else {
        return Ok(StringForm { repeat, address_size: mode.address_size(), segment: Segment::Ds });
    };
    let address_size = match information >> 7 & 7 {
        0 => AddressSize::Bits16,
        1 => AddressSize::Bits32,
        2 => AddressSize::Bits64,
        _ => return Err(ExitError::AddressSize(information)),
    };
    let segment = match direction {
        // The field is undefined for INS.
        PortDirection::In => Segment::Es,
        PortDirection::Out => Segment::from_number(information >> 15 & 7).ok_or(ExitError::Segment(information))?,
    };
    Ok(StringForm { repeat, address_size, segment })
}

/// The memory access of an EPT violation, from the exit qualification and the guest-physical-address field.
///
/// ```
/// use vm_device::GuestAddress;
/// use vm_device::exit::x86::{MemoryAccess, MemoryAccessKind, vmx};
///
/// // A data read of an address that is not mapped.
/// assert_eq!(
///     vmx::memory_access(0x181, 0xfee0_0020),
///     MemoryAccess {
///         address: GuestAddress(0xfee0_0020),
///         kind: MemoryAccessKind::Read,
///         mapped: false,
///         page_walk: false,
///     },
/// );
/// ```
pub fn memory_access(qualification: u64, guest_physical_address: u64) -> MemoryAccess {
    let violation = EptViolation::from_bits_retain(qualification);
    let permissions = EptViolation::READABLE | EptViolation::WRITABLE | EptViolation::EXECUTABLE;
    MemoryAccess {
        address: GuestAddress(guest_physical_address),
        kind: if violation.contains(EptViolation::FETCH) {
            MemoryAccessKind::Fetch
        } else if violation.contains(EptViolation::WRITE) {
            MemoryAccessKind::Write
        } else {
            MemoryAccessKind::Read
        },
        mapped: violation.intersects(permissions),
        page_walk: !violation.contains(EptViolation::LINEAR_ADDRESS_VALID | EptViolation::TRANSLATED),
    }
}

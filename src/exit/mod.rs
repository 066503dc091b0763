//! VM exits of a type-1 hypervisor, as accesses that a [`DeviceManager`](crate::DeviceManager) can dispatch.
//!
//! A hypervisor without an operating system under it gets its guests' accesses as numbers in a control block: AMD's
//! `EXITINFO1` and `EXITINFO2`, Intel's exit qualification. This module is what stands between them and
//! [`read`](crate::DeviceManager::read) and [`write`](crate::DeviceManager::write):
//!
//! | the exit | becomes | and afterwards |
//! |---|---|---|
//! | `IN`, `OUT`, `INS`, `OUTS` | a [`PortAccess`], by [`svm::port_access`] or [`vmx::port_access`] | [`PortAccess::complete`], [`PortAccess::complete_string`] |
//! | nested page fault, EPT violation | a [`MemoryAccess`], by [`svm::memory_access`] or [`vmx::memory_access`] | the instruction has to be decoded |
//! | the instruction that touched MMIO | an `Instruction`, by `instruction::decode` (feature `instruction`) | `Instruction::execute` |
//!
//! All of it is pure functions over numbers: no hardware is touched, no memory allocated, and no value of an argument
//! makes them panic. (The decoder that the feature `instruction` brings has panics that no input is known to reach.)
//!
//! ```
//! use vm_device::exit::{PortDirection, Mode, Registers, Size, svm};
//!
//! // `in eax, dx` at 0x1000 in long mode: TYPE, SZ32, port 0xcf8; the next RIP in EXITINFO2.
//! let mut registers = Registers { rip: 0x1000, ..Registers::default() };
//! let access = svm::port_access(0x0cf8_0041, 0x1001, Mode::Bits64)?;
//! assert_eq!((access.port, access.size, access.direction), (0xcf8, Size::Dword, PortDirection::In));
//!
//! // Here the manager reads the port. What it read completes the instruction.
//! registers = access.complete(&registers, 0x8000_0000);
//! assert_eq!((registers.rax(), registers.rip), (0x8000_0000, 0x1001));
//! # Ok::<(), vm_device::exit::ExitError>(())
//! ```
//!
//! # What stays with the hypervisor
//! Completing an instruction also ends the interrupt shadow of a preceding `STI` or `MOV SS` (the guest interruptibility
//! state), and raises a debug exception if the guest single-steps (`RFLAGS.TF`). Both are control-block fields, not
//! registers.

use core::fmt;

use crate::address::GuestAddress;

mod complete;
#[cfg(feature = "instruction")]
pub mod instruction;
mod registers;
pub mod svm;
pub mod vmx;

pub use registers::{Gpr, Register, Registers, Rflags};

/// The size of one access, or of an operand.
///
/// ```
/// use vm_device::exit::Size;
///
/// assert_eq!(Size::from_bytes(4), Some(Size::Dword));
/// assert_eq!((Size::Dword.bytes(), Size::Dword.bits()), (4, 32));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Size {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
    /// 8 bytes.
    Qword,
}

impl Size {
    /// The number of bytes: 1, 2, 4 or 8.
    pub const fn bytes(self) -> usize {
        1 << self as u32
    }

    /// The number of bits: 8, 16, 32 or 64.
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }

    /// The size of `bytes` bytes; `None` if that is not 1, 2, 4 or 8.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Size::Byte),
            2 => Some(Size::Word),
            4 => Some(Size::Dword),
            8 => Some(Size::Qword),
            _ => None,
        }
    }

    /// The low bits of `value` that an operand of this size holds.
    ///
    /// ```
    /// use vm_device::exit::Size;
    ///
    /// assert_eq!(Size::Byte.truncate(0x1234), 0x34);
    /// ```
    pub const fn truncate(self, value: u64) -> u64 {
        value & self.mask()
    }

    /// The low bits of `value` as a signed number, in 64 bits.
    ///
    /// ```
    /// use vm_device::exit::Size;
    ///
    /// assert_eq!(Size::Byte.sign_extend(0x80), 0xffff_ffff_ffff_ff80);
    /// assert_eq!(Size::Word.sign_extend(0x80), 0x80);
    /// ```
    pub const fn sign_extend(self, value: u64) -> u64 {
        let sign = self.sign();
        (self.truncate(value) ^ sign).wrapping_sub(sign)
    }

    /// The bytes of `data` that an access of this size transfers.
    ///
    /// ```
    /// use vm_device::exit::Size;
    ///
    /// let mut data = [0; 8];
    /// Size::Word.of(&mut data).copy_from_slice(&[0x34, 0x12]);
    /// assert_eq!(u64::from_le_bytes(data), 0x1234);
    /// ```
    pub fn of(self, data: &mut [u8; 8]) -> &mut [u8] {
        data.get_mut(..self.bytes()).unwrap_or_default()
    }

    /// Ones in the bits of an operand of this size.
    pub(crate) const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The highest bit of an operand of this size.
    pub(crate) const fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }
}

/// What kind of code the guest was running: the default operand and address size.
///
/// ```
/// use vm_device::exit::{AddressSize, Mode};
///
/// assert_eq!(Mode::Bits16.address_size(), AddressSize::Bits16);
/// assert_eq!(Mode::Bits16.overridden_address_size(), AddressSize::Bits32);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// 16-bit code: real mode, virtual-8086 mode, and protected mode in a code segment with D = 0.
    Bits16,
    /// 32-bit code: protected or compatibility mode in a code segment with D = 1.
    Bits32,
    /// 64-bit mode: long mode in a code segment with L = 1.
    Bits64,
}

impl Mode {
    /// The mode of a guest from `EFER.LMA` and the attributes L and D of its code segment (AMD APM vol. 2, 4.8.1;
    /// Intel SDM vol. 3A, 3.4.5). In real mode D is 0.
    ///
    /// ```
    /// use vm_device::exit::Mode;
    ///
    /// // `EFER.LMA`, and L and D of the code segment.
    /// assert_eq!(Mode::new(true, true, false), Mode::Bits64);
    /// assert_eq!(Mode::new(true, false, true), Mode::Bits32);
    /// assert_eq!(Mode::new(false, false, false), Mode::Bits16);
    /// ```
    pub const fn new(long_mode_active: bool, cs_long: bool, cs_default: bool) -> Self {
        if long_mode_active && cs_long {
            Mode::Bits64
        } else if cs_default {
            Mode::Bits32
        } else {
            Mode::Bits16
        }
    }

    /// The address size of an instruction without a prefix.
    pub const fn address_size(self) -> AddressSize {
        match self {
            Mode::Bits16 => AddressSize::Bits16,
            Mode::Bits32 => AddressSize::Bits32,
            Mode::Bits64 => AddressSize::Bits64,
        }
    }

    /// The address size of an instruction with the prefix `67` (Intel SDM vol. 1, 3.6.1).
    ///
    /// ```
    /// use vm_device::exit::{AddressSize, Mode};
    ///
    /// assert_eq!(Mode::Bits64.address_size(), AddressSize::Bits64);
    /// assert_eq!(Mode::Bits64.overridden_address_size(), AddressSize::Bits32);
    /// assert_eq!(Mode::Bits32.overridden_address_size(), AddressSize::Bits16);
    /// ```
    pub const fn overridden_address_size(self) -> AddressSize {
        match self {
            Mode::Bits16 | Mode::Bits64 => AddressSize::Bits32,
            Mode::Bits32 => AddressSize::Bits16,
        }
    }

    /// An instruction pointer in this mode: outside 64-bit mode it has 32 bits.
    pub(crate) const fn instruction_pointer(self, rip: u64) -> u64 {
        match self {
            Mode::Bits16 | Mode::Bits32 => rip & 0xffff_ffff,
            Mode::Bits64 => rip,
        }
    }
}

/// How much of RSI, RDI and RCX a string instruction uses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AddressSize {
    /// SI, DI, CX.
    Bits16,
    /// ESI, EDI, ECX.
    Bits32,
    /// RSI, RDI, RCX.
    Bits64,
}

impl AddressSize {
    /// The size of the registers.
    pub const fn size(self) -> Size {
        match self {
            AddressSize::Bits16 => Size::Word,
            AddressSize::Bits32 => Size::Dword,
            AddressSize::Bits64 => Size::Qword,
        }
    }
}

/// A segment register, in the order of its encoding (Intel SDM vol. 2D, table B-8).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "the names of the registers")]
pub enum Segment {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

impl Segment {
    /// The segment register with this number; `None` above 5.
    ///
    /// ```
    /// use vm_device::exit::Segment;
    ///
    /// assert_eq!(Segment::from_number(3), Some(Segment::Ds));
    /// assert_eq!(Segment::from_number(6), None);
    /// ```
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Segment::Es),
            1 => Some(Segment::Cs),
            2 => Some(Segment::Ss),
            3 => Some(Segment::Ds),
            4 => Some(Segment::Fs),
            5 => Some(Segment::Gs),
            _ => None,
        }
    }
}

/// What makes an instruction a string instruction: whether it repeats, and where its memory operands are.
///
/// The source is at RSI in [`segment`](Self::segment), the destination at RDI in ES, which no prefix changes
/// (Intel SDM vol. 1, 7.3.9).
///
/// ```
/// use vm_device::exit::{AddressSize, Mode, Segment, StringForm, svm};
///
/// // `rep outsb` in 64-bit code.
/// let access = svm::port_access(0x03f8_0e1c, 0x1002, Mode::Bits64)?;
/// let form = StringForm { repeated: true, address_size: AddressSize::Bits64, segment: Segment::Ds };
/// assert_eq!(access.string, Some(form));
/// # Ok::<(), vm_device::exit::ExitError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StringForm {
    /// Whether a REP prefix repeats it until RCX is 0.
    pub repeated: bool,
    /// How much of RSI, RDI and RCX it uses.
    pub address_size: AddressSize,
    /// The segment of the operand at RSI. An instruction without one (`INS`, `STOS`) does not use it.
    pub segment: Segment,
}

/// Which way a port access goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PortDirection {
    /// `IN` and `INS`: the guest reads the port.
    In,
    /// `OUT` and `OUTS`: the guest writes the port.
    Out,
}

/// One instruction that accesses a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortAccess {
    /// The port.
    pub port: u16,
    /// The size of the access; of each element, if it is a string instruction. Never [`Size::Qword`].
    pub size: Size,
    /// Which way it goes.
    pub direction: PortDirection,
    /// `INS` and `OUTS`, between the port and memory; `None` for `IN` and `OUT`, between the port and RAX.
    pub string: Option<StringForm>,
    /// Where the guest resumes when the instruction is complete.
    pub next_rip: u64,
}

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
/// use vm_device::exit::{MemoryAccessKind, vmx};
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
    /// It is not the instruction's own operand, but an access that the processor makes by itself, as a rule to the
    /// guest's page tables. No instruction says what to do about it: page tables in MMIO are a guest's mistake.
    pub page_walk: bool,
}

/// Exit information that is not of the form the manual gives it.
///
/// ```
/// use vm_device::exit::{ExitError, Mode, svm};
///
/// // No size is set.
/// let error = svm::port_access(0x03f8_0001, 0x1001, Mode::Bits64);
/// assert_eq!(error, Err(ExitError::Size(0x03f8_0001)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ExitError {
    /// The size of the port access is missing, or is not 1, 2 or 4 bytes. Carries the exit information.
    Size(u64),
    /// More than one address size is given, or one that does not exist. Carries the exit information.
    AddressSize(u64),
    /// There is no segment register with the number given. Carries the exit information.
    Segment(u64),
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, information) = match self {
            ExitError::Size(information) => ("access size", information),
            ExitError::AddressSize(information) => ("address size", information),
            ExitError::Segment(information) => ("segment", information),
        };
        write!(f, "exit information {information:#x} has no valid {what}")
    }
}

impl core::error::Error for ExitError {}

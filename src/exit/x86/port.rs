//! Accesses to ports.

use core::fmt;

use super::mode::{AddressSize, Mode, Segment};
use crate::exit::size::Size;

/// The form of a string instruction: whether it repeats, and where its memory operands are.
///
/// The source is at RSI in [`segment`](Self::segment), the destination at RDI in ES, which no prefix changes
/// (Intel SDM vol. 1, 7.3.9).
///
/// ```
/// use vm_device::exit::x86::{AddressSize, Mode, Repeat, Segment, StringForm, svm};
///
/// // `rep outsb` in 64-bit code.
/// let access = svm::port_access(0x03f8_0e1c, 0x1002, Mode::Bits64)?;
/// let form = StringForm { repeat: Repeat::Count, address_size: AddressSize::Bits64, segment: Segment::Ds };
/// assert_eq!(access.string, Some(form));
/// # Ok::<(), vm_device::exit::x86::ExitError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StringForm {
    /// Whether a prefix repeats it.
    pub repeat: Repeat,
    /// How much of RSI, RDI and RCX it uses.
    pub address_size: AddressSize,
    /// The segment of the operand at RSI. An instruction without one (`INS`, `STOS`) does not use it.
    pub segment: Segment,
}

/// How often a string instruction is executed (Intel SDM vol. 2B, REP).
///
/// ```
/// use vm_device::exit::x86::Repeat;
///
/// assert!(Repeat::Count.repeats() && !Repeat::Once.repeats());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Repeat {
    /// Once: no prefix.
    Once,
    /// REP: until RCX is 0.
    Count,
    /// REPE: until RCX is 0 or two elements differ. Only CMPS and SCAS.
    WhileEqual,
    /// REPNE: until RCX is 0 or two elements are equal. Only CMPS and SCAS.
    WhileNotEqual,
}

impl Repeat {
    /// Whether there is a prefix, so that RCX counts.
    pub const fn repeats(self) -> bool {
        !matches!(self, Repeat::Once)
    }

    /// Repeats by count alone, if there is a REP prefix.
    pub(super) const fn by_count(repeats: bool) -> Self {
        if repeats { Repeat::Count } else { Repeat::Once }
    }
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
#[derive(Clone, Copy, PartialEq, Eq)]
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
    /// What kind of code the guest was running.
    pub mode: Mode,
}

/// By hand: what is derived for more than five fields can panic, as far as the linker knows.
impl fmt::Debug for PortAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortAccess")
            .field("port", &self.port)
            .field("size", &self.size)
            .field("direction", &self.direction)
            .field("string", &self.string)
            .field("next_rip", &self.next_rip)
            .field("mode", &self.mode)
            .finish()
    }
}

/// Exit information that is not as the manual specifies it.
///
/// ```
/// use vm_device::exit::x86::{ExitError, Mode, svm};
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

//! Sizes and segments, as the guest's code has them.

use crate::exit::size::Size;

/// What kind of code the guest was running: the default operand and address size.
///
/// ```
/// use vm_device::exit::x86::{AddressSize, Mode};
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
    /// use vm_device::exit::x86::Mode;
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
    /// use vm_device::exit::x86::{AddressSize, Mode};
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

    /// The highest linear address: outside 64-bit mode linear addresses have 32 bits (Intel SDM vol. 3A, 3.1).
    pub(crate) const fn last_linear(self) -> u64 {
        match self {
            Mode::Bits16 | Mode::Bits32 => 0xffff_ffff,
            Mode::Bits64 => u64::MAX,
        }
    }

    /// Cuts an instruction pointer to the width that it has in this mode: 32 bits outside 64-bit mode.
    pub(crate) const fn instruction_pointer(self, rip: u64) -> u64 {
        rip & self.last_linear()
    }
}

/// The size of an address: of an effective address, of RSI, RDI and RCX as a string instruction uses them, or of RSP as the stack
/// uses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AddressSize {
    /// 16 bits: SI, DI, CX.
    Bits16,
    /// 32 bits: ESI, EDI, ECX.
    Bits32,
    /// 64 bits: RSI, RDI, RCX.
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
    /// use vm_device::exit::x86::Segment;
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

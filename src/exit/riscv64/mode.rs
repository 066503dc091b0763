//! How a guest sees its memory.

use crate::exit::size::Size;

/// The byte order of a guest's data. Instructions are little-endian always (RISC-V ISA manual vol. I, 1.5).
///
/// ```
/// use vm_device::exit::riscv64::Mode;
///
/// assert_eq!(Mode::default(), Mode { big_endian: false });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mode {
    /// The byte of an operand at its lowest address is the highest of the value.
    pub big_endian: bool,
}

impl Mode {
    /// The mode of a guest at its exit, from `hstatus` and `vsstatus`: VSBE of `hstatus` for a guest's kernel, UBE of `vsstatus` for its
    /// programs. SPVP of `hstatus` says which of the two was running (RISC-V ISA manual vol. II, hypervisor extension, "Hypervisor
    /// Status Register" and "Virtual Supervisor Status Register").
    ///
    /// ```
    /// use vm_device::exit::riscv64::Mode;
    ///
    /// // SPVP and VSBE: a big-endian kernel.
    /// assert!(Mode::new(0x120, 0).big_endian);
    /// // Its programs are little-endian.
    /// assert!(!Mode::new(0x020, 0).big_endian);
    /// assert!(Mode::new(0x020, 0x40).big_endian);
    /// ```
    pub const fn new(hstatus: u64, vsstatus: u64) -> Self {
        const VSBE: u64 = 1 << 5;
        const SPVP: u64 = 1 << 8;
        const UBE: u64 = 1 << 6;
        Self { big_endian: if hstatus & SPVP != 0 { hstatus & VSBE != 0 } else { vsstatus & UBE != 0 } }
    }

    /// The number that the bytes of a value make in memory, read as little-endian; and the way back. What lies above an operand of
    /// `size` may be anything.
    #[inline]
    pub(super) const fn in_memory(self, value: u64, size: Size) -> u64 {
        if self.big_endian { value.swap_bytes() >> (64 - size.bits()) } else { value }
    }
}

//! The mode of the processor, which decides what an access means.

use super::registers::spsr;
use crate::exit::size::Size;

/// SCTLR_EL1.EE: data at EL1 is big-endian (Arm ARM DDI 0487, "SCTLR_EL1, System Control Register (EL1)").
const EE: u64 = 1 << 25;
/// SCTLR_EL1.E0E: data at EL0 is big-endian.
const E0E: u64 = 1 << 24;

/// What a guest was doing when it left: its Execution state, its Exception level, and the order of the bytes of its data.
///
/// ```
/// use vm_device::exit::arm64::Mode;
///
/// // EL1 with SP_EL1; SCTLR_EL1.EE.
/// let mode = Mode::new(0x3c5, 0x0200_0000);
/// assert_eq!((mode.is_aarch32(), mode.level(), mode.is_big_endian()), (false, 1, true));
/// assert!(!mode.uses_sp_el0());
/// // EL0: E0E counts, which is clear.
/// assert!(!Mode::new(0x0, 0x0200_0000).is_big_endian());
/// // AArch32 in user mode: SPSR_EL2.E counts.
/// let mode = Mode::new(0x210, 0);
/// assert_eq!((mode.is_aarch32(), mode.level(), mode.is_big_endian()), (true, 0, true));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mode {
    /// M\[4:0\] of SPSR_EL2.
    m: u8,
    big_endian: bool,
}

impl Mode {
    /// The mode that SPSR_EL2 and SCTLR_EL1 hold at the exit.
    ///
    /// With HCR_EL2.E2H and HCR_EL2.TGE, the programs at EL0 are the hypervisor's own, and SCTLR_EL2 takes the place of
    /// SCTLR_EL1.
    #[inline]
    pub const fn new(spsr_el2: u64, sctlr_el1: u64) -> Self {
        let m = (spsr_el2 & (spsr::AARCH32 | spsr::MODE)) as u8;
        let big_endian = if spsr_el2 & spsr::AARCH32 != 0 {
            spsr_el2 & spsr::BIG_ENDIAN
        } else if spsr_el2 & 0b1100 == 0 {
            sctlr_el1 & E0E
        } else {
            sctlr_el1 & EE
        };
        Self { m, big_endian: big_endian != 0 }
    }

    /// Whether the guest executes AArch32: A32 or T32.
    #[inline]
    pub const fn is_aarch32(self) -> bool {
        self.m & spsr::AARCH32 as u8 != 0
    }

    /// The Exception level: 0 for programs, 1 for the system under them.
    pub const fn level(self) -> u8 {
        match (self.is_aarch32(), self.m & spsr::MODE as u8) {
            (true, 0) => 0,
            (true, _) => 1,
            (false, m) => m >> 2,
        }
    }

    /// Whether the stack pointer is SP_EL0: at EL0, and at EL1 with PSTATE.SP = 0. Of AArch64.
    pub const fn uses_sp_el0(self) -> bool {
        self.m & 1 == 0
    }

    /// Whether the bytes of data are in big-endian order. Instructions never are.
    #[inline]
    pub const fn is_big_endian(self) -> bool {
        self.big_endian
    }

    /// The number of the mode, M\[3:0\].
    pub(super) const fn number(self) -> u64 {
        self.m as u64 & spsr::MODE
    }

    /// The highest virtual address.
    #[inline]
    pub(super) const fn last_address(self) -> u64 {
        if self.is_aarch32() { u32::MAX as u64 } else { u64::MAX }
    }

    /// The number that the bytes of a register's value make in memory, read as little-endian; and the way back.
    #[inline]
    pub(super) const fn in_memory(self, value: u64, size: Size) -> u64 {
        if self.big_endian { value.swap_bytes() >> (64 - size.bits()) } else { size.truncate(value) }
    }
}

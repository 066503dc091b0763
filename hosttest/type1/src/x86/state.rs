//! What the registers of the guest mean: the same for each virtual processor of x86.

use vm_device::exit::x86::{Mode, Segment};

use crate::processor::vcpu::Vcpu;

/// EFER.LMA.
const LONG_MODE_ACTIVE: u64 = 1 << 10;
/// RFLAGS.IF.
const INTERRUPT_FLAG: u64 = 1 << 9;

impl Vcpu {
    /// Whether the guest is in long mode: 64-bit mode or compatibility mode.
    pub fn is_in_long_mode(&self) -> bool {
        self.efer() & LONG_MODE_ACTIVE != 0
    }

    /// What kind of code the guest runs.
    pub fn mode(&self) -> Mode {
        let (long, default) = self.code_size();
        Mode::new(self.is_in_long_mode(), long, default)
    }

    /// The linear address of an offset into a segment. In 64-bit mode only FS and GS have a base (AMD APM vol. 1, 2.1.4), and
    /// outside it linear addresses have 32 bits.
    pub fn linear(&self, segment: Segment, offset: u64) -> u64 {
        match (self.mode(), segment) {
            (Mode::Bits64, Segment::Fs | Segment::Gs) => self.base(segment).wrapping_add(offset),
            (Mode::Bits64, _) => offset,
            _ => self.base(segment).wrapping_add(offset) & 0xffff_ffff,
        }
    }

    /// Where the guest goes on behind an instruction of so many bytes, at the end of its addresses too: outside 64-bit mode these have
    /// 32 bits.
    pub fn behind(&self, length: u32) -> u64 {
        let next = self.registers.rip.wrapping_add(length.into());
        if self.mode() == Mode::Bits64 { next } else { next & 0xffff_ffff }
    }

    /// Whether the guest has its interrupt flag set.
    pub fn accepts_interrupts(&self) -> bool {
        self.registers.rflags & INTERRUPT_FLAG != 0
    }
}

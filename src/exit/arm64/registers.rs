//! The registers that an access reads and changes.

use super::state::State;

/// The registers of a guest.
///
/// The registers of an AArch32 guest lie in the same ones: see [`State::aarch32_register`].
///
/// ```
/// use vm_device::exit::arm64::Registers;
///
/// let mut registers = Registers { pc: 0x8000, ..Registers::default() };
/// registers.set(3, 0x55);
/// assert_eq!((registers.get(3), registers.x[3]), (0x55, 0x55));
/// // 31 is XZR: it reads as 0, and what is written to it is gone.
/// registers.set(31, 0x55);
/// assert_eq!(registers.get(31), 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Registers {
    /// X0 to X30.
    pub x: [u64; 31],
    /// The stack pointer that the guest uses: SP_EL0 or SP_EL1, as [`State::uses_sp_el0`] says. Only decoded instructions read
    /// and change it.
    pub sp: u64,
    /// ELR_EL2: the address of the instruction that caused the exit.
    pub pc: u64,
    /// SPSR_EL2: the process state of the guest.
    pub spsr: u64,
}

/// Bits of SPSR_EL2 (Arm ARM DDI 0487, C5.2, "SPSR_EL2, Saved Program Status Register (EL2)").
pub(super) mod spsr {
    /// The mode, M\[3:0\].
    pub(crate) const MODE: u64 = 0xf;
    /// M\[4\]: the guest executes AArch32.
    pub(crate) const AARCH32: u64 = 1 << 4;
    /// E: data is big-endian. AArch32 only.
    pub(crate) const BIG_ENDIAN: u64 = 1 << 9;
    /// BTYPE: which branch led here. AArch64 only.
    pub(crate) const BTYPE: u64 = 0b11 << 10;
    /// SS: one more instruction is executed before a software step exception.
    pub(crate) const SOFTWARE_STEP: u64 = 1 << 21;
    /// IT\[7:2\] and IT\[1:0\]. AArch32 only.
    pub(crate) const IT: u64 = 0b11_1111 << 10 | 0b11 << 25;
}

impl Registers {
    /// The general-purpose register with this number. 31 is the zero register, as is every higher number.
    #[inline]
    pub fn get(&self, number: u8) -> u64 {
        self.x.get(usize::from(number)).copied().unwrap_or(0)
    }

    /// Sets the general-purpose register with this number. Nothing happens to the zero register.
    #[inline]
    pub fn set(&mut self, number: u8, value: u64) {
        if let Some(register) = self.x.get_mut(usize::from(number)) {
            *register = value;
        }
    }

    /// The register with this number as the base of an address: 31 is the stack pointer.
    #[inline]
    pub(super) fn base(&self, number: u8) -> u64 {
        self.x.get(usize::from(number)).copied().unwrap_or(self.sp)
    }

    /// Sets the register with this number as the base of an address.
    #[inline]
    pub(super) fn set_base(&mut self, number: u8, value: u64) {
        *self.x.get_mut(usize::from(number)).unwrap_or(&mut self.sp) = value;
    }

    /// Goes past an instruction of `length` bytes, as if it was executed: 4, or 2 for the short ones of T32.
    ///
    /// Beside the address this changes the process state: BTYPE becomes 0, the IT state of T32 goes on to the next
    /// instruction, and PSTATE.SS becomes 0, so that a guest that is stepped gets its exception after this instruction
    /// (Arm ARM DDI 0487, "Software Step exceptions").
    ///
    /// ```
    /// use vm_device::exit::arm64::Registers;
    ///
    /// // EL1 with its own stack pointer; BTYPE = 0b01, SS.
    /// let mut registers = Registers { pc: 0x8000, spsr: 0x0020_0405, ..Registers::default() };
    /// registers.advance(4);
    /// assert_eq!((registers.pc, registers.spsr), (0x8004, 5));
    /// ```
    #[inline]
    pub fn advance(&mut self, length: u8) {
        self.pc = self.pc.wrapping_add(u64::from(length));
        self.spsr &= !spsr::SOFTWARE_STEP;
        if self.spsr & spsr::AARCH32 == 0 {
            self.spsr &= !spsr::BTYPE;
        } else {
            self.pc &= u64::from(u32::MAX);
            self.spsr = next_it_state(self.spsr);
        }
    }
}

/// The process state after one instruction of an IT block (Arm ARM DDI 0487, pseudocode `AArch32.ITAdvance`). Outside of one,
/// the IT state is 0 and stays so.
const fn next_it_state(state: u64) -> u64 {
    let it = state >> 8 & 0b1111_1100 | state >> 25 & 0b11;
    let next = if it & 0b111 == 0 { 0 } else { it & 0b1110_0000 | it << 1 & 0b1_1111 };
    state & !spsr::IT | (next & 0b1111_1100) << 8 | (next & 0b11) << 25
}

impl State {
    /// Which of [`Registers::x`] holds the register `number` (0 to 14) of an AArch32 guest in its present mode: R8 to R14 have
    /// one of each for several modes. `None` in AArch64, for R15, which is the program counter, and for a register that the
    /// mode does not have at EL0 and EL1.
    ///
    /// ESR_EL2.SRT needs none of this: the processor translates the number (Arm ARM DDI 0487, D1.20.1 "Mapping of the
    /// general-purpose registers between the Execution states"). A decoder of AArch32 instructions needs it.
    ///
    /// ```
    /// use vm_device::exit::arm64::State;
    ///
    /// // Supervisor mode: its R13 is SP_svc.
    /// let state = State::new(0x1d3, 0);
    /// assert_eq!((state.aarch32_register(0), state.aarch32_register(13)), (Some(0), Some(19)));
    /// ```
    pub const fn aarch32_register(self, number: u8) -> Option<u8> {
        const FIQ: u64 = 0b0001;
        const IRQ: u64 = 0b0010;
        const SUPERVISOR: u64 = 0b0011;
        const ABORT: u64 = 0b0111;
        const UNDEFINED: u64 = 0b1011;
        if !self.is_aarch32() {
            return None;
        }
        Some(match (self.mode(), number) {
            (_, 0..=7) => number,
            (FIQ, 8..=14) => number + 16,
            (_, 8..=12) => number,
            // LR comes before SP in each of these.
            (IRQ, 13..=14) => 16 + (14 - number),
            (SUPERVISOR, 13..=14) => 18 + (14 - number),
            (ABORT, 13..=14) => 20 + (14 - number),
            (UNDEFINED, 13..=14) => 22 + (14 - number),
            (_, 13..=14) => number,
            _ => return None,
        })
    }
}

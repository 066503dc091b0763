//! The instructions that touch memory: decoded from `htinst` or from their bytes, and executed.
//!
//! | executed | by name refused |
//! |---|---|
//! | `LB` `LH` `LW` `LD` `LBU` `LHU` `LWU` `SB` `SH` `SW` `SD` | atomic memory operations, `LR`, `SC`, loads and stores of floating point, of vectors, of the hypervisor extension and of shadow stacks, cache-block operations, custom instructions |
//! | `C.LW` `C.LD` `C.SW` `C.SD` `C.LWSP` `C.LDSP` `C.SWSP` `C.SDSP` | `C.FLD` `C.FSD` `C.FLDSP` `C.FSDSP`, `C.SSPUSH`, `C.SSPOPCHK` |
//! | `C.LBU` `C.LHU` `C.LH` `C.SB` `C.SH` | |
//!
//! A hypervisor answers what is refused with the exception that a processor raises where a region of memory does not support an
//! access: load access fault (5) or store/AMO access fault (7).

mod compressed;
mod decode;
mod error;
mod execute;
mod mnemonic;

use super::fault::GuestPageFault;
use super::registers::Registers;
use crate::exit::memory::MemoryAccessKind;
use crate::exit::size::Size;

use decode::bits;

pub use decode::{MAX_LENGTH, decode};
pub use error::DecodeError;
pub use execute::fetch;

pub(super) use decode::transformed;

/// What an instruction does with its operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// Reads it into a register, as a signed number: `LB`, `LH`, `LW`, `LD`.
    Load,
    /// Reads it into a register, as a number without a sign: `LBU`, `LHU`, `LWU`.
    LoadUnsigned,
    /// Writes the low bytes of a register to it: `SB`, `SH`, `SW`, `SD`.
    Store,
}

/// Where the operand of an instruction begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Location {
    /// At a register plus an offset, as the bytes of the instruction say.
    Register {
        /// The number of the register, 0 to 31.
        base: u8,
        /// The offset in bytes, -2,048 to 2,047.
        offset: i16,
    },
    /// At the [virtual address that faulted](GuestPageFault::virtual_address), or before it, as `htinst` says.
    Fault {
        /// How many bytes before: 0, unless the operand is not aligned.
        offset: u8,
    },
}

/// A load or a store.
///
/// ```
/// use vm_device::exit::Size;
/// use vm_device::exit::riscv64::{Mode, Registers};
/// use vm_device::exit::riscv64::instruction::{Location, Operation, decode};
///
/// // `lbu a0, 5(a1)`: the line status of a UART.
/// let instruction = decode(&[0x03, 0xc5, 0x55, 0x00])?;
/// assert_eq!((instruction.operation(), instruction.size()), (Operation::LoadUnsigned, Size::Byte));
/// assert_eq!(instruction.location(), Location::Register { base: 11, offset: 5 });
///
/// let mut registers = Registers { pc: 0x8020_0000, ..Registers::default() };
/// instruction.complete(&mut registers, Mode::default(), 0x60);
/// assert_eq!((registers.get(10), registers.pc), (0x60, 0x8020_0004));
/// # Ok::<(), vm_device::exit::riscv64::instruction::DecodeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Instruction {
    /// The load or store of 4 bytes that does the same. Its low 2 bits, which all of these have set, say more: bit 1 is clear if the
    /// instruction has 2 bytes, as in `htinst`, and bit 0 is clear if it is one of `htinst`.
    word: u32,
}

/// Bit 1 of [`Instruction::word`].
const FOUR_BYTES: u32 = 2;
/// Bit 0 of [`Instruction::word`].
const FROM_BYTES: u32 = 1;
/// Of the opcode: a store, not a load.
const STORE: u32 = 0x20;
/// Of the width: no sign.
const UNSIGNED: u32 = 0x4000;

impl Instruction {
    /// What it does with its operand.
    #[inline]
    pub const fn operation(&self) -> Operation {
        match (self.writes(), self.word & UNSIGNED != 0) {
            (true, _) => Operation::Store,
            (false, true) => Operation::LoadUnsigned,
            (false, false) => Operation::Load,
        }
    }

    /// Whether it is a store.
    #[inline]
    pub const fn writes(&self) -> bool {
        self.word & STORE != 0
    }

    /// The kind of its access.
    #[inline]
    pub(super) const fn kind(&self) -> MemoryAccessKind {
        if self.writes() { MemoryAccessKind::Write } else { MemoryAccessKind::Read }
    }

    /// The size of its operand.
    #[inline]
    pub const fn size(&self) -> Size {
        match bits(self.word, 12, 2) {
            0 => Size::Byte,
            1 => Size::Word,
            2 => Size::Dword,
            _ => Size::Qword,
        }
    }

    /// The number of the register that it loads or stores, 0 to 31.
    #[inline]
    pub const fn register(&self) -> u8 {
        bits(self.word, if self.writes() { 20 } else { 7 }, 5) as u8
    }

    /// Its length in bytes, 2 or 4.
    #[inline]
    pub const fn length(&self) -> usize {
        if self.word & FOUR_BYTES != 0 { 4 } else { 2 }
    }

    /// Where its operand begins.
    #[inline]
    pub const fn location(&self) -> Location {
        let base = bits(self.word, 15, 5) as u8;
        if self.word & FROM_BYTES == 0 {
            return Location::Fault { offset: base };
        }
        // Both offsets are signed, with their upper 7 bits at the top.
        let upper = self.word.cast_signed() >> 20;
        let offset = if self.writes() { upper & !31 | bits(self.word, 7, 5) as i32 } else { upper };
        Location::Register { base, offset: offset as i16 }
    }

    /// The guest virtual address of its operand's first byte. It wraps at 64 bits.
    ///
    /// ```
    /// use vm_device::exit::riscv64::{Registers, guest_page_fault};
    /// use vm_device::exit::riscv64::instruction::decode;
    ///
    /// // `ld a0, -8(a1)`, which faults in its second page.
    /// let mut registers = Registers::default();
    /// registers.set(11, 0x2006);
    /// let fault = guest_page_fault(21, 0x2000, 0x400_0000, 0).unwrap();
    /// assert_eq!(decode(&[0x03, 0xb5, 0x85, 0xff])?.address(&registers, &fault), 0x1ffe);
    ///
    /// // The same, as a processor tells it: LD with x10, 2 bytes before.
    /// let fault = guest_page_fault(21, 0x2000, 0x400_0000, 0x13503).unwrap();
    /// let instruction = fault.instruction()?.unwrap();
    /// assert_eq!(instruction.address(&registers, &fault), 0x1ffe);
    /// # Ok::<(), vm_device::exit::riscv64::instruction::DecodeError>(())
    /// ```
    #[inline]
    pub fn address(&self, registers: &Registers, fault: &GuestPageFault) -> u64 {
        match self.location() {
            Location::Register { base, offset } => registers.get(base).wrapping_add_signed(i64::from(offset)),
            Location::Fault { offset } => fault.virtual_address.wrapping_sub(u64::from(offset)),
        }
    }
}

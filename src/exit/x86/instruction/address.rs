//! Where the memory operand of an instruction is (Intel SDM vol. 1, 3.7.5).

use core::fmt;

use super::form::Form;
use super::{Instruction, Operation};
use crate::exit::size::Size;
use crate::exit::x86::mode::{AddressSize, Segment};
use crate::exit::x86::registers::{Gpr, Register, Registers};

/// The register that an effective address starts from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Base {
    /// A general-purpose register.
    Gpr(Gpr),
    /// The instruction pointer after the instruction, in 64-bit mode.
    Rip,
}

/// A memory operand, as the instruction has it: `segment:[base + index * scale + displacement]`.
///
/// ```
/// use vm_device::exit::x86::instruction::{Base, MemoryOperand, decode};
/// use vm_device::exit::x86::{AddressSize, Gpr, Mode, Segment};
///
/// // mov al, gs:[rbx + r9 * 8 - 4]
/// let instruction = decode(&[0x65, 0x42, 0x8a, 0x44, 0xcb, 0xfc], Mode::Bits64)?;
/// let expected = MemoryOperand {
///     segment: Segment::Gs,
///     base: Some(Base::Gpr(Gpr::Rbx)),
///     index: Some(Gpr::R9),
///     scale: 8,
///     displacement: -4_i64 as u64,
///     address_size: AddressSize::Bits64,
/// };
/// assert_eq!(instruction.address(), expected);
/// # Ok::<(), vm_device::exit::x86::instruction::DecodeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryOperand {
    /// The segment: that of a prefix, or SS with RSP or RBP as the base, else DS. In 64-bit mode only FS and GS change where
    /// the operand is, and the other prefixes are ignored (Intel SDM vol. 2A, 2.1.1; AMD APM vol. 3, 1.2.4).
    pub segment: Segment,
    /// What the address starts from; `None` for nothing but index and displacement.
    pub base: Option<Base>,
    /// What is added [`scale`](Self::scale) times. With 16-bit addresses, the second register.
    pub index: Option<Gpr>,
    /// 1, 2, 4 or 8.
    pub scale: u8,
    /// Sign-extended to 64 bits. An absolute address (the opcodes A0 to A3) is not.
    pub displacement: u64,
    /// The sum is cut to this size.
    pub address_size: AddressSize,
}

/// By hand: what is derived for more than five fields can panic, as far as the linker knows.
impl fmt::Debug for MemoryOperand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOperand")
            .field("segment", &self.segment)
            .field("base", &self.base)
            .field("index", &self.index)
            .field("scale", &self.scale)
            .field("displacement", &self.displacement)
            .field("address_size", &self.address_size)
            .finish()
    }
}

/// Stored as the base: the instruction pointer, with any number below 16.
pub(super) const RIP: u8 = 1 << 4;
/// Stored as the base or the index: no register.
pub(super) const NONE: u8 = 1 << 5;

impl Instruction {
    /// The memory operand, in its parts. That of a string instruction is at RDI in ES, that of LODS at RSI: see
    /// [`operand`](Self::operand).
    pub fn address(&self) -> MemoryOperand {
        MemoryOperand {
            segment: self.operand_segment(),
            base: match self.base {
                relative if relative & RIP != 0 => Some(Base::Rip),
                number => Gpr::from_number(number).map(Base::Gpr),
            },
            index: Gpr::from_number(self.index),
            scale: if self.index == NONE { 1 } else { 1 << (self.scale & 3) },
            displacement: self.displacement,
            address_size: self.address_size,
        }
    }

    /// The segment of the memory operand and its offset into it, the effective address. It wraps at the address size.
    ///
    /// `registers` are those before the instruction, with RIP at it. What the parts alone do not say is included:
    /// - RIP-relative addresses start from the instruction after this one.
    /// - BT, BTS, BTR and BTC with a register as the bit number reach any bit in either direction. The operand is the element
    ///   that the bit is in (Intel SDM vol. 2A, 3.1.1.9, and BT).
    /// - POP with RSP as the base: RSP after the stack was popped (Intel SDM vol. 2B, POP). All of RSP or ESP counts, as with
    ///   a stack segment of the mode's size.
    /// - STOS, SCAS, MOVS and CMPS: ES:RDI. LODS: RSI. The other operand of MOVS and CMPS, at RSI, is in
    ///   [`string`](Self::string). A count of 0 has no operand.
    ///
    /// ```
    /// use vm_device::exit::x86::instruction::decode;
    /// use vm_device::exit::x86::{Gpr, Mode, Registers, Segment};
    ///
    /// let mut registers = Registers { rip: 0x1000, ..Registers::default() };
    /// registers.set(Gpr::Rbx, 0xfffe);
    /// registers.set(Gpr::Rsi, 0x10);
    /// // mov al, [bx + si] wraps at 64 KiB.
    /// assert_eq!(decode(&[0x8a, 0x00], Mode::Bits16)?.operand(&registers), (Segment::Ds, 0xe));
    /// // mov al, [rip + 2]
    /// let relative = decode(&[0x8a, 0x05, 2, 0, 0, 0], Mode::Bits64)?;
    /// assert_eq!(relative.operand(&registers), (Segment::Ds, 0x1008));
    /// # Ok::<(), vm_device::exit::x86::instruction::DecodeError>(())
    /// ```
    #[inline]
    pub fn operand(&self, registers: &Registers) -> (Segment, u64) {
        let base = match registers.gpr.get(usize::from(self.base)) {
            Some(base) => *base,
            None if self.base & RIP != 0 => self.next_rip(registers.rip),
            None => 0,
        };
        let index = match registers.gpr.get(usize::from(self.index)) {
            Some(index) => index << (self.scale & 3),
            None => 0,
        };
        let mut offset = base.wrapping_add(index).wrapping_add(self.displacement);
        if self.form.is_operand_moved() {
            offset = offset.wrapping_add(moved(registers, self.form, self.base, self.register(), self.size));
        }
        let offset = match self.address_size {
            AddressSize::Bits64 => offset,
            smaller => smaller.size().truncate(offset),
        };
        (self.operand_segment(), offset)
    }

    #[inline]
    fn operand_segment(&self) -> Segment {
        match self.segment {
            _ if self.form.is_string() && self.base == Gpr::Rdi as u8 => Segment::Es,
            Some(segment) => segment,
            None if self.base == Gpr::Rsp as u8 || self.base == Gpr::Rbp as u8 => Segment::Ss,
            None => Segment::Ds,
        }
    }
}

/// How far the operand is from what its parts say: that of a bit by its number, that of POP by the size of the stack's.
///
/// The instruction is no argument, so that nothing has to copy one that was decoded a moment ago.
#[cold]
fn moved(registers: &Registers, form: Form, base: u8, register: Register, size: Size) -> u64 {
    match form.operation {
        Operation::Pop if base == Gpr::Rsp as u8 => size.bytes() as u64,
        Operation::Pop => 0,
        _ => {
            let number = registers.read(register, size);
            let element = size.sign_extend(number) as i64 >> size.bits().trailing_zeros();
            (element as u64).wrapping_mul(size.bytes() as u64)
        }
    }
}

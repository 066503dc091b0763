//! Strings: how many elements are left, where they lie, and which of them are transferred at once.

use super::guest::X86Guest;
use super::mode::{Mode, Segment};
use super::port::StringForm;
use super::registers::{Gpr, Register, Registers, Rflags};
use crate::address::GuestAddress;
use crate::exit::memory::MemoryAccessKind;
use crate::exit::operand::{PAGE, Placed, of_operand};
use crate::exit::size::Size;

/// How many elements of a string are transferred at once, at most. The guest comes back for the rest, so that interrupts reach
/// it in between.
pub const MAX_BURST: u64 = 64;

impl StringForm {
    /// How many elements are left: RCX, CX or ECX by the address size, or 1 without a REP prefix. It can be 0, and then the
    /// instruction does nothing.
    ///
    /// ```
    /// use vm_device::exit::x86::{AddressSize, Gpr, Registers, Repeat, Segment, StringForm};
    ///
    /// let mut registers = Registers::default();
    /// registers.set(Gpr::Rcx, 0x1_0003);
    /// let form = StringForm { repeat: Repeat::Count, address_size: AddressSize::Bits16, segment: Segment::Ds };
    /// assert_eq!(form.count(&registers), 3);
    /// assert_eq!(StringForm { repeat: Repeat::Once, ..form }.count(&registers), 1);
    /// ```
    pub fn count(&self, registers: &Registers) -> u64 {
        if self.repeat.repeats() { self.read(registers, Gpr::Rcx) } else { 1 }
    }

    /// The offset of an element of `size` into its segment, the next one being number 0. `index` is RSI for the
    /// source and RDI for the destination. Offsets wrap at the address size, and go down if DF is set.
    ///
    /// ```
    /// use vm_device::exit::x86::{AddressSize, Gpr, Registers, Repeat, Rflags, Segment, Size, StringForm};
    ///
    /// let mut registers = Registers { rflags: Rflags::DF.bits(), ..Registers::default() };
    /// registers.set(Gpr::Rsi, 0x1000);
    /// let form = StringForm { repeat: Repeat::Count, address_size: AddressSize::Bits64, segment: Segment::Ds };
    /// assert_eq!(form.offset(&registers, Gpr::Rsi, Size::Word, 2), 0xffc);
    /// ```
    pub fn offset(&self, registers: &Registers, index: Gpr, size: Size, element: u64) -> u64 {
        let offset = self.read(registers, index).wrapping_add(step(registers, size).wrapping_mul(element));
        self.address_size.size().truncate(offset)
    }

    /// The same, with what the prefixes at the start of `instruction` say about address size and segment.
    pub(super) fn with_prefixes(self, instruction: &[u8], mode: Mode) -> Self {
        let mut form = Self { address_size: mode.address_size(), segment: Segment::Ds, ..self };
        for byte in instruction {
            match byte {
                0x67 => form.address_size = mode.overridden_address_size(),
                // In 64-bit mode these four are ignored (AMD APM vol. 3, 1.2.4).
                0x26 | 0x2e | 0x36 | 0x3e if mode == Mode::Bits64 => {}
                0x26 => form.segment = Segment::Es,
                0x2e => form.segment = Segment::Cs,
                0x36 => form.segment = Segment::Ss,
                0x3e => form.segment = Segment::Ds,
                0x64 => form.segment = Segment::Fs,
                0x65 => form.segment = Segment::Gs,
                0x66 | 0xf0 | 0xf2 | 0xf3 => {}
                // REX, ignored if another prefix follows.
                0x40..=0x4f if mode == Mode::Bits64 => {}
                _ => break,
            }
        }
        form
    }

    /// How many elements are to be transferred at once, unless they leave a page: not more than one if the guest single-steps
    /// (Intel SDM vol. 3B, 18.3.1.4).
    pub(super) fn wanted(&self, registers: &Registers) -> u64 {
        let limit = if registers.flags().contains(Rflags::TF) { 1 } else { MAX_BURST };
        self.count(registers).min(limit)
    }

    /// Counts `elements` of `size` as done, at most as many as are left: RCX goes down by their number, and each of `indexes`
    /// moves past them. True if none is left and the instruction is complete.
    pub(super) fn advance(&self, registers: &mut Registers, indexes: &[Gpr], size: Size, elements: u64) -> bool {
        let count = self.count(registers);
        let elements = elements.min(count);
        let left = count.wrapping_sub(elements);
        // A processor that has done nothing writes no register: a write of 32 bits would clear the upper half.
        if elements != 0 {
            for index in indexes {
                let offset = self.offset(registers, *index, size, elements);
                registers.write(Register::Low(*index), self.address_size.size(), offset);
            }
            if self.repeat.repeats() {
                registers.write(Register::Low(Gpr::Rcx), self.address_size.size(), left);
            }
        }
        left == 0
    }

    fn read(&self, registers: &Registers, register: Gpr) -> u64 {
        registers.read(Register::Low(register), self.address_size.size())
    }
}

/// The distance from one element of a string to the next.
fn step(registers: &Registers, size: Size) -> u64 {
    let bytes = size.bytes() as u64;
    if registers.flags().contains(Rflags::DF) { bytes.wrapping_neg() } else { bytes }
}

/// The elements of one operand of a string that are transferred at once: the next one, and those after it that lie whole in
/// the same page. They are contiguous, upwards or downwards.
#[derive(Clone, Copy)]
pub(super) struct Burst {
    first: Placed,
    /// From one element to the next, modulo 2^64.
    step: u64,
    elements: u64,
}

/// Where an operand of a string lies, and how it is accessed.
#[derive(Clone, Copy)]
pub(super) struct StringOperand {
    pub(super) segment: Segment,
    /// RSI or RDI.
    pub(super) index: Gpr,
    pub(super) size: Size,
    pub(super) kind: MemoryAccessKind,
    /// The highest linear address.
    pub(super) last: u64,
    /// The guest physical address of an access to the next element, if the exit told it.
    pub(super) known: Option<GuestAddress>,
}

impl Burst {
    /// Places the next element, and as many after it as are wanted and can be reached without a fault.
    ///
    /// # Errors
    /// A fault of the next element.
    pub(super) fn new<G: X86Guest>(
        form: StringForm,
        operand: StringOperand,
        wanted: u64,
        registers: &Registers,
        guest: &mut G,
    ) -> Result<Self, G::Fault> {
        let StringOperand { segment, index, size, kind, last, known } = operand;
        let bytes = size.bytes() as u64;
        let offset = form.offset(registers, index, size, 0);
        let linear = guest.linear(segment, offset, size.bytes(), kind)?;
        let known = of_operand(linear, size.bytes(), known);
        let first = Placed::new(guest, linear, size.bytes(), last, kind, known)?;
        let is_down = registers.flags().contains(Rflags::DF);
        // How many bytes there are behind the first element, or before it, in the page and up to where the offset wraps.
        let (in_page, in_segment) = if is_down {
            (linear % PAGE, offset)
        } else {
            let end = form.address_size.size().mask();
            (PAGE.wrapping_sub(bytes).saturating_sub(linear % PAGE), end.wrapping_sub(offset))
        };
        let mut elements = 1;
        if first.is_whole() && wanted > 1 {
            elements = (in_page.min(in_segment) / bytes).saturating_add(1).min(wanted);
            let before = if is_down { bytes.wrapping_mul(elements.wrapping_sub(1)) } else { 0 };
            let length = bytes.wrapping_mul(elements) as usize;
            let all = guest.linear(segment, offset.wrapping_sub(before), length, kind);
            if all.ok() != Some(linear.wrapping_sub(before)) {
                elements = 1;
            }
        }
        Ok(Self { first, step: step(registers, size), elements })
    }

    /// How many elements there are: at least one.
    pub(super) const fn elements(&self) -> u64 {
        self.elements
    }

    /// The element with this number.
    pub(super) const fn element(&self, number: u64) -> Placed {
        self.first.beside(self.step.wrapping_mul(number))
    }
}

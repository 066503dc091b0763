//! The registers after an access: what a port instruction or a string instruction does when its data was transferred.

use super::mode::{Mode, Segment};
use super::port::{PortAccess, PortDirection, StringForm};
use super::registers::{Gpr, Register, Registers, Rflags};
use crate::exit::size::Size;

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
    ///
    /// For processors that do not report them: see [`svm::port_access`](super::svm::port_access).
    pub fn with_prefixes(self, instruction: &[u8], mode: Mode) -> Self {
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
                _ => break,
            }
        }
        form
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

impl PortAccess {
    /// What `OUT` writes to the port: AL, AX or EAX.
    ///
    /// ```
    /// use vm_device::exit::x86::{Gpr, Mode, Registers, svm};
    ///
    /// // `out dx, al`.
    /// let access = svm::port_access(0x03f8_0010, 0x1001, Mode::Bits64)?;
    /// let mut registers = Registers::default();
    /// registers.set(Gpr::Rax, 0x1234);
    /// assert_eq!(access.output(&registers), 0x34);
    /// # Ok::<(), vm_device::exit::x86::ExitError>(())
    /// ```
    pub fn output(&self, registers: &Registers) -> u64 {
        registers.read(Register::Low(Gpr::Rax), self.size)
    }

    /// The registers after `IN` or `OUT`. `input` is what the port returned; `OUT` ignores it.
    ///
    /// `IN` of 8 and 16 bits is merged into RAX; `IN` of 32 bits is zero-extended. For `INS` and `OUTS` this is the same as
    /// [`complete_string`](Self::complete_string) with one element.
    ///
    /// ```
    /// use vm_device::exit::x86::{Gpr, Mode, Registers, svm};
    ///
    /// let mut registers = Registers::default();
    /// registers.set(Gpr::Rax, 0x1111_2222_3333_4444);
    /// let in_al_dx = svm::port_access(0x03f8_0011, 0x7c01, Mode::Bits16)?;
    /// assert_eq!(in_al_dx.complete(&registers, 0x5a).rax(), 0x1111_2222_3333_445a);
    /// let in_eax_dx = svm::port_access(0x0cfc_0041, 0x7c02, Mode::Bits16)?;
    /// assert_eq!(in_eax_dx.complete(&registers, 0x5a).rax(), 0x5a);
    /// # Ok::<(), vm_device::exit::x86::ExitError>(())
    /// ```
    #[must_use = "the registers after the access are what the guest resumes with"]
    pub fn complete(&self, registers: &Registers, input: u64) -> Registers {
        if self.string.is_some() {
            return self.complete_string(registers, 1);
        }
        let mut after = *registers;
        if self.direction == PortDirection::In {
            after.write(Register::Low(Gpr::Rax), self.size, input);
        }
        after.resume_at(self.next_rip);
        after
    }

    /// How many elements the instruction has left to transfer. 1 for `IN` and `OUT`; can be 0 for a REP form.
    pub fn count(&self, registers: &Registers) -> u64 {
        self.string.map_or(1, |string| string.count(registers))
    }

    /// Where in memory an element of `INS` or `OUTS` lies, the next one being number 0: its segment, and its offset into
    /// it. `None` for `IN` and `OUT`.
    ///
    /// The elements need not be contiguous upwards: they go down if DF is set, and wrap at the address size.
    pub fn element(&self, registers: &Registers, element: u64) -> Option<(Segment, u64)> {
        let string = self.string?;
        let segment = match self.direction {
            PortDirection::In => Segment::Es,
            PortDirection::Out => string.segment,
        };
        Some((segment, string.offset(registers, self.index(), self.size, element)))
    }

    /// The registers after `elements` elements of `INS` or `OUTS` were transferred: RDI or RSI has moved past them, and RCX has
    /// gone down by their number. A greater number than is left counts as all that are left.
    ///
    /// If elements are left, RIP stays, and the guest resumes with the same instruction for the rest. So a hypervisor may
    /// transfer any number at a time, and take interrupts in between, as a processor does.
    ///
    /// ```
    /// use vm_device::exit::x86::{Gpr, Mode, Registers, Segment, svm};
    ///
    /// // `rep insw` with a 16-bit address size, CX = 3, DI = 0xfffe.
    /// let access = svm::port_access(0x01f0_00ad, 0x7c02, Mode::Bits16)?;
    /// let mut registers = Registers { rip: 0x7c00, ..Registers::default() };
    /// registers.set(Gpr::Rcx, 3);
    /// registers.set(Gpr::Rdi, 0xfffe);
    /// assert_eq!(access.count(&registers), 3);
    /// assert_eq!(access.element(&registers, 0), Some((Segment::Es, 0xfffe)));
    /// assert_eq!(access.element(&registers, 1), Some((Segment::Es, 0)));
    ///
    /// let part = access.complete_string(&registers, 2);
    /// assert_eq!((part.get(Gpr::Rcx), part.get(Gpr::Rdi), part.rip), (1, 2, 0x7c00));
    /// let all = access.complete_string(&registers, 3);
    /// assert_eq!((all.get(Gpr::Rcx), all.get(Gpr::Rdi), all.rip), (0, 4, 0x7c02));
    /// # Ok::<(), vm_device::exit::x86::ExitError>(())
    /// ```
    #[must_use = "the registers after the access are what the guest resumes with"]
    pub fn complete_string(&self, registers: &Registers, elements: u64) -> Registers {
        let mut after = *registers;
        let complete =
            self.string.is_none_or(|string| string.advance(&mut after, &[self.index()], self.size, elements));
        if complete {
            after.resume_at(self.next_rip);
        }
        after
    }

    /// The same access, with what the prefixes of the instruction's bytes say of a string's address size and segment.
    ///
    /// For processors that do not report them: see [`svm::port_access`](super::svm::port_access).
    ///
    /// ```
    /// use vm_device::exit::x86::{AddressSize, Mode, Segment, svm};
    ///
    /// // `rep outs dx, byte fs:[esi]` on a processor that reports neither address size nor segment.
    /// let access = svm::port_access(0x03f8_001c, 0x1004, Mode::Bits64)?;
    /// let string = access.with_prefixes(&[0x64, 0x67, 0xf3, 0x6e], Mode::Bits64).string.unwrap();
    /// assert_eq!((string.address_size, string.segment), (AddressSize::Bits32, Segment::Fs));
    /// # Ok::<(), vm_device::exit::x86::ExitError>(())
    /// ```
    pub fn with_prefixes(self, instruction: &[u8], mode: Mode) -> Self {
        Self { string: self.string.map(|string| string.with_prefixes(instruction, mode)), ..self }
    }

    fn index(&self) -> Gpr {
        match self.direction {
            PortDirection::In => Gpr::Rdi,
            PortDirection::Out => Gpr::Rsi,
        }
    }
}

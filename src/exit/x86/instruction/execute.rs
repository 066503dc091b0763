//! The rest of an instruction, after its access to memory.

use super::{Extension, Instruction, Operand, Operation, arithmetic};
use crate::exit::x86::registers::{Gpr, Register, Registers};

/// The outcome of an instruction.
///
/// ```
/// use vm_device::exit::x86::instruction::decode;
/// use vm_device::exit::x86::{Gpr, Mode, Registers};
///
/// // mov eax, [rdi] reads, and writes nothing.
/// let instruction = decode(&[0x8b, 0x07], Mode::Bits64)?;
/// let outcome = instruction.execute(&Registers { rip: 0x1000, ..Registers::default() }, 7);
/// assert_eq!((outcome.registers.get(Gpr::Rax), outcome.registers.rip, outcome.write), (7, 0x1002, None));
/// # Ok::<(), vm_device::exit::x86::instruction::DecodeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the access is not complete before the value is written and the registers are loaded"]
pub struct Outcome {
    /// The registers after it. RIP is behind the instruction, or still at it if a REP prefix makes it go on with the next
    /// element.
    pub registers: Registers,
    /// The value to write to memory, in the low [`size`](Instruction::size) bytes; `None` if it writes nothing.
    pub write: Option<u64>,
}

impl Instruction {
    /// Executes the instruction, once: with REP, one element.
    ///
    /// `read` is what memory held, in the low [`size`](Self::size) bytes; the rest is ignored, and all of it if the
    /// instruction does not [read](super::Direction::reads). A REP form with a count of 0 does nothing, and writes nothing.
    ///
    /// BT, BTS, BTR and BTC with a register as the bit number address memory next to their operand, in steps of its
    /// size. The exit reports that address, so that only the number modulo the size in bits counts here.
    ///
    /// ```
    /// use vm_device::exit::x86::instruction::decode;
    /// use vm_device::exit::x86::{Gpr, Mode, Registers};
    ///
    /// // mov [0x9000], ah in real mode
    /// let instruction = decode(&[0x88, 0x26, 0x00, 0x90], Mode::Bits16)?;
    /// let mut registers = Registers { rip: 0x7c00, ..Registers::default() };
    /// registers.set(Gpr::Rax, 0x1234);
    /// let outcome = instruction.execute(&registers, 0);
    /// assert_eq!((outcome.write, outcome.registers.rip), (Some(0x12), 0x7c04));
    /// # Ok::<(), vm_device::exit::x86::instruction::DecodeError>(())
    /// ```
    pub fn execute(&self, registers: &Registers, read: u64) -> Outcome {
        let mut after = *registers;
        let mut write = None;
        if self.string().is_none_or(|string| string.count(registers) != 0) {
            write = self.transfer(&mut after, read);
        }
        if self.string().is_none_or(|string| string.advance(&mut after, self.indexes(), self.size, 1)) {
            after.resume_at(self.next_rip(registers.rip));
        }
        Outcome { registers: after, write }
    }

    /// Everything but RIP and the registers of a string. Returns the value to write.
    fn transfer(&self, registers: &mut Registers, read: u64) -> Option<u64> {
        let accumulator = Register::Low(Gpr::Rax);
        let destination = self.value(self.destination(), registers, read);
        let source = self.value(self.source(), registers, read);
        let (mut result, rflags) = match self.operation() {
            Operation::Cmpxchg => {
                let expected = registers.read(accumulator, self.size);
                arithmetic::compute(self.operation(), expected, destination, self.size, registers.rflags)
            }
            operation => arithmetic::compute(operation, destination, source, self.size, registers.rflags),
        };
        registers.rflags = rflags;
        match (self.operation(), self.source()) {
            (Operation::Xchg | Operation::Xadd, Operand::Register(other)) => {
                registers.write(other, self.size, destination);
            }
            // The result is the difference: 0 if RAX was the old value.
            (Operation::Cmpxchg, _) if result == 0 => result = source,
            (Operation::Cmpxchg, _) => {
                registers.write(accumulator, self.size, destination);
                result = destination;
            }
            _ => {}
        }
        match self.destination() {
            Operand::Register(register) if !self.operation().keeps_destination() => {
                let (register_size, extension) = self.register_size();
                let extended = match extension {
                    Extension::Zero => result,
                    Extension::Sign => self.size.sign_extend(result),
                };
                registers.write(register, register_size, extended);
                None
            }
            _ => self.direction().writes().then_some(result),
        }
    }

    fn value(&self, operand: Operand, registers: &Registers, read: u64) -> u64 {
        match operand {
            Operand::Memory => self.size.truncate(read),
            Operand::Register(register) => registers.read(register, self.size),
            Operand::Immediate(value) => self.size.truncate(value),
            Operand::Vector(_) | Operand::Stack => 0,
        }
    }

    /// The index registers that a string instruction moves.
    fn indexes(&self) -> &'static [Gpr] {
        match (self.destination(), self.source()) {
            (Operand::Memory, Operand::Memory) => &[Gpr::Rsi, Gpr::Rdi],
            (Operand::Memory, _) => &[Gpr::Rdi],
            _ => &[Gpr::Rsi],
        }
    }
}

//! What an instruction makes of the value of its memory operand.

use super::super::arithmetic::compute;
use super::super::form::Other;
use super::super::{Extension, Instruction, Operation};
use crate::exit::x86::registers::{Gpr, Register, Registers};

/// What changes when an instruction is executed, but for RIP.
#[derive(Clone, Copy)]
pub(super) struct Effect {
    /// The new value of the memory operand, for an instruction that writes it.
    pub(super) memory: u64,
    register: Written,
    rflags: u64,
}

/// The register that is written.
#[derive(Clone, Copy)]
enum Written {
    None,
    /// The register operand, with what memory held or what was computed.
    Operand(u64),
    /// RAX.
    Accumulator(u64),
}

const ACCUMULATOR: Register = Register::Low(Gpr::Rax);

impl Instruction {
    /// The effect of an instruction that has one memory operand of at most 8 bytes and is no move. `memory` is its value.
    #[inline]
    pub(super) fn effect(&self, registers: &Registers, memory: u64) -> Effect {
        let (size, operation) = (self.size, self.form.operation);
        let other = self.other_value(registers, memory);
        let (destination, source) = match operation {
            Operation::Cmpxchg => (registers.read(ACCUMULATOR, size), memory),
            _ if self.form.is_load() => (other, memory),
            _ => (memory, other),
        };
        let (result, rflags) = compute(operation, destination, source, size, registers.rflags);
        let (memory, register) = match operation {
            Operation::Xchg | Operation::Xadd => (result, Written::Operand(memory)),
            // The result is the difference. If RAX was not the old value, that is written back.
            Operation::Cmpxchg if result == 0 => (other, Written::None),
            Operation::Cmpxchg => (memory, Written::Accumulator(memory)),
            _ if self.form.is_load() && !operation.keeps_destination() => (memory, Written::Operand(result)),
            _ => (result, Written::None),
        };
        Effect { memory, register, rflags }
    }

    #[inline]
    pub(super) fn commit(&self, effect: Effect, registers: &mut Registers) {
        match effect.register {
            Written::None => {}
            Written::Operand(value) => registers.write(self.register(), self.size, value),
            Written::Accumulator(value) => registers.write(ACCUMULATOR, self.size, value),
        }
        registers.rflags = effect.rflags;
    }

    /// The value of what is on the other side of the memory operand, which holds `memory`.
    #[inline]
    pub(super) fn other_value(&self, registers: &Registers, memory: u64) -> u64 {
        match self.form.other {
            Other::Immediate => self.size.truncate(self.immediate as u64),
            Other::One => 1,
            Other::Itself => memory,
            _ => registers.read(self.register(), self.size),
        }
    }

    /// The register operand of a move becomes `value`.
    #[inline]
    pub(super) fn load(&self, registers: &mut Registers, value: u64) {
        let (size, extension) = self.register_size();
        let value = match extension {
            Extension::Zero => value,
            Extension::Sign => self.size.sign_extend(value),
        };
        registers.write(self.register(), size, value);
    }
}

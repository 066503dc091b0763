//! What an instruction makes of the value of its memory operand.

use super::super::arithmetic::compute;
use super::super::form::Other;
use super::super::{Extension, Instruction, Operation};
use crate::exit::size::Size;
use crate::exit::x86::registers::{Gpr, Register, Registers};

/// What changes when an instruction is executed, but for RIP.
#[derive(Clone, Copy)]
pub(super) struct Effect {
    /// The new value of the memory operand, for an instruction that writes it.
    pub(super) memory: u64,
    pub(super) register: Option<(Register, Size, u64)>,
    pub(super) rflags: u64,
}

impl Effect {
    #[inline]
    pub(super) fn commit(&self, registers: &mut Registers) {
        if let Some((register, size, value)) = self.register {
            registers.write(register, size, value);
        }
        registers.rflags = self.rflags;
    }
}

impl Instruction {
    /// The effect of an instruction that has one memory operand of at most 8 bytes. `memory` is its value, for one that reads
    /// it.
    #[inline]
    pub(super) fn effect(&self, registers: &Registers, memory: u64) -> Effect {
        let size = self.size;
        let other = match self.form.other {
            Other::Immediate => size.truncate(self.immediate as u64),
            Other::One => 1,
            Other::Itself => memory,
            _ => registers.read(self.register(), size),
        };
        let rflags = registers.rflags;
        match self.form.operation {
            Operation::Move if self.form.is_load() => self.loaded(memory, rflags),
            Operation::Move => Effect { memory: other, register: None, rflags },
            operation => self.computed(operation, registers, memory, other),
        }
    }

    /// A register becomes `value`.
    #[inline]
    fn loaded(&self, value: u64, rflags: u64) -> Effect {
        let (size, extension) = self.register_size();
        let value = match extension {
            Extension::Zero => value,
            Extension::Sign => self.size.sign_extend(value),
        };
        Effect { memory: 0, register: Some((self.register(), size, value)), rflags }
    }

    fn computed(&self, operation: Operation, registers: &Registers, memory: u64, other: u64) -> Effect {
        let size = self.size;
        let is_load = self.form.is_load();
        let accumulator = Register::Low(Gpr::Rax);
        let (destination, source) = match operation {
            Operation::Cmpxchg => (registers.read(accumulator, size), memory),
            _ if is_load => (other, memory),
            _ => (memory, other),
        };
        let (result, rflags) = compute(operation, destination, source, size, registers.rflags);
        match operation {
            Operation::Xchg | Operation::Xadd => {
                Effect { memory: result, register: Some((self.register(), size, memory)), rflags }
            }
            // The result is the difference. If RAX was not the old value, that is written back.
            Operation::Cmpxchg if result == 0 => Effect { memory: other, register: None, rflags },
            Operation::Cmpxchg => Effect { memory, register: Some((accumulator, size, memory)), rflags },
            _ if is_load && !operation.keeps_destination() => self.loaded(result, rflags),
            _ => Effect { memory: result, register: None, rflags },
        }
    }
}

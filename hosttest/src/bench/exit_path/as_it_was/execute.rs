//! The rest of an instruction after its access, by values.

use vm_device::exit::x86::{Gpr, PortAccess, PortDirection, Register, Registers, Rflags};

use super::{Extension, Instruction, Operand, Operation, Outcome, arithmetic};

/// Completing an instruction clears RF.
fn resume_at(registers: &mut Registers, rip: u64) {
    registers.rip = rip;
    registers.rflags &= !Rflags::RF.bits();
}

/// The registers after `IN` or `OUT`.
pub(in super::super) fn complete(access: &PortAccess, registers: &Registers, input: u64) -> Registers {
    let mut after = *registers;
    if access.direction == PortDirection::In {
        after.write(Register::Low(Gpr::Rax), access.size, input);
    }
    resume_at(&mut after, access.next_rip);
    after
}

impl Instruction {
    /// Executes the instruction; `read` is what memory held.
    pub(in super::super) fn execute(&self, registers: &Registers, read: u64) -> Outcome {
        let mut after = *registers;
        let write = self.transfer(&mut after, read);
        resume_at(&mut after, registers.rip.wrapping_add(self.length.into()));
        Outcome { registers: after, write }
    }

    /// Everything but RIP. Returns the value to write.
    fn transfer(&self, registers: &mut Registers, read: u64) -> Option<u64> {
        let accumulator = Register::Low(Gpr::Rax);
        let destination = self.value(self.destination, registers, read);
        let source = self.value(self.source, registers, read);
        let (mut result, rflags) = match self.operation {
            Operation::Cmpxchg => {
                let expected = registers.read(accumulator, self.size);
                arithmetic::compute(self.operation, expected, destination, self.size, registers.rflags)
            }
            operation => arithmetic::compute(operation, destination, source, self.size, registers.rflags),
        };
        registers.rflags = rflags;
        match (self.operation, self.source) {
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
        match self.destination {
            Operand::Register(register) if !self.operation.only_compares() => {
                let extended = match self.extension {
                    Extension::Zero => result,
                    Extension::Sign => self.size.sign_extend(result),
                };
                registers.write(register, self.register_size, extended);
                None
            }
            _ => self.writes().then_some(result),
        }
    }

    fn value(&self, operand: Operand, registers: &Registers, read: u64) -> u64 {
        match operand {
            Operand::Memory => self.size.truncate(read),
            Operand::Register(register) => registers.read(register, self.size),
            Operand::Immediate(value) => self.size.truncate(value),
        }
    }
}

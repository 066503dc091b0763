//! PUSH and POP with a memory operand.

use super::super::{Instruction, Operation};
use crate::exit::memory::MemoryAccessKind;
use crate::exit::operand::Placed;
use crate::exit::x86::guest::X86Guest;
use crate::exit::x86::mode::{Mode, Segment};
use crate::exit::x86::registers::{Gpr, Register, Registers};

impl Instruction {
    #[inline(never)]
    pub(super) fn execute_stack<G: X86Guest>(&self, registers: &mut Registers, guest: &mut G) -> Result<(), G::Fault> {
        let width = match self.mode {
            Mode::Bits64 => self.mode.address_size(),
            _ => guest.stack_address_size(self.mode),
        }
        .size();
        let bytes = self.bytes() as u64;
        let pointer = registers.read(Register::Low(Gpr::Rsp), width);
        let is_push = self.form.operation == Operation::Push;
        let top = if is_push { width.truncate(pointer.wrapping_sub(bytes)) } else { pointer };
        let (source, destination) = if is_push {
            let source = self.stack_operand(MemoryAccessKind::Read, registers, guest)?;
            (source, self.top_of_stack(top, MemoryAccessKind::Write, guest)?)
        } else {
            let source = self.top_of_stack(top, MemoryAccessKind::Read, guest)?;
            (source, self.stack_operand(MemoryAccessKind::Write, registers, guest)?)
        };
        let mut data = [0; 8];
        let data = self.size.of(&mut data);
        source.read(guest, data)?;
        destination.write(guest, data)?;
        let pointer = if is_push { top } else { pointer.wrapping_add(bytes) };
        registers.write(Register::Low(Gpr::Rsp), width, pointer);
        registers.resume_at(self.next_rip(registers.rip));
        Ok(())
    }

    fn stack_operand<G: X86Guest>(
        &self,
        kind: MemoryAccessKind,
        registers: &Registers,
        guest: &mut G,
    ) -> Result<Placed, G::Fault> {
        let linear = self.linear(kind, registers, guest)?;
        self.place(linear, kind, None, guest)
    }

    fn top_of_stack<G: X86Guest>(&self, top: u64, kind: MemoryAccessKind, guest: &mut G) -> Result<Placed, G::Fault> {
        let linear = guest.linear(Segment::Ss, top, self.bytes(), kind)?;
        self.place(linear, kind, None, guest)
    }
}

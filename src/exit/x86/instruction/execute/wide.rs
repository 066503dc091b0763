//! Operands of 16 and 32 bytes, and pairs of registers.

use super::super::Instruction;
use super::known;
use crate::exit::guest::ExecuteError;
use crate::exit::memory::{MemoryAccess, MemoryAccessKind};
use crate::exit::operand::MAX_OPERAND;
use crate::exit::size::Size;
use crate::exit::x86::guest::X86Guest;
use crate::exit::x86::registers::{Gpr, Register, Registers, Rflags};

/// The bytes of a vector register of SSE.
const XMM: usize = 16;

impl Instruction {
    /// A move between memory and a vector register.
    #[inline(never)]
    pub(super) fn execute_vector<G: X86Guest>(
        &self,
        registers: &mut Registers,
        access: &MemoryAccess,
        guest: &mut G,
    ) -> Result<(), ExecuteError<G::Fault>> {
        let before = guest.vector(self.register).ok_or(ExecuteError::NoVectorRegisters)?;
        let is_load = self.form.is_load();
        let kind = if is_load { MemoryAccessKind::Read } else { MemoryAccessKind::Write };
        let linear = self.linear(kind, registers, guest)?;
        if self.form.is_aligned() {
            self.check_alignment(linear)?;
        }
        let place = self.place(linear, kind, known(access, kind), guest)?;
        if is_load {
            let mut read = [0; MAX_OPERAND];
            place.read(guest, read.get_mut(..self.bytes()).unwrap_or_default())?;
            let kept = if self.vex { MAX_OPERAND } else { XMM };
            for (read, before) in read.iter_mut().zip(before).skip(kept) {
                *read = before;
            }
            guest.set_vector(self.register, read);
        } else {
            place.write(guest, before.get(..self.bytes()).unwrap_or_default())?;
        }
        registers.resume_at(self.next_rip(registers.rip));
        Ok(())
    }

    /// CMPXCHG8B and CMPXCHG16B.
    #[inline(never)]
    pub(super) fn execute_pair<G: X86Guest>(
        &self,
        registers: &mut Registers,
        access: &MemoryAccess,
        guest: &mut G,
    ) -> Result<(), ExecuteError<G::Fault>> {
        let kind = MemoryAccessKind::Write;
        let linear = self.linear(kind, registers, guest)?;
        if self.size == Size::Qword {
            self.check_alignment(linear)?;
        }
        let place = self.place(linear, kind, known(access, kind), guest)?;
        let mut data = [0; 2 * 8];
        place.read(guest, data.get_mut(..self.bytes()).unwrap_or_default())?;

        let pair = |low, high| [low, high].map(|gpr| registers.read(Register::Low(gpr), self.size));
        let value = u128::from_le_bytes(data);
        let found = [value, value >> self.size.bits()].map(|half| self.size.truncate(half as u64));
        let is_equal = found == pair(Gpr::Rax, Gpr::Rdx);
        if is_equal {
            let [low, high] = pair(Gpr::Rbx, Gpr::Rcx);
            data = (u128::from(high) << self.size.bits() | u128::from(low)).to_le_bytes();
        }
        place.write(guest, data.get(..self.bytes()).unwrap_or_default())?;

        let mut flags = registers.flags();
        flags.set(Rflags::ZF, is_equal);
        registers.rflags = flags.bits();
        if !is_equal {
            for (gpr, value) in [Gpr::Rax, Gpr::Rdx].into_iter().zip(found) {
                registers.write(Register::Low(gpr), self.size, value);
            }
        }
        registers.resume_at(self.next_rip(registers.rip));
        Ok(())
    }

    fn check_alignment<F>(&self, linear: u64) -> Result<(), ExecuteError<F>> {
        let within = (self.bytes() as u64).wrapping_sub(1);
        if linear & within == 0 { Ok(()) } else { Err(ExecuteError::Misaligned(linear)) }
    }
}

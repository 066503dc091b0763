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
        let data = data.get_mut(..self.bytes()).unwrap_or_default();
        place.read(guest, data)?;

        let pair = |low, high| [low, high].map(|gpr| registers.read(Register::Low(gpr), self.size));
        let mut found = [0; 2];
        for (found, half) in found.iter_mut().zip(data.chunks(self.size.bytes())) {
            *found = half.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        let is_equal = found == pair(Gpr::Rax, Gpr::Rdx);
        let written = if is_equal { pair(Gpr::Rbx, Gpr::Rcx) } else { found };
        for (half, value) in data.chunks_mut(self.size.bytes()).zip(written) {
            for (byte, value) in half.iter_mut().zip(value.to_le_bytes()) {
                *byte = value;
            }
        }
        place.write(guest, data)?;

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

//! STOS, LODS, MOVS, CMPS and SCAS, in bursts.

use super::super::arithmetic::compute;
use super::super::{Direction, Instruction, Operation};
use super::known;
use crate::exit::memory::{MemoryAccess, MemoryAccessKind};
use crate::exit::operand::Placed;
use crate::exit::x86::guest::X86Guest;
use crate::exit::x86::mode::Segment;
use crate::exit::x86::port::{Repeat, StringForm};
use crate::exit::x86::registers::{Gpr, Register, Registers, Rflags};
use crate::exit::x86::string::{Burst, StringOperand};

/// The operands of a string: in memory at RSI and at RDI, or RAX where there is none.
#[derive(Clone, Copy)]
struct Operands<P> {
    source: Option<P>,
    destination: Option<P>,
}

/// What an element leaves in RAX and in the flags.
#[derive(Clone, Copy)]
struct Left {
    rax: u64,
    rflags: u64,
}

impl Instruction {
    #[inline(never)]
    pub(super) fn execute_string<G: X86Guest>(
        &self,
        registers: &mut Registers,
        access: &MemoryAccess,
        guest: &mut G,
    ) -> Result<(), G::Fault> {
        let Some(form) = self.string() else { return Ok(()) };
        let wanted = form.wanted(registers);
        let accumulator = Register::Low(Gpr::Rax);
        let mut left = Left { rax: registers.read(accumulator, self.size), rflags: registers.rflags };
        let (mut done, mut ends, mut outcome) = (0, false, Ok(()));
        if wanted != 0 {
            let (bursts, elements) = self.bursts(form, wanted, registers, access, guest)?;
            while done < elements && !ends && (done == 0 || !guest.is_interrupted()) {
                match self.transfer(bursts.at(done), left, guest) {
                    Ok(after) => left = after,
                    Err(fault) => {
                        outcome = Err(fault);
                        break;
                    }
                }
                done = done.wrapping_add(1);
                let is_equal = Rflags::from_bits_retain(left.rflags).contains(Rflags::ZF);
                ends = match form.repeat {
                    Repeat::WhileEqual => !is_equal,
                    Repeat::WhileNotEqual => is_equal,
                    Repeat::Once | Repeat::Count => false,
                };
            }
        }
        if done != 0 && self.is_lods() {
            registers.write(accumulator, self.size, left.rax);
        }
        if form.advance(registers, self.indexes(), self.size, done) || ends {
            registers.rflags = left.rflags;
            registers.resume_at(self.next_rip(registers.rip));
        }
        outcome
    }

    /// Places the operands, and tells how many elements of all of them are reached.
    fn bursts<G: X86Guest>(
        &self,
        form: StringForm,
        wanted: u64,
        registers: &Registers,
        access: &MemoryAccess,
        guest: &mut G,
    ) -> Result<(Operands<Burst>, u64), G::Fault> {
        let (mut bursts, mut elements) = (Operands { source: None, destination: None }, wanted);
        for index in self.indexes() {
            let is_source = *index == Gpr::Rsi;
            let kind =
                if is_source || !self.direction().writes() { MemoryAccessKind::Read } else { MemoryAccessKind::Write };
            let operand = StringOperand {
                segment: if is_source { form.segment } else { Segment::Es },
                index: *index,
                size: self.size,
                kind,
                last: self.mode.last_linear(),
                known: if self.indexes().len() == 1 { known(access, kind) } else { None },
            };
            let burst = Burst::new(form, operand, elements, registers, guest)?;
            elements = burst.elements();
            *(if is_source { &mut bursts.source } else { &mut bursts.destination }) = Some(burst);
        }
        Ok((bursts, elements))
    }

    /// Transfers or compares one element.
    fn transfer<G: X86Guest>(&self, places: Operands<Placed>, left: Left, guest: &mut G) -> Result<Left, G::Fault> {
        let mut data = left.rax.to_le_bytes();
        if let Some(source) = places.source {
            source.read(guest, self.size.of(&mut data))?;
        }
        let value = u64::from_le_bytes(data);
        let Some(destination) = places.destination else { return Ok(Left { rax: value, ..left }) };
        if self.direction().writes() {
            destination.write(guest, self.size.of(&mut data))?;
            return Ok(left);
        }
        let mut second = [0; 8];
        destination.read(guest, self.size.of(&mut second))?;
        let (_, rflags) = compute(Operation::Cmp, value, u64::from_le_bytes(second), self.size, left.rflags);
        Ok(Left { rflags, ..left })
    }

    fn is_lods(&self) -> bool {
        self.base == Gpr::Rsi as u8
    }

    /// The index registers that the instruction moves: those of the operands it has in memory.
    fn indexes(&self) -> &'static [Gpr] {
        match self.direction() {
            Direction::Copy | Direction::Compare => &[Gpr::Rsi, Gpr::Rdi],
            _ if self.is_lods() => &[Gpr::Rsi],
            _ => &[Gpr::Rdi],
        }
    }
}

impl Operands<Burst> {
    fn at(&self, element: u64) -> Operands<Placed> {
        let place = |burst: Option<Burst>| burst.map(|burst| burst.element(element));
        Operands { source: place(self.source), destination: place(self.destination) }
    }
}

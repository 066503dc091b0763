//! The instruction, executed on a guest.

mod effect;
mod stack;
mod strings;
mod wide;

use super::{Instruction, Operation};
use crate::address::GuestAddress;
use crate::exit::guest::ExecuteError;
use crate::exit::memory::{MemoryAccess, MemoryAccessKind};
use crate::exit::operand::{Placed, in_known_page};
use crate::exit::x86::guest::X86Guest;
use crate::exit::x86::registers::Registers;

impl Instruction {
    /// Executes the instruction: reads and writes its operands, and changes the registers, RIP with them.
    ///
    /// `access` is what the exit told. Where the operand is one and lies in one page, it is in the page of that access, and is
    /// not translated again; every other one is. An exit of another kind than the instruction's access (of a read, where the
    /// guest has meanwhile put an instruction that writes) tells nothing about its operand.
    ///
    /// The order is that of the processor: all operands are translated, those that are read before those that are written, and
    /// what is read and written as a write; then they are read, and written; the registers change last. The exit of an access
    /// to a string is executed as a burst of at most [`MAX_BURST`](crate::exit::x86::MAX_BURST) elements, which ends where an
    /// operand leaves its page, where an interrupt [waits](X86Guest::is_interrupted), or after one if the guest single-steps.
    /// If elements are left, RIP stays, and the guest comes back for them.
    ///
    /// - A string with a count of 0 changes nothing but RIP. With the prefix `67` in 64-bit mode Intel's processors clear the upper
    ///   halves of RCX and of some of RSI and RDI then, AMD's do not, and neither manual says so: here they stay.
    /// - CMPS and SCAS set the flags when they end, so that a fault in the middle leaves those from before
    ///   (Intel SDM vol. 2B, REP).
    /// - Elements that a burst did before its end or its failure are done, and RCX, RSI and RDI count them.
    ///
    /// ```
    /// # mod flat { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/flat.rs")); }
    /// # use flat::Flat;
    /// use vm_device::exit::x86::instruction::decode;
    /// use vm_device::exit::x86::{Gpr, Mode, Registers, Rflags, svm};
    ///
    /// // A device has 1 in its register, and the guest executes `or dword [rdi + 0x10], 0x80`.
    /// let mut guest = Flat { register: [1, 0, 0, 0], ..Flat::default() };
    /// let mut registers = Registers { rip: 0x1000, ..Registers::default() };
    /// registers.set(Gpr::Rdi, 0xfec0_0000);
    /// let instruction = decode(&[0x81, 0x4f, 0x10, 0x80, 0x00, 0x00, 0x00], Mode::Bits64)?;
    /// let access = svm::memory_access(0x1_0000_0006, 0xfec0_0010);
    /// instruction.execute(&mut registers, &access, &mut guest)?;
    /// assert_eq!((guest.register, registers.rip), ([0x81, 0, 0, 0], 0x1007));
    /// assert_eq!(registers.flags(), Rflags::PF);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A fault of the guest's memory, a misaligned operand, or no vector registers. The registers are as they were, but for
    /// elements of a string that were done before. A fault of a translation leaves memory and devices as they were too.
    #[inline]
    pub fn execute<G: X86Guest>(
        &self,
        registers: &mut Registers,
        access: &MemoryAccess,
        guest: &mut G,
    ) -> Result<(), ExecuteError<G::Fault>> {
        match self.form.operation {
            Operation::Move if !self.form.is_string() => self.execute_move(registers, access, guest)?,
            _ => self.execute_other(registers, access, guest)?,
        }
        Ok(())
    }

    /// MOV and its kin, the commonest by far.
    #[inline]
    fn execute_move<G: X86Guest>(
        &self,
        registers: &mut Registers,
        access: &MemoryAccess,
        guest: &mut G,
    ) -> Result<(), G::Fault> {
        let is_load = self.form.is_load();
        let kind = if is_load { MemoryAccessKind::Read } else { MemoryAccessKind::Write };
        let linear = self.linear(kind, registers, guest)?;
        let Some(place) = in_known_page(linear, self.bytes(), known(access, kind)) else {
            return self.move_in_pieces(linear, registers, guest);
        };
        let mut data = [0; 8];
        if is_load {
            guest.read(place, self.size.of(&mut data))?;
            self.load(registers, u64::from_le_bytes(data));
        } else {
            data = self.other_value(registers, 0).to_le_bytes();
            guest.write(place, self.size.of(&mut data))?;
        }
        registers.resume_at(self.next_rip(registers.rip));
        Ok(())
    }

    /// The same with an operand that has to be translated.
    #[cold]
    #[inline(never)]
    fn move_in_pieces<G: X86Guest>(
        self,
        linear: u64,
        registers: &mut Registers,
        guest: &mut G,
    ) -> Result<(), G::Fault> {
        let mut data = self.other_value(registers, 0).to_le_bytes();
        if self.form.is_load() {
            self.place(linear, MemoryAccessKind::Read, None, guest)?.read(guest, self.size.of(&mut data))?;
            self.load(registers, u64::from_le_bytes(data));
        } else {
            self.place(linear, MemoryAccessKind::Write, None, guest)?.write(guest, self.size.of(&mut data))?;
        }
        registers.resume_at(self.next_rip(registers.rip));
        Ok(())
    }

    /// All others. The instruction is passed by value, so that one that was decoded a moment ago need not be in memory.
    #[inline(never)]
    fn execute_other<G: X86Guest>(
        self,
        registers: &mut Registers,
        access: &MemoryAccess,
        guest: &mut G,
    ) -> Result<(), ExecuteError<G::Fault>> {
        match self.form.operation {
            _ if self.form.is_string() => self.execute_string(registers, access, guest)?,
            Operation::MoveVector => self.execute_vector(registers, access, guest)?,
            Operation::CmpxchgPair => self.execute_pair(registers, access, guest)?,
            Operation::Push | Operation::Pop => self.execute_stack(registers, guest)?,
            _ => self.execute_arithmetic(registers, access, guest)?,
        }
        Ok(())
    }

    #[inline]
    fn execute_arithmetic<G: X86Guest>(
        &self,
        registers: &mut Registers,
        access: &MemoryAccess,
        guest: &mut G,
    ) -> Result<(), G::Fault> {
        let direction = self.direction();
        let kind = if direction.writes() { MemoryAccessKind::Write } else { MemoryAccessKind::Read };
        let linear = self.linear(kind, registers, guest)?;
        let place = self.place(linear, kind, known(access, kind), guest)?;
        let mut data = [0; 8];
        if direction.reads() {
            place.read(guest, self.size.of(&mut data))?;
        }
        let effect = self.effect(registers, u64::from_le_bytes(data));
        if direction.writes() {
            place.write(guest, self.size.of(&mut effect.memory.to_le_bytes()))?;
        }
        self.commit(effect, registers);
        registers.resume_at(self.next_rip(registers.rip));
        Ok(())
    }

    /// The linear address of the memory operand.
    #[inline]
    fn linear<G: X86Guest>(
        &self,
        kind: MemoryAccessKind,
        registers: &Registers,
        guest: &mut G,
    ) -> Result<u64, G::Fault> {
        let (segment, offset) = self.operand(registers);
        guest.linear(segment, offset, self.bytes(), kind)
    }

    /// The memory operand at a `linear` address, in its pieces.
    #[inline]
    fn place<G: X86Guest>(
        &self,
        linear: u64,
        kind: MemoryAccessKind,
        known: Option<GuestAddress>,
        guest: &mut G,
    ) -> Result<Placed, G::Fault> {
        Placed::new(guest, linear, self.bytes(), self.mode.last_linear(), kind, known)
    }
}

/// Where the operand's page is, if the exit told it: it was no access of the processor's own, and the guest's page tables allow
/// this kind of access if they allowed that one.
#[inline]
fn known(access: &MemoryAccess, kind: MemoryAccessKind) -> Option<GuestAddress> {
    let allows = access.kind == kind || access.kind == MemoryAccessKind::Write;
    (allows && !access.page_walk).then_some(access.address)
}

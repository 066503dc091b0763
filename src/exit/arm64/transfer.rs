//! An access that the syndrome describes: one general-purpose register, loaded or stored.

use super::data_abort::Fault;
use super::registers::Registers;
use super::state::State;
use crate::exit::guest::{ExecuteError, Guest};
use crate::exit::memory::MemoryAccessKind;
use crate::exit::operand::Placed;
use crate::exit::size::Size;

/// A general-purpose register as the operand of a load or a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register {
    /// SRT: its number, 31 for the zero register. Of an AArch32 guest it is already the number in [`Registers::x`].
    pub number: u8,
    /// SF: it has 64 bits; else 32, and a load clears the upper half.
    pub wide: bool,
    /// SSE: what is read is sign-extended.
    pub sign_extended: bool,
}

/// A load or a store of one general-purpose register, described by a valid syndrome.
///
/// Either the embedder makes the access itself, with [`output`](Self::output) before a write and [`complete`](Self::complete)
/// after it, or [`execute`](Self::execute) does all of it. Only the latter knows of operands that lie across two pages.
///
/// ```
/// use vm_device::exit::arm64::{DataAbort, Exit, Registers, State, data_abort};
///
/// // `strh w2, [x1]`: ISV, SAS = 1, SRT = 2, WnR.
/// let exit = Exit { esr: 0x9342_0047, far: 0x5002, hpfar: 0x9_0000 };
/// let DataAbort::Transfer(transfer) = data_abort(exit)? else { panic!("the syndrome is valid") };
/// let mut registers = Registers { pc: 0x8000, spsr: 5, ..Registers::default() };
/// registers.x[2] = 0xabcd_1234;
///
/// assert_eq!(transfer.output(&registers, State::new(registers.spsr, 0)), 0x1234);
/// // A big-endian guest: SCTLR_EL1.EE. The first byte in memory is 0x12.
/// let state = State::new(registers.spsr, 1 << 25);
/// assert_eq!(transfer.output(&registers, state).to_le_bytes()[..2], [0x12, 0x34]);
///
/// // Here the manager writes the device.
/// transfer.complete(&mut registers, state, 0);
/// assert_eq!(registers.pc, 0x8004);
/// # Ok::<(), vm_device::exit::arm64::AbortError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// The access that faulted.
    pub fault: Fault,
    /// SAS: the size of the access.
    pub size: Size,
    /// The register that is loaded or stored.
    pub register: Register,
    /// AR: a Load-Acquire or a Store-Release.
    pub ordered: bool,
}

impl Transfer {
    /// Whether it is a store.
    #[inline]
    pub const fn writes(&self) -> bool {
        matches!(self.fault.kind, MemoryAccessKind::Write)
    }

    /// Whether the operand may begin in the page before [`Fault::virtual_address`]: the address is the first of a page, and the
    /// size is more than a byte.
    ///
    /// An unaligned access across a page whose first part is RAM reports the second page alone, and the syndrome does not say
    /// where it began. The instruction does: where guests map devices as Normal memory, decode it in this case. Accesses to
    /// what they map as Device memory are always aligned (Arm ARM DDI 0487, "Device memory").
    ///
    /// ```
    /// use vm_device::exit::arm64::{DataAbort, Exit, data_abort};
    ///
    /// let exit = Exit { esr: 0x9382_0007, far: 0x5000, hpfar: 0x9_0000 };
    /// let DataAbort::Transfer(transfer) = data_abort(exit)? else { panic!("the syndrome is valid") };
    /// assert!(transfer.may_begin_earlier());
    /// # Ok::<(), vm_device::exit::arm64::AbortError>(())
    /// ```
    pub const fn may_begin_earlier(&self) -> bool {
        self.fault.virtual_address & (crate::exit::PAGE - 1) == 0 && !matches!(self.size, Size::Byte)
    }

    /// The bytes that a store writes, as a little-endian number: those of a big-endian guest are reversed.
    #[inline]
    pub fn output(&self, registers: &Registers, state: State) -> u64 {
        state.in_memory(registers.get(self.register.number), self.size)
    }

    /// The registers after the access. `input` has the bytes that a load read, as a little-endian number; a store ignores it.
    #[inline]
    pub fn complete(&self, registers: &mut Registers, state: State, input: u64) {
        if !self.writes() {
            let Register { number, wide, sign_extended } = self.register;
            registers.set(number, extend(state.in_memory(input, self.size), self.size, sign_extended, wide));
        }
        registers.advance(self.fault.length);
    }

    /// Makes the access and completes the instruction.
    ///
    /// An operand that lies across two pages is read or written in its two pieces, each translated by the guest.
    ///
    /// # Errors
    /// [`ExecuteError::Fault`] with what `guest` answered; the registers are as they were.
    pub fn execute<G: Guest>(
        &self,
        registers: &mut Registers,
        state: State,
        guest: &mut G,
    ) -> Result<(), ExecuteError<G::Fault>> {
        let (address, kind, bytes) = (self.fault.virtual_address, self.fault.kind, self.size.bytes());
        let place = Placed::new(guest, address, bytes, u64::MAX, kind, self.fault.address)?;
        let mut data = if self.writes() { self.output(registers, state) } else { 0 }.to_le_bytes();
        if self.writes() {
            place.write(guest, self.size.of(&mut data))?;
        } else {
            place.read(guest, self.size.of(&mut data))?;
        }
        self.complete(registers, state, u64::from_le_bytes(data));
        Ok(())
    }
}

/// A value that was read, in a register of 64 or 32 bits.
#[inline]
pub(super) const fn extend(value: u64, size: Size, signed: bool, wide: bool) -> u64 {
    let value = if signed { size.sign_extend(value) } else { value };
    if wide { value } else { value & u32::MAX as u64 }
}

//! What a load or a store does.

use super::{Addressing, Extend, Form, Instruction, Target};
use crate::exit::arm64::data_abort::Stage2Fault;
use crate::exit::arm64::mode::Mode;
use crate::exit::arm64::registers::Registers;
use crate::exit::arm64::transfer::extend;
use crate::exit::guest::{ExecuteError, Guest};
use crate::exit::memory::MemoryAccessKind;
use crate::exit::operand::Placed;
use crate::exit::size::Size;

/// The length of an A64 instruction, in bytes.
const LENGTH: u8 = 4;

/// The instruction at the program counter, read by the guest's own translation. Instructions are little-endian in every
/// guest.
///
/// # Errors
/// What `guest` answered.
pub fn fetch<G: Guest>(registers: &Registers, guest: &mut G) -> Result<u32, G::Fault> {
    let mut word = [0; LENGTH as usize];
    let place = Placed::new(guest, registers.pc, word.len(), u64::MAX, MemoryAccessKind::Fetch, None)?;
    place.read(guest, &mut word)?;
    Ok(u32::from_le_bytes(word))
}

impl Addressing {
    /// The address of the operand, and the new value of the base register.
    #[inline]
    fn resolve(self, registers: &Registers) -> (u64, Option<(u8, u64)>) {
        match self {
            Addressing::Offset { base, offset } => (registers.base(base).wrapping_add_signed(offset), None),
            Addressing::PreIndex { base, offset } => {
                let address = registers.base(base).wrapping_add_signed(offset);
                (address, Some((base, address)))
            }
            Addressing::PostIndex { base, offset } => {
                let address = registers.base(base);
                (address, Some((base, address.wrapping_add_signed(offset))))
            }
            Addressing::Index { base, index, extend, shift } => {
                let index = registers.get(index);
                let index = match extend {
                    Extend::Uxtw => Size::Dword.truncate(index),
                    Extend::Sxtw => Size::Dword.sign_extend(index),
                    Extend::Uxtx | Extend::Sxtx => index,
                };
                (registers.base(base).wrapping_add(index.wrapping_shl(u32::from(shift))), None)
            }
            Addressing::Literal { offset } => (registers.pc.wrapping_add_signed(offset), None),
        }
    }
}

impl Instruction {
    /// The virtual address of the operand, with its tag if it has one; that of the second register follows it.
    ///
    /// ```
    /// use vm_device::exit::arm64::instruction::decode;
    /// use vm_device::exit::arm64::{Mode, Registers};
    ///
    /// // ldr x1, [x2, x3, lsl #3]
    /// let instruction = decode(0xf863_7841, Mode::new(5, 0))?;
    /// let mut registers = Registers::default();
    /// (registers.x[2], registers.x[3]) = (0x1000, 2);
    /// assert_eq!(instruction.address(&registers), 0x1010);
    /// # Ok::<(), vm_device::exit::arm64::instruction::DecodeError>(())
    /// ```
    pub fn address(&self, registers: &Registers) -> u64 {
        self.addressing.resolve(registers).0
    }

    /// Executes it.
    ///
    /// `fault` is that of the exit: for a piece in its page and of its kind the guest physical address is known. Every other
    /// piece is translated by `guest`, with the tag that its address has if top bytes are ignored. All pieces of all operands are
    /// translated before the first is read or written, in the order of their addresses. The second register of a pair has an
    /// access of its own.
    ///
    /// LDTR and STTR have the rights of EL0: [`Form::Unprivileged`] tells an embedder that checks rights.
    ///
    /// # Errors
    /// [`ExecuteError::Fault`] with what `guest` answered, [`ExecuteError::NoVectorRegisters`] if it holds none. The registers
    /// are as they were.
    #[inline]
    pub fn execute<G: Guest>(
        &self,
        registers: &mut Registers,
        mode: Mode,
        fault: &Stage2Fault,
        guest: &mut G,
    ) -> Result<(), ExecuteError<G::Fault>> {
        if self.form == Form::Prefetch {
            registers.advance(LENGTH);
            return Ok(());
        }
        let (address, writeback) = self.addressing.resolve(registers);
        match self.target {
            Target::General { wide, sign_extended } => {
                let size = self.general_size();
                let first = self.place(address, fault, guest)?;
                let second = self.place_second(address, fault, guest)?;
                if self.writes {
                    let store = |place: &Placed, register, guest: &mut G| {
                        let mut data = mode.in_memory(registers.get(register), size).to_le_bytes();
                        place.write(guest, size.of(&mut data))
                    };
                    store(&first, self.register, guest)?;
                    if let Some((place, register)) = &second {
                        store(place, *register, guest)?;
                    }
                    self.write_back(registers, writeback);
                } else {
                    let load = |place: &Placed, guest: &mut G| {
                        let mut data = [0; 8];
                        place.read(guest, size.of(&mut data))?;
                        let value = mode.in_memory(u64::from_le_bytes(data), size);
                        Ok::<_, G::Fault>(extend(value, size, sign_extended, wide))
                    };
                    let value = load(&first, guest)?;
                    let other = match &second {
                        Some((place, register)) => Some((*register, load(place, guest)?)),
                        None => None,
                    };
                    self.write_back(registers, writeback);
                    registers.set(self.register, value);
                    if let Some((register, value)) = other {
                        registers.set(register, value);
                    }
                }
            }
            Target::Vector => {
                self.execute_vector(address, mode, fault, guest)?;
                self.write_back(registers, writeback);
            }
        }
        registers.advance(LENGTH);
        Ok(())
    }

    /// The same for SIMD and floating-point registers, without writeback.
    fn execute_vector<G: Guest>(
        &self,
        address: u64,
        mode: Mode,
        fault: &Stage2Fault,
        guest: &mut G,
    ) -> Result<(), ExecuteError<G::Fault>> {
        let size = self.size();
        let value = guest.vector(self.register).ok_or(ExecuteError::NoVectorRegisters)?;
        let second_value = match self.second {
            Some(register) => guest.vector(register).ok_or(ExecuteError::NoVectorRegisters)?,
            None => value,
        };
        let first = self.place(address, fault, guest)?;
        let second = self.place_second(address, fault, guest)?;
        if self.writes {
            first.write(guest, in_memory(value, size, mode).get(..size).unwrap_or_default())?;
            if let Some((place, _)) = &second {
                place.write(guest, in_memory(second_value, size, mode).get(..size).unwrap_or_default())?;
            }
        } else {
            let load = |place: &Placed, guest: &mut G| {
                let mut value = [0; 32];
                place.read(guest, value.get_mut(..size).unwrap_or_default())?;
                Ok::<_, G::Fault>(in_memory(value, size, mode))
            };
            let value = load(&first, guest)?;
            let other = match &second {
                Some((place, register)) => Some((*register, load(place, guest)?)),
                None => None,
            };
            guest.set_vector(self.register, value);
            if let Some((register, value)) = other {
                guest.set_vector(register, value);
            }
        }
        Ok(())
    }

    #[inline]
    fn place<G: Guest>(&self, address: u64, fault: &Stage2Fault, guest: &mut G) -> Result<Placed, G::Fault> {
        let kind = if self.writes { MemoryAccessKind::Write } else { MemoryAccessKind::Read };
        Placed::new(guest, address, self.size(), u64::MAX, kind, fault.known(address, kind))
    }

    /// The place of the second register's operand, and its number.
    #[inline]
    fn place_second<G: Guest>(
        &self,
        address: u64,
        fault: &Stage2Fault,
        guest: &mut G,
    ) -> Result<Option<(Placed, u8)>, G::Fault> {
        match self.second {
            Some(register) => {
                let place = self.place(address.wrapping_add(self.size() as u64), fault, guest)?;
                Ok(Some((place, register)))
            }
            None => Ok(None),
        }
    }

    /// Before the registers that are loaded, so that one of them which is the base has what was loaded.
    #[inline]
    fn write_back(&self, registers: &mut Registers, writeback: Option<(u8, u64)>) {
        if let Some((base, value)) = writeback {
            registers.set_base(base, value);
        }
    }

    /// The size of the access for a general-purpose register.
    #[inline]
    const fn general_size(&self) -> Size {
        match self.scale {
            0 => Size::Byte,
            1 => Size::Word,
            2 => Size::Dword,
            _ => Size::Qword,
        }
    }
}

/// The bytes of a vector register as they are in memory, and the way back.
fn in_memory(mut value: [u8; 32], size: usize, mode: Mode) -> [u8; 32] {
    if mode.is_big_endian() {
        value.get_mut(..size).unwrap_or_default().reverse();
    }
    value
}

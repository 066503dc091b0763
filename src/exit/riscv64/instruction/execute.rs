//! Loads and stores, executed.

use super::{Instruction, MAX_LENGTH, Operation};
use crate::exit::guest::{ExecuteError, Guest};
use crate::exit::memory::MemoryAccessKind;
use crate::exit::operand::{Placed, pieces};
use crate::exit::riscv64::fault::GuestPageFault;
use crate::exit::riscv64::mode::Mode;
use crate::exit::riscv64::registers::Registers;

/// The bytes of the instruction at [`Registers::pc`], for [`decode`](super::decode). One of 2 bytes has anything behind them.
///
/// A hypervisor may as well read them itself: `HLVX.HU` reads 2 of them as the guest fetches them.
///
/// ```
/// use vm_device::GuestAddress;
/// use vm_device::exit::{Guest, MemoryAccessKind};
/// use vm_device::exit::riscv64::Registers;
/// use vm_device::exit::riscv64::instruction::{decode, fetch};
///
/// struct Memory([u8; 4]);
///
/// impl Guest for Memory {
///     type Fault = ();
///
///     fn translate(&mut self, address: u64, kind: MemoryAccessKind) -> Result<GuestAddress, ()> {
///         assert_eq!((address, kind), (0x8020_0000, MemoryAccessKind::Fetch));
///         Ok(GuestAddress(address))
///     }
///
///     fn read(&mut self, _: GuestAddress, data: &mut [u8]) -> Result<(), ()> {
///         data.copy_from_slice(&self.0);
///         Ok(())
///     }
///
///     fn write(&mut self, _: GuestAddress, _: &[u8]) -> Result<(), ()> {
///         Err(())
///     }
/// }
///
/// // `lbu a0, 5(a1)`.
/// let registers = Registers { pc: 0x8020_0000, ..Registers::default() };
/// let bytes = fetch(&registers, &mut Memory([0x03, 0xc5, 0x55, 0x00])).unwrap();
/// assert_eq!(decode(&bytes).unwrap().length(), 4);
/// ```
///
/// # Errors
/// What `guest` answered. The second page of an instruction that crosses one is asked for only if its first bytes say that it goes on.
pub fn fetch<G: Guest>(registers: &Registers, guest: &mut G) -> Result<[u8; MAX_LENGTH], G::Fault> {
    let mut bytes = [0; MAX_LENGTH];
    let [(first, length), (second, rest)] = pieces(registers.pc, MAX_LENGTH, u64::MAX);
    let (in_first, in_second) = bytes.split_at_mut_checked(length).unwrap_or_default();
    let place = guest.translate(first, MemoryAccessKind::Fetch)?;
    guest.read(place, in_first)?;
    let goes_on = in_first.first().is_some_and(|first| first & 3 == 3);
    if rest > 0 && (goes_on || length == 1) {
        let place = guest.translate(second, MemoryAccessKind::Fetch)?;
        guest.read(place, in_second)?;
    }
    Ok(bytes)
}

impl Instruction {
    /// What a store writes, as a little-endian number: the low bytes of its register, reversed if the guest is big-endian.
    ///
    /// ```
    /// use vm_device::exit::riscv64::{Mode, Registers};
    /// use vm_device::exit::riscv64::instruction::decode;
    ///
    /// // `sh a0, 0(a1)`.
    /// let mut registers = Registers::default();
    /// registers.set(10, 0xffff_1234);
    /// let store = decode(&[0x23, 0x90, 0xa5, 0x00])?;
    /// assert_eq!(store.output(&registers, Mode { big_endian: false }), 0x1234);
    /// assert_eq!(store.output(&registers, Mode { big_endian: true }), 0x3412);
    /// # Ok::<(), vm_device::exit::riscv64::instruction::DecodeError>(())
    /// ```
    #[inline]
    pub fn output(&self, registers: &Registers, mode: Mode) -> u64 {
        self.size().truncate(mode.in_memory(registers.get(self.register()), self.size()))
    }

    /// Changes the registers as the instruction does. `input` has the bytes that a load read, as a little-endian number, and a store
    /// ignores it: the register of a load gets its value, extended to 64 bits, and `pc` goes on to the next instruction.
    ///
    /// ```
    /// use vm_device::exit::riscv64::{Mode, Registers};
    /// use vm_device::exit::riscv64::instruction::decode;
    ///
    /// // `c.lw a0, 0(a1)`.
    /// let mut registers = Registers::default();
    /// decode(&[0x88, 0x41])?.complete(&mut registers, Mode::default(), 0x8000_0000);
    /// assert_eq!((registers.get(10), registers.pc), (0xffff_ffff_8000_0000, 2));
    /// # Ok::<(), vm_device::exit::riscv64::instruction::DecodeError>(())
    /// ```
    #[inline]
    pub fn complete(&self, registers: &mut Registers, mode: Mode, input: u64) {
        let input = mode.in_memory(input, self.size());
        match self.operation() {
            Operation::Load => registers.set(self.register(), self.size().sign_extend(input)),
            Operation::LoadUnsigned => registers.set(self.register(), self.size().truncate(input)),
            Operation::Store => {}
        }
        registers.pc = registers.pc.wrapping_add(self.length() as u64);
    }

    /// Executes the instruction of a fault.
    ///
    /// An operand that lies in one page is where the fault says, if it says where. Each piece of one that crosses a page is
    /// translated first, and read or written only then: a part may be memory, a device or nothing.
    ///
    /// ```
    /// use vm_device::GuestAddress;
    /// use vm_device::exit::{Guest, MemoryAccessKind};
    /// use vm_device::exit::riscv64::{Mode, Registers, guest_page_fault};
    /// use vm_device::exit::riscv64::instruction::DecodeError;
    ///
    /// struct Device(u8);
    ///
    /// impl Guest for Device {
    ///     type Fault = ();
    ///
    ///     fn translate(&mut self, _: u64, _: MemoryAccessKind) -> Result<GuestAddress, ()> {
    ///         Err(())
    ///     }
    ///
    ///     fn read(&mut self, address: GuestAddress, data: &mut [u8]) -> Result<(), ()> {
    ///         assert_eq!(address, GuestAddress(0x1000_0005));
    ///         data.fill(self.0);
    ///         Ok(())
    ///     }
    ///
    ///     fn write(&mut self, _: GuestAddress, _: &[u8]) -> Result<(), ()> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// // `lb a0, 5(a1)`, as the processor tells it.
    /// let fault = guest_page_fault(21, 0xffff_ffc6_0000_1005, 0x1000_0005 >> 2, 0x0503).unwrap();
    /// let mut registers = Registers::default();
    /// let instruction = fault.instruction()?.unwrap();
    /// instruction.execute(&mut registers, Mode::default(), &fault, &mut Device(0x80)).unwrap();
    /// assert_eq!((registers.get(10), registers.pc), (0xffff_ffff_ffff_ff80, 4));
    /// # Ok::<(), DecodeError>(())
    /// ```
    ///
    /// # Errors
    /// [`ExecuteError::Fault`] with what `guest` answered. The registers are as they were.
    #[inline]
    pub fn execute<G: Guest>(
        &self,
        registers: &mut Registers,
        mode: Mode,
        fault: &GuestPageFault,
        guest: &mut G,
    ) -> Result<(), ExecuteError<G::Fault>> {
        let address = self.address(registers, fault);
        let (kind, known) = (self.kind(), fault.known(address, self.kind()));
        let place = Placed::new(guest, address, self.size().bytes(), u64::MAX, kind, known)?;
        let mut data = [0; 8];
        if self.writes() {
            data = mode.in_memory(registers.get(self.register()), self.size()).to_le_bytes();
            place.write(guest, self.size().of(&mut data))?;
        } else {
            place.read(guest, self.size().of(&mut data))?;
        }
        self.complete(registers, mode, u64::from_le_bytes(data));
        Ok(())
    }
}

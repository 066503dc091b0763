//! Loads and stores, executed.

use super::{Instruction, Operation};
use crate::exit::guest::{ExecuteError, Guest};
use crate::exit::memory::MemoryAccessKind;
use crate::exit::operand::Placed;
use crate::exit::riscv64::fault::GuestPageFault;
use crate::exit::riscv64::mode::Mode;
use crate::exit::riscv64::registers::Registers;

impl Instruction {
    /// What a store writes: the low bytes of its register.
    ///
    /// ```
    /// use vm_device::exit::riscv64::Registers;
    /// use vm_device::exit::riscv64::instruction::decode;
    ///
    /// // `sb a0, 0(a1)`.
    /// let mut registers = Registers::default();
    /// registers.set(10, 0x1234);
    /// assert_eq!(decode(&[0x23, 0x80, 0xa5, 0x00])?.output(&registers), 0x34);
    /// # Ok::<(), vm_device::exit::riscv64::instruction::DecodeError>(())
    /// ```
    #[inline]
    pub fn output(&self, registers: &Registers) -> u64 {
        self.size.truncate(registers.get(self.register))
    }

    /// Changes the registers as the instruction does. `input` is what a load has read, and a store ignores it: the register of a
    /// load gets it, extended to 64 bits, and `pc` goes on to the next instruction.
    ///
    /// ```
    /// use vm_device::exit::riscv64::Registers;
    /// use vm_device::exit::riscv64::instruction::decode;
    ///
    /// // `c.lw a0, 0(a1)`.
    /// let mut registers = Registers::default();
    /// decode(&[0x88, 0x41])?.complete(&mut registers, 0x8000_0000);
    /// assert_eq!((registers.get(10), registers.pc), (0xffff_ffff_8000_0000, 2));
    /// # Ok::<(), vm_device::exit::riscv64::instruction::DecodeError>(())
    /// ```
    #[inline]
    pub fn complete(&self, registers: &mut Registers, input: u64) {
        match self.operation {
            Operation::Load => registers.set(self.register, self.size.sign_extend(input)),
            Operation::LoadUnsigned => registers.set(self.register, self.size.truncate(input)),
            Operation::Store => {}
        }
        registers.pc = registers.pc.wrapping_add(u64::from(self.length));
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
        let known = fault.address_in(address, self.size, self.kind());
        let place = Placed::new(guest, address, self.size.bytes(), u64::MAX, self.kind(), known)?;
        let mut input = 0;
        match self.kind() {
            MemoryAccessKind::Write => {
                let mut bytes = mode.to_bytes(self.size, registers.get(self.register));
                place.write(guest, self.size.of(&mut bytes))?;
            }
            _ => {
                let mut bytes = [0; 8];
                place.read(guest, self.size.of(&mut bytes))?;
                input = mode.value(self.size, bytes);
            }
        }
        self.complete(registers, input);
        Ok(())
    }
}

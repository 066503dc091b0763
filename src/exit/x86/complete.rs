//! What a port instruction does with its access.

use super::guest::X86Guest;
use super::mode::Segment;
use super::port::{PortAccess, PortDirection, StringForm};
use super::registers::{Gpr, Register, Registers};
use super::string::{Burst, MAX_BURST, StringOperand};
use crate::exit::guest::ExecuteError;
use crate::exit::memory::MemoryAccessKind;

/// The bytes of the longest burst: of elements of 4 bytes.
const BURST_BYTES: usize = 4 * MAX_BURST as usize;

impl PortAccess {
    /// Executes the instruction: reads or writes the port, and memory for `INS` and `OUTS`.
    ///
    /// A string is transferred in bursts. A burst is one [`input_string`](X86Guest::input_string) or [`output_string`](X86Guest::output_string) of at most
    /// [`MAX_BURST`] elements, fewer if the elements leave a page, and one if an interrupt [waits](X86Guest::is_interrupted) or
    /// the guest single-steps. If elements are left, RIP stays, and the guest comes back for them. A count of 0 does nothing.
    /// The memory operand may be RAM, a device, or nothing, and may cross a page.
    ///
    /// ```
    /// # mod flat { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/flat.rs")); }
    /// # use flat::Flat;
    /// use vm_device::exit::x86::{Gpr, Mode, Registers, svm};
    ///
    /// // `rep outsb` in 64-bit code, of the 5 bytes at 0x1000.
    /// let mut guest = Flat::default();
    /// guest.ram[0x1000..0x1005].copy_from_slice(b"hello");
    /// let access = svm::port_access(0x03f8_0e1c, 0x102, Mode::Bits64)?;
    /// let mut registers = Registers { rip: 0x100, ..Registers::default() };
    /// registers.set(Gpr::Rcx, 5);
    /// registers.set(Gpr::Rsi, 0x1000);
    /// access.execute(&mut registers, &mut guest)?;
    /// assert_eq!(guest.port, b"hello");
    /// assert_eq!((registers.get(Gpr::Rcx), registers.get(Gpr::Rsi), registers.rip), (0, 0x1005, 0x102));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What the guest's memory or its ports answer. The registers are as they were, but for the elements of a string that were
    /// done before: they are counted.
    #[inline]
    pub fn execute<G: X86Guest>(&self, registers: &mut Registers, guest: &mut G) -> Result<(), ExecuteError<G::Fault>> {
        if let Some(form) = self.string {
            return self.execute_string(form, registers, guest);
        }
        let mut data = [0; 8];
        match self.direction {
            PortDirection::In => guest.input(self.port, self.size.of(&mut data))?,
            PortDirection::Out => {
                data = self.output(registers).to_le_bytes();
                guest.output(self.port, self.size.of(&mut data))?;
            }
        }
        self.complete(registers, u64::from_le_bytes(data));
        Ok(())
    }

    #[inline(never)]
    fn execute_string<G: X86Guest>(
        &self,
        form: StringForm,
        registers: &mut Registers,
        guest: &mut G,
    ) -> Result<(), ExecuteError<G::Fault>> {
        let wanted = form.wanted(registers);
        let (mut done, mut outcome) = (0, Ok(()));
        if wanted != 0 {
            let burst = Burst::new(form, self.operand(form), wanted, registers, guest)?;
            let elements = if guest.is_interrupted() { 1 } else { burst.elements() };
            let size = self.size.bytes();
            let mut data = [0; BURST_BYTES];
            let data = data.get_mut(..size.wrapping_mul(elements as usize)).unwrap_or_default();
            match self.direction {
                PortDirection::In => {
                    guest.input_string(self.port, self.size, data)?;
                    for element in data.chunks(size) {
                        outcome = burst.element(done).write(guest, element);
                        if outcome.is_err() {
                            break;
                        }
                        done = done.wrapping_add(1);
                    }
                }
                PortDirection::Out => {
                    for element in data.chunks_mut(size) {
                        outcome = burst.element(done).read(guest, element);
                        if outcome.is_err() {
                            break;
                        }
                        done = done.wrapping_add(1);
                    }
                    if let Some(read @ [_, ..]) = data.get(..size.wrapping_mul(done as usize)) {
                        guest.output_string(self.port, self.size, read)?;
                    }
                }
            }
        }
        if form.advance(registers, &[self.index()], self.size, done) {
            registers.resume_at(self.next_rip);
        }
        Ok(outcome?)
    }

    /// The memory operand of `INS` or `OUTS`.
    fn operand(&self, form: StringForm) -> StringOperand {
        let (segment, kind) = match self.direction {
            PortDirection::In => (Segment::Es, MemoryAccessKind::Write),
            PortDirection::Out => (form.segment, MemoryAccessKind::Read),
        };
        StringOperand {
            segment,
            index: self.index(),
            size: self.size,
            kind,
            last: self.mode.last_linear(),
            known: None,
        }
    }

    /// What `OUT` writes to the port: AL, AX or EAX.
    ///
    /// ```
    /// use vm_device::exit::x86::{Gpr, Mode, Registers, svm};
    ///
    /// // `out dx, al`.
    /// let access = svm::port_access(0x03f8_0010, 0x1001, Mode::Bits64)?;
    /// let mut registers = Registers::default();
    /// registers.set(Gpr::Rax, 0x1234);
    /// assert_eq!(access.output(&registers), 0x34);
    /// # Ok::<(), vm_device::exit::x86::ExitError>(())
    /// ```
    pub fn output(&self, registers: &Registers) -> u64 {
        registers.read(Register::Low(Gpr::Rax), self.size)
    }

    /// Completes `IN` or `OUT`. `input` is what the port returned; `OUT` ignores it.
    ///
    /// `IN` of 8 and 16 bits is merged into RAX; `IN` of 32 bits is zero-extended. For `INS` and `OUTS` one element is counted
    /// as done: [`execute`](Self::execute) does all of them.
    ///
    /// ```
    /// use vm_device::exit::x86::{Gpr, Mode, Registers, svm};
    ///
    /// let mut registers = Registers::default();
    /// registers.set(Gpr::Rax, 0x1111_2222_3333_4444);
    /// let in_al_dx = svm::port_access(0x03f8_0011, 0x7c01, Mode::Bits16)?;
    /// in_al_dx.complete(&mut registers, 0x5a);
    /// assert_eq!(registers.rax(), 0x1111_2222_3333_445a);
    /// let in_eax_dx = svm::port_access(0x0cfc_0041, 0x7c02, Mode::Bits16)?;
    /// in_eax_dx.complete(&mut registers, 0x5a);
    /// assert_eq!((registers.rax(), registers.rip), (0x5a, 0x7c02));
    /// # Ok::<(), vm_device::exit::x86::ExitError>(())
    /// ```
    #[inline]
    pub fn complete(&self, registers: &mut Registers, input: u64) {
        match (self.string, self.direction) {
            (Some(string), _) if !string.advance(registers, &[self.index()], self.size, 1) => return,
            (None, PortDirection::In) => registers.write(Register::Low(Gpr::Rax), self.size, input),
            _ => {}
        }
        registers.resume_at(self.next_rip);
    }

    /// The same access, with what the prefixes of the instruction's bytes say of a string's address size and segment.
    ///
    /// For processors that do not report them: see [`svm::port_access`](super::svm::port_access).
    ///
    /// ```
    /// use vm_device::exit::x86::{AddressSize, Mode, Segment, svm};
    ///
    /// // `rep outs dx, byte fs:[esi]` on a processor that reports neither address size nor segment.
    /// let access = svm::port_access(0x03f8_001c, 0x1004, Mode::Bits64)?;
    /// let string = access.with_prefixes(&[0x64, 0x67, 0xf3, 0x6e]).string.unwrap();
    /// assert_eq!((string.address_size, string.segment), (AddressSize::Bits32, Segment::Fs));
    /// # Ok::<(), vm_device::exit::x86::ExitError>(())
    /// ```
    pub fn with_prefixes(self, instruction: &[u8]) -> Self {
        Self { string: self.string.map(|string| string.with_prefixes(instruction, self.mode)), ..self }
    }

    fn index(&self) -> Gpr {
        match self.direction {
            PortDirection::In => Gpr::Rdi,
            PortDirection::Out => Gpr::Rsi,
        }
    }
}

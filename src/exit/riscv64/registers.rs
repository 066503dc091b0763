//! The registers that an access reads and changes.

/// The registers of a hart that its accesses read and change. The hypervisor fills them in from what it saved at the exit, and
/// loads them again before it resumes the guest.
///
/// ```
/// use vm_device::exit::riscv64::Registers;
///
/// let mut registers = Registers::default();
/// registers.set(10, 7);
/// registers.set(0, 7);
/// assert_eq!((registers.get(10), registers.get(0)), (7, 0));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Registers {
    /// The integer registers `x0` to `x31`. What stands at `x0` is neither read nor changed: it is always 0 (RISC-V ISA manual vol.
    /// I, 2.1).
    pub x: [u64; 32],
    /// The program counter: `sepc` of the exit.
    pub pc: u64,
}

impl Registers {
    /// The value of a register. 0 for `x0`, and for a number above 31.
    #[inline]
    pub fn get(&self, number: u8) -> u64 {
        if number == 0 { 0 } else { self.x.get(usize::from(number)).copied().unwrap_or_default() }
    }

    /// Sets a register. `x0` and a number above 31 are ignored.
    #[inline]
    pub fn set(&mut self, number: u8, value: u64) {
        if number != 0
            && let Some(register) = self.x.get_mut(usize::from(number))
        {
            *register = value;
        }
    }
}

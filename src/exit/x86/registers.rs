//! The registers that an access reads and changes.

use bitflags::bitflags;

use crate::exit::size::Size;

/// A general-purpose register, in the order of its encoding (Intel SDM vol. 2A, table 2-2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "the names of the registers")]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Gpr {
    /// All of them, by encoding.
    pub const ALL: [Gpr; 16] = [
        Gpr::Rax,
        Gpr::Rcx,
        Gpr::Rdx,
        Gpr::Rbx,
        Gpr::Rsp,
        Gpr::Rbp,
        Gpr::Rsi,
        Gpr::Rdi,
        Gpr::R8,
        Gpr::R9,
        Gpr::R10,
        Gpr::R11,
        Gpr::R12,
        Gpr::R13,
        Gpr::R14,
        Gpr::R15,
    ];

    /// The register with this encoding; `None` above 15.
    ///
    /// ```
    /// use vm_device::exit::x86::Gpr;
    ///
    /// assert_eq!(Gpr::from_number(1), Some(Gpr::Rcx));
    /// assert_eq!(Gpr::from_number(16), None);
    /// ```
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A register as an operand. The size of the operand comes from the instruction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Register {
    /// The low bytes of the register: AL, AX, EAX or RAX.
    Low(Gpr),
    /// The second byte of the register: AH, CH, DH or BH.
    High(Gpr),
}

bitflags! {
    /// The bits of RFLAGS that the instructions of this module read or change (Intel SDM vol. 1, 3.4.3).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Rflags: u64 {
        /// Carry.
        const CF = 1 << 0;
        /// Parity: the low byte of the result has an even number of ones.
        const PF = 1 << 2;
        /// Auxiliary carry, out of bit 3.
        const AF = 1 << 4;
        /// Zero.
        const ZF = 1 << 6;
        /// Sign: the highest bit of the result.
        const SF = 1 << 7;
        /// Trap: the guest single-steps.
        const TF = 1 << 8;
        /// Direction: string instructions go down.
        const DF = 1 << 10;
        /// Overflow of the result as a signed number.
        const OF = 1 << 11;
        /// Resume: the next instruction raises no instruction breakpoint.
        const RF = 1 << 16;

        /// The flags that arithmetic sets.
        const STATUS = Self::CF.bits() | Self::PF.bits() | Self::AF.bits() | Self::ZF.bits() | Self::SF.bits()
            | Self::OF.bits();
    }
}

/// The registers of a vCPU that its accesses read and change. The hypervisor fills them in from what it saved at the exit
/// and loads them again before it resumes the guest.
///
/// ```
/// use vm_device::exit::x86::{Gpr, Register, Registers, Size};
///
/// let mut registers = Registers::default();
/// registers.set(Gpr::Rbx, 0x1122_3344_5566_7788);
/// registers.write(Register::High(Gpr::Rbx), Size::Byte, 0xff);
/// assert_eq!(registers.get(Gpr::Rbx), 0x1122_3344_5566_ff88);
/// registers.write(Register::Low(Gpr::Rbx), Size::Dword, 1);
/// assert_eq!(registers.get(Gpr::Rbx), 1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Registers {
    /// The general-purpose registers, by their encoding: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// The instruction pointer, without the base of CS.
    pub rip: u64,
    /// The flags.
    pub rflags: u64,
}

impl Registers {
    /// The whole of a register.
    pub fn get(&self, register: Gpr) -> u64 {
        self.gpr.get(register as usize).copied().unwrap_or_default()
    }

    /// Sets the whole of a register.
    pub fn set(&mut self, register: Gpr, value: u64) {
        if let Some(whole) = self.gpr.get_mut(register as usize) {
            *whole = value;
        }
    }

    /// RAX.
    pub fn rax(&self) -> u64 {
        self.get(Gpr::Rax)
    }

    /// The flags by name. Bits without a name here are kept.
    pub fn flags(&self) -> Rflags {
        Rflags::from_bits_retain(self.rflags)
    }

    /// The value of an operand.
    ///
    /// ```
    /// use vm_device::exit::x86::{Gpr, Register, Registers, Size};
    ///
    /// let mut registers = Registers::default();
    /// registers.set(Gpr::Rax, 0x1234);
    /// assert_eq!(registers.read(Register::Low(Gpr::Rax), Size::Byte), 0x34);
    /// assert_eq!(registers.read(Register::High(Gpr::Rax), Size::Byte), 0x12);
    /// ```
    pub fn read(&self, register: Register, size: Size) -> u64 {
        size.truncate(match register {
            Register::Low(low) => self.get(low),
            Register::High(high) => self.get(high) >> 8,
        })
    }

    /// Writes an operand as an instruction does: 8 and 16 bits are merged into the register, 32 bits are zero-extended
    /// into it (Intel SDM vol. 1, 3.4.1.1). The second byte is always written as one byte.
    ///
    /// ```
    /// use vm_device::exit::x86::{Gpr, Register, Registers, Size};
    ///
    /// let mut registers = Registers::default();
    /// registers.set(Gpr::Rax, u64::MAX);
    /// registers.write(Register::Low(Gpr::Rax), Size::Byte, 0);
    /// assert_eq!(registers.rax(), 0xffff_ffff_ffff_ff00);
    /// registers.write(Register::Low(Gpr::Rax), Size::Dword, 1);
    /// assert_eq!(registers.rax(), 1);
    /// ```
    pub fn write(&mut self, register: Register, size: Size, value: u64) {
        let (register, mask, value) = match (register, size) {
            (Register::High(high), _) => (high, 0xff00, value << 8),
            (Register::Low(low), Size::Dword) => (low, u64::MAX, Size::Dword.truncate(value)),
            (Register::Low(low), _) => (low, size.mask(), value),
        };
        self.set(register, self.get(register) & !mask | value & mask);
    }

    /// Goes on to the next instruction. Completing an instruction clears RF (Intel SDM vol. 3B, 18.3.1.1).
    pub(super) fn resume_at(&mut self, rip: u64) {
        self.rip = rip;
        self.rflags &= !Rflags::RF.bits();
    }
}

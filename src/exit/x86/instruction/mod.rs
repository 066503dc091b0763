//! The instruction that touched MMIO: what it is, and what it does.
//!
//! A nested page fault or EPT violation tells the address of an access and no more. Only the instruction says what is written,
//! or where a value that was read goes. So a hypervisor fetches the bytes of the instruction at the guest's RIP (or takes them
//! from the VMCB, with decode assists), [`decode`]s them, and [executes](Instruction::execute) the instruction on the
//! [guest](crate::exit::x86::X86Guest), which makes the accesses:
//!
//! ```
//! # mod flat { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/flat.rs")); }
//! # use flat::Flat;
//! use vm_device::exit::x86::instruction::{Direction, decode};
//! use vm_device::exit::x86::{Gpr, Mode, Registers, Rflags, Size, svm};
//!
//! // or dword [rdi + 0x10], 0x80, of a register of a device that holds 0x8000_0001
//! let instruction = decode(&[0x81, 0x4f, 0x10, 0x80, 0x00, 0x00, 0x00], Mode::Bits64)?;
//! assert_eq!((instruction.size(), instruction.direction()), (Size::Dword, Direction::ReadModifyWrite));
//!
//! let mut guest = Flat { register: [1, 0, 0, 0x80], ..Flat::default() };
//! let mut registers = Registers { rip: 0x1000, ..Registers::default() };
//! registers.set(Gpr::Rdi, 0xfec0_0000);
//! let access = svm::memory_access(0x1_0000_0006, 0xfec0_0010);
//! instruction.execute(&mut registers, &access, &mut guest)?;
//! assert_eq!(guest.register, [0x81, 0, 0, 0x80]);
//! assert_eq!((registers.rip, registers.flags()), (0x1007, Rflags::SF | Rflags::PF));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which instructions
//! MOV (with memory and a general-purpose register or an immediate), MOVNTI, MOVBE, MOVZX, MOVSX, MOVSXD, ADD, ADC, SUB, SBB,
//! AND, OR, XOR, CMP, TEST, BT, BTS, BTR, BTC, XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B, INC, DEC, NOT, NEG, PUSH and POP; STOS,
//! LODS, MOVS, CMPS and SCAS, with REP, REPE and REPNE; and the moves between memory and an XMM or YMM register MOVUPS, MOVUPD,
//! MOVAPS, MOVAPD, MOVDQU, MOVDQA, LDDQU, MOVNTPS, MOVNTPD, MOVNTDQ, MOVNTDQA, MOVSS, MOVSD, MOVD and MOVQ, with VEX or without. All
//! other ones are [`DecodeError::Unsupported`].
//!
//! The decoder does not know a processor's features: an instruction that the processor lacks, or that the guest has not enabled,
//! raises its exception before it touches memory.

use core::fmt;

use crate::exit::size::Size;
use crate::exit::x86::mode::{AddressSize, Mode, Segment};
use crate::exit::x86::port::{Repeat, StringForm};
use crate::exit::x86::registers::{Gpr, Register};
use form::{Form, HIGH, Other};

mod address;
mod arithmetic;
mod decode;
mod error;
mod execute;
mod form;
mod mnemonic;
mod operation;

pub use address::{Base, MemoryOperand};
pub use decode::decode;
pub use error::{Bytes, DecodeError};
pub use operation::{Direction, Extension, Operand, Operation};

/// The longest instruction there is, in bytes (Intel SDM vol. 2A, 2.3.11).
pub const MAX_LENGTH: usize = 15;

/// A decoded instruction that has a memory operand.
///
/// ```
/// use vm_device::exit::x86::instruction::{Direction, Operation, decode};
/// use vm_device::exit::x86::{Mode, Size};
///
/// // lock add word [rbx], ax
/// let instruction = decode(&[0xf0, 0x66, 0x01, 0x03], Mode::Bits64)?;
/// assert_eq!((instruction.operation(), instruction.size()), (Operation::Add, Size::Word));
/// assert_eq!((instruction.direction(), instruction.length()), (Direction::ReadModifyWrite, 4));
/// assert!(instruction.is_locked());
/// # Ok::<(), vm_device::exit::x86::instruction::DecodeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    displacement: u64,
    /// Sign-extended to 64 bits where it is one of the operands.
    immediate: i32,
    form: Form,
    length: u8,
    /// The number of a register; with [`HIGH`] the second byte of one.
    register: u8,
    base: u8,
    index: u8,
    /// The number of bits that the index is shifted by.
    scale: u8,
    size: Size,
    operand_size: Size,
    /// The binary logarithm of the bytes of the memory operand.
    bytes: u8,
    /// That of a prefix.
    segment: Option<Segment>,
    address_size: AddressSize,
    mode: Mode,
    locked: bool,
    repeat: Repeat,
    vex: bool,
}

/// By hand: what is derived for more than five fields can panic, as far as the linker knows.
impl fmt::Debug for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instruction")
            .field("operation", &self.operation())
            .field("destination", &self.destination())
            .field("source", &self.source())
            .field("size", &self.size())
            .field("register_size", &self.register_size())
            .field("address", &self.address())
            .field("string", &self.string())
            .field("is_locked", &self.is_locked())
            .field("length", &self.length())
            .field("mode", &self.mode)
            .finish()
    }
}

/// How a vector register is moved.
///
/// ```
/// use vm_device::exit::x86::Mode;
/// use vm_device::exit::x86::instruction::{VectorMove, decode};
///
/// // movdqa xmm1, [rdi]; vmovups [rdi], ymm9
/// let load = decode(&[0x66, 0x0f, 0x6f, 0x0f], Mode::Bits64)?.vector();
/// assert_eq!(load, Some(VectorMove { register: 1, bytes: 16, aligned: true, clears_upper: false }));
/// let store = decode(&[0xc5, 0x7c, 0x11, 0x0f], Mode::Bits64)?.vector();
/// assert_eq!(store, Some(VectorMove { register: 9, bytes: 32, aligned: false, clears_upper: true }));
/// # Ok::<(), vm_device::exit::x86::instruction::DecodeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VectorMove {
    /// The number of the register: 0 to 15.
    pub register: u8,
    /// 4, 8, 16 or 32. A load of fewer than 16 bytes clears the rest of the low 16.
    pub bytes: u8,
    /// A memory operand that is not aligned to [`bytes`](Self::bytes) raises a general-protection exception.
    pub aligned: bool,
    /// With VEX: a load clears everything above the bytes it loads. Without, bytes from the 16th on stay.
    pub clears_upper: bool,
}

impl Instruction {
    /// What it does.
    #[inline]
    pub const fn operation(&self) -> Operation {
        self.form.operation
    }

    /// The operand that receives the result. For CMP, TEST and BT, which have none: the first operand.
    #[inline]
    pub fn destination(&self) -> Operand {
        match self.form.operation {
            Operation::Push => Operand::Stack,
            _ if self.form.is_load() => self.other(),
            _ => Operand::Memory,
        }
    }

    /// The other operand. INC and DEC have the immediate 1, NOT and NEG their destination, CMPXCHG8B and CMPXCHG16B the lower of
    /// their two registers, RBX; the upper one is RCX.
    #[inline]
    pub fn source(&self) -> Operand {
        if self.form.is_load() { Operand::Memory } else { self.other() }
    }

    #[inline]
    fn other(&self) -> Operand {
        match self.form.other {
            Other::Immediate => Operand::Immediate(self.immediate as u64),
            Other::One => Operand::Immediate(1),
            Other::Vector => Operand::Vector(self.register),
            Other::Stack => Operand::Stack,
            Other::Itself | Other::Memory => Operand::Memory,
            _ => Operand::Register(self.register()),
        }
    }

    /// The register by the field `reg`.
    #[inline]
    fn register(&self) -> Register {
        let number = if self.register & HIGH != 0 { self.register & 3 } else { self.register & 0xf };
        let gpr = Gpr::from_number(number).unwrap_or(Gpr::Rax);
        if self.register & HIGH != 0 { Register::High(gpr) } else { Register::Low(gpr) }
    }

    /// The size of an element of the memory operand: of all of it, but for a vector register of 16 or 32 bytes
    /// ([`Size::Qword`]), and CMPXCHG8B and CMPXCHG16B (half of it). For PUSH and POP also the size of the stack's element.
    #[inline]
    pub const fn size(&self) -> Size {
        self.size
    }

    /// The bytes of the memory operand: 1, 2, 4, 8, 16 or 32.
    ///
    /// ```
    /// use vm_device::exit::x86::instruction::decode;
    /// use vm_device::exit::x86::{Mode, Size};
    ///
    /// // lock cmpxchg16b [rdi]
    /// let instruction = decode(&[0xf0, 0x48, 0x0f, 0xc7, 0x0f], Mode::Bits64)?;
    /// assert_eq!((instruction.bytes(), instruction.size()), (16, Size::Qword));
    /// # Ok::<(), vm_device::exit::x86::instruction::DecodeError>(())
    /// ```
    #[inline]
    pub const fn bytes(&self) -> usize {
        1 << (self.bytes & 7)
    }

    /// The size of the register operand, larger than the access for MOVZX, MOVSX and MOVSXD; how the value read is
    /// extended to it is the second element.
    #[inline]
    pub const fn register_size(&self) -> (Size, Extension) {
        match self.form.other {
            Other::ZeroExtended => (self.operand_size, Extension::Zero),
            Other::SignExtended => (self.operand_size, Extension::Sign),
            _ => (self.size, Extension::Zero),
        }
    }

    /// Which accesses it makes.
    #[inline]
    pub const fn direction(&self) -> Direction {
        let operation = self.form.operation;
        match self.form.other {
            Other::Memory if operation.keeps_destination() => Direction::Compare,
            Other::Memory => Direction::Copy,
            _ if self.form.is_load() || operation.keeps_destination() => Direction::Read,
            _ if operation.moves() => Direction::Write,
            _ => Direction::ReadModifyWrite,
        }
    }

    /// Whether the read and the write are one atomic access: a LOCK prefix, or XCHG, which needs none.
    ///
    /// The manager makes two accesses all the same, a read and a write: a device that is to see one must see to that itself.
    pub const fn is_locked(&self) -> bool {
        self.locked || matches!(self.form.operation, Operation::Xchg)
    }

    /// How a vector register is moved, for [`Operation::MoveVector`].
    #[inline]
    pub const fn vector(&self) -> Option<VectorMove> {
        match self.form.other {
            Other::Vector => Some(VectorMove {
                register: self.register,
                bytes: self.bytes() as u8,
                aligned: self.form.is_aligned(),
                clears_upper: self.vex,
            }),
            _ => None,
        }
    }

    /// For STOS, LODS, MOVS, CMPS and SCAS, where the operands are and whether a prefix repeats the instruction.
    ///
    /// [`StringForm::offset`] with [`Gpr::Rsi`] is the offset of the source of LODS and MOVS and of the first operand of CMPS in
    /// [`StringForm::segment`], with [`Gpr::Rdi`] that of the other operand in ES.
    #[inline]
    pub fn string(&self) -> Option<StringForm> {
        if !self.form.is_string() {
            return None;
        }
        // STOS and SCAS have no operand that a prefix moves.
        let has_source = self.base == Gpr::Rsi as u8 || matches!(self.form.other, Other::Memory);
        let segment = self.segment.filter(|_| has_source).unwrap_or(Segment::Ds);
        Some(StringForm { repeat: self.repeat, address_size: self.address_size, segment })
    }

    /// The length in bytes: 1 to 15.
    #[inline]
    pub const fn length(&self) -> usize {
        self.length as usize
    }

    /// RIP after the instruction, if it is at `rip`.
    #[inline]
    pub const fn next_rip(&self, rip: u64) -> u64 {
        self.mode.instruction_pointer(rip.wrapping_add(self.length as u64))
    }
}

//! Bytes that are no instruction which can be executed here.

use core::fmt;

use super::{MAX_LENGTH, mnemonic};
use crate::exit::x86::mode::Mode;

/// The first bytes of what could not be decoded, and the mode that it was to be decoded for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    bytes: [u8; MAX_LENGTH],
    length: u8,
    mode: Mode,
}

impl Bytes {
    pub(super) fn new(instruction: &[u8], mode: Mode) -> Self {
        let mut bytes = [0; MAX_LENGTH];
        for (kept, byte) in bytes.iter_mut().zip(instruction) {
            *kept = *byte;
        }
        Self { bytes, length: instruction.len().min(MAX_LENGTH) as u8, mode }
    }

    /// The bytes, 15 at most.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// The mode of the guest.
    pub const fn mode(&self) -> Mode {
        self.mode
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_slice() {
            write!(f, " {byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({:?}, {:02x?})", self.mode, self.as_slice())
    }
}

/// Why bytes are no instruction that can be executed here. Carries the bytes.
///
/// ```
/// use vm_device::exit::x86::Mode;
/// use vm_device::exit::x86::instruction::{DecodeError, decode};
///
/// // `fld dword [rax]` touches memory, but not by a general-purpose register.
/// assert!(matches!(decode(&[0xd9, 0x00], Mode::Bits64), Err(DecodeError::Unsupported(_))));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// The instruction goes on after the last byte: fetch more of it.
    Truncated(Bytes),
    /// An instruction this module knows, in a form that no processor executes: operands or prefixes that do not go together,
    /// an opcode that the mode does not have, or more than 15 bytes.
    Malformed(Bytes),
    /// None of the instructions this module [knows](super): another one, or an opcode that means nothing.
    Unsupported(Bytes),
    /// CALL or JMP through memory, near or far. Their operand is where the guest's code goes on, which a device cannot say.
    Branch(Bytes),
    /// An instruction this module knows, in a form that does not touch memory: not the one that caused the exit.
    NoMemoryOperand(Bytes),
}

impl DecodeError {
    /// The bytes.
    pub const fn bytes(&self) -> &Bytes {
        match self {
            DecodeError::Truncated(bytes)
            | DecodeError::Malformed(bytes)
            | DecodeError::Unsupported(bytes)
            | DecodeError::Branch(bytes)
            | DecodeError::NoMemoryOperand(bytes) => bytes,
        }
    }

    /// The mnemonic that belongs to the opcode, in lower case: `fld`, `vaddps`. A condition is `cc`, as in the titles of the
    /// manuals: `setcc`. XOP, FMA4 and 3DNow! instructions, and EVEX instructions that are no moves, have the name of the
    /// extension: `an EVEX instruction (AVX-512)`.
    ///
    /// `None` if no instruction has this opcode in this mode, or if the opcode is missing, or a ModRM byte that is part of
    /// it. Nothing else is looked at: bytes that are no instruction because of a prefix, of VEX.L or of a register can have
    /// the name of one. An instruction without a memory operand is named only if its opcode has no other meaning.
    ///
    /// It takes 9 KB of an image, and nothing if neither this function nor `Display` is called.
    ///
    /// ```
    /// use vm_device::exit::x86::Mode;
    /// use vm_device::exit::x86::instruction::decode;
    ///
    /// // fld dword [rax]
    /// let error = decode(&[0xd9, 0x00], Mode::Bits64).unwrap_err();
    /// assert_eq!(error.mnemonic(), Some("fld"));
    /// assert_eq!(error.to_string(), "fld is not executed here: d9 00");
    /// ```
    pub fn mnemonic(&self) -> Option<&'static str> {
        let bytes = self.bytes();
        mnemonic::mnemonic(bytes.as_slice(), bytes.mode())
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated(bytes) => write!(f, "the instruction goes on after{bytes}"),
            DecodeError::Malformed(bytes) => write!(f, "no instruction:{bytes}"),
            DecodeError::Unsupported(bytes) => {
                let name = self.mnemonic().unwrap_or("an instruction without a name");
                write!(f, "{name} is not executed here:{bytes}")
            }
            DecodeError::Branch(bytes) => write!(f, "a call or jump through the memory of a device:{bytes}"),
            DecodeError::NoMemoryOperand(bytes) => write!(f, "an instruction that touches no memory:{bytes}"),
        }
    }
}

impl core::error::Error for DecodeError {}

//! Why no instruction was decoded.

use core::error::Error;
use core::fmt;

use super::decode::{bits, opcode};
use super::mnemonic;

/// Why there is no instruction to execute. The number is the instruction, or `htinst`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the instruction does. It has 4 bytes if the low 2 bits of the first are set, and 2 if not.
    Truncated,
    /// The instruction touches no memory: it cannot be what caused the exit. Another hart of the guest may have written it since.
    NoMemoryOperand(u32),
    /// It is no instruction, or a reserved one; or no processor writes this `htinst` for the fault.
    Malformed(u32),
    /// The instruction touches memory, and is not executed here: see [`mnemonic`](Self::mnemonic).
    Unsupported(u32),
    /// The access is of the page walk, as this pseudoinstruction says: there is no instruction that made it.
    PageWalk(u32),
}

impl DecodeError {
    /// What there is to say of an instruction that is no load and no store of an integer register. One of 2 bytes is in the low half.
    #[cold]
    pub(super) fn of(word: u32) -> Self {
        if mnemonic::of(word).is_some() {
            return DecodeError::Unsupported(word);
        }
        let width = bits(word, 12, 3);
        let is_reserved = match (bits(word, 0, 2), bits(word, 13, 3)) {
            // 2 bytes of zeros are no instruction, by definition, and nothing else that adds 0 to the stack pointer.
            (0, 0b000) => bits(word, 5, 8) == 0,
            // What is left of the extension "Zcb", and loads to `x0`.
            (0, 0b100) | (2, 0b010 | 0b011) => true,
            (3, _) => match bits(word, 0, 7) {
                opcode::LOAD | opcode::STORE | opcode::AMO => true,
                // Operations on cache blocks.
                opcode => opcode == opcode::MISC_MEM && width == 2,
            },
            _ => false,
        };
        if is_reserved { DecodeError::Malformed(word) } else { DecodeError::NoMemoryOperand(word) }
    }

    /// The mnemonic of the instruction that is not executed here, or what it is; `None` for all other errors.
    ///
    /// ```
    /// use vm_device::exit::riscv64::instruction::decode;
    ///
    /// // `c.fld fa0, 0(a1)`.
    /// assert_eq!(decode(&[0x88, 0x21]).unwrap_err().mnemonic(), Some("c.fld"));
    /// ```
    pub fn mnemonic(&self) -> Option<&'static str> {
        match *self {
            DecodeError::Unsupported(word) => mnemonic::of_refused(word),
            _ => None,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, word) = match self {
            DecodeError::Truncated => return f.write_str("the instruction goes on behind the bytes given"),
            DecodeError::NoMemoryOperand(word) => ("an instruction that touches no memory", word),
            DecodeError::Malformed(word) => ("no valid instruction", word),
            DecodeError::Unsupported(word) => ("an instruction that is not executed here", word),
            DecodeError::PageWalk(word) => ("an access to the guest's page tables, not of an instruction", word),
        };
        match self.mnemonic() {
            Some(mnemonic) => write!(f, "{what}: {mnemonic} ({word:#x})"),
            None => write!(f, "{what}: {word:#x}"),
        }
    }
}

impl Error for DecodeError {}

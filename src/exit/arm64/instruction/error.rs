//! Words that are no instruction which can be executed here.

use core::fmt;

use super::names;

/// Why a word is no instruction that can be executed here. Carries the word.
///
/// ```
/// use vm_device::exit::arm64::Mode;
/// use vm_device::exit::arm64::instruction::{DecodeError, decode};
///
/// // ldxr w0, [x1]
/// let error = decode(0x885f_7c20, Mode::new(5, 0)).unwrap_err();
/// assert_eq!((error, error.mnemonic()), (DecodeError::Unsupported(0x885f_7c20), Some("ldxr")));
/// assert_eq!(error.to_string(), "ldxr is not executed here: 0x885f7c20");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// An instruction that touches memory, but none of those this module [knows](super): see [`mnemonic`](Self::mnemonic).
    Unsupported(u32),
    /// No processor executes it: an encoding that is not allocated.
    Unallocated(u32),
    /// It is none of the loads and stores: not the instruction that caused the exit.
    NoMemoryOperand(u32),
    /// The guest executes AArch32, whose instructions are not decoded.
    Aarch32(u32),
}

impl DecodeError {
    /// The mnemonic of the instruction that is not executed here, or the name of its group; `None` for all other errors. It has
    /// no suffix for size and, of the atomic instructions, none for ordering.
    pub const fn mnemonic(&self) -> Option<&'static str> {
        match *self {
            DecodeError::Unsupported(word) => names::of_unsupported(word),
            _ => None,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `write_str` and not `{}`: `Display` of a `str` can panic, as far as a linker knows.
        f.write_str(self.mnemonic().unwrap_or_default())?;
        let (text, word) = match self {
            DecodeError::Unsupported(word) => (" is not executed here", word),
            DecodeError::Unallocated(word) => ("no instruction", word),
            DecodeError::NoMemoryOperand(word) => ("an instruction that touches no memory", word),
            DecodeError::Aarch32(word) => ("an AArch32 instruction, which is not decoded", word),
        };
        f.write_str(text)?;
        write!(f, ": {word:#010x}")
    }
}

impl core::error::Error for DecodeError {}

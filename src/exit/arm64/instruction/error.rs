//! Words that are no instruction which can be executed here.

use core::fmt;

/// Why a word is no instruction that can be executed here. Carries the word.
///
/// ```
/// use vm_device::exit::arm64::Mode;
/// use vm_device::exit::arm64::instruction::{DecodeError, decode};
///
/// // ldxr w0, [x1]
/// let error = decode(0x885f_7c20, Mode::new(5, 0)).unwrap_err();
/// assert_eq!(error, DecodeError::Unsupported { name: "ldxr", word: 0x885f_7c20 });
/// assert_eq!(error.to_string(), "ldxr is not executed here: 0x885f7c20");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// An instruction that touches memory, but none of those this module [knows](super).
    Unsupported {
        /// Its mnemonic, or the name of its group.
        name: &'static str,
        /// The instruction.
        word: u32,
    },
    /// No processor executes it: an encoding that is not allocated.
    Unallocated(u32),
    /// It is none of the loads and stores: not the instruction that caused the exit.
    NoMemoryOperand(u32),
    /// The guest executes AArch32, whose instructions are not decoded.
    Aarch32(u32),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `write_str` and not `{}`: `Display` of a `str` can panic, as far as a linker knows.
        let (text, word) = match self {
            DecodeError::Unsupported { name, word } => {
                f.write_str(name)?;
                (" is not executed here", word)
            }
            DecodeError::Unallocated(word) => ("no instruction", word),
            DecodeError::NoMemoryOperand(word) => ("an instruction that touches no memory", word),
            DecodeError::Aarch32(word) => ("an AArch32 instruction, which is not decoded", word),
        };
        f.write_str(text)?;
        write!(f, ": {word:#010x}")
    }
}

// Not derived: `Debug` of a `str` can panic too.
impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecodeError(")?;
        fmt::Display::fmt(self, f)?;
        f.write_str(")")
    }
}

impl core::error::Error for DecodeError {}

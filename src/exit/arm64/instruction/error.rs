//! Words that are no instruction which can be executed here.

use core::fmt;

/// Why a word is no instruction that can be executed here. Carries the word.
///
/// ```
/// use vm_device::exit::arm64::State;
/// use vm_device::exit::arm64::instruction::{DecodeError, decode};
///
/// // ldxr w0, [x1]
/// let error = decode(0x885f_7c20, State::new(5, 0)).unwrap_err();
/// assert_eq!(error, DecodeError::Unsupported { name: "ldxr", word: 0x885f_7c20 });
/// assert_eq!(error.to_string(), "ldxr is not executed here: 0x885f7c20");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
        match self {
            DecodeError::Unsupported { name, word } => write!(f, "{name} is not executed here: {word:#010x}"),
            DecodeError::Unallocated(word) => write!(f, "no instruction: {word:#010x}"),
            DecodeError::NoMemoryOperand(word) => write!(f, "an instruction that touches no memory: {word:#010x}"),
            DecodeError::Aarch32(word) => write!(f, "an AArch32 instruction, which is not decoded: {word:#010x}"),
        }
    }
}

impl core::error::Error for DecodeError {}

//! The A64 instruction that touched MMIO, where the syndrome does not describe it.
//!
//! ```
//! use vm_device::exit::arm64::Mode;
//! use vm_device::exit::arm64::instruction::{Addressing, Target, decode};
//!
//! let mode = Mode::new(5, 0);
//! // ldp w0, w1, [sp, #8]!
//! let instruction = decode(0x29c1_07e0, mode)?;
//! assert_eq!((instruction.mnemonic(), instruction.size()), ("ldp", 4));
//! assert_eq!(instruction.addressing(), Addressing::PreIndex { base: 31, offset: 8 });
//! assert_eq!(instruction.target(), Target::General { wide: false, sign_extended: false });
//! assert_eq!((instruction.register(), instruction.second_register()), (0, Some(1)));
//! # Ok::<(), vm_device::exit::arm64::instruction::DecodeError>(())
//! ```
//!
//! # Which instructions
//! LDR and STR of all sizes, with sign extension, and every way of addressing; LDUR, STUR, LDTR, STTR; LDP, STP, LDPSW, LDNP,
//! STNP; LDAR, STLR, LDAPR, LDLAR, STLLR, LDAPUR, STLUR; loads of literals; the same of SIMD and floating-point registers of 1
//! to 16 bytes, where the embedder holds them ([`Guest::vector`](crate::exit::Guest::vector)); PRFM, which does nothing.
//! Exclusives, atomics, structures of vectors, SVE, memory tags, and what else touches memory is
//! [`DecodeError::Unsupported`], by its name.
//!
//! # Choices
//! Where the manual leaves several behaviours to the processor (CONSTRAINED UNPREDICTABLE, Arm ARM DDI 0487, K1.2), these are
//! taken:
//! - writeback to the register that is loaded: the register has what was loaded, and no writeback;
//! - writeback to the register that is stored: its old value is stored, then it is written back;
//! - two loads to one register: the second counts.
//!
//! # Alignment
//! The processor checks the alignment of an operand, and of the stack pointer, before stage 2: what gets here is aligned as its
//! instruction needs it.

mod decode;
mod error;
mod execute;
mod names;

pub use decode::decode;
pub use error::DecodeError;
pub use execute::fetch;

/// What kind of load or store an instruction is. For a device all of them but [`Prefetch`](Self::Prefetch) do the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// LDR, STR and their kin.
    Plain,
    /// LDUR, STUR: an offset in bytes.
    Unscaled,
    /// LDTR, STTR: with the rights of EL0.
    Unprivileged,
    /// LDP, STP, LDPSW.
    Pair,
    /// LDNP, STNP: data that is not used again soon.
    NonTemporalPair,
    /// LDAR, STLR: Load-Acquire, Store-Release.
    Ordered,
    /// LDLAR, STLLR: the same in a limited ordering region.
    LimitedOrdered,
    /// LDAPR: Load-Acquire RCpc.
    WeaklyOrdered,
    /// LDAPUR, STLUR: the same, with an offset in bytes.
    WeaklyOrderedUnscaled,
    /// PRFM, PRFUM, RPRFM: hints about an address, which no access follows.
    Prefetch,
}

/// Which registers are loaded or stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// General-purpose registers.
    General {
        /// Of 64 bits; else 32, and a load clears the upper half.
        wide: bool,
        /// What is read is sign-extended to the register.
        sign_extended: bool,
    },
    /// SIMD and floating-point registers. A load clears what it does not fill.
    Vector,
}

/// How an index register becomes 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Extend {
    /// Its low 32 bits, with zeros.
    Uxtw,
    /// All of it: LSL.
    Uxtx,
    /// Its low 32 bits, with copies of their sign.
    Sxtw,
    /// All of it. The same as [`Uxtx`](Self::Uxtx).
    Sxtx,
}

/// Where the operand is. Register 31 is the stack pointer as a base, and the zero register as an index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Addressing {
    /// At the base plus an offset in bytes.
    Offset {
        /// The number of the base register.
        base: u8,
        /// The offset in bytes.
        offset: i64,
    },
    /// The same, and the base becomes the address.
    PreIndex {
        /// The number of the base register.
        base: u8,
        /// The offset in bytes.
        offset: i64,
    },
    /// At the base, to which the offset is added then.
    PostIndex {
        /// The number of the base register.
        base: u8,
        /// The offset in bytes.
        offset: i64,
    },
    /// At the base plus an index.
    Index {
        /// The number of the base register.
        base: u8,
        /// The number of the index register.
        index: u8,
        /// How the index becomes 64 bits.
        extend: Extend,
        /// By how many bits the index is shifted left: 0 to 4.
        shift: u8,
    },
    /// At the address of the instruction plus an offset in bytes.
    Literal {
        /// The offset in bytes.
        offset: i64,
    },
}

/// A decoded load or store.
///
/// ```
/// use vm_device::exit::arm64::Mode;
/// use vm_device::exit::arm64::instruction::{Addressing, Extend, Form, Target, decode};
///
/// // ldrsh x5, [x6, w7, sxtw #1]
/// let instruction = decode(0x78a7_d8c5, Mode::new(5, 0))?;
/// assert_eq!((instruction.mnemonic(), instruction.form()), ("ldrsh", Form::Plain));
/// assert_eq!((instruction.size(), instruction.writes()), (2, false));
/// assert_eq!(instruction.target(), Target::General { wide: true, sign_extended: true });
/// let index = Addressing::Index { base: 6, index: 7, extend: Extend::Sxtw, shift: 1 };
/// assert_eq!(instruction.addressing(), index);
/// # Ok::<(), vm_device::exit::arm64::instruction::DecodeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    form: Form,
    writes: bool,
    /// The binary logarithm of the number of bytes.
    scale: u8,
    target: Target,
    register: u8,
    second: Option<u8>,
    addressing: Addressing,
}

impl Instruction {
    /// What kind of load or store it is.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// Whether it is a store.
    pub const fn writes(&self) -> bool {
        self.writes
    }

    /// The size of the access for each register, in bytes: 1, 2, 4, 8, or 16.
    pub const fn size(&self) -> usize {
        1 << self.scale
    }

    /// Which registers it loads or stores.
    pub const fn target(&self) -> Target {
        self.target
    }

    /// The number of the register. 31 is the zero register, or V31. A prefetch has its operation here.
    pub const fn register(&self) -> u8 {
        self.register
    }

    /// The number of the second register of a pair.
    pub const fn second_register(&self) -> Option<u8> {
        self.second
    }

    /// Where the operand is.
    pub const fn addressing(&self) -> Addressing {
        self.addressing
    }
}

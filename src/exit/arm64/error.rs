//! Exits that are no data abort, or one that nothing answers.

use core::fmt;

use super::data_abort::{DATA_ABORT_LOWER_LEVEL, esr};

/// Why an exit is no access that a device or a mapping answers. Carries ESR_EL2.
///
/// ```
/// use vm_device::exit::arm64::{Exit, ExitError, data_abort};
///
/// let exit = |esr| Exit { esr, far: 0, hpfar: 0 };
/// // A synchronous external abort.
/// assert_eq!(data_abort(exit(0x9200_0010)), Err(ExitError::ExternalAbort(0x9200_0010)));
/// // HVC.
/// let error = data_abort(exit(0x5a00_0000)).unwrap_err();
/// assert_eq!(error.to_string(), "no data abort, but hypervisor call: syndrome 0x5a000000");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ExitError {
    /// The exit has another Exception class.
    NoDataAbort(u64),
    /// The hypervisor's own access aborted: the Exception class is that of the same Exception level.
    SameLevel(u64),
    /// Memory or a bus reported an error, or the error was found by parity or ECC. The machine's trouble, not a device's.
    ExternalAbort(u64),
    /// The address is not aligned as the instruction needs it.
    Alignment(u64),
    /// The status code is of another fault, which no device answers: the text names it.
    OtherFault(u64),
    /// FAR_EL2 is not valid, so that the place in the page is unknown.
    NoAddress(u64),
}

impl ExitError {
    /// The error for a syndrome that is no access.
    #[cold]
    pub(super) const fn new(esr: u64) -> Self {
        match esr::class(esr) {
            DATA_ABORT_LOWER_LEVEL => {}
            0x25 => return ExitError::SameLevel(esr),
            _ => return ExitError::NoDataAbort(esr),
        }
        match esr & esr::DFSC {
            // External aborts and parity errors, of an access or of the walk before it.
            0x10 | 0x12..=0x18 | 0x1b..=0x1f => ExitError::ExternalAbort(esr),
            0x21 => ExitError::Alignment(esr),
            0x04..=0x0f | 0x2a | 0x2b if esr & esr::EA != 0 => ExitError::ExternalAbort(esr),
            0x04..=0x0f | 0x2a | 0x2b => ExitError::NoAddress(esr),
            _ => ExitError::OtherFault(esr),
        }
    }

    /// ESR_EL2.
    pub const fn esr(self) -> u64 {
        match self {
            ExitError::NoDataAbort(esr)
            | ExitError::SameLevel(esr)
            | ExitError::ExternalAbort(esr)
            | ExitError::Alignment(esr)
            | ExitError::OtherFault(esr)
            | ExitError::NoAddress(esr) => esr,
        }
    }
}

/// The commoner Exception classes (Arm ARM DDI 0487, "ESR_EL2", table of EC values).
const fn class_name(esr: u64) -> &'static str {
    match esr::class(esr) {
        0x00 => "unknown reason",
        0x01 => "WFI or WFE",
        0x03..=0x06 | 0x08 | 0x0c => "AArch32 coprocessor access",
        0x07 => "access to SVE, Advanced SIMD or floating point",
        0x0d => "branch target",
        0x0e => "illegal Execution state",
        0x11 | 0x15 => "supervisor call",
        0x12 | 0x16 => "hypervisor call",
        0x13 | 0x17 => "secure monitor call",
        0x18 => "system register access",
        0x19 => "access to SVE",
        0x1a => "ERET",
        0x20 | 0x21 => "instruction abort",
        0x22 => "misaligned program counter",
        0x26 => "misaligned stack pointer",
        0x2f => "SError",
        0x30..=0x35 | 0x38 | 0x3c => "debug exception",
        _ => "another exception",
    }
}

/// The status codes (Arm ARM DDI 0487, "ESR_EL2", DFSC).
const fn fault_name(esr: u64) -> &'static str {
    match esr & esr::DFSC {
        0x00..=0x03 | 0x29 | 0x2c => "address size fault",
        0x11 => "tag check fault",
        0x22..=0x28 => "granule protection fault",
        0x30 => "TLB conflict",
        0x31 => "unsupported atomic hardware update",
        0x34 => "implementation defined lockdown",
        0x35 => "unsupported exclusive or atomic access",
        _ => "reserved status code",
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let esr = self.esr();
        // `write_str` and not `{}`: `Display` of a `str` can panic, as far as a linker knows.
        let (text, name) = match self {
            ExitError::NoDataAbort(_) => ("no data abort, but ", class_name(esr)),
            ExitError::SameLevel(_) => ("a data abort of the hypervisor itself", ""),
            ExitError::ExternalAbort(_) => ("an external abort", ""),
            ExitError::Alignment(_) => ("an alignment fault", ""),
            ExitError::OtherFault(_) => ("no access to a device, but ", fault_name(esr)),
            ExitError::NoAddress(_) => ("a data abort without an address", ""),
        };
        f.write_str(text)?;
        f.write_str(name)?;
        write!(f, ": syndrome {esr:#x}")
    }
}

impl core::error::Error for ExitError {}

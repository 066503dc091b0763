//! Why a command did nothing, or stopped.

use std::fmt;
use std::io;

use clap::error::ErrorKind;
use hosttest::boot::error::BootError;
use hosttest::output::Unwritable;
use hosttest::vmm::host::Unavailable;
use hosttest::vmm::membarrier::Unsupported;

/// Why a command did nothing, or stopped.
pub(crate) enum CommandError {
    /// The command line makes no sense.
    Usage(Box<clap::Error>),
    /// There is no KVM to run a guest.
    Kvm(Unavailable),
    /// There is no barrier for the asymmetric fence.
    Membarrier(Unsupported),
    /// The command that ran on the machine of `nested` failed, with this exit code.
    Nested(u8),
    /// A machine could not be started.
    Boot(BootError),
    /// A file cannot be written.
    File(Unwritable),
    /// The output went nowhere.
    Output(io::Error),
}

impl CommandError {
    /// What a rule of this program says against the command line, where the parser's own do not suffice.
    pub(super) fn usage(what: impl fmt::Display) -> Self {
        Self::Usage(Box::new(clap::Error::raw(ErrorKind::ValueValidation, what)))
    }

    /// 2 without KVM or membarrier(2), 64 (`EX_USAGE` of sysexits) for a command line that makes no sense, 65 (`EX_DATAERR`) and
    /// 66 (`EX_NOINPUT`) for an image, what a nested command ended with, 1 otherwise.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CommandError::Usage(_) => 64,
            CommandError::Kvm(_) | CommandError::Membarrier(_) => 2,
            CommandError::Nested(code) => *code,
            CommandError::Boot(error) => match error {
                BootError::Kvm(_) => 2,
                BootError::CommandLine { .. } | BootError::Memory { .. } => 64,
                BootError::FirmwareSize { .. } | BootError::InitrdSize { .. } | BootError::NotAKernel(..) => 65,
                BootError::Unreadable(..) => 66,
                _ => 1,
            },
            CommandError::File(_) | CommandError::Output(_) => 1,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Usage(error) => {
                let text = error.to_string();
                f.write_str(text.strip_prefix("error: ").unwrap_or(&text).trim_end())
            }
            CommandError::Kvm(error) => error.fmt(f),
            CommandError::Membarrier(error) => error.fmt(f),
            CommandError::Nested(code) => write!(f, "the command ended with exit code {code} on kvm_amd"),
            CommandError::Boot(error) => error.fmt(f),
            CommandError::File(error) => error.fmt(f),
            CommandError::Output(error) => write!(f, "cannot write to the standard output: {error}"),
        }
    }
}

impl From<Unavailable> for CommandError {
    fn from(error: Unavailable) -> Self {
        Self::Kvm(error)
    }
}

impl From<Unsupported> for CommandError {
    fn from(error: Unsupported) -> Self {
        Self::Membarrier(error)
    }
}

impl From<BootError> for CommandError {
    fn from(error: BootError) -> Self {
        Self::Boot(error)
    }
}

impl From<Unwritable> for CommandError {
    fn from(error: Unwritable) -> Self {
        Self::File(error)
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

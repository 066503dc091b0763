//! Why there is no benchmark.

use std::{fmt, io};

use crate::output::Unwritable;

/// Why there is no benchmark, or why it stopped.
#[derive(Debug)]
pub enum Error {
    /// The command line makes no sense.
    Usage(String),
    /// The standard output went nowhere.
    Output(io::Error),
    /// A file cannot be written.
    File(Unwritable),
    /// A guest could not be started.
    Guest(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(error) | Error::Guest(error) => f.write_str(error),
            Error::Output(error) => error.fmt(f),
            Error::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Unwritable> for Error {
    fn from(error: Unwritable) -> Self {
        Self::File(error)
    }
}

//! Why a verdict is not passed.

use core::fmt;

use vm_device::RegisterError;

use crate::nested::MapError;
use crate::processor::exits::Stopped;

/// What was not as it should be.
pub enum Failure {
    /// The guest's check with this number.
    Check(u8),
    /// Something else.
    Told(&'static str),
    /// A device could not be registered.
    Register(RegisterError<&'static str>),
    /// Memory could not be mapped.
    Map(MapError),
    /// The guest could not go on.
    Stopped(Stopped),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Check(post) => write!(f, "check {post:#04x} of the guest"),
            Failure::Told(what) => f.write_str(what),
            Failure::Register(error) => error.fmt(f),
            Failure::Map(error) => error.fmt(f),
            Failure::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl From<&'static str> for Failure {
    fn from(what: &'static str) -> Self {
        Failure::Told(what)
    }
}

impl From<RegisterError<&'static str>> for Failure {
    fn from(error: RegisterError<&'static str>) -> Self {
        Failure::Register(error)
    }
}

impl From<MapError> for Failure {
    fn from(error: MapError) -> Self {
        Failure::Map(error)
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Failure::Stopped(stopped)
    }
}

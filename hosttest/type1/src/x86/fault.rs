//! What the guest gets for an instruction that cannot be done.

use vm_device::exit::ExecuteError;

use super::stop::Stop;

/// An exception (Intel SDM vol. 3A, 6.15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    pub vector: u8,
    pub error_code: Option<u32>,
    /// What CR2 gets, by a page fault.
    pub address: Option<u64>,
}

impl Exception {
    /// #UD.
    pub const INVALID_OPCODE: Self = Self { vector: 6, error_code: None, address: None };
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self { vector: 13, error_code: Some(0), address: None };

    /// #PF for an access to a linear address.
    pub const fn page_fault(error_code: u32, address: u64) -> Self {
        Self { vector: 14, error_code: Some(error_code), address: Some(address) }
    }
}

/// Why an instruction cannot be done.
#[derive(Debug)]
pub enum Fault {
    /// The guest gets an exception.
    Exception(Exception),
    /// The hypervisor gives the guest up.
    Stop(Stop),
}

impl From<Exception> for Fault {
    fn from(exception: Exception) -> Self {
        Fault::Exception(exception)
    }
}

impl<S: Into<Stop>> From<S> for Fault {
    fn from(stop: S) -> Self {
        Fault::Stop(stop.into())
    }
}

impl From<ExecuteError<Fault>> for Fault {
    fn from(error: ExecuteError<Fault>) -> Self {
        match error {
            ExecuteError::Fault(fault) => fault,
            ExecuteError::Misaligned(_) => Exception::GENERAL_PROTECTION.into(),
            _ => Stop::VectorRegister.into(),
        }
    }
}

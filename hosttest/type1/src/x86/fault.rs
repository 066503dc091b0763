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
    /// #DB.
    pub const DEBUG: Self = Self { vector: 1, error_code: None, address: None };
    /// #UD.
    pub const INVALID_OPCODE: Self = Self { vector: 6, error_code: None, address: None };
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self { vector: 13, error_code: Some(0), address: None };

    /// The exceptions that the guest gets by way of the hypervisor, a bit for each vector: #DB and #AC. The delivery of either may
    /// cause another, without end and without an exit; so each exits, and one during a delivery ends the guest.
    pub const INTERCEPTED: u32 = 1 << 1 | 1 << 17;

    /// The exception of an intercepted vector.
    pub fn intercepted(vector: u64) -> Option<Self> {
        match vector {
            1 => Some(Self::DEBUG),
            17 => Some(Self { vector: 17, error_code: Some(0), address: None }),
            _ => None,
        }
    }

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

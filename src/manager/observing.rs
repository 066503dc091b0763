//! What a manager with an observer does with an access, as the manager sees it.

use crate::access::{Caller, IoError};
use crate::address::{GuestAddress, IoType};
use crate::manager::device_manager::DeviceManager;
use crate::transfer::Transfer;

/// Makes an access and tells the observer, behind a trait object: so that a program whose managers have no observer is linked
/// without the code. Every observer is one.
pub(crate) trait Observing<'d>: Sync {
    fn dispatch(
        &self,
        manager: &DeviceManager<'d>,
        caller: &Caller<'_>,
        address: GuestAddress,
        io_type: IoType,
        transfer: &mut dyn Transfer,
    ) -> Result<(), IoError>;
}

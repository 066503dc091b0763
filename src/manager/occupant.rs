//! The occupant of a slot.

use crate::access::Target;
use crate::device::Device;

/// What a dispatch needs of the device in a slot.
#[derive(Clone, Copy)]
pub(crate) struct Occupant<'d> {
    pub(crate) device: &'d dyn Device<'d>,
    pub(crate) target: Target,
}

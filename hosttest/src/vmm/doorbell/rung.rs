//! A doorbell that was rung, and the write that it stands for.

use vm_device::{Accesses, DeviceManager, GuestAddress, InstanceId, IoError, IoType, RangeState};

/// A doorbell was rung: a guest made this write, once or more often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rung {
    /// The device that has the doorbell.
    pub device: InstanceId,
    /// In which of the device's ranges.
    pub range_index: usize,
    /// Where in that range, in bytes from its base.
    pub offset: u64,
    /// The length of the write in bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// What was written; `None` if the doorbell is one of any value, of which KVM does not tell.
    pub value: Option<u64>,
}

impl Rung {
    /// Makes the write, wherever the range is now. It goes through the manager, so that a device that was removed is not
    /// called. A value that is not known is written as 0.
    ///
    /// The place is looked up, and then written to: a relocation exactly in between still sends the write to the old place.
    ///
    /// # Errors
    /// [`IoError::Unclaimed`] if no write reaches that place now: the device was removed, the range is not decoded, or
    /// another range lies there. Otherwise as [`Accesses::write`]. The guest went on long ago: it is for logs.
    pub fn write(&self, manager: &DeviceManager<'_>, accesses: &mut impl Accesses) -> Result<(), IoError> {
        let (io_type, address) =
            place(manager, self.device, self.range_index, self.offset).ok_or(IoError::Unclaimed)?;
        let value = self.value.unwrap_or(0).to_le_bytes();
        let data = value.get(..self.size.into()).ok_or(IoError::InvalidLength)?;
        accesses.write(address, data, io_type)
    }
}

/// Where a write has to go to reach `offset` in a range. `None` if none reaches it now.
pub(super) fn place(
    manager: &DeviceManager<'_>,
    device: InstanceId,
    range_index: usize,
    offset: u64,
) -> Option<(IoType, GuestAddress)> {
    let assigned = manager.range(device, range_index).filter(|assigned| assigned.state == RangeState::Decoded)?;
    let address = GuestAddress(assigned.range.first().0.checked_add(offset)?);
    // In a window, the range of another device may lie over it.
    let reached = manager.find_by_address(address, assigned.io_type) == Some((device, range_index));
    reached.then_some((assigned.io_type, address))
}

//! Why the devices could not be reset.

use core::fmt;

/// Why [`reset`](crate::DeviceManager::reset) has reset no device.
///
/// ```
/// use vm_device::{
///     Access, Device, DeviceManager, GuestAddress, IoRange, IoResource, IoType, ResetError, Storage, SystemAllocator,
/// };
///
/// /// Resets all devices from within its own callback, where a [`PowerControl`](vm_device::PowerControl) is for that.
/// struct Hasty<'d>(&'d DeviceManager<'d>);
///
/// impl Device<'_> for Hasty<'_> {
///     fn name(&self) -> &str {
///         "hasty"
///     }
///     fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
///     fn write(&self, access: &Access<'_>, _: &[u8]) {
///         assert_eq!(self.0.nested(access).reset(), Err(ResetError::InOwnCallback { device: "hasty" }));
///     }
/// }
///
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> = DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY));
/// static DEVICE: Hasty<'static> = Hasty(&MANAGER);
/// MANAGER.register_device(&DEVICE, None, &[IoResource::mmio(0x1000, 4)], &[])?;
/// MANAGER.dispatcher(0)?.write(GuestAddress(0x1000), &[1], IoType::Mmio)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ResetError<N> {
    /// A callback of the device that was running when the call was made has not ended within the manager's spin limit
    /// ([`with_removal_spins`](crate::DeviceManager::with_removal_spins)). Perhaps the call was made from within it.
    InUse {
        /// The device.
        device: N,
    },
    /// The call was made from within a callback of the device, through [`nested`](crate::DeviceManager::nested).
    InOwnCallback {
        /// The device.
        device: N,
    },
    /// Another reset of the manager's devices is under way. Perhaps the call was made from within [`Device::reset`](crate::Device::reset).
    UnderWay,
}

impl<N: fmt::Display> fmt::Display for ResetError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResetError::InUse { device } => {
                write!(f, "a callback of \"{device}\" has not ended; was the reset called from within it?")
            }
            ResetError::InOwnCallback { device } => {
                write!(
                    f,
                    "from within a callback of \"{device}\" nothing is reset: a `PowerControl` resets when it has ended"
                )
            }
            ResetError::UnderWay => f.write_str("another reset is under way"),
        }
    }
}

impl<N: fmt::Debug + fmt::Display> core::error::Error for ResetError<N> {}

//! Why a path names no device.

use core::fmt;

/// Why [`find_by_path`](crate::DeviceManager::find_by_path) finds no device.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{DeviceManager, IoRange, IoResource, PathError, Storage, SystemAllocator};
///
/// let serial = Constant("serial", 7);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// assert_eq!(manager.find_by_path("/serial"), Err(PathError::NotFound));
/// for port in [0x3f8, 0x2f8] {
///     manager.register_device(&serial, None, &[IoResource::pio(port, 8)], &[]).unwrap();
/// }
/// assert_eq!(manager.find_by_path("/serial"), Err(PathError::Ambiguous));
/// assert!(manager.find_by_path("/serial@2f8").is_ok());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PathError {
    /// No device has this path, or the path does not begin with a `/`.
    NotFound,
    /// A part of the path is that of several siblings.
    Ambiguous,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathError::NotFound => "no device has this path",
            PathError::Ambiguous => {
                "several siblings have this path: the first address of a device tells them apart, as in \"serial@3f8\""
            }
        })
    }
}

impl core::error::Error for PathError {}

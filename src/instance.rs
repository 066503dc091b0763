//! The names of registrations.

use core::fmt;

use crate::indices::NodeIndex;

/// Names one registration of a device.
///
/// An id is never given out twice: an index that is used again carries a new generation, and an index that has used up its
/// generations is retired. So the id of a removed device is an error wherever it is used, and never names another device.
///
/// It displays as `#3`, and as `#3.1` once the index was used before.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator, UnregisterError};
///
/// let device = Constant("card", 1);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let old = manager.register_device(&device, None, &[], &[]).unwrap();
/// manager.unregister_device(old).unwrap();
/// let new = manager.register_device(&device, None, &[], &[]).unwrap();
/// assert_ne!(old, new);
/// assert_eq!(manager.unregister_device(old), Err(UnregisterError::NotFound { id: old }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InstanceId {
    pub(crate) index: NodeIndex,
    pub(crate) generation: u32,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "#{}", self.index.position()),
            generation => write!(f, "#{}.{generation}", self.index.position()),
        }
    }
}

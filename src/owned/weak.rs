//! A reference to an owned manager that does not keep it.

use alloc::sync::Weak;

use super::{OwnedManager, Owners};

/// A reference to an [`OwnedManager`] that does not keep it: what a device holds that accesses, registers or removes devices.
///
/// ```
/// use std::sync::Arc;
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::owned::{Capacities, OwnedManager, WeakManager};
/// use vm_device::{Access, Device, GuestAddress, IoRange, IoResource, IoType, SystemAllocator};
///
/// /// Shows the first 64 KiB of the memory space at another place.
/// struct Mirror(WeakManager);
///
/// impl Device<'_> for Mirror {
///     fn name(&self) -> &str {
///         "mirror"
///     }
///     fn read(&self, access: &Access<'_>, data: &mut [u8]) {
///         if let Some(manager) = self.0.upgrade() {
///             let _ = manager.nested(access).read(GuestAddress(access.offset()), data, IoType::Mmio);
///         }
///     }
/// }
///
/// let capacities = Capacities { devices: 8, ranges: 16, vcpus: 2 };
/// let manager = OwnedManager::new(capacities, SystemAllocator::new(IoRange::ALL_MEMORY))?;
/// let mirror = Arc::new(Mirror(manager.downgrade()));
/// manager.register_device(Arc::new(Constant("low", 7)), None, &[IoResource::mmio(0x1000, 4)], &[])?;
/// manager.register_device(mirror.clone(), None, &[IoResource::mmio(0x8_0000, 0x1_0000)], &[])?;
/// let mut data = [0; 4];
/// manager.dispatcher(0)?.read(GuestAddress(0x8_1000), &mut data, IoType::Mmio)?;
/// assert_eq!(data, [7; 4]);
///
/// drop(manager);
/// assert!(mirror.0.upgrade().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct WeakManager(pub(super) Weak<Owners>);

impl WeakManager {
    /// A reference to no manager: what a device has before its VMM has one, or in a test.
    pub const fn new() -> Self {
        Self(Weak::new())
    }

    /// The manager; `None` if it has ended. The manager lives at least as long as what is returned: a device drops it
    /// at the end of its callback.
    pub fn upgrade(&self) -> Option<OwnedManager> {
        self.0.upgrade().map(OwnedManager)
    }
}

impl Default for WeakManager {
    fn default() -> Self {
        Self::new()
    }
}

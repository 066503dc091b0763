//! A vCPU's handle that may outlive the owner of the manager.

use alloc::sync::Arc;

use super::held::{Held, Keep};
use super::inner::Inner;
use crate::access::IoError;
use crate::address::{GuestAddress, IoType};
use crate::dispatch::{Dispatcher, MEMORY_HINTS, PORT_HINTS, accesses};

/// A vCPU's handle, as [`Dispatcher`], which belongs to nobody's scope: a thread may have it for as long as it likes.
///
/// When the last [`OwnedManager`](super::OwnedManager) is dropped, accesses reach no device any more. Each handle that is dropped then
/// drops the devices that callbacks were in and are no more, and the last one frees the manager.
///
/// ```
/// use std::sync::Arc;
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::owned::{Capacities, OwnedManager};
/// use vm_device::{GuestAddress, IoError, IoRange, IoResource, IoType, SystemAllocator};
///
/// let capacities = Capacities { devices: 8, ranges: 16, vcpus: 2 };
/// let manager = OwnedManager::new(capacities, SystemAllocator::new(IoRange::ALL_MEMORY))?;
/// let timer = Arc::new(Constant("timer", 7));
/// manager.register_device(timer.clone(), None, &[IoResource::mmio(0x1000, 8)], &[])?;
/// let mut vcpu = manager.dispatcher(0)?;
/// let thread = std::thread::spawn(move || {
///     let mut data = [0; 4];
///     while vcpu.read(GuestAddress(0x1000), &mut data, IoType::Mmio) != Err(IoError::Unclaimed) {
///         assert_eq!(data, [7; 4]);
///     }
///     assert_eq!(data, [0xff; 4]);
/// });
/// drop(manager);
/// thread.join().unwrap();
/// assert_eq!(Arc::strong_count(&timer), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OwnedDispatcher<const PORTS: usize = PORT_HINTS, const MEMORY: usize = MEMORY_HINTS>(
    pub(super) Held<Dispatcher<'static, PORTS, MEMORY>, Arc<Inner>>,
);

impl<T> Keep<T> for Arc<Inner> {
    type Ending<'a> = FinishAfterEnd<'a>;

    fn ending(&self, _: &T) -> FinishAfterEnd<'_> {
        FinishAfterEnd(self)
    }
}

/// Drops the devices that nobody is in any more, where the manager has ended, when it is dropped.
pub(super) struct FinishAfterEnd<'a>(&'a Inner);

impl Drop for FinishAfterEnd<'_> {
    fn drop(&mut self) {
        self.0.finish_after_end();
    }
}

impl<const PORTS: usize, const MEMORY: usize> OwnedDispatcher<PORTS, MEMORY> {
    /// See [`DeviceManager::read`](crate::DeviceManager::read).
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        self.0.get_mut().read(address, data, io_type)
    }

    /// See [`DeviceManager::write`](crate::DeviceManager::write).
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn write(&mut self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        self.0.get_mut().write(address, data, io_type)
    }

    /// See [`DeviceManager::read_string`](crate::DeviceManager::read_string).
    ///
    /// # Errors
    /// As there.
    pub fn read_string(&mut self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        self.0.get_mut().read_string(port, element, data)
    }

    /// See [`DeviceManager::write_string`](crate::DeviceManager::write_string).
    ///
    /// # Errors
    /// As there.
    pub fn write_string(&mut self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        self.0.get_mut().write_string(port, element, data)
    }
}

accesses!([const PORTS: usize, const MEMORY: usize] OwnedDispatcher<PORTS, MEMORY>);

//! One trait for every way to make an access.

use super::handle::Dispatcher;
use super::nested::Nested;
use crate::access::IoError;
use crate::address::{GuestAddress, IoType};
use crate::manager::DeviceManager;

/// Answers a guest's accesses: a vCPU's [`Dispatcher`], a reference to a [`DeviceManager`], or [`Nested`], the manager as seen
/// from within a callback. It serves code that takes any of them: an exit handler, a bridge, a test.
///
/// ```
/// use vm_device::{Accesses, DeviceManager, GuestAddress, IoRange, IoType, Storage, SystemAllocator};
///
/// /// The guest reads 4 bytes of memory, by whatever dispatches.
/// fn read_dword(accesses: &mut impl Accesses, address: u64) -> u32 {
///     let mut data = [0; 4];
///     let _ = accesses.read(GuestAddress(address), &mut data, IoType::Mmio);
///     u32::from_le_bytes(data)
/// }
///
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// assert_eq!(read_dword(&mut manager.dispatcher(0).unwrap(), 0x1000), u32::MAX);
/// assert_eq!(read_dword(&mut &manager, 0x1000), u32::MAX);
/// ```
pub trait Accesses {
    /// The guest reads, as [`DeviceManager::read`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError>;

    /// The guest writes, as [`DeviceManager::write`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    fn write(&mut self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError>;

    /// The guest reads a string of ports, as [`DeviceManager::read_string`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    fn read_string(&mut self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError>;

    /// The guest writes a string of ports, as [`DeviceManager::write_string`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    fn write_string(&mut self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError>;
}

/// Implements [`Accesses`] by the methods of the same names.
macro_rules! accesses {
    ([$($generics:tt)*] $dispatcher:ty) => {
        impl<$($generics)*> $crate::Accesses for $dispatcher {
            #[inline(always)]
            fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
                (*self).read(address, data, io_type)
            }
            #[inline(always)]
            fn write(&mut self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
                (*self).write(address, data, io_type)
            }
            fn read_string(&mut self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
                (*self).read_string(port, element, data)
            }
            fn write_string(&mut self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
                (*self).write_string(port, element, data)
            }
        }
    };
}

#[cfg(feature = "alloc")]
pub(crate) use accesses;

accesses!([const PORTS: usize, const MEMORY: usize] Dispatcher<'_, PORTS, MEMORY>);
accesses!([] &DeviceManager<'_>);
accesses!([] Nested<'_, '_>);

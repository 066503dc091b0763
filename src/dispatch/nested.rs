//! Accesses, and removals, from within a callback.

use super::transfer::{Read, ReadString, Transfer, Write, WriteString};
use crate::access::{Access, Caller, IoError};
use crate::address::{GuestAddress, IoType};
use crate::error::UnregisterError;
use crate::instance::InstanceId;
use crate::manager::{DeviceManager, Scope};

impl<'d> DeviceManager<'d> {
    /// The manager as seen from within the callback that `access` is handed to. Accesses made through it use the
    /// vCPU's handle, and their depth is known exactly; a removal asked for through it is refused at once if it
    /// would wait for the caller itself.
    pub fn nested<'a>(&'d self, access: &'a Access<'a>) -> Nested<'a, 'd> {
        Nested { manager: self, access }
    }
}

/// The manager as seen from within a callback; see [`DeviceManager::nested`].
#[derive(Clone, Copy)]
pub struct Nested<'a, 'd> {
    manager: &'d DeviceManager<'d>,
    access: &'a Access<'a>,
}

impl<'d> Nested<'_, 'd> {
    #[inline(never)]
    fn dispatch(&self, address: GuestAddress, io_type: IoType, transfer: &mut dyn Transfer) -> Result<(), IoError> {
        let Caller { manager, site, .. } = *self.access.caller;
        let mut site = site.deeper();
        if manager != self.manager.identity() {
            // Another manager's removals do not look at this one's records.
            site.record = None;
        }
        let outer = self.access.as_outer();
        let caller = Caller { manager: self.manager.identity(), site, outer: Some(&outer) };
        self.manager.dispatch_from(&caller, address, io_type, transfer)
    }

    /// As [`DeviceManager::read`], one level deeper.
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn read(&self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        self.dispatch(address, io_type, &mut Read { data })
    }

    /// As [`DeviceManager::write`], one level deeper.
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn write(&self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        self.dispatch(address, io_type, &mut Write { data })
    }

    /// As [`DeviceManager::read_string`], one level deeper.
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn read_string(&self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        self.dispatch(port.into(), IoType::Pio, &mut ReadString::new(element, data))
    }

    /// As [`DeviceManager::write_string`], one level deeper.
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn write_string(&self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        self.dispatch(port.into(), IoType::Pio, &mut WriteString::new(element, data))
    }

    /// As [`DeviceManager::unregister_device`], but refused at once if it would wait for the caller itself.
    ///
    /// # Errors
    /// As [`DeviceManager::unregister_device`]; [`InOwnCallback`](UnregisterError::InOwnCallback) if the access, or one
    /// that it is nested in, is the device's.
    pub fn unregister_device(&self, id: InstanceId) -> Result<(), UnregisterError<'d>> {
        self.manager.remove(id, Scope::Device, Some(self.access))
    }

    /// As [`DeviceManager::unregister_subtree`], but refused at once if it would wait for the caller itself.
    ///
    /// # Errors
    /// As [`unregister_device`](Self::unregister_device), `HasChildren` excepted.
    pub fn unregister_subtree(&self, id: InstanceId) -> Result<(), UnregisterError<'d>> {
        self.manager.remove(id, Scope::Subtree, Some(self.access))
    }
}

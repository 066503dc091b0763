//! An owned manager as seen from within a callback.

use alloc::string::String;
use alloc::vec::Vec;

use super::{OwnedManager, RemovedDevice, SharedDevice};
use crate::access::{Access, IoError};
use crate::address::{GuestAddress, IoType};
use crate::dispatch::accesses;
use crate::error::{ResetError, UnregisterError};
use crate::instance::InstanceId;

/// The manager as seen from within a callback; see [`OwnedManager::nested`]. As [`Nested`](crate::Nested).
#[derive(Clone)]
pub struct OwnedNested<'a> {
    pub(super) manager: OwnedManager,
    pub(super) access: &'a Access<'a>,
}

impl OwnedNested<'_> {
    /// See [`Nested::read`](crate::Nested::read).
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        self.manager.inner().manager().nested(self.access).read(address, data, io_type)
    }

    /// See [`Nested::write`](crate::Nested::write).
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        self.manager.inner().manager().nested(self.access).write(address, data, io_type)
    }

    /// See [`Nested::read_string`](crate::Nested::read_string).
    ///
    /// # Errors
    /// As there.
    pub fn read_string(&self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        self.manager.inner().manager().nested(self.access).read_string(port, element, data)
    }

    /// See [`Nested::write_string`](crate::Nested::write_string).
    ///
    /// # Errors
    /// As there.
    pub fn write_string(&self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        self.manager.inner().manager().nested(self.access).write_string(port, element, data)
    }

    /// As [`OwnedManager::unregister_device`], but refused at once if it would wait for the caller itself.
    ///
    /// # Errors
    /// As [`Nested::unregister_device`](crate::Nested::unregister_device).
    pub fn unregister_device(&self, id: InstanceId) -> Result<SharedDevice, UnregisterError<String>> {
        self.manager.inner().unregister(id, Some(self.access))
    }

    /// As [`OwnedManager::unregister_subtree`], but refused at once if it would wait for the caller itself.
    ///
    /// # Errors
    /// As [`Nested::unregister_subtree`](crate::Nested::unregister_subtree).
    pub fn unregister_subtree(&self, id: InstanceId) -> Result<Vec<RemovedDevice>, UnregisterError<String>> {
        self.manager.inner().unregister_subtree(id, Some(self.access))
    }

    /// As [`OwnedManager::reset`], but refused at once: it would wait for the caller itself.
    ///
    /// # Errors
    /// As [`Nested::reset`](crate::Nested::reset).
    pub fn reset(&self) -> Result<(), ResetError<String>> {
        let inner = self.manager.inner();
        let _call = inner.call();
        inner.manager().nested(self.access).reset().map_err(|error| error.map_names(String::from))
    }
}

accesses!([] OwnedNested<'_>);

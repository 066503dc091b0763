//! Accesses, and removals, from within a callback.

use crate::access::{Access, Caller, IoError};
use crate::address::{GuestAddress, IoType};
use crate::error::{ResetError, UnregisterError};
use crate::instance::InstanceId;
use crate::manager::{DeviceManager, Scope};
use crate::transfer::{Read, ReadString, Transfer, Write, WriteString};

impl<'d> DeviceManager<'d> {
    /// The manager as seen from within the callback that `access` is handed to. Accesses through it use the vCPU's hazard
    /// record, and their depth is known exactly. A removal through it is refused at once if it would wait for the caller
    /// itself.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     Access, Device, DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// /// An index and data pair in front of another device's memory: a read of the data is a read at the index.
    /// struct Window<'d> {
    ///     manager: &'d DeviceManager<'d>,
    ///     index: u64,
    /// }
    ///
    /// impl<'d> Device<'d> for Window<'d> {
    ///     fn name(&self) -> &str {
    ///         "window"
    ///     }
    ///     fn read(&self, access: &Access<'_>, data: &mut [u8]) {
    ///         let _ = self.manager.nested(access).read(GuestAddress(self.index), data, IoType::Mmio);
    ///     }
    ///     fn write(&self, _: &Access<'_>, _: &[u8]) {}
    /// }
    ///
    /// static STORAGE: Storage<8, 16, 2> = Storage::new();
    /// static MANAGER: DeviceManager<'static> =
    ///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
    /// static WINDOW: Window<'static> = Window { manager: &MANAGER, index: 0x8000 };
    /// static MEMORY: Constant = Constant("memory", 7);
    ///
    /// MANAGER.register_device(&WINDOW, None, &[IoResource::pio(0xcfc, 4)], &[])?;
    /// MANAGER.register_device(&MEMORY, None, &[IoResource::mmio(0x8000, 0x1000)], &[])?;
    /// let mut data = [0; 4];
    /// MANAGER.dispatcher(0)?.read(GuestAddress(0xcfc), &mut data, IoType::Pio)?;
    /// assert_eq!(data, [7; 4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        let Caller { manager, site, vcpu, .. } = *self.access.caller;
        let mut site = site.deeper();
        if manager != self.manager.identity() {
            // The record is the other manager's: under its index this one may have none, or another vCPU's, whose words are in use.
            site.record = None;
        }
        let outer = self.access.as_outer();
        let caller = Caller { manager: self.manager.identity(), site, vcpu, outer: Some(&outer) };
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
    /// ```
    /// use vm_device::{
    ///     Access, Device, DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator,
    ///     UnregisterError,
    /// };
    ///
    /// /// Tries to remove itself from its own callback.
    /// struct Card<'d>(&'d DeviceManager<'d>);
    ///
    /// impl<'d> Device<'d> for Card<'d> {
    ///     fn name(&self) -> &str {
    ///         "card"
    ///     }
    ///     fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    ///     fn write(&self, access: &Access<'_>, _: &[u8]) {
    ///         let card = self.0.find_by_path("/card").expect("it is registered");
    ///         let refused = self.0.nested(access).unregister_device(card);
    ///         assert_eq!(refused, Err(UnregisterError::InOwnCallback { device: "card" }));
    ///     }
    /// }
    ///
    /// static STORAGE: Storage<8, 16, 2> = Storage::new();
    /// static MANAGER: DeviceManager<'static> = DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// static CARD: Card<'static> = Card(&MANAGER);
    /// MANAGER.register_device(&CARD, None, &[IoResource::mmio(0x1000, 4)], &[])?;
    /// MANAGER.dispatcher(0)?.write(GuestAddress(0x1000), &[1], IoType::Mmio)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`DeviceManager::unregister_device`]; [`InOwnCallback`](UnregisterError::InOwnCallback) if the access, or one
    /// that it is nested in, is the device's.
    pub fn unregister_device(&self, id: InstanceId) -> Result<(), UnregisterError<&'d str>> {
        self.manager.remove(id, Scope::Device, Some(self.access))
    }

    /// As [`DeviceManager::unregister_subtree`], but refused at once if it would wait for the caller itself.
    ///
    /// # Errors
    /// As [`unregister_device`](Self::unregister_device), `HasChildren` excepted.
    pub fn unregister_subtree(&self, id: InstanceId) -> Result<(), UnregisterError<&'d str>> {
        self.manager.remove(id, Scope::Subtree, Some(self.access))
    }

    /// As [`DeviceManager::reset`], but refused at once: it would wait for the caller itself.
    ///
    /// # Errors
    /// [`InOwnCallback`](ResetError::InOwnCallback) if the access, or one that it is nested in, is of the same manager; otherwise
    /// as [`DeviceManager::reset`].
    pub fn reset(&self) -> Result<(), ResetError<&'d str>> {
        self.manager.reset_within(Some(self.access))
    }
}

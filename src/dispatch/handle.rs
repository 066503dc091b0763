//! The handle of a vCPU.

use super::path::{call_device, prepare};
use super::transfer::{Read, ReadString, Transfer, Write, WriteString};
use crate::access::{Caller, IoError, ReaderSite};
use crate::address::{GuestAddress, IoType, Space};
use crate::error::DispatcherError;
use crate::index::{AtomicAddress, Index, Table};
use crate::manager::{DeviceManager, Occupant};
use crate::quiescence::Reader;

impl<'d> DeviceManager<'d> {
    /// A handle of one vCPU, which dispatches faster than the manager itself.
    ///
    /// # Errors
    /// [`DispatcherError`], if there are as many as the storage has room for, or if the storage is another manager's.
    pub fn dispatcher(&'d self) -> Result<Dispatcher<'d>, DispatcherError> {
        self.dispatcher_with_hints()
    }

    /// A handle of one vCPU as [`dispatcher`](Self::dispatcher), with another number of hints. `PORTS` and `MEMORY` are the
    /// numbers of hint entries (2 bytes each), rounded down to a power of two. 1 caches the last range only; 0 always
    /// searches.
    ///
    /// # Errors
    /// As [`dispatcher`](Self::dispatcher).
    pub fn dispatcher_with_hints<const PORTS: usize, const MEMORY: usize>(
        &'d self,
    ) -> Result<Dispatcher<'d, PORTS, MEMORY>, DispatcherError> {
        if !self.acquire_storage() {
            return Err(DispatcherError::StorageInUse);
        }
        let exhausted = DispatcherError::Exhausted { capacity: self.slots.vcpus() };
        let (reader, record) = self.slots.acquire_reader().ok_or(exhausted)?;
        let site = ReaderSite { record: Some(record), level: 0 };
        let caller = Caller { manager: self.identity(), site, outer: None };
        let open_bus = [Space::Ports, Space::Memory].map(|space| self.open_bus(space));
        Ok(Dispatcher { caller, manager: self, reader, open_bus })
    }
}

/// A vCPU's handle on the manager: it dispatches without touching anything that other vCPUs write, and remembers in which
/// ranges it found addresses before.
///
/// It belongs to one vCPU, which is why its methods take `&mut self`. From within a callback, use
/// [`DeviceManager::nested`]. Dropping it makes its place free for another.
///
/// Hints are a direct-mapped cache: one entry per 4 ports or per 512 bytes of memory. Addresses that map to the same entry
/// evict each other. Every hint is validated when it is used. An access is searched for where the hint is about another
/// range, where a window has other ranges in it, and for the first time after the range was moved; always, if it is a string,
/// if it comes from within a callback, and if the range is all of the memory.
#[repr(C)]
pub struct Dispatcher<'d, const PORTS: usize = PORT_HINTS, const MEMORY: usize = MEMORY_HINTS> {
    /// First of all: each access refers to it.
    caller: Caller<'d>,
    manager: &'d DeviceManager<'d>,
    reader: Reader<'d, Occupant<'d>, PORTS, MEMORY>,
    /// Those of ports and of memory.
    open_bus: [[u8; 4]; 2],
}

/// How many hints about ports a [`Dispatcher`] has, if nothing else is asked for.
pub const PORT_HINTS: usize = 1024;

/// How many hints about memory a [`Dispatcher`] has, if nothing else is asked for: so many that random accesses to 1,024 ranges
/// are no slower than without hints. With fewer ranges, fewer do.
pub const MEMORY_HINTS: usize = 2048;

impl<'d, const PORTS: usize, const MEMORY: usize> Dispatcher<'d, PORTS, MEMORY> {
    /// The manager it dispatches for.
    pub fn manager(&self) -> &'d DeviceManager<'d> {
        self.manager
    }

    #[inline(always)]
    fn dispatch(&mut self, address: GuestAddress, io_type: IoType, transfer: impl Transfer) -> Result<(), IoError> {
        let [ports, memory] = self.open_bus;
        match io_type.space() {
            Space::Ports => self.dispatch_in(|index| &index.ports, ports, address, io_type, transfer),
            Space::Memory => self.dispatch_in(|index| &index.memory, memory, address, io_type, transfer),
        }
    }

    /// The fast path: by a hint, or by one search.
    #[inline(always)]
    fn dispatch_in<A: AtomicAddress>(
        &mut self,
        table: impl FnOnce(&'d Index<'d>) -> &'d Table<'d, A>,
        open_bus: [u8; 4],
        address: GuestAddress,
        io_type: IoType,
        mut transfer: impl Transfer,
    ) -> Result<(), IoError> {
        let length = prepare(open_bus, io_type, &mut transfer)?;
        let Self { caller, manager, reader, .. } = self;
        if let Some((guard, base)) = reader.enter_by_hint(A::SPACE, address.0, length) {
            return call_device(&guard, caller, base, address.0, transfer);
        }
        match manager.search_and_call(table(&manager.index), reader, caller, address.0, transfer) {
            Ok(outcome) => outcome,
            // By value until here, so that it need not be in memory.
            Err(mut transfer) => manager.dispatch_from(caller, address, io_type, &mut transfer),
        }
    }

    /// As [`DeviceManager::read`]: all of `data` is one access, and the elements of a string are for
    /// [`read_string`](Self::read_string).
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    #[inline(always)]
    pub fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        self.dispatch(address, io_type, Read { data })
    }

    /// As [`DeviceManager::write`]: all of `data` is one access, and the elements of a string are for
    /// [`write_string`](Self::write_string).
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    #[inline(always)]
    pub fn write(&mut self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        self.dispatch(address, io_type, Write { data })
    }

    /// As [`DeviceManager::read_string`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn read_string(&mut self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        self.dispatch_string(port, &mut ReadString::new(element, data))
    }

    /// As [`DeviceManager::write_string`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn write_string(&mut self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        self.dispatch_string(port, &mut WriteString::new(element, data))
    }

    #[inline(never)]
    fn dispatch_string(&mut self, port: u16, transfer: &mut dyn Transfer) -> Result<(), IoError> {
        self.manager.dispatch_from(&self.caller, port.into(), IoType::Pio, transfer)
    }
}

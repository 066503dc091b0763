//! The handle of a vCPU.

use super::path::{call_device, prepare};
use crate::access::{Caller, IoError, ReaderSite};
use crate::address::{GuestAddress, IoType, Space};
use crate::error::DispatcherError;
use crate::index::{AtomicAddress, Index, Table};
use crate::manager::{DeviceManager, Occupant};
use crate::quiescence::Reader;
use crate::transfer::{Read, ReadString, Transfer, Write, WriteString};

impl<'d> DeviceManager<'d> {
    /// A handle of the vCPU with this number, which dispatches faster than the manager itself. Devices see the number in
    /// [`Access::vcpu`](crate::Access::vcpu); the manager does not use it, and two handles may have the same.
    ///
    /// ```
    /// use vm_device::{DeviceManager, DispatcherError, IoRange, Storage, SystemAllocator};
    ///
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let first = manager.dispatcher(0);
    /// let second = manager.dispatcher(1);
    /// assert!(first.is_ok() && second.is_ok());
    /// assert_eq!(manager.dispatcher(2).err(), Some(DispatcherError::Exhausted { capacity: 2 }));
    ///
    /// // A dropped handle makes room for another.
    /// drop(first);
    /// assert!(manager.dispatcher(2).is_ok());
    /// ```
    ///
    /// # Errors
    /// [`DispatcherError`], if there are as many as the storage has room for, or if the storage is another manager's.
    pub fn dispatcher(&'d self, vcpu: u16) -> Result<Dispatcher<'d>, DispatcherError> {
        self.dispatcher_with_hints(vcpu)
    }

    /// A handle of one vCPU as [`dispatcher`](Self::dispatcher), with another number of hints. `PORTS` and `MEMORY` are the
    /// numbers of hint entries (2 bytes each), rounded down to a power of two. 1 caches the last range only; 0 always
    /// searches.
    ///
    /// ```
    /// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
    ///
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let small = manager.dispatcher_with_hints::<1, 64>(0).unwrap();
    /// assert!(size_of_val(&small) < 256);
    /// ```
    ///
    /// # Errors
    /// As [`dispatcher`](Self::dispatcher).
    pub fn dispatcher_with_hints<const PORTS: usize, const MEMORY: usize>(
        &'d self,
        vcpu: u16,
    ) -> Result<Dispatcher<'d, PORTS, MEMORY>, DispatcherError> {
        if !self.acquire_storage() {
            return Err(DispatcherError::StorageInUse);
        }
        let exhausted = DispatcherError::Exhausted { capacity: self.slots.vcpus() };
        let (mut reader, record) = self.slots.acquire_reader().ok_or(exhausted)?;
        if self.observer.is_some() {
            // No hint matches, and what is searched for is left to the slow path.
            reader.keep_no_hints();
        }
        let site = ReaderSite { record: Some(record), level: 0 };
        let caller = Caller { manager: self.identity(), site, vcpu: Some(vcpu), outer: None };
        let open_bus = [Space::Ports, Space::Memory].map(|space| self.open_bus(space));
        Ok(Dispatcher { caller, manager: self, reader, open_bus })
    }
}

/// A vCPU's handle on the manager: it dispatches without touching anything that other vCPUs with handles write, and remembers in
/// which ranges it found addresses before.
///
/// It belongs to one vCPU, which is why its methods take `&mut self`. From within a callback, use
/// [`DeviceManager::nested`]. Dropping it makes room for another handle.
///
/// Hints are a direct-mapped cache: one entry per 4 ports or per 512 bytes of memory. Addresses that map to the same entry
/// evict each other. Every hint is validated when it is used. A hint serves an access that lies whole in one range without other ranges in it. An access needs a search where the hint is
/// about another range, where a window has other ranges in it, and the first time after a range was moved. Strings, accesses from
/// within a callback and accesses to a range that is all of the memory are always searched for. An access that begins in one range
/// and ends in another, or that no range holds whole, takes up to three more searches: the page
/// [memory](crate::guide::memory) has the worst case.
///
/// The innermost range that holds the whole access answers: a byte register in a window has the accesses of one byte, and the
/// window the wider ones around it.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{
///     DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator,
/// };
///
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> = DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY));
/// static DEVICE: Constant = Constant("scratch", 7);
///
/// MANAGER.register_device(&DEVICE, None, &[IoResource::mmio(0x1000, 0x1000)], &[])?;
/// std::thread::scope(|scope| {
///     // Each vCPU has its own.
///     for number in 0..2 {
///         scope.spawn(move || {
///             let mut vcpu = MANAGER.dispatcher(number).expect("there is room for two");
///             let mut data = [0; 8];
///             for offset in (0..0x1000).step_by(8) {
///                 assert_eq!(vcpu.read(GuestAddress(0x1000 + offset), &mut data, IoType::Mmio), Ok(()));
///             }
///             assert_eq!(data, [7; 8]);
///         });
///     }
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[repr(C)]
pub struct Dispatcher<'d, const PORTS: usize = PORT_HINTS, const MEMORY: usize = MEMORY_HINTS> {
    /// The first field, at offset 0, because each access refers to it.
    caller: Caller<'d>,
    manager: &'d DeviceManager<'d>,
    reader: Reader<'d, Occupant<'d>, PORTS, MEMORY>,
    /// Of ports and of memory.
    open_bus: [[u8; 4]; 2],
}

/// How many hints about ports a [`Dispatcher`] has, if nothing else is asked for.
pub const PORT_HINTS: usize = 1024;

/// How many hints about memory a [`Dispatcher`] has, if nothing else is asked for: so many that random accesses to 1,024 ranges
/// are no slower than without hints. Fewer are enough for fewer ranges.
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
        let Self { caller, manager, reader, .. } = self;
        let Ok(length) = prepare(open_bus, io_type, &mut transfer) else {
            // With the same error, of which an observer is told there.
            return manager.dispatch_from(caller, address, io_type, &mut transfer);
        };
        if let Some((guard, base)) = reader.enter_by_hint(A::SPACE, address.0, length) {
            return call_device(&guard, caller, base, address.0, transfer);
        }
        match manager.search_and_call(table(&manager.index), reader, caller, address.0, transfer) {
            Ok(outcome) => outcome,
            // The transfer is passed by value up to here, so that it can stay in registers.
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
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, IoError, IoRange, IoResource, Storage, SystemAllocator};
    ///
    /// let device = Constant("disk", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager =
    ///     DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
    /// manager.register_device(&device, None, &[IoResource::pio(0x1f0, 2)], &[]).unwrap();
    /// let mut vcpu = manager.dispatcher(0).unwrap();
    /// let mut data = [0; 8];
    /// assert_eq!(vcpu.read_string(0x1f0, 2, &mut data), Ok(()));
    /// assert_eq!(data, [7; 8]);
    /// // An element of 4 bytes runs over the end of the range.
    /// assert_eq!(vcpu.read_string(0x1f0, 4, &mut data), Err(IoError::Straddling));
    /// ```
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

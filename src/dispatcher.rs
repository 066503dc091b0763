//! Handles: of a vCPU, and of an access from within a callback.

use crate::access::{Access, Caller, IoError};
use crate::address::{GuestAddress, IoType};
use crate::dispatch::Seat;
use crate::hints::Hints;
use crate::manager::DeviceManager;
use crate::transfer::{Read, ReadString, Transfer, Write, WriteString};

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> DeviceManager<'d, DEVICES, RANGES, VCPUS> {
    /// A handle of one vCPU, which dispatches faster than the manager itself.
    ///
    /// # Errors
    /// [`NoDispatcher`] if there are as many as the manager has room for.
    pub fn dispatcher(&'d self) -> Result<Dispatcher<'d, DEVICES, RANGES, VCPUS>, NoDispatcher> {
        self.dispatcher_with_hints()
    }

    /// A handle of one vCPU as [`dispatcher`](Self::dispatcher), with as many hints as are asked for: `PORTS` about where it
    /// found ports, and `MEMORY` about where it found memory, of 2 bytes each; a power of two, or as many as the next lower
    /// one are used. With 1 it remembers the last range only; with 0, every access to the space is searched for.
    ///
    /// # Errors
    /// As [`dispatcher`](Self::dispatcher).
    pub fn dispatcher_with_hints<const PORTS: usize, const MEMORY: usize>(
        &'d self,
    ) -> Result<Dispatcher<'d, DEVICES, RANGES, VCPUS, PORTS, MEMORY>, NoDispatcher> {
        let claim = self.slots.claim_line().ok_or(NoDispatcher { capacity: VCPUS })?;
        let caller = Caller { manager: self.identity(), place: claim.top().into(), parent: None };
        let seat = Seat { claim, caller };
        Ok(Dispatcher { manager: self, seat, ports: Hints::new(), memory: Hints::new() })
    }

    /// The manager as seen from within the callback that `access` is handed to. Accesses made through it use the
    /// vCPU's handle, and their depth is known exactly; a removal asked for through it is refused at once if it
    /// would wait for the caller itself.
    pub fn nested<'a>(&'d self, access: &'a Access<'a>) -> Nested<'a, 'd, DEVICES, RANGES, VCPUS> {
        Nested { manager: self, access }
    }
}

/// A vCPU's handle on the manager: it dispatches without touching anything that other vCPUs write, and remembers in which
/// ranges it found addresses before.
///
/// It belongs to one vCPU, which is why its methods take `&mut self`. From within a callback, use
/// [`DeviceManager::nested`]. Dropping it makes its place free for another.
///
/// What it remembers are hints, which are checked when they are used: `PORTS` of them for ports, one for each four, and
/// `MEMORY` for memory, one for each 512 bytes. Addresses for which there is the same hint take it from each other. An access
/// is searched for where the hint is about another range, where a window has other ranges in it, and for the first time after
/// the range was moved; always, if it is a string, if it comes from within a callback, and if the range is all of the memory.
pub struct Dispatcher<
    'd,
    const DEVICES: usize,
    const RANGES: usize,
    const VCPUS: usize,
    const PORTS: usize = PORT_HINTS,
    const MEMORY: usize = MEMORY_HINTS,
> {
    manager: &'d DeviceManager<'d, DEVICES, RANGES, VCPUS>,
    seat: Seat<'d>,
    ports: Hints<RANGES, 2, PORTS>,
    memory: Hints<RANGES, 9, MEMORY>,
}

/// How many hints about ports a [`Dispatcher`] has, if nothing else is asked for.
pub const PORT_HINTS: usize = 1024;

/// How many hints about memory a [`Dispatcher`] has, if nothing else is asked for: so many that random accesses to 1,024 ranges
/// are no slower than without hints. With fewer ranges, fewer do.
pub const MEMORY_HINTS: usize = 2048;

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize, const PORTS: usize, const MEMORY: usize>
    Dispatcher<'d, DEVICES, RANGES, VCPUS, PORTS, MEMORY>
{
    /// The manager it dispatches for.
    pub fn manager(&self) -> &'d DeviceManager<'d, DEVICES, RANGES, VCPUS> {
        self.manager
    }

    #[inline(always)]
    fn dispatch(&mut self, address: GuestAddress, io_type: IoType, transfer: impl Transfer) -> Result<(), IoError> {
        let Self { manager, seat, ports, memory } = self;
        match io_type {
            IoType::Pio => manager.dispatch(&manager.ports, seat, ports, address, io_type, transfer),
            IoType::Mmio | IoType::PhysicalMmio => {
                manager.dispatch(&manager.memory, seat, memory, address, io_type, transfer)
            }
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
        self.manager.dispatch_from(&self.seat.caller, port.into(), IoType::Pio, transfer)
    }
}

/// There are as many [`Dispatcher`]s as the manager has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoDispatcher {
    /// How many there can be.
    pub capacity: usize,
}

impl core::fmt::Display for NoDispatcher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "all {} dispatchers are in use, as many as `VCPUS` says", self.capacity)
    }
}

impl core::error::Error for NoDispatcher {}

/// The manager as seen from within a callback; see [`DeviceManager::nested`].
#[derive(Clone, Copy)]
pub struct Nested<'a, 'd, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> {
    pub(crate) manager: &'d DeviceManager<'d, DEVICES, RANGES, VCPUS>,
    pub(crate) access: &'a Access<'a>,
}

impl<'a, 'd, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> Nested<'a, 'd, DEVICES, RANGES, VCPUS> {
    #[inline(never)]
    fn dispatch(&self, address: GuestAddress, io_type: IoType, transfer: &mut dyn Transfer) -> Result<(), IoError> {
        let Caller { manager, place, .. } = *self.access.caller;
        let mut place = place.deeper();
        if manager != self.manager.identity() {
            // Another manager's removals do not look at this one's lines.
            place = place.without_line();
        }
        let parent = self.access.as_parent();
        let caller = Caller { manager: self.manager.identity(), place, parent: Some(&parent) };
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
}

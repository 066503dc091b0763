//! The way of a guest access to its device.

use crate::access::{Access, IoError, MAX_DEPTH, fill};
use crate::address::{GuestAddress, IoType};
use crate::device::Device;
use crate::manager::DeviceManager;
use crate::resource::AccessSizes;
use crate::slots::{Body, Claim, Entered, Place, TooDeep};
use crate::table::{Segment, Start, Table};

/// The data of an access, in one direction, on its way to the device.
trait Transfer {
    /// The length of what is accessed at once, in bytes: the whole access, or one element of a string.
    fn unit(&self) -> usize;
    /// Whether the data is a whole number of units, and not empty.
    fn is_whole(&self) -> bool;
    /// Hands the access to the device as it is.
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>);
    /// Hands it over in pieces of accepted sizes, which there are.
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes);
}

struct Read<'b> {
    data: &'b mut [u8],
}

struct Write<'b> {
    data: &'b [u8],
}

struct ReadString<'b> {
    element: usize,
    data: &'b mut [u8],
}

struct WriteString<'b> {
    element: usize,
    data: &'b [u8],
}

impl Transfer for Read<'_> {
    #[inline(always)]
    fn unit(&self) -> usize {
        self.data.len()
    }
    #[inline(always)]
    fn is_whole(&self) -> bool {
        !self.data.is_empty()
    }
    #[inline(always)]
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        device.read(access, self.data);
    }
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes) {
        let mut access = *access;
        let mut rest = &mut *self.data;
        while let Some((piece, behind)) =
            sizes.piece(access.offset(), rest.len()).and_then(|size| rest.split_at_mut_checked(size))
        {
            device.read(&access, piece);
            access = access.advanced(piece.len() as u64);
            rest = behind;
        }
    }
}

impl Transfer for Write<'_> {
    #[inline(always)]
    fn unit(&self) -> usize {
        self.data.len()
    }
    #[inline(always)]
    fn is_whole(&self) -> bool {
        !self.data.is_empty()
    }
    #[inline(always)]
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        device.write(access, self.data);
    }
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes) {
        let mut access = *access;
        let mut rest = self.data;
        while let Some((piece, behind)) =
            sizes.piece(access.offset(), rest.len()).and_then(|size| rest.split_at_checked(size))
        {
            device.write(&access, piece);
            access = access.advanced(size_of_val(piece) as u64);
            rest = behind;
        }
    }
}

impl Transfer for ReadString<'_> {
    fn unit(&self) -> usize {
        self.element
    }
    fn is_whole(&self) -> bool {
        !self.data.is_empty() && self.data.len().is_multiple_of(self.element)
    }
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        device.read_string(access, self.element, self.data);
    }
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes) {
        for data in self.data.chunks_mut(self.element.max(1)) {
            Read { data }.in_pieces(device, access, sizes);
        }
    }
}

impl Transfer for WriteString<'_> {
    fn unit(&self) -> usize {
        self.element
    }
    fn is_whole(&self) -> bool {
        !self.data.is_empty() && self.data.len().is_multiple_of(self.element)
    }
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        device.write_string(access, self.element, self.data);
    }
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes) {
        for data in self.data.chunks(self.element.max(1)) {
            Write { data }.in_pieces(device, access, sizes);
        }
    }
}

/// Who makes an access, as far as the manager can know.
#[derive(Clone, Copy)]
struct Caller<'a> {
    place: Place<'a>,
    parent: Option<&'a Access<'a>>,
}

impl Caller<'_> {
    /// A caller without a handle, who may or may not be in a callback.
    const ANONYMOUS: Self = Self { place: Place::ANONYMOUS, parent: None };
}

/// The segment a [`Dispatcher`] used last, and the version under which it found it.
#[derive(Clone, Copy)]
struct LastHit {
    version: u64,
    segment: Segment,
}

impl LastHit {
    const fn none() -> Self {
        Self { version: 0, segment: Segment::NOWHERE }
    }
}

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> DeviceManager<'d, DEVICES, RANGES, VCPUS> {
    /// A guest reads `data.len()` bytes at `address`. Afterwards every byte of `data` is defined: by the device, or as
    /// the space's open-bus value.
    ///
    /// It may be called from any vCPU, from within callbacks, and by any number of callers at once; it takes no lock.
    /// A vCPU that has a [`Dispatcher`] uses that instead, and is faster.
    ///
    /// # Errors
    /// [`IoError`] tells why the access did not reach a device. For the guest it is complete all the same.
    #[inline]
    pub fn read(&self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        self.read_by(Caller::ANONYMOUS, &mut LastHit::none(), address, data, io_type)
    }

    /// A guest writes `data` at `address`. As [`read`](Self::read), the other way.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub fn write(&self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        self.dispatch(Caller::ANONYMOUS, &mut LastHit::none(), address, io_type, Write { data })
    }

    /// A guest reads a string (`REP INS`): `data.len() / element` elements of `element` bytes each, all from `port`.
    /// As [`read`](Self::read) otherwise; the checks are those of one element.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_string(&self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        self.read_string_by(Caller::ANONYMOUS, &mut LastHit::none(), port, element, data)
    }

    /// A guest writes a string (`REP OUTS`). As [`read_string`](Self::read_string), the other way.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write_string(&self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        self.dispatch(Caller::ANONYMOUS, &mut LastHit::none(), port.into(), IoType::Pio, WriteString { element, data })
    }

    /// A handle of one vCPU, which dispatches faster than the manager itself.
    ///
    /// # Errors
    /// [`NoDispatcher`] if there are as many as the manager has room for.
    pub fn dispatcher(&'d self) -> Result<Dispatcher<'d, DEVICES, RANGES, VCPUS>, NoDispatcher> {
        let claim = self.slots.claim_line().ok_or(NoDispatcher { capacity: VCPUS })?;
        Ok(Dispatcher { manager: self, claim, hits: [LastHit::none(); 2] })
    }

    /// The manager as seen from within the callback that `access` is handed to. Accesses made through it use the
    /// vCPU's handle, and their depth is known exactly; a removal asked for through it is refused at once if it
    /// would wait for the caller itself.
    pub fn nested<'a>(&'d self, access: &'a Access<'a>) -> Nested<'a, 'd, DEVICES, RANGES, VCPUS> {
        Nested { manager: self, access }
    }

    #[inline(always)]
    fn read_by(
        &self,
        caller: Caller<'_>,
        hit: &mut LastHit,
        address: GuestAddress,
        data: &mut [u8],
        io_type: IoType,
    ) -> Result<(), IoError> {
        fill(data, self.open_bus(io_type));
        self.dispatch(caller, hit, address, io_type, Read { data })
    }

    fn read_string_by(
        &self,
        caller: Caller<'_>,
        hit: &mut LastHit,
        port: u16,
        element: usize,
        data: &mut [u8],
    ) -> Result<(), IoError> {
        fill(data, self.open_bus(IoType::Pio));
        self.dispatch(caller, hit, port.into(), IoType::Pio, ReadString { element, data })
    }

    /// Finds the device and calls it.
    #[inline(always)]
    fn dispatch(
        &self,
        caller: Caller<'_>,
        hit: &mut LastHit,
        address: GuestAddress,
        io_type: IoType,
        mut transfer: impl Transfer,
    ) -> Result<(), IoError> {
        if !transfer.is_whole() {
            return Err(IoError::InvalidLength);
        }
        let address = address.0;
        let Some(last) = address.checked_add(transfer.unit() as u64 - 1) else {
            return Err(unclaimed(io_type.last_address().0, address, u64::MAX, 0));
        };
        // Before the last hit is looked at, which the two kinds of MMIO share.
        if io_type == IoType::PhysicalMmio {
            return Err(IoError::NotDispatched);
        }
        let entered = match self.enter(caller.place, hit, address, last) {
            Ok(Some(entered)) => entered,
            Ok(None) => {
                let mut searches = self.slots.searches();
                loop {
                    searches.begin();
                    let found = match io_type {
                        IoType::Pio => self.look_up(&self.ports, hit, address, last),
                        IoType::Mmio | IoType::PhysicalMmio => self.look_up(&self.memory, hit, address, last),
                    };
                    found?;
                    match self.enter(caller.place, hit, address, last) {
                        Ok(Some(entered)) => break entered,
                        Ok(None) => {}
                        Err(TooDeep) => return Err(IoError::TooDeep),
                    }
                }
            }
            Err(TooDeep) => return Err(IoError::TooDeep),
        };
        let body = entered.body();
        let access = Access {
            io_type,
            node: body.node,
            range_index: body.range_index,
            address,
            base: hit.segment.base,
            manager: self.identity(),
            place: caller.place,
            parent: caller.parent,
        };
        if body.sizes != AccessSizes::ANY {
            return sized(transfer, body, &access);
        }
        transfer.whole(body.device, &access);
        Ok(())
    }

    /// Enters the slot of the last hit, if that has the addresses from `address` to `last` and still holds.
    #[inline(always)]
    fn enter<'a>(
        &'a self,
        place: Place<'a>,
        hit: &LastHit,
        address: u64,
        last: u64,
    ) -> Result<Option<Entered<'a, 'd>>, TooDeep> {
        let LastHit { version, segment } = *hit;
        if segment.first <= address && last <= segment.last {
            self.slots.enter(place, version, segment.slot)
        } else {
            Ok(None)
        }
    }

    /// Finds the segment that has the addresses from `address` to `last`, and leaves it in `hit`. A function of its own:
    /// nothing of it is in the way where a hit is repeated.
    #[inline(never)]
    fn look_up<A: Start>(
        &self,
        table: &Table<A, RANGES>,
        hit: &mut LastHit,
        address: u64,
        last: u64,
    ) -> Result<(), IoError> {
        let version = self.slots.version();
        let segment = table.find(&self.slots, version, address);
        if segment.slot().is_some() && last <= segment.last {
            *hit = LastHit { version, segment };
        } else if self.slots.is_current(version) {
            return Err(if segment.slot().is_some() {
                IoError::Straddling
            } else {
                unclaimed(A::LAST, address, last, segment.last)
            });
        }
        Ok(())
    }
}

/// Hands an access over to a device that does not take every size.
#[inline(never)]
fn sized(mut transfer: impl Transfer, body: &Body<'_>, access: &Access<'_>) -> Result<(), IoError> {
    let (offset, unit) = (access.offset(), transfer.unit());
    if body.sizes.accepts(offset, unit) {
        transfer.whole(body.device, access);
    } else if body.sizes.splits(offset, unit) {
        transfer.in_pieces(body.device, access, body.sizes);
    } else {
        return Err(IoError::RefusedSize);
    }
    Ok(())
}

/// Which error it is that an access from `address` to `last` begins in a hole that ends at `hole_last`, in a space that
/// ends at `space_last`.
#[cold]
fn unclaimed(space_last: u64, address: u64, last: u64, hole_last: u64) -> IoError {
    if address <= space_last && last > hole_last.min(space_last) { IoError::Straddling } else { IoError::Unclaimed }
}

/// A vCPU's handle on the manager: it dispatches without touching anything that other vCPUs write, and remembers the
/// range it used last in each space.
///
/// It belongs to one vCPU, which is why its methods take `&mut self`. From within a callback, use
/// [`DeviceManager::nested`]. Dropping it makes its place free for another.
pub struct Dispatcher<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> {
    manager: &'d DeviceManager<'d, DEVICES, RANGES, VCPUS>,
    claim: Claim<'d>,
    hits: [LastHit; 2],
}

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> Dispatcher<'d, DEVICES, RANGES, VCPUS> {
    /// The manager it dispatches for.
    pub fn manager(&self) -> &'d DeviceManager<'d, DEVICES, RANGES, VCPUS> {
        self.manager
    }

    /// The manager, the vCPU as the caller, and what it hit last in a space.
    #[inline(always)]
    fn parts(&mut self, io_type: IoType) -> (&'d DeviceManager<'d, DEVICES, RANGES, VCPUS>, Caller<'_>, &mut LastHit) {
        let [ports, memory] = &mut self.hits;
        let hit = if io_type == IoType::Pio { ports } else { memory };
        (self.manager, Caller { place: self.claim.place(), parent: None }, hit)
    }

    /// As [`DeviceManager::read`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    #[inline(always)]
    pub fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        let (manager, caller, hit) = self.parts(io_type);
        manager.read_by(caller, hit, address, data, io_type)
    }

    /// As [`DeviceManager::write`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    #[inline(always)]
    pub fn write(&mut self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        let (manager, caller, hit) = self.parts(io_type);
        manager.dispatch(caller, hit, address, io_type, Write { data })
    }

    /// As [`DeviceManager::read_string`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn read_string(&mut self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        let (manager, caller, hit) = self.parts(IoType::Pio);
        manager.read_string_by(caller, hit, port, element, data)
    }

    /// As [`DeviceManager::write_string`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn write_string(&mut self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        let (manager, caller, hit) = self.parts(IoType::Pio);
        manager.dispatch(caller, hit, port.into(), IoType::Pio, WriteString { element, data })
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
        write!(f, "all {} dispatchers are in use", self.capacity)
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
    fn caller(&self) -> Result<Caller<'a>, IoError> {
        let mut place = self.access.place.deeper();
        if self.access.manager != self.manager.identity() {
            // Another manager's removals do not look at this one's lines.
            place = place.without_line();
        }
        if place.level() >= MAX_DEPTH {
            return Err(IoError::TooDeep);
        }
        Ok(Caller { place, parent: Some(self.access) })
    }

    /// As [`DeviceManager::read`], one level deeper.
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn read(&self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        fill(data, self.manager.open_bus(io_type));
        self.manager.dispatch(self.caller()?, &mut LastHit::none(), address, io_type, Read { data })
    }

    /// As [`DeviceManager::write`], one level deeper.
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn write(&self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        self.manager.dispatch(self.caller()?, &mut LastHit::none(), address, io_type, Write { data })
    }

    /// As [`DeviceManager::read_string`], one level deeper.
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn read_string(&self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        fill(data, self.manager.open_bus(IoType::Pio));
        self.manager.dispatch(
            self.caller()?,
            &mut LastHit::none(),
            port.into(),
            IoType::Pio,
            ReadString { element, data },
        )
    }

    /// As [`DeviceManager::write_string`], one level deeper.
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    pub fn write_string(&self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        self.manager.dispatch(
            self.caller()?,
            &mut LastHit::none(),
            port.into(),
            IoType::Pio,
            WriteString { element, data },
        )
    }
}

//! The way of a guest access to its device.

use crate::access::{Access, Caller, IoError};
use crate::address::{GuestAddress, IoType};
use crate::manager::DeviceManager;
use crate::resource::AccessSizes;
use crate::slots::{Announce, Body, Claim, Entered, Found, Place, Refused, Top};
use crate::sync::AtomicU32;
use crate::table::{Entry, NOBODY, Start, Table};
use crate::transfer::{Read, ReadString, Transfer, Write, WriteString};

/// The segment that a search found last, whose it is, and the version under which that holds.
#[derive(Clone, Copy)]
struct LastHit<'a, 'd> {
    version: u64,
    /// The first address of the segment, and its length in bytes; at most `u64::MAX`.
    first: u64,
    length: u64,
    /// Where the range starts that the segment is a part of.
    base: u64,
    found: Option<Found<'a, 'd>>,
}

impl LastHit<'_, '_> {
    /// Before anything was found.
    const fn none() -> Self {
        Self { version: 0, first: 0, length: 0, base: 0, found: None }
    }

    /// Whether all of an access of `unit` bytes, at least one, lies in the segment. In one branch: where it starts alone is
    /// hard to predict.
    #[inline(always)]
    fn has(&self, address: u64, unit: usize) -> bool {
        self.length.saturating_sub(address.wrapping_sub(self.first)) >= unit as u64
    }
}

/// What a vCPU keeps besides the last hit, to find a range without a search: where it found one before. A hint may be wrong,
/// and is checked against the index.
trait Hints {
    /// The number of the slot that was found last at an address like this.
    fn hint(&self, address: u64) -> u16;
    fn keep(&mut self, address: u64, slot: u16);
}

/// None for memory: its addresses are too many.
struct NoHints;

impl Hints for NoHints {
    #[inline(always)]
    fn hint(&self, _: u64) -> u16 {
        NOBODY
    }
    #[inline(always)]
    fn keep(&mut self, _: u64, _: u16) {}
}

/// For ports, which slot was found last at each four of them. Those that are `4 * HINTS` apart share a place.
struct PortHints<const HINTS: usize>([u16; HINTS]);

impl<const HINTS: usize> PortHints<HINTS> {
    #[inline(always)]
    fn place(port: u64) -> Option<usize> {
        ((port >> 2) as usize).checked_rem(HINTS)
    }
}

impl<const HINTS: usize> Hints for PortHints<HINTS> {
    #[inline(always)]
    fn hint(&self, port: u64) -> u16 {
        Self::place(port).and_then(|place| self.0.get(place)).copied().unwrap_or(NOBODY)
    }
    #[inline(always)]
    fn keep(&mut self, port: u64, slot: u16) {
        if let Some(place) = Self::place(port).and_then(|place| self.0.get_mut(place)) {
            *place = slot;
        }
    }
}

/// From where an access comes: a vCPU's handle, or anywhere else.
trait Origin<'a>: Announce<'a> + Into<Place<'a>> {
    /// The access from within whose callback it is made, if that is known.
    fn parent(self) -> Option<&'a Access<'a>>;
}

impl<'a> Origin<'a> for Top<'a> {
    #[inline(always)]
    fn parent(self) -> Option<&'a Access<'a>> {
        None
    }
}

#[derive(Clone, Copy)]
struct Anywhere<'a> {
    place: Place<'a>,
    parent: Option<&'a Access<'a>>,
}

impl<'a> Announce<'a> for Anywhere<'a> {
    type Announced = <Place<'a> as Announce<'a>>::Announced;

    fn announce(self, found: Found<'a, '_>, crowd: &'a AtomicU32, asymmetric: bool) -> Option<Self::Announced> {
        self.place.announce(found, crowd, asymmetric)
    }
}

impl<'a> From<Anywhere<'a>> for Place<'a> {
    fn from(anywhere: Anywhere<'a>) -> Self {
        anywhere.place
    }
}

impl<'a> Origin<'a> for Anywhere<'a> {
    fn parent(self) -> Option<&'a Access<'a>> {
        self.parent
    }
}

/// Where an access is made: what stays the same from one to the next.
struct Seat<'a, O> {
    origin: O,
    caller: Caller<'a>,
}

impl<'a, O: Origin<'a>> Seat<'a, O> {
    fn new(manager: usize, origin: O) -> Self {
        Self { origin, caller: Caller { manager, place: origin.into() } }
    }
}

/// What is known of one space from the accesses before.
struct Known<'a, 'd, H> {
    hit: LastHit<'a, 'd>,
    hints: H,
}

impl<H> Known<'_, '_, H> {
    const fn nothing(hints: H) -> Self {
        Self { hit: LastHit::none(), hints }
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
        self.dispatch_without_handle(address, io_type, &mut Read { data })
    }

    /// A guest writes `data` at `address`. As [`read`](Self::read), the other known.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub fn write(&self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        self.dispatch_without_handle(address, io_type, &mut Write { data })
    }

    /// A guest reads a string (`REP INS`): `data.len() / element` elements of `element` bytes each, all from `port`.
    /// As [`read`](Self::read) otherwise; the checks are those of one element.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_string(&self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        self.dispatch_without_handle(port.into(), IoType::Pio, &mut ReadString::new(element, data))
    }

    /// A guest writes a string (`REP OUTS`). As [`read_string`](Self::read_string), the other known.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write_string(&self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        self.dispatch_without_handle(port.into(), IoType::Pio, &mut WriteString::new(element, data))
    }

    /// A handle of one vCPU, which dispatches faster than the manager itself.
    ///
    /// # Errors
    /// [`NoDispatcher`] if there are as many as the manager has room for.
    pub fn dispatcher(&'d self) -> Result<Dispatcher<'d, DEVICES, RANGES, VCPUS>, NoDispatcher> {
        self.dispatcher_with_port_hints()
    }

    /// A handle of one vCPU as [`dispatcher`](Self::dispatcher), with `HINTS` hints of 2 bytes about where it found ports:
    /// best a power of two; 0, where memory is scarce, for none.
    ///
    /// # Errors
    /// As [`dispatcher`](Self::dispatcher).
    pub fn dispatcher_with_port_hints<const HINTS: usize>(
        &'d self,
    ) -> Result<Dispatcher<'d, DEVICES, RANGES, VCPUS, HINTS>, NoDispatcher> {
        let claim = self.slots.claim_line().ok_or(NoDispatcher { capacity: VCPUS })?;
        let seat = Seat::new(self.identity(), claim.top());
        let (ports, memory) = (Known::nothing(PortHints([NOBODY; HINTS])), Known::nothing(NoHints));
        Ok(Dispatcher { manager: self, seat, ports, memory, _claim: claim })
    }

    /// The manager as seen from within the callback that `access` is handed to. Accesses made through it use the
    /// vCPU's handle, and their depth is known exactly; a removal asked for through it is refused at once if it
    /// would wait for the caller itself.
    pub fn nested<'a>(&'d self, access: &'a Access<'a>) -> Nested<'a, 'd, DEVICES, RANGES, VCPUS> {
        Nested { manager: self, access }
    }

    /// For a caller without a handle, who may or may not be in a callback.
    #[inline(never)]
    fn dispatch_without_handle(
        &self,
        address: GuestAddress,
        io_type: IoType,
        transfer: &mut dyn Transfer,
    ) -> Result<(), IoError> {
        self.dispatch_from(Anywhere { place: Place::ANONYMOUS, parent: None }, address, io_type, transfer)
    }

    /// As [`dispatch`](Self::dispatch), for one access of somebody who keeps nothing of it. It searches until it is known what
    /// becomes of the access.
    #[inline(never)]
    fn dispatch_from<'a>(
        &'a self,
        origin: Anywhere<'a>,
        address: GuestAddress,
        io_type: IoType,
        transfer: &mut dyn Transfer,
    ) -> Result<(), IoError> {
        let unit = self.begin(io_type, transfer)?;
        let seat = Seat::new(self.identity(), origin);
        let mut searches = self.slots.searches();
        loop {
            let hit = match io_type {
                IoType::Pio => self.find_elsewhere(&self.ports, address.0, unit)?,
                IoType::Mmio | IoType::PhysicalMmio => self.find_elsewhere(&self.memory, address.0, unit)?,
            };
            let hit = match hit {
                Some(hit) => Some(hit),
                None => self.find_exactly(io_type, address.0, unit)?,
            };
            if let Some(hit) = hit {
                match self.enter(&seat, &hit) {
                    Ok(entered) => {
                        // Writers do not hold back for a reader who has found what it searched for: the callback may be a
                        // writer.
                        searches.end();
                        return hand_over(&entered, &seat, &hit, address.0, transfer);
                    }
                    Err(Refused::TooDeep) => return Err(IoError::TooDeep),
                    Err(Refused::Stale) => {}
                }
            }
            searches.again();
        }
    }

    /// What comes before anything can fail, and what fails before any search. The length of what is accessed at once, at
    /// least 1.
    #[inline(always)]
    fn begin(&self, io_type: IoType, transfer: &mut (impl Transfer + ?Sized)) -> Result<usize, IoError> {
        transfer.fill(self.open_bus(io_type));
        if !transfer.is_whole() {
            return Err(IoError::InvalidLength);
        }
        if io_type == IoType::PhysicalMmio {
            return Err(IoError::NotDispatched);
        }
        Ok(transfer.unit())
    }

    /// Finds the device in the table of the space of `io_type`, and calls it.
    #[inline(always)]
    fn dispatch<'a, A: Start, O: Origin<'a>>(
        &'a self,
        table: &Table<A, RANGES>,
        seat: &Seat<'a, O>,
        known: &mut Known<'a, 'd, impl Hints>,
        address: GuestAddress,
        io_type: IoType,
        mut transfer: impl Transfer,
    ) -> Result<(), IoError> {
        let unit = self.begin(io_type, &mut transfer)?;
        let at = address.0;
        if known.hit.has(at, unit) || self.hit_by_hint(known, at, unit) || self.look_up(table, known, at, unit)? {
            if let Ok(entered) = self.enter(seat, &known.hit) {
                return hand_over(&entered, seat, &known.hit, at, transfer);
            }
            known.hit = LastHit::none();
        }
        let (origin, mut transfer) = (Anywhere { place: seat.origin.into(), parent: seat.origin.parent() }, transfer);
        self.dispatch_from(origin, address, io_type, &mut transfer)
    }

    /// Enters the slot of the last hit, if that still holds.
    #[inline(always)]
    fn enter<'a, O: Origin<'a>>(
        &'a self,
        seat: &Seat<'a, O>,
        hit: &LastHit<'a, 'd>,
    ) -> Result<Entered<'a, 'd, O::Announced>, Refused> {
        let found = hit.found.ok_or(Refused::Stale)?;
        self.slots.enter(seat.origin, hit.version, found)
    }

    /// Whether the slot of the hint has all of an access to ports; it is in the last hit then. That the slot's range has the
    /// addresses, under a version, is enough if it is one of ports, and no other range can lie in it.
    #[inline(always)]
    fn hit_by_hint<'a>(&'a self, known: &mut Known<'a, 'd, impl Hints>, address: u64, unit: usize) -> bool {
        let Some(found) = self.slots.slot(known.hints.hint(address)) else { return false };
        let version = self.slots.version();
        let (base, last) = found.bounds(version);
        // 0 for no bounds.
        let length = last.wrapping_sub(base).wrapping_add(1);
        let hit = LastHit { version, first: base, length, base, found: Some(found) };
        if !found.is_port_leaf() || !hit.has(address, unit) {
            return false;
        }
        known.hit = hit;
        true
    }

    /// Finds the segment that has all of an access, and leaves it in the last hit; or sees that nobody claims any of it.
    /// `false`, if neither is plain: a search has to be repeated, or the access is not all in one segment, or it reaches the
    /// last address of the space.
    #[inline(always)]
    fn look_up<'a, A: Start>(
        &'a self,
        table: &Table<A, RANGES>,
        known: &mut Known<'a, 'd, impl Hints>,
        address: u64,
        unit: usize,
    ) -> Result<bool, IoError> {
        let Some(hit) = self.find(table, address, unit)? else { return Ok(false) };
        known.hit = hit;
        if let Some(found) = hit.found {
            known.hints.keep(address, found.number());
        }
        Ok(true)
    }

    /// As [`find`](Self::find), in a function of its own.
    #[inline(never)]
    fn find_elsewhere<A: Start>(
        &self,
        table: &Table<A, RANGES>,
        address: u64,
        unit: usize,
    ) -> Result<Option<LastHit<'_, 'd>>, IoError> {
        self.find(table, address, unit)
    }

    #[inline(always)]
    fn find<A: Start>(
        &self,
        table: &Table<A, RANGES>,
        address: u64,
        unit: usize,
    ) -> Result<Option<LastHit<'_, 'd>>, IoError> {
        let Some(last) = address.checked_add(unit as u64 - 1).filter(|last| *last < A::LAST) else { return Ok(None) };
        let version = self.slots.version();
        let Entry { owner, first, last: entry_last } = table.find(version, address);
        let hole = |is_hole| match is_hole && self.slots.is_current(version) {
            true => Err(IoError::Unclaimed),
            false => Ok(None),
        };
        let Some(found) = self.slots.slot(owner) else { return hole(last < first) };
        let (base, range_last) = found.bounds(version);
        let segment_last = entry_last.min(range_last);
        if first <= address && last <= segment_last {
            // It is below the last address of the space, so that the length is no more than that.
            let length = segment_last.wrapping_sub(first).wrapping_add(1);
            return Ok(Some(LastHit { version, first, length, base, found: Some(found) }));
        }
        hole(last < first || (range_last < address && last <= entry_last))
    }

    /// As [`find`](Self::find), of any access, and slower; `None` only where the search has to be repeated.
    #[cold]
    fn find_exactly(&self, io_type: IoType, address: u64, unit: usize) -> Result<Option<LastHit<'_, 'd>>, IoError> {
        let space_last = io_type.last_address().0;
        let last = address.checked_add(unit as u64 - 1);
        let version = self.slots.version();
        let (owner, entry_last) = self.segments(io_type, version).find(address);
        let found = self.slots.slot(owner);
        let (base, range_last) = found.map_or((0, 0), |found| found.bounds(version));
        let found = found.filter(|_| address <= range_last);
        let segment_last = if found.is_some() { entry_last.min(range_last) } else { entry_last.min(space_last) };
        let is_whole = last.is_some_and(|last| last <= segment_last);
        match found {
            Some(_) if is_whole => Ok(Some(LastHit { version, base, found, ..LastHit::none() })),
            _ if !self.slots.is_current(version) => Ok(None),
            None if is_whole || address > space_last => Err(IoError::Unclaimed),
            _ => Err(IoError::Straddling),
        }
    }
}

/// Hands an access over to the device of the slot.
#[inline(always)]
fn hand_over<'a, 'd, O: Origin<'a>>(
    entered: &Entered<'a, 'd, O::Announced>,
    seat: &Seat<'a, O>,
    hit: &LastHit<'a, 'd>,
    address: u64,
    mut transfer: impl Transfer,
) -> Result<(), IoError> {
    let body = entered.body();
    let access = Access::made(address, hit.base, body.target, &seat.caller, seat.origin.parent());
    if body.sizes != AccessSizes::ANY {
        return sized(transfer, body, &access);
    }
    transfer.whole(body.device, &access);
    Ok(())
}

/// Hands an access over to a device that does not take every size.
#[cold]
#[inline(never)]
fn sized(mut transfer: impl Transfer, body: &Body<'_>, access: &Access<'_>) -> Result<(), IoError> {
    sized_anyhow(&mut transfer, body, access)
}

/// As [`sized`], code once for every kind of transfer.
fn sized_anyhow(transfer: &mut dyn Transfer, body: &Body<'_>, access: &Access<'_>) -> Result<(), IoError> {
    let (offset, unit) = (access.offset(), transfer.unit());
    if body.sizes.accepts(offset, unit) {
        transfer.whole(body.device, access);
    } else if body.sizes.splits(offset, unit) {
        in_pieces(transfer, body, access);
    } else {
        return Err(IoError::RefusedSize);
    }
    Ok(())
}

/// Hands an access over in pieces of accepted sizes, which there are.
fn in_pieces(transfer: &mut dyn Transfer, body: &Body<'_>, access: &Access<'_>) {
    let unit = transfer.unit();
    let (mut at, mut next, mut left) = (0, *access, unit);
    while let Some(size) = body.sizes.piece(next.offset(), left)
        && transfer.piece(body.device, &next, at, size)
    {
        at += size;
        left -= size;
        next = next.advanced(size as u64);
        if left == 0 {
            // Every element of a string starts where the access does.
            (next, left) = (*access, unit);
        }
    }
}

/// A vCPU's handle on the manager: it dispatches without touching anything that other vCPUs write, and remembers the
/// range it used last in each space.
///
/// It belongs to one vCPU, which is why its methods take `&mut self`. From within a callback, use
/// [`DeviceManager::nested`]. Dropping it makes its place free for another.
///
/// For ports it has `HINTS` hints besides: in which range it found each four of them last.
pub struct Dispatcher<
    'd,
    const DEVICES: usize,
    const RANGES: usize,
    const VCPUS: usize,
    const HINTS: usize = PORT_HINTS,
> {
    manager: &'d DeviceManager<'d, DEVICES, RANGES, VCPUS>,
    seat: Seat<'d, Top<'d>>,
    ports: Known<'d, 'd, PortHints<HINTS>>,
    memory: Known<'d, 'd, NoHints>,
    _claim: Claim<'d>,
}

/// How many hints about ports a [`Dispatcher`] has, if nothing else is asked for.
pub const PORT_HINTS: usize = 256;

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize, const HINTS: usize>
    Dispatcher<'d, DEVICES, RANGES, VCPUS, HINTS>
{
    /// The manager it dispatches for.
    pub fn manager(&self) -> &'d DeviceManager<'d, DEVICES, RANGES, VCPUS> {
        self.manager
    }

    #[inline(always)]
    fn dispatch(&mut self, address: GuestAddress, io_type: IoType, transfer: impl Transfer) -> Result<(), IoError> {
        let Self { manager, seat, ports, memory, .. } = self;
        match io_type {
            IoType::Pio => manager.dispatch(&manager.ports, seat, ports, address, io_type, transfer),
            IoType::Mmio | IoType::PhysicalMmio => {
                manager.dispatch(&manager.memory, seat, memory, address, io_type, transfer)
            }
        }
    }

    /// As [`DeviceManager::read`].
    ///
    /// # Errors
    /// As [`DeviceManager::read`].
    #[inline(always)]
    pub fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        self.dispatch(address, io_type, Read { data })
    }

    /// As [`DeviceManager::write`].
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
        let origin = Anywhere { place: self.seat.origin.into(), parent: None };
        self.manager.dispatch_from(origin, port.into(), IoType::Pio, transfer)
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
    #[inline(never)]
    fn dispatch(&self, address: GuestAddress, io_type: IoType, transfer: &mut dyn Transfer) -> Result<(), IoError> {
        let Caller { manager, place, .. } = *self.access.caller;
        let mut place = place.deeper();
        if manager != self.manager.identity() {
            // Another manager's removals do not look at this one's lines.
            place = place.without_line();
        }
        self.manager.dispatch_from(Anywhere { place, parent: Some(self.access) }, address, io_type, transfer)
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

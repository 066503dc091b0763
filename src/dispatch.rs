//! The way of a guest access to its device.

use crate::access::{Access, Caller, IoError};
use crate::address::{GuestAddress, IoType};
use crate::known::{Hints, Known, LastHit};
use crate::manager::DeviceManager;
use crate::resource::AccessSizes;
use crate::slots::{Announce, Body, Entered, Found, Place, Refused, Top};
use crate::sync::AtomicU32;
use crate::table::{Entry, Start, Table};
use crate::transfer::{Read, ReadString, Transfer, Write, WriteString};

/// From where an access comes: a vCPU's handle, or anywhere else.
pub(crate) trait Origin<'a>: Announce<'a> + Into<Place<'a>> {
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
pub(crate) struct Anywhere<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) parent: Option<&'a Access<'a>>,
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
pub(crate) struct Seat<'a, O> {
    pub(crate) origin: O,
    pub(crate) caller: Caller<'a>,
}

impl<'a, O: Origin<'a>> Seat<'a, O> {
    pub(crate) fn new(manager: usize, origin: O) -> Self {
        Self { origin, caller: Caller { manager, place: origin.into() } }
    }
}

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> DeviceManager<'d, DEVICES, RANGES, VCPUS> {
    /// A guest reads `data.len()` bytes at `address`. Afterwards every byte of `data` is defined: by the device, or as
    /// the space's open-bus value.
    ///
    /// It may be called from any vCPU, from within callbacks, and by any number of callers at once; it takes no lock.
    /// A vCPU that has a [`Dispatcher`](crate::Dispatcher) uses that instead, and is faster.
    ///
    /// # Errors
    /// [`IoError`] tells why the access did not reach a device. For the guest it is complete all the same.
    #[inline]
    pub fn read(&self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        self.dispatch_without_handle(address, io_type, &mut Read { data })
    }

    /// A guest writes `data` at `address`. As [`read`](Self::read), the other way.
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

    /// A guest writes a string (`REP OUTS`). As [`read_string`](Self::read_string), the other way.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write_string(&self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        self.dispatch_without_handle(port.into(), IoType::Pio, &mut WriteString::new(element, data))
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
    pub(crate) fn dispatch_from<'a>(
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
    pub(crate) fn dispatch<'a, A: Start, O: Origin<'a>>(
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

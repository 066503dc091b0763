//! The way of a guest access to its device.

use crate::access::{Access, Caller, IoError};
use crate::address::{GuestAddress, IoType};
use crate::hints::Hints;
use crate::manager::DeviceManager;
use crate::probes;
use crate::resource::AccessSizes;
use crate::slots::{Body, Claim, Entered, Found, Place, Refused};
use crate::table::{Entry, Start, Table};
use crate::transfer::{Read, ReadString, Transfer, Write, WriteString};

/// A vCPU with a handle, as it makes accesses that are not nested in others.
pub(crate) struct Seat<'a> {
    pub(crate) claim: Claim<'a>,
    pub(crate) caller: Caller<'a>,
}

/// What a search has found: whose the addresses are, and where that one's range starts, under a version.
struct Hit<'a, 'd> {
    version: u64,
    base: u64,
    owner: u16,
    found: Found<'a, 'd>,
}

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> DeviceManager<'d, DEVICES, RANGES, VCPUS> {
    /// A guest reads `data.len()` bytes at `address`. Afterwards every byte of `data` is defined: by the device, or as
    /// the space's open-bus value.
    ///
    /// All of `data` is one access. Several elements that one exit brings (`REP INS`: `io.count` of `io.size` bytes in KVM's
    /// `kvm_run`) are several accesses to one port: [`read_string`](Self::read_string) makes them.
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

    /// A guest writes `data` at `address`. As [`read`](Self::read), the other way: all of `data` is one access, and
    /// [`write_string`](Self::write_string) is for the elements of a string.
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
        let caller = Caller { manager: self.identity(), place: Place::ANONYMOUS, parent: None };
        self.dispatch_from(&caller, address, io_type, transfer)
    }

    /// As [`dispatch`](Self::dispatch), for somebody who keeps nothing of the access. It searches until it is known what
    /// becomes of it.
    #[inline(never)]
    pub(crate) fn dispatch_from<'a>(
        &'a self,
        caller: &Caller<'a>,
        address: GuestAddress,
        io_type: IoType,
        transfer: &mut dyn Transfer,
    ) -> Result<(), IoError> {
        let unit = self.begin(io_type, transfer)?;
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
            probes::searched();
            if let Some(Hit { version, base, found, .. }) = hit {
                match self.slots.enter(caller.place, version, found) {
                    Ok(entered) => {
                        // Writers do not hold back for a reader who has found what it searched for: the callback may be a
                        // writer.
                        searches.end();
                        return hand_over(&entered, caller, base, address.0, transfer);
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
    pub(crate) fn dispatch<'a, A: Start, const SHIFT: u32, const HINTS: usize>(
        &'a self,
        table: &Table<A, RANGES>,
        Seat { claim, caller }: &Seat<'a>,
        hints: &mut Hints<RANGES, SHIFT, HINTS>,
        address: GuestAddress,
        io_type: IoType,
        mut transfer: impl Transfer,
    ) -> Result<(), IoError> {
        let unit = self.begin(io_type, &mut transfer)?;
        let (at, top) = (address.0, claim.top());
        let hinted = hints.hint(at).and_then(|hint| self.slots.enter_by_hint(top, hint, io_type, at, unit));
        let entered = match hinted {
            Some(entered) => Some(entered),
            None => match self.find(table, at, unit)? {
                Some(Hit { version, base, owner, found }) => {
                    if let Some(hint) = self.slots.hint(owner) {
                        hints.keep(at, hint);
                    }
                    self.slots.enter(top, version, found).ok().map(|entered| (entered, base))
                }
                None => None,
            },
        };
        match entered {
            Some((entered, base)) => hand_over(&entered, caller, base, at, transfer),
            None => {
                // A copy, so that the transfer itself need not be in memory.
                let mut transfer = transfer;
                self.dispatch_from(caller, address, io_type, &mut transfer)
            }
        }
    }

    /// As [`find`](Self::find), in a function of its own.
    #[inline(never)]
    fn find_elsewhere<A: Start>(
        &self,
        table: &Table<A, RANGES>,
        address: u64,
        unit: usize,
    ) -> Result<Option<Hit<'_, 'd>>, IoError> {
        self.find(table, address, unit)
    }

    /// Finds the range that has all of an access, or sees that nobody claims any of it. `None`, if neither is plain: a search
    /// has to be repeated, or the access is not all in one segment, or it reaches the last address of the space.
    #[inline(always)]
    fn find<A: Start>(
        &self,
        table: &Table<A, RANGES>,
        address: u64,
        unit: usize,
    ) -> Result<Option<Hit<'_, 'd>>, IoError> {
        let Some(last) = address.checked_add(unit as u64 - 1).filter(|last| *last < A::LAST) else { return Ok(None) };
        let version = self.slots.version();
        let Entry { owner, first, last: entry_last } = table.find(version, address);
        let hole = |is_hole| match is_hole && self.slots.is_current(version) {
            true => Err(IoError::Unclaimed),
            false => Ok(None),
        };
        let Some(found) = self.slots.slot(owner) else { return hole(last < first) };
        let (base, range_last) = found.bounds(version);
        if first <= address && last <= entry_last.min(range_last) {
            return Ok(Some(Hit { version, base, owner, found }));
        }
        hole(last < first || (range_last < address && last <= entry_last))
    }

    /// As [`find`](Self::find), of any access, and slower; `None` only where the search has to be repeated.
    #[cold]
    fn find_exactly(&self, io_type: IoType, address: u64, unit: usize) -> Result<Option<Hit<'_, 'd>>, IoError> {
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
            Some(found) if is_whole => Ok(Some(Hit { version, base, owner, found })),
            _ if !self.slots.is_current(version) => Ok(None),
            None if is_whole || address > space_last => Err(IoError::Unclaimed),
            _ => Err(IoError::Straddling),
        }
    }
}

/// Hands an access over to the device of the slot.
#[inline(always)]
fn hand_over<A>(
    entered: &Entered<'_, '_, A>,
    caller: &Caller<'_>,
    base: u64,
    address: u64,
    mut transfer: impl Transfer,
) -> Result<(), IoError> {
    let body = entered.body();
    let access = Access::made(address, base, body.target, caller);
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

//! The fast path and the slow path of an access.

use crate::access::{Access, Caller, IoError, ReaderSite};
use crate::address::{GuestAddress, IoType, Space};
use crate::cost;
use crate::index::{AtomicAddress, Entry, Table};
use crate::manager::{DeviceManager, Occupant};
use crate::quiescence::{Reader, Refused, SlotGuard, SlotRef};
use crate::resource::MAX_WINDOW_DEPTH;
use crate::sync::cold_path;
use crate::transfer::{Read, ReadString, Transfer, Write, WriteString};

/// The result of a search: a slot, and the base of its range, under a version.
struct Lookup<'d> {
    version: u64,
    base: u64,
    found: Found<'d>,
}

/// The slot of a range.
type Found<'d> = SlotRef<'d, Occupant<'d>>;

impl<'d> DeviceManager<'d> {
    /// A guest reads `data.len()` bytes at `address`. Afterwards every byte of `data` is defined: by the device, or as
    /// the space's open-bus value.
    ///
    /// All of `data` is one access. Several elements that one exit brings (`REP INS`: `io.count` of `io.size` bytes in KVM's
    /// `kvm_run`) are several accesses to one port: [`read_string`](Self::read_string) makes them.
    ///
    /// It may be called from any vCPU, from within callbacks, and by any number of callers at once; it takes no lock.
    /// A vCPU that has a [`Dispatcher`](crate::Dispatcher) uses that instead, and is faster.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, IoError, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// let device = Constant("rtc", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager =
    ///     DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
    /// manager.register_device(&device, None, &[IoResource::pio(0x70, 2)], &[]).unwrap();
    ///
    /// let mut data = [0; 1];
    /// assert_eq!(manager.read(GuestAddress(0x71), &mut data, IoType::Pio), Ok(()));
    /// assert_eq!(data, [7]);
    /// assert_eq!(manager.read(GuestAddress(0x72), &mut data, IoType::Pio), Err(IoError::Unclaimed));
    /// assert_eq!(data, [0xff]);
    /// ```
    ///
    /// # Errors
    /// [`IoError`] tells why the access did not reach a device, or that the device has [`Failed`](IoError::Failed). For the guest
    /// it is complete all the same, unless the VMM stops the guest.
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
    /// ```
    /// use core::sync::atomic::{AtomicU8, Ordering};
    /// use vm_device::{Access, Device, DeviceManager, IoRange, IoResource, Storage, SystemAllocator};
    ///
    /// /// The data port of a disk: each access takes the next value.
    /// struct Data(AtomicU8);
    ///
    /// impl Device<'_> for Data {
    ///     fn name(&self) -> &str {
    ///         "data"
    ///     }
    ///     fn read(&self, _: &Access<'_>, data: &mut [u8]) {
    ///         data.fill(self.0.fetch_add(1, Ordering::SeqCst));
    ///     }
    ///     fn write(&self, _: &Access<'_>, _: &[u8]) {}
    /// }
    ///
    /// let device = Data(AtomicU8::new(1));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager =
    ///     DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
    /// manager.register_device(&device, None, &[IoResource::pio(0x1f0, 2)], &[]).unwrap();
    ///
    /// // `rep insw` with a count of 3: three accesses of 2 bytes.
    /// let mut data = [0; 6];
    /// manager.read_string(0x1f0, 2, &mut data).unwrap();
    /// assert_eq!(data, [1, 1, 2, 2, 3, 3]);
    /// ```
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

    /// Serves a caller without a handle, which may be in a callback or not.
    #[inline(never)]
    fn dispatch_without_handle(
        &self,
        address: GuestAddress,
        io_type: IoType,
        transfer: &mut dyn Transfer,
    ) -> Result<(), IoError> {
        let caller = Caller { manager: self.identity(), site: ReaderSite::HANDLE_LESS, vcpu: None, outer: None };
        self.dispatch_from(&caller, address, io_type, transfer)
    }

    /// Slow path: no hints. The observer, if there is one, is told of the access.
    #[inline(never)]
    pub(super) fn dispatch_from(
        &self,
        caller: &Caller<'_>,
        address: GuestAddress,
        io_type: IoType,
        transfer: &mut dyn Transfer,
    ) -> Result<(), IoError> {
        if self.observer.is_some() {
            return self.dispatch_observed(caller, address, io_type, transfer);
        }
        self.dispatch_unobserved(caller, address, io_type, transfer)
    }

    /// By way of the observer. Its arguments are those of the caller, which so has nothing to do but to look.
    #[cold]
    #[inline(never)]
    fn dispatch_observed(
        &self,
        caller: &Caller<'_>,
        address: GuestAddress,
        io_type: IoType,
        transfer: &mut dyn Transfer,
    ) -> Result<(), IoError> {
        match self.observer {
            Some(observer) => observer.dispatch(self, caller, address, io_type, transfer),
            None => self.dispatch_unobserved(caller, address, io_type, transfer),
        }
    }

    /// Repeats the search until it completes under an unchanged version.
    pub(super) fn dispatch_unobserved(
        &self,
        caller: &Caller<'_>,
        address: GuestAddress,
        io_type: IoType,
        transfer: &mut dyn Transfer,
    ) -> Result<(), IoError> {
        let space = io_type.space();
        let length = prepare(self.open_bus(space), io_type, transfer)?;
        let GuestAddress(address) = address;
        if !self.owns_storage() {
            return Err(in_a_hole(space, address, length, u64::MAX));
        }
        let mut budget = self.slots.retry_budget();
        loop {
            let lookup = match space {
                Space::Ports => self.find(&self.index.ports, address, length),
                Space::Memory => self.find(&self.index.memory, address, length),
            };
            let lookup = match lookup? {
                Some(lookup) => Some(lookup),
                None => match self.find_slow(space, address, length) {
                    Err(IoError::Straddling) => {
                        drop(budget);
                        return self.dispatch_straddling(caller, address, io_type, transfer);
                    }
                    found => found?,
                },
            };
            cost::searched();
            if let Some(Lookup { version, base, found }) = lookup {
                match self.slots.enter(caller.site, version, found) {
                    Ok(guard) => {
                        // Writers need not hold back during the callback, which may be a writer itself.
                        budget.succeed();
                        return call_device(&guard, caller, base, address, transfer);
                    }
                    Err(Refused::TooDeep) => return Err(IoError::TooDeep),
                    Err(Refused::Stale) => {}
                }
            }
            budget.retry();
        }
    }

    /// Fast path without a hint: one search. `Err` gives the transfer back and means: use the slow path. The caller has
    /// prepared the transfer.
    #[inline(always)]
    pub(super) fn search_and_call<A: AtomicAddress, T: Transfer, const PORTS: usize, const MEMORY: usize>(
        &self,
        table: &Table<'d, A>,
        reader: &mut Reader<'d, Occupant<'d>, PORTS, MEMORY>,
        caller: &Caller<'_>,
        address: u64,
        transfer: T,
    ) -> Result<Result<(), IoError>, T> {
        match self.find(table, address, transfer.element_len()) {
            Ok(Some(Lookup { version, base, found })) => {
                if !reader.remember(A::SPACE, address, found) {
                    cold_path();
                    return Err(transfer);
                }
                match self.slots.enter(reader.record(), version, found) {
                    Ok(guard) => Ok(call_device(&guard, caller, base, address, transfer)),
                    Err(_) => Err(transfer),
                }
            }
            Err(error) if self.observer.is_none() => Ok(Err(error)),
            _ => Err(transfer),
        }
    }

    /// Finds the range that has all of an access; an error says that no range has any of it. `None` means: use the slow path,
    /// because the version changed, the access spans two segments, or it touches the last address.
    #[inline(always)]
    fn find<A: AtomicAddress>(
        &self,
        table: &Table<'d, A>,
        address: u64,
        length: usize,
    ) -> Result<Option<Lookup<'d>>, IoError> {
        let Some(last) = address.checked_add(length as u64 - 1).filter(|last| *last < A::LAST) else { return Ok(None) };
        let version = self.slots.version();
        let Entry { owner, next } = table.find_entry(version, address);
        let Some(found) = self.slots.numbered(owner) else { return Ok(None) };
        let base = found.base(version);
        if last < next && found.holds(base, address, length) {
            return Ok(Some(Lookup { version, base, found }));
        }
        cold_path();
        let is_unclaimed = self.is_hole(version, found, address, last, next);
        if is_unclaimed { Err(IoError::Unclaimed) } else { Ok(None) }
    }

    /// Whether no range has a byte from `address` to `last`, of which the entry of `found`, up to `next`, is the last that begins
    /// before them, or the first of all.
    #[inline(never)]
    fn is_hole(&self, version: u64, found: Found<'d>, address: u64, last: u64, next: u64) -> bool {
        let has_ended = || found.last(version).is_some_and(|range_last| range_last < address);
        // They lie before the first range, or the index is empty, or they lie between a range and the next entry.
        let is_hole = last < found.base(version) || last < next && (found.index().is_none() || has_ended());
        is_hole && self.slots.is_current(version)
    }

    /// As [`find`](Self::find), slower, for every access. `None` means: the version changed, search again.
    #[cold]
    fn find_slow(&self, space: Space, address: u64, length: usize) -> Result<Option<Lookup<'d>>, IoError> {
        let version = self.slots.version();
        let (owner, segment_last) = self.owner_of(space, version, address);
        let found = owner.and_then(|(owner, last)| {
            let ends_here = ends_by(last, address, length);
            if ends_here { Some(owner) } else { self.find_around(space, version, owner, address, length) }
        });
        match found {
            Some(found) => Ok(Some(Lookup { version, base: found.base(version), found })),
            None if !self.slots.is_current(version) => Ok(None),
            None if owner.is_some() => Err(IoError::Straddling),
            None => Err(in_a_hole(space, address, length, segment_last)),
        }
    }

    /// The range that has `address`, if there is one, with the last address up to which it has all; and the last address of the
    /// segment.
    fn owner_of(&self, space: Space, version: u64, address: u64) -> (Option<(Found<'d>, u64)>, u64) {
        let (owner, segment_last) = self.index.writer(space, version).segment_of(address);
        let segment_last = segment_last.min(space.last_address().0);
        let owner = owner.and_then(|owner| self.slots.slot(owner)).and_then(|found| {
            let last = found.last(version).map_or(segment_last, |last| last.min(segment_last));
            (address <= last).then_some((found, last))
        });
        (owner, segment_last)
    }

    /// The innermost range that has all of an access that begins in a segment of `first` and ends elsewhere: the innermost
    /// window around `first` and the range that has the last byte, or one of these two.
    ///
    /// # Worst case
    /// It looks at the containers of 2 [`MAX_WINDOW_DEPTH`] slots, after one search.
    fn find_around(
        &self,
        space: Space,
        version: u64,
        first: Found<'d>,
        address: u64,
        length: usize,
    ) -> Option<Found<'d>> {
        let end = address.checked_add(length as u64 - 1)?;
        let (last, _) = self.owner_of(space, version, end).0?;
        // As many as there can be: a torn search may have found anything.
        let mut chain = [first.index(); MAX_WINDOW_DEPTH + 1];
        for (entry, window) in chain.iter_mut().skip(1).zip(self.windows_around(version, first)) {
            *entry = window.index();
        }
        let is_around_first = |found: &Found<'d>| chain.contains(&found.index());
        core::iter::once(last).chain(self.windows_around(version, last)).find(is_around_first)
    }

    /// The windows around a range, from the innermost one on.
    fn windows_around(&self, version: u64, found: Found<'d>) -> impl Iterator<Item = Found<'d>> {
        let mut around = Some(found);
        (0..MAX_WINDOW_DEPTH).map_while(move |_| {
            cost::looked();
            around = self.slots.slot(around?.container(version)?);
            around
        })
    }
}

/// The error of an access that starts at an address without a range. The next range begins after `last`.
#[cold]
fn in_a_hole(space: Space, address: u64, length: usize, last: u64) -> IoError {
    let space_last = space.last_address().0;
    let is_unclaimed = address > space_last || ends_by(last.min(space_last), address, length);
    if is_unclaimed { IoError::Unclaimed } else { IoError::Straddling }
}

/// Whether an access has no byte after `last`. `length` is at least 1.
fn ends_by(last: u64, address: u64, length: usize) -> bool {
    address.checked_add(length as u64 - 1).is_some_and(|end| end <= last)
}

/// Fills the buffer with the open-bus value, then checks length and kind. Returns the length in bytes of one element, at least
/// 1.
#[inline(always)]
pub(super) fn prepare(
    open_bus: [u8; 4],
    io_type: IoType,
    transfer: &mut (impl Transfer + ?Sized),
) -> Result<usize, IoError> {
    transfer.fill(open_bus);
    if !transfer.has_valid_len() {
        return Err(IoError::InvalidLength);
    }
    if io_type == IoType::PhysicalMmio {
        return Err(IoError::NotDispatched);
    }
    Ok(transfer.element_len())
}

/// Calls the device of the slot.
#[inline(always)]
pub(super) fn call_device<G>(
    guard: &SlotGuard<'_, Occupant<'_>, G>,
    caller: &Caller<'_>,
    base: u64,
    address: u64,
    mut transfer: impl Transfer,
) -> Result<(), IoError> {
    let occupant = guard.occupant();
    let access = Access::with_caller(address, base, occupant.target, caller);
    if !occupant.target.accepts_all() {
        return call_sized(transfer, occupant, &access);
    }
    transfer.call(occupant.device, &access)
}

/// Calls a device that does not accept every size.
#[cold]
#[inline(never)]
fn call_sized(mut transfer: impl Transfer, occupant: &Occupant<'_>, access: &Access<'_>) -> Result<(), IoError> {
    call_sized_dyn(&mut transfer, occupant, access)
}

/// As [`call_sized`]. Its code exists once for all kinds of transfer.
fn call_sized_dyn(transfer: &mut dyn Transfer, occupant: &Occupant<'_>, access: &Access<'_>) -> Result<(), IoError> {
    let (offset, length) = (access.offset(), transfer.element_len());
    if occupant.target.sizes().accepts(offset, length) {
        transfer.call(occupant.device, access)
    } else if occupant.target.sizes().splits(offset, length) {
        transfer.is_for(access);
        call_split(transfer, occupant, access)
    } else {
        transfer.is_for(access);
        Err(IoError::RefusedSize)
    }
}

/// Calls a device for each piece of an access, in sizes that it accepts, up to the first that fails. The caller has
/// checked that there are such sizes.
fn call_split(transfer: &mut dyn Transfer, occupant: &Occupant<'_>, access: &Access<'_>) -> Result<(), IoError> {
    let length = transfer.element_len();
    let (mut at, mut next, mut left) = (0, *access, length);
    while let Some(size) = occupant.target.sizes().piece(next.offset(), left)
        && let Some(outcome) = transfer.call_part(occupant.device, &next, at, size)
    {
        outcome?;
        at += size;
        left -= size;
        next = next.offset_by(size as u64);
        if left == 0 {
            // Every element of a string starts where the access does.
            (next, left) = (*access, length);
        }
    }
    Ok(())
}

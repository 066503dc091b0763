//! Changes of ranges: new places, new sizes of windows, and new states, of any number of ranges in one transaction.
//!
//! Under the lock, the ranges that change are taken out of their places, with what lies in the windows among them. Then those
//! that are to have a place get it, windows before what lies in them. If one place cannot be had, all ranges go back, and no
//! access and no caller has seen a change. Otherwise what was taken out of a window goes back where the window still holds it, or
//! waits, and the waiting ranges are tried once. One publication changes the index, so that an access finds every range as it was
//! or every range as it is. A change waits for no callback: a device may move ranges, its own among them, from within a callback.
//! A callback that is running keeps the base it was called with.
//!
//! What the transaction has to remember is in the caller's slice and in a mark of each range: it takes no memory that grows
//! with the number of ranges.

use core::fmt;

use crate::address::{GuestAddress, GuestUsize, IoRange};
use crate::allocator::{RangeRecord, Told};
use crate::error::{Owner, RangeRefusal, RelocateError};
use crate::indices::SlotIndex;
use crate::instance::InstanceId;
use crate::listener::PlacedRange;
use crate::manager::device_manager::DeviceManager;
use crate::manager::state::State;
use crate::manager::sweep::Changed;
use crate::manager::take::{Taker, check_space};
use crate::manager::tree::NodeState;
use crate::resource::{MAX_WINDOW_DEPTH, Placement, RangeState};

/// The change of one range: a new place, a new state, a new size of a window.
///
/// ```
/// use vm_device::{
///     DeviceManager, GuestAddress, IoRange, IoResource, Relocation, Storage, SystemAllocator,
/// };
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
///
/// let (first, second) = (Constant("first", 1), Constant("second", 2));
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let first = manager.register_device(&first, None, &[IoResource::mmio(0x1000, 0x1000)], &[]).unwrap();
/// let second = manager.register_device(&second, None, &[IoResource::mmio(0x2000, 0x1000)], &[]).unwrap();
///
/// // Two ranges change places.
/// let mut swap =
///     [Relocation::new(first, 0).to(GuestAddress(0x2000)), Relocation::new(second, 0).to(GuestAddress(0x1000))];
/// assert_eq!(manager.relocate(&mut swap), Ok(()));
/// assert_eq!(manager.range(first, 0).map(|assigned| assigned.range.first()), Some(GuestAddress(0x2000)));
/// ```
#[derive(Clone, Copy)]
pub struct Relocation {
    device: InstanceId,
    index: usize,
    to: Option<GuestAddress>,
    size: Option<GuestUsize>,
    state: Option<RangeState>,
    /// Whether it is to be reserved, and not decoded, when it waits and gets its place.
    reserves: bool,
    /// Whether what it does not say is as the wish for the range says, if there is one, and not as the range is.
    follows: bool,
    /// What the transaction keeps while it runs.
    step: Option<Step>,
}

/// One range of the transaction.
#[derive(Clone, Copy)]
struct Step {
    slot: SlotIndex,
    old: RangeRecord,
    to: IoRange,
    state: RangeState,
    /// Whether it is to be decoded where it lies or, while it waits, where it will.
    decoded: bool,
    /// Whether the range was taken out of its place, or out of the list of those that wait.
    is_out: bool,
    /// The range that began to wait directly before this one.
    waited_behind: Option<SlotIndex>,
}

impl Relocation {
    /// For range number `index` of `device`, as yet without a change.
    #[must_use]
    pub const fn new(device: InstanceId, index: usize) -> Self {
        Self { device, index, to: None, size: None, state: None, reserves: false, follows: false, step: None }
    }

    /// Moves the range so that it starts at `base`. A range that has no addresses is decoded there, unless another state is
    /// asked for. A range that was asked for with an alignment ([`IoResource::aligned`](crate::IoResource::aligned)) keeps it;
    /// the limits of its request were for its first place.
    #[must_use]
    pub const fn to(mut self, base: GuestAddress) -> Self {
        self.to = Some(base);
        self
    }

    /// Gives a window another size, in bytes or ports; not 0. The sizes of other ranges stay.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestUsize, IoRange, IoResource, RangeState, Relocation, Storage, SystemAllocator,
    /// };
    ///
    /// let (bridge, disk) = (Constant("bridge", 1), Constant("disk", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let window = IoResource::mmio(0x10_0000, 0x20_0000).window();
    /// let bridge = manager.register_device(&bridge, None, &[window], &[]).unwrap();
    /// let bar = IoResource::mmio(0x20_0000, 0x1000);
    /// let disk = manager.register_device(&disk, Some(bridge), &[bar], &[]).unwrap();
    ///
    /// // What a smaller window does not hold any more waits for a larger one.
    /// let resize = |size| manager.relocate(&mut [Relocation::new(bridge, 0).resized(GuestUsize(size))]);
    /// resize(0x10_0000).unwrap();
    /// assert_eq!(manager.range(disk, 0).unwrap().state, RangeState::Waiting);
    /// resize(0x20_0000).unwrap();
    /// assert_eq!(manager.range(disk, 0).unwrap().state, RangeState::Decoded);
    /// ```
    #[must_use]
    pub const fn resized(mut self, size: GuestUsize) -> Self {
        self.size = Some(size);
        self
    }

    /// The range is to be [decoded](RangeState::Decoded) at its place, or at the new one. If it cannot be, the transaction is an
    /// error.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, IoError, IoRange, IoResource, IoType, Relocation, Storage,
    ///     SystemAllocator,
    /// };
    ///
    /// let device = Constant("disk", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let bar = IoResource::mmio(0x1000, 0x1000).reserved();
    /// let disk = manager.register_device(&device, None, &[bar], &[]).unwrap();
    /// let mut data = [0; 1];
    /// assert_eq!(manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio), Err(IoError::Unclaimed));
    ///
    /// manager.relocate(&mut [Relocation::new(disk, 0).decoded()]).unwrap();
    /// assert_eq!(manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio), Ok(()));
    /// ```
    #[must_use]
    pub const fn decoded(mut self) -> Self {
        self.state = Some(RangeState::Decoded);
        self
    }

    /// The range is to be [reserved](RangeState::Reserved) at its place, or at the new one. If it cannot be, the transaction is
    /// an error.
    #[must_use]
    pub const fn reserved(mut self) -> Self {
        self.state = Some(RangeState::Reserved);
        self
    }

    /// The range gives its addresses up and is [unplaced](RangeState::Unplaced). Nothing is in the way of that.
    #[must_use]
    pub const fn unplaced(mut self) -> Self {
        self.state = Some(RangeState::Unplaced);
        self
    }

    /// The range is to be decoded at its place, or at the new one, as soon as that is possible: by this transaction, or else
    /// by the change that makes the place free. Until then it [waits](RangeState::Waiting).
    ///
    /// So a guest may move base address registers through each other's places in any order of writes. A write with decoding
    /// off is [`unplaced`](Self::unplaced), and one with decoding on is this.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, IoRange, IoResource, IoType, Relocation, Storage, SystemAllocator,
    /// };
    ///
    /// let (first, second) = (Constant("first", 1), Constant("second", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let first = manager.register_device(&first, None, &[IoResource::mmio(0x1000, 0x1000)], &[]).unwrap();
    /// let second = manager.register_device(&second, None, &[IoResource::mmio(0x2000, 0x1000)], &[]).unwrap();
    ///
    /// // Two ranges change places, one after the other.
    /// manager.relocate(&mut [Relocation::new(first, 0).to(GuestAddress(0x2000)).waiting()]).unwrap();
    /// assert_eq!(manager.find_by_address(GuestAddress(0x1000), IoType::Mmio), None);
    /// manager.relocate(&mut [Relocation::new(second, 0).to(GuestAddress(0x1000)).waiting()]).unwrap();
    /// assert_eq!(manager.find_by_address(GuestAddress(0x1000), IoType::Mmio), Some((second, 0)));
    /// assert_eq!(manager.find_by_address(GuestAddress(0x2000), IoType::Mmio), Some((first, 0)));
    /// ```
    #[must_use]
    pub const fn waiting(mut self) -> Self {
        self.state = Some(RangeState::Waiting);
        self
    }

    /// Whether the change is later than the wish for its range.
    pub(crate) const fn set_follows(&mut self, follows: bool) {
        self.follows = follows;
    }

    /// The order of the steps: windows before what lies in them, at the old places and at the new ones.
    fn key(&self) -> Option<(u8, SlotIndex)> {
        self.step.map(|step| (step.old.depth(), step.slot))
    }
}

// Without the step. (What a derived one calls for so many fields can panic, as far as the linker knows.)
impl fmt::Debug for Relocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, index, to, size, state, .. } = self;
        let mut fields = f.debug_struct("Relocation");
        fields.field("device", device).field("index", index).field("to", to).field("size", size).field("state", state);
        fields.finish_non_exhaustive()
    }
}

impl Step {
    /// Whether the listener is to be told that the range leaves.
    fn leaves(&self) -> bool {
        self.is_out && self.old.told() == Told::Placed && (self.to != self.old.range || !self.is_decoded())
    }

    /// Whether the range is decoded at its new place, if it gets the place.
    fn is_decoded(&self) -> bool {
        self.decoded && matches!(self.state, RangeState::Decoded | RangeState::Waiting)
    }

    fn changes(&self) -> bool {
        // A range that is decoded where it is to wait has got what it would wait for.
        let state = match (self.old.state(), self.state) {
            (RangeState::Decoded, RangeState::Waiting) => RangeState::Decoded,
            (_, state) => state,
        };
        let is_other = state == RangeState::Waiting && self.decoded != self.old.is_decoded();
        self.to != self.old.range || state != self.old.state() || is_other
    }
}

impl<'d> DeviceManager<'d> {
    /// Makes changes of any number of ranges, all of them or none. A range may move to a place that another one of the
    /// transaction leaves. Afterwards the slice is in another order, and otherwise as it was.
    ///
    /// What lies in a window that changes is changed together with it where it is named too. What is not named stays at its
    /// addresses, if the window still holds it and is decoded; otherwise it waits there. Then the ranges that wait are tried
    /// once, in the order of the number of windows around them and of how long they have waited, and those whose place is free
    /// get it. All of this is one change: no access and no caller sees a part of it. A transaction that fails tries nothing.
    ///
    /// Devices are not told: each access carries the base under which it was found. What a VMM maps itself, it hears of by a
    /// [`RangeListener`](crate::RangeListener).
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, IoRange, IoResource, IoType, Relocation, Storage, SystemAllocator,
    /// };
    ///
    /// let (pci, disk) = (Constant("pci", 1), Constant("disk", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let window = IoResource::mmio(0x1000_0000, 0x1000_0000).window();
    /// let bus = manager.register_device(&pci, None, &[window], &[]).unwrap();
    /// let bar = IoResource::mmio(0x1000_0000, 0x1000);
    /// let disk = manager.register_device(&disk, Some(bus), &[bar], &[]).unwrap();
    ///
    /// // A window moves together with what lies in it.
    /// let window = Relocation::new(bus, 0).to(GuestAddress(0x4000_0000));
    /// let bar = Relocation::new(disk, 0).to(GuestAddress(0x4000_8000));
    /// assert_eq!(manager.relocate(&mut [window, bar]), Ok(()));
    /// assert_eq!(manager.find_by_address(GuestAddress(0x4000_8000), IoType::Mmio), Some((disk, 0)));
    /// ```
    ///
    /// # Errors
    /// [`RelocateError`] names the range and what is in its way. Nothing has changed then; but after
    /// [`ListenerRefused`](RelocateError::ListenerRefused), the change is made.
    pub fn relocate(&self, relocations: &mut [Relocation]) -> Result<(), RelocateError<&'d str>> {
        if let Some(listener) = self.listener {
            return listener.relocate(self, relocations);
        }
        match self.with_state(|state| self.relocate_under_lock(state, relocations)) {
            Some(outcome) => outcome,
            None => self.relocate_nowhere(relocations),
        }
    }

    /// The outcome where the storage is another manager's: no device has any id.
    pub(crate) fn relocate_nowhere(&self, relocations: &[Relocation]) -> Result<(), RelocateError<&'d str>> {
        relocations.first().map_or(Ok(()), |named| Err(RelocateError::NotFound { id: named.device }))
    }

    /// Makes the transaction. No range leaves of which the listener is still to be told that it does.
    pub(crate) fn relocate_under_lock(
        &self,
        state: &mut State<'_, 'd>,
        relocations: &mut [Relocation],
    ) -> Result<(), RelocateError<&'d str>> {
        state.try_out(relocations)?;
        let mut changed = state.settle(relocations);
        changed.add(state.sweep_waiting());
        if changed.windows {
            self.publish(|pass| self.index_rebuild(pass, state));
        } else if changed.dispatched {
            self.publish(|pass| {
                for step in steps(relocations).filter(|step| step.is_out) {
                    self.index_remove(pass, step.slot, &step.old, state);
                }
                for step in steps(relocations).filter(|step| step.is_out) {
                    if let Some(range) = state.range(step.slot) {
                        self.index_insert(pass, step.slot, range, state);
                    }
                }
                self.index_insert_marked(pass, state);
            });
        }
        state.forget_marks();
        Ok(())
    }
}

fn steps(relocations: &[Relocation]) -> impl DoubleEndedIterator<Item = &Step> + Clone {
    relocations.iter().filter_map(|relocation| relocation.step.as_ref())
}

fn steps_mut(relocations: &mut [Relocation]) -> impl DoubleEndedIterator<Item = &mut Step> {
    relocations.iter_mut().filter_map(|relocation| relocation.step.as_mut())
}

/// Finds the ranges that the transaction names, and sorts them.
fn resolve<'d>(state: &State<'_, 'd>, relocations: &mut [Relocation]) -> Result<(), RelocateError<&'d str>> {
    for relocation in relocations.iter_mut() {
        relocation.step = Some(state.step(relocation)?);
    }
    sort(relocations);
    let twice = relocations.windows(2).find(|pair| matches!(pair, [a, b] if a.key() == b.key()));
    match twice.and_then(<[Relocation]>::first) {
        Some(named) => {
            let device = state.tree.get(named.device).map_or("", |node| node.name);
            Err(RelocateError::NamedTwice { device, index: named.index })
        }
        None => Ok(()),
    }
}

/// A shell sort.
fn sort(relocations: &mut [Relocation]) {
    let mut gap = relocations.len() / 2;
    while gap > 0 {
        for end in gap..relocations.len() {
            let mut at = end;
            while let Some(before) = at.checked_sub(gap)
                && let Ok([a, b]) = relocations.get_disjoint_mut([before, at])
                && a.key() > b.key()
            {
                core::mem::swap(a, b);
                at = before;
            }
        }
        gap /= 2;
    }
}

impl<'d> State<'_, 'd> {
    /// The first steps of a transaction: the ranges that it names are where they are to be, and what lay in their windows is
    /// marked, and back in its place where that is possible. After an error, everything is as before.
    fn try_out(&mut self, relocations: &mut [Relocation]) -> Result<(), RelocateError<&'d str>> {
        resolve(self, relocations)?;
        self.take_out(relocations);
        let outcome = self.place(relocations);
        if outcome.is_err() {
            self.take_back(relocations);
        }
        outcome
    }

    /// The first range that the transaction would take away from a place of which the listener was told. Nothing has changed
    /// afterwards.
    pub(crate) fn first_leaving(
        &mut self,
        relocations: &mut [Relocation],
    ) -> Result<Option<(SlotIndex, PlacedRange<'d>)>, RelocateError<&'d str>> {
        if self.pool.find_told(Told::Placed, |_| true).is_none() {
            return Ok(None);
        }
        self.try_out(relocations)?;
        let named = steps(relocations).find(|step| step.leaves()).map(|step| step.slot);
        let mut from = 0;
        let displaced = core::iter::from_fn(|| {
            let (slot, next) = self.pool.next_marked(from)?;
            from = next;
            Some(slot)
        });
        let is_away = |slot: &SlotIndex| {
            self.pool.told(*slot) == Told::Placed && self.range(*slot).is_some_and(|range| !range.is_placed())
        };
        let leaving = named.or({ displaced }.find(is_away));
        self.take_back(relocations);
        Ok(leaving.and_then(|slot| Some((slot, self.placed_range(slot)?))))
    }

    /// Leaves the changes of a transaction to the caller that has the listener's turn.
    pub(crate) fn wish(&mut self, relocations: &[Relocation]) -> Result<(), RelocateError<&'d str>> {
        let wishes = steps(relocations).filter(|step| step.changes());
        if wishes.clone().count() > self.pool.room() {
            let device = relocations.first().and_then(|named| self.tree.get(named.device)).map_or("", |node| node.name);
            return Err(RelocateError::Busy { device });
        }
        self.drop_wishes(relocations);
        for step in wishes {
            // There is room.
            let _ = self.pool.add_wish(step.slot, step.old.wished(step.to, step.state, step.decoded));
        }
        Ok(())
    }

    /// Forgets the wishes for the ranges of a transaction, which is later than they are.
    pub(crate) fn drop_wishes(&mut self, relocations: &[Relocation]) {
        steps(relocations).for_each(|step| self.pool.drop_wish(step.slot));
    }

    /// The oldest change that was left to the caller that has the listener's turn. It stays a wish until it is made: a later
    /// change of the range takes its place.
    pub(crate) fn first_wish(&self) -> Option<Relocation> {
        let (slot, wish) = self.pool.first_wish()?;
        let device = self.tree.id(wish.node?);
        let index = self.range(slot)?.index().into();
        let size = if wish.is_window() { wish.range.size() } else { None };
        // What waits is placed at once if it can be.
        let state = match wish.state() {
            RangeState::Decoded => RangeState::Waiting,
            state => state,
        };
        let (to, reserves) = (Some(wish.range.first()), wish.is_waiting() && !wish.is_decoded());
        Some(Relocation { to, size, state: Some(state), reserves, ..Relocation::new(device, index) })
    }

    /// The step that a relocation asks for.
    fn step(&self, relocation: &Relocation) -> Result<Step, RelocateError<&'d str>> {
        let Relocation { device: id, index, to, size, state, reserves, follows, .. } = *relocation;
        let node = self.tree.get(id).ok_or(RelocateError::NotFound { id })?;
        let device = node.name;
        if node.state != NodeState::LIVE {
            return Err(RelocateError::Busy { device });
        }
        let (slot, &old) = self.ranges_of(id.index).nth(index).ok_or(RelocateError::NoSuchRange { device, index })?;
        let wish = if follows { self.pool.wish_for(slot) } else { None };
        let last = wish.unwrap_or(old);
        let base = to.unwrap_or(last.range.first());
        let refused = |refusal| RelocateError::Range { device, index, to: base, refusal };
        let asked = state;
        let state = asked.unwrap_or(match last.state() {
            RangeState::Unplaced | RangeState::Waiting if to.is_some() => RangeState::Decoded,
            state => state,
        });
        let decoded = match state {
            // A range that waits to be reserved goes on to, unless it is asked to wait.
            RangeState::Waiting if asked.is_none() => last.is_decoded(),
            RangeState::Waiting => !reserves,
            state => state != RangeState::Reserved,
        };
        if last.state() == RangeState::Unplaced && state != RangeState::Unplaced && to.is_none() {
            return Err(refused(RangeRefusal::NoAddress));
        }
        let base = if state == RangeState::Unplaced { GuestAddress(0) } else { base };
        let range = match size {
            None => last.range.moved_to(base),
            Some(_) if !old.is_window() => return Err(refused(RangeRefusal::NotAWindow)),
            Some(size) => IoRange::with_size(base, size),
        };
        let range = range.map_err(|error| refused(RangeRefusal::Invalid(error)))?;
        check_space(old.io_type(), range).map_err(refused)?;
        let alignment = self.pool.alignment(slot);
        if base.0 & alignment.wrapping_sub(1) != 0 {
            return Err(refused(RangeRefusal::Misaligned { wanted: base, alignment: GuestUsize(alignment) }));
        }
        Ok(Step { slot, old, to: range, state, decoded, is_out: false, waited_behind: None })
    }

    /// Takes the ranges that change out of their places, and what lies in the windows among them. Windows come first.
    fn take_out(&mut self, relocations: &mut [Relocation]) {
        for step in steps_mut(relocations) {
            let slot = step.slot;
            if self.pool.is_marked(slot) {
                // A window around it was named too. What is to wait where it is decoded stays as what is not named does: it gets
                // its place back, or waits.
                if step.changes() || step.state.is_placed() {
                    self.pool.mark(slot, false);
                    step.is_out = true;
                }
            } else if step.changes() {
                if step.old.is_waiting() {
                    step.waited_behind = self.pool.waiting_before(slot, None);
                    self.pool.stop_waiting(slot, step.waited_behind);
                } else {
                    self.pool.displace_contents(slot);
                    self.pool.unlink(slot);
                }
                step.is_out = true;
            }
        }
    }

    /// Gives the steps that are to have a place their places, and what lay in the windows its places back, where that is
    /// possible: windows before what lies in them, and steps before what they displace. An error leaves some without.
    fn place(&mut self, relocations: &[Relocation]) -> Result<(), RelocateError<&'d str>> {
        for depth in 0..=MAX_WINDOW_DEPTH as u8 {
            let is_next = |step: &&Step| step.is_out && step.state.is_placed() && step.old.depth() == depth;
            for step in steps(relocations).filter(is_next) {
                if let Err(refusal) = self.put_at(step.slot, step.to, step.decoded, None) {
                    let device = step.old.node.and_then(|node| self.tree.node(node)).map_or("", |node| node.name);
                    let index = step.old.index().into();
                    return Err(RelocateError::Range { device, index, to: step.to.first(), refusal });
                }
            }
            self.for_each_marked(depth, |state, slot| {
                state.try_to_place(slot, None);
            });
        }
        Ok(())
    }

    /// Gives a device's range without a place this one. If it waits, `before` is one that does so before it, if one is known.
    pub(crate) fn put_at(
        &mut self,
        slot: SlotIndex,
        to: IoRange,
        decoded: bool,
        before: Option<SlotIndex>,
    ) -> Result<(), RangeRefusal<Owner<&'d str>>> {
        let Some((range, node)) = self.range(slot).and_then(|range| Some((*range, range.node?))) else { return Ok(()) };
        let taker = Taker { node, parent: self.tree.node(node).and_then(|node| node.parent) };
        let free = self.find_free(range.io_type(), &Placement::Fixed(to), taker, decoded)?;
        if range.is_waiting() {
            self.pool.stop_waiting(slot, self.pool.waiting_before(slot, before));
        }
        self.pool.put(slot, &free);
        if let Some(range) = self.pool.range_mut(slot) {
            range.set_decoded(decoded);
        }
        Ok(())
    }

    /// Undoes [`take_out`](Self::take_out) and [`place`](Self::place). The old places are still free: the lock is held.
    fn take_back(&mut self, relocations: &[Relocation]) {
        // What lies in a window comes before it.
        for depth in (0..=MAX_WINDOW_DEPTH as u8).rev() {
            for step in steps(relocations).filter(|step| step.is_out && step.old.depth() == depth) {
                self.pool.unlink(step.slot);
            }
            self.for_each_marked(depth, |state, slot| {
                state.pool.unlink(slot);
            });
        }
        for step in steps(relocations).rev().filter(|step| step.is_out && step.old.is_waiting()) {
            if let Some(range) = self.pool.range_mut(step.slot) {
                range.range = step.old.range;
            }
            self.pool.wait_behind(step.slot, step.waited_behind);
        }
        for step in steps(relocations).filter(|step| step.is_out) {
            if step.old.is_placed() {
                self.pool.put_back(step.slot, &step.old);
            }
            if let Some(range) = self.pool.range_mut(step.slot) {
                range.range = step.old.range;
                range.set_decoded(step.old.is_decoded());
            }
        }
        // Each window is back before a range looks for the one around it.
        for depth in 0..=MAX_WINDOW_DEPTH as u8 {
            self.for_each_marked(depth, |state, slot| {
                let Some(mut old) = state.range(slot).copied() else { return };
                old.container = state.window_around(&old);
                state.pool.put_back(slot, &old);
                state.pool.mark(slot, false);
            });
        }
    }

    /// Completes the steps that need no place, and lets what has lost its place with a window wait.
    fn settle(&mut self, relocations: &[Relocation]) -> Changed {
        let mut changed = Changed::default();
        for step in steps(relocations).filter(|step| step.is_out) {
            changed.windows |= step.old.is_window();
            changed.dispatched |= step.old.is_dispatched();
            if step.state == RangeState::Waiting {
                self.pool.wait_for(step.slot, step.to);
            }
            if let Some(range) = self.pool.range_mut(step.slot) {
                changed.dispatched |= range.is_dispatched();
                range.range = step.to;
                match step.state {
                    RangeState::Waiting => range.set_decoded(step.decoded),
                    RangeState::Unplaced => range.set_told(Told::Nothing),
                    RangeState::Decoded | RangeState::Reserved => {}
                }
            }
        }
        for depth in 0..=MAX_WINDOW_DEPTH as u8 {
            self.for_each_marked(depth, |state, slot| {
                state.pool.mark(slot, false);
                if let Some(range) = state.range(slot).copied().filter(|range| !range.is_placed()) {
                    state.pool.wait_for(slot, range.range);
                }
            });
        }
        changed
    }
}

//! Moving ranges: one, several at once, or two that change places, and turning their decoding on and off.
//!
//! Under the lock, the moved ranges are given back to the allocator and taken again at their new places. If one place cannot be
//! had, all ranges go back, and no access and no caller has seen a change. Then one publication changes the index, so that an
//! access finds every range at its old place or every range at its new one. A move waits for no callback: a device may move
//! ranges, its own among them, from within a callback. A callback that is running keeps the base it was called with.

use heapless::Vec;

use crate::address::{GuestAddress, GuestUsize, IoRange};
use crate::allocator::RangeRecord;
use crate::error::{RangeRefusal, RelocateError};
use crate::indices::SlotIndex;
use crate::instance::InstanceId;
use crate::manager::device_manager::DeviceManager;
use crate::manager::state::State;
use crate::manager::take::Taker;
use crate::manager::tree::NodeState;
use crate::resource::Placement;

/// How many ranges one transaction can move.
pub const MAX_RELOCATIONS: usize = 32;

/// The change of one range: a new place, or decoding turned on or off, or both.
///
/// ```
/// use vm_device::{
///     DeviceManager, GuestAddress, IoRange, IoResource, IrqResource, Relocation, Storage, SystemAllocator,
/// };
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
///
/// let (first, second) = (Constant("first", 1), Constant("second", 2));
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let first = manager.register_device(&first, None, &[IoResource::mmio(0x1000, 0x1000)], IrqResource::None).unwrap();
/// let second = manager.register_device(&second, None, &[IoResource::mmio(0x2000, 0x1000)], IrqResource::None).unwrap();
///
/// // Two ranges change places.
/// let swap = [Relocation::new(first, 0).to(GuestAddress(0x2000)), Relocation::new(second, 0).to(GuestAddress(0x1000))];
/// assert_eq!(manager.relocate(&swap), Ok(()));
/// assert_eq!(manager.range(first, 0).map(|assigned| assigned.range.first()), Some(GuestAddress(0x2000)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relocation {
    device: InstanceId,
    index: usize,
    to: Option<GuestAddress>,
    decoded: Option<bool>,
}

impl Relocation {
    /// For range number `index` of `device`, as yet without a change.
    #[must_use]
    pub const fn new(device: InstanceId, index: usize) -> Self {
        Self { device, index, to: None, decoded: None }
    }

    /// Moves the range so that it starts at `base`; its size stays. A range that was asked for with an alignment
    /// ([`IoResource::aligned`](crate::IoResource::aligned)) keeps it; the limits of its request were for its first place.
    #[must_use]
    pub const fn to(mut self, base: GuestAddress) -> Self {
        self.to = Some(base);
        self
    }

    /// Turns decoding on or off. A range that is not decoded stays reserved for its device, and accesses do not reach
    /// it.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, IoError, IoRange, IoResource, IoType, IrqResource, Relocation, Storage,
    ///     SystemAllocator,
    /// };
    ///
    /// let device = Constant("disk", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let bar = IoResource::mmio(0x1000, 0x1000).not_decoded();
    /// let disk = manager.register_device(&device, None, &[bar], IrqResource::None).unwrap();
    /// let mut data = [0; 1];
    /// assert_eq!(manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio), Err(IoError::Unclaimed));
    ///
    /// // The guest sets the memory enable bit of the command register.
    /// manager.relocate(&[Relocation::new(disk, 0).decoded(true)]).unwrap();
    /// assert_eq!(manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio), Ok(()));
    /// ```
    #[must_use]
    pub const fn decoded(mut self, decoded: bool) -> Self {
        self.decoded = Some(decoded);
        self
    }
}

/// One range of the transaction.
#[derive(Clone, Copy)]
struct Step {
    slot: SlotIndex,
    /// How many buses are above the device.
    depth: usize,
    old: RangeRecord,
    to: IoRange,
    decoded: bool,
}

impl Step {
    fn moves(&self) -> bool {
        self.to != self.old.range
    }
}

type Steps = Vec<Step, MAX_RELOCATIONS>;

impl<'d> DeviceManager<'d> {
    /// Makes several changes of ranges at once, or none of them. A range may move to a place that another one of the
    /// transaction leaves; a window with ranges in it moves only together with them.
    ///
    /// Devices are not told: each access carries the base under which it was found. Where a
    /// [`PhysicalMmio`](crate::IoType::PhysicalMmio) range moves, mapping it there is up to the VMM.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, IoRange, IoResource, IoType, IrqResource, Relocation, Storage, SystemAllocator,
    /// };
    ///
    /// let (pci, disk) = (Constant("pci", 1), Constant("disk", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let window = IoResource::mmio(0x1000_0000, 0x1000_0000).window();
    /// let bus = manager.register_device(&pci, None, &[window], IrqResource::None).unwrap();
    /// let bar = IoResource::mmio(0x1000_0000, 0x1000);
    /// let disk = manager.register_device(&disk, Some(bus), &[bar], IrqResource::None).unwrap();
    ///
    /// // A window moves only together with what lies in it.
    /// let away = Relocation::new(bus, 0).to(GuestAddress(0x4000_0000));
    /// assert!(manager.relocate(&[away]).is_err());
    /// let along = Relocation::new(disk, 0).to(GuestAddress(0x4000_8000));
    /// assert_eq!(manager.relocate(&[away, along]), Ok(()));
    /// assert_eq!(manager.find_by_address(GuestAddress(0x4000_8000), IoType::Mmio), Some((disk, 0)));
    /// ```
    ///
    /// # Errors
    /// [`RelocateError`] names the range and what is in its way. Nothing has changed then.
    pub fn relocate(&self, relocations: &[Relocation]) -> Result<(), RelocateError<'d>> {
        let Some(mut locked) = self.lock() else {
            // The storage is another manager's: no device has any id.
            return relocations.first().map_or(Ok(()), |named| Err(RelocateError::NotFound { id: named.device }));
        };
        let mut state = locked.state();
        let mut steps = Steps::new();
        resolve(&state, relocations, &mut steps)?;
        state.move_all(&steps)?;
        let (mut windows, mut dispatched) = (false, false);
        for step in &steps {
            if let Some(range) = state.pool.range_mut(step.slot) {
                range.set_decoded(step.decoded);
                windows |= range.is_window();
                dispatched |= range.is_dispatched() || step.old.is_dispatched();
            }
        }
        if !dispatched {
            return Ok(());
        }
        self.publish(|pass| {
            if windows {
                return self.index_rebuild(pass, &state);
            }
            for step in &steps {
                self.index_remove(pass, step.slot, &step.old, &state);
            }
            for step in &steps {
                if let Some(range) = state.range(step.slot) {
                    self.index_insert(pass, step.slot, range, &state);
                }
            }
        });
        Ok(())
    }
}

/// Finds the ranges that the transaction names.
fn resolve<'d>(state: &State<'_, 'd>, relocations: &[Relocation], steps: &mut Steps) -> Result<(), RelocateError<'d>> {
    for relocation in relocations {
        let Relocation { device: id, index, to, decoded } = *relocation;
        let node = state.tree.get(id).ok_or(RelocateError::NotFound { id })?;
        let device = node.name;
        if node.state != NodeState::LIVE {
            return Err(RelocateError::Busy { device });
        }
        let (slot, &old) = state.ranges_of(id.index).nth(index).ok_or(RelocateError::NoSuchRange { device, index })?;
        if steps.iter().any(|step| step.slot == slot) {
            return Err(RelocateError::NamedTwice { device, index });
        }
        let to = match to {
            None => old.range,
            Some(to) => old.range.moved_to(to).map_err(|error| RelocateError::Range {
                device,
                index,
                to,
                refusal: RangeRefusal::Invalid(error),
            })?,
        };
        let alignment = state.pool.alignment(slot);
        if to.first().0 & alignment.wrapping_sub(1) != 0 {
            let (wanted, alignment) = (to.first(), GuestUsize(alignment));
            let refusal = RangeRefusal::Misaligned { wanted, alignment };
            return Err(RelocateError::Range { device, index, to: wanted, refusal });
        }
        let step = Step {
            slot,
            depth: state.tree.ancestors(id.index).count(),
            old,
            to,
            decoded: decoded.unwrap_or(old.is_decoded()),
        };
        if steps.push(step).is_err() {
            return Err(RelocateError::TooMany { asked: relocations.len(), limit: MAX_RELOCATIONS });
        }
    }
    // Buses come before the devices below them, and so windows before the ranges in them, at the old places and at the new
    // ones. Ranges can be taken in this order and given back in the reverse.
    sort_by_depth(steps);
    Ok(())
}

/// An insertion sort: the steps are few, and mostly in order.
fn sort_by_depth(steps: &mut [Step]) {
    for end in 1..steps.len() {
        for at in (1..=end).rev() {
            let Some([a, b]) = steps.get_mut(at - 1..=at) else { break };
            if a.depth <= b.depth {
                break;
            }
            core::mem::swap(a, b);
        }
    }
}

impl<'d> State<'_, 'd> {
    /// Moves all ranges in the allocator, or none.
    fn move_all(&mut self, steps: &[Step]) -> Result<(), RelocateError<'d>> {
        let outcome = self.try_to_move(steps);
        if outcome.is_err() {
            // All steps that are linked are unlinked, and all go back to their old places, which are still free: the lock is
            // held.
            for step in steps.iter().rev().filter(|step| step.moves()) {
                let _ = self.pool.unlink(step.slot);
            }
            for step in steps.iter().filter(|step| step.moves()) {
                self.pool.put_back(step.slot, &step.old);
            }
        }
        outcome
    }

    /// As [`move_all`](Self::move_all), but an error leaves some ranges moved or unlinked.
    fn try_to_move(&mut self, steps: &[Step]) -> Result<(), RelocateError<'d>> {
        let (step, refusal) = 'refused: {
            for step in steps.iter().rev().filter(|step| step.moves()) {
                if let Err(error) = self.pool.unlink(step.slot) {
                    break 'refused (step, self.refusal(error));
                }
            }
            for step in steps.iter().filter(|step| step.moves()) {
                // A range that moves is a device's.
                let Some(node) = step.old.node else { continue };
                let parent = self.tree.node(node).and_then(|node| node.parent);
                match self.find_free(step.old.io_type(), &Placement::Fixed(step.to), Taker { node, parent }) {
                    Ok(free) => self.pool.put(step.slot, &free),
                    Err(refusal) => break 'refused (step, refusal),
                }
            }
            return Ok(());
        };
        let device = step.old.node.and_then(|node| self.tree.node(node)).map_or("", |node| node.name);
        Err(RelocateError::Range { device, index: step.old.index().into(), to: step.to.first(), refusal })
    }
}

//! Moving ranges: one, several at once, or two that change places, and turning their decoding on and off.
//!
//! Under the lock, the moved ranges are given back to the allocator and taken again at their new places; if one cannot
//! be had, all go back where they were, and nobody has seen anything. Then one publication changes the index, so that
//! an access finds every range at its old place or every range at its new one. Nothing waits for anybody: a device may
//! move ranges from within a callback, its own among them. A callback that is running keeps the base it was called with.

use heapless::Vec;

use crate::address::{GuestAddress, GuestUsize, IoRange};
use crate::allocator::{InstanceId, Range};
use crate::error::{RangeRefusal, RelocateError};
use crate::manager::DeviceManager;
use crate::resource::Placement;
use crate::state::State;
use crate::topology::{Life, NONE};

/// How many ranges one transaction can move.
pub const MAX_RELOCATIONS: usize = 32;

/// What is to become of one range: a new place, or decoding turned on or off, or both.
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
    #[must_use]
    pub const fn decoded(mut self, decoded: bool) -> Self {
        self.decoded = Some(decoded);
        self
    }
}

/// One range of the transaction.
#[derive(Clone, Copy)]
struct Step {
    slot: u16,
    /// How many buses are above the device.
    depth: usize,
    old: Range,
    to: IoRange,
    decoded: bool,
}

impl Step {
    fn moves(&self) -> bool {
        self.to != self.old.range
    }
}

type Steps = Vec<Step, MAX_RELOCATIONS>;

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> DeviceManager<'d, DEVICES, RANGES, VCPUS> {
    /// Makes several changes of ranges at once, or none of them. A range may move to a place that another one of the
    /// transaction leaves; a window with ranges in it moves only together with them.
    ///
    /// Devices are not told: each access carries the base under which it was found. Where a
    /// [`PhysicalMmio`](crate::IoType::PhysicalMmio) range moves, mapping it there is up to the VMM.
    ///
    /// # Errors
    /// [`RelocateError`] names the range and what is in its way. Nothing has changed then.
    pub fn relocate(&self, relocations: &[Relocation]) -> Result<(), RelocateError<'d>> {
        let mut state = self.state();
        let mut steps = Steps::new();
        resolve(&state, relocations, &mut steps)?;
        state.move_all(&steps)?;
        let (mut windows, mut dispatched) = (false, false);
        for step in &steps {
            if let Some(range) = state.range_mut(step.slot) {
                range.set_decoded(step.decoded);
                windows |= range.is_window();
                dispatched |= range.is_dispatched() || step.old.is_dispatched();
            }
        }
        if !dispatched {
            return Ok(());
        }
        self.publish(|edit| {
            if windows {
                return self.index_rebuild(edit, &state);
            }
            for step in &steps {
                self.index_remove(edit, step.slot, &step.old, &state);
            }
            for step in &steps {
                if let Some(range) = state.range(step.slot) {
                    self.index_insert(edit, step.slot, range, &state);
                }
            }
        });
        Ok(())
    }
}

/// Finds the ranges that the transaction names.
fn resolve<'d, const DEVICES: usize, const RANGES: usize>(
    state: &State<'d, DEVICES, RANGES>,
    relocations: &[Relocation],
    steps: &mut Steps,
) -> Result<(), RelocateError<'d>> {
    for relocation in relocations {
        let Relocation { device: id, index, to, decoded } = *relocation;
        let node = state.topology.get(id).ok_or(RelocateError::NotFound { id })?;
        let device = node.name;
        if node.life != Life::Live {
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
        let alignment = state.allocator.pool.alignment(slot);
        if to.first().0 & alignment.wrapping_sub(1) != 0 {
            let (wanted, alignment) = (to.first(), GuestUsize(alignment));
            let refusal = RangeRefusal::Misaligned { wanted, alignment };
            return Err(RelocateError::Range { device, index, to: wanted, refusal });
        }
        let step =
            Step { slot, depth: state.topology.depth(id.index), old, to, decoded: decoded.unwrap_or(old.is_decoded()) };
        if steps.push(step).is_err() {
            return Err(RelocateError::TooMany { asked: relocations.len(), limit: MAX_RELOCATIONS });
        }
    }
    // Buses before what is below them, and so windows before the ranges in them, at the old places as at the new: they
    // can be taken in this order and given back in the reverse.
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

impl<'d, const DEVICES: usize, const RANGES: usize> State<'d, DEVICES, RANGES> {
    /// Moves all ranges in the allocator, or none.
    fn move_all(&mut self, steps: &[Step]) -> Result<(), RelocateError<'d>> {
        let outcome = self.try_to_move(steps);
        if outcome.is_err() {
            // Whatever is linked goes, and all comes back to its old place: nobody else has taken any.
            for step in steps.iter().rev().filter(|step| step.moves()) {
                let _ = self.allocator.pool.unlink(step.slot);
            }
            for step in steps.iter().filter(|step| step.moves()) {
                self.allocator.pool.put_back(step.slot, &step.old);
            }
        }
        outcome
    }

    /// On an error, the ranges are where it has left them.
    fn try_to_move(&mut self, steps: &[Step]) -> Result<(), RelocateError<'d>> {
        let (step, refusal) = 'refused: {
            for step in steps.iter().rev().filter(|step| step.moves()) {
                if let Err(error) = self.allocator.pool.unlink(step.slot) {
                    break 'refused (step, self.refusal(&error));
                }
            }
            for step in steps.iter().filter(|step| step.moves()) {
                let parent = self.topology.node(step.old.node).map_or(NONE, |node| node.parent);
                match self.place(step.old.io_type(), &Placement::Fixed(step.to), parent) {
                    Ok(place) => self.allocator.pool.put(step.slot, &place),
                    Err(refusal) => break 'refused (step, refusal),
                }
            }
            return Ok(());
        };
        let device = self.topology.node(step.old.node).map_or("", |node| node.name);
        Err(RelocateError::Range { device, index: step.old.index().into(), to: step.to.first(), refusal })
    }
}

//! Memory for the [`PhysicalMmio`](IoType::PhysicalMmio) ranges of a manager, in slots that follow the ranges.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use vm_device::{InstanceId, IoRange, IoType, PlacedRange, RangeListener, Rejected};

use crate::vmm::memory::{Memory, PAGE};
use crate::vmm::vm::{Slot, Vm};

/// A physically backed range of a device, and the memory behind it.
pub struct Backed {
    /// Where it is.
    pub range: IoRange,
    /// What the guest sees there.
    pub memory: Arc<Memory>,
}

/// The memory behind the physically backed ranges of a manager: its [listener](vm_device::DeviceManager::with_listener). A
/// range keeps its memory wherever it moves.
pub struct Backing(Mutex<State>);

struct State {
    vm: Option<Arc<Vm>>,
    /// Of every range that was ever placed.
    ranges: Vec<Entry>,
}

struct Entry {
    device: InstanceId,
    range_index: usize,
    memory: Arc<Memory>,
    place: Option<IoRange>,
    /// Where the range is placed, and a machine is connected.
    slot: Option<Slot>,
}

impl Backing {
    /// Of no machine as yet: the memory is there, and no guest sees it.
    pub const fn new() -> Self {
        Self(Mutex::new(State { vm: None, ranges: Vec::new() }))
    }

    /// Lets the guest of this machine see the memory, wherever the ranges are and will be.
    ///
    /// # Errors
    /// What KVM refuses: an overlap with a slot.
    pub fn connect(&self, vm: &Arc<Vm>) -> Result<(), kvm_ioctls::Error> {
        let mut state = self.state();
        for entry in &mut state.ranges {
            entry.slot = entry.place.map(|place| vm.map(place.first(), &entry.memory)).transpose()?;
        }
        state.vm = Some(Arc::clone(vm));
        Ok(())
    }

    /// The ranges that are placed now.
    pub fn placed(&self) -> Vec<Backed> {
        let placed = |entry: &Entry| Some(Backed { range: entry.place?, memory: Arc::clone(&entry.memory) });
        self.state().ranges.iter().filter_map(placed).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Default for Backing {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn place(&mut self, placed: &PlacedRange<'_>) -> io::Result<()> {
        let size = placed.range.size().map_or(0, |size| size.0);
        if !size.is_multiple_of(PAGE) {
            return Err(io::Error::other(format!("{} is not made of whole pages", placed.range)));
        }
        let at = self.ranges.iter().position(|entry| entry.is_of(placed));
        let at = match at {
            Some(at) => at,
            None => {
                let memory = Arc::new(Memory::new(size)?);
                let (device, range_index) = (placed.id, placed.range_index);
                self.ranges.push(Entry { device, range_index, memory, place: None, slot: None });
                self.ranges.len() - 1
            }
        };
        let Self { vm, ranges } = self;
        let entry = &mut ranges[at];
        if let Some(vm) = vm {
            entry.slot = Some(vm.map(placed.range.first(), &entry.memory)?);
        }
        entry.place = Some(placed.range);
        Ok(())
    }
}

impl Entry {
    fn is_of(&self, range: &PlacedRange<'_>) -> bool {
        (self.device, self.range_index) == (range.id, range.range_index)
    }
}

impl RangeListener for Backing {
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        if range.io_type != IoType::PhysicalMmio {
            return Ok(());
        }
        // The number of the host's error, if it has one.
        let code = |error: &io::Error| error.raw_os_error().and_then(|code| u32::try_from(code).ok()).unwrap_or(0);
        self.state().place(range).map_err(|error| Rejected::new(code(&error)))
    }

    fn leaving(&self, range: &PlacedRange<'_>) {
        let mut state = self.state();
        let State { vm, ranges } = &mut *state;
        let Some(entry) = ranges.iter_mut().find(|entry| entry.is_of(range)) else { return };
        entry.place = None;
        if let (Some(vm), Some(slot)) = (vm, entry.slot.take()) {
            // KVM does not refuse to take away a slot that it has.
            let _ = vm.unmap(slot);
        }
    }
}

//! A device that looks at ranges when the guest asks it to.

use spin::Mutex;
use vm_device::{Access, Device, DeviceManager, InstanceId, IoResource, RangeState};

/// The port at which a guest asks.
pub const WITNESS_PORT: u16 = 0x520;

/// A range as it was seen: its state, and where it lay or wanted to lie; nothing of one without a wanted address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// It was decoded there.
    Decoded(u64),
    /// It waited for that place.
    Waiting(u64),
    /// It was reserved there.
    Reserved(u64),
    /// It had no place and wanted none.
    Unplaced,
    /// There was no such range.
    Gone,
}

/// Notes the states of some ranges whenever the guest writes its port.
pub struct Witness<'d> {
    manager: &'d DeviceManager<'d>,
    state: Mutex<State>,
}

struct State {
    watched: Vec<(InstanceId, usize)>,
    seen: Vec<Vec<Seen>>,
}

impl<'d> Witness<'d> {
    /// It watches nothing as yet.
    pub const fn new(manager: &'d DeviceManager<'d>) -> Self {
        Self { manager, state: Mutex::new(State { watched: Vec::new(), seen: Vec::new() }) }
    }

    /// What it has to be registered with.
    pub const fn resource() -> IoResource {
        IoResource::pio(WITNESS_PORT, 1)
    }

    /// From now on it looks at this range too.
    pub fn watch(&self, device: InstanceId, index: usize) {
        self.state.lock().watched.push((device, index));
    }

    /// What it saw, each time: a state for each range, in the order in which it was told to watch them.
    pub fn take_seen(&self) -> Vec<Vec<Seen>> {
        std::mem::take(&mut self.state.lock().seen)
    }

    fn look(&self, device: InstanceId, index: usize) -> Seen {
        let Some(assigned) = self.manager.range(device, index) else { return Seen::Gone };
        let base = assigned.range.first().0;
        match assigned.state {
            RangeState::Decoded => Seen::Decoded(base),
            RangeState::Waiting => Seen::Waiting(base),
            RangeState::Reserved => Seen::Reserved(base),
            RangeState::Unplaced => Seen::Unplaced,
        }
    }
}

impl<'d> Device<'d> for Witness<'d> {
    fn name(&self) -> &str {
        "witness"
    }

    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}

    fn write(&self, _: &Access<'_>, _: &[u8]) {
        let mut state = self.state.lock();
        let seen = state.watched.iter().map(|(device, index)| self.look(*device, *index)).collect();
        state.seen.push(seen);
    }
}

//! The manager that a history begins with, and where its addresses lie.

use spin::Mutex;
use vm_device::{AccessSizes, IoResource, IoType, RangeState};

use crate::fixture::{Recorder, everything, manager};
use crate::history::Step;
use crate::interrupts::LINES;
use crate::plain::{Instance, Model, Place};
use crate::relay::Relay;
use crate::steps::Run;

/// Half the addresses looked at, at each end of a space.
pub(crate) const HALF: u64 = 32;
/// Where the device stands that makes nested accesses.
const RELAY: IoResource = IoResource::pio(0x8000, 1);

/// An address near one end of the space: numbers below [`HALF`] count from the bottom, the others up to the top.
pub(crate) fn address(io_type: IoType, cell: u64) -> u64 {
    if cell < HALF { cell } else { io_type.last_address().0 - (2 * HALF - 1) + cell }
}

/// Makes the steps of a history, with a comparison after each.
///
/// The manager has room for these, and its handle has so many hints for each space.
pub(crate) fn run<const DEVICES: usize, const RANGES: usize, const HINTS: usize>(steps: &[Step]) {
    manager!(let manager: <DEVICES, RANGES, 1> = everything().with_irqs(LINES[0], LINES[1]));
    let names = ["a", "b", "c"].into_iter().cycle();
    let recorders: Vec<_> =
        names.zip(0..DEVICES as u8).map(|(name, number)| Recorder::new(name, number * 16)).collect();
    let relay = Relay { manager: &manager, order: Mutex::new(None), outcome: Mutex::new((Ok(()), Vec::new())) };
    let id = manager.register_device(&relay, None, &[RELAY], &[]).unwrap();
    let place = Place {
        io_type: IoType::Pio,
        first: 0x8000,
        last: 0x8000,
        window: false,
        state: RangeState::Decoded,
        decoded: true,
        since: 0,
        align: 1,
        sizes: AccessSizes::ANY,
    };
    let instance =
        Instance { id, recorder: usize::MAX, parent: None, places: vec![place], irqs: vec![], deferred: false };
    let mut run = Run {
        manager: &manager,
        recorders: &recorders,
        relay: &relay,
        vcpu: manager.dispatcher_with_hints::<HINTS, HINTS>(0).unwrap(),
        model: Model { devices: DEVICES, ranges: RANGES, instances: vec![instance], reserved: vec![], time: 0 },
        stale: vec![],
        accesses: 0,
    };
    for step in steps {
        run.step(step);
    }
}

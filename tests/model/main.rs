//! Random histories of a manager against a model that compares everything with everything.
//!
//! The model keeps a plain list of devices and their ranges. It has no order, no tree of intervals and no index: it
//! answers each question by looking at every range, and places a range by trying every address. Both address spaces
//! are looked at where they end: 32 addresses at the bottom and 32 at the top.

mod comparison;
mod history;
#[path = "../observed/mod.rs"]
mod observed;
mod plain;
mod recorder;
mod steps;

use proptest::prelude::*;
use spin::Mutex;
use vm_device::{AccessSizes, DeviceManager, IoRange, IoResource, IoType, IrqResource, SystemAllocator};

use history::Step;
use plain::{Instance, Model, Place};
use recorder::{Recorder, Relay};
use steps::Run;

const DEVICES: usize = 6;
const RANGES: usize = 10;
type Manager<'d> = DeviceManager<'d, DEVICES, RANGES, 1>;
/// Half the addresses looked at, at each end of a space.
const HALF: u64 = 32;
/// Where the device stands that makes nested accesses.
const RELAY: IoResource = IoResource::pio(0x8000, 1);

/// An address near one end of the space: numbers below [`HALF`] count from the bottom, the others up to the top.
fn address(io_type: IoType, cell: u64) -> u64 {
    if cell < HALF { cell } else { io_type.last_address().0 - (2 * HALF - 1) + cell }
}

fn run(steps: &[Step]) {
    let manager: Manager<'_> =
        DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 7));
    let recorders: Vec<Recorder> = (0..DEVICES as u8)
        .map(|number| Recorder { number, calls: Mutex::default(), assigned: Mutex::default() })
        .collect();
    let relay = Relay { manager: &manager, order: Mutex::new(None), outcome: Mutex::new((Ok(()), Vec::new())) };
    let id = manager.register_device(&relay, None, &[RELAY], IrqResource::None).unwrap();
    let place = Place {
        io_type: IoType::Pio,
        first: 0x8000,
        last: 0x8000,
        window: false,
        decoded: true,
        sizes: AccessSizes::ANY,
    };
    let instance = Instance { id, recorder: usize::MAX, parent: None, places: vec![place], irq: None, deferred: false };
    let mut run = Run {
        manager: &manager,
        recorders: &recorders,
        relay: &relay,
        vcpu: manager.dispatcher().unwrap(),
        model: Model { instances: vec![instance], reserved: vec![] },
        stale: vec![],
        accesses: 0,
    };
    for step in steps {
        run.step(step);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_manager_does_what_the_model_does(steps in prop::collection::vec(history::step(), 1..24)) {
        run(&steps);
    }
}

//! The manager that a history begins with, and where its addresses lie.

use spin::Mutex;
use vm_device::{AccessSizes, DeviceManager, IoRange, IoResource, IoType, IrqResource, SystemAllocator};

use crate::history::Step;
use crate::plain::{Instance, Model, Place};
use crate::recorder::{Recorder, Relay};
use crate::steps::Run;
use crate::{DEVICES, Manager};

/// Half the addresses looked at, at each end of a space.
pub(crate) const HALF: u64 = 32;
/// Where the device stands that makes nested accesses.
const RELAY: IoResource = IoResource::pio(0x8000, 1);

/// An address near one end of the space: numbers below [`HALF`] count from the bottom, the others up to the top.
pub(crate) fn address(io_type: IoType, cell: u64) -> u64 {
    if cell < HALF { cell } else { io_type.last_address().0 - (2 * HALF - 1) + cell }
}

/// Makes the steps of a history, with a comparison after each.
pub(crate) fn run(steps: &[Step]) {
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
        align: 1,
        sizes: AccessSizes::ANY,
    };
    let instance = Instance { id, recorder: usize::MAX, parent: None, places: vec![place], irq: None, deferred: false };
    let mut run = Run {
        manager: &manager,
        recorders: &recorders,
        relay: &relay,
        vcpu: manager.dispatcher_with_hints().unwrap(),
        model: Model { instances: vec![instance], reserved: vec![] },
        stale: vec![],
        accesses: 0,
    };
    for step in steps {
        run.step(step);
    }
}

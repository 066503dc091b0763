//! Memory slots and doorbells that follow ranges which the guest moves.

use kvm_ioctls::Kvm;
use spin::Mutex;
use vm_device::{
    Access, Device, DeviceManager, Doorbell, GuestAddress, GuestUsize, InstanceId, IoResource, IoType, Relocation,
};

use super::doorbell::run_served;
use super::scenario::{DEVICE_MEMORY, Failure, LIMIT, Room, Scenario, expect, manager};
use super::shown::keep_map;
use super::verdict::run_to_verdict;
use crate::check;
use crate::devices::verdict::Verdict;
use crate::guest_side::{mmio, pass, port};
use crate::vmm::backing::Backing;
use crate::vmm::doorbell::Doorbells;
use crate::vmm::listeners::Listeners;
use crate::vmm::machine::Machine;
use crate::vmm::memory::PAGE;
use crate::vmm::run::Tally;
use crate::vmm::vcpu::Ring;

/// The guests of this topic.
pub const ALL: &[Scenario] = &[Scenario {
    name: "moved/backed_and_doorbell",
    about: "a backed range is memory, and a doorbell rings, at the new place only",
    run: moved,
}];

const REGISTERS: u64 = DEVICE_MEMORY;
const MEMORY: u64 = DEVICE_MEMORY + 4 * PAGE;
const NOTIFY: u64 = 0x10;
/// How far the guest moves both ranges.
const DISTANCE: u64 = 0x10_0000;
/// By a write here, the guest moves both ranges up, down, or takes their places away.
const MOVE: u16 = 0x510;
const UP: u8 = 1;
const DOWN: u8 = 2;
const AWAY: u8 = 3;

/// Moves the ranges of a card, from within its own callback.
struct Mover<'d> {
    manager: &'d DeviceManager<'d>,
    card: InstanceId,
    failures: Mutex<Vec<String>>,
}

impl<'d> Device<'d> for Mover<'d> {
    fn name(&self) -> &str {
        "mover"
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, data: &[u8]) {
        let step = |index, base| {
            let relocation = Relocation::new(self.card, index);
            match data {
                [UP] => relocation.to(GuestAddress(base + DISTANCE)).waiting(),
                [DOWN] => relocation.to(GuestAddress(base)).waiting(),
                _ => relocation.unplaced(),
            }
        };
        if let Err(error) = self.manager.relocate(&mut [step(0, REGISTERS), step(1, MEMORY)]) {
            self.failures.lock().push(error.to_string());
        }
    }
}

/// Counts the writes that exit.
struct Card(Mutex<Vec<u64>>);

impl Device<'_> for Card {
    fn name(&self) -> &str {
        "card"
    }
    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(0);
    }
    fn write(&self, access: &Access<'_>, _: &[u8]) {
        self.0.lock().push(access.address().0);
    }
    fn doorbells(&self) -> &[Doorbell] {
        &[Doorbell { range_index: 0, offset: NOTIFY, size: 4, value: None }]
    }
}

fn moved(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        const NOTHING: u32 = u32::MAX;
        let ring = |base| mmio::write(base + NOTIFY, 1u32);
        mmio::write(MEMORY, 0x1234_5678u32);
        ring(REGISTERS);
        for round in 0..3u32 {
            port::write(MOVE, UP);
            // At the old places there is nothing: these exit.
            check!(mmio::read::<u32>(MEMORY), NOTHING);
            ring(REGISTERS);
            check!(mmio::read::<u32>(MEMORY + DISTANCE), 0x1234_5678 + round);
            mmio::write(MEMORY + DISTANCE, 0x1234_5679 + round);
            ring(REGISTERS + DISTANCE);

            port::write(MOVE, DOWN);
            check!(mmio::read::<u32>(MEMORY + DISTANCE), NOTHING);
            ring(REGISTERS + DISTANCE);
            check!(mmio::read::<u32>(MEMORY), 0x1234_5679 + round);
            ring(REGISTERS);
        }
        port::write(MOVE, AWAY);
        check!(mmio::read::<u32>(MEMORY), NOTHING);
        ring(REGISTERS);
        port::write(MOVE, DOWN);
        check!(mmio::read::<u32>(MEMORY), 0x1234_567bu32);
        pass()
    }
    /// What the guest does that exits and reaches nothing: a read and a ring, for each move.
    const UNCLAIMED: u64 = 2 * 7;
    let (room, machine, backing) = (Room::new(), Machine::new(kvm)?, Backing::new());
    backing.connect(machine.vm())?;
    let doorbells = Doorbells::new(machine.vm())?;
    let all: [&dyn vm_device::RangeListener; 2] = [&backing, &doorbells];
    let listeners = Listeners(&all);
    let (verdict, card) = (Verdict::new(), Card(Mutex::default()));
    let manager = manager(&room).with_listener(&listeners);
    let memory = IoResource::fixed(IoType::PhysicalMmio, GuestAddress(MEMORY), GuestUsize(PAGE));
    let ranges = [IoResource::mmio(REGISTERS, PAGE), memory];
    let id = manager.register_device(&card, None, &ranges, &[])?;
    let mover = Mover { manager: &manager, card: id, failures: Mutex::default() };
    manager.register_device(&mover, None, &[IoResource::pio(MOVE, 1)], &[])?;
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;

    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let mut dispatcher = manager.dispatcher(0)?;
    let mut rung = 0;
    let tally = run_served(&doorbells, |_| rung += 1, || run_to_verdict(&mut vcpu, &mut dispatcher, &verdict, LIMIT))?;
    keep_map(&manager);
    expect("moves that failed", mover.failures.lock().clone(), Vec::<String>::new())?;
    expect("writes to the card that exited", card.0.lock().clone(), Vec::<u64>::new())?;
    expect("accesses to nothing", tally.unclaimed, UNCLAIMED)?;
    // Rings that come faster than they are served become one.
    expect("doorbells that rang", (1..=7).contains(&rung), true)?;
    Ok(tally)
}

//! Doorbells: writes that do not exit.

use std::thread::{self, ThreadId};

use kvm_ioctls::Kvm;
use spin::Mutex;
use vm_device::{Access, Device, Doorbell, IoResource, IrqResource};

use super::{DEVICE_MEMORY, Failure, LIMIT, Scenario, expect, manager};
use crate::check;
use crate::devices::verdict::Verdict;
use crate::doorbell::Doorbells;
use crate::guest::{mmio, pass, port};
use crate::machine::Machine;
use crate::run::{Tally, run};
use crate::vcpu::Ring;

/// The guests of this topic.
pub const ALL: &[Scenario] = &[Scenario {
    name: "doorbell/ioeventfd",
    about: "doorbells in memory and in a port, served on a thread of their own",
    run: ioeventfd,
}];

const QUEUE: u64 = DEVICE_MEMORY;
const NOTIFY: u64 = 0x10;
const PORT: u16 = 0x500;
/// How often the guest rings each doorbell.
const RINGS: u32 = 5;

/// A device with a doorbell of any value in its memory and one of the value 7 in its port. Reads tell how often it was rung.
struct Queue(Mutex<Vec<Write>>);

/// One write: in which range, what, and on which thread.
type Write = (usize, Vec<u8>, ThreadId);

impl Device<'_> for Queue {
    fn name(&self) -> &str {
        "queue"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let rung = self.0.lock().iter().filter(|(range, ..)| *range == access.range_index()).count();
        data.fill(0);
        data[0] = rung as u8;
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.0.lock().push((access.range_index(), data.to_vec(), thread::current().id()));
    }

    fn doorbells(&self) -> &[Doorbell] {
        &[
            Doorbell { range_index: 0, offset: NOTIFY, size: 4, value: None },
            Doorbell { range_index: 1, offset: 0, size: 2, value: Some(7) },
        ]
    }
}

fn ioeventfd(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        for rung in 1..=RINGS {
            mmio::write(QUEUE + NOTIFY, rung);
            while mmio::read::<u32>(QUEUE) != rung {}
            port::write(PORT, 7u16);
            while port::read::<u16>(PORT) != rung as u16 {}
        }
        // Another value, and another width, are ordinary writes.
        port::write(PORT, 8u16);
        check!(port::read::<u16>(PORT), RINGS as u16 + 1);
        mmio::write(QUEUE + NOTIFY, 9u8);
        check!(mmio::read::<u32>(QUEUE), RINGS + 1);
        pass()
    }
    let machine = Machine::new(kvm)?;
    let (manager, verdict, queue) = (manager(), Verdict::new(), Queue(Mutex::new(Vec::new())));
    manager.register_device(&verdict, None, &[Verdict::resource()], IrqResource::None)?;
    manager.register_device(
        &queue,
        None,
        &[IoResource::mmio(QUEUE, 0x20), IoResource::pio(PORT, 2)],
        IrqResource::None,
    )?;
    let doorbells = Doorbells::new(machine.vm(), &manager)?;
    expect("doorbells", doorbells.count(), 2usize)?;
    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let mut dispatcher = manager.dispatcher()?;
    let mut bell_dispatcher = manager.dispatcher()?;
    let tally = thread::scope(|scope| {
        let server = scope.spawn(|| doorbells.serve(&mut bell_dispatcher));
        let tally = run(&mut vcpu, &mut dispatcher, &verdict, LIMIT);
        doorbells.stop();
        match server.join() {
            Ok(served) => served?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok::<_, Failure>(tally?)
    })?;
    let vcpu_thread = thread::current().id();
    let writes = queue.0.lock();
    let rung = |range, on_vcpu| {
        let chosen = writes.iter().filter(|(r, _, thread)| *r == range && (*thread == vcpu_thread) == on_vcpu);
        chosen.map(|(_, data, _)| data.clone()).collect::<Vec<_>>()
    };
    expect("rings of the memory doorbell", rung(0, false), vec![vec![0; 4]; RINGS as usize])?;
    expect("rings of the port doorbell", rung(1, false), vec![vec![7, 0]; RINGS as usize])?;
    expect("writes to the memory that exited", rung(0, true), vec![vec![9]])?;
    expect("writes to the port that exited", rung(1, true), vec![vec![8, 0]])?;
    Ok(tally)
}

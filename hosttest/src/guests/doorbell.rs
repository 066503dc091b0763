//! Doorbells: writes that do not exit.

use std::thread::{self, ThreadId};

use kvm_ioctls::Kvm;
use spin::Mutex;
use vm_device::{
    Access, AccessSizes, Accesses, Device, DeviceManager, Doorbell, GuestAddress, InstanceId, IoError, IoResource,
    IoType, Relocation,
};

use super::scenario::{DEVICE_MEMORY, Failure, LIMIT, Room, Scenario, expect, manager};
use super::shown::keep_map;
use super::verdict::run_to_verdict;
use crate::check;
use crate::devices::verdict::Verdict;
use crate::guest_side::{mmio, pass, port};
use crate::vmm::doorbell::{Doorbells, Rung};
use crate::vmm::machine::Machine;
use crate::vmm::memory::PAGE;
use crate::vmm::run::Tally;
use crate::vmm::vcpu::Ring;

/// The guests of this topic.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "doorbell/ioeventfd",
        about: "doorbells in memory and in a port, served on a thread of their own",
        run: ioeventfd,
    },
    Scenario {
        name: "doorbell/any_length",
        about: "doorbells of any length: where only dwords are accepted, and of one value",
        run: any_length,
    },
    Scenario {
        name: "doorbell/refused",
        about: "doorbells that nothing can ring, beside others that are rung",
        run: refused,
    },
    Scenario {
        name: "doorbell/relocated",
        about: "two devices that change places after their doorbells were rung",
        run: relocated,
    },
    Scenario {
        name: "doorbell/covered",
        about: "a doorbell in a bus's window, where a device on the bus lies over it",
        run: covered,
    },
];

const QUEUE: u64 = DEVICE_MEMORY;
const OTHER: u64 = DEVICE_MEMORY + PAGE;
const THIRD: u64 = DEVICE_MEMORY + 2 * PAGE;
const NOTIFY: u64 = 0x10;
const PORT: u16 = 0x500;
/// How often the guest rings each doorbell.
const RINGS: u32 = 5;

/// A device with doorbells. Reads tell how often the range was written; they do not exit by a doorbell.
struct Queue {
    name: &'static str,
    doorbells: &'static [Doorbell],
    writes: Mutex<Vec<Write>>,
}

/// One write that a queue has seen.
struct Write {
    range_index: usize,
    base: u64,
    offset: u64,
    data: Vec<u8>,
    thread: ThreadId,
}

impl Queue {
    const fn new(name: &'static str, doorbells: &'static [Doorbell]) -> Self {
        Self { name, doorbells, writes: Mutex::new(Vec::new()) }
    }

    /// The data of the writes to a range that came on this thread, or on others.
    fn written(&self, range_index: usize, on_this_thread: bool) -> Vec<Vec<u8>> {
        let this = thread::current().id();
        let writes = self.writes.lock();
        let chosen = writes.iter().filter(|w| w.range_index == range_index && (w.thread == this) == on_this_thread);
        chosen.map(|write| write.data.clone()).collect()
    }
}

impl Device<'_> for Queue {
    fn name(&self) -> &str {
        self.name
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let count = self.writes.lock().iter().filter(|write| write.range_index == access.range_index()).count();
        data.fill(0);
        data[0] = count as u8;
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.writes.lock().push(Write {
            range_index: access.range_index(),
            base: access.base().0,
            offset: access.offset(),
            data: data.to_vec(),
            thread: thread::current().id(),
        });
    }

    fn doorbells(&self) -> &[Doorbell] {
        self.doorbells
    }
}

const fn doorbell(range_index: usize, offset: u64, size: u8, value: Option<u64>) -> Doorbell {
    Doorbell { range_index, offset, size, value }
}

/// Whether the count at `address` gets to `expected`, for the guest.
fn counts_to(expected: u32, count: impl Fn() -> u32) -> bool {
    (0..100_000).any(|_| count() >= expected)
}

/// Runs the guest with the doorbells of all devices, which are served on a thread of their own meanwhile. Their
/// number, what was refused, and what the run counted.
fn run_with_doorbells<'d>(
    machine: &Machine,
    doorbells: &Doorbells,
    manager: &'d DeviceManager<'d>,
    verdict: &'d Verdict,
    guest: extern "C" fn(u64),
) -> Result<(usize, Vec<String>, Tally), Failure> {
    manager.register_device(verdict, None, &[Verdict::resource()], &[])?;
    let refusals = doorbells.take_refusals().iter().map(ToString::to_string).collect();
    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let mut dispatcher = manager.dispatcher(0)?;
    let mut bell_dispatcher = manager.dispatcher(0)?;
    let serve = |rung: Rung| {
        // A size that the device does not accept is dropped, as it is where no doorbell is in between.
        let _ = rung.write(manager, &mut bell_dispatcher);
    };
    let tally = run_served(doorbells, serve, || run_to_verdict(&mut vcpu, &mut dispatcher, verdict, LIMIT))?;
    keep_map(manager);
    Ok((doorbells.count(), refusals, tally))
}

/// Runs a guest, and calls `rung` on a thread of its own for each doorbell that is rung meanwhile.
pub(super) fn run_served<E: std::error::Error>(
    doorbells: &Doorbells,
    rung: impl FnMut(Rung) + Send,
    run: impl FnOnce() -> Result<Tally, E>,
) -> Result<Tally, Failure> {
    thread::scope(|scope| {
        let server = scope.spawn(|| doorbells.serve(rung));
        let tally = run();
        doorbells.stop();
        match server.join() {
            Ok(served) => served?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(tally?)
    })
}

/// A doorbell of any value in memory, and one of the value 7 in a port.
fn ioeventfd(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        for rung in 1..=RINGS {
            mmio::write(QUEUE + NOTIFY, rung);
            check!(counts_to(rung, || mmio::read(QUEUE)), true);
            port::write(PORT, 7u16);
            check!(counts_to(rung, || port::read::<u16>(PORT).into()), true);
        }
        // Another value, and another width, are ordinary writes.
        port::write(PORT, 8u16);
        check!(port::read::<u16>(PORT), RINGS as u16 + 1);
        mmio::write(QUEUE + NOTIFY, 9u8);
        check!(mmio::read::<u32>(QUEUE), RINGS + 1);
        pass()
    }
    static QUEUE_DOORBELLS: [Doorbell; 2] = [doorbell(0, NOTIFY, 4, None), doorbell(1, 0, 2, Some(7))];
    let (room, machine) = (Room::new(), Machine::new(kvm)?);
    let doorbells = Doorbells::new(machine.vm())?;
    let (verdict, queue) = (Verdict::new(), Queue::new("queue", &QUEUE_DOORBELLS));
    let manager = manager(&room).with_listener(&doorbells);
    manager.register_device(&queue, None, &[IoResource::mmio(QUEUE, 0x20), IoResource::pio(PORT, 2)], &[])?;
    let (count, refusals, tally) = run_with_doorbells(&machine, &doorbells, &manager, &verdict, guest)?;
    expect("doorbells", (count, refusals.len()), (2usize, 0usize))?;
    expect("rings of the memory doorbell", queue.written(0, false), vec![vec![0; 4]; RINGS as usize])?;
    expect("rings of the port doorbell", queue.written(1, false), vec![vec![7, 0]; RINGS as usize])?;
    expect("writes to the memory that exited", queue.written(0, true), vec![vec![9]])?;
    expect("writes to the port that exited", queue.written(1, true), vec![vec![8, 0]])?;
    Ok(tally)
}

/// The event has the length of the write, so that a range that does not accept every size takes it.
fn any_length(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        mmio::write(QUEUE + NOTIFY, 0x1234u32);
        check!(counts_to(1, || mmio::read(QUEUE)), true);
        port::write(PORT, 7u8);
        check!(counts_to(1, || port::read::<u8>(PORT).into()), true);
        port::write(PORT, 7u16);
        check!(counts_to(2, || port::read::<u8>(PORT).into()), true);
        port::write(PORT, 7u32);
        check!(counts_to(3, || port::read::<u8>(PORT).into()), true);
        port::write(PORT, 0x107u16);
        check!(port::read::<u8>(PORT), 4u8);
        // The device does not accept it, by whichever way it comes.
        mmio::write(QUEUE + NOTIFY, 1u16);
        pass()
    }
    static QUEUE_DOORBELLS: [Doorbell; 2] = [doorbell(0, NOTIFY, 0, None), doorbell(1, 0, 0, Some(7))];
    let (room, machine) = (Room::new(), Machine::new(kvm)?);
    let doorbells = Doorbells::new(machine.vm())?;
    let (verdict, queue) = (Verdict::new(), Queue::new("queue", &QUEUE_DOORBELLS));
    let manager = manager(&room).with_listener(&doorbells);
    let registers = IoResource::mmio(QUEUE, 0x20).sizes(AccessSizes::DWORD);
    manager.register_device(&queue, None, &[registers, IoResource::pio(PORT, 4)], &[])?;
    let (count, refusals, tally) = run_with_doorbells(&machine, &doorbells, &manager, &verdict, guest)?;
    expect("doorbells", (count, refusals.len()), (2usize, 0usize))?;
    expect("rings of the memory doorbell", queue.written(0, false), vec![vec![0; 4]])?;
    let sevens = vec![vec![7], vec![7, 0], vec![7, 0, 0, 0]];
    expect("rings of the port doorbell", queue.written(1, false), sevens)?;
    expect("writes to the memory that exited", queue.written(0, true), Vec::<Vec<u8>>::new())?;
    expect("writes to the port that exited", queue.written(1, true), vec![vec![7, 1]])?;
    Ok(tally)
}

/// A doorbell that cannot be is refused with its reason, its write exits, and the others ring.
fn refused(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        mmio::write(QUEUE + NOTIFY, 1u32);
        check!(counts_to(1, || mmio::read(QUEUE)), true);
        mmio::write(OTHER + NOTIFY, 1u32);
        check!(counts_to(1, || mmio::read(OTHER)), true);
        mmio::write(QUEUE + 1, 2u8);
        check!(mmio::read::<u32>(QUEUE), 2u32);
        pass()
    }
    static BAD_AND_GOOD: [Doorbell; 6] = [
        doorbell(0, 0, 3, None),
        doorbell(0, 0x20, 4, None),
        doorbell(0, 1, 1, Some(0x100)),
        doorbell(0, NOTIFY, 4, None),
        doorbell(0, NOTIFY, 4, Some(1)),
        doorbell(0, NOTIFY, 0, None),
    ];
    static GOOD: [Doorbell; 1] = [doorbell(0, NOTIFY, 4, None)];
    let (room, machine) = (Room::new(), Machine::new(kvm)?);
    let doorbells = Doorbells::new(machine.vm())?;
    let verdict = Verdict::new();
    let (queue, other) = (Queue::new("queue", &BAD_AND_GOOD), Queue::new("other", &GOOD));
    let manager = manager(&room).with_listener(&doorbells);
    manager.register_device(&queue, None, &[IoResource::mmio(QUEUE, 0x20)], &[])?;
    manager.register_device(&other, None, &[IoResource::mmio(OTHER, 0x20)], &[])?;
    let (count, refusals, tally) = run_with_doorbells(&machine, &doorbells, &manager, &verdict, guest)?;
    expect("doorbells", count, 2usize)?;
    let reasons = [
        ("at 0x0 in range 0", "no write there has 3 bytes"),
        ("at 0x20 in range 0", "it does not lie within"),
        ("at 0x1 in range 0", "the value 0x100 has more bytes"),
        ("at 0x10 in range 0", "rings another doorbell already"),
        ("at 0x10 in range 0", "rings another doorbell already"),
    ];
    expect("refusals", refusals.len(), reasons.len())?;
    for (refusal, (place, reason)) in refusals.iter().zip(reasons) {
        let named = ["the doorbell of queue (#0)", place, reason].iter().all(|part| refusal.contains(part));
        expect(refusal, named, true)?;
    }
    expect("rings of the queue", queue.written(0, false), vec![vec![0; 4]])?;
    expect("rings of the other", other.written(0, false), vec![vec![0; 4]])?;
    expect("writes to the queue that exited", queue.written(0, true), vec![vec![2]])?;
    Ok(tally)
}

/// The port by which the guest has the topology changed: by 1, the first two devices change places; by 2, the first is not
/// decoded, and by 3 it is again; by 4, the third is removed.
const CHANGE: u16 = 0x510;

/// Answers accesses, and changes the topology when the guest asks for it. The doorbells follow.
struct Changing<'d, A> {
    accesses: A,
    manager: &'d DeviceManager<'d>,
    devices: [InstanceId; 3],
    failure: Option<Failure>,
}

impl<A> Changing<'_, A> {
    fn change(&self, how: Option<u8>) -> Result<(), Failure> {
        let [first, second, third] = self.devices;
        let range = Relocation::new(first, 0);
        match how {
            Some(1) => {
                let second = Relocation::new(second, 0).to(GuestAddress(QUEUE));
                self.manager.relocate(&mut [range.to(GuestAddress(OTHER)), second])?;
            }
            Some(2) => self.manager.relocate(&mut [range.reserved()])?,
            Some(3) => self.manager.relocate(&mut [range.decoded()])?,
            _ => self.manager.unregister_device(third)?,
        }
        Ok(())
    }
}

impl<A: Accesses> Accesses for Changing<'_, A> {
    fn read(&mut self, address: GuestAddress, data: &mut [u8], io_type: IoType) -> Result<(), IoError> {
        self.accesses.read(address, data, io_type)
    }

    fn write(&mut self, address: GuestAddress, data: &[u8], io_type: IoType) -> Result<(), IoError> {
        if (address, io_type) != (CHANGE.into(), IoType::Pio) {
            return self.accesses.write(address, data, io_type);
        }
        if let Err(failure) = self.change(data.first().copied()) {
            self.failure = Some(failure);
        }
        Ok(())
    }

    fn read_string(&mut self, port: u16, element: usize, data: &mut [u8]) -> Result<(), IoError> {
        self.accesses.read_string(port, element, data)
    }

    fn write_string(&mut self, port: u16, element: usize, data: &[u8]) -> Result<(), IoError> {
        self.accesses.write_string(port, element, data)
    }
}

/// What was rung and is not served yet reaches the device that it was meant for, wherever that is by now. The doorbells are
/// served when the guest has ended.
fn relocated(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        mmio::write(QUEUE + NOTIFY, 1u32);
        mmio::write(THIRD + NOTIFY, 1u32);
        port::write(CHANGE, 1u8);
        // The first is at `OTHER` now, and the second at `QUEUE`.
        mmio::write(OTHER + NOTIFY, 2u32);
        mmio::write(OTHER, 3u32);
        port::write(CHANGE, 2u8);
        mmio::write(OTHER + NOTIFY, 4u32);
        port::write(CHANGE, 3u8);
        mmio::write(OTHER + NOTIFY, 5u32);
        port::write(CHANGE, 4u8);
        mmio::write(THIRD + NOTIFY, 6u32);
        pass()
    }
    static DOORBELLS: [Doorbell; 1] = [doorbell(0, NOTIFY, 4, None)];
    let (room, machine) = (Room::new(), Machine::new(kvm)?);
    let doorbells = Doorbells::new(machine.vm())?;
    let verdict = Verdict::new();
    let [first, second, third] = ["first", "second", "third"].map(|name| Queue::new(name, &DOORBELLS));
    let manager = manager(&room).with_listener(&doorbells);
    let register = |device, place| manager.register_device(device, None, &[IoResource::mmio(place, 0x20)], &[]);
    let devices = [register(&first, QUEUE)?, register(&second, OTHER)?, register(&third, THIRD)?];
    manager.register_device(&verdict, None, &[Verdict::resource()], &[])?;

    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let accesses = manager.dispatcher(0)?;
    let mut changing = Changing { accesses, manager: &manager, devices, failure: None };
    let tally = run_to_verdict(&mut vcpu, &mut changing, &verdict, LIMIT)?;
    keep_map(&manager);
    if let Some(failure) = changing.failure {
        return Err(failure);
    }
    expect("doorbells", doorbells.count(), 2usize)?;
    expect("writes to no device", tally.unclaimed, 2u64)?;
    expect("writes to the first that exited", first.written(0, true), vec![vec![3, 0, 0, 0]])?;

    let mut events = Vec::new();
    doorbells.stop();
    doorbells.serve(|rung| {
        events.push((rung.device, rung.range_index, rung.offset));
        let _ = rung.write(&manager, &mut changing.accesses);
    })?;
    // That of a device that was removed reaches nothing.
    events.sort_unstable_by_key(|(device, ..)| *device != devices[0]);
    expect("events", events, vec![(devices[0], 0usize, NOTIFY), (devices[2], 0, NOTIFY)])?;
    let places: Vec<_> = first.writes.lock().iter().map(|write| (write.base, write.offset)).collect();
    expect("writes to the first", places, vec![(OTHER, 0), (OTHER, NOTIFY)])?;
    expect("writes to the second", second.writes.lock().len(), 0usize)?;
    expect("writes to the third", third.writes.lock().len(), 0usize)?;
    Ok(tally)
}

/// A doorbell in a window is not given to KVM: the innermost range is written to, whatever lies there.
fn covered(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn guest(_: u64) {
        mmio::write(QUEUE + NOTIFY, 1u32);
        mmio::write(OTHER + NOTIFY, 2u32);
        pass()
    }
    static DOORBELLS: [Doorbell; 2] = [doorbell(0, NOTIFY, 4, None), doorbell(0, PAGE + NOTIFY, 4, None)];
    let (room, machine) = (Room::new(), Machine::new(kvm)?);
    let doorbells = Doorbells::new(machine.vm())?;
    let verdict = Verdict::new();
    let (bus, child) = (Queue::new("bus", &DOORBELLS), Queue::new("child", &[]));
    let manager = manager(&room).with_listener(&doorbells);
    let window = IoResource::mmio(QUEUE, 2 * PAGE).window();
    let id = manager.register_device(&bus, None, &[window], &[])?;
    manager.register_device(&child, Some(id), &[IoResource::mmio(QUEUE + NOTIFY, 4)], &[])?;
    let (count, refusals, tally) = run_with_doorbells(&machine, &doorbells, &manager, &verdict, guest)?;
    expect("doorbells", count, 0usize)?;
    let reasons = refusals.iter().filter(|refusal| refusal.contains("the range is a window")).count();
    expect("refusals", reasons, 2usize)?;
    expect("writes to the child", child.written(0, true), vec![vec![1, 0, 0, 0]])?;
    expect("writes to the bus", bus.written(0, true), vec![vec![2, 0, 0, 0]])?;
    Ok(tally)
}

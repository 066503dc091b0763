//! Torture by a guest with two processors: every access is an exit.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use vm_device::{Accesses, GuestAddress, HeavyBarrier, IoType};

use super::access::{Field, Reader, Request, Room, Tally};
use super::churn::Churn;
use super::counts::Violation;
use super::hang::watch;
use super::options::Options;
use super::oracle::Place;
use super::report::Report;
use crate::guest_side::{mmio, port};
use crate::random::Random;
use crate::vmm::exit::Exit;
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::memory::Memory;
use crate::vmm::vcpu::{Ring, Vcpu};
use crate::vmm::watchdog::Watchdog;

/// How many processors the guest has.
const PROCESSORS: u64 = 2;
/// In the guest's RAM: not 0 when it is to stop.
const STOP: u64 = DATA;
/// How many accesses each processor has made, as it counts itself.
const COUNTS: u64 = DATA + 0x40;
/// How many places there are, and for each its base, its length, and whether it is in ports.
const PLACES: u64 = DATA + 0x100;
const PLACE: u64 = 24;
/// The port that a processor writes when it has stopped. No device is there.
const STOPPED: u16 = 0x600;

/// How long a processor may run without an access; it makes one in each turn of its loop.
const WITHOUT_EXIT: Duration = Duration::from_secs(30);
/// How many accesses a processor may make after it was told to stop: more than one turn of its loop has.
const LAST_ACCESSES: u32 = 16;

/// Runs a guest against a writer.
///
/// # Errors
/// What the host or KVM refuses, or a guest that crashes or hangs.
pub fn run(kvm: &Kvm, options: &Options, barrier: Option<HeavyBarrier>) -> io::Result<Report> {
    let room = Room::new();
    let churn = Churn::new(&room, barrier);
    let churn = &churn;
    churn.start();
    let (world, field) = (&churn.world, &churn.world.field);
    let machine = Machine::new(kvm)?;
    lay_out(machine.ram(), &field.places, options.seed);
    let (stop, told) = (AtomicBool::new(false), AtomicBool::new(false));
    let start = Instant::now();
    let fence = if options.asymmetric { "asymmetric" } else { "portable" };
    let title = format!("torture on KVM: {PROCESSORS} processors, {fence} fence, seed {}", options.seed);
    let mut report = Report { title, ..Report::default() };
    let finished = thread::scope(|scope| {
        let (stop, told, machine) = (&stop, &told, &machine);
        let running = watch(scope, || world.progress());
        let processors: Vec<_> = (0..PROCESSORS)
            .map(|id| scope.spawn(move || Processor::start(machine, field, id, options.seed, told)?.until_stopped()))
            .collect();
        let writer = scope.spawn(move || {
            let mut random = Random::new(options.seed, u64::MAX);
            while !stop.load(Ordering::Relaxed) {
                churn.change(&mut random);
                // A guest's exit takes some 100 times as long as a change: leave it time to meet each state.
                thread::sleep(Duration::from_micros(20));
            }
        });
        options.wait(&field.violations);
        machine.ram().write_u64(STOP, 1);
        told.store(true, Ordering::Release);
        let finished: Vec<_> =
            processors.into_iter().map(|processor| processor.join().expect("a processor does not panic")).collect();
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("a writer does not panic");
        drop(running);
        finished
    });
    report.elapsed = start.elapsed();
    for (id, finished) in finished.into_iter().enumerate() {
        let (tally, reader) = finished?;
        let counted = machine.ram().read_u64(COUNTS + 8 * id as u64);
        report.notes.push(format!("processor {id}   {} exits, of {counted} accesses of the guest", reader.accesses));
        if counted != reader.accesses {
            field.violations.note(Violation::Unaccounted);
        }
        report.add(tally, &reader);
    }
    world.settle(&mut report);
    Ok(report)
}

/// Tells the guest where the places are.
fn lay_out(ram: &Memory, places: &[Place], seed: u64) {
    ram.write_u64(STOP, 0);
    ram.write_u64(PLACES, places.len() as u64);
    ram.write_u64(PLACES + 8, seed);
    for (number, place) in places.iter().enumerate() {
        let at = PLACES + 16 + PLACE * number as u64;
        ram.write_u64(at, place.base);
        ram.write_u64(at + 8, place.length);
        ram.write_u64(at + 16, u64::from(place.io_type == IoType::Pio));
    }
}

/// What each processor of the guest runs: accesses of every size, aligned or not, until it is told to stop.
extern "C" fn guest(id: u64) {
    let places: u64 = mmio::read(PLACES);
    let mut random = Random::new(mmio::read(PLACES + 8), id);
    let mut count = 0u64;
    let mut place = PLACES + 16;
    while mmio::read::<u64>(STOP) == 0 {
        let draw = random.next();
        if draw & 3 == 0 {
            place = PLACES + 16 + PLACE * ((draw >> 32) % places.max(1));
        }
        let (base, length, ports) =
            (mmio::read::<u64>(place), mmio::read::<u64>(place + 8), mmio::read::<u64>(place + 16));
        let in_ports = ports != 0;
        let size = 1 << ((draw >> 3 & 3) % if in_ports { 3 } else { 4 });
        let address = base + (draw >> 8 & 0xff_ffff) % (length - size + 1).max(1);
        match (in_ports, size, draw & 4 != 0) {
            (false, 1, false) => _ = mmio::read::<u8>(address),
            (false, 2, false) => _ = mmio::read::<u16>(address),
            (false, 4, false) => _ = mmio::read::<u32>(address),
            (false, _, false) => _ = mmio::read::<u64>(address),
            (false, 1, true) => mmio::write(address, draw as u8),
            (false, 2, true) => mmio::write(address, draw as u16),
            (false, 4, true) => mmio::write(address, draw as u32),
            (false, _, true) => mmio::write(address, draw),
            (true, 1, false) => _ = port::read::<u8>(address as u16),
            (true, 2, false) => _ = port::read::<u16>(address as u16),
            (true, _, false) => _ = port::read::<u32>(address as u16),
            (true, 1, true) => port::write(address as u16, draw as u8),
            (true, 2, true) => port::write(address as u16, draw as u16),
            (true, _, true) => port::write(address as u16, draw as u32),
        }
        count += 1;
    }
    mmio::write(COUNTS + 8 * id, count);
    port::write(STOPPED, 1u8);
    loop {
        core::hint::spin_loop();
    }
}

/// A processor of the guest, on a thread of the host.
struct Processor<'d> {
    vcpu: Vcpu,
    field: &'d Field<'d>,
    place: &'d Place,
    reader: Reader,
    watchdog: Watchdog,
    /// Whether the guest was told to stop, and how many accesses it has made since.
    told: &'d AtomicBool,
    since: u32,
}

impl<'d> Processor<'d> {
    fn start(machine: &Machine, field: &'d Field<'d>, id: u64, seed: u64, told: &'d AtomicBool) -> io::Result<Self> {
        let vcpu = machine.start(id, Ring::User, guest, id)?;
        let (reader, watchdog) = (Reader::new(seed, id), Watchdog::start(WITHOUT_EXIT));
        Ok(Self { vcpu, field, place: &field.places[0], reader, watchdog, told, since: 0 })
    }

    /// Answers the guest's accesses until it says that it has stopped.
    fn until_stopped(mut self) -> io::Result<(Tally, Reader)> {
        let mut dispatcher = self.field.manager.dispatcher(0).map_err(io::Error::other)?;
        loop {
            match self.answer(&mut dispatcher) {
                Ok(true) => {}
                Ok(false) => return Ok((self.reader.tally(), self.reader)),
                Err(reason) => return Err(io::Error::other(format!("{reason}, at {}", self.vcpu.position()))),
            }
        }
    }

    /// Runs the guest to its next exit. Whether it goes on.
    fn answer(&mut self, accesses: &mut impl Accesses) -> Result<bool, String> {
        let mut written = [0; 8];
        let mut copy_of = |data: &[u8]| {
            let length = data.len();
            written.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
            length
        };
        let mut exit = self.vcpu.run();
        let (io_type, address, length, read) = match &mut exit {
            Exit::PortWrite { port: STOPPED, .. } => return Ok(false),
            Exit::PortRead { port, data, .. } => (IoType::Pio, GuestAddress::from(*port), data.len(), Some(data)),
            Exit::MmioRead { address, data } => (IoType::Mmio, *address, data.len(), Some(data)),
            Exit::PortWrite { port, data, .. } => (IoType::Pio, GuestAddress::from(*port), copy_of(data), None),
            Exit::MmioWrite { address, data } => (IoType::Mmio, *address, copy_of(data), None),
            Exit::Interrupted if self.watchdog.expired() => return Err("the guest hangs: it makes no access".into()),
            Exit::Interrupted => return Ok(true),
            Exit::InterruptEnded { .. } => return Ok(true),
            Exit::Halted => return Err("the guest halted".into()),
            Exit::Crashed(crash) => return Err(format!("the guest crashed: {crash}")),
        };
        if !self.place.contains(address.0, io_type) {
            let found = self.field.places.iter().find(|place| place.contains(address.0, io_type));
            self.place =
                found.ok_or_else(|| format!("the guest accessed {io_type} {address}, where nothing ever is"))?;
        }
        let write = read.is_none();
        let data = read.map_or(&mut written[..length.min(8)], |data| &mut **data);
        let request = Request { place: self.place, address, size: data.len(), write };
        self.reader.access(self.field, accesses, request, data);
        self.watchdog.progress();
        self.since += u32::from(self.told.load(Ordering::Acquire));
        if self.since > LAST_ACCESSES { Err("the guest goes on though it was told to stop".into()) } else { Ok(true) }
    }
}

//! A VMM that owns its manager and its devices, and processors on threads that outlive it.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use spin::Mutex;
use vm_device::owned::{OwnedManager, SharedDevice, WeakManager};
use vm_device::{Access, Device, InstanceId, IoResource};

use super::scenario::{DEVICE_MEMORY, Failure, LIMIT, Scenario, expect, name_owned_devices, owned_manager};
use super::shown::keep;
use crate::check;
use crate::devices::scratch::{Direction, Scratch};
use crate::devices::verdict::Verdict;
use crate::guest_side::{mmio, port};
use crate::vmm::machine::{DATA, Machine};
use crate::vmm::memory::PAGE;
use crate::vmm::run::{RunError, Tally, run};
use crate::vmm::vcpu::Ring;

/// The guests of this topic.
pub const ALL: &[Scenario] = &[Scenario {
    name: "owned/outlived",
    about: "a device ejected while another processor reads it comes back in its Arc; then the manager ends",
    run: outlived,
}];

const CARD: u64 = DEVICE_MEMORY;
const EJECT: u16 = 0xae08;
/// Where in RAM processor 1 counts its reads of the card.
const READS: u64 = DATA;
/// Where in RAM each of both processors says how far it is.
const STATES: u64 = DATA + 8;
/// The card is gone.
const WITHOUT_CARD: u64 = 1;
/// The manager has ended.
const WITHOUT_MANAGER: u64 = 2;

/// One byte: writing 1 removes the card, which comes back to the VMM here. It reads as 0.
struct Eject {
    manager: WeakManager,
    card: InstanceId,
    removed: Mutex<Option<SharedDevice>>,
}

impl Device<'_> for Eject {
    fn name(&self) -> &str {
        "eject"
    }

    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data[0] = 0;
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        if let (Some(manager), [1, ..]) = (self.manager.upgrade(), data) {
            let removed = manager.nested(access).unregister_device(self.card);
            *self.removed.lock() = removed.ok();
        }
    }
}

/// The VMM. Its processors have what they need by themselves.
struct Vmm {
    manager: OwnedManager,
    card: Arc<Scratch<16>>,
    eject: Arc<Eject>,
    verdict: Arc<Verdict>,
    machine: Arc<Machine>,
}

type Processor = JoinHandle<Result<Tally, RunError>>;

impl Vmm {
    fn new(kvm: &Kvm) -> Result<Self, Failure> {
        let manager = owned_manager()?;
        let (card, verdict) = (Arc::new(Scratch::new("card")), Arc::new(Verdict::new()));
        let id = manager.register_device(card.clone(), None, &[IoResource::mmio(CARD, PAGE)], &[])?;
        let eject = Arc::new(Eject { manager: manager.downgrade(), card: id, removed: Mutex::new(None) });
        manager.register_device(eject.clone(), None, &[IoResource::pio(EJECT, 1)], &[])?;
        manager.register_device(verdict.clone(), None, &[Verdict::resource()], &[])?;
        name_owned_devices(&manager);
        Ok(Self { manager, card, eject, verdict, machine: Arc::new(Machine::new(kvm)?) })
    }

    /// Starts a processor on a thread of its own. It runs until the guest has given a verdict, which is a failure here, or has
    /// seen the manager's end.
    fn start(&self, number: u16, guest: extern "C" fn(u64)) -> Result<Processor, Failure> {
        let mut vcpu = self.machine.start(number.into(), Ring::User, guest, 0)?;
        let mut devices = self.manager.dispatcher(number)?;
        let (machine, verdict) = (self.machine.clone(), self.verdict.clone());
        let has_ended = move || verdict.given().is_some() || state(&machine, number) == WITHOUT_MANAGER;
        Ok(thread::spawn(move || run(&mut vcpu, &mut devices, LIMIT, has_ended)))
    }

    /// Waits until both processors say that the card is gone.
    fn wait_for_removal(&self, processors: &[Processor]) -> Result<(), Failure> {
        let start = Instant::now();
        while (0..2).any(|number| state(&self.machine, number) != WITHOUT_CARD) {
            if start.elapsed() > LIMIT || processors.iter().any(JoinHandle::is_finished) {
                return Err(Failure(format!("the card is not removed; the verdict: {:?}", self.verdict.given())));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// How far a processor is.
fn state(machine: &Machine, number: u16) -> u64 {
    machine.ram().read_u64(STATES + 8 * u64::from(number))
}

/// The guest says that the card is gone, and, as soon as the manager is gone too, that.
#[inline(always)]
fn outlive(number: u64) -> ! {
    mmio::write(STATES + 8 * number, WITHOUT_CARD);
    while port::read::<u8>(EJECT) == 0 {}
    mmio::write(STATES + 8 * number, WITHOUT_MANAGER);
    loop {
        check!(mmio::read::<u8>(CARD), u8::MAX);
    }
}

fn outlived(kvm: &Kvm) -> Result<Tally, Failure> {
    extern "C" fn ejecting(_: u64) {
        mmio::write(CARD, 0x42u8);
        // The other processor is at it.
        while mmio::read::<u64>(READS) < 20 {
            core::hint::spin_loop();
        }
        port::write(EJECT, 1u8);
        check!(mmio::read::<u8>(CARD), u8::MAX);
        outlive(0)
    }
    extern "C" fn reading(_: u64) {
        let mut reads = 0u64;
        loop {
            match mmio::read::<u8>(CARD) {
                u8::MAX => break,
                0 => {}
                read => check!(read, 0x42u8),
            }
            reads += 1;
            mmio::write(READS, reads);
        }
        outlive(1)
    }
    let vmm = Vmm::new(kvm)?;
    let processors = [vmm.start(0, ejecting)?, vmm.start(1, reading)?];
    vmm.wait_for_removal(&processors)?;
    keep(vmm.manager.map());
    let Vmm { manager, card, eject, verdict, machine } = vmm;

    let removed = eject.removed.lock().take();
    expect("the name of what is removed", removed.as_ref().map(|device| device.name()), Some("card"))?;
    expect("who has the card", Arc::strong_count(&card), 2usize)?;
    drop(removed);
    expect("who has the card then", Arc::strong_count(&card), 1usize)?;
    let reads = card.take_calls().iter().filter(|call| call.direction == Direction::Read).count();
    expect("the reads of the card", reads as u64, machine.ram().read_u64(READS))?;

    // Both processors run on.
    drop(manager);
    let [first, second] = processors.map(|processor| {
        let ended = processor.join().map_err(|_| Failure("a processor's thread panicked".into()));
        ended.and_then(|ended| Ok(ended?))
    });
    let (first, second) = (first?, second?);
    expect("the verdict", verdict.given(), None)?;
    expect("whether the manager is there", eject.manager.upgrade().is_some(), false)?;
    expect("who has the eject register", Arc::strong_count(&eject), 1usize)?;
    expect("calls of the card without it", card.take_calls().len(), 0usize)?;
    expect("the processors' unclaimed accesses", [first, second].map(|tally| tally.unclaimed), [3u64, 3])?;
    Ok(first)
}

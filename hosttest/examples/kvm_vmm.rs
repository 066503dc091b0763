//! A VMM over KVM, made of what `hosttest` has: a machine, a virtual processor that runs a function of this program in ring 3,
//! and a manager that owns the devices and answers the exits. The VMM is a struct that owns all of it but the console, which is the
//! program's, and its processor's thread has what it needs by itself. Without a usable `/dev/kvm` it says what cures that, and ends well.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hosttest::boot::capture::Capture;
use hosttest::devices::scratch::{Call, Scratch};
use hosttest::guest_side::serial::{COM1, TRANSMIT};
use hosttest::guest_side::{mmio, port};
use hosttest::vmm::bridge::answer;
use hosttest::vmm::clock::HostClock;
use hosttest::vmm::exit::Exit;
use hosttest::vmm::host::kvm;
use hosttest::vmm::machine::Machine;
use hosttest::vmm::vcpu::{Ring, Vcpu};
use hosttest::vmm::watchdog::Watchdog;
use kvm_ioctls::Kvm;
use vm_device::devices::uart::Uart16550;
use vm_device::owned::{Capacities, OwnedDispatcher, OwnedManager};
use vm_device::{InstanceId, IoError, IoRange, IoResource, SystemAllocator};

const MEMORY: u64 = 0xd000_0000;
const DONE: u16 = 0x500;

/// The other end of the serial port.
static CONSOLE: Capture = Capture::new();

/// The guest.
extern "C" fn guest(_: u64) {
    for byte in *b"hello" {
        port::write(COM1 + TRANSMIT, byte);
    }
    mmio::write(MEMORY + 8, 0x1234_5678u32);
    // What it read comes back as an exit, so that the VMM sees it; no device is there.
    let read = mmio::read::<u16>(MEMORY + 9);
    port::write(DONE, read);
    loop {
        core::hint::spin_loop();
    }
}

/// The VMM.
struct Vmm {
    machine: Machine,
    manager: OwnedManager,
    scratch: Arc<Scratch<64>>,
    scratch_id: InstanceId,
}

/// What the run of a virtual processor came to.
struct Ended {
    told: Vec<u8>,
    exits: u32,
    unclaimed: u32,
}

impl Vmm {
    fn new(kvm: &Kvm) -> Result<Self, Box<dyn Error>> {
        let capacities = Capacities { devices: 4, ranges: 8, vcpus: 1 };
        let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS);
        let manager = OwnedManager::new(capacities, allocator)?;
        let serial = Arc::new(Uart16550::new("serial", &CONSOLE, HostClock::new()));
        let registers = serial.ports(COM1);
        manager.register_device(serial, None, &[registers], &[])?;
        let scratch = Arc::new(Scratch::new("scratch"));
        let scratch_id = manager.register_device(scratch.clone(), None, &[IoResource::mmio(MEMORY, 64)], &[])?;
        Ok(Self { machine: Machine::new(kvm)?, manager, scratch, scratch_id })
    }

    /// Starts the processor on a thread of its own, which borrows nothing of the VMM.
    fn start(&self) -> Result<thread::JoinHandle<Result<Ended, String>>, Box<dyn Error>> {
        let vcpu = self.machine.start(0, Ring::User, guest, 0)?;
        let devices = self.manager.dispatcher(0)?;
        Ok(thread::spawn(move || run(vcpu, devices)))
    }
}

/// Runs the processor until the guest is done.
fn run(mut vcpu: Vcpu, mut devices: OwnedDispatcher) -> Result<Ended, String> {
    let watchdog = Watchdog::start(Duration::from_secs(60));
    let (mut exits, mut unclaimed) = (0, 0);
    loop {
        let mut exit = vcpu.run();
        if let Exit::PortWrite { port: DONE, data, .. } = &exit {
            return Ok(Ended { told: data.to_vec(), exits, unclaimed });
        }
        match answer(&mut exit, &mut devices) {
            Some(result) => {
                exits += 1;
                unclaimed += u32::from(result == Err(IoError::Unclaimed));
            }
            None if matches!(exit, Exit::Interrupted) && !watchdog.expired() => {}
            None => return Err(format!("{exit:?}")),
        }
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    match kvm() {
        Ok(kvm) => show(&kvm),
        Err(unavailable) => {
            println!("no guest runs: {unavailable}");
            Ok(())
        }
    }
}

fn show(kvm: &Kvm) -> Result<(), Box<dyn Error>> {
    let vmm = Vmm::new(kvm)?;
    let Ended { told, exits, unclaimed } = vmm.start()?.join().map_err(|_| "the processor's thread panicked")??;
    println!("serial port: {}", CONSOLE.output());
    println!("the guest wrote 0x12345678 and read {told:x?} of it, in {exits} exits");
    assert_eq!(CONSOLE.output(), "hello");
    assert_eq!(told, [0x56, 0x34]);
    assert_eq!(vmm.scratch.take_calls(), [Call::write(8, 4), Call::read(9, 2)]);
    assert_eq!((exits, unclaimed), (7, 0));

    // The device comes back when no processor is in it, and then it is the VMM's alone.
    drop(vmm.manager.unregister_device(vmm.scratch_id)?);
    assert_eq!(Arc::strong_count(&vmm.scratch), 1);
    Ok(())
}

//! A VMM over KVM, made of what `hosttest` has: a machine, a virtual processor that runs a function of this program in ring 3,
//! and a manager that answers the exits. Without a usable `/dev/kvm` it says what cures that, and ends well.

use std::error::Error;

use hosttest::devices::scratch::{Call, Scratch};
use hosttest::devices::serial::{COM1, Serial, TRANSMIT};
use hosttest::guest_side::{mmio, port};
use hosttest::vmm::bridge::answer;
use hosttest::vmm::exit::Exit;
use hosttest::vmm::host::kvm;
use hosttest::vmm::machine::Machine;
use hosttest::vmm::vcpu::Ring;
use hosttest::vmm::watchdog::Watchdog;
use kvm_ioctls::Kvm;
use vm_device::{DeviceManager, IoError, IoRange, IoResource, Storage, SystemAllocator};

const MEMORY: u64 = 0xd000_0000;
const DONE: u16 = 0x500;

static SERIAL: Serial = Serial::new();
static SCRATCH: Scratch<64> = Scratch::new("scratch");
static STORAGE: Storage<'static, 4, 8, 1> = Storage::new();
static MANAGER: DeviceManager<'static> =
    DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));

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

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    match kvm() {
        Ok(kvm) => run(&kvm),
        Err(unavailable) => {
            println!("no guest runs: {unavailable}");
            Ok(())
        }
    }
}

fn run(kvm: &Kvm) -> Result<(), Box<dyn Error>> {
    MANAGER.register_device(&SERIAL, None, &[Serial::resource()], &[])?;
    MANAGER.register_device(&SCRATCH, None, &[IoResource::mmio(MEMORY, 64)], &[])?;

    let machine = Machine::new(kvm)?;
    let mut vcpu = machine.start(0, Ring::User, guest, 0)?;
    let mut devices = MANAGER.dispatcher(0)?;
    let watchdog = Watchdog::start(std::time::Duration::from_secs(60));
    let (mut exits, mut unclaimed) = (0, 0);
    let told = loop {
        let mut exit = vcpu.run();
        if let Exit::PortWrite { port: DONE, data, .. } = &exit {
            break data.to_vec();
        }
        match answer(&mut exit, &mut devices) {
            Some(result) => {
                exits += 1;
                unclaimed += u32::from(result == Err(IoError::Unclaimed));
            }
            None if matches!(exit, Exit::Interrupted) && !watchdog.expired() => {}
            None => return Err(format!("{exit:?}").into()),
        }
    };
    println!("serial port: {}", SERIAL.output());
    println!("the guest wrote 0x12345678 and read {told:x?} of it, in {exits} exits");
    assert_eq!(SERIAL.output(), "hello");
    assert_eq!(told, [0x56, 0x34]);
    assert_eq!(SCRATCH.take_calls(), [Call::write(8, 4), Call::read(9, 2)]);
    assert_eq!((exits, unclaimed), (7, 0));
    Ok(())
}

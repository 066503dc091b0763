//! Real exits under KVM: how many a second there are, and how much of one the dispatch is.

use std::io::Write;
use std::sync::Barrier;
use std::time::Instant;
use std::{io, iter};

use kvm_ioctls::Kvm;
use vm_device::{
    Accesses, DeviceManager, GuestAddress, IoError, IoRange, IoResource, IoType, Storage, SystemAllocator,
};

use super::error::Error;
use super::measure::{Figure, interleaved, pin};
use super::this_crate::Named;
use crate::guest_side::{mmio, port};
use crate::vmm::bridge::answer;
use crate::vmm::machine::Machine;
use crate::vmm::vcpu::{Ring, Vcpu};

const PORT: u16 = 0x500;
const MMIO: u64 = 0xe000_0000;
const EXITS: usize = 2_000;
const ROUNDS: usize = 9;

extern "C" fn reads_a_port(_: u64) {
    loop {
        port::read::<u32>(PORT);
    }
}

extern "C" fn reads_memory(_: u64) {
    loop {
        mmio::read::<u32>(MMIO);
    }
}

/// Answers as open bus without looking at anything: what an exit costs without a dispatch.
struct OpenBusOnly;

impl Accesses for OpenBusOnly {
    fn read(&mut self, _: GuestAddress, data: &mut [u8], _: IoType) -> Result<(), IoError> {
        data.fill(0xff);
        Ok(())
    }
    fn write(&mut self, _: GuestAddress, _: &[u8], _: IoType) -> Result<(), IoError> {
        Ok(())
    }
    fn read_string(&mut self, _: u16, _: usize, data: &mut [u8]) -> Result<(), IoError> {
        data.fill(0xff);
        Ok(())
    }
    fn write_string(&mut self, _: u16, _: usize, _: &[u8]) -> Result<(), IoError> {
        Ok(())
    }
}

fn serve(vcpu: &mut Vcpu, accesses: &mut impl Accesses) {
    for _ in 0..EXITS {
        let answered = answer(&mut vcpu.run(), accesses);
        assert_eq!(answered, Some(Ok(())), "the guest only reads what is there");
    }
}

/// Prints exits per second with one virtual processor and with two, with a dispatch for each exit and without.
pub(super) fn run(kvm: &Kvm, processors: &[usize]) -> Result<(), Error> {
    let failed = |error: &dyn std::error::Error| Error::Guest(error.to_string());
    let device = Named::<0>::new("register".into());
    let storage = Storage::<4, 4, 2>::new();
    let manager =
        DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
    let requests = [IoResource::pio(PORT, 4), IoResource::mmio(MMIO, 4)];
    manager.register_device(&device, None, &requests, &[]).map_err(|error| failed(&error))?;
    writeln!(
        io::stdout(),
        "{:<10}{:>8}{:>16}{:>16}{:>16}{:>12}",
        "exit",
        "vCPUs",
        "exits/s",
        "ns, dispatched",
        "ns, not",
        "dispatch"
    )?;
    for (name, guest) in [("port", reads_a_port as extern "C" fn(u64)), ("mmio", reads_memory)] {
        for count in 1..=processors.len().min(2) {
            let machine = Machine::new(kvm).map_err(|error| failed(&error))?;
            let start = |id| machine.start(id, Ring::User, guest, 0).map_err(|error| failed(&error));
            let mut vcpus = (0..count as u64).map(start).collect::<Result<Vec<_>, _>>()?;
            let figures = interleaved(ROUNDS, 2, |which, _| {
                let ready = Barrier::new(count);
                let manager = &manager;
                std::thread::scope(|scope| {
                    let serving: Vec<_> = iter::zip(&mut vcpus, processors)
                        .map(|(vcpu, processor)| {
                            let ready = &ready;
                            scope.spawn(move || {
                                pin(*processor);
                                let mut dispatcher = manager.dispatcher(0).expect("there is one for each vCPU");
                                ready.wait();
                                let start = Instant::now();
                                match which {
                                    0 => serve(vcpu, &mut dispatcher),
                                    _ => serve(vcpu, &mut OpenBusOnly),
                                }
                                start.elapsed()
                            })
                        })
                        .collect();
                    let longest = serving.into_iter().filter_map(|thread| thread.join().ok()).max();
                    longest.map_or(f64::NAN, |longest| longest.as_secs_f64() * 1e9 / EXITS as f64)
                })
            });
            let [Figure { median: dispatched, .. }, Figure { median: not, .. }] = figures[..] else { continue };
            let part = 100.0 * (dispatched - not) / dispatched;
            let rate = 1e9 * count as f64 / dispatched;
            writeln!(io::stdout(), "{name:<10}{count:>8}{rate:>16.0}{dispatched:>16.1}{not:>16.1}{part:>11.2}%")?;
        }
    }
    Ok(())
}

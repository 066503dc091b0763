//! loom models of the concurrency contract. They run the crate itself, with loom's atomics under it: `.ci/loom`.
//!
//! loom explores every order of the threads' steps, up to a number of preemptions, and every value that a load may give
//! under the C++ memory model. A device here notes each call in a cell of loom's; what a model does to the device once
//! it is gone is a write of that cell. Unless the protocol puts every call before it, loom reports a race: the models
//! see a missing ordering, not only an unlucky timing.
//!
//! Each model says which mutation of the protocol it finds; see `protocol.rs`.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicUsize, Ordering};
use std::boxed::Box;
use std::sync::Arc;
use std::time::Instant;
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::slots::{Barred, Body, Found, HeavyBarrier, Place, Slots};
use crate::{
    Access, AccessSizes, Device, DeviceManager, Dispatcher, GuestAddress, InstanceId, InterruptController,
    InterruptError, IoError, IoRange, IoResource, IoType, IrqLine, IrqResource, Rejected, Relocation, Resources,
    SystemAllocator, UnregisterError,
};

/// Explores a model with at most `preemptions` preemptions in one execution, and says how many executions there were.
fn explore(name: &str, preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let count = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    let bound = builder.preemption_bound;
    let start = Instant::now();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let executions = executions.load(Ordering::Relaxed);
    std::println!("{name}: {executions} executions, {:?}, {bound:?} preemptions", start.elapsed());
}

/// What a model's threads share lives as long as the program: loom wants `'static`.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A device that answers with its letter and the offset of the access.
struct Probe {
    letter: u8,
    calls: UnsafeCell<()>,
    /// What it does in a callback.
    act: Act,
}

#[derive(Clone, Copy)]
enum Act {
    Nothing,
    /// Reads a port through the manager's nested view.
    ReadPort(&'static Manager<2, 2>, u16),
    /// Removes the other or itself, without waiting.
    RemoveDeferred(&'static Manager<2, 2>, InstanceId),
}

// SAFETY: loom checks every use of the cell, and reports one that would be a race; finding it is what the cell is for.
unsafe impl Sync for Probe {}
// SAFETY: as above.
unsafe impl Send for Probe {}

impl Probe {
    fn new(letter: u8) -> &'static Self {
        Self::acting(letter, Act::Nothing)
    }

    fn acting(letter: u8, act: Act) -> &'static Self {
        leak(Self { letter, calls: UnsafeCell::new(()), act })
    }

    /// The device may be destroyed: no callback of it runs, or ever will.
    fn destroy(&self) {
        self.calls.with_mut(|_| ());
    }
}

impl Device<'static> for Probe {
    fn name(&self) -> &str {
        if self.letter == b'a' { "a" } else { "b" }
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.calls.with(|_| ());
        match self.act {
            Act::Nothing => {}
            Act::ReadPort(manager, port) => {
                let _ = manager.nested(access).read(port.into(), &mut [0; 2], IoType::Pio);
            }
            Act::RemoveDeferred(manager, id) => {
                let _ = manager.unregister_device_deferred(id);
            }
        }
        self.calls.with(|_| ());
        for (byte, value) in data.iter_mut().zip([self.letter, access.offset() as u8]) {
            *byte = value;
        }
    }

    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

type Manager<const DEVICES: usize, const RANGES: usize> = DeviceManager<'static, DEVICES, RANGES, 1>;
type Vcpu<const DEVICES: usize, const RANGES: usize> = Dispatcher<'static, DEVICES, RANGES, 1>;

fn allocator<const DEVICES: usize, const RANGES: usize>() -> SystemAllocator<DEVICES, RANGES> {
    SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 5)
}

fn manager<const DEVICES: usize, const RANGES: usize>() -> &'static Manager<DEVICES, RANGES> {
    leak(DeviceManager::new(allocator()))
}

/// Registers a device with four ports.
fn register<const DEVICES: usize, const RANGES: usize>(
    manager: &'static Manager<DEVICES, RANGES>,
    probe: &'static Probe,
    port: u16,
) -> InstanceId {
    manager.register_device(probe, None, &[IoResource::pio(port, 4)], IrqResource::None).unwrap()
}

/// Which device answered at a port, and at which offset.
type Answer = Option<(u8, u8)>;

fn answer(result: Result<(), IoError>, data: [u8; 2]) -> Answer {
    match result {
        Ok(()) => Some((data[0], data[1])),
        Err(error) => {
            assert_eq!((error, data), (IoError::Unclaimed, [0xff; 2]));
            None
        }
    }
}

fn read<const DEVICES: usize, const RANGES: usize>(vcpu: &mut Vcpu<DEVICES, RANGES>, port: u16) -> Answer {
    let mut data = [0; 2];
    answer(vcpu.read(port.into(), &mut data, IoType::Pio), data)
}

fn read_anonymously<const DEVICES: usize, const RANGES: usize>(
    manager: &'static Manager<DEVICES, RANGES>,
    port: u16,
) -> Answer {
    let mut data = [0; 2];
    answer(manager.read(port.into(), &mut data, IoType::Pio), data)
}

/// Finds `no_release`.
#[test]
fn removal_waits_for_the_callback() {
    explore("removal_waits_for_the_callback", 3, || {
        let manager = manager::<1, 1>();
        let a = Probe::new(b'a');
        let id = register(manager, a, 0x10);
        let mut vcpu = manager.dispatcher().unwrap();
        let reader = thread::spawn(move || {
            let answer = read(&mut vcpu, 0x10);
            assert!(matches!(answer, None | Some((b'a', 0))), "{answer:?}");
        });
        manager.unregister_device(id).unwrap();
        a.destroy();
        reader.join().unwrap();
        assert_eq!(read_anonymously(manager, 0x10), None);
    });
}

//! loom models of the concurrency contract. They run the crate itself, with loom's atomics under it: `.ci/loom`.
//!
//! loom explores every order of the threads' steps, up to a number of preemptions, and every value that a load may give
//! under the C++ memory model. A device here notes each call in a cell of loom's, and what a model does to the device
//! once it is gone is a write of that cell: unless the protocol puts every call before it, loom reports a race. So the
//! models see a missing ordering, not only an unlucky timing.
//!
//! `.ci/loom` names, for each mutation of the protocol, the models that find it.

#![allow(unsafe_code)]

mod accesses;
mod interrupts;
mod messages;
mod nested;
#[cfg(feature = "alloc")]
mod owned;
mod removal;
mod rerouting;
mod searches;
mod slots;
mod windows;

use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::boxed::Box;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::{
    Access, Device, DeviceManager, Dispatcher, Gsi, GuestAddress, GuestUsize, InstanceId, InterruptController,
    InterruptError, IoError, IoRange, IoResource, IoType, IrqLine, Rejected, Relocation, Resources, Storage,
    SystemAllocator,
};

/// Explores a model with at most `preemptions` preemptions in one execution, and says how many executions there were.
fn explore(name: &str, preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let count = executions.clone();
    let mut builder = loom::model::Builder::new();
    let bound = *builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    let start = Instant::now();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
        // A model joins its threads, and keeps nothing itself.
        SHARED.take().into_iter().for_each(|free| free());
    });
    let (executions, seconds) = (executions.load(Ordering::Relaxed), start.elapsed().as_secs_f32());
    std::println!("{name}: {executions} executions with up to {bound} preemptions in {seconds:.1} s");
}

std::thread_local! {
    /// Closures that free the values that the threads of this execution share. loom runs all of them on one thread of the
    /// system.
    static SHARED: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

/// A value for the threads of a model. It lives as long as the execution, which for them is `'static`.
fn share<T: 'static>(value: T) -> &'static T {
    let value = Box::into_raw(Box::new(value));
    // SAFETY: it came from a box; this is called at the end of the execution, when nothing refers to it any more.
    SHARED.with_borrow_mut(|shared| shared.push(Box::new(move || drop(unsafe { Box::from_raw(value) }))));
    // SAFETY: it is not freed as long as the execution lasts, and there are shared references to it only.
    unsafe { &*value }
}

type Manager = DeviceManager<'static>;
type Vcpu<const HINTS: usize> = Dispatcher<'static, HINTS, 0>;

/// A manager with room for so many devices, as many ranges, and so many vCPUs, which has not been shared yet.
fn unshared_manager<const DEVICES: usize, const VCPUS: usize>() -> Manager {
    let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 6);
    DeviceManager::new(share(Storage::<DEVICES, DEVICES, VCPUS>::new()), allocator)
}

fn new_manager<const DEVICES: usize>() -> &'static Manager {
    share(unshared_manager::<DEVICES, 2>())
}

/// What a device does in its callback.
#[derive(Clone, Copy)]
enum Act {
    Nothing,
    ReadNested(&'static Manager, u16),
    ReadAnonymously(&'static Manager, u16),
    Remove(&'static Manager, InstanceId),
    RemoveDeferred(&'static Manager, InstanceId),
    Move(&'static Manager, InstanceId, u16),
}

/// A device that answers with its letter and the offset of the access.
struct Probe {
    letter: u8,
    /// Each callback reads it, and `destroy` writes it.
    body: UnsafeCell<()>,
    act: Mutex<Act>,
    line: Mutex<IrqLine<'static>>,
}

// SAFETY: loom checks every use of the cell, and reports one that would be a race; finding it is what the cell is for.
unsafe impl Sync for Probe {}

impl Probe {
    fn new(letter: u8) -> &'static Self {
        share(Self {
            letter,
            body: UnsafeCell::new(()),
            act: Mutex::new(Act::Nothing),
            line: Mutex::new(IrqLine::DISCONNECTED),
        })
    }

    fn will(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }

    fn line(&self) -> IrqLine<'static> {
        *self.line.lock().unwrap()
    }

    /// Destroys the device. The caller knows that no callback runs, and that none ever will.
    fn destroy(&self) {
        self.body.with_mut(|_| ());
    }
}

impl Device<'static> for Probe {
    fn name(&self) -> &str {
        if self.letter == b'a' { "a" } else { "b" }
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.body.with(|_| ());
        let act = *self.act.lock().unwrap();
        match act {
            Act::Nothing => {}
            Act::ReadNested(manager, port) => {
                let mut data = [0; 2];
                answer(manager.nested(access).read(port.into(), &mut data, IoType::Pio), data);
            }
            Act::ReadAnonymously(manager, port) => {
                read_anonymously(manager, port);
            }
            Act::Remove(manager, id) => {
                let _ = manager.nested(access).unregister_device(id);
            }
            Act::RemoveDeferred(manager, id) => {
                let _ = manager.unregister_device_deferred(id);
            }
            Act::Move(manager, id, port) => relocate(manager, &[(id, port)]),
        }
        self.body.with(|_| ());
        for (byte, value) in data.iter_mut().zip([self.letter, access.offset() as u8]) {
            *byte = value;
        }
    }

    fn write(&self, _: &Access<'_>, _: &[u8]) {}

    fn set_resources(&self, resources: &Resources<'_, 'static>) -> Result<(), Rejected> {
        *self.line.lock().unwrap() = resources.irq(0);
        Ok(())
    }
}

/// Registers a device with four ports.
fn register(manager: &'static Manager, probe: &'static Probe, port: u16) -> InstanceId {
    manager.register_device(probe, None, &[IoResource::pio(port, 4)], &[]).unwrap()
}

/// Moves a device's ports.
fn relocate(manager: &'static Manager, moves: &[(InstanceId, u16)]) {
    let mut moves: Vec<_> = moves.iter().map(|(id, port)| Relocation::new(*id, 0).to((*port).into())).collect();
    manager.relocate(&mut moves).unwrap();
}

/// Collects until the device is gone.
fn collect_all(manager: &'static Manager, id: InstanceId) {
    while manager.collect() != 0 || manager.device(id).is_some() {
        thread::yield_now();
    }
}

/// A handle that has one hint for all ports, or none, so that it searches.
fn new_vcpu<const HINTS: usize>(manager: &'static Manager) -> Vcpu<HINTS> {
    manager.dispatcher_with_hints(0).unwrap()
}

/// As [`new_vcpu`], and its hint, where it has one, is about this port.
fn new_vcpu_that_knows<const HINTS: usize>(manager: &'static Manager, port: u16) -> Vcpu<HINTS> {
    let mut vcpu = new_vcpu(manager);
    read(&mut vcpu, port).unwrap();
    vcpu
}

/// Runs the models with handles that search, and with handles that use hints.
macro_rules! by_search_and_by_hint {
    ($($name:ident)*) => {
        mod by_search {
            $(#[test]
            fn $name() {
                super::$name::<0>(concat!(stringify!($name), " by search"));
            })*
        }
        mod by_hint {
            $(#[test]
            fn $name() {
                super::$name::<1>(concat!(stringify!($name), " by hint"));
            })*
        }
    };
}

use by_search_and_by_hint;

/// Which device answered, and at which offset.
type Answer = Option<(u8, u8)>;

fn answer(result: Result<(), IoError>, data: [u8; 2]) -> Answer {
    if result == Err(IoError::Unclaimed) {
        assert_eq!(data, [0xff; 2]);
        return None;
    }
    assert_eq!(result, Ok(()));
    Some((data[0], data[1]))
}

fn read<const HINTS: usize>(vcpu: &mut Vcpu<HINTS>, port: u16) -> Answer {
    let mut data = [0; 2];
    answer(vcpu.read(port.into(), &mut data, IoType::Pio), data)
}

fn read_anonymously(manager: &'static Manager, port: u16) -> Answer {
    let mut data = [0; 2];
    answer(manager.read(port.into(), &mut data, IoType::Pio), data)
}

//! A manager that owns its devices: what is given back, what outlives what, and that nothing waits.
#![cfg(feature = "alloc")]

#[allow(unused_macros, reason = "its managers borrow their devices")]
#[path = "../fixture/mod.rs"]
mod fixture;

mod devices;
mod ends;
mod interrupts;
mod names;
mod vmm;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use spin::Mutex;
use vm_device::owned::{Capacities, OwnedDispatcher, OwnedManager, WeakManager};
use vm_device::{
    Access, Device, GuestAddress, InstanceId, IoError, IoResource, IoType, IrqLine, IrqResource, Rejected, Resources,
};

use fixture::{everything, wait_for};

const SMALL: Capacities = Capacities { devices: 8, ranges: 16, vcpus: 2 };

fn manager() -> OwnedManager {
    OwnedManager::new(SMALL, everything()).unwrap()
}

/// Counts how often it is dropped; its name is on the heap. It answers with 7.
struct Counted {
    name: String,
    dropped: Arc<AtomicUsize>,
}

impl Counted {
    fn new(name: &str, dropped: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), dropped: Arc::clone(dropped) })
    }
}

impl Device<'_> for Counted {
    fn name(&self) -> &str {
        &self.name
    }
    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(7);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

/// Stands still in a read until it is let go. Beside it stands a register at offset 1 that answers at once.
#[derive(Default)]
struct Slow {
    inside: AtomicBool,
    let_go: AtomicBool,
}

impl Device<'_> for Slow {
    fn name(&self) -> &str {
        "slow"
    }
    fn read(&self, access: &Access<'_>, _: &mut [u8]) {
        if access.offset() == 0 {
            self.inside.store(true, SeqCst);
            wait_for(&self.let_go);
        }
    }
}

/// Sets a flag at the end, and where an assertion fails, too: a thread would be waited for otherwise.
struct SetAtEnd<'a>(&'a AtomicBool, bool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, SeqCst);
    }
}

/// Does what a test wants when it is written to, with the manager.
struct Acting<F> {
    manager: WeakManager,
    act: F,
}

impl<F: Fn(&OwnedManager, &Access<'_>) + Send + Sync> Device<'_> for Acting<F> {
    fn name(&self) -> &str {
        "acting"
    }
    fn write(&self, access: &Access<'_>, _: &[u8]) {
        (self.act)(&self.manager.upgrade().unwrap(), access);
    }
}

/// Keeps its interrupt line where others can find it.
#[derive(Clone, Default)]
struct Lined(Arc<Mutex<Option<IrqLine<'static>>>>);

impl Lined {
    fn line(&self) -> IrqLine<'static> {
        self.0.lock().unwrap()
    }
}

impl Device<'static> for Lined {
    fn name(&self) -> &str {
        "lined"
    }
    fn set_resources(&self, resources: &Resources<'_, 'static>) -> Result<(), Rejected> {
        *self.0.lock() = Some(resources.irq(0));
        Ok(())
    }
}

/// Registers a device with 4 bytes of memory at `base`.
fn register(manager: &OwnedManager, device: Arc<impl Device<'static> + Send + 'static>, base: u64) -> InstanceId {
    manager.register_device(device, None, &[IoResource::mmio(base, 4)], &[]).unwrap()
}

/// Registers a device with a line of its own.
fn register_lined(manager: &OwnedManager) -> Lined {
    let lined = Lined::default();
    manager.register_device(Arc::new(lined.clone()), None, &[], &[IrqResource::Any]).unwrap();
    lined
}

/// Reads a byte of memory through a handle.
fn read_by(vcpu: &mut OwnedDispatcher, address: u64) -> Result<u8, IoError> {
    let mut data = [0];
    vcpu.read(GuestAddress(address), &mut data, IoType::Mmio).map(|()| data[0])
}

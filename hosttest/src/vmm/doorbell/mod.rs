//! Doorbells: writes that KVM turns into an event, so that the virtual processor goes on without an exit to the VMM.
//!
//! An event names the device, its range and the offset, and not an address: where the range lies is looked up when the
//! event is served, so that a range that moved in between is still found, and what now lies at its old place is left alone.

mod bell;
mod rung;

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard};

use vm_device::{DeviceManager, Doorbell, InstanceId};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::bell::Bell;
pub use self::bell::Reason;
pub use self::rung::Rung;
use self::rung::place;
use crate::vmm::vm::Vm;

/// The token of the event that ends [`Doorbells::serve`]. Those of the doorbells count from 0.
const STOP: u64 = u64::MAX;

/// The doorbells of all devices of a manager, where they lay at the last [`update`](Self::update).
pub struct Doorbells {
    vm: Arc<Vm>,
    epoll: Epoll,
    stop: EventFd,
    bells: Mutex<Bells>,
}

#[derive(Default)]
struct Bells {
    given: Vec<Bell>,
    refused: Vec<Refusal>,
    next_token: u64,
}

/// A doorbell that was not given to KVM.
#[derive(Debug)]
pub struct Refusal {
    /// The device that has the doorbell.
    pub device: InstanceId,
    /// The name of that device.
    pub name: String,
    /// The doorbell.
    pub doorbell: Doorbell,
    /// Why it was not given.
    pub reason: Reason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, name, doorbell: Doorbell { range_index, offset, .. }, reason } = self;
        write!(f, "the doorbell of {name} ({device}) at {offset:#x} in range {range_index}: {reason}")
    }
}

impl Doorbells {
    /// Gives the doorbells of all devices to KVM. One that cannot be given is among the [refusals](Self::take_refusals); its
    /// writes exit, and reach the device as any other.
    ///
    /// # Errors
    /// The process can have no more file descriptors.
    pub fn new(vm: &Arc<Vm>, manager: &DeviceManager<'_>) -> io::Result<Self> {
        let doorbells = Self {
            vm: Arc::clone(vm),
            epoll: Epoll::new()?,
            stop: EventFd::new(EFD_NONBLOCK)?,
            bells: Mutex::default(),
        };
        doorbells.watch(&doorbells.stop, STOP)?;
        doorbells.update(manager)?;
        Ok(doorbells)
    }

    /// Follows what has changed in the manager: to be called after a registration, a removal or a relocation, before the
    /// guest goes on. Until then a write to the old place still rings, and one to the new place exits. What was rung
    /// and is not served yet stays, unless the device was removed.
    ///
    /// # Errors
    /// The process can have no more file descriptors. Writes to some doorbells, or to all of them, exit then.
    pub fn update(&self, manager: &DeviceManager<'_>) -> io::Result<()> {
        let mut bells = self.bells();
        let Bells { given, refused, next_token } = &mut *bells;
        let mut old = mem::take(given);
        refused.clear();
        for info in manager.walk() {
            for doorbell in info.device.doorbells() {
                let known = old.iter().position(|bell| bell.device == info.id && bell.doorbell == *doorbell);
                let mut bell = match known {
                    Some(known) => old.swap_remove(known),
                    None => match bell::writes(doorbell, manager.range(info.id, doorbell.range_index)) {
                        Ok(sizes) => {
                            let bell = Bell::new(&self.vm, info.id, *doorbell, sizes, next_token)?;
                            bell.events().try_for_each(|(token, event)| self.watch(event, token))?;
                            bell
                        }
                        Err(reason) => {
                            let (device, name) = (info.id, info.name.into());
                            refused.push(Refusal { device, name, doorbell: *doorbell, reason });
                            continue;
                        }
                    },
                };
                bell.leave_unless_at(place(manager, info.id, doorbell.range_index, doorbell.offset));
                given.push(bell);
            }
        }
        // Every doorbell has left its old place by now, so that two may change places.
        drop(old);
        for mut bell in mem::take(given) {
            let Bell { device, doorbell, .. } = bell;
            match bell.listen_at(place(manager, device, doorbell.range_index, doorbell.offset)) {
                Ok(()) => given.push(bell),
                Err(error) => {
                    let name = manager.device(device).map_or_else(String::new, |info| info.name.into());
                    refused.push(Refusal { device, name, doorbell, reason: Reason::Kvm(error) });
                }
            }
        }
        Ok(())
    }

    /// How many there are, wherever their ranges are.
    pub fn count(&self) -> usize {
        self.bells().given.len()
    }

    /// Takes the list of the doorbells that the last [`update`](Self::update) could not give to KVM.
    pub fn take_refusals(&self) -> Vec<Refusal> {
        mem::take(&mut self.bells().refused)
    }

    /// Calls `rung` for each doorbell that is rung, until [`stop`](Self::stop). Rings that come faster than they are served
    /// become one.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn serve(&self, mut rung: impl FnMut(Rung)) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 8];
        loop {
            let ready = match self.epoll.wait(-1, &mut events) {
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let tokens = events.iter().take(ready).map(|event| event.data());
            for token in tokens.clone().filter(|token| *token != STOP) {
                // Not while the doorbells are locked: what is called may update them.
                let event = self.bells().given.iter().find_map(|bell| bell.take(token));
                event.into_iter().for_each(&mut rung);
            }
            if tokens.into_iter().any(|token| token == STOP) {
                return Ok(());
            }
        }
    }

    /// Ends [`serve`](Self::serve), on whatever thread that is.
    pub fn stop(&self) {
        // It fails only after 2^64 calls.
        let _ = self.stop.write(1);
    }

    fn watch(&self, event: &EventFd, token: u64) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Add, event.as_raw_fd(), EpollEvent::new(EventSet::IN, token))
    }

    fn bells(&self) -> MutexGuard<'_, Bells> {
        self.bells.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

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

use vm_device::{Doorbell, GuestAddress, InstanceId, PlacedRange, RangeListener, Rejected};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::bell::Bell;
pub use self::bell::Reason;
pub use self::rung::Rung;
use crate::vmm::vm::Vm;

/// The token of the event that ends [`Doorbells::serve`]. Those of the doorbells count from 0.
const STOP: u64 = u64::MAX;

/// The doorbells of all devices of a manager, wherever their ranges are: the manager's
/// [listener](vm_device::DeviceManager::with_listener). One that cannot be given to KVM is among the
/// [refusals](Self::take_refusals); its writes exit, and reach the device as any other. So do those to a doorbell in a window,
/// over which the range of another device may lie.
///
/// What was rung and is not served yet stays when the range moves.
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
    /// As yet without doorbells.
    ///
    /// # Errors
    /// The process can have no more file descriptors.
    pub fn new(vm: &Arc<Vm>) -> io::Result<Self> {
        let doorbells = Self {
            vm: Arc::clone(vm),
            epoll: Epoll::new()?,
            stop: EventFd::new(EFD_NONBLOCK)?,
            bells: Mutex::default(),
        };
        doorbells.watch(&doorbells.stop, STOP)?;
        Ok(doorbells)
    }

    /// Gives one doorbell to KVM, at the place that its range has now.
    fn give(
        &self,
        bells: &mut Bells,
        range: &PlacedRange<'_>,
        at: GuestAddress,
        doorbell: &Doorbell,
    ) -> Result<(), Reason> {
        let Bells { given, next_token, .. } = bells;
        let known = given.iter().position(|bell| bell.device == range.id && bell.doorbell == *doorbell);
        let mut bell = match known {
            Some(known) => given.swap_remove(known),
            None => {
                let sizes = bell::writes(doorbell, range.io_type, range.range, range.window)?;
                let bell = Bell::new(&self.vm, range.id, *doorbell, sizes, next_token).map_err(Reason::Host)?;
                for (token, event) in bell.events() {
                    self.watch(event, token).map_err(Reason::Host)?;
                }
                bell
            }
        };
        bell.listen_at((range.io_type, at)).map_err(Reason::Host)?;
        given.push(bell);
        Ok(())
    }

    /// How many KVM listens to.
    pub fn count(&self) -> usize {
        self.bells().given.iter().filter(|bell| bell.is_listening()).count()
    }

    /// Takes the list of the doorbells that could not be given to KVM.
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

impl RangeListener for Doorbells {
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        let mut bells = self.bells();
        for (at, doorbell) in range.doorbells() {
            if let Err(reason) = self.give(&mut bells, range, at, doorbell) {
                let (device, name) = (range.id, range.device.name().into());
                bells.refused.push(Refusal { device, name, doorbell: *doorbell, reason });
            }
        }
        // Their writes exit, and serve as well.
        Ok(())
    }

    fn leaving(&self, range: &PlacedRange<'_>) {
        let mut bells = self.bells();
        for bell in &mut bells.given {
            if (bell.device, bell.doorbell.range_index) == (range.id, range.range_index) {
                bell.leave();
            }
        }
    }
}

//! An access of which an observer is told.

use crate::access::{Access, Caller, IoError, Target};
use crate::address::{GuestAddress, IoType};
use crate::device::Device;
use crate::manager::{DeviceManager, Observing};
use crate::observer::{AccessDirection, AccessObserver, ObservedAccess};
use crate::transfer::Transfer;

impl<'d, O: AccessObserver> Observing<'d> for O {
    fn dispatch(
        &self,
        manager: &DeviceManager<'d>,
        caller: &Caller<'_>,
        address: GuestAddress,
        io_type: IoType,
        transfer: &mut dyn Transfer,
    ) -> Result<(), IoError> {
        dispatch(self, manager, caller, address, io_type, transfer)
    }
}

/// Its code exists once for all observers.
fn dispatch(
    observer: &dyn AccessObserver,
    manager: &DeviceManager<'_>,
    caller: &Caller<'_>,
    address: GuestAddress,
    io_type: IoType,
    transfer: &mut dyn Transfer,
) -> Result<(), IoError> {
    let started = observer.now();
    let mut recorded = Recorded { transfer, target: None };
    let outcome = manager.dispatch_unobserved(caller, address, io_type, &mut recorded);
    let Recorded { transfer, target } = recorded;
    let is_piece = transfer.is_piece();
    // A piece in which there are several ranges is no access: it is split further.
    if is_piece && outcome == Err(IoError::Straddling) {
        return outcome;
    }
    observer.observe(&ObservedAccess {
        outcome,
        device: target.and_then(Target::id),
        range_index: target.map(Target::range_index),
        vcpu: caller.vcpu,
        io_type,
        address,
        direction: transfer.direction(),
        element: transfer.element_len(),
        data: transfer.data(),
        depth: caller.site.level.into(),
        is_piece,
        started,
    });
    outcome
}

/// A transfer, and which device it was for.
struct Recorded<'t> {
    transfer: &'t mut dyn Transfer,
    target: Option<Target>,
}

impl Transfer for Recorded<'_> {
    fn fill(&mut self, open_bus: [u8; 4]) {
        self.transfer.fill(open_bus);
    }
    fn data(&self) -> &[u8] {
        self.transfer.data()
    }
    fn direction(&self) -> AccessDirection {
        self.transfer.direction()
    }
    fn element_len(&self) -> usize {
        self.transfer.element_len()
    }
    fn has_valid_len(&self) -> bool {
        self.transfer.has_valid_len()
    }
    fn is_piece(&self) -> bool {
        self.transfer.is_piece()
    }
    fn is_for(&mut self, access: &Access<'_>) {
        self.target = Some(access.target);
    }
    fn call<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) -> Result<(), IoError> {
        self.is_for(access);
        self.transfer.call(device, access)
    }
    fn call_part<'d>(
        &mut self,
        device: &dyn Device<'d>,
        access: &Access<'_>,
        at: usize,
        size: usize,
    ) -> Option<Result<(), IoError>> {
        self.transfer.call_part(device, access, at, size)
    }
}

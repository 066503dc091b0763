//! What was taken for a device that does not exist yet.

use alloc::string::String;

use super::held::{Held, Keep};
use super::names::Call;
use super::{OwnedManager, SharedDevice};
use crate::error::RegisterError;
use crate::instance::InstanceId;
use crate::interrupt::IrqLine;
use crate::manager::Taken;
use crate::resource::Assigned;

/// The ranges and interrupts of a device that does not exist yet, as [`OwnedManager::take`] has taken them. As
/// [`Taken`]: the registration consumes it, and if it is dropped, everything is given back.
pub struct OwnedTaken(pub(super) Held<Taken<'static>, OwnedManager>);

impl Keep<Taken<'static>> for OwnedManager {
    type Ending<'a> = Forget<'a>;

    fn ending(&self, taken: &Taken<'static>) -> Forget<'_> {
        Forget { manager: self, call: self.inner().call(), id: taken.id() }
    }
}

/// Forgets the registration when it is dropped.
pub(super) struct Forget<'a> {
    manager: &'a OwnedManager,
    call: Call<'a>,
    id: InstanceId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.manager.inner().forget(&self.call, self.id);
    }
}

impl OwnedTaken {
    /// The id that the device will have.
    pub fn id(&self) -> InstanceId {
        self.0.get().id()
    }

    /// Range number `index`, in the order of the requests; `None` if there were fewer.
    pub fn range(&self, index: usize) -> Option<Assigned> {
        self.0.get().range(index)
    }

    /// Interrupt number `index` of the device, as [`Device::set_resources`](crate::Device::set_resources) will tell it.
    pub fn irq(&self, index: usize) -> IrqLine<'static> {
        self.0.get().irq(index)
    }

    /// Registers the device: tells it what it has, and makes it reachable.
    ///
    /// # Errors
    /// As [`Taken::register`].
    pub fn register(self, device: SharedDevice) -> Result<InstanceId, RegisterError<String>> {
        let (taken, manager) = self.0.into_parts();
        let inner = manager.inner();
        let call = inner.call();
        inner.register(&call, taken, device)
    }
}

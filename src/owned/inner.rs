//! A manager, its memory and its devices, as they lie on the heap.
//!
//! The manager's own code knows one lifetime, for which manager, memory and devices live. Here it is `'static`. This module
//! sees to it that no such reference is used when what it refers to is gone:
//!
//! - **The manager and its memory** live as long as [`Inner`]. Each call of the manager is made by somebody who holds an `Arc`
//!   of it until the call has ended. [`Held`](super::held::Held) does so for what borrows from the manager for longer.
//! - **A device** is held by its entry until the manager has let go of it, and by the call that registers it.
//! - **A name** is held by its entry, and after that until every call has ended that may see it ([`Names`]).
//! - **What interrupt handles point to** is [kept](super::kept).
//!
//! What a call returns has no such reference in it: ids, `String`s and `Arc`s.

#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;

use super::entries::{Entries, Entry};
use super::kept::KeptInUse;
use super::memory::Memory;
use super::names::{Call, Names};
use super::{RemovedDevice, SharedDevice};
use crate::access::Access;
use crate::error::{RegisterError, UnregisterError};
use crate::instance::InstanceId;
use crate::manager::{DeviceManager, OnDrop, Scope, Taken};
use crate::resource::{IoResource, IrqResource};
use crate::sync::{AtomicU32, Ordering};

/// A manager with everything that it refers to. The fields are dropped in their order.
pub(super) struct Inner {
    manager: DeviceManager<'static>,
    #[expect(dead_code, reason = "dropped")]
    ground: Ground,
    names: Names,
    entries: Entries,
    /// How far the manager has come to its end.
    end: AtomicU32,
}

/// The manager has owners.
const OWNED: u32 = 0;
/// The last owner makes an end of it. It stays so where the embedder's code has unwound meanwhile.
const ENDING: u32 = 1;
/// No access reaches a device any more.
const ENDED: u32 = 2;

/// What the manager borrows.
pub(super) struct Ground {
    /// Of a box. It is none any more, because a box would claim that nobody else refers to the memory.
    memory: NonNull<Memory>,
    kept: KeptInUse,
}

// SAFETY: it owns the memory, which may be sent.
unsafe impl Send for Ground where Memory: Send {}
// SAFETY: it gives out shared references only.
unsafe impl Sync for Ground where Memory: Sync {}

impl Ground {
    pub(super) fn new(memory: Memory, kept: KeptInUse) -> Self {
        Self { memory: NonNull::from(Box::leak(Box::new(memory))), kept }
    }

    /// The memory, for a manager that stands beside this in [`Inner`].
    pub(super) fn memory(&self) -> &'static Memory {
        // SAFETY: the memory is there until this is dropped, and nobody has an exclusive reference to it. The manager has no
        // code to drop, and is not called any more when `Inner` is dropped.
        unsafe { self.memory.as_ref() }
    }

    pub(super) fn kept(&self) -> &KeptInUse {
        &self.kept
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // SAFETY: the pointer is that of a box, and the manager is not called any more.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}

impl Inner {
    pub(super) fn new(manager: DeviceManager<'static>, ground: Ground) -> Arc<Self> {
        let (names, entries, end) = (Names::new(), Entries::new(), AtomicU32::new(OWNED));
        Arc::new(Self { manager, ground, names, entries, end })
    }

    /// The manager. The caller holds an `Arc` of this until it has let go of the reference, and has begun a [`call`](Self::call)
    /// if it may see names.
    pub(super) fn manager(&self) -> &'static DeviceManager<'static> {
        // SAFETY: the manager is there as long as this is, and nobody has an exclusive reference to it.
        unsafe { NonNull::from(&self.manager).as_ref() }
    }

    /// Begins a call that may see names.
    pub(super) fn call(&self) -> Call<'_> {
        self.names.call()
    }

    /// Takes the resources of a device that does not exist yet.
    pub(super) fn take(
        &self,
        name: &str,
        parent: Option<InstanceId>,
        requests: &[IoResource],
        irqs: &[IrqResource],
    ) -> Result<Taken<'static>, RegisterError<String>> {
        let name: Arc<str> = name.into();
        // SAFETY: where it fails, only the error has the name, which is made a `String` here. Otherwise the entry holds the name as
        // long as the manager has a node of this id, and after that the calls of that time do.
        let borrowed: &'static str = unsafe { NonNull::from(&*name).as_ref() };
        let taken =
            self.manager().take(borrowed, parent, requests, irqs).map_err(|error| error.map_names(String::from))?;
        // A name of its own: where the heap has no room for the entry and that unwinds, `taken` is dropped before `name`.
        self.entries.insert(taken.id(), parent, Arc::clone(&name));
        Ok(taken)
    }

    /// Registers a device with what was taken.
    pub(super) fn register(
        &self,
        call: &Call<'_>,
        taken: Taken<'static>,
        device: SharedDevice,
    ) -> Result<InstanceId, RegisterError<String>> {
        let id = taken.id();
        self.entries.set_device(id, Arc::clone(&device));
        // Where the registration fails, or the device unwinds.
        let mut failed = OnDrop::new(true, |failed| {
            if *failed {
                self.forget(call, id);
            }
        });
        // SAFETY: `device` holds it during this call, and the entry does until the manager has let go of it.
        let borrowed = unsafe { NonNull::from(&*device).as_ref() };
        taken.register(borrowed).map_err(|error| error.map_names(String::from))?;
        failed.value = false;
        self.entries.set_registered(id);
        Ok(id)
    }

    /// Forgets a registration that has failed. What it has left to `collect` stays until then.
    pub(super) fn forget(&self, call: &Call<'_>, id: InstanceId) {
        if self.manager().is_known(id) {
            self.entries.set_failed(id);
        } else if let Some(entry) = self.entries.take(id) {
            call.retire(entry.name);
        }
    }

    /// Removes a device, and returns it.
    pub(super) fn unregister(
        &self,
        id: InstanceId,
        within: Option<&Access<'_>>,
    ) -> Result<SharedDevice, UnregisterError<String>> {
        let call = self.call();
        let device = match self.entries.get(id) {
            Some((Some(device), _)) => device,
            Some((None, name)) => return Err(UnregisterError::Busy { device: (*name).into() }),
            None => return Err(UnregisterError::NotFound { id }),
        };
        self.remove(id, Scope::Device, within)?;
        if let Some(entry) = self.entries.take(id) {
            call.retire(entry.name);
        }
        Ok(device)
    }

    /// Removes a device and all that is below it. They are returned in the order of their ids.
    pub(super) fn unregister_subtree(
        &self,
        top: InstanceId,
        within: Option<&Access<'_>>,
    ) -> Result<Vec<RemovedDevice>, UnregisterError<String>> {
        let call = self.call();
        self.remove(top, Scope::Subtree, within)?;
        Ok(self.returned(&call, self.entries.take_subtree(top)))
    }

    /// Removes what is registered. Where the embedder's code unwinds, the rest is left to `collect`.
    fn remove(&self, id: InstanceId, scope: Scope, within: Option<&Access<'_>>) -> Result<(), UnregisterError<String>> {
        let mut unwinds = OnDrop::new(true, |unwinds| {
            if *unwinds {
                self.entries.set_subtree_removed(id);
            }
        });
        let removed = self.manager().remove(id, scope, within);
        unwinds.value = false;
        removed.map_err(|error| error.map_names(String::from))
    }

    /// Removes a device without waiting.
    pub(super) fn unregister_deferred(&self, id: InstanceId) -> Result<(), UnregisterError<String>> {
        let _call = self.call();
        self.manager().unregister_device_deferred(id).map_err(|error| error.map_names(String::from))?;
        self.entries.set_removed(id);
        Ok(())
    }

    /// Finishes removals. How many are left, and lines.
    pub(super) fn collect(&self) -> usize {
        let _call = self.call();
        self.manager().collect()
    }

    /// The devices whose removals were left to `collect`, and are finished.
    pub(super) fn take_finished(&self) -> Vec<RemovedDevice> {
        let call = self.call();
        self.returned(&call, self.entries.take_finished(|id| self.manager().is_known(id)))
    }

    fn returned(&self, call: &Call<'_>, entries: Vec<(InstanceId, Entry)>) -> Vec<RemovedDevice> {
        let returned = entries.into_iter().filter_map(|(id, entry)| {
            call.retire(Arc::clone(&entry.name));
            Some(RemovedDevice { id, device: entry.into_returned()? })
        });
        returned.collect()
    }

    /// The device that is registered under an id.
    pub(super) fn device(&self, id: InstanceId) -> Option<SharedDevice> {
        let (device, _) = self.entries.get(id)?;
        device.filter(|_| self.manager().is_known(id))
    }

    /// The end, for the last owner: makes every device unreachable, and drops those that nobody is in.
    pub(super) fn end(&self) {
        self.end.store(ENDING, Ordering::Release);
        self.manager().unregister_all_deferred();
        self.entries.set_all_removed();
        self.finish();
        self.end.store(ENDED, Ordering::Release);
    }

    /// Finishes removals, and drops the devices.
    fn finish(&self) {
        let _drops = OnDrop::new((), |()| drop(self.take_finished()));
        self.collect();
    }

    /// After the end, a callback may have ended that kept a removal from being finished.
    pub(super) fn finish_after_end(&self) {
        if self.end.load(Ordering::Acquire) == ENDED {
            self.finish();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Code that has unwound at the end is not called again: perhaps it is unwinding now.
        if self.end.load(Ordering::Acquire) == ENDED {
            self.finish();
            // What is left then is what a handle keeps that calls the controller.
            self.manager().tell_everything_leaving();
        }
    }
}

/// A manager and its handles may go to other threads.
const _: () = {
    const fn any_thread<T: Send + Sync>() {}
    any_thread::<Memory>();
    any_thread::<Inner>();
    any_thread::<super::OwnedManager>();
    any_thread::<super::OwnedDispatcher>();
};

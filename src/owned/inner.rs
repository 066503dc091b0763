//! A manager, its memory and its devices, as they lie on the heap.
//!
//! The manager's own code knows one lifetime, for which manager, memory and devices live. Here it is `'static`. This module
//! sees to it that no such reference is used when what it refers to is gone:
//!
//! - **The manager and its memory** live as long as [`Inner`]. Each call of the manager is made by somebody who holds an `Arc`
//!   of it until the call has ended. [`Held`](super::held::Held) does so for what borrows from the manager for longer.
//! - **A device** is held by its [`Entry`] until the manager has let go of it, and by the call that registers it.
//! - **A name** is held by its entry, and after that until every call has ended that may see it ([`Names`]).
//! - **What interrupt handles point to** is [kept](super::kept).
//!
//! What a call returns has no such reference in it: ids, `String`s and `Arc`s.

#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;

use super::kept::KeptInUse;
use super::memory::Memory;
use super::names::{Call, Names};
use super::{RemovedDevice, SharedDevice};
use crate::access::Access;
use crate::error::{RegisterError, UnregisterError};
use crate::instance::InstanceId;
use crate::manager::{DeviceManager, OnDrop, Scope, Taken};
use crate::resource::{IoResource, IrqResource};
use crate::sync::Mutex;

/// A manager with everything that it refers to. The fields are dropped in their order.
pub(super) struct Inner {
    manager: DeviceManager<'static>,
    #[expect(dead_code, reason = "dropped")]
    ground: Ground,
    names: Names,
    entries: Mutex<BTreeMap<InstanceId, Entry>>,
}

/// What the manager borrows.
pub(super) struct Ground {
    /// Of a box. It is none any more, because a box would claim that nobody else refers to the memory.
    memory: NonNull<Memory>,
    kept: KeptInUse,
}

/// What is registered under an id.
struct Entry {
    parent: Option<InstanceId>,
    /// `None` as long as the device does not exist.
    device: Option<SharedDevice>,
    name: Arc<str>,
    /// How many calls remove the device, and return it themselves.
    removers: usize,
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
        Arc::new(Self { manager, ground, names: Names::new(), entries: Mutex::new(BTreeMap::new()) })
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
        self.entries.lock().insert(taken.id(), Entry { parent, device: None, name, removers: 0 });
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
        if let Some(entry) = self.entries.lock().get_mut(&id) {
            entry.device = Some(Arc::clone(&device));
        }
        // Where the registration fails, or the device unwinds.
        let _forget = OnDrop::new((), |()| self.forget(call, id));
        // SAFETY: `device` holds it during this call, and the entry does until the manager has let go of it.
        let borrowed = unsafe { NonNull::from(&*device).as_ref() };
        taken.register(borrowed).map_err(|error| error.map_names(String::from))
    }

    /// Removes a device, and returns it.
    pub(super) fn unregister(
        &self,
        id: InstanceId,
        within: Option<&Access<'_>>,
    ) -> Result<SharedDevice, UnregisterError<String>> {
        let call = self.call();
        let device = self.claim(id);
        let _unclaim = OnDrop::new((), |()| self.unclaim(id));
        self.manager().remove(id, Scope::Device, within).map_err(|error| error.map_names(String::from))?;
        self.take_entry(&call, id);
        device.ok_or(UnregisterError::NotFound { id })
    }

    /// Removes a device and all that is below it. They are returned in the order of their ids.
    pub(super) fn unregister_subtree(
        &self,
        top: InstanceId,
        within: Option<&Access<'_>>,
    ) -> Result<Vec<RemovedDevice>, UnregisterError<String>> {
        let call = self.call();
        self.claim(top);
        let _unclaim = OnDrop::new((), |()| self.unclaim(top));
        self.manager().remove(top, Scope::Subtree, within).map_err(|error| error.map_names(String::from))?;
        let removed = self.take_entries(|entries, id| is_within(entries, id, top));
        Ok(self.retire(&call, removed))
    }

    /// The devices whose removals were left to `collect`, and are finished.
    pub(super) fn take_finished(&self) -> Vec<RemovedDevice> {
        let call = self.call();
        let is_unclaimed =
            |entries: &BTreeMap<InstanceId, Entry>, id| entries.get(&id).is_some_and(|entry| entry.removers == 0);
        let finished = self.take_entries(|entries, id| is_unclaimed(entries, id) && !self.manager().is_known(id));
        self.retire(&call, finished)
    }

    /// Makes every device unreachable, and finishes the removals of those that nobody is in.
    pub(super) fn close(&self) {
        self.manager().unregister_all_deferred();
        self.manager().collect();
        drop(self.take_finished());
    }

    /// The device that is registered under an id.
    pub(super) fn device(&self, id: InstanceId) -> Option<SharedDevice> {
        self.entries.lock().get(&id)?.device.clone()
    }

    /// Notes that a call removes the device, and returns the device.
    fn claim(&self, id: InstanceId) -> Option<SharedDevice> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&id)?;
        entry.removers = entry.removers.saturating_add(1);
        entry.device.clone()
    }

    fn unclaim(&self, id: InstanceId) {
        if let Some(entry) = self.entries.lock().get_mut(&id) {
            entry.removers = entry.removers.saturating_sub(1);
        }
    }

    /// Forgets a registration that has failed: the manager knows the id no more. What it left to `collect` stays.
    pub(super) fn forget(&self, call: &Call<'_>, id: InstanceId) {
        if !self.manager().is_known(id) {
            self.take_entry(call, id);
        }
    }

    /// Takes an entry away. Its device is dropped without the lock.
    fn take_entry(&self, call: &Call<'_>, id: InstanceId) {
        let entry = self.entries.lock().remove(&id);
        if let Some(Entry { name, .. }) = entry {
            call.retire(name);
        }
    }

    /// Takes the entries that are meant away. Their devices are dropped by the caller, without the lock.
    fn take_entries(
        &self,
        is_meant: impl Fn(&BTreeMap<InstanceId, Entry>, InstanceId) -> bool,
    ) -> Vec<(InstanceId, Entry)> {
        let mut entries = self.entries.lock();
        let ids: Vec<_> = entries.keys().copied().filter(|id| is_meant(&entries, *id)).collect();
        ids.into_iter().filter_map(|id| Some((id, entries.remove(&id)?))).collect()
    }

    fn retire(&self, call: &Call<'_>, entries: Vec<(InstanceId, Entry)>) -> Vec<RemovedDevice> {
        let removed = entries.into_iter().filter_map(|(id, entry)| {
            call.retire(entry.name);
            Some(RemovedDevice { id, device: entry.device? })
        });
        removed.collect()
    }
}

/// Whether an id is `top`, or below it.
fn is_within(entries: &BTreeMap<InstanceId, Entry>, id: InstanceId, top: InstanceId) -> bool {
    core::iter::successors(Some(id), |id| entries.get(id)?.parent).any(|id| id == top)
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
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

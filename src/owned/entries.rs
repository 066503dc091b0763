//! The devices of an owned manager, by their ids.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::SharedDevice;
use crate::instance::InstanceId;
use crate::sync::Mutex;

/// What is registered, was taken, or is on its way out. No device is dropped under the lock.
pub(super) struct Entries(Mutex<BTreeMap<InstanceId, Entry>>);

/// What an id stands for.
pub(super) struct Entry {
    parent: Option<InstanceId>,
    /// `None` as long as the device does not exist.
    pub(super) device: Option<SharedDevice>,
    pub(super) name: Arc<str>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The device does not exist, or has not accepted yet what it was given.
    Registering,
    Registered,
    /// The removal is left to `collect`, which returns the device.
    Removed,
    /// The registration has failed, and what is to be done then is left to `collect`. Nobody gets the device.
    Failed,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Adds an id for which the device does not exist yet.
    pub(super) fn insert(&self, id: InstanceId, parent: Option<InstanceId>, name: Arc<str>) {
        self.0.lock().insert(id, Entry { parent, device: None, name, state: State::Registering });
    }

    /// Sets the device, which is about to be registered.
    pub(super) fn set_device(&self, id: InstanceId, device: SharedDevice) {
        if let Some(entry) = self.0.lock().get_mut(&id) {
            entry.device = Some(device);
        }
    }

    /// The device, and the name; of a device that does not exist yet, the name alone.
    pub(super) fn get(&self, id: InstanceId) -> Option<(Option<SharedDevice>, Arc<str>)> {
        self.0.lock().get(&id).map(|entry| (entry.device.clone(), Arc::clone(&entry.name)))
    }

    /// The device is registered. By now it may have been removed, too.
    pub(super) fn set_registered(&self, id: InstanceId) {
        self.set(id, State::Registered, |state| state == State::Registering);
    }

    /// The registration has failed, and the rest is left to `collect`.
    pub(super) fn set_failed(&self, id: InstanceId) {
        self.set(id, State::Failed, |_| true);
    }

    /// The removal is left to `collect`.
    pub(super) fn set_removed(&self, id: InstanceId) {
        self.set(id, State::Removed, |_| true);
    }

    /// As [`set_removed`](Self::set_removed), for an id and all below it.
    pub(super) fn set_subtree_removed(&self, top: InstanceId) {
        let mut entries = self.0.lock();
        for id in subtree(&entries, top) {
            if let Some(entry) = entries.get_mut(&id) {
                entry.state = State::Removed;
            }
        }
    }

    /// As [`set_removed`](Self::set_removed), for every device.
    pub(super) fn set_all_removed(&self) {
        for entry in self.0.lock().values_mut().filter(|entry| entry.state != State::Failed) {
            entry.state = State::Removed;
        }
    }

    fn set(&self, id: InstanceId, new: State, from: impl Fn(State) -> bool) {
        if let Some(entry) = self.0.lock().get_mut(&id).filter(|entry| from(entry.state)) {
            entry.state = new;
        }
    }

    /// Takes an id away.
    pub(super) fn take(&self, id: InstanceId) -> Option<Entry> {
        self.0.lock().remove(&id)
    }

    /// Takes an id and all below it away, in the order of the ids; but not what is left to `collect`.
    pub(super) fn take_subtree(&self, top: InstanceId) -> Vec<(InstanceId, Entry)> {
        let mut entries = self.0.lock();
        let ids = subtree(&entries, top);
        ids.into_iter().filter_map(|id| Some((id, entries.remove(&id)?))).collect()
    }

    /// Takes those away that are left to `collect` and that the manager knows no more, in the order of the ids.
    pub(super) fn take_finished(&self, is_known: impl Fn(InstanceId) -> bool) -> Vec<(InstanceId, Entry)> {
        let mut entries = self.0.lock();
        let is_left = |entry: &Entry| [State::Removed, State::Failed].contains(&entry.state);
        let left = entries.iter().filter(|(id, entry)| is_left(entry) && !is_known(**id));
        let ids: Vec<_> = left.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| Some((id, entries.remove(&id)?))).collect()
    }
}

impl Entry {
    /// The device, if anybody gets it.
    pub(super) fn into_returned(self) -> Option<SharedDevice> {
        self.device.filter(|_| self.state != State::Failed)
    }
}

/// The ids of `top` and of all below it that are not left to `collect`.
fn subtree(entries: &BTreeMap<InstanceId, Entry>, top: InstanceId) -> Vec<InstanceId> {
    let is_below = |id| core::iter::successors(Some(id), |id| entries.get(id)?.parent).any(|id| id == top);
    let is_there = |entry: &Entry| [State::Registering, State::Registered].contains(&entry.state);
    entries.iter().filter(|(id, entry)| is_there(entry) && is_below(**id)).map(|(id, _)| *id).collect()
}

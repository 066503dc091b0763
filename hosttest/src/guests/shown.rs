//! The map of a guest's devices, for who wants to see it: devices and manager are gone when a guest's function returns.

use std::cell::RefCell;
use std::fmt::Display;

use vm_device::DeviceManager;

thread_local! {
    /// The maps so far, where they are asked for.
    static KEPT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls `run`, which runs guests on this thread, and returns what the maps of their managers were when they had ended.
pub fn with_maps<R>(run: impl FnOnce() -> R) -> (R, String) {
    KEPT.set(Some(String::new()));
    let result = run();
    (result, KEPT.take().unwrap_or_default())
}

/// Keeps the map of a guest that has ended, if it is asked for.
pub(super) fn keep_map(manager: &DeviceManager<'_>) {
    keep(manager.map());
}

/// The same of any manager, of which this is the map.
pub(super) fn keep(map: impl Display) {
    KEPT.with_borrow_mut(|kept| {
        if let Some(kept) = kept {
            *kept += &map.to_string();
        }
    });
}

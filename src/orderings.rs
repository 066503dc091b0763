//! The orderings and the steps of the concurrent protocols that a model shows to be needed.
//!
//! A build with `--cfg vm_device_mutation="..."` weakens one or leaves it out, and a model in `models` fails.

use crate::sync::{Ordering, fence};

/// Of a protection: it comes before the reader's look at version and state.
pub(crate) const PROTECT: Ordering = if FENCE { Ordering::SeqCst } else { Ordering::Release };

/// Of a protection that the writer's heavy barrier orders before that look. It still releases what the vCPU's last callback
/// did: a removal may see it instead of the end of the protection before it.
pub(crate) const PROTECT_ASYMMETRIC: Ordering =
    if cfg!(vm_device_mutation = "no_announced_release") { Ordering::Relaxed } else { Ordering::Release };

/// Of a protection in a stripe: its words pass from one thread to another.
pub(crate) const PROTECT_BY_EXCHANGE: Ordering = match () {
    () if cfg!(vm_device_mutation = "no_stripe_acquire") => Ordering::Release,
    () if FENCE => Ordering::SeqCst,
    () => Ordering::AcqRel,
};

/// An access takes a word of a stripe only if the word is free.
pub(crate) const PROTECT_EXCHANGE: bool = !cfg!(vm_device_mutation = "no_stripe_exchange");

/// A writer looks for readers in the stripes, and in the slot's count.
pub(crate) const STRIPE_SCAN: bool = !cfg!(vm_device_mutation = "no_stripe_scan");
pub(crate) const COUNT_SCAN: bool = !cfg!(vm_device_mutation = "no_count_scan");

/// Of the end of a protection: what the callback did comes before it.
pub(crate) const LEAVE: Ordering =
    if cfg!(vm_device_mutation = "no_release") { Ordering::Relaxed } else { Ordering::Release };

/// The order between a store and a later load, on the side of readers and of writers.
pub(crate) const FENCE: bool = !cfg!(vm_device_mutation = "no_fence");

/// A reader compares versions after its protection.
pub(crate) const VERSION_CHECK: bool = !cfg!(vm_device_mutation = "no_version_check");

/// A reader with a hint looks, after its protection, whether the slot is open as it was before.
pub(crate) const OPEN_CHECK: bool = !cfg!(vm_device_mutation = "no_stamp_check");

/// A reader forgets a hint to a slot that it has found closed.
pub(crate) const FORGET: bool = !cfg!(vm_device_mutation = "no_forget");

/// A writer closes a slot to hints before it changes where the index has the slot's range.
pub(crate) const CLOSE: bool = !cfg!(vm_device_mutation = "no_close");

/// A slot keeps the window around its range for each replica, as it keeps the base.
pub(crate) const CONTAINER_OF_VERSION: bool = !cfg!(vm_device_mutation = "no_second_container");

/// A reader that has searched takes the end of a window from the index, and not from the slot's length.
pub(crate) const WINDOW_ENDS: bool = !cfg!(vm_device_mutation = "no_window_ends");

/// A reader that has searched looks at the slot's state after its protection.
pub(crate) const STATE_CHECK: bool = !cfg!(vm_device_mutation = "no_state_check");

/// What a search loads comes before the comparison of versions.
pub(crate) const SEARCH_FENCE: bool = !cfg!(vm_device_mutation = "no_search_fence");

/// A writer looks for readers before it makes a slot vacant.
pub(crate) const WAIT: bool = !cfg!(vm_device_mutation = "no_wait");

/// A writer changes the replica of the index that is not live.
pub(crate) const OTHER_REPLICA: bool = !cfg!(vm_device_mutation = "no_other_copy");

/// The publications so far, and the closing of a slot, come before what a writer then changes.
pub(crate) const CHANGE_FENCE: bool = !cfg!(vm_device_mutation = "no_change_fence");

/// Of the length of a slot's next range: the publications so far come before it.
pub(crate) const NEW_LENGTH: Ordering =
    if cfg!(vm_device_mutation = "no_length_release") { Ordering::Relaxed } else { Ordering::Release };

/// Writers hold back for starved readers.
pub(crate) const HOLD_BACK: bool = !cfg!(vm_device_mutation = "no_hold_back");

/// A removal waits for the calls of the device's interrupt handles.
pub(crate) const GATE_WAIT: bool = !cfg!(vm_device_mutation = "no_gate_wait");

/// A connection that moves to another line is barred to new drives.
pub(crate) const MOVE_BARS: bool = !cfg!(vm_device_mutation = "no_move_bars");

/// A move of a connection waits for the drives that are under way.
pub(crate) const MOVE_WAIT: bool = !cfg!(vm_device_mutation = "no_move_wait");

/// The end of an interrupt is noted for the caller that is telling the controller.
pub(crate) const END_NOTED: bool = !cfg!(vm_device_mutation = "no_end_noted");

/// The caller that tells the controller a level looks at the level again afterwards.
pub(crate) const SECOND_LOOK: bool = !cfg!(vm_device_mutation = "no_second_look");

/// Of the end of a call of an owned manager's interrupt controller: the last one drops the controller.
#[cfg(feature = "alloc")]
pub(crate) const CONTROLLER_CALL_END: Ordering =
    if cfg!(vm_device_mutation = "no_call_end") { Ordering::Relaxed } else { Ordering::AcqRel };

/// The caller that takes the controller away drops it only if nobody is calling it.
#[cfg(feature = "alloc")]
pub(crate) const CONTROLLER_LAST_DROPS: bool = !cfg!(vm_device_mutation = "no_last_drops");

/// Keeps the loads of a search before the comparison of versions that follows.
#[inline(always)]
pub(crate) fn search_fence() {
    if SEARCH_FENCE {
        fence(Ordering::Acquire);
    }
}

/// The order between a store and a later load. Sequentially consistent operations have it by themselves; loom takes them for
/// acquire and release, and so needs a fence here. Where a [`search_fence`] follows, this one does its work too under loom.
#[inline(always)]
pub(crate) fn loom_seqcst_fence() {
    if cfg!(vm_device_loom) && FENCE {
        fence(Ordering::SeqCst);
    }
}

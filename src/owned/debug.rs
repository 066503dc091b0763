//! What a VMM's own structs need of those here: `Debug`, and that code may unwind while they are borrowed.

use core::fmt::{Debug, Formatter, Result};
use core::panic::{RefUnwindSafe, UnwindSafe};

use super::{Builder, OwnedDispatcher, OwnedManager, OwnedNested, OwnedTaken, RemovedDevice, WeakManager};

// Code of the embedder that unwinds leaves nothing stuck, and nothing half done: the concurrency contract, C27.
impl UnwindSafe for OwnedManager {}
impl RefUnwindSafe for OwnedManager {}
impl UnwindSafe for WeakManager {}
impl RefUnwindSafe for WeakManager {}
impl<const PORTS: usize, const MEMORY: usize> UnwindSafe for OwnedDispatcher<PORTS, MEMORY> {}
impl<const PORTS: usize, const MEMORY: usize> RefUnwindSafe for OwnedDispatcher<PORTS, MEMORY> {}

impl Debug for OwnedManager {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("OwnedManager").finish_non_exhaustive()
    }
}

impl Debug for WeakManager {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("WeakManager").finish_non_exhaustive()
    }
}

impl Debug for Builder {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

impl<const PORTS: usize, const MEMORY: usize> Debug for OwnedDispatcher<PORTS, MEMORY> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("OwnedDispatcher").finish_non_exhaustive()
    }
}

impl Debug for OwnedNested<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("OwnedNested").field("access", self.access).finish_non_exhaustive()
    }
}

impl Debug for OwnedTaken {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("OwnedTaken").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Debug for RemovedDevice {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("RemovedDevice").field("id", &self.id).field("name", &self.device.name()).finish_non_exhaustive()
    }
}

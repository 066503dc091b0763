//! A controller that remembers the levels it was told.

use spin::Mutex;
use vm_device::{Gsi, GuestAddress, InterruptController, InterruptError};

/// Stands before a controller.
pub(super) struct Recorded<'a> {
    controller: &'a dyn InterruptController,
    levels: Mutex<Vec<(Gsi, bool)>>,
}

impl<'a> Recorded<'a> {
    /// Nothing was told yet.
    pub(super) fn new(controller: &'a dyn InterruptController) -> Self {
        Self { controller, levels: Mutex::new(Vec::new()) }
    }

    /// What was told, in its order.
    pub(super) fn levels(&self) -> Vec<(Gsi, bool)> {
        self.levels.lock().clone()
    }
}

impl InterruptController for Recorded<'_> {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        self.levels.lock().push((gsi, asserted));
        self.controller.set_level(gsi, asserted)
    }

    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        self.controller.pulse(gsi)
    }

    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.controller.message(address, data)
    }
}

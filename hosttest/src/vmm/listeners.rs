//! Several listeners as one.

use vm_device::{PlacedRange, RangeListener, Rejected};

/// Tells several listeners of the places of ranges: one for memory slots, and one for doorbells.
pub struct Listeners<'a>(pub &'a [&'a (dyn RangeListener + 'a)]);

impl RangeListener for Listeners<'_> {
    /// If one refuses, those before it are told that the range leaves.
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        for (told, listener) in self.0.iter().enumerate() {
            if let Err(rejected) = listener.placed(range) {
                self.0.iter().take(told).for_each(|listener| listener.leaving(range));
                return Err(rejected);
            }
        }
        Ok(())
    }

    fn leaving(&self, range: &PlacedRange<'_>) {
        self.0.iter().for_each(|listener| listener.leaving(range));
    }
}

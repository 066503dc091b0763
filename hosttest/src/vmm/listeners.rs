//! Several listeners as one.

use vm_device::{PlacedRange, RangeListener, Rejected};

/// Tells several listeners of the places of ranges: one for memory slots, and one for doorbells.
pub struct Listeners<'a>(pub &'a [&'a (dyn RangeListener + 'a)]);

impl RangeListener for Listeners<'_> {
    /// If one refuses, those before it are told that the range leaves.
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        let Some(refused) = self.0.iter().position(|listener| listener.placed(range).is_err()) else { return Ok(()) };
        self.0.iter().take(refused).for_each(|listener| listener.leaving(range));
        Err(Rejected::new(0))
    }

    fn leaving(&self, range: &PlacedRange<'_>) {
        self.0.iter().for_each(|listener| listener.leaving(range));
    }
}

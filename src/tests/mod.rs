//! Tests that look inside: at slots, hints and counts of work. All others are in `tests/`.

mod calls;
mod hints;
mod worst_case;

use crate::{Access, Device};

/// A device that has a name.
struct Named<'n>(&'n str);

impl Device<'_> for Named<'_> {
    fn name(&self) -> &str {
        self.0
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

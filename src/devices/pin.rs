//! The interrupt output of a device.

use crate::interrupt::IrqLine;

/// An interrupt output. Each of its levels is told once, and again as long as it is refused.
pub(super) struct Pin<'d> {
    irq: IrqLine<'d>,
    /// The level that the interrupt has, if it was told.
    told: Option<bool>,
}

impl<'d> Pin<'d> {
    pub(super) const fn new() -> Self {
        Self { irq: IrqLine::DISCONNECTED, told: None }
    }

    pub(super) fn connect(&mut self, irq: IrqLine<'d>) {
        *self = Self { irq, told: None };
    }

    pub(super) fn set(&mut self, level: bool) {
        if self.told != Some(level) {
            let told = if level { self.irq.assert() } else { self.irq.deassert() };
            // A level that was not taken is told again.
            self.told = told.is_ok().then_some(level);
        }
    }
}

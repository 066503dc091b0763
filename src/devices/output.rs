//! The output of a device that drives one of its interrupts.

use super::time::RETRY;
use crate::interrupt::{InterruptError, IrqLine};

/// How many edges wait at most until they are signalled. Those beyond are lost: a guest that is so late has no use for them.
pub(super) const MOST_EDGES: u64 = 8;

/// An interrupt line with what the controller has taken from it.
#[derive(Clone, Copy)]
pub(super) struct Output<'d> {
    line: IrqLine<'d>,
    /// The level, if it was taken.
    told: Option<bool>,
    /// The level was not taken, but may be another time.
    is_refused: bool,
    /// The edges that are due and were not taken.
    edges: u64,
}

impl<'d> Output<'d> {
    pub(super) const DISCONNECTED: Self = Self::new(IrqLine::DISCONNECTED);

    pub(super) const fn new(line: IrqLine<'d>) -> Self {
        Self { line, told: None, is_refused: false, edges: 0 }
    }

    pub(super) const fn line(&self) -> IrqLine<'d> {
        self.line
    }

    /// Drives a level. One that was refused is told again by the next call.
    pub(super) fn set(&mut self, level: bool) {
        if self.told != Some(level) {
            let told = if level { self.line.assert() } else { self.line.deassert() };
            self.told = told.is_ok().then_some(level);
            self.is_refused = matches!(told, Err(InterruptError::Refused | InterruptError::Pending));
        }
    }

    /// When the device is to be told the time: at a deadline of its own, or earlier if the controller has refused something.
    pub(super) fn deadline(&self, own: Option<u64>, now: u64) -> Option<u64> {
        let is_owed = self.is_refused || self.edges != 0;
        own.into_iter().chain(is_owed.then(|| now.saturating_add(RETRY))).min()
    }

    /// Signals edges that have become due, and those that the controller has refused before.
    pub(super) fn signal(&mut self, due: u64) {
        self.edges = self.edges.saturating_add(due).min(MOST_EDGES);
        while self.edges != 0 && self.pulse() {
            self.edges -= 1;
        }
    }

    /// Edges that were refused are due no more, and no level is asserted.
    pub(super) fn reset(&mut self) {
        self.edges = 0;
        self.set(false);
    }

    /// Signals an edge, and returns false if the controller has refused it. On a line that is shared, and so has a level, the
    /// edge is a level that is asserted for a moment.
    fn pulse(&mut self) -> bool {
        match self.line.pulse() {
            Err(InterruptError::SharedLine) => {
                self.set(true);
                let taken = self.told.is_some();
                self.set(false);
                taken
            }
            Err(InterruptError::Refused) => false,
            _ => true,
        }
    }
}

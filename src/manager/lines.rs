//! Giving devices interrupt lines, alone or shared, and taking them back.

use crate::error::{IrqError, Owner, RegisterError};
use crate::indices::LineIndex;
use crate::interrupt::{Gsi, MAX_SHARING};
use crate::manager::line::{LineRecord, LineShare};
use crate::manager::state::State;
use crate::resource::IrqResource;

impl<'d> State<'_, 'd> {
    /// Takes an interrupt line: the given one, or the lowest that is free.
    pub(crate) fn allocate_irq(&mut self, gsi: Option<Gsi>) -> Result<Gsi, IrqError> {
        let irqs = self.irqs.as_mut().map_err(|error| *error)?;
        match gsi {
            Some(gsi) => irqs.allocate(gsi).map(|()| gsi),
            None => irqs.allocate_any(),
        }
    }

    pub(crate) fn free_irq(&mut self, gsi: Gsi) -> Result<(), IrqError> {
        self.irqs.as_mut().map_err(|error| *error)?.free(gsi)
    }

    /// Gives a device the line that it asks for.
    pub(crate) fn take_line(
        &mut self,
        device: &'d str,
        irq: IrqResource,
    ) -> Result<Option<LineShare>, RegisterError<'d>> {
        let (wanted, shared) = match irq {
            IrqResource::Any => (None, false),
            IrqResource::Fixed(gsi) => (Some(gsi), false),
            IrqResource::Shared(gsi) => (Some(gsi), true),
        };
        match self.allocate_irq(wanted) {
            Ok(gsi) => {
                // There are as many records as devices, and a device has one line; but removed devices may owe some.
                let Some((record, line)) = records(self.lines).find(|(record, _)| record.is_free()) else {
                    let _ = self.free_irq(gsi);
                    return Err(RegisterError::LinesOwed { device });
                };
                *record = LineRecord { gsi, sources: 1, shared, owed: false };
                Ok(Some(LineShare::new(line, 0)))
            }
            Err(IrqError::InUse { gsi }) => self.share_line(device, gsi, shared),
            Err(error) => Err(RegisterError::Irq { device, error }),
        }
    }

    /// A further source on a line that is in use.
    fn share_line(&mut self, device: &'d str, gsi: Gsi, shared: bool) -> Result<Option<LineShare>, RegisterError<'d>> {
        let found = records(self.lines).find(|(record, _)| record.gsi == gsi && !record.is_free());
        match found {
            // No device has the line: it is owed. Its level says what the controller has taken, and the device goes on from
            // there.
            Some((record, line)) if record.sources & !LineRecord::COLLECTOR == 0 => {
                let share = LineShare::new(line, 0);
                (record.sources, record.shared) = (record.sources | share.source(), shared);
                Ok(Some(share))
            }
            Some((record, line)) if shared && record.shared => {
                let free = record.sources.trailing_ones();
                if free as usize >= MAX_SHARING {
                    return Err(RegisterError::LineFull { device, gsi });
                }
                let share = LineShare::new(line, free);
                record.sources |= share.source();
                Ok(Some(share))
            }
            _ => Err(RegisterError::IrqTaken { device, gsi, owner: self.irq_owner(gsi) }),
        }
    }

    /// The holder of a line: of several, the first in the walk.
    fn irq_owner(&self, gsi: Gsi) -> Owner<'d> {
        let mut next = self.tree.first_root();
        while let Some((index, node)) = next.and_then(|index| Some((index, self.tree.node(index)?))) {
            if node.line.and_then(|share| self.line(share.line)).is_some_and(|record| record.gsi == gsi) {
                return Owner::Device { id: node.id(), name: node.name };
            }
            next = self.tree.next_in_walk(index, None);
        }
        Owner::Vmm
    }

    /// Takes a source off its line. `is_settled` says that the controller has taken the line's level.
    pub(crate) fn give_back_line(&mut self, share: Option<LineShare>, is_settled: bool) {
        let Some(share) = share else { return };
        let Some(record) = self.lines.get_mut(share.line.position()) else { return };
        record.sources &= !share.source();
        if !is_settled && !record.owed {
            record.owed = true;
            self.left.owed = self.left.owed.saturating_add(1);
        }
        if record.is_free() {
            let gsi = record.gsi;
            // The line is allocated as long as it has a source, or is owed.
            let _ = self.free_irq(gsi);
        }
    }

    /// Claims an owed line for a caller that tells the controller its level: the first behind `after`, or the first of all.
    pub(crate) fn take_owed(&mut self, after: Option<LineIndex>) -> Option<LineShare> {
        let is_unclaimed = |record: &LineRecord| record.owed && record.sources & LineRecord::COLLECTOR == 0;
        let (record, line) = records(self.lines).find(|(record, line)| Some(*line) > after && is_unclaimed(record))?;
        record.sources |= LineRecord::COLLECTOR;
        Some(LineShare::new(line, LineRecord::COLLECTOR.trailing_zeros()))
    }

    /// Gives back a line that [`take_owed`](Self::take_owed) has claimed. If it `is_settled`, it is owed no more.
    pub(crate) fn give_back_owed(&mut self, share: LineShare, is_settled: bool) {
        if let Some(record) = self.lines.get_mut(share.line.position())
            && is_settled
        {
            record.owed = false;
            self.left.owed = self.left.owed.saturating_sub(1);
        }
        self.give_back_line(Some(share), is_settled);
    }
}

/// The records with their indices.
fn records(lines: &mut [LineRecord]) -> impl Iterator<Item = (&mut LineRecord, LineIndex)> {
    lines.iter_mut().enumerate().filter_map(|(position, record)| Some((record, LineIndex::at(position)?)))
}

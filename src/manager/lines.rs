//! Giving devices interrupts, each a source of a line, alone or shared, and taking them back.

use crate::error::{IrqError, IrqRefusal, Owner};
use crate::indices::{ConnectionIndex, LineIndex, NodeIndex};
use crate::interrupt::{Connection, ControllerLine, Gsi, InterruptController, InterruptError, LineLevel, LineShare};
use crate::manager::line::LineRecord;
use crate::manager::state::State;
use crate::resource::IrqResource;
use crate::sync::Ordering;

/// A source of a line, with what a caller needs to tell the controller the line's level.
#[derive(Clone, Copy)]
pub(crate) struct LineSource<'d> {
    pub(crate) share: LineShare,
    pub(crate) level: &'d LineLevel,
    pub(crate) gsi: Gsi,
}

impl LineSource<'_> {
    /// The line, as its controller knows it.
    pub(crate) fn at<'c>(&self, controller: &'c dyn InterruptController) -> ControllerLine<'c> {
        ControllerLine { controller, gsi: self.gsi }
    }

    /// Drives the source, as a handle does that may wait.
    pub(crate) fn drive(
        &self,
        controller: Option<&dyn InterruptController>,
        asserted: bool,
    ) -> Result<(), InterruptError> {
        let controller = controller.ok_or(InterruptError::NoController)?;
        self.level.drive(self.share.bit(), asserted, self.at(controller))
    }

    /// Takes the source's assertion back, when no handle drives it any more. Afterwards the level knows whether the controller
    /// has taken that.
    pub(crate) fn release(&self, controller: Option<&dyn InterruptController>) {
        if let Some(controller) = controller {
            self.level.release(self.share.bit(), self.at(controller));
        }
    }
}

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

    /// Gives a device the interrupts that it asks for, as a linked list, and returns the first; or gives none, and returns which
    /// it cannot have.
    pub(crate) fn take_interrupts(
        &mut self,
        requests: &[IrqResource],
    ) -> Result<Option<ConnectionIndex>, (usize, IrqRefusal<&'d str>)> {
        let (mut first, mut last) = (None, None::<ConnectionIndex>);
        for (index, request) in requests.iter().enumerate() {
            match self.take_interrupt(*request) {
                Ok(connection) => {
                    match last.and_then(|last| self.next_connections.get_mut(last.position())) {
                        Some(next) => *next = Some(connection),
                        None => first = Some(connection),
                    }
                    last = Some(connection);
                }
                Err(refusal) => {
                    self.give_back_interrupts(first);
                    return Err((index, refusal));
                }
            }
        }
        Ok(first)
    }

    fn take_interrupt(&mut self, request: IrqResource) -> Result<ConnectionIndex, IrqRefusal<&'d str>> {
        let connections = self.parts.connections();
        let free = connections.iter().position(Connection::is_free).and_then(ConnectionIndex::at);
        let index = free.ok_or(IrqRefusal::TooManyInterrupts { capacity: connections.len() })?;
        let (share, shared) = match request {
            IrqResource::Any => (Some(self.take_source(None, false)?), false),
            IrqResource::Fixed(gsi) => (Some(self.take_source(Some(gsi), false)?), false),
            IrqResource::Shared(gsi) => (Some(self.take_source(Some(gsi), true)?), true),
            IrqResource::Unrouted => (None, true),
        };
        if let Some(connection) = self.connection(index) {
            connection.connect(share, shared);
        }
        if let Some(next) = self.next_connections.get_mut(index.position()) {
            *next = None;
        }
        Ok(index)
    }

    /// Takes a source of the given line, or of the lowest that is free.
    pub(crate) fn take_source(&mut self, gsi: Option<Gsi>, shared: bool) -> Result<LineShare, IrqRefusal<&'d str>> {
        match self.allocate_irq(gsi) {
            Ok(gsi) => {
                let Some(line) = self.free_line() else {
                    let _ = self.free_irq(gsi);
                    let capacity = self.lines.len();
                    return Err(IrqRefusal::TooManyLines { capacity, owed: self.left.owed.into() });
                };
                if let Some(number) = self.parts.numbers().get(line.position()) {
                    // A handle that finds the line in a connection also finds this number: the connection's word is stored later.
                    number.store(gsi.0.wrapping_sub(self.first_gsi().0) as u16, Ordering::Relaxed);
                }
                Ok(self.give_source(line, 0, shared))
            }
            Err(IrqError::InUse { gsi }) => self.share_line(gsi, shared),
            Err(error) => Err(IrqRefusal::Pool(error)),
        }
    }

    fn free_line(&self) -> Option<LineIndex> {
        self.lines.iter().position(|record| record.is_free()).and_then(LineIndex::at)
    }

    fn give_source(&mut self, line: LineIndex, source: u32, shared: bool) -> LineShare {
        let share = LineShare::new(line, source);
        if let Some(record) = self.lines.get_mut(line.position()) {
            record.give(share, shared);
        }
        share
    }

    /// A further source on a line that is in use.
    fn share_line(&mut self, gsi: Gsi, shared: bool) -> Result<LineShare, IrqRefusal<&'d str>> {
        let found = self.line_at(gsi).and_then(|line| Some((line, *self.lines.get(line.position())?)));
        match found {
            // No device has the line: it is owed. Its level says what the controller has taken, and the device goes on from
            // there.
            Some((line, record)) if !record.has_sources() => Ok(self.give_source(line, 0, shared)),
            Some((line, record)) if shared && record.is_shared() => match record.free_source() {
                Some(source) => Ok(self.give_source(line, source, shared)),
                None => Err(IrqRefusal::LineFull { gsi }),
            },
            _ => Err(IrqRefusal::Taken { gsi, owner: self.irq_owner(gsi) }),
        }
    }

    /// The line in use with this GSI.
    pub(crate) fn line_at(&self, gsi: Gsi) -> Option<LineIndex> {
        let number = gsi.0.checked_sub(self.first_gsi().0)?;
        let is_meant = |(record, of): (&LineRecord, &crate::sync::AtomicU16)| {
            !record.is_free() && u32::from(of.load(Ordering::Relaxed)) == number
        };
        self.lines.iter().zip(self.parts.numbers()).position(is_meant).and_then(LineIndex::at)
    }

    /// The first line of the allocator; 0 if it has none.
    pub(crate) fn first_gsi(&self) -> Gsi {
        self.irqs.as_ref().map_or(Gsi(0), |irqs| irqs.first())
    }

    pub(crate) fn connection(&self, index: ConnectionIndex) -> Option<&'d Connection> {
        self.parts.connections().get(index.position())
    }

    /// The connection behind this one among those of the same device.
    pub(crate) fn next_connection(&self, index: ConnectionIndex) -> Option<ConnectionIndex> {
        *self.next_connections.get(index.position())?
    }

    /// The interrupts of a node, in the order of the requests.
    pub(crate) fn connections_of(&self, node: NodeIndex) -> impl Iterator<Item = &'d Connection> {
        let first = self.tree.node(node).and_then(|node| node.first_connection);
        core::iter::successors(first, |index| self.next_connection(*index)).filter_map(|index| self.connection(index))
    }

    /// The source with this share of a line.
    pub(crate) fn source(&self, share: LineShare) -> Option<LineSource<'d>> {
        let number = self.parts.numbers().get(share.line.position())?.load(Ordering::Relaxed);
        let gsi = Gsi(self.first_gsi().0.checked_add(number.into())?);
        Some(LineSource { share, level: self.parts.levels().get(share.line.position())?, gsi })
    }

    /// The holder of a line: of several, the first in the walk.
    fn irq_owner(&self, gsi: Gsi) -> Owner<&'d str> {
        let line = self.line_at(gsi);
        let has_it = |connection: &Connection| line.is_some() && connection.share().map(|share| share.line) == line;
        let mut next = self.tree.first_root();
        while let Some((index, node)) = next.and_then(|index| Some((index, self.tree.node(index)?))) {
            if self.connections_of(index).any(has_it) {
                return Owner::Device { id: self.tree.id(index), name: node.name };
            }
            next = self.tree.next_in_walk(index, None);
        }
        Owner::Vmm
    }

    /// Takes the interrupts of a device back, of which no handle is in use any more. A source that still asserts its line does so
    /// no more; the controller is told by `collect`.
    pub(crate) fn give_back_interrupts(&mut self, first: Option<ConnectionIndex>) {
        let mut next = first;
        while let Some((index, connection)) = next.and_then(|index| Some((index, self.connection(index)?))) {
            if let Some(share) = connection.share() {
                self.give_back_source(share);
            }
            connection.disconnect();
            next = self.next_connection(index);
        }
    }

    /// Takes a source off its line. Whether the controller has taken the line's level is seen here, under the lock: until now
    /// another device may have driven the line.
    pub(crate) fn give_back_source(&mut self, share: LineShare) {
        let Some(source) = self.source(share) else { return };
        source.level.set(share.bit(), false);
        let Some(record) = self.lines.get_mut(share.line.position()) else { return };
        record.give_back(share);
        if !source.level.is_settled() && !record.is_owed() {
            record.set_owed(true);
            self.left.owed = self.left.owed.saturating_add(1);
        }
        if record.is_free() {
            // The line is allocated as long as it has a source, or is owed.
            let _ = self.free_irq(source.gsi);
        }
    }

    /// Claims an owed line for a caller that tells the controller its level: the first behind `after`, or the first of all.
    pub(crate) fn take_owed(&mut self, after: Option<LineIndex>) -> Option<LineShare> {
        let from = after.map_or(0, |line| line.position().saturating_add(1));
        let unclaimed =
            self.lines.iter_mut().enumerate().skip(from).find(|(_, record)| record.is_owed() && !record.is_collected());
        let (position, record) = unclaimed?;
        record.claim_for_collector();
        Some(LineShare::new(LineIndex::at(position)?, LineRecord::COLLECTOR))
    }

    /// Gives back a line that [`take_owed`](Self::take_owed) has claimed. If the controller has taken its level, it is owed no
    /// more.
    pub(crate) fn give_back_owed(&mut self, share: LineShare) {
        let is_settled = self.source(share).is_none_or(|source| source.level.is_settled());
        if let Some(record) = self.lines.get_mut(share.line.position())
            && is_settled
        {
            record.set_owed(false);
            self.left.owed = self.left.owed.saturating_sub(1);
        }
        self.give_back_source(share);
    }
}

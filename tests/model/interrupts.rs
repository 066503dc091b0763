//! Interrupts of devices, and their moves to other lines.

use vm_device::{Accesses, Gsi, IrqResource};

use crate::plain::{Irq, Model};
use crate::steps::Run;

/// The lines that there are.
pub(crate) const LINES: [u32; 2] = [5, 7];

impl Model {
    /// What a device gets that asks for one interrupt and has taken `own` before, if it gets anything.
    fn give(&self, own: &[Irq], request: IrqResource) -> Option<Irq> {
        let all = || self.instances.iter().flat_map(|instance| &instance.irqs).chain(own);
        if all().count() == self.ranges {
            return None;
        }
        let free = || (LINES[0]..=LINES[1]).map(Gsi).find(|gsi| all().all(|irq| irq.gsi != Some(*gsi)));
        let (gsi, shared) = match request {
            IrqResource::Unrouted => return Some(Irq { gsi: None, shared: true }),
            IrqResource::Any => (free()?, false),
            IrqResource::Fixed(gsi) => (gsi, false),
            IrqResource::Shared(gsi) => (gsi, true),
        };
        self.can_have(own, gsi, shared).then_some(Irq { gsi: Some(gsi), shared })
    }

    /// Whether an interrupt can have a line that is none of its own.
    fn can_have(&self, own: &[Irq], gsi: Gsi, shared: bool) -> bool {
        let all = || self.instances.iter().flat_map(|instance| &instance.irqs).chain(own);
        let mut lines: Vec<_> = all().filter_map(|irq| irq.gsi).collect();
        lines.sort();
        lines.dedup();
        let is_new = !lines.contains(&gsi);
        let mut others = all().filter(|irq| irq.gsi == Some(gsi));
        (LINES[0]..=LINES[1]).contains(&gsi.0)
            && (!is_new || lines.len() < self.devices)
            && others.all(|other| shared && other.shared)
    }

    /// What a device gets for these requests, if it gets all of it.
    pub(crate) fn give_all(&self, requests: &[IrqResource]) -> Option<Vec<Irq>> {
        let mut own = Vec::new();
        for request in requests {
            own.push(self.give(&own, *request)?);
        }
        Some(own)
    }
}

impl<V: Accesses> Run<'_, V> {
    pub(crate) fn reroute(&mut self, pick: usize, index: usize, gsi: Option<Gsi>) -> bool {
        let id = self.pick(pick);
        let now = self.is_live(id).then(|| self.model.instance(id).irqs.get(index).copied()).flatten();
        let possible = now.is_some_and(|now| match gsi {
            Some(gsi) => now.gsi == Some(gsi) || self.model.can_have(&[], gsi, now.shared),
            None => true,
        });
        let got = self.manager.reroute(id, index, gsi);
        assert_eq!(got.is_ok(), possible, "{got:?}");
        if possible && let Some(instance) = self.model.instances.iter_mut().find(|instance| instance.id == id) {
            instance.irqs[index].gsi = gsi;
        }
        !possible
    }
}

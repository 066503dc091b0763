//! An interrupt moves to another line.

use crate::error::RerouteError;
use crate::instance::InstanceId;
use crate::interrupt::Gsi;
use crate::manager::device_manager::DeviceManager;
use crate::manager::on_drop::OnDrop;
use crate::manager::tree::NodeState;

impl<'d> DeviceManager<'d> {
    /// Moves interrupt number `index` of a device to another line, or takes its line away: what a chipset does when the guest
    /// programs where an interrupt pin of a slot goes (PIRQ routing: Intel PIIX3 datasheet, PIRQRC registers).
    ///
    /// The handles of the device follow. An interrupt that is asserted is asserted on the new line before the old one is let go.
    /// Without a line its level is kept, and told when it gets one. An interrupt that asked for a line of its own gets one alone;
    /// any other shares the new line with those that share it.
    ///
    /// It waits for calls of the interrupt's handles that are under way, and they wait for it. So it must not be called by the
    /// interrupt controller.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, Gsi, IoRange, IrqResource, Storage, SystemAllocator};
    ///
    /// let card = Constant("card", 1);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 23));
    /// // Until firmware has programmed the router, the pin leads nowhere.
    /// let card = manager.register_device(&card, None, &[], &[IrqResource::Unrouted]).unwrap();
    /// assert_eq!(manager.irq(card, 0).unwrap().gsi, None);
    /// manager.reroute(card, 0, Some(Gsi(11))).unwrap();
    /// assert_eq!(manager.irq(card, 0).unwrap().gsi, Some(Gsi(11)));
    /// ```
    ///
    /// # Errors
    /// [`RerouteError`]; the interrupt has kept its line then. While it moves it has both lines, so that a move to a line that is
    /// free needs room for one more ([`IrqRefusal::TooManyLines`](crate::IrqRefusal::TooManyLines)). A controller that does not take the level of the old line is told
    /// again by [`collect`](Self::collect).
    pub fn reroute(&self, id: InstanceId, index: usize, gsi: Option<Gsi>) -> Result<(), RerouteError<&'d str>> {
        let not_found = RerouteError::NotFound { id };
        let (device, connection, old, new, _passage) = {
            let mut locked = self.lock().ok_or(not_found)?;
            let mut state = locked.state();
            let node = state.tree.get(id).ok_or(not_found)?;
            let (device, is_live) = (node.name, node.state == NodeState::LIVE);
            let no_such = RerouteError::NoSuchInterrupt { device, index };
            let connection = state.connections_of(id.index).nth(index).ok_or(no_such)?;
            // Under the lock no other move begins, and no removal.
            let busy = RerouteError::Busy { device };
            let gate = self.gate(id.index).filter(|_| is_live && !connection.is_moving()).ok_or(busy)?;
            let old = connection.share().and_then(|share| state.source(share));
            if old.map(|old| old.gsi) == gsi {
                return Ok(());
            }
            let passage = gate.enter(gate.generation()).map_err(|_| busy)?;
            let new = match gsi {
                Some(gsi) => {
                    let refused = |refusal| RerouteError::Line { device, index, refusal };
                    let share = state.take_source(Some(gsi), connection.is_shared()).map_err(refused)?;
                    state.source(share)
                }
                None => None,
            };
            connection.begin_move();
            (device, connection, old, new, passage)
        };
        // The source that the interrupt does not have at the end, whatever happens meanwhile.
        let mut left = OnDrop::new(new, |left| {
            if let Some(source) = *left {
                self.with_state(|state| state.give_back_source(source.share));
            }
        });
        connection.wait_idle();
        let asserted = match old {
            Some(old) => old.level.is_asserted_by(old.share.bit()),
            None => connection.is_asserted(),
        };
        let mut stays = OnDrop::new(old, |stays| connection.end_move(stays.map(|source| source.share), asserted));
        if asserted
            && let Some(new) = new
            && let Some(controller) = self.controller
            && let Err(error) = new.level.assert_taken(new.share.bit(), new.at(controller))
        {
            let _ = new.drive(self.controller, false);
            return Err(RerouteError::Controller { device, index, gsi: new.gsi, error });
        }
        stays.value = new;
        drop(stays);
        left.value = old;
        if let Some(old) = old {
            let _ = old.drive(self.controller, false);
        }
        Ok(())
    }
}

//! The end of an interrupt is passed on to the devices of its line.

use heapless::Vec;

use crate::instance::InstanceId;
use crate::interrupt::{Gsi, InterruptError, MAX_SHARING};
use crate::manager::device_manager::DeviceManager;
use crate::manager::state::State;
use crate::manager::tree::{Node, NodeState};
use crate::resource::MAX_IRQS_PER_DEVICE;

/// An interrupt of a device: which device, and which of its interrupts.
type Interrupt = (InstanceId, u8);

impl<'d> DeviceManager<'d> {
    /// The guest has ended an interrupt of a level-triggered line (EOI: Intel SDM vol. 3A, 11.8.5; what KVM tells by a resample
    /// eventfd or the exit `KVM_EXIT_IOAPIC_EOI`). Each device with an interrupt on the line is told by
    /// [`Device::end_of_interrupt`](crate::Device::end_of_interrupt). If the line is asserted still, the controller is told so
    /// again, because it may have let the line go.
    ///
    /// A device that is removed or leaves the line meanwhile is told or not. A removal waits for the call as for a callback. Where a
    /// device unwinds, the others are not told, and the level is told again by the next drive of the line.
    ///
    /// It must not be called from within [`set_level`](crate::InterruptController::set_level): the device that asserts the line
    /// may hold a lock of its own there. A controller notes the end, and the VMM passes it on afterwards.
    ///
    /// ```
    /// use core::sync::atomic::{AtomicU32, Ordering};
    /// use vm_device::{Device, DeviceManager, Gsi, IoRange, IrqResource, Storage, SystemAllocator};
    ///
    /// /// Counts the interrupts that the guest has served.
    /// struct Served(AtomicU32);
    ///
    /// impl Device<'_> for Served {
    ///     fn name(&self) -> &str {
    ///         "served"
    ///     }
    ///     # fn read(&self, _: &vm_device::Access<'_>, _: &mut [u8]) {}
    ///     # fn write(&self, _: &vm_device::Access<'_>, _: &[u8]) {}
    ///     fn end_of_interrupt(&self, _: usize) {
    ///         self.0.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// let device = Served(AtomicU32::new(0));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 23));
    /// manager.register_device(&device, None, &[], &[IrqResource::Fixed(Gsi(11))]).unwrap();
    /// let _ = manager.end_of_interrupt(Gsi(11));
    /// assert_eq!(device.0.load(Ordering::Relaxed), 1);
    /// ```
    ///
    /// # Errors
    /// [`InterruptError`]: `NoLine` if no device has the line, `NoController`, and what [`IrqLine::assert`](crate::IrqLine::assert) says of telling the
    /// controller the level again. The devices have been told all the same, but for `NoLine`.
    pub fn end_of_interrupt(&self, gsi: Gsi) -> Result<(), InterruptError> {
        let interrupts = self.with_state(|state| state.end_on(gsi)).unwrap_or_default();
        if interrupts.is_empty() {
            return Err(InterruptError::NoLine);
        }
        for (id, index) in &interrupts {
            if let Some(call) = self.wait_for_call(*id) {
                call.device.end_of_interrupt((*index).into());
            }
        }
        if self.controller.is_none() {
            return Err(InterruptError::NoController);
        }
        // Through the handle of a device that has the line now, so that the line stays meanwhile. A device that leaves it in this
        // moment is not the next.
        let next = || {
            self.with_state(|state| {
                let (id, index) = *state.interrupts_on(gsi).first()?;
                self.handle(state, id, index.into())
            })
        };
        while let Some(Some(line)) = next() {
            if let Some(outcome) = line.settle(gsi) {
                return outcome;
            }
        }
        Ok(())
    }
}

impl State<'_, '_> {
    /// Notes the end of an interrupt of a line, and returns the interrupts on it.
    fn end_on(&self, gsi: Gsi) -> Vec<Interrupt, MAX_SHARING> {
        let interrupts = self.interrupts_on(gsi);
        if let Some(level) = self.line_at(gsi).and_then(|line| self.parts.levels().get(line.position())) {
            level.note_end();
        }
        interrupts
    }

    /// The interrupts on a line, of devices whose handles do something: that are registered, or are being registered.
    fn interrupts_on(&self, gsi: Gsi) -> Vec<Interrupt, MAX_SHARING> {
        let mut found = Vec::new();
        let Some(line) = self.line_at(gsi) else { return found };
        let is_open = |node: &&Node<'_>| [NodeState::LIVE, NodeState::REGISTERING].contains(&node.state);
        for node in self.tree.nodes().filter(is_open) {
            for (index, connection) in (0..MAX_IRQS_PER_DEVICE as u8).zip(self.connections_of(node.index())) {
                if connection.share().is_some_and(|share| share.line == line) {
                    // A line has no more sources than there is room for.
                    let _ = found.push((self.tree.id(node.index()), index));
                }
            }
        }
        found
    }
}

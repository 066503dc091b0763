//! The resources of a device, from when they are taken until the device is registered with them.

use core::mem;

use heapless::Vec;

use crate::access::{Access, Target};
use crate::address::IoType;
use crate::device::{Device, Doorbell};
use crate::error::RegisterError;
use crate::indices::NodeIndex;
use crate::instance::InstanceId;
use crate::interrupt::IrqLine;
use crate::manager::device_manager::DeviceManager;
use crate::manager::notify::RefusedPlace;
use crate::manager::occupant::Occupant;
use crate::manager::state::State;
use crate::manager::take::Request;
use crate::manager::tree::NodeState;
use crate::resource::{Assigned, IoResource, IrqResource, MAX_IRQS_PER_DEVICE, MAX_RANGES_PER_DEVICE, Resources};
use crate::sizes::AccessSizes;

/// Stands in the tree for a device that does not exist yet. No access reaches it.
struct Absent;

impl Device<'_> for Absent {
    fn name(&self) -> &str {
        ""
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

/// The ranges and the line of a device that does not exist yet, as [`DeviceManager::take`] has taken them.
///
/// The registration consumes it. If it is dropped, everything is given back.
pub struct Taken<'d> {
    manager: &'d DeviceManager<'d>,
    id: InstanceId,
    name: &'d str,
    sizes: Vec<AccessSizes, MAX_RANGES_PER_DEVICE>,
}

impl<'d> DeviceManager<'d> {
    /// Takes the ranges and the line of a device before the device exists: for one that is made from them, because its
    /// interrupt is an irqfd, or its address stands on a kernel's command line. [`Taken::register`] registers the device.
    ///
    /// `name` is the name that the device will have; until then it is shown as being registered. Otherwise as
    /// [`register_device`](Self::register_device).
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, GuestUsize, IoRange, IoResource, IoType, IrqResource, Storage, SystemAllocator};
    ///
    /// static STORAGE: Storage<8, 16, 2> = Storage::new();
    /// static MANAGER: DeviceManager<'static> =
    ///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::of::<0xc000_0000, 0xffff_ffff>()).with_irqs(5, 15));
    ///
    /// let range = IoResource::any(IoType::Mmio, GuestUsize(0x200)).aligned(0x200);
    /// let taken = MANAGER.take("disk", None, &[range], &[IrqResource::Any])?;
    /// let (base, gsi) = (taken.range(0).unwrap().range.first(), taken.irq(0).gsi().unwrap().0);
    /// // The guest's kernel is told where the device will be, and the device is made.
    /// assert_eq!(format!("virtio_mmio.device=0x200@{base}:{gsi}"), "virtio_mmio.device=0x200@0xc0000000:5");
    /// static DISK: Constant = Constant("disk", 7);
    /// let disk = taken.register(&DISK)?;
    /// assert_eq!(MANAGER.range(disk, 0).unwrap().range.first(), base);
    ///
    /// // What is not used is given back.
    /// drop(MANAGER.take("net", None, &[range], &[IrqResource::Any])?);
    /// assert_eq!(MANAGER.walk().count(), 1);
    /// # Ok::<(), vm_device::RegisterError<&'static str>>(())
    /// ```
    ///
    /// # Errors
    /// As [`register_device`](Self::register_device), `Rejected` excepted.
    pub fn take(
        &'d self,
        name: &'d str,
        parent: Option<InstanceId>,
        requests: &[IoResource],
        irqs: &[IrqResource],
    ) -> Result<Taken<'d>, RegisterError<&'d str>> {
        self.take_for(Request { device: &Absent, name, parent, ranges: requests, irqs })
    }

    /// Takes what a registration asks for.
    pub(crate) fn take_for(&'d self, request: Request<'_, 'd>) -> Result<Taken<'d>, RegisterError<&'d str>> {
        self.collect();
        let Request { name, ranges, .. } = request;
        let id = self.lock().ok_or(RegisterError::StorageInUse { device: name })?.state().take(&request)?;
        let mut sizes = Vec::new();
        for range in ranges {
            // A device has no more ranges than there is room for.
            let _ = sizes.push(range.access_sizes());
        }
        Ok(Taken { manager: self, id, name, sizes })
    }
}

impl<'d> Taken<'d> {
    /// The id that the device will have.
    pub fn id(&self) -> InstanceId {
        self.id
    }

    /// Range number `index`, in the order of the requests; `None` if there were fewer.
    pub fn range(&self, index: usize) -> Option<Assigned> {
        self.manager.range(self.id, index)
    }

    /// Interrupt number `index` of the device, as [`Device::set_resources`] will tell it.
    pub fn irq(&self, index: usize) -> IrqLine<'d> {
        let handle = self.manager.with_state(|state| self.manager.handle(state, self.id, index));
        handle.flatten().unwrap_or(IrqLine::DISCONNECTED)
    }

    /// Registers the device: tells it what it has, and makes it reachable.
    ///
    /// # Errors
    /// [`RegisterError::OtherName`] if the device's name is not the one that was given, [`RegisterError::Rejected`] if the
    /// device does not accept what it has. Everything is given back then.
    pub fn register(self, device: &'d dyn Device<'d>) -> Result<InstanceId, RegisterError<&'d str>> {
        let Self { manager, id, name, .. } = self;
        if !device.name().bytes().eq(name.bytes()) {
            return Err(RegisterError::OtherName { device: device.name(), taken: name });
        }
        // The device's own code, without the lock.
        let doorbells = manager.listener.map(|_| device.doorbells());
        let given = manager.with_state(|state| {
            if let Some(node) = state.tree.node_mut(id.index) {
                node.device = device;
            }
            if let Some(doorbells) = doorbells {
                state.set_listened(id.index, doorbells);
            }
            let mut ranges = Vec::<Assigned, MAX_RANGES_PER_DEVICE>::new();
            for (_, range) in state.ranges_of(id.index) {
                // A device has no more ranges than there is room for.
                let _ = ranges.push(range.assigned());
            }
            let mut irqs = Vec::<IrqLine<'d>, MAX_IRQS_PER_DEVICE>::new();
            for handle in (0..MAX_IRQS_PER_DEVICE).map_while(|index| manager.handle(state, id, index)) {
                let _ = irqs.push(handle);
            }
            (ranges, irqs)
        });
        // No lock is held here: the device may look around, and register others.
        let (ranges, irqs) = given.unwrap_or_default();
        if let Err(rejected) = device.set_resources(&Resources { id: Some(id), ranges: &ranges, irqs: &irqs }) {
            return Err(RegisterError::Rejected { device: name, code: rejected.code() });
        }
        let has_news = |state: &mut State<'_, 'd>| state.has_untold(id.index) && manager.take_turn(state);
        let mut turn = None;
        if let Some(listener) = manager.listener
            && manager.with_state(has_news) == Some(true)
        {
            turn = Some(manager.turn());
            if let Err(RefusedPlace { device, index, code }) = listener.tell_registered(manager, id.index) {
                return Err(RegisterError::ListenerRefused { device, index, code });
            }
        }
        // The storage is this manager's.
        manager.with_state(|state| {
            let mut dispatched = false;
            for (sizes, (slot, range)) in self.sizes.iter().zip(state.ranges_of(id.index)) {
                dispatched |= range.is_dispatched();
                if range.io_type() != IoType::PhysicalMmio {
                    let target = Target::new(Some(id), range.index(), range.io_type(), *sizes);
                    let occupant = Occupant { device, target };
                    let length = range.range.last().0.wrapping_sub(range.range.first().0).wrapping_add(1);
                    let installed = manager.slots.install(slot, occupant, length, range.is_window());
                    debug_assert!(installed, "a free range has a vacant slot");
                }
            }
            if let Some(node) = state.tree.node_mut(id.index) {
                node.state = NodeState::LIVE;
            }
            if dispatched {
                manager.publish(|pass| {
                    for (slot, range) in state.ranges_of(id.index) {
                        manager.index_insert(pass, slot, range, state);
                    }
                });
            }
        });
        // If the listener unwinds, the device stays registered.
        mem::forget(self);
        // Where another caller has the turn, it tells of this device's places too.
        let _ = manager.tell(turn);
        Ok(id)
    }
}

/// Gives everything back: what was taken is not used, or the device has rejected it, or has unwound out of `set_resources`.
impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let Self { manager, id, .. } = *self;
        // The listener was told of a place only if it has unwound from being told of another.
        let is_left = manager.with_state(|state| {
            // A node whose gate is closed is on its way out.
            if let Some(gate) = manager.gate(id.index) {
                gate.close();
            }
            if let Some(node) = state.tree.node_mut(id.index) {
                node.state = NodeState::REMOVING;
            }
            let is_left = state.has_told(id.index);
            if is_left {
                state.defer(id);
            }
            is_left
        });
        if is_left != Some(true) {
            manager.finish(id.index, false);
        }
        let _ = manager.tell(None);
    }
}

impl State<'_, '_> {
    /// Notes of which ranges of a device the listener is told.
    fn set_listened(&mut self, node: NodeIndex, doorbells: &[Doorbell]) {
        let mut next = self.tree.node(node).and_then(|node| node.first_range);
        while let Some((slot, range)) = next.and_then(|slot| Some((slot, *self.range(slot)?))) {
            next = range.next;
            let is_rung = doorbells.iter().any(|doorbell| doorbell.range_index == usize::from(range.index()));
            if range.io_type() == IoType::PhysicalMmio || is_rung {
                self.pool.set_listened(slot);
            }
        }
    }
}

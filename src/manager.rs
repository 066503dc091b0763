//! The device manager, and registration.

use core::mem;

use heapless::Vec;

use crate::access::{OpenBus, Target};
use crate::address::{IoRange, IoType};
use crate::allocator::{InstanceId, MAX_RANGES_PER_DEVICE, RESERVED, Range, SystemAllocator};
use crate::device::Device;
use crate::error::{RangeRefusal, RegisterError};
use crate::interrupt::{Connection, Gate, InterruptController, IrqLine, Wire};
use crate::resource::{Assigned, IoResource, IrqResource, Placement, Resources};
use crate::segments::Segments;
use crate::slots::{Body, HeavyBarrier, Slots};
use crate::state::{Request, State};
use crate::sync::{AtomicU16, AtomicU64, Mutex, MutexGuard, array, const_fn};
use crate::table::{NOBODY, Table};
use crate::topology::{Life, NONE, WireUse};

/// The topology of a virtual machine's buses and devices, and the way of accesses to them.
///
/// It has room for `DEVICES` devices (buses included), `RANGES` ranges and `VCPUS` [`Dispatcher`](crate::Dispatcher)s,
/// all inside itself, and is made in constant evaluation, so that it can stand in a `static`. Every method takes `&self`
/// and may be called from any thread or vCPU, and from within device callbacks; but not from an interrupt or NMI handler
/// that may have interrupted another call on the same processor.
///
/// It has no `Drop`, so that devices may borrow the manager they are registered with; `'d` is how long both live.
pub struct DeviceManager<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> {
    pub(crate) slots: Slots<'d, RANGES, VCPUS>,
    pub(crate) ports: Table<AtomicU16, RANGES>,
    pub(crate) memory: Table<AtomicU64, RANGES>,
    open_bus: [[u8; 8]; 2],
    pub(crate) patience: u32,
    pub(crate) controller: Option<&'d dyn InterruptController>,
    pub(crate) gates: [Gate; DEVICES],
    wires: [Wire; DEVICES],
    state: Mutex<State<'d, DEVICES, RANGES>>,
}

/// A change of one copy of the index: of both in turn, first of the one that is not live, which is published then.
#[derive(Clone, Copy)]
pub(crate) struct Edit {
    /// A version that selects the copy.
    copy: u64,
    is_published: bool,
}

/// How many turns a removal waits for the callbacks that were running when it was called, unless the VMM says
/// otherwise: 50 to 250 ms, as it was measured.
const PATIENCE: u32 = 1 << 20;

impl<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> DeviceManager<'d, DEVICES, RANGES, VCPUS> {
    const_fn! {
        /// A manager without devices, which gives them what `allocator` has.
        pub fn new(allocator: SystemAllocator<DEVICES, RANGES>) -> Self {
            Self {
                slots: Slots::new(),
                ports: Table::new(),
                memory: Table::new(),
                open_bus: [OpenBus::ALL_ONES.bytes(); 2],
                patience: PATIENCE,
                controller: None,
                gates: array![Gate::new(); DEVICES],
                wires: array![Wire::new(); DEVICES],
                state: Mutex::new(State::new(allocator)),
            }
        }
    }

    /// The same manager with an interrupt controller, which its devices' [`IrqLine`]s drive. Without one, they say
    /// [`NoController`](crate::InterruptError::NoController).
    #[must_use]
    pub const fn with_interrupt_controller(mut self, controller: &'d dyn InterruptController) -> Self {
        self.controller = Some(controller);
        self
    }

    /// The same manager with another open-bus value in the space of `io_type`. Without, it is
    /// [`OpenBus::ALL_ONES`].
    #[must_use]
    pub const fn with_open_bus(mut self, io_type: IoType, value: OpenBus) -> Self {
        let [ports, memory] = &mut self.open_bus;
        match io_type {
            IoType::Pio => *ports = value.bytes(),
            IoType::Mmio | IoType::PhysicalMmio => *memory = value.bytes(),
        }
        self
    }

    /// The same manager with another patience: how many turns of a waiting loop
    /// [`unregister_device`](Self::unregister_device) spends on the callbacks that were running when it was called,
    /// before it gives up with [`InUse`](crate::UnregisterError::InUse). One turn takes 50 to 250 ns, most of it the
    /// `PAUSE` instruction.
    #[must_use]
    pub const fn with_patience(mut self, turns: u32) -> Self {
        self.patience = turns;
        self
    }

    /// The same manager with the asymmetric fence: a dispatch through a [`Dispatcher`](crate::Dispatcher) is free of
    /// fences, and each removal executes `barrier` once.
    #[must_use]
    pub const fn with_asymmetric_fence(mut self, barrier: HeavyBarrier) -> Self {
        self.slots.set_heavy_barrier(barrier);
        self
    }

    #[inline(always)]
    pub(crate) fn open_bus(&self, io_type: IoType) -> [u8; 8] {
        let [ports, memory] = self.open_bus;
        if io_type == IoType::Pio { ports } else { memory }
    }

    /// The writer's state, locked. Code once: the lock is long, and taken in many places.
    #[inline(never)]
    pub(crate) fn state(&self) -> MutexGuard<'_, State<'d, DEVICES, RANGES>> {
        self.state.lock()
    }

    /// Tells managers apart, for accesses that name the one that made them.
    #[inline(always)]
    pub(crate) fn identity(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// Registers a device as the last child of `parent`, or at the root: gives it the ranges and the line it asks for,
    /// tells it of them, and only then makes it reachable. When the call has returned, every later access by anyone
    /// reaches the device. Before all else it does what [`collect`](Self::collect) does.
    ///
    /// A fixed range may lie in a window of `parent` or of a bus above it, or outside of every other range. Where a bus
    /// above the device has a window for the space, ranges asked for anywhere are taken from the nearest such bus's
    /// windows.
    ///
    /// # Errors
    /// [`RegisterError`] names the device, what it asked for, what is in the way and whose that is. Nothing has
    /// changed then, but for what `collect` has finished. A device that unwinds over its resources instead of returning has
    /// rejected them, and the unwinding goes on.
    pub fn register_device(
        &'d self,
        device: &'d dyn Device<'d>,
        parent: Option<InstanceId>,
        requests: &[IoResource],
        irq: IrqResource,
    ) -> Result<InstanceId, RegisterError<'d>> {
        self.collect();
        let name = device.name();
        let (id, assigned, irq) = {
            let mut state = self.state();
            let id = state.take(&Request { device, name, parent, ranges: requests, irq })?;
            let mut assigned = Vec::<Assigned, MAX_RANGES_PER_DEVICE>::new();
            for (_, range) in state.ranges_of(id.index) {
                // A device has no more ranges than there is room for.
                let _ = assigned.push(range.assigned());
            }
            let connection = self.connection(&state, id.index);
            (id, assigned, connection)
        };
        let undo = Undo { manager: self, node: id.index, connection: irq };
        let line = match self.gates.get(id.index as usize) {
            Some(gate) => IrqLine::new(gate, irq, self.controller),
            // There are as many gates as ids.
            None => IrqLine::DISCONNECTED,
        };
        // No lock is held here: the device may look around, and register others.
        if device.set_resources(&Resources::new(&assigned, line)).is_err() {
            return Err(RegisterError::Rejected { device: name });
        }
        mem::forget(undo);
        let mut state = self.state();
        let mut dispatched = false;
        for (request, (slot, range)) in requests.iter().zip(state.ranges_of(id.index)) {
            dispatched |= range.is_dispatched();
            if range.io_type() != IoType::PhysicalMmio {
                let target = Target { node: id.index, range_index: range.index(), io_type: range.io_type() };
                let body = Body { device, target, sizes: request.access_sizes() };
                let length = range.range.last().0.wrapping_sub(range.range.first().0).wrapping_add(1);
                let installed = self.slots.install(slot, body, length);
                debug_assert!(installed, "a free range has a vacant slot");
            }
        }
        if let Some(node) = state.topology.node_mut(id.index) {
            node.life = Life::Live;
        }
        if dispatched {
            self.publish(|edit| {
                for (slot, range) in state.ranges_of(id.index) {
                    self.index_insert(edit, slot, range, &state);
                }
            });
        }
        Ok(id)
    }

    /// Takes a range for the VMM itself: RAM, a local APIC. No device is given it, and an access to it is unclaimed.
    ///
    /// # Errors
    /// [`RangeRefusal`] tells what is in the way and whose that is.
    pub fn reserve(&self, io_type: IoType, range: IoRange) -> Result<(), RangeRefusal<'d>> {
        let mut state = self.state();
        match state.allocator.pool.reserve(io_type, Placement::Fixed(range)) {
            Ok(_) => Ok(()),
            Err(error) => Err(state.refusal(&error)),
        }
    }

    /// Gives back a range that was taken by [`reserve`](Self::reserve), exactly as it was taken.
    ///
    /// # Errors
    /// [`PoolError::NotAllocated`](crate::PoolError::NotAllocated), as a [`RangeRefusal::Pool`], for any other range,
    /// a device's among them.
    pub fn release(&self, io_type: IoType, range: IoRange) -> Result<(), RangeRefusal<'d>> {
        let mut state = self.state();
        state.allocator.pool.release(io_type, range).map_err(|error| state.refusal(&error))
    }

    /// Publishes a change of the index. `change` is made twice: to the copy that nobody uses yet, and, when that one
    /// is live, to the other.
    pub(crate) fn publish(&self, change: impl Fn(Edit)) {
        let version = self.slots.begin_publication();
        // One call of `change` is code once, and it is large in each of its callers.
        for is_published in [false, true] {
            change(Edit { copy: version.wrapping_add(is_published.into()), is_published });
            if !is_published {
                self.slots.publish(version);
            }
        }
    }

    /// Adds a range to the index, if it is to be there.
    pub(crate) fn index_insert(&self, edit: Edit, slot: u16, range: &Range, state: &State<'d, DEVICES, RANGES>) {
        if range.is_dispatched() {
            self.slots.close(slot);
            self.slots.set_base(edit.copy, slot, range.range.first().0);
            self.index_assign(edit, Some(slot), range, state);
            self.open_leaf(edit, slot, state);
        }
    }

    /// Takes a range, in which no other lies, out of the index, if it is there.
    pub(crate) fn index_remove(&self, edit: Edit, slot: u16, range: &Range, state: &State<'d, DEVICES, RANGES>) {
        if range.is_dispatched() {
            self.slots.close(slot);
            self.index_assign(edit, None, range, state);
        }
    }

    /// Gives the addresses of a range to a slot, or to the window around it.
    #[inline(never)]
    fn index_assign(&self, edit: Edit, slot: Option<u16>, range: &Range, state: &State<'d, DEVICES, RANGES>) {
        let window = state.dispatched_window(range).unwrap_or(NOBODY);
        self.slots.close(window);
        let segments = self.segments(range.io_type(), edit.copy);
        segments.assign(range.range.first().0, range.range.last().0, slot.unwrap_or(window), window);
        self.open_leaf(edit, window, state);
    }

    /// Opens a slot to hints, once the index is published, if no other range lies in its own.
    #[inline(never)]
    fn open_leaf(&self, edit: Edit, slot: u16, state: &State<'d, DEVICES, RANGES>) {
        let Some(range) = state.range(slot).filter(|_| edit.is_published) else { return };
        let version = self.slots.version();
        let is_leaf = || {
            let (owner, segment_last) = self.segments(range.io_type(), version).find(range.range.first().0);
            owner == slot && range.range.last().0 <= segment_last
        };
        if !range.is_window() || is_leaf() {
            self.slots.open(slot, range.io_type(), version);
        }
    }

    /// Makes the index anew from the allocator's ranges: for changes of windows with ranges in them.
    pub(crate) fn index_rebuild(&self, edit: Edit, state: &State<'d, DEVICES, RANGES>) {
        for &slot in state.allocator.pool.numbers() {
            self.slots.close(slot);
        }
        for io_type in [IoType::Pio, IoType::Mmio] {
            self.segments(io_type, edit.copy).clear();
        }
        for &slot in state.allocator.pool.numbers() {
            if let Some(range) = state.range(slot)
                && state.topology.node(range.node).is_some_and(|node| node.life == Life::Live)
            {
                self.index_insert(edit, slot, range, state);
            }
        }
    }

    /// The index of a space, for those who have time.
    #[inline(never)]
    pub(crate) fn segments(&self, io_type: IoType, version: u64) -> Segments<'_> {
        match io_type {
            IoType::Pio => self.ports.segments(version),
            IoType::Mmio | IoType::PhysicalMmio => self.memory.segments(version),
        }
    }

    /// A node's place on its interrupt line, if it has one.
    #[inline(never)]
    pub(crate) fn connection(&'d self, state: &State<'d, DEVICES, RANGES>, index: u16) -> Option<Connection<'d>> {
        self.connection_of(state, state.topology.node(index)?.irq?)
    }

    /// A place on an interrupt line.
    pub(crate) fn connection_of(&'d self, state: &State<'d, DEVICES, RANGES>, used: WireUse) -> Option<Connection<'d>> {
        let line = state.line(used.wire)?;
        let wire = self.wires.get(used.wire as usize)?;
        Some(Connection { wire, source: used.source(), gsi: line.gsi, shared: line.shared })
    }
}

/// Takes a registration back when it is dropped: because the device has rejected its resources, or has panicked over
/// them where panics unwind.
struct Undo<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize> {
    manager: &'d DeviceManager<'d, DEVICES, RANGES, VCPUS>,
    node: u16,
    connection: Option<Connection<'d>>,
}

impl<const DEVICES: usize, const RANGES: usize, const VCPUS: usize> Drop for Undo<'_, DEVICES, RANGES, VCPUS> {
    fn drop(&mut self) {
        if let Some(gate) = self.manager.gates.get(self.node as usize) {
            gate.close();
        }
        self.manager.finish(self.node, self.connection, false);
    }
}

const _: () = assert!(NONE == RESERVED, "the VMM's own ranges have no node");

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    extern crate std;

    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::{Access, GuestAddress, IoError};

    struct Constant(&'static str, u8);

    impl Device<'_> for Constant {
        fn name(&self) -> &str {
            self.0
        }
        fn read(&self, _: &Access<'_>, data: &mut [u8]) {
            data.fill(self.1);
        }
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }

    #[test]
    fn an_access_goes_on_while_a_writer_stands_still_half_way() {
        let manager: DeviceManager<'_, 2, 2, 2> = DeviceManager::new(SystemAllocator::new(IoRange::ALL_MEMORY));
        let devices = [Constant("leaving", 1), Constant("staying", 2)];
        let [leaving, _] = [(&devices[0], 0), (&devices[1], 8)].map(|(device, base)| {
            manager.register_device(device, None, &[IoResource::mmio(base, 4)], IrqResource::None).unwrap()
        });
        let (tell, told) = mpsc::channel();
        let (reply, replied) = mpsc::channel();
        thread::scope(|scope| {
            let manager = &manager;
            scope.spawn(move || {
                let mut vcpu = manager.dispatcher().unwrap();
                while let Ok(leaving_answers) = told.recv() {
                    for (address, answer) in [(0, leaving_answers), (8, Ok(2))] {
                        let (mut by_handle, mut without) = ([0], [0]);
                        let address = GuestAddress(address);
                        let outcome = vcpu.read(address, &mut by_handle, IoType::Mmio).map(|()| by_handle[0]);
                        assert_eq!(outcome, answer);
                        let outcome = manager.read(address, &mut without, IoType::Mmio).map(|()| without[0]);
                        assert_eq!(outcome, answer);
                    }
                    reply.send(()).unwrap();
                }
            });
            // The writer stands still with the lock in its hands: before the change, half-way in either copy of the index, and
            // when it is made.
            let reader_goes_on = |answer: Result<u8, IoError>| {
                tell.send(answer).unwrap();
                replied.recv().unwrap();
            };
            let state = manager.state();
            reader_goes_on(Ok(1));
            manager.publish(|edit| {
                let unclaimed = Err(IoError::Unclaimed);
                reader_goes_on(if edit.is_published { unclaimed } else { Ok(1) });
                for (slot, range) in state.ranges_of(leaving.index) {
                    manager.index_remove(edit, slot, range, &state);
                }
                reader_goes_on(if edit.is_published { unclaimed } else { Ok(1) });
            });
            reader_goes_on(Err(IoError::Unclaimed));
            drop(tell);
        });
    }
}

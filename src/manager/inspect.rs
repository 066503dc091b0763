//! Look-ups in the topology and the address map.
//!
//! Iterators take the manager's lock for one step at a time, so that the caller may call the manager between the steps. Each
//! step shows the state at its own time; a walk ends early if the device that it stands at is removed.

use crate::address::{GuestAddress, IoType};
use crate::device::Device;
use crate::error::Owner;
use crate::instance::InstanceId;
use crate::manager::device_manager::DeviceManager;
use crate::manager::state::State;
use crate::manager::tree::Node;
use crate::resource::{Assigned, AssignedIrq};

/// A bus or a device in the topology.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
///
/// let device = Constant("timer", 7);
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let id = manager.register_device(&device, None, &[], &[]).unwrap();
/// let info = manager.device(id).unwrap();
/// assert_eq!((info.name, info.parent, info.depth), ("timer", None, 0));
/// ```
#[derive(Clone, Copy)]
pub struct DeviceInfo<'d> {
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    pub name: &'d str,
    /// The device itself.
    pub device: &'d dyn Device<'d>,
    /// The bus it is on; `None` at the root.
    pub parent: Option<InstanceId>,
    /// How many buses are above it.
    pub depth: usize,
}

impl core::fmt::Debug for DeviceInfo<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeviceInfo")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("parent", &self.parent)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// A range in the address map.
///
/// ```
/// use vm_device::{DeviceManager, IoRange, IoType, Owner, Placement, Storage, SystemAllocator};
///
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// manager.reserve(IoType::Mmio, Placement::Fixed(IoRange::of::<0, 0x9_ffff>())).unwrap();
/// let ram = manager.address_map(IoType::Mmio).next().unwrap();
/// assert_eq!((ram.owner, ram.window, ram.depth), (Owner::Vmm, false, 0));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappedRange<N> {
    /// The device that has it, or the VMM.
    pub owner: Owner<N>,
    /// Which of the owner's ranges; 0 for the VMM's.
    pub range_index: usize,
    /// Its kind, its addresses, and whether accesses reach it.
    pub assigned: Assigned,
    /// Whether it is a window.
    pub window: bool,
    /// How many windows are around it.
    pub depth: usize,
}

impl<N> MappedRange<N> {
    /// The same range, with the name of the owner in another form.
    pub fn map_names<M>(self, name: impl FnOnce(N) -> M) -> MappedRange<M> {
        let Self { owner, range_index, assigned, window, depth } = self;
        MappedRange { owner: owner.map_names(name), range_index, assigned, window, depth }
    }
}

impl<'d> DeviceManager<'d> {
    /// The device with this id; `None` if there is none, or none any more.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
    ///
    /// let device = Constant("timer", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let id = manager.register_device(&device, None, &[], &[]).unwrap();
    /// assert_eq!(manager.device(id).map(|info| info.name), Some("timer"));
    /// manager.unregister_device(id).unwrap();
    /// assert!(manager.device(id).is_none());
    /// ```
    pub fn device(&self, id: InstanceId) -> Option<DeviceInfo<'d>> {
        self.with_state(|state| state.tree.get(id).map(|node| info(state, node)))?
    }

    /// Range number `index` of a device.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestUsize, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// let device = Constant("timer", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::of::<0xc000_0000, 0xffff_ffff>()));
    /// let anywhere = IoResource::any(IoType::Mmio, GuestUsize(0x100));
    /// let id = manager.register_device(&device, None, &[anywhere], &[]).unwrap();
    /// let assigned = manager.range(id, 0).map(|assigned| assigned.range);
    /// assert_eq!(assigned, Some(IoRange::of::<0xc000_0000, 0xc000_00ff>()));
    /// assert!(manager.range(id, 1).is_none());
    /// ```
    pub fn range(&self, id: InstanceId, index: usize) -> Option<Assigned> {
        self.range_and_kind(id, index).map(|(assigned, _)| assigned)
    }

    /// Interrupt number `index` of a device.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{AssignedIrq, DeviceManager, Gsi, IoRange, IrqResource, Storage, SystemAllocator};
    ///
    /// let device = Constant("keyboard", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 15));
    /// let lines = [IrqResource::Fixed(Gsi(1)), IrqResource::Shared(Gsi(12))];
    /// let id = manager.register_device(&device, None, &[], &lines).unwrap();
    /// assert_eq!(manager.irq(id, 1), Some(AssignedIrq { gsi: Some(Gsi(12)), shared: true }));
    /// assert_eq!(manager.irq(id, 2), None);
    /// ```
    pub fn irq(&self, id: InstanceId, index: usize) -> Option<AssignedIrq> {
        self.with_state(|state| {
            let node = state.tree.get(id)?;
            let connection = state.connections_of(node.index()).nth(index)?;
            let source = connection.share().and_then(|share| state.source(share));
            Some(AssignedIrq { gsi: source.map(|source| source.gsi), shared: connection.is_shared() })
        })?
    }

    /// Whether there is a node with this id: of a device that is registered, or is being registered or removed.
    #[cfg(feature = "alloc")]
    pub(crate) fn is_known(&self, id: InstanceId) -> bool {
        self.with_state(|state| state.tree.get(id).is_some()) == Some(true)
    }

    /// The same, and whether it is a window.
    pub(super) fn range_and_kind(&self, id: InstanceId, index: usize) -> Option<(Assigned, bool)> {
        self.with_state(|state| {
            state.tree.get(id)?;
            state.ranges_of(id.index).nth(index).map(|(_, range)| (range.assigned(), range.is_window()))
        })?
    }

    /// The device that has the innermost range around an address, and which of its ranges that is, decoded or not.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// let device = Constant("timer", 7);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let ranges = [IoResource::mmio(0x1000, 0x10), IoResource::mmio(0x2000, 0x10)];
    /// let id = manager.register_device(&device, None, &ranges, &[]).unwrap();
    /// assert_eq!(manager.find_by_address(GuestAddress(0x2008), IoType::Mmio), Some((id, 1)));
    /// assert_eq!(manager.find_by_address(GuestAddress(0x3000), IoType::Mmio), None);
    /// ```
    pub fn find_by_address(&self, address: GuestAddress, io_type: IoType) -> Option<(InstanceId, usize)> {
        self.with_state(|state| {
            let (_, range) = state.pool.innermost(io_type.space(), address)?;
            Some((state.tree.id(range.node?), range.index().into()))
        })?
    }

    /// Every device, depth first, siblings in the order of their registration.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
    ///
    /// let (pci, disk, clock) = (Constant("pci", 1), Constant("disk", 2), Constant("clock", 3));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let bus = manager.register_device(&pci, None, &[], &[]).unwrap();
    /// manager.register_device(&clock, None, &[], &[]).unwrap();
    /// manager.register_device(&disk, Some(bus), &[], &[]).unwrap();
    /// let tree: Vec<_> = manager.walk().map(|info| (info.depth, info.name)).collect();
    /// assert_eq!(tree, [(0, "pci"), (1, "disk"), (0, "clock")]);
    /// ```
    pub fn walk(&self) -> impl Iterator<Item = DeviceInfo<'d>> {
        self.walk_with(info)
    }

    /// The walk, with what `look` says of each node.
    pub(crate) fn walk_with<R>(&self, look: impl Fn(&State<'_, 'd>, &Node<'d>) -> R) -> impl Iterator<Item = R> {
        let mut previous: Option<InstanceId> = None;
        core::iter::from_fn(move || {
            self.with_state(|state| {
                let next = match previous {
                    None => state.tree.first_root(),
                    Some(id) => state.tree.next_in_walk(state.tree.get(id)?.index(), None),
                };
                let node = state.tree.node(next?)?;
                previous = Some(state.tree.id(node.index()));
                Some(look(state, node))
            })?
        })
    }

    /// Every range of the space of `io_type`, by address, a window before the ranges in it. Both kinds of MMIO are in
    /// one map: a VMM finds there what to map as memory.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, GuestUsize, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// let video = Constant("video", 1);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let memory = IoResource::fixed(IoType::PhysicalMmio, GuestAddress(0xa0000), GuestUsize(0x2_0000));
    /// manager.register_device(&video, None, &[memory], &[]).unwrap();
    ///
    /// // What the VMM has to map.
    /// let map = manager.address_map(IoType::Mmio);
    /// let physical: Vec<_> = map.filter(|range| range.assigned.io_type == IoType::PhysicalMmio).collect();
    /// assert_eq!(physical[0].assigned.range, IoRange::of::<0xa0000, 0xbffff>());
    /// ```
    pub fn address_map(&self, io_type: IoType) -> impl Iterator<Item = MappedRange<&'d str>> {
        let mut key = None;
        core::iter::from_fn(move || {
            self.with_state(|state| {
                let range = state.pool.next_after(io_type.space(), key)?;
                key = Some(range.key());
                Some(MappedRange {
                    owner: state.owner(range.node),
                    range_index: range.index().into(),
                    assigned: range.assigned(),
                    window: range.is_window(),
                    depth: range.depth().into(),
                })
            })?
        })
    }
}

fn info<'d>(state: &State<'_, 'd>, node: &Node<'d>) -> DeviceInfo<'d> {
    DeviceInfo {
        id: state.tree.id(node.index()),
        name: node.name,
        device: node.device,
        parent: node.parent.map(|parent| state.tree.id(parent)),
        depth: state.tree.ancestors(node.index()).count(),
    }
}

//! What a device asks for at registration, and what it was given.

use core::fmt;

use crate::address::{GuestAddress, GuestUsize, IoRange, IoType, RangeError};
use crate::instance::InstanceId;
use crate::interrupt::{Gsi, IrqLine};
use crate::sizes::AccessSizes;

/// Which free place a range gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fit {
    /// The lowest place that fits.
    #[default]
    First,
    /// The highest place that fits.
    Last,
}

/// How many ranges one device can have.
pub const MAX_RANGES_PER_DEVICE: usize = 16;

/// How many interrupts one device can have.
pub const MAX_IRQS_PER_DEVICE: usize = 16;

/// How many windows, one in another, may lie around a range.
pub const MAX_WINDOW_DEPTH: usize = 8;

/// Where a range is to lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Exactly there.
    Fixed(IoRange),
    /// Wherever there is room.
    Any {
        /// The size in bytes or ports; not 0.
        size: GuestUsize,
        /// The base is a multiple of this; a power of two.
        align: u64,
        /// The range lies within these limits, if any are given.
        within: Option<IoRange>,
        /// The lowest or the highest place.
        fit: Fit,
    },
}

/// Whether a range has addresses, and whether accesses reach it.
///
/// Holding addresses and decoding them are two things: a PCI function whose decoding is off does not respond, whatever its
/// base address register holds (PCI Local Bus 3.0, 6.2.2). [`relocate`](crate::DeviceManager::relocate) moves ranges between
/// the states.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{
///     DeviceManager, GuestAddress, GuestUsize, IoRange, IoResource, IoType, RangeState, Relocation, Storage,
///     SystemAllocator,
/// };
///
/// let devices = [Constant("first", 1), Constant("second", 2)];
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// // A base address register of 4 KiB. As yet it is in nobody's way.
/// let bar = IoResource::any(IoType::Mmio, GuestUsize(0x1000)).aligned(0x1000).unplaced();
/// let [first, second] = devices.each_ref().map(|device| {
///     manager.register_device(device, None, &[bar], &[]).unwrap()
/// });
/// let state = |id| manager.range(id, 0).unwrap().state;
/// assert_eq!(state(first), RangeState::Unplaced);
///
/// // Both want one address: the second waits until the first goes away.
/// let want = |id| Relocation::new(id, 0).to(GuestAddress(0x8000)).waiting();
/// manager.relocate(&mut [want(first)]).unwrap();
/// manager.relocate(&mut [want(second)]).unwrap();
/// assert_eq!((state(first), state(second)), (RangeState::Decoded, RangeState::Waiting));
/// manager.relocate(&mut [Relocation::new(first, 0).unplaced()]).unwrap();
/// assert_eq!((state(first), state(second)), (RangeState::Unplaced, RangeState::Decoded));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RangeState {
    /// It has addresses, and accesses reach it. Other decoded and reserved ranges are in its way.
    #[default]
    Decoded,
    /// It has addresses, which no other range gets, and no access reaches it: a place that is kept. Its addresses answer as
    /// those around it, as the bus above it.
    Reserved,
    /// It has a size and an alignment, and no addresses. It is in nobody's way, and nobody is in its.
    Unplaced,
    /// It has no addresses, but wants some. The change that makes them free places it there: then it is decoded, or reserved
    /// if it was reserved before the window around it went away.
    Waiting,
}

impl RangeState {
    /// Whether a range in this state has addresses.
    pub const fn is_placed(self) -> bool {
        matches!(self, Self::Decoded | Self::Reserved)
    }
}

impl fmt::Display for RangeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decoded => "decoded",
            Self::Reserved => "reserved",
            Self::Unplaced => "unplaced",
            Self::Waiting => "waiting",
        })
    }
}

impl From<IoRange> for Placement {
    fn from(range: IoRange) -> Self {
        Self::Fixed(range)
    }
}

/// One range of ports or addresses that a device asks for.
///
/// ```
/// use vm_device::{AccessSizes, GuestUsize, IoResource, IoType};
///
/// let requests = [
///     IoResource::pio(0x3f8, 8).sizes(AccessSizes::BYTE),
///     IoResource::any(IoType::Mmio, GuestUsize(0x1000)).aligned(0x1000),
/// ];
/// assert_eq!(requests[1].io_type(), IoType::Mmio);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoResource {
    io_type: IoType,
    pub(crate) placement: Result<Placement, RangeError>,
    sizes: AccessSizes,
    window: bool,
    state: RangeState,
    alignment: u64,
    limits: Option<IoRange>,
}

impl IoResource {
    const fn new(io_type: IoType, placement: Result<Placement, RangeError>) -> Self {
        let (sizes, state) = (AccessSizes::ANY, RangeState::Decoded);
        Self { io_type, placement, sizes, window: false, state, alignment: 1, limits: None }
    }

    /// The given range. An impossible one (empty, wrapping, beyond the last port) is an error of the registration.
    pub const fn fixed(io_type: IoType, base: GuestAddress, size: GuestUsize) -> Self {
        Self::new(
            io_type,
            match IoRange::with_size(base, size) {
                Ok(range) => Ok(Placement::Fixed(range)),
                Err(error) => Err(error),
            },
        )
    }

    /// The given range. It serves for a range without a size in 64 bits, as [`IoRange::ALL_MEMORY`].
    pub const fn at(io_type: IoType, range: IoRange) -> Self {
        Self::new(io_type, Ok(Placement::Fixed(range)))
    }

    /// `count` ports from `base`: [`fixed`](Self::fixed) for port I/O.
    pub const fn pio(base: u16, count: u32) -> Self {
        Self::fixed(IoType::Pio, GuestAddress(base as u64), GuestUsize(count as u64))
    }

    /// `size` bytes of MMIO from `base`: [`fixed`](Self::fixed) for MMIO.
    pub const fn mmio(base: u64, size: u64) -> Self {
        Self::fixed(IoType::Mmio, GuestAddress(base), GuestUsize(size))
    }

    /// `size` bytes (or ports) wherever there is room: in a window of the nearest bus above the device that has one for
    /// this space, or in the pool, directly, if there is no such bus.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestUsize, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// let (pci, disk) = (Constant("pci", 1), Constant("disk", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let window = IoResource::mmio(0x1000_0000, 0x1000_0000).window();
    /// let bus = manager.register_device(&pci, None, &[window], &[]).unwrap();
    /// let bar = IoResource::any(IoType::Mmio, GuestUsize(0x1000));
    /// let disk = manager.register_device(&disk, Some(bus), &[bar], &[]).unwrap();
    /// // In the window of its bus.
    /// let place = manager.range(disk, 0).map(|assigned| assigned.range);
    /// assert_eq!(place, Some(IoRange::of::<0x1000_0000, 0x1000_0fff>()));
    /// ```
    pub const fn any(io_type: IoType, size: GuestUsize) -> Self {
        Self::new(io_type, Ok(Placement::Any { size, align: 1, within: None, fit: Fit::First }))
    }

    /// The base is to be a multiple of `to`, a power of two. A fixed range with another base is refused at its registration.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestUsize, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// let device = Constant("disk", 1);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::of::<0x1234, 0xffff>()));
    /// let page = IoResource::any(IoType::Mmio, GuestUsize(0x800)).aligned(0x1000);
    /// let id = manager.register_device(&device, None, &[page], &[]).unwrap();
    /// assert_eq!(manager.range(id, 0).map(|assigned| assigned.range.first().0), Some(0x2000));
    /// ```
    pub const fn aligned(mut self, to: u64) -> Self {
        self.alignment = to;
        if let Ok(Placement::Any { align, .. }) = &mut self.placement {
            *align = to;
        }
        self
    }

    /// The range is to lie within `limits`. A fixed range that does not is refused at its registration.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestUsize, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// let device = Constant("disk", 1);
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let below_4_gib = IoRange::of::<0xc000_0000, 0xffff_ffff>();
    /// let range = IoResource::any(IoType::Mmio, GuestUsize(0x1000)).within(below_4_gib);
    /// let id = manager.register_device(&device, None, &[range], &[]).unwrap();
    /// assert_eq!(manager.range(id, 0).map(|assigned| below_4_gib.contains_range(assigned.range)), Some(true));
    /// ```
    pub const fn within(mut self, limits: IoRange) -> Self {
        self.limits = Some(limits);
        if let Ok(Placement::Any { within, .. }) = &mut self.placement {
            *within = Some(limits);
        }
        self
    }

    /// The highest place that fits, instead of the lowest. It changes nothing for a fixed range.
    pub const fn last_fit(mut self) -> Self {
        if let Ok(Placement::Any { fit, .. }) = &mut self.placement {
            *fit = Fit::Last;
        }
        self
    }

    /// The sizes of access the device accepts there; [`AccessSizes::ANY`] unless said.
    pub const fn sizes(mut self, sizes: AccessSizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// The range is the window of a bus: its children's ranges may lie in it, and the bus answers what none of them
    /// claims.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage, SystemAllocator,
    /// };
    ///
    /// let (bus, disk) = (Constant("bus", 1), Constant("disk", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let window = IoResource::mmio(0x1000, 0x1000).window();
    /// let id = manager.register_device(&bus, None, &[window], &[]).unwrap();
    /// manager.register_device(&disk, Some(id), &[IoResource::mmio(0x1800, 0x100)], &[]).unwrap();
    ///
    /// let mut data = [0; 1];
    /// manager.read(GuestAddress(0x1800), &mut data, IoType::Mmio).unwrap();
    /// assert_eq!(data, [2]);
    /// // The bus answers what its child does not claim.
    /// manager.read(GuestAddress(0x1900), &mut data, IoType::Mmio).unwrap();
    /// assert_eq!(data, [1]);
    /// ```
    pub const fn window(mut self) -> Self {
        self.window = true;
        self
    }

    /// The range is [reserved](RangeState::Reserved): it gets its addresses, and accesses do not reach it until
    /// [`relocate`](crate::DeviceManager::relocate) has it decoded.
    pub const fn reserved(mut self) -> Self {
        self.state = RangeState::Reserved;
        self
    }

    /// The range is [unplaced](RangeState::Unplaced): it has its size and its alignment, and no addresses until
    /// [`relocate`](crate::DeviceManager::relocate) gives it some. A PCI base address register before the guest sets the memory
    /// enable bit of the command register (PCI Local Bus 3.0, 6.2.2).
    pub const fn unplaced(mut self) -> Self {
        self.state = RangeState::Unplaced;
        self
    }

    /// A fixed range that is not free now [waits](RangeState::Waiting) until it is, instead of being refused.
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{
    ///     DeviceManager, IoRange, IoResource, RangeState, Storage, SystemAllocator,
    /// };
    ///
    /// let (first, second) = (Constant("first", 1), Constant("second", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let range = IoResource::mmio(0x1000, 0x1000);
    /// let first = manager.register_device(&first, None, &[range], &[]).unwrap();
    /// let second = manager.register_device(&second, None, &[range.waiting()], &[]).unwrap();
    /// assert_eq!(manager.range(second, 0).unwrap().state, RangeState::Waiting);
    /// manager.unregister_device(first).unwrap();
    /// assert_eq!(manager.range(second, 0).unwrap().state, RangeState::Decoded);
    /// ```
    pub const fn waiting(mut self) -> Self {
        self.state = RangeState::Waiting;
        self
    }

    /// The kind of the range.
    pub const fn io_type(&self) -> IoType {
        self.io_type
    }

    /// Where it is to lie, or why that is impossible.
    pub const fn placement(&self) -> Result<Placement, RangeError> {
        self.placement
    }

    /// What the base is to be a multiple of; 1 unless said.
    pub const fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Within which limits the range is to lie, if any were given.
    pub const fn limits(&self) -> Option<IoRange> {
        self.limits
    }

    /// The accepted sizes of access.
    pub const fn access_sizes(&self) -> AccessSizes {
        self.sizes
    }

    /// Whether the range is a window.
    pub const fn is_window(&self) -> bool {
        self.window
    }

    /// The state it is to have.
    pub const fn state(&self) -> RangeState {
        self.state
    }
}

/// An interrupt line that a device asks for. One that only sends messages needs none.
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::{DeviceManager, Gsi, IoRange, IrqResource, Storage, SystemAllocator};
///
/// let devices = [Constant("a", 0), Constant("b", 0), Constant("c", 0), Constant("d", 0)];
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 15));
/// let mut line = |device, irq| {
///     let id = manager.register_device(device, None, &[], &[irq]).unwrap();
///     manager.irq(id, 0).unwrap().gsi
/// };
/// assert_eq!(line(&devices[0], IrqResource::Any), Some(Gsi(0)));
/// assert_eq!(line(&devices[1], IrqResource::Fixed(Gsi(4))), Some(Gsi(4)));
/// assert_eq!(line(&devices[2], IrqResource::Shared(Gsi(11))), Some(Gsi(11)));
/// assert_eq!(line(&devices[3], IrqResource::Shared(Gsi(11))), Some(Gsi(11)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IrqResource {
    /// The lowest free line, for this device alone.
    Any,
    /// This line, for this device alone.
    Fixed(Gsi),
    /// This line, together with every other device that asks for it in this way: level-triggered, and asserted while
    /// any of them asserts it.
    Shared(Gsi),
    /// No line as yet: [`reroute`](crate::DeviceManager::reroute) gives it one, which it may share. An interrupt pin of a PCI
    /// slot before firmware has programmed where it goes.
    Unrouted,
}

/// One range that a device was given.
///
/// ```
/// use vm_device::{Assigned, IoRange, IoType, RangeState};
///
/// let range = IoRange::of::<0x1000, 0x1fff>();
/// let waiting = Assigned { io_type: IoType::Mmio, range, state: RangeState::Waiting };
/// assert_eq!(waiting.place(), None);
/// assert_eq!(waiting.to_string(), "mmio [0x1000, 0x1fff] (waiting)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assigned {
    /// The kind of the range.
    pub io_type: IoType,
    /// Where it lies, or wants to lie while it waits. An unplaced range has its size here, from address 0 on.
    pub range: IoRange,
    /// Whether it lies there, and whether accesses reach it.
    pub state: RangeState,
}

impl Assigned {
    /// The addresses that it has, if it has some: if it is decoded or reserved.
    pub const fn place(&self) -> Option<IoRange> {
        if self.state.is_placed() { Some(self.range) } else { None }
    }
}

impl fmt::Display for Assigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.io_type, self.range)?;
        if self.state == RangeState::Decoded { Ok(()) } else { write!(f, " ({})", self.state) }
    }
}

/// One interrupt that a device was given.
///
/// ```
/// use vm_device::{AssignedIrq, Gsi};
///
/// assert_eq!(AssignedIrq { gsi: Some(Gsi(5)), shared: true }.to_string(), "GSI 5 (shared)");
/// assert_eq!(AssignedIrq { gsi: None, shared: true }.to_string(), "no GSI (shared)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AssignedIrq {
    /// The line that it has; `None` until [`reroute`](crate::DeviceManager::reroute) gives it one.
    pub gsi: Option<Gsi>,
    /// Whether others may have the same line.
    pub shared: bool,
}

impl fmt::Display for AssignedIrq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gsi {
            Some(gsi) => gsi.fmt(f)?,
            None => f.write_str("no GSI")?,
        }
        if self.shared { f.write_str(" (shared)") } else { Ok(()) }
    }
}

/// Everything a device was given: its id, its ranges and its interrupts, both in the order of its requests.
///
/// ```
/// use vm_device::{Assigned, IoRange, IoType, IrqLine, RangeState, Resources};
///
/// let range = Assigned { io_type: IoType::Mmio, range: IoRange::of::<0x1000, 0x1fff>(), state: RangeState::Decoded };
/// let ranges = [range];
/// let resources = Resources::new(&ranges, &[IrqLine::DISCONNECTED]);
/// assert_eq!(resources.ranges(), [range]);
/// assert_eq!(resources.irq(0).gsi(), None);
/// assert_eq!(range.to_string(), "mmio [0x1000, 0x1fff]");
/// ```
#[derive(Debug)]
pub struct Resources<'a, 'd> {
    pub(crate) id: Option<InstanceId>,
    pub(crate) ranges: &'a [Assigned],
    pub(crate) irqs: &'a [IrqLine<'d>],
}

impl<'a, 'd> Resources<'a, 'd> {
    /// Resources for a test of a device without a manager. They have no id.
    pub const fn new(ranges: &'a [Assigned], irqs: &'a [IrqLine<'d>]) -> Self {
        Self { id: None, ranges, irqs }
    }

    /// The id of the registration, by which the device names itself to its manager: to move its ranges, to remove itself
    /// ([`unregister_device_deferred`](crate::DeviceManager::unregister_device_deferred)). The registration is not complete yet:
    /// until it is, changes of the device are refused as busy. `None` in a test without a manager.
    pub const fn id(&self) -> Option<InstanceId> {
        self.id
    }

    /// The ranges, in the order in which they were asked for.
    pub const fn ranges(&self) -> &'a [Assigned] {
        self.ranges
    }

    /// The interrupt of request number `index`: a handle to keep. A device that asked for no line gets handle 0 all the same, to
    /// send message-signalled interrupts. Any other is [`IrqLine::DISCONNECTED`].
    pub fn irq(&self, index: usize) -> IrqLine<'d> {
        self.irqs.get(index).copied().unwrap_or(IrqLine::DISCONNECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_range_is_kept_for_the_registration_to_report() {
        assert!(IoResource::pio(0x10, 0).placement().is_err());
        assert!(IoResource::mmio(u64::MAX, 2).placement().is_err());
        assert!(IoResource::pio(0, 0x1_0000).placement().is_ok());
    }
}

//! What there is to give to devices: addresses, ports, interrupt lines and instance ids.

mod error;
mod id;
mod irq;
mod pool;
mod range;
mod space;

use core::fmt;

pub use error::PoolError;
pub use id::{IdError, InstanceId};
pub use irq::{IrqError, MAX_LINES};
pub use range::{Block, MAX_RANGES_PER_DEVICE, RESERVED};
pub(crate) use range::{NONE, PENDING, Place, Range};

use crate::address::{IoRange, IoType};
use crate::interrupt::Gsi;
use crate::resource::Placement;
use id::IdPool;
use irq::IrqPool;
use pool::Pool;

/// The resources of a virtual machine, with room for `DEVICES` devices and, in both spaces together, `RANGES` ranges, those
/// that the VMM takes itself included.
///
/// Guest physical addresses are always there; ports and interrupt lines only where they were given. It is built in
/// constant evaluation, so that it can stand in a `static`; for that reason impossible bounds are not an error there,
/// but of every allocation from them.
///
/// What a VMM allocates here itself, before the allocator goes to the manager or beside one, no device can be given.
///
/// ```
/// use vm_device::{AllocateError, Fit, GuestAddress, GuestUsize, IoRange, IoType, Placement, SystemAllocator};
///
/// const DEVICE_MEMORY: IoRange = IoRange::of::<0xe000_0000, { u64::MAX }>();
/// const ALLOCATOR: SystemAllocator<16, 32> =
///     SystemAllocator::new(DEVICE_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 23);
///
/// let mut allocator = ALLOCATOR;
/// let page = Placement::Any { size: GuestUsize(0x1000), align: 0x1000, within: None, fit: Fit::Last };
/// let top = allocator.allocate_io(IoType::Mmio, page)?;
/// assert_eq!(top.last(), GuestAddress(u64::MAX));
/// assert!(allocator.allocate_io(IoType::PhysicalMmio, Placement::Fixed(top)).is_err());
/// allocator.free_io(IoType::Mmio, top)?;
/// # Ok::<(), AllocateError>(())
/// ```
///
/// There has to be room for at least one device:
///
/// ```compile_fail
/// let _ = vm_device::SystemAllocator::<0, 8>::new(vm_device::IoRange::ALL_MEMORY);
/// ```
pub struct SystemAllocator<const DEVICES: usize, const RANGES: usize> {
    /// The addresses and the ports.
    pub(crate) pool: Pool<RANGES>,
    irqs: Result<IrqPool, IrqError>,
    ids: IdPool<DEVICES>,
}

impl<const DEVICES: usize, const RANGES: usize> SystemAllocator<DEVICES, RANGES> {
    /// An allocator of the guest physical addresses in `mmio`.
    pub const fn new(mmio: IoRange) -> Self {
        Self { pool: Pool::new(mmio), irqs: Err(IrqError::NoPool), ids: IdPool::new() }
    }

    /// Adds the ports in `ports`, which all lie below `0x1_0000`. If they do not, every allocation of a port is
    /// [`PoolError::BeyondPorts`]. Ports that are allocated already stay so.
    pub const fn with_ports(mut self, ports: IoRange) -> Self {
        self.pool.set_ports(ports);
        self
    }

    /// Adds the interrupt lines from `first` to `last`, both inclusive, at most [`MAX_LINES`]. If they are in reverse
    /// order or too many, every allocation of a line is [`IrqError::BadBounds`].
    pub const fn with_irqs(mut self, first: u32, last: u32) -> Self {
        self.irqs = IrqPool::new(Gsi(first), Gsi(last));
        self
    }

    /// Allocates a range for the VMM itself.
    ///
    /// # Errors
    /// [`AllocateError::Io`].
    pub fn allocate_io(&mut self, io_type: IoType, placement: Placement) -> Result<IoRange, AllocateError> {
        self.pool.reserve(io_type, placement).map_err(|error| AllocateError::Io { io_type, error })
    }

    /// Frees a range that was allocated by [`allocate_io`](Self::allocate_io).
    ///
    /// # Errors
    /// [`AllocateError::Io`]; [`PoolError::NotAllocated`] for a range that belongs to a device too.
    pub fn free_io(&mut self, io_type: IoType, range: IoRange) -> Result<(), AllocateError> {
        self.pool.release(io_type, range).map_err(|error| AllocateError::Io { io_type, error })
    }

    /// Allocates an interrupt line: the given one, or the lowest that is free.
    ///
    /// # Errors
    /// [`AllocateError::Irq`].
    pub fn allocate_irq(&mut self, gsi: Option<Gsi>) -> Result<Gsi, AllocateError> {
        Ok(self.allocate_line(gsi)?)
    }

    pub(crate) fn allocate_line(&mut self, gsi: Option<Gsi>) -> Result<Gsi, IrqError> {
        let irqs = self.irqs.as_mut().map_err(|error| *error)?;
        match gsi {
            Some(gsi) => irqs.allocate(gsi).map(|()| gsi),
            None => irqs.allocate_any(),
        }
    }

    /// Frees an interrupt line.
    ///
    /// # Errors
    /// [`AllocateError::Irq`].
    pub fn free_irq(&mut self, gsi: Gsi) -> Result<(), AllocateError> {
        let irqs = self.irqs.as_mut().map_err(|error| *error)?;
        Ok(irqs.free(gsi)?)
    }

    /// Allocates an instance id that was never given out before.
    ///
    /// # Errors
    /// [`AllocateError::Id`].
    pub fn allocate_instance_id(&mut self) -> Result<InstanceId, AllocateError> {
        Ok(self.ids.allocate()?)
    }

    /// Frees an instance id. It is stale from then on.
    ///
    /// # Errors
    /// [`AllocateError::Id`].
    pub fn free_instance_id(&mut self, id: InstanceId) -> Result<(), AllocateError> {
        Ok(self.ids.free(id)?)
    }

    /// Whether `id` is in use.
    pub fn is_current(&self, id: InstanceId) -> bool {
        self.ids.is_current(id)
    }
}

/// What the allocator could not do, and why. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AllocateError {
    /// A range of ports or addresses.
    Io {
        /// The kind of the range.
        io_type: IoType,
        /// Why.
        error: PoolError,
    },
    /// An interrupt line.
    Irq(IrqError),
    /// An instance id.
    Id(IdError),
}

impl From<IrqError> for AllocateError {
    fn from(error: IrqError) -> Self {
        Self::Irq(error)
    }
}

impl From<IdError> for AllocateError {
    fn from(error: IdError) -> Self {
        Self::Id(error)
    }
}

impl fmt::Display for AllocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AllocateError::Io { io_type, error } => write!(f, "{io_type}: {error}"),
            AllocateError::Irq(error) => error.fmt(f),
            AllocateError::Id(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for AllocateError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            AllocateError::Io { error, .. } => Some(error),
            AllocateError::Irq(error) => Some(error),
            AllocateError::Id(error) => Some(error),
        }
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::range::NONE;
    use super::*;
    use crate::address::{GuestAddress, GuestUsize};
    use crate::resource::Fit;

    static ALLOCATOR: spin::Mutex<SystemAllocator<2, 4>> =
        spin::Mutex::new(SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 6));

    fn range(first: u64, last: u64) -> IoRange {
        IoRange::new(GuestAddress(first), GuestAddress(last)).unwrap()
    }

    fn fixed(first: u64, last: u64) -> Placement {
        Placement::Fixed(range(first, last))
    }

    #[test]
    fn it_stands_in_a_static() {
        let mut allocator = ALLOCATOR.lock();
        let any = Placement::Any { size: GuestUsize(1), align: 1, within: None, fit: Fit::Last };
        assert_eq!(allocator.allocate_io(IoType::Pio, any), Ok(range(0xffff, 0xffff)));
        assert_eq!(allocator.allocate_io(IoType::Mmio, any), Ok(range(u64::MAX, u64::MAX)));
        assert_eq!(allocator.allocate_irq(None), Ok(Gsi(5)));
        assert_eq!(allocator.allocate_irq(Some(Gsi(6))), Ok(Gsi(6)));
        assert_eq!(allocator.allocate_irq(Some(Gsi(6))), Err(IrqError::InUse { gsi: Gsi(6) }.into()));
        assert_eq!(allocator.free_irq(Gsi(6)), Ok(()));
        assert_eq!(allocator.free_irq(Gsi(6)), Err(IrqError::NotAllocated { gsi: Gsi(6) }.into()));
        let id = allocator.allocate_instance_id().unwrap();
        assert!(allocator.is_current(id));
        assert_eq!(allocator.free_instance_id(id), Ok(()));
        assert_eq!(allocator.free_instance_id(id), Err(IdError::Stale { id }.into()));
    }

    #[test]
    fn both_kinds_of_mmio_compete_and_ports_do_not() {
        let mut allocator = SystemAllocator::<1, 4>::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS);
        for io_type in [IoType::Mmio, IoType::Pio] {
            assert_eq!(allocator.allocate_io(io_type, fixed(0, 9)), Ok(range(0, 9)));
        }
        let error = allocator.allocate_io(IoType::PhysicalMmio, fixed(9, 10)).unwrap_err();
        assert_eq!(error.to_string(), "physical mmio: [0x9, 0xa] overlaps [0x0, 0x9] of the VMM");
        let owner =
            |address| allocator.pool.innermost(IoType::PhysicalMmio, GuestAddress(address)).map(|(_, r)| r.node);
        assert_eq!([owner(9), owner(10)], [Some(RESERVED), None]);
        assert_eq!(allocator.free_io(IoType::PhysicalMmio, range(0, 9)), Ok(()));
        assert_eq!(allocator.pool.next_after(IoType::Mmio, None), None);
        assert_eq!(allocator.pool.next_after(IoType::Pio, None).map(|found| found.range), Some(range(0, 9)));
    }

    #[test]
    fn what_belongs_to_a_device_cannot_be_freed_beside_it() {
        let mut allocator = SystemAllocator::<1, 4>::new(IoRange::ALL_MEMORY);
        let place = allocator.pool.find(IoType::Mmio, &fixed(0, 9), NONE).unwrap();
        let number = allocator.pool.insert(&place, Range::new(0, IoType::Mmio)).unwrap();
        let taken = place.range;
        let error = PoolError::NotAllocated { range: taken };
        assert_eq!(allocator.free_io(IoType::Mmio, taken), Err(AllocateError::Io { io_type: IoType::Mmio, error }));
        assert_eq!(allocator.pool.remove(number), Ok(()));
    }

    #[test]
    fn absent_and_impossible_pools_say_so_when_they_are_used() {
        let mut allocator = SystemAllocator::<1, 4>::new(IoRange::ALL_MEMORY);
        let io = |error| AllocateError::Io { io_type: IoType::Pio, error };
        assert_eq!(allocator.allocate_io(IoType::Pio, fixed(0, 0)), Err(io(PoolError::NoPool)));
        assert_eq!(allocator.free_io(IoType::Pio, range(0, 0)), Err(io(PoolError::NoPool)));
        assert_eq!(allocator.pool.innermost(IoType::Pio, GuestAddress(0)), None);
        assert_eq!(allocator.pool.next_after(IoType::Pio, None), None);
        assert_eq!(allocator.allocate_irq(None), Err(IrqError::NoPool.into()));
        assert_eq!(allocator.free_irq(Gsi(0)), Err(IrqError::NoPool.into()));

        let bounds = range(0xff00, 0x1_0000);
        let mut allocator = allocator.with_ports(bounds).with_irqs(0, MAX_LINES);
        let beyond = PoolError::BeyondPorts { bounds };
        assert_eq!(allocator.allocate_io(IoType::Pio, fixed(0xff00, 0xff00)), Err(io(beyond)));
        let bad = IrqError::BadBounds { first: Gsi(0), last: Gsi(MAX_LINES) };
        assert_eq!(allocator.allocate_irq(Some(Gsi(0))), Err(bad.into()));
    }
}

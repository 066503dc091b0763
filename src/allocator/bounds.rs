//! The bounds of the pools.

use crate::address::{IoRange, Space};
use crate::error::{IrqError, RangeRefusal};
use crate::interrupt::Gsi;

/// The resources of a virtual machine: which guest physical addresses, ports and interrupt lines its manager gives to
/// devices.
///
/// It has guest physical addresses always, and ports and interrupt lines only where they were given. It is made in constant
/// evaluation, so that it can stand in a `static`. That is why impossible bounds are not an error here: each allocation from
/// them is.
///
/// The VMM takes what it needs itself within these bounds by [`reserve`](crate::DeviceManager::reserve) and
/// [`reserve_irq`](crate::DeviceManager::reserve_irq); devices do not get it.
///
/// ```
/// use vm_device::{DeviceManager, Fit, GuestAddress, GuestUsize, IoRange, IoType, Placement, Storage, SystemAllocator};
///
/// const DEVICE_MEMORY: IoRange = IoRange::of::<0xe000_0000, { u64::MAX }>();
/// const ALLOCATOR: SystemAllocator =
///     SystemAllocator::new(DEVICE_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(5, 23);
///
/// let storage = Storage::<16, 32, 1>::new();
/// let manager = DeviceManager::new(&storage, ALLOCATOR);
/// let page = Placement::Any { size: GuestUsize(0x1000), align: 0x1000, within: None, fit: Fit::Last };
/// let top = manager.reserve(IoType::Mmio, page).unwrap();
/// assert_eq!(top.last(), GuestAddress(u64::MAX));
/// assert!(manager.reserve(IoType::PhysicalMmio, Placement::Fixed(top)).is_err());
/// assert_eq!(manager.release(IoType::Mmio, top), Ok(()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemAllocator {
    memory: IoRange,
    /// The ports, if `has_ports`. Flags and not `Option`s, so that the fields pack more tightly: a manager keeps them.
    ports: IoRange,
    /// The first and the last line, if `has_irqs`.
    irqs: (Gsi, Gsi),
    has_ports: bool,
    has_irqs: bool,
}

impl SystemAllocator {
    /// The guest physical addresses in `mmio`.
    pub const fn new(mmio: IoRange) -> Self {
        Self { memory: mmio, ports: IoRange::ALL_PORTS, irqs: (Gsi(0), Gsi(0)), has_ports: false, has_irqs: false }
    }

    /// Adds the ports in `ports`, which all lie below `0x1_0000`. If they do not, every allocation of a port is
    /// [`RangeRefusal::BeyondPorts`].
    #[must_use]
    pub const fn with_ports(mut self, ports: IoRange) -> Self {
        (self.ports, self.has_ports) = (ports, true);
        self
    }

    /// Adds the interrupt lines from `first` to `last`, both inclusive, at most [`MAX_LINES`](crate::MAX_LINES). If they are
    /// in reverse order or too many, every allocation of a line is [`IrqError::BadBounds`].
    ///
    /// ```
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    /// use vm_device::{DeviceManager, Gsi, IoRange, IrqResource, RegisterError, Storage, SystemAllocator};
    ///
    /// let (first, second) = (Constant("first", 1), Constant("second", 2));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(5, 5));
    /// let id = manager.register_device(&first, None, &[], &[IrqResource::Any]).unwrap();
    /// assert_eq!(manager.irq(id, 0).and_then(|irq| irq.gsi), Some(Gsi(5)));
    /// let refused = manager.register_device(&second, None, &[], &[IrqResource::Any]);
    /// assert!(matches!(refused, Err(RegisterError::Irq { device: "second", .. })));
    /// ```
    #[must_use]
    pub const fn with_irqs(mut self, first: u32, last: u32) -> Self {
        (self.irqs, self.has_irqs) = ((Gsi(first), Gsi(last)), true);
        self
    }

    /// The addresses of a space.
    pub(crate) fn bounds<O>(&self, space: Space) -> Result<IoRange, RangeRefusal<O>> {
        match space {
            Space::Memory => Ok(self.memory),
            Space::Ports if !self.has_ports => Err(RangeRefusal::NoPorts),
            Space::Ports if self.ports.last() > space.last_address() => {
                Err(RangeRefusal::BeyondPorts { bounds: self.ports })
            }
            Space::Ports => Ok(self.ports),
        }
    }

    /// The first and the last interrupt line.
    pub(crate) fn irqs(&self) -> Result<(Gsi, Gsi), IrqError> {
        if self.has_irqs { Ok(self.irqs) } else { Err(IrqError::NoPool) }
    }
}

//! A device of this crate, as a device of the peer's.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use peer_vm_device::bus::{Error, MmioAddress, MmioAddressOffset, MmioRange, PioAddress, PioAddressOffset, PioRange};
use peer_vm_device::device_manager::{IoManager, MmioManager, PioManager};
use peer_vm_device::{DeviceMmio, DevicePio};
use vm_device::{
    Access, AccessSizes, Assigned, Device, Failed, GuestAddress, IoResource, IoType, IrqLine, MAX_RANGES_PER_DEVICE,
    OpenBus, Placement, RangeState, Rejected, Resources,
};

/// A device of this crate in an `IoManager`. The device needs nothing of a manager but accesses: its interrupts are
/// [disconnected](IrqLine::DISCONNECTED), it has no id, and no bus above it or device behind it. It is not told of resets.
///
/// As under a manager of this crate, a read comes to the device filled with ones, and the device gets only accesses of the sizes
/// that its request says, or what these are split into.
///
/// ```
/// use std::sync::Arc;
///
/// use hosttest::adapters::for_io_manager::ForIoManager;
/// use hosttest::adapters::serial::Serial;
/// use peer_vm_device::bus::PioAddress;
/// use peer_vm_device::device_manager::{IoManager, PioManager};
/// use vm_device::IoResource;
///
/// let mut manager = IoManager::new();
/// let port = Arc::new(Serial::new(Vec::new()));
/// ForIoManager::register(port.clone(), &[IoResource::pio(0x3f8, 8)], &mut manager)?;
///
/// manager.pio_write(PioAddress(0x3f8), b"x")?;
/// assert_eq!(port.with_writer(|sent| sent.clone()), b"x");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ForIoManager<D: ?Sized> {
    device: Arc<D>,
    requests: Vec<IoResource>,
    ranges: Vec<Assigned>,
    failure: Mutex<Option<Failed>>,
}

/// Why a device was not registered. No range of its is in the `IoManager` then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RegisterError {
    /// An `IoManager` cannot have a range such as this one: only one of ports or of MMIO, at a fixed place, decoded, that is no
    /// window and not the whole space, and not more than [`MAX_RANGES_PER_DEVICE`] of them.
    Unsupported {
        /// Which of the requests.
        index: usize,
    },
    /// Another device has the place, or a part of it.
    Overlap {
        /// Which of the requests.
        index: usize,
    },
    /// The device does not accept its ranges.
    Rejected(Rejected),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { index } => write!(f, "range {index} cannot be in an IoManager"),
            Self::Overlap { index } => write!(f, "range {index} overlaps another device's"),
            Self::Rejected(rejected) => rejected.fmt(f),
        }
    }
}

impl std::error::Error for RegisterError {}

impl<D: Device<'static> + Send + Sync + ?Sized + 'static> ForIoManager<D> {
    /// Registers `device` with the ranges of `requests`, which are those that it would be registered with here.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register(
        device: Arc<D>,
        requests: &[IoResource],
        manager: &mut IoManager,
    ) -> Result<Arc<Self>, RegisterError> {
        let places = requests.iter().enumerate().map(|(index, request)| {
            let place = Place::new(request).filter(|_| index < MAX_RANGES_PER_DEVICE);
            place.ok_or(RegisterError::Unsupported { index })
        });
        let places = places.collect::<Result<Vec<Place>, _>>()?;
        let ranges: Vec<Assigned> = places.iter().map(Place::assigned).collect();
        device.set_resources(&Resources::new(&ranges, &[IrqLine::DISCONNECTED])).map_err(RegisterError::Rejected)?;
        let this = Arc::new(Self { device, requests: requests.to_vec(), ranges, failure: Mutex::new(None) });
        for (index, place) in places.iter().enumerate() {
            if place.register(&this, manager).is_err() {
                places.iter().take(index).for_each(|place| place.deregister(manager));
                return Err(RegisterError::Overlap { index });
            }
        }
        Ok(this)
    }

    /// The device.
    pub fn device(&self) -> &Arc<D> {
        &self.device
    }

    /// What the last access that failed has failed with, since the last call. The peer's devices cannot tell it: an access that
    /// fails ends there, and is complete for the guest.
    pub fn take_failure(&self) -> Option<Failed> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Calls `call` with each access that the device gets of one of `length` bytes, and with the bytes that it is for, from the
    /// first to the one behind the last.
    fn access(
        &self,
        io_type: IoType,
        (base, offset): (u64, u64),
        length: usize,
        mut call: impl FnMut(&Access<'_>, usize, usize) -> Result<(), Failed>,
    ) {
        let is_there = |range: &Assigned| range.io_type == io_type && range.range.first().0 == base;
        let Some(index) = self.ranges.iter().position(is_there) else { return };
        let Some(request) = self.requests.get(index) else { return };
        let Some(sizes) = pieces(request, offset, length) else { return };
        let mut from = 0;
        for size in sizes {
            let address = GuestAddress(base.wrapping_add(offset).wrapping_add(from as u64));
            let to = from + size;
            if let Err(failed) = call(&Access::new(io_type, address, GuestAddress(base), index), from, to) {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
                return;
            }
            from = to;
        }
    }

    fn read(&self, io_type: IoType, place: (u64, u64), data: &mut [u8]) {
        data.fill(OpenBus::ALL_ONES.0);
        self.access(io_type, place, data.len(), |access, from, to| {
            self.device.try_read(access, data.get_mut(from..to).unwrap_or_default())
        });
    }

    fn write(&self, io_type: IoType, place: (u64, u64), data: &[u8]) {
        self.access(io_type, place, data.len(), |access, from, to| {
            self.device.try_write(access, data.get(from..to).unwrap_or_default())
        });
    }
}

/// The sizes of the accesses that a device gets of one of `length` bytes at `offset`: this one if it is accepted, and otherwise what
/// it is split into, if it is. `None` if it is refused.
fn pieces(request: &IoResource, offset: u64, length: usize) -> Option<Vec<usize>> {
    let sizes = request.access_sizes();
    if sizes.accepts(offset, length) {
        return Some(vec![length]);
    }
    if length == 0 || !sizes.contains(AccessSizes::SPLIT) {
        return None;
    }
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < length {
        let offset = offset.wrapping_add(at as u64);
        let fits =
            |size: &usize| *size <= length - at && offset.is_multiple_of(*size as u64) && sizes.accepts(offset, *size);
        let size = [8, 4, 2, 1].into_iter().find(fits)?;
        pieces.push(size);
        at += size;
    }
    Some(pieces)
}

impl<D: Device<'static> + Send + Sync + ?Sized + 'static> DevicePio for ForIoManager<D> {
    fn pio_read(&self, base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        self.read(IoType::Pio, (base.0.into(), offset.into()), data);
    }
    fn pio_write(&self, base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        self.write(IoType::Pio, (base.0.into(), offset.into()), data);
    }
}

impl<D: Device<'static> + Send + Sync + ?Sized + 'static> DeviceMmio for ForIoManager<D> {
    fn mmio_read(&self, base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.read(IoType::Mmio, (base.0, offset), data);
    }
    fn mmio_write(&self, base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.write(IoType::Mmio, (base.0, offset), data);
    }
}

/// A range as both crates have it.
enum Place {
    Ports(Assigned, PioRange),
    Memory(Assigned, MmioRange),
}

impl Place {
    /// `None` if the peer has no such ranges.
    fn new(request: &IoResource) -> Option<Self> {
        let (Ok(Placement::Fixed(range)), RangeState::Decoded, false) =
            (request.placement(), request.state(), request.is_window())
        else {
            return None;
        };
        let assigned = Assigned { io_type: request.io_type(), range, state: RangeState::Decoded };
        let (first, last) = (range.first().0, range.last().0);
        let size = last.checked_sub(first)?.checked_add(1)?;
        match request.io_type() {
            IoType::Pio => {
                let (first, size) = (u16::try_from(first).ok()?, u16::try_from(size).ok()?);
                Some(Self::Ports(assigned, PioRange::new(PioAddress(first), size).ok()?))
            }
            IoType::Mmio => Some(Self::Memory(assigned, MmioRange::new(MmioAddress(first), size).ok()?)),
            IoType::PhysicalMmio => None,
        }
    }

    fn assigned(&self) -> Assigned {
        match self {
            Self::Ports(assigned, _) | Self::Memory(assigned, _) => *assigned,
        }
    }

    fn register<T: DevicePio + DeviceMmio + Send + Sync + 'static>(
        &self,
        device: &Arc<T>,
        manager: &mut IoManager,
    ) -> Result<(), Error> {
        match self {
            Self::Ports(_, range) => manager.register_pio(*range, device.clone()),
            Self::Memory(_, range) => manager.register_mmio(*range, device.clone()),
        }
    }

    fn deregister(&self, manager: &mut IoManager) {
        match self {
            Self::Ports(_, range) => drop(manager.deregister_pio(range.base())),
            Self::Memory(_, range) => drop(manager.deregister_mmio(range.base())),
        }
    }
}

//! What a VMM maps elsewhere hears of the places of ranges.

use crate::address::{GuestAddress, IoRange, IoType};
use crate::device::{Device, Doorbell, Rejected};
use crate::instance::InstanceId;

/// Hears where ranges lie that a VMM maps itself: [`PhysicalMmio`](IoType::PhysicalMmio) ranges, which are memory slots or
/// entries of nested page tables, and ranges with [`Doorbell`]s, which are ioeventfds. The VMM implements it.
///
/// Of each such range that is decoded, it is told after the range has its place, and before the range gives it up. For one
/// range, the calls alternate and are in order. All calls come one at a time. The manager holds no lock meanwhile: a listener
/// may access devices, and change ranges, but a removal that it calls may wait for the listener's own call, and give up with
/// [`InUse`](crate::UnregisterError::InUse).
///
/// A change of a range that comes while the listener is told of that range is made when the call has returned. Of several such
/// changes, the last is made.
/// (With several changes at once, the caller that is in the listener makes those of the others, 64 in turn, range by range: a
/// transaction is not one change then, and a range that cannot be reserved where it was to be stays where it is. What is then
/// left is made with the next change. It keeps them in ranges that are not in use.)
///
/// ```
/// use spin::Mutex;
/// use vm_device::{
///     DeviceManager, GuestAddress, GuestUsize, IoRange, IoResource, IoType, PlacedRange, RangeListener, Rejected,
///     Relocation, Storage, SystemAllocator,
/// };
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
///
/// /// Memory slots.
/// struct Slots(Mutex<Vec<IoRange>>);
///
/// impl RangeListener for Slots {
///     fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
///         self.0.lock().push(range.range);
///         Ok(())
///     }
///     fn leaving(&self, range: &PlacedRange<'_>) {
///         self.0.lock().retain(|slot| *slot != range.range);
///     }
/// }
///
/// static SLOTS: Slots = Slots(Mutex::new(Vec::new()));
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY)).with_listener(&SLOTS);
/// static VIDEO: Constant = Constant("video", 1);
///
/// let memory = IoResource::fixed(IoType::PhysicalMmio, GuestAddress(0x8000_0000), GuestUsize(0x1000));
/// let video = MANAGER.register_device(&VIDEO, None, &[memory], &[]).unwrap();
/// assert_eq!(*SLOTS.0.lock(), [IoRange::of::<0x8000_0000, 0x8000_0fff>()]);
/// MANAGER.relocate(&mut [Relocation::new(video, 0).to(GuestAddress(0x9000_0000))]).unwrap();
/// assert_eq!(*SLOTS.0.lock(), [IoRange::of::<0x9000_0000, 0x9000_0fff>()]);
/// MANAGER.unregister_device(video).unwrap();
/// assert_eq!(*SLOTS.0.lock(), []);
/// ```
pub trait RangeListener: Sync {
    /// The range has this place: a memory slot can be made, an ioeventfd registered.
    ///
    /// # Errors
    /// [`Rejected`] if that failed. The caller that made the change is told so; a registration is undone. Otherwise the range
    /// keeps its place, and the listener is told again with the next change of any range. A call that unwinds has failed too.
    /// Where another caller is in the listener, nothing waits for it: that caller tells of the place, and is told of the error, and
    /// a registration is not undone.
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected>;

    /// The range is about to give up this place, of which [`placed`](Self::placed) has told: until this returns, no other
    /// range gets it. If the change fails afterwards, the listener is told that the range is placed there. If this unwinds
    /// instead of returning, the range stays where it is, and so a removal is left to
    /// [`collect`](crate::DeviceManager::collect).
    fn leaving(&self, range: &PlacedRange<'_>);
}

impl<L: RangeListener + ?Sized> RangeListener for &L {
    fn placed(&self, range: &PlacedRange<'_>) -> Result<(), Rejected> {
        (**self).placed(range)
    }
    fn leaving(&self, range: &PlacedRange<'_>) {
        (**self).leaving(range);
    }
}

/// A range of which a [`RangeListener`] is told.
#[derive(Clone, Copy)]
pub struct PlacedRange<'d> {
    /// The device that has it.
    pub id: InstanceId,
    /// That device.
    pub device: &'d dyn Device<'d>,
    /// Which of the device's ranges.
    pub range_index: usize,
    /// Its kind.
    pub io_type: IoType,
    /// Where it lies.
    pub range: IoRange,
    /// Whether it is a window: other ranges may lie over parts of it, now or later.
    pub window: bool,
}

impl<'d> PlacedRange<'d> {
    /// The doorbells in it, each with its address.
    pub fn doorbells(&self) -> impl Iterator<Item = (GuestAddress, &'d Doorbell)> {
        let Self { device, range_index, range, .. } = *self;
        let own = device.doorbells().iter().filter(move |doorbell| doorbell.range_index == range_index);
        own.filter_map(move |doorbell| Some((GuestAddress(range.first().0.checked_add(doorbell.offset)?), doorbell)))
    }
}

impl core::fmt::Debug for PlacedRange<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PlacedRange")
            .field("id", &self.id)
            .field("range_index", &self.range_index)
            .field("io_type", &self.io_type)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

//! What an observer is told of each access.

use core::fmt;

use crate::access::IoError;
use crate::address::{GuestAddress, IoType};
use crate::instance::InstanceId;

/// Is told of every access, with its outcome: for traces, counters of each device and measurements of time. The VMM implements
/// it, and gives it to [`DeviceManager::with_observer`](crate::DeviceManager::with_observer).
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use spin::Mutex;
/// use vm_device::{
///     AccessObserver, DeviceManager, GuestAddress, IoRange, IoResource, IoType, ObservedAccess, Storage, SystemAllocator,
/// };
///
/// /// A trace.
/// struct Trace(Mutex<Vec<String>>);
///
/// impl AccessObserver for Trace {
///     fn observe(&self, access: &ObservedAccess<'_>) {
///         let ObservedAccess { direction, address, data, outcome, .. } = *access;
///         let answered = if outcome.is_ok() { "answered" } else { "not answered" };
///         self.0.lock().push(format!("{direction:?} at {address}, {data:x?}, {answered}"));
///     }
/// }
///
/// static TRACE: Trace = Trace(Mutex::new(Vec::new()));
/// static RTC: Constant = Constant("rtc", 7);
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY)).with_observer(&TRACE);
///
/// MANAGER.register_device(&RTC, None, &[IoResource::mmio(0x1000, 2)], &[])?;
/// let mut vcpu = MANAGER.dispatcher(0)?;
/// let _ = vcpu.read(GuestAddress(0x1001), &mut [0], IoType::Mmio);
/// let _ = vcpu.write(GuestAddress(0x1002), &[0x55], IoType::Mmio);
/// assert_eq!(*TRACE.0.lock(), ["Read at 0x1001, [7], answered", "Write at 0x1002, [55], not answered"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait AccessObserver: Sync {
    /// An access has ended. It is called once for each, on the thread that has made the access, before the caller gets the outcome.
    ///
    /// No lock is held, and the device is no longer protected: it may have been removed by now. An observer may call the manager,
    /// but it is told of its own accesses too, and has to end this recursion by itself. As a part of the VM exit, it should not wait.
    ///
    /// Of nested accesses, the inner one is told first. Of an access that is split as
    /// [`Straddling::Split`](crate::Straddling::Split) says, each [piece](ObservedAccess::is_piece) is told, and then the whole. The
    /// pieces that an access is split into because of its [size](crate::AccessSizes::SPLIT) are not. An access whose device unwinds
    /// is not told.
    fn observe(&self, access: &ObservedAccess<'_>);

    /// The time, in units of the observer's own. It is asked once for each access, before anything else is done; what it gives is
    /// [`ObservedAccess::started`]. Unless an observer has its own, there is none.
    fn now(&self) -> Option<u64> {
        None
    }
}

impl<O: AccessObserver + ?Sized> AccessObserver for &O {
    fn observe(&self, access: &ObservedAccess<'_>) {
        (**self).observe(access);
    }
    fn now(&self) -> Option<u64> {
        (**self).now()
    }
}

/// The direction of an access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AccessDirection {
    /// The guest reads.
    Read,
    /// The guest writes.
    Write,
}

/// An access that has ended, as an [`AccessObserver`] is told of it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObservedAccess<'a> {
    /// What the caller is told.
    pub outcome: Result<(), IoError>,
    /// The device that was called, or that refused the size. `None` if there was none, and for the whole of an access that was split
    /// as [`Straddling::Split`](crate::Straddling::Split) says.
    pub device: Option<InstanceId>,
    /// Which of that device's ranges.
    pub range_index: Option<usize>,
    /// The number of the vCPU, as [`Access::vcpu`](crate::Access::vcpu).
    pub vcpu: Option<u16>,
    /// The kind of the access, as the caller has named it.
    pub io_type: IoType,
    /// The address of the first byte.
    pub address: GuestAddress,
    /// Whether it is a read or a write.
    pub direction: AccessDirection,
    /// The length of one element in bytes: of a string, as the caller has named it; of every other access that of the data.
    pub element: usize,
    /// The bytes written, or what the guest gets. Of a string, all of its elements.
    pub data: &'a [u8],
    /// How many accesses this one is nested in: through [`Nested`](crate::Nested). An access from within a callback that is made in
    /// another way counts as not nested.
    pub depth: usize,
    /// Whether it is a piece of an access that was split as [`Straddling::Split`](crate::Straddling::Split) says.
    pub is_piece: bool,
    /// What [`AccessObserver::now`] gave before the access.
    pub started: Option<u64>,
}

impl fmt::Debug for ObservedAccess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither `()` nor a `bool` is shown: the text of either can panic in `core`, as far as the linker knows.
        f.debug_struct(if self.is_piece { "ObservedPiece" } else { "ObservedAccess" })
            .field("error", &self.outcome.err())
            .field("device", &self.device)
            .field("range_index", &self.range_index)
            .field("vcpu", &self.vcpu)
            .field("io_type", &self.io_type)
            .field("address", &self.address)
            .field("direction", &self.direction)
            .field("element", &self.element)
            .field("data", &self.data)
            .field("depth", &self.depth)
            .field("started", &self.started)
            .finish()
    }
}

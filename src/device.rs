//! The trait that devices implement.

use core::fmt;

use crate::access::{Access, IoError};
use crate::description::Description;
use crate::resource::Resources;

/// A device, or a bus: a bus is a device that others name as their parent.
///
/// `'d` is how long devices and manager live: `'static` in firmware, a scope in a test. A device that keeps no
/// interrupt handle need not name it.
///
/// Every method may be called from any vCPU and by several at once. A device protects its own state (a
/// [`spin::Mutex`], an atomic); the manager holds no lock of its own during a call, so that a device may access other
/// devices, and register, move and remove them, from within. Where panics unwind, a callback that unwinds has ended, and the
/// unwinding goes on through the access.
///
/// ```
/// use spin::Mutex;
/// use vm_device::{Access, Device};
///
/// /// A register of 4 bytes, which keeps what is written.
/// struct Scratch(Mutex<[u8; 4]>);
///
/// impl Device<'_> for Scratch {
///     fn name(&self) -> &str {
///         "scratch"
///     }
///     fn read(&self, access: &Access<'_>, data: &mut [u8]) {
///         access.load(&*self.0.lock(), data);
///     }
///     fn write(&self, access: &Access<'_>, data: &[u8]) {
///         access.store(&mut *self.0.lock(), data);
///     }
/// }
/// ```
///
/// A guest chooses offset and length of its accesses. [`Access::load`] and [`Access::store`] serve all of them; a device
/// that uses neither has to be ready for each, or is registered with the sizes that it accepts
/// ([`IoResource::sizes`](crate::IoResource::sizes)).
///
/// A device whose accesses can fail implements [`try_read`](Self::try_read) and [`try_write`](Self::try_write) in the place of
/// [`read`](Self::read) and [`write`](Self::write). A device without ranges, such as a bus, implements none of them.
pub trait Device<'d>: Sync {
    /// The name, which stands in paths ([`find_by_path`](crate::DeviceManager::find_by_path)): not empty, and without a `/` and a `@`.
    /// Siblings may have the same name. A path tells them apart by their addresses.
    fn name(&self) -> &str;

    /// The guest reads. `data` comes filled with the open-bus value and may be left so; it is never empty.
    ///
    /// It is called from within the VM exit: it should not wait. Unless a device has its own, the read has the open-bus value.
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let _ = (access, data);
    }

    /// The guest writes `data`, which is never empty.
    ///
    /// It is called from within the VM exit: it should not wait. Unless a device has its own, the write is ignored.
    fn write(&self, access: &Access<'_>, data: &[u8]) {
        let _ = (access, data);
    }

    /// The guest reads, and the device can fail: as [`read`](Self::read), which it calls unless a device has its own. The manager
    /// calls this method, and not `read`.
    ///
    /// ```
    /// use vm_device::{
    ///     Access, Device, DeviceManager, Failed, GuestAddress, IoError, IoRange, IoResource, IoType, Storage,
    ///     SystemAllocator,
    /// };
    ///
    /// /// Memory of another process, which has ended.
    /// struct Remote;
    ///
    /// impl Device<'_> for Remote {
    ///     fn name(&self) -> &str {
    ///         "remote"
    ///     }
    ///     fn try_read(&self, _: &Access<'_>, _: &mut [u8]) -> Result<(), Failed> {
    ///         Err(Failed::new(32))
    ///     }
    /// }
    ///
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// manager.register_device(&Remote, None, &[IoResource::mmio(0x1000, 4)], &[]).unwrap();
    /// let mut data = [0; 4];
    /// let outcome = manager.read(GuestAddress(0x1000), &mut data, IoType::Mmio);
    /// assert_eq!((outcome, data), (Err(IoError::Failed { code: 32 }), [0xff; 4]));
    /// ```
    ///
    /// # Errors
    /// [`Failed`] ends the access: what follows of it is not made.
    fn try_read(&self, access: &Access<'_>, data: &mut [u8]) -> Result<(), Failed> {
        self.read(access, data);
        Ok(())
    }

    /// The guest writes, and the device can fail: as [`try_read`](Self::try_read), the other way.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    fn try_write(&self, access: &Access<'_>, data: &[u8]) -> Result<(), Failed> {
        self.write(access, data);
        Ok(())
    }

    /// The guest reads a string of ports (`REP INS`): `data` holds elements of `element` bytes each, all from the same
    /// port, in the order in which they are read. Unless a device takes the burst in one piece by its own method,
    /// each element is a [`try_read`](Self::try_read), up to the first that fails.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    fn read_string(&self, access: &Access<'_>, element: usize, data: &mut [u8]) -> Result<(), Failed> {
        data.chunks_mut(element.max(1)).try_for_each(|item| self.try_read(access, item))
    }

    /// The guest writes a string of ports (`REP OUTS`): as [`read_string`](Self::read_string), the other way.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    fn write_string(&self, access: &Access<'_>, element: usize, data: &[u8]) -> Result<(), Failed> {
        data.chunks(element.max(1)).try_for_each(|item| self.try_write(access, item))
    }

    /// Tells the device what it was given: once for each registration, before any access can reach the device.
    ///
    /// # Errors
    /// A device that cannot work with what it was given says so, and its registration is undone.
    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        let _ = resources;
        Ok(())
    }

    /// The guest has ended an interrupt of the line that interrupt number `index` of the device has, be it this device's or
    /// another's on the line: see [`DeviceManager::end_of_interrupt`](crate::DeviceManager::end_of_interrupt). A timer that
    /// makes up for lost ticks counts these; most devices need not know.
    fn end_of_interrupt(&self, index: usize) {
        let _ = index;
    }

    /// The device takes the state that it has after power-on. By default it has none to take.
    ///
    /// It is called by [`DeviceManager::reset`](crate::DeviceManager::reset), for a bus before what is on it. The ranges and the
    /// lines of the device stay its own; a line that it asserts, it deasserts here. A removal of the device waits for the call as
    /// for a callback.
    fn reset(&self) {}

    /// The time is `now`, in nanoseconds of the embedder's monotonic clock. The device does what is due by now, and returns when
    /// it has something to do next; `None` if nothing. By default it has nothing to do.
    ///
    /// It is called by [`DeviceManager::tick`](crate::DeviceManager::tick), sooner or later than it has asked for: a device does
    /// all that is due, and nothing that is not. A removal of the device waits for the call as for a callback.
    fn tick(&self, now: u64) -> Option<u64> {
        let _ = now;
        None
    }

    /// The writes that the device would rather have as events than as calls of [`write`](Self::write).
    fn doorbells(&self) -> &[Doorbell] {
        &[]
    }

    /// What the device is, in the words of the tables that a guest finds: ACPI, a device tree. By default it says nothing, and stands
    /// in none.
    ///
    /// It is called when tables are written, more than once, and says the same each time.
    fn describe(&self, description: &mut dyn Description) {
        let _ = description;
    }
}

/// A write that a VMM may take off the dispatch path: KVM's ioeventfd, or what corresponds to it.
///
/// It is advice: a VMM that ignores it, or cannot follow it, dispatches the write to the device as any other. One that
/// follows it may make one call of several such writes, and it need not know what was written where any value will do.
///
/// It lies at an offset in a range, not at an address: a doorbell moves with its range.
///
/// ```
/// use vm_device::{Device, Doorbell};
///
/// /// A queue: a write of its index at offset 0x10 of its first range says that there is work.
/// struct Queue;
///
/// impl Device<'_> for Queue {
///     fn name(&self) -> &str {
///         "queue"
///     }
///     fn doorbells(&self) -> &[Doorbell] {
///         &[Doorbell { range_index: 0, offset: 0x10, size: 2, value: Some(0) }]
///     }
/// }
///
/// assert_eq!(Queue.doorbells().len(), 1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doorbell {
    /// In which of the device's ranges the doorbell lies.
    pub range_index: usize,
    /// Where in that range, in bytes from its base.
    pub offset: u64,
    /// The length of the write in bytes: 1, 2, 4 or 8; 0 for a write of any of these lengths.
    pub size: u8,
    /// The value that has to be written, in as many bytes as the write has; `None` for any.
    pub value: Option<u64>,
}

/// A device does not accept the resources it was given.
///
/// ```
/// use vm_device::{
///     Device, DeviceManager, IoRange, RegisterError, Rejected, Resources, Storage, SystemAllocator,
/// };
///
/// /// A device that cannot do without an interrupt line.
/// struct Clock;
///
/// impl<'d> Device<'d> for Clock {
///     fn name(&self) -> &str {
///         "clock"
///     }
///     fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
///         resources.irq(0).gsi().map(drop).ok_or(Rejected::new(19))
///     }
/// }
///
/// let storage = Storage::<8, 16, 2>::new();
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let refused = manager.register_device(&Clock, None, &[], &[]);
/// assert_eq!(refused, Err(RegisterError::Rejected { device: "clock", code: 19 }));
/// assert_eq!(manager.walk().count(), 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rejected {
    code: u32,
}

impl Rejected {
    /// With a code that says why, in numbers of the device's own: an `errno` of the host, for one. It stands in the error of
    /// the registration.
    pub const fn new(code: u32) -> Self {
        Self { code }
    }

    /// The code.
    pub const fn code(self) -> u32 {
        self.code
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the device does not accept its resources (code {})", self.code)
    }
}

impl core::error::Error for Rejected {}

/// A device cannot make an access that a guest makes: what is behind the device has failed. The VMM gets the code as
/// [`IoError::Failed`], and as a rule stops the guest.
///
/// It is not for what a guest does wrong, which a device answers as its hardware would.
///
/// ```
/// use vm_device::{Failed, IoError};
///
/// assert_eq!(Failed::new(5).code(), 5);
/// assert_eq!(IoError::from(Failed::new(5)), IoError::Failed { code: 5 });
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Failed(
    /// It is [`IoError::Failed`]. So a `Result` of a device is that of the dispatch as it is, and no instruction makes one of the
    /// other.
    IoError,
);

impl Failed {
    /// With a code that says why, in numbers of the device's own: an `errno` of the host, for one. It stands in the error of
    /// the access.
    pub const fn new(code: u32) -> Self {
        Self(IoError::Failed { code })
    }

    /// The code.
    pub const fn code(self) -> u32 {
        match self.0 {
            IoError::Failed { code } => code,
            _ => 0,
        }
    }

    /// Passes on what a nested access ended with: a failure fails the access that it was made for. Any other outcome is `Ok`,
    /// because for the guest the access is complete.
    ///
    /// ```
    /// use vm_device::{Access, Device, DeviceManager, Failed, GuestAddress, IoType};
    ///
    /// /// Shows the first 64 KiB of the memory space at another place.
    /// struct Mirror<'d>(&'d DeviceManager<'d>);
    ///
    /// impl<'d> Device<'d> for Mirror<'d> {
    ///     fn name(&self) -> &str {
    ///         "mirror"
    ///     }
    ///     fn try_read(&self, access: &Access<'_>, data: &mut [u8]) -> Result<(), Failed> {
    ///         let address = GuestAddress(access.offset());
    ///         Failed::pass_on(self.0.nested(access).read(address, data, IoType::Mmio))
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Failed`] with the code of an [`IoError::Failed`].
    pub const fn pass_on(outcome: Result<(), IoError>) -> Result<(), Self> {
        match outcome {
            Err(error @ IoError::Failed { .. }) => Err(Self(error)),
            _ => Ok(()),
        }
    }
}

impl From<Failed> for IoError {
    #[inline(always)]
    fn from(failed: Failed) -> Self {
        failed.0
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failed").field("code", &self.code()).finish()
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core::error::Error for Failed {}

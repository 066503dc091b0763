//! The trait that devices implement.

use core::fmt;

use crate::access::Access;
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
pub trait Device<'d>: Sync {
    /// The name, which stands in paths ([`find_by_path`](crate::DeviceManager::find_by_path)): not empty, and without a `/` and a `@`.
    /// Siblings may have the same name. A path tells them apart by their addresses.
    fn name(&self) -> &str;

    /// The guest reads. `data` comes filled with the open-bus value and may be left so; it is never empty.
    ///
    /// It is called from within the VM exit: it should not wait.
    fn read(&self, access: &Access<'_>, data: &mut [u8]);

    /// The guest writes `data`, which is never empty.
    ///
    /// It is called from within the VM exit: it should not wait.
    fn write(&self, access: &Access<'_>, data: &[u8]);

    /// The guest reads a string of ports (`REP INS`): `data` holds elements of `element` bytes each, all from the same
    /// port, in the order in which they are read. Unless a device takes the burst in one piece by its own method,
    /// each element is a [`read`](Self::read).
    fn read_string(&self, access: &Access<'_>, element: usize, data: &mut [u8]) {
        for item in data.chunks_mut(element.max(1)) {
            self.read(access, item);
        }
    }

    /// The guest writes a string of ports (`REP OUTS`): as [`read_string`](Self::read_string), the other way.
    fn write_string(&self, access: &Access<'_>, element: usize, data: &[u8]) {
        for item in data.chunks(element.max(1)) {
            self.write(access, item);
        }
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

    /// The writes that the device would rather have as events than as calls of [`write`](Self::write).
    fn doorbells(&self) -> &[Doorbell] {
        &[]
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
/// use vm_device::{Access, Device, Doorbell};
///
/// /// A queue: a write of its index at offset 0x10 of its first range says that there is work.
/// struct Queue;
///
/// impl Device<'_> for Queue {
///     fn name(&self) -> &str {
///         "queue"
///     }
///     fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
///     fn write(&self, _: &Access<'_>, _: &[u8]) {}
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
///     Access, Device, DeviceManager, IoRange, RegisterError, Rejected, Resources, Storage,
///     SystemAllocator,
/// };
///
/// /// A device that cannot do without an interrupt line.
/// struct Clock;
///
/// impl<'d> Device<'d> for Clock {
///     fn name(&self) -> &str {
///         "clock"
///     }
///     fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
///     fn write(&self, _: &Access<'_>, _: &[u8]) {}
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

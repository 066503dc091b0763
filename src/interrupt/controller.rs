//! What the VMM implements: the interrupt controller of the virtual machine.

use core::fmt;

use crate::address::GuestAddress;

/// A global system interrupt: the number of an input line of the interrupt controller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gsi(pub u32);

impl fmt::Display for Gsi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GSI {}", self.0)
    }
}

/// The interrupt controller of the virtual machine, which the VMM implements: over KVM's irqchip, an emulated IOAPIC,
/// or the event injection of the processor.
///
/// The manager calls it from within device callbacks and from any vCPU. Calls for different lines may come at the same time;
/// level changes of one line come one at a time. The manager holds no lock meanwhile: an implementation may call the manager,
/// but must not remove a device other than deferred, because a removal waits for calls of the controller, nor move an interrupt
/// ([`reroute`](crate::DeviceManager::reroute)) or pass on an end
/// ([`end_of_interrupt`](crate::DeviceManager::end_of_interrupt)). It must not call an [`IrqLine`](crate::IrqLine).
///
/// A method that unwinds instead of returning has not taken what it was told. The unwinding goes on through the method of the
/// handle, or the removal, that made the call, and the manager is as after a refusal.
///
/// A reference to a controller is a controller.
///
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
/// use vm_device::{Gsi, GuestAddress, InterruptController, InterruptError};
///
/// /// The interrupt request register of a controller with 32 inputs, level-triggered or not, and no messages.
/// struct Controller(AtomicU32);
///
/// impl InterruptController for Controller {
///     fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
///         let bit = 1_u32.checked_shl(gsi.0).ok_or(InterruptError::Refused)?;
///         match asserted {
///             true => self.0.fetch_or(bit, Ordering::SeqCst),
///             false => self.0.fetch_and(!bit, Ordering::SeqCst),
///         };
///         Ok(())
///     }
///     fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
///         self.set_level(gsi, true)
///     }
///     fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
///         Err(InterruptError::Refused)
///     }
/// }
///
/// let controller = Controller(AtomicU32::new(0));
/// assert_eq!(controller.set_level(Gsi(4), true), Ok(()));
/// assert_eq!(controller.set_level(Gsi(32), true), Err(InterruptError::Refused));
/// assert_eq!(controller.0.load(Ordering::SeqCst), 1 << 4);
/// ```
pub trait InterruptController: Sync {
    /// Drives a level-triggered line. A level that the controller has taken is not told a second time,
    /// unless an interrupt of the line has [ended](crate::DeviceManager::end_of_interrupt) since.
    ///
    /// # Errors
    /// [`InterruptError::Refused`], or whatever else keeps the controller from doing so. The line then has the level that was
    /// taken last, and the refused level is told again when a device on the line drives the line next. A level that is refused
    /// at the removal of a device is told again by each [`collect`](crate::DeviceManager::collect), and a line that no device
    /// has any more stays taken until then.
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError>;

    /// Signals one edge on an edge-triggered line.
    ///
    /// # Errors
    /// As [`set_level`](Self::set_level).
    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError>;

    /// Delivers a message-signalled interrupt: the write of `data` to `address` that the device would make (Intel SDM
    /// vol. 3A, "Message Signalled Interrupts").
    ///
    /// # Errors
    /// As [`set_level`](Self::set_level).
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError>;
}

impl<C: InterruptController + ?Sized> InterruptController for &C {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        (**self).set_level(gsi, asserted)
    }
    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        (**self).pulse(gsi)
    }
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        (**self).message(address, data)
    }
}

#[cfg(feature = "alloc")]
impl<C: InterruptController + Send + ?Sized> InterruptController for alloc::sync::Arc<C> {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        (**self).set_level(gsi, asserted)
    }
    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        (**self).pulse(gsi)
    }
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        (**self).message(address, data)
    }
}

/// Why an interrupt was not signalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum InterruptError {
    /// The device is not registered any more.
    Removed,
    /// The device asked for no line, its interrupt has none now, or no device has the line.
    NoLine,
    /// The device has no message of this number.
    NoMessage,
    /// The manager was given no interrupt controller.
    NoController,
    /// An edge on a line that several devices share: a shared line is level-triggered.
    SharedLine,
    /// The interrupt controller did not take it. A level is told again by the next call for the line.
    Refused,
    /// Another caller is telling the controller of a change on the same line. That caller tells it of this change too, and
    /// learns whether the controller has taken it.
    Pending,
}

impl fmt::Display for InterruptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InterruptError::Removed => "the device is not registered any more",
            InterruptError::NoLine => "there is no interrupt line",
            InterruptError::NoMessage => "the device has no interrupt message of this number",
            InterruptError::NoController => "the manager has no interrupt controller",
            InterruptError::SharedLine => "an edge cannot be signalled on a shared line",
            InterruptError::Refused => "the interrupt controller did not take the interrupt",
            InterruptError::Pending => "another caller is telling the interrupt controller, of this change too",
        })
    }
}

impl core::error::Error for InterruptError {}

/// How many interrupts of devices can share one line.
pub const MAX_SHARING: usize = 29;

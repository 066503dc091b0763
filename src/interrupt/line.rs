//! The handle by which a device drives its interrupt line.

use core::fmt;

use super::controller::{Gsi, InterruptController, InterruptError};
use super::gate::HandleGate;
use super::level::{ControllerLine, LineLevel};
use crate::address::GuestAddress;

/// One source of a line.
#[derive(Clone, Copy)]
pub(crate) struct LineSource<'d> {
    pub(crate) level: &'d LineLevel,
    /// The bit of this source in the level's word.
    pub(crate) bit: u32,
    pub(crate) gsi: Gsi,
    pub(crate) shared: bool,
}

impl LineSource<'_> {
    /// Takes the source's assertion back, once its gate is closed and idle. Afterwards the level knows whether the controller
    /// has taken that.
    pub(crate) fn release(&self, controller: Option<&dyn InterruptController>) {
        if let Some(controller) = controller {
            self.level.release(self.bit, ControllerLine { controller, gsi: self.gsi });
        }
    }
}

/// The interrupt of one device, which the device gets with its [`Resources`](crate::Resources). It may be kept, copied and used
/// from any thread. Once the device is unregistered, every method returns [`InterruptError::Removed`] and does nothing.
///
/// ```
/// use spin::Mutex;
/// use vm_device::{
///     Access, Device, DeviceManager, Gsi, InterruptError, IoRange, IrqLine, IrqResource, Rejected, Resources, Storage,
///     SystemAllocator,
/// };
///
/// /// Keeps the handle that it is given.
/// struct Timer<'d>(Mutex<IrqLine<'d>>);
///
/// impl<'d> Device<'d> for Timer<'d> {
///     fn name(&self) -> &str {
///         "timer"
///     }
///     fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
///     fn write(&self, _: &Access<'_>, _: &[u8]) {}
///     fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
///         *self.0.lock() = resources.irq(0);
///         Ok(())
///     }
/// }
///
/// static TIMER: Timer<'static> = Timer(Mutex::new(IrqLine::DISCONNECTED));
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 15));
///
/// assert_eq!(TIMER.0.lock().assert(), Err(InterruptError::Removed));
/// let timer = MANAGER.register_device(&TIMER, None, &[], &[IrqResource::Any])?;
/// let line = *TIMER.0.lock();
/// assert_eq!(line.gsi(), Some(Gsi(0)));
/// // This manager has no interrupt controller.
/// assert_eq!(line.assert(), Err(InterruptError::NoController));
///
/// // A handle outlives the registration, and does nothing then.
/// MANAGER.unregister_device(timer)?;
/// assert_eq!(line.assert(), Err(InterruptError::Removed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct IrqLine<'d> {
    gate: Option<(&'d HandleGate, u32)>,
    source: Option<LineSource<'d>>,
    controller: Option<&'d dyn InterruptController>,
}

impl fmt::Debug for IrqLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqLine").field("gsi", &self.gsi()).finish_non_exhaustive()
    }
}

impl<'d> IrqLine<'d> {
    /// A handle that belongs to no device: each method returns [`InterruptError::Removed`]. What a device holds before
    /// its registration, and what a test hands it.
    pub const DISCONNECTED: Self = Self { gate: None, source: None, controller: None };

    pub(crate) fn new(
        gate: &'d HandleGate,
        source: Option<LineSource<'d>>,
        controller: Option<&'d dyn InterruptController>,
    ) -> Self {
        Self { gate: Some((gate, gate.generation())), source, controller }
    }

    /// The line, if the device asked for one.
    pub fn gsi(&self) -> Option<Gsi> {
        self.source.as_ref().map(|source| source.gsi)
    }

    /// Asserts the line: it stays asserted until this device, and every other that shares it, has taken its assertion
    /// back. Asserting twice is the same as once.
    ///
    /// `Ok` says that the controller has taken the line's current level. One call of this method makes at most 4 calls of the
    /// controller, and none if the level is taken already.
    ///
    /// If another caller is already telling the controller a change of this line, that caller tells it this change too, and the
    /// method returns [`Pending`](InterruptError::Pending) at once. If the line has changed during each of that caller's first
    /// 3 calls of the controller, the method waits for the fourth instead, and then tells the level itself.
    ///
    /// # Errors
    /// [`InterruptError`], all but `SharedLine`.
    pub fn assert(&self) -> Result<(), InterruptError> {
        self.drive(true)
    }

    /// Takes this device's assertion back. As [`assert`](Self::assert) otherwise.
    ///
    /// # Errors
    /// [`InterruptError`], all but `SharedLine`.
    pub fn deassert(&self) -> Result<(), InterruptError> {
        self.drive(false)
    }

    /// Signals one edge.
    ///
    /// # Errors
    /// [`InterruptError`], all but `Pending`; `SharedLine` if the device asked for a shared line.
    pub fn pulse(&self) -> Result<(), InterruptError> {
        self.with_gate(|line| {
            let source = line.source.ok_or(InterruptError::NoLine)?;
            if source.shared {
                return Err(InterruptError::SharedLine);
            }
            line.controller()?.pulse(source.gsi)
        })
    }

    /// Sends a message-signalled interrupt, for which a device needs no line.
    ///
    /// # Errors
    /// [`InterruptError`], all but `NoLine`, `SharedLine` and `Pending`.
    pub fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.with_gate(|line| line.controller()?.message(address, data))
    }

    fn drive(&self, asserted: bool) -> Result<(), InterruptError> {
        self.with_gate(|line| {
            let source = line.source.ok_or(InterruptError::NoLine)?;
            let to = ControllerLine { controller: line.controller()?, gsi: source.gsi };
            source.level.drive(source.bit, asserted, to)
        })
    }

    fn controller(&self) -> Result<&'d dyn InterruptController, InterruptError> {
        self.controller.ok_or(InterruptError::NoController)
    }

    fn with_gate(&self, act: impl FnOnce(&Self) -> Result<(), InterruptError>) -> Result<(), InterruptError> {
        let (gate, generation) = self.gate.ok_or(InterruptError::Removed)?;
        let _passage = gate.enter(generation)?;
        act(self)
    }
}

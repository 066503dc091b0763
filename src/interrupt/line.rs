//! The handle by which a device drives an interrupt.

use core::fmt;

use super::connection::{Connection, LineShare};
use super::controller::{Gsi, InterruptController, InterruptError};
use super::gate::HandleGate;
use super::level::{ControllerLine, LineLevel};
use crate::address::GuestAddress;
use crate::indices::LineIndex;

/// The lines of a manager, as its handles find them.
pub(crate) trait Wires: Sync {
    /// The level of a line.
    fn level(&self, line: LineIndex) -> Option<&LineLevel>;
    /// Which of the allocator's lines it is, counted from the first.
    fn number(&self, line: LineIndex) -> u16;
}

/// An interrupt of a device, as the handle knows it.
#[derive(Clone, Copy)]
pub(crate) struct Wiring<'d> {
    pub(crate) connection: &'d Connection,
    pub(crate) wires: &'d dyn Wires,
    /// The first line of the allocator.
    pub(crate) first: Gsi,
}

impl<'d> Wiring<'d> {
    /// The level of a line, and its GSI.
    pub(crate) fn line(&self, line: LineIndex) -> Option<(&'d LineLevel, Gsi)> {
        let gsi = self.first.0.checked_add(self.wires.number(line).into())?;
        Some((self.wires.level(line)?, Gsi(gsi)))
    }
}

/// An interrupt of a device, which the device gets with its [`Resources`](crate::Resources). It may be kept, copied and used
/// from any thread. Once the device is unregistered, every method returns [`InterruptError::Removed`] and does nothing.
///
/// It follows its interrupt to another line: each call goes to the line that the interrupt has then
/// ([`reroute`](crate::DeviceManager::reroute)). While it has none, the level is kept, and told when it gets one.
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
    wiring: Option<Wiring<'d>>,
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
    pub const DISCONNECTED: Self = Self { gate: None, wiring: None, controller: None };

    pub(crate) fn new(
        gate: &'d HandleGate,
        wiring: Option<Wiring<'d>>,
        controller: Option<&'d dyn InterruptController>,
    ) -> Self {
        Self { gate: Some((gate, gate.generation())), wiring, controller }
    }

    /// The line that it has now; it waits for a move that is under way. `None` if the device asked for none, while the interrupt has no line, and once the device is
    /// unregistered.
    pub fn gsi(&self) -> Option<Gsi> {
        let (gate, generation) = self.gate?;
        let _passage = gate.enter(generation).ok()?;
        let wiring = self.wiring?;
        // The line keeps its number as long as the interrupt is on it.
        let drive = wiring.connection.enter(None)?;
        wiring.line(drive.share.line).map(|(_, gsi)| gsi)
    }

    /// Asserts the line: it stays asserted until this device, and every other that shares it, has taken its assertion
    /// back. Asserting twice is the same as once.
    ///
    /// `Ok` says that the controller has taken the line's current level. One call of this method makes at most 4 calls of the
    /// controller, and none if the level is taken already.
    ///
    /// If another caller is already telling the controller a change of this line, that caller tells it this change too, and the
    /// method returns [`Pending`](InterruptError::Pending) at once. If the line has changed during each of that caller's first
    /// 3 calls of the controller, the method waits for the fourth instead, and then tells the level itself. While the interrupt
    /// moves to another line, the method waits for the end of the move.
    ///
    /// While the interrupt has no line, `Ok` says that the level is kept.
    ///
    /// # Errors
    /// [`InterruptError`], all but `SharedLine` and `NoMessage`.
    pub fn assert(&self) -> Result<(), InterruptError> {
        self.drive(true)
    }

    /// Takes this device's assertion back. As [`assert`](Self::assert) otherwise.
    ///
    /// # Errors
    /// [`InterruptError`], all but `SharedLine` and `NoMessage`.
    pub fn deassert(&self) -> Result<(), InterruptError> {
        self.drive(false)
    }

    /// Signals one edge.
    ///
    /// # Errors
    /// [`InterruptError`], all but `Pending` and `NoMessage`; `NoLine` also while the interrupt has no line, `SharedLine` if the device asked for a shared line.
    pub fn pulse(&self) -> Result<(), InterruptError> {
        self.with_gate(|line| {
            let wiring = line.wiring.ok_or(InterruptError::NoLine)?;
            if wiring.connection.is_shared() {
                return Err(InterruptError::SharedLine);
            }
            let controller = line.controller()?;
            let drive = wiring.connection.enter(None).ok_or(InterruptError::NoLine)?;
            let (_, gsi) = wiring.line(drive.share.line).ok_or(InterruptError::NoLine)?;
            controller.pulse(gsi)
        })
    }

    /// Sends a message-signalled interrupt, for which a device needs no line.
    ///
    /// # Errors
    /// [`InterruptError`], all but `NoLine`, `NoMessage`, `SharedLine` and `Pending`.
    pub fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.with_gate(|line| line.controller()?.message(address, data))
    }

    fn drive(&self, asserted: bool) -> Result<(), InterruptError> {
        self.with_line(Some(asserted), |level, share, to| level.drive(share.bit(), asserted, to))
    }

    /// Tells the controller the level of the line, after [the end](LineLevel::note_end) of an interrupt. `None` if this interrupt
    /// does not have the line any more.
    pub(crate) fn settle(&self, gsi: Gsi) -> Option<Result<(), InterruptError>> {
        let mut settled = None;
        let _ = self.with_line(None, |level, _, to| {
            settled = (to.gsi == gsi).then(|| level.settle_still(to));
            Ok(())
        });
        settled
    }

    /// Calls `act` with the line that the interrupt has, which it keeps meanwhile. Without one, a level that is given is kept.
    fn with_line(
        &self,
        asserted: Option<bool>,
        act: impl FnOnce(&LineLevel, LineShare, ControllerLine<'_>) -> Result<(), InterruptError>,
    ) -> Result<(), InterruptError> {
        self.with_gate(|line| {
            let wiring = line.wiring.ok_or(InterruptError::NoLine)?;
            let controller = line.controller()?;
            let Some(drive) = wiring.connection.enter(asserted) else { return Ok(()) };
            let (level, gsi) = wiring.line(drive.share.line).ok_or(InterruptError::NoLine)?;
            act(level, drive.share, ControllerLine { controller, gsi })
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

//! Interrupts: the trait a VMM implements, and the handle a device keeps.
//!
//! A *line* is an input of the interrupt controller, named by its GSI (global system interrupt, ACPI 6.5, 5.2.13). A
//! line may have several *sources*, one for each device that shares it; it is asserted while any of them asserts it.
//! Vectors are no concern of this crate: they are what a local APIC delivers, and the VMM's controller knows them.

use core::fmt;

use crate::address::GuestAddress;
use crate::protocol;
use crate::sync::{AtomicU32, AtomicU64, Ordering, const_fn, spin_once};

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
/// The manager calls it from within device callbacks, from any vCPU and by several at once for different lines; for one
/// line, level changes come one at a time. An implementation must not call the manager or an [`IrqLine`].
pub trait InterruptController: Sync {
    /// Drives a level-triggered line.
    ///
    /// # Errors
    /// Whatever keeps the controller from doing so, as [`InterruptError::Refused`].
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

/// Why an interrupt was not signalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum InterruptError {
    /// The device is not registered any more.
    Removed,
    /// The device asked for no line.
    NoLine,
    /// The manager was given no interrupt controller.
    NoController,
    /// An edge on a line that several devices share: a shared line is level-triggered.
    SharedLine,
    /// The interrupt controller did not take it.
    Refused,
}

impl fmt::Display for InterruptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InterruptError::Removed => "the device is not registered any more",
            InterruptError::NoLine => "the device has no interrupt line",
            InterruptError::NoController => "the manager has no interrupt controller",
            InterruptError::SharedLine => "an edge cannot be signalled on a shared line",
            InterruptError::Refused => "the interrupt controller did not take the interrupt",
        })
    }
}

impl core::error::Error for InterruptError {}

/// How many devices can share one line.
pub const MAX_SHARING: usize = 30;

/// The state of one line: which sources assert it, and what the controller was told.
///
/// A change of level is delivered by one caller at a time, and nobody waits for it: who finds a delivery under way
/// leaves, and the deliverer looks again before it stops. So the last level told is always the current one.
pub(crate) struct Wire {
    word: AtomicU32,
}

const DELIVERING: u32 = 1 << 31;
const DELIVERED: u32 = 1 << 30;
const SOURCES: u32 = DELIVERED - 1;

impl Wire {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { word: AtomicU32::new(0) }
        }
    }

    fn drive(&self, source: u32, asserted: bool, to: Target<'_>) -> Result<(), InterruptError> {
        if asserted {
            self.word.fetch_or(source & SOURCES, Ordering::AcqRel);
        } else {
            self.word.fetch_and(!(source & SOURCES), Ordering::AcqRel);
        }
        self.settle(to)
    }

    /// Tells the controller the level, unless it knows it or somebody is about to tell it.
    fn settle(&self, to: Target<'_>) -> Result<(), InterruptError> {
        let mut result = Ok(());
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let level = word & SOURCES != 0;
            if word & DELIVERING != 0 || level == (word & DELIVERED != 0) {
                return result;
            }
            match self.word.compare_exchange_weak(word, word | DELIVERING, Ordering::AcqRel, Ordering::Acquire) {
                Err(now) => word = now,
                Ok(_) => {
                    result = to.controller.set_level(to.gsi, level);
                    // Delivered or refused, the level has been told: a refusal is not repeated for ever.
                    let told = self.word.fetch_xor(DELIVERING | DELIVERED, Ordering::AcqRel);
                    word = told ^ (DELIVERING | DELIVERED);
                    if !protocol::SECOND_LOOK {
                        return result;
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Target<'d> {
    controller: &'d dyn InterruptController,
    gsi: Gsi,
}

/// Lets the holders of a device's [`IrqLine`] through while the device is registered: a generation in the high half, the
/// number of calls under way in the low half.
pub(crate) struct Gate {
    word: AtomicU64,
}

impl Gate {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { word: AtomicU64::new(0) }
        }
    }

    /// The generation that handles made now are to carry.
    pub(crate) fn generation(&self) -> u32 {
        (self.word.load(Ordering::Acquire) >> 32) as u32
    }

    /// Turns away all handles given out so far. Calls under way go on until [`is_idle`](Self::is_idle).
    pub(crate) fn close(&self) {
        self.word.fetch_add(1 << 32, Ordering::AcqRel);
    }

    /// Whether no call is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Acquire) as u32 == 0
    }

    /// Waits until no call is under way. Calls are short: they only tell the controller.
    pub(crate) fn wait_idle(&self) {
        while protocol::GATE_WAIT && !self.is_idle() {
            spin_once();
        }
    }

    fn enter(&self, generation: u32) -> Result<Entered<'_>, InterruptError> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if (word >> 32) as u32 != generation {
                return Err(InterruptError::Removed);
            }
            match self.word.compare_exchange_weak(word, word.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(Entered(self)),
                Err(now) => word = now,
            }
        }
    }
}

struct Entered<'a>(&'a Gate);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.word.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A source's place on a line.
#[derive(Clone, Copy)]
pub(crate) struct Connection<'d> {
    pub(crate) wire: &'d Wire,
    /// The bit of this source in the wire's word.
    pub(crate) source: u32,
    pub(crate) gsi: Gsi,
    pub(crate) shared: bool,
}

impl Connection<'_> {
    /// Takes the source's assertion back, once its gate is closed and idle.
    pub(crate) fn release(&self, controller: Option<&dyn InterruptController>) {
        if let Some(controller) = controller {
            // The device is gone, so nobody is left to tell of a refusal.
            let _ = self.wire.drive(self.source, false, Target { controller, gsi: self.gsi });
        }
    }
}

/// The interrupt of one device, handed to it with its [`Resources`](crate::Resources). It may be kept, copied and used
/// from any thread; once the device is unregistered, every method returns [`InterruptError::Removed`] and does nothing.
#[derive(Clone, Copy)]
pub struct IrqLine<'d> {
    gate: Option<(&'d Gate, u32)>,
    connection: Option<Connection<'d>>,
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
    pub const DISCONNECTED: Self = Self { gate: None, connection: None, controller: None };

    pub(crate) fn new(
        gate: &'d Gate,
        connection: Option<Connection<'d>>,
        controller: Option<&'d dyn InterruptController>,
    ) -> Self {
        Self { gate: Some((gate, gate.generation())), connection, controller }
    }

    /// The line, if the device asked for one.
    pub fn gsi(&self) -> Option<Gsi> {
        self.connection.as_ref().map(|connection| connection.gsi)
    }

    /// Asserts the line: it stays asserted until this device, and every other that shares it, has taken its assertion
    /// back. Asserting twice is the same as once.
    ///
    /// When another vCPU is just telling the controller of a change on the same line, that vCPU tells it of this one
    /// too, and the call returns without waiting for it.
    ///
    /// # Errors
    /// [`InterruptError`], all but `SharedLine`.
    pub fn assert(&self) -> Result<(), InterruptError> {
        self.drive(true)
    }

    /// Takes this device's assertion back.
    ///
    /// # Errors
    /// [`InterruptError`], all but `SharedLine`.
    pub fn deassert(&self) -> Result<(), InterruptError> {
        self.drive(false)
    }

    /// Signals one edge.
    ///
    /// # Errors
    /// [`InterruptError`]; `SharedLine` if the device asked for a shared line.
    pub fn pulse(&self) -> Result<(), InterruptError> {
        self.inside(|line| {
            let connection = line.connection.ok_or(InterruptError::NoLine)?;
            if connection.shared {
                return Err(InterruptError::SharedLine);
            }
            line.controller()?.pulse(connection.gsi)
        })
    }

    /// Sends a message-signalled interrupt, for which a device needs no line.
    ///
    /// # Errors
    /// [`InterruptError`], all but `NoLine` and `SharedLine`.
    pub fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.inside(|line| line.controller()?.message(address, data))
    }

    fn drive(&self, asserted: bool) -> Result<(), InterruptError> {
        self.inside(|line| {
            let connection = line.connection.ok_or(InterruptError::NoLine)?;
            let target = Target { controller: line.controller()?, gsi: connection.gsi };
            connection.wire.drive(connection.source, asserted, target)
        })
    }

    fn controller(&self) -> Result<&'d dyn InterruptController, InterruptError> {
        self.controller.ok_or(InterruptError::NoController)
    }

    fn inside(&self, act: impl FnOnce(&Self) -> Result<(), InterruptError>) -> Result<(), InterruptError> {
        let (gate, generation) = self.gate.ok_or(InterruptError::Removed)?;
        let _entered = gate.enter(generation)?;
        act(self)
    }
}

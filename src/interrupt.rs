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
/// line, level changes come one at a time. It holds no lock meanwhile: an implementation may call the manager, but must not remove
/// a device other than deferred, because a removal waits for calls of the controller. It must not call an [`IrqLine`].
///
/// A method that unwinds instead of returning has not taken what it was told: the unwinding goes on through the handle's
/// method, or the removal, that called it, and the manager is as after a refusal.
pub trait InterruptController: Sync {
    /// Drives a level-triggered line. Where it has taken a level, it is not told the same again.
    ///
    /// # Errors
    /// Whatever keeps the controller from doing so, as [`InterruptError::Refused`]. The line then has the level that was
    /// taken last, and the one refused is told again when a device that shares the line drives it next. What is
    /// refused at the removal of a device is told again by each [`collect`](crate::DeviceManager::collect), and a line that
    /// no device has any more stays taken until then.
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
    /// The interrupt controller did not take it. A level is told again by the next call for the line.
    Refused,
    /// Another caller is telling the controller of a change on the same line. It tells it of this change too, and learns
    /// whether the controller has taken it.
    Pending,
}

impl fmt::Display for InterruptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InterruptError::Removed => "the device is not registered any more",
            InterruptError::NoLine => "the device has no interrupt line",
            InterruptError::NoController => "the manager has no interrupt controller",
            InterruptError::SharedLine => "an edge cannot be signalled on a shared line",
            InterruptError::Refused => "the interrupt controller did not take the interrupt",
            InterruptError::Pending => "another caller is telling the interrupt controller, of this change too",
        })
    }
}

impl core::error::Error for InterruptError {}

/// How many devices can share one line.
pub const MAX_SHARING: usize = 30;

/// The state of one line: which sources assert it, and what the controller has taken.
///
/// A change of level is told by one caller at a time, the *teller*, and the others leave it to that one: it looks at the
/// sources after each call of the controller, and tells again if the level has changed. Its last call
/// has a state of its own: a drive that finds it waits for that call and tells the level itself, and a removal leaves the
/// line owed. So no change is lost, and no caller tells those of others without bound.
///
/// What the controller has refused, it has not taken: the level stays to be told, and the next drive of any source does.
pub(crate) struct Wire {
    word: AtomicU32,
}

/// The bits of a wire's word that are no source's: what the controller has taken, or that it is called.
const STATE: u32 = 0b11 << 30;
/// The controller has taken "deasserted", or was never called.
const LOW: u32 = 0b00 << 30;
/// The controller has taken "asserted".
const HIGH: u32 = 0b01 << 30;
/// A caller tells the controller the level, and looks again.
const TELLING: u32 = 0b10 << 30;
/// A caller tells the controller the level for the last time.
const LAST_TELLING: u32 = 0b11 << 30;
const SOURCES: u32 = !STATE;

/// How often one caller calls the controller at most.
const MAX_TELLINGS: u32 = 4;

const _: () = assert!(SOURCES == (1 << MAX_SHARING) - 1);

/// The state of a wire on which the controller has taken a level.
const fn taken(level: bool) -> u32 {
    if level { HIGH } else { LOW }
}

impl Wire {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { word: AtomicU32::new(LOW) }
        }
    }

    /// Whether the controller has taken the line's level.
    pub(crate) fn is_settled(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word & STATE == taken(word & SOURCES != 0)
    }

    fn drive(&self, source: u32, asserted: bool, to: Target<'_>) -> Result<(), InterruptError> {
        if asserted {
            self.word.fetch_or(source & SOURCES, Ordering::AcqRel);
        } else {
            self.word.fetch_and(!(source & SOURCES), Ordering::AcqRel);
        }
        self.settle(to, true)
    }

    /// As [`drive`](Self::drive) to take an assertion back, but it never waits: the caller looks afterwards whether the wire
    /// is settled. A controller may remove and collect from within the call that another one would wait for.
    fn release(&self, source: u32, to: Target<'_>) {
        self.word.fetch_and(!(source & SOURCES), Ordering::AcqRel);
        let _ = self.settle(to, false);
    }

    /// Tells the controller the level, unless it has taken it or another caller tells it.
    fn settle(&self, to: Target<'_>, waits: bool) -> Result<(), InterruptError> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let level = word & SOURCES != 0;
            match word & STATE {
                TELLING => return Err(InterruptError::Pending),
                LAST_TELLING if !waits => return Err(InterruptError::Pending),
                LAST_TELLING => {
                    spin_once();
                    word = self.word.load(Ordering::Acquire);
                }
                state if state == taken(level) => return Ok(()),
                _ => match self.begin(word, TELLING) {
                    Ok(()) => return Teller { wire: self, state: TELLING, taken: !level }.tell(level, to),
                    Err(now) => word = now,
                },
            }
        }
    }

    /// Gives the wire another state if its word is still this one.
    fn begin(&self, word: u32, state: u32) -> Result<(), u32> {
        let new = word & SOURCES | state;
        self.word.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }
}

/// The one who tells the controller the level of a wire. When it is dropped, because it is done or because the controller
/// has unwound, the wire's state is what the controller has taken.
struct Teller<'a> {
    wire: &'a Wire,
    /// The wire's state.
    state: u32,
    /// The level that the controller has taken last.
    taken: bool,
}

impl Teller<'_> {
    fn tell(mut self, mut level: bool, to: Target<'_>) -> Result<(), InterruptError> {
        let mut tellings = 1;
        loop {
            let told = to.controller.set_level(to.gsi, level);
            if told.is_ok() {
                self.taken = level;
            }
            if !protocol::SECOND_LOOK {
                return told;
            }
            let mut word = self.wire.word.load(Ordering::Acquire);
            loop {
                let now = word & SOURCES != 0;
                let refused = told.is_err() && now == level;
                let next = if now == self.taken || refused || tellings == MAX_TELLINGS {
                    taken(self.taken)
                } else if tellings + 1 == MAX_TELLINGS {
                    LAST_TELLING
                } else {
                    TELLING
                };
                if let Err(changed) = self.wire.begin(word, next) {
                    word = changed;
                    continue;
                }
                self.state = next;
                if now == self.taken {
                    return Ok(());
                }
                if refused {
                    return told;
                }
                if tellings == MAX_TELLINGS {
                    // The caller that has changed the level since is waiting, and tells it.
                    return Err(InterruptError::Pending);
                }
                (tellings, level) = (tellings + 1, now);
                break;
            }
        }
    }
}

impl Drop for Teller<'_> {
    fn drop(&mut self) {
        // Nobody else changes the state while the controller is called.
        if self.state & TELLING != 0 {
            self.wire.word.fetch_xor(self.state ^ taken(self.taken), Ordering::AcqRel);
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
    /// Takes the source's assertion back, once its gate is closed and idle. Whether the controller has taken that, the
    /// wire knows.
    pub(crate) fn release(&self, controller: Option<&dyn InterruptController>) {
        if let Some(controller) = controller {
            self.wire.release(self.source, Target { controller, gsi: self.gsi });
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
    /// `Ok` says that the controller has taken the line's current level; it is called only where it has not yet, 4 times
    /// at most in one call of this method. A call that finds another caller at it returns at once, as
    /// [`Pending`](InterruptError::Pending), or waits for one call of the controller, where devices that share the line
    /// have changed it in each of the last 3.
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
    /// [`InterruptError`], all but `NoLine`, `SharedLine` and `Pending`.
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

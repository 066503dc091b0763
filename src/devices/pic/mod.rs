//! The interrupt controllers of a PC: two 8259As.

mod chip;
mod pair;

use spin::{Mutex, MutexGuard};

use crate::access::Access;
use crate::address::GuestAddress;
use crate::description::{Description, Part, Role};
use crate::device::Device;
use crate::interrupt::{Gsi, InterruptController, InterruptError};
use crate::resource::IoResource;
use chip::CASCADE;
use pair::{Pair, Register};

/// Where the output INTR of a [`Pic`] leads. The embedder implements it: it gets the processor out of its guest, or out of its halt,
/// so that the interrupt is injected.
///
/// A reference to a pin is a pin.
pub trait IntrPin: Sync {
    /// INTR has this level now. Calls come one at a time, and the last one tells the level that INTR has; a level that lasts no longer
    /// than another call takes need not be told.
    ///
    /// It is called from within callbacks of the PIC and of the devices that interrupt, which may hold locks of their own; the PIC
    /// holds none. It may call [`Pic::has_interrupt`], and no other method of the PIC, and no device.
    fn set(&self, asserted: bool);

    /// The guest has ended an interrupt of a line: what
    /// [`DeviceManager::end_of_interrupt`](crate::DeviceManager::end_of_interrupt) takes. It is called from within the access, or the
    /// [acknowledgement](Pic::acknowledge), by which the interrupt has ended, and may call all of the PIC and of the manager. By
    /// default nobody need know.
    fn ended(&self, gsi: Gsi) {
        let _ = gsi;
    }
}

impl<P: IntrPin + ?Sized> IntrPin for &P {
    fn set(&self, asserted: bool) {
        (**self).set(asserted);
    }
    fn ended(&self, gsi: Gsi) {
        (**self).ended(gsi);
    }
}

#[cfg(feature = "alloc")]
impl<P: IntrPin + Send + ?Sized> IntrPin for alloc::sync::Arc<P> {
    fn set(&self, asserted: bool) {
        (**self).set(asserted);
    }
    fn ended(&self, gsi: Gsi) {
        (**self).ended(gsi);
    }
}

/// The two 8259As of a PC (Intel 8259A data sheet, 231468), the second on line 2 of the first, with the edge/level control registers
/// of a PIIX (Intel 82371FB data sheet, 290550). It is the interrupt controller of a manager, with GSI 0 to 15, and a device for the
/// guest.
///
/// `P` is where its output leads. What injects the interrupts of a processor asks [`has_interrupt`](Self::has_interrupt) before
/// each entry of the guest, and when the processor can take an interrupt, calls [`acknowledge`](Self::acknowledge) for its vector.
///
/// A line is triggered by its edge, or by level where the guest has set its bit in the control registers, which take the place of
/// the bit LTIM of ICW1 (82371FB, ICW1). An edge waits until it is acknowledged, also where its line goes before: a device on a shared
/// line signals an edge by an assertion that lasts for a moment. (On hardware it would be forgotten; data sheet, "Edge and Level
/// Triggered Modes".) One that is signalled by [`pulse`](InterruptController::pulse) does so however its line is triggered. Line 2 is
/// refused, and so are messages.
///
/// Requests are held back until the guest has initialised both controllers. What boards of PCs do not use is not there: the mode of
/// the MCS-80, and buffered mode; which controller is the master is wired. The bits for both are ignored.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use vm_device::devices::pic::{IntrPin, Pic};
/// use vm_device::{DeviceManager, Gsi, GuestAddress, InterruptController, IoRange, IoType, Storage, SystemAllocator};
///
/// /// The loop that runs the processor looks at it.
/// struct Intr(AtomicBool);
///
/// impl IntrPin for Intr {
///     fn set(&self, asserted: bool) {
///         self.0.store(asserted, Ordering::Release);
///     }
/// }
///
/// static INTR: Intr = Intr(AtomicBool::new(false));
/// static PIC: Pic<&Intr> = Pic::new(&INTR);
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15))
///         .with_interrupt_controller(&PIC);
///
/// MANAGER.register_device(&PIC, None, &PIC.ports(), &[])?;
/// // The guest initialises both controllers, with vectors from 0x20 and 0x28 on.
/// for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 0x04), (0x21, 0x01), (0xa0, 0x11), (0xa1, 0x28), (0xa1, 0x02), (0xa1, 0x01)] {
///     MANAGER.write(GuestAddress(port), &[value], IoType::Pio)?;
/// }
/// // A device interrupts.
/// PIC.pulse(Gsi(4))?;
/// assert!(INTR.0.load(Ordering::Acquire));
/// assert_eq!(PIC.acknowledge(), 0x24);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Locks
/// Its lock is not held while the pin is called. A caller of the PIC may wait for a call of the pin by another thread to return: it holds
/// no lock that the pin takes. [`has_interrupt`](Self::has_interrupt) does not wait for that.
pub struct Pic<P> {
    pin: P,
    state: Mutex<State>,
}

struct State {
    pair: Pair,
    /// The level that the pin was told last.
    told: bool,
    teller: Teller,
}

/// Who tells the pin a change of its level. A caller that finds another one telling leaves its change to it: that caller looks at the
/// level once more after the call. So that no caller tells the changes of others without bound, it says which call is its last: who
/// finds that waits for its end, and then tells the level itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Teller {
    Nobody,
    Telling,
    TellingLast,
}

/// How often one caller calls the pin, at most.
const MAX_TELLINGS: u32 = 4;

/// The ports of the first controller, of the second, and of the edge/level control registers of both.
const PORTS: [u16; 3] = [0x20, 0xa0, 0x4d0];
/// How many lines there are.
const LINES: u32 = 16;

impl<P> Pic<P> {
    /// The controllers after power-on.
    pub const fn new(pin: P) -> Self {
        Self { pin, state: Mutex::new(State { pair: Pair::new(), told: false, teller: Teller::Nobody }) }
    }

    /// The requests for its ports: 0x20 and 0x21, 0xa0 and 0xa1, 0x4d0 and 0x4d1.
    pub const fn ports(&self) -> [IoResource; 3] {
        let [first, second, trigger] = PORTS;
        [IoResource::pio(first, 2), IoResource::pio(second, 2), IoResource::pio(trigger, 2)]
    }

    /// Whether the output INTR is high: a request that is not masked or held back waits for its acknowledgement.
    pub fn has_interrupt(&self) -> bool {
        self.state.lock().pair.settle()
    }
}

impl<P: IntrPin> Pic<P> {
    /// The processor acknowledges the interrupt (INTA), and gets its vector. The interrupt is in service from now on, until the guest
    /// ends it, or ended at once in the mode for that.
    ///
    /// Where no request is left, the vector is that of the spurious interrupt: of line 7, or of line 15 if it was a request of the second
    /// controller that has gone (data sheet, "Edge and Level Triggered Modes").
    pub fn acknowledge(&self) -> u8 {
        let (vector, ended) = self.with_pair(Pair::acknowledge);
        self.tell_end(ended);
        vector
    }

    /// Calls `act` with both controllers, and then tells the pin its level if that has changed.
    fn with_pair<R>(&self, act: impl FnOnce(&mut Pair) -> R) -> R {
        let mut state = self.state.lock();
        let result = act(&mut state.pair);
        self.settle(state);
        result
    }

    fn settle<'s>(&'s self, mut state: MutexGuard<'s, State>) {
        for telling in 1..=MAX_TELLINGS {
            while state.teller == Teller::TellingLast {
                drop(state);
                core::hint::spin_loop();
                state = self.state.lock();
            }
            let level = state.pair.settle();
            if state.teller == Teller::Telling || state.told == level {
                return;
            }
            state.teller = if telling == MAX_TELLINGS { Teller::TellingLast } else { Teller::Telling };
            drop(state);
            let mut turn = Turn { state: &self.state, told: None };
            self.pin.set(level);
            turn.told = Some(level);
            drop(turn);
            state = self.state.lock();
        }
    }

    fn tell_end(&self, line: Option<u8>) {
        if let Some(line) = line {
            self.pin.ended(Gsi(line.into()));
        }
    }

    /// A line that a device can have.
    fn line(gsi: Gsi) -> Result<u8, InterruptError> {
        match gsi {
            Gsi(number) if number < LINES && number != CASCADE.into() => Ok(number as u8),
            _ => Err(InterruptError::Refused),
        }
    }

    /// The register at an offset in one of the ranges: of the first or the second controller.
    fn register(range: usize, offset: u64) -> Option<(bool, Register)> {
        match (range, offset) {
            (0 | 1, 0) => Some((range == 1, Register::Command)),
            (0 | 1, 1) => Some((range == 1, Register::Data)),
            (2, 0 | 1) => Some((offset == 1, Register::Trigger)),
            _ => None,
        }
    }
}

/// A call of the pin, at whose end the next may come, also where it unwinds.
struct Turn<'s> {
    state: &'s Mutex<State>,
    /// What the pin has taken.
    told: Option<bool>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.teller = Teller::Nobody;
        state.told = self.told.unwrap_or(state.told);
    }
}

impl<P: IntrPin> InterruptController for Pic<P> {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let line = Self::line(gsi)?;
        self.with_pair(|pair| pair.set_input(line, asserted));
        Ok(())
    }

    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        let line = Self::line(gsi)?;
        self.with_pair(|pair| pair.pulse(line));
        Ok(())
    }

    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Err(InterruptError::Refused)
    }
}

impl<P: IntrPin> Device<'_> for Pic<P> {
    fn name(&self) -> &str {
        "pic"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        for (offset, byte) in (access.offset()..).zip(data) {
            if let Some((is_slave, register)) = Self::register(access.range_index(), offset) {
                let (value, ended) = self.with_pair(|pair| pair.read(is_slave, register));
                *byte = value;
                self.tell_end(ended);
            }
        }
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        for (offset, byte) in (access.offset()..).zip(data) {
            if let Some((is_slave, register)) = Self::register(access.range_index(), offset) {
                let ended = self.with_pair(|pair| pair.write(is_slave, register, *byte));
                self.tell_end(ended);
            }
        }
    }

    /// What asserts its lines goes on to; edges that were signalled are forgotten.
    fn reset(&self) {
        self.with_pair(Pair::reset);
    }

    fn describe(&self, description: &mut dyn Description) {
        description.acpi("PNP0000", Part::ALL);
        description.role(Role::Pic);
    }
}

//! An IOAPIC, over local APICs that are the embedder's.

mod redirection;

use core::cell::Cell;

use spin::Mutex;

use super::time::RETRY;
use crate::access::Access;
use crate::address::GuestAddress;
use crate::description::{Description, Role};
use crate::device::Device;
use crate::interrupt::{Gsi, InterruptController, InterruptError};
use crate::resource::IoResource;
use redirection::Pin;
pub use redirection::Redirection;

/// The local APICs that an [`Ioapic`] sends interrupts to. The embedder implements it: over those of KVM, or its own.
///
/// It is called from within callbacks of the IOAPIC and of the devices that interrupt, which may hold locks of their own; the IOAPIC
/// holds none. It may call the IOAPIC, but no device.
///
/// A reference to local APICs is local APICs.
pub trait LocalApics: Sync {
    /// Delivers a message: the write of `data` to `address` (Intel SDM vol. 3A, "Message Signalled Interrupts").
    ///
    /// # Errors
    /// Whatever keeps it from doing so. The IOAPIC sends the message of a line once more, by the next [`tick`](Device::tick) at the
    /// latest.
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError>;

    /// The guest has changed where interrupts go. It is called after each change, before a message follows from it; of several at
    /// once the calls may come together, and who keeps what they say reads `redirections` under a lock of its own. KVM has to know the
    /// vectors of level-triggered lines, to tell of their ends. By default nobody need know.
    fn redirected(&self, redirections: &Redirections<'_>) {
        let _ = redirections;
    }

    /// The guest has ended an interrupt of a line through the IOAPIC's own register for that: what
    /// [`DeviceManager::end_of_interrupt`](crate::DeviceManager::end_of_interrupt) takes, which may be called from here. By default
    /// nobody need know: a line that is asserted still interrupts again.
    fn ended(&self, gsi: Gsi) {
        let _ = gsi;
    }
}

impl<A: LocalApics + ?Sized> LocalApics for &A {
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        (**self).message(address, data)
    }
    fn redirected(&self, redirections: &Redirections<'_>) {
        (**self).redirected(redirections);
    }
    fn ended(&self, gsi: Gsi) {
        (**self).ended(gsi);
    }
}

#[cfg(feature = "alloc")]
impl<A: LocalApics + Send + ?Sized> LocalApics for alloc::sync::Arc<A> {
    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        (**self).message(address, data)
    }
    fn redirected(&self, redirections: &Redirections<'_>) {
        (**self).redirected(redirections);
    }
    fn ended(&self, gsi: Gsi) {
        (**self).ended(gsi);
    }
}

/// An IOAPIC (Intel 82093AA data sheet, 290566) with `LINES` lines, 1 to 120: as many as its index register can name. It turns
/// the lines of devices into messages to local APICs, which are the embedder's. It is the interrupt controller of a manager, whose
/// messages it passes on as they are, and a device for the guest.
///
/// Every line that is there takes its level. What the local APICs refuse is sent again when the line is driven or programmed, or an
/// interrupt of it ends, and by each [`tick`](Device::tick); the guest sees that in the delivery status. An edge on a masked line is
/// lost (82093AA, 3.2.4). The polarity is the board's: the guest may program it, and an asserted line is asserted.
///
/// What hears of the end of an interrupt, an emulated local APIC or KVM's exit for it, calls [`ended`](Self::ended).
///
/// ```
/// use spin::Mutex;
/// use vm_device::devices::ioapic::{Ioapic, LocalApics};
/// use vm_device::{
///     DeviceManager, Gsi, GuestAddress, InterruptController, InterruptError, IoRange, IoType, Storage, SystemAllocator,
/// };
///
/// /// Keeps what it is sent.
/// struct Processor(Mutex<Option<(GuestAddress, u32)>>);
///
/// impl LocalApics for Processor {
///     fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
///         *self.0.lock() = Some((address, data));
///         Ok(())
///     }
/// }
///
/// static PROCESSOR: Processor = Processor(Mutex::new(None));
/// static IOAPIC: Ioapic<&Processor> = Ioapic::new(&PROCESSOR);
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 23))
///         .with_interrupt_controller(&IOAPIC);
///
/// const BASE: u64 = 0xfec0_0000;
/// MANAGER.register_device(&IOAPIC, None, &[IOAPIC.mmio(BASE)], &[])?;
/// // The guest lets line 4 interrupt with vector 0x31, as an edge, processor 1.
/// for (index, value) in [(0x19, 1 << 24), (0x18, 0x31_u32)] {
///     MANAGER.write(GuestAddress(BASE), &[index, 0, 0, 0], IoType::Mmio)?;
///     MANAGER.write(GuestAddress(BASE + 0x10), &value.to_le_bytes(), IoType::Mmio)?;
/// }
/// // A device interrupts.
/// IOAPIC.pulse(Gsi(4))?;
/// assert_eq!(*PROCESSOR.0.lock(), Some((GuestAddress(0xfee0_1000), 0x4031)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Locks
/// Its lock is not held while the local APICs are called.
pub struct Ioapic<A, const LINES: usize = 24> {
    apics: A,
    first: u32,
    has_eoi_register: bool,
    state: Mutex<State<[Pin; LINES]>>,
}

struct State<P: ?Sized> {
    index: u8,
    id: u8,
    pins: P,
}

/// The registers that are there (82093AA data sheet, 3.1; Intel 82801AA data sheet 290655, "APIC Direct Registers").
const INDEX: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;
/// How far two IOAPICs are apart at least (82093AA data sheet, 3.0).
const SIZE: u64 = 0x400;

/// The registers that the index names.
const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
/// From here on each line has two.
const REDIRECTION: u8 = 0x10;

/// The versions without and with a register for the ends of interrupts.
const FIRST_VERSION: u32 = 0x11;
const EOI_VERSION: u32 = 0x20;

impl<A> Ioapic<A> {
    /// An IOAPIC with 24 lines after power-on, of version 0x11. Its lines are GSI 0 to 23.
    pub const fn new(apics: A) -> Self {
        Self::with_lines(apics)
    }
}

impl<A, const LINES: usize> Ioapic<A, LINES> {
    /// The same with another number of lines. A number that is not from 1 to 120 does not compile.
    pub const fn with_lines(apics: A) -> Self {
        const { assert!(LINES != 0 && LINES <= (u8::MAX - REDIRECTION) as usize / 2 + 1) };
        let state = State { index: 0, id: 0, pins: [Pin::RESET; LINES] };
        Self { apics, first: 0, has_eoi_register: false, state: Mutex::new(state) }
    }

    /// The same with lines whose GSIs begin with `first`: the second IOAPIC of a machine (ACPI 6.5, 5.2.12.3, "Global System
    /// Interrupt Base").
    #[must_use]
    pub const fn with_first_gsi(mut self, first: Gsi) -> Self {
        self.first = first.0;
        self
    }

    /// The same of version 0x20: with a register by whose write a guest ends an interrupt.
    #[must_use]
    pub const fn with_eoi_register(mut self) -> Self {
        self.has_eoi_register = true;
        self
    }

    /// The request for its registers in memory from `base` on, 1 KiB. A PC has them at 0xfec0_0000.
    pub const fn mmio(&self, base: u64) -> IoResource {
        IoResource::mmio(base, SIZE)
    }

    /// Where the interrupts of the lines go.
    pub fn redirections(&self) -> Redirections<'_> {
        Redirections { state: &self.state, first: self.first }
    }

    fn with_pin<R>(&self, line: usize, act: impl FnOnce(&mut Pin) -> R) -> Option<R> {
        self.state.lock().pins.get_mut(line).map(act)
    }

    /// The line of this IOAPIC that a GSI is.
    fn line(&self, gsi: Gsi) -> Result<usize, InterruptError> {
        let line = gsi.0.checked_sub(self.first).map(|line| line as usize);
        line.filter(|line| *line < LINES).ok_or(InterruptError::Refused)
    }

    fn gsi(&self, line: usize) -> Gsi {
        Gsi(self.first.saturating_add(line as u32))
    }

    fn read_window(&self) -> u32 {
        let state = self.state.lock();
        let id = u32::from(state.id) << 24;
        match state.index {
            ID | ARBITRATION => id,
            VERSION => {
                let version = if self.has_eoi_register { EOI_VERSION } else { FIRST_VERSION };
                version | (LINES as u32 - 1) << 16
            }
            index => {
                let half = |(line, is_upper): (usize, bool)| state.pins.get(line).map(|pin| pin.read(is_upper));
                halves(index).and_then(half).unwrap_or_default()
            }
        }
    }
}

/// The line that an index names a register of, and whether it is the upper half of its entry.
fn halves(index: u8) -> Option<(usize, bool)> {
    let half = index.checked_sub(REDIRECTION)?;
    Some((usize::from(half / 2), half % 2 == 1))
}

impl<A: LocalApics, const LINES: usize> Ioapic<A, LINES> {
    /// A processor has ended its interrupt `vector`. Calls `tell` for each line that has sent it and waits for its end, which may
    /// call [`DeviceManager::end_of_interrupt`](crate::DeviceManager::end_of_interrupt). A line that is asserted still afterwards
    /// interrupts again.
    pub fn ended(&self, vector: u8, mut tell: impl FnMut(Gsi)) {
        for line in 0..LINES {
            if self.with_pin(line, |pin| pin.end(vector)) == Some(true) {
                tell(self.gsi(line));
                self.settle(line);
            }
        }
    }

    /// Sends the interrupt of a line, if one is due. Each change of a line is followed by this call, so that it sends one at most.
    fn settle(&self, line: usize) {
        let Some(sending) = self.with_pin(line, Pin::begin_sending).flatten() else { return };
        let is_taken = Cell::new(false);
        let _end = AtEnd(|| {
            if !is_taken.get() {
                self.with_pin(line, |pin| pin.refuse(sending));
            }
        });
        is_taken.set(self.apics.message(sending.message.address, sending.message.data).is_ok());
    }

    fn write_window(&self, value: u32) {
        let mut state = self.state.lock();
        if state.index == ID {
            state.id = (value >> 24) as u8 & 0x0f;
        }
        let Some((line, is_upper)) = halves(state.index) else { return };
        let Some(pin) = state.pins.get_mut(line) else { return };
        pin.write(is_upper, value);
        drop(state);
        self.tell_redirections(line..line.saturating_add(1));
        self.settle(line);
    }

    /// Tells the local APICs that entries have changed. The lines send nothing before that.
    fn tell_redirections(&self, lines: core::ops::Range<usize>) {
        let _end = AtEnd(|| {
            for line in lines.clone() {
                self.with_pin(line, Pin::end_telling);
            }
        });
        self.apics.redirected(&self.redirections());
    }
}

/// Acts at the end of a call of the embedder's, also where it unwinds.
struct AtEnd<F: Fn()>(F);

impl<F: Fn()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<A: LocalApics, const LINES: usize> InterruptController for Ioapic<A, LINES> {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let line = self.line(gsi)?;
        self.with_pin(line, |pin| pin.drive(asserted));
        self.settle(line);
        Ok(())
    }

    fn pulse(&self, gsi: Gsi) -> Result<(), InterruptError> {
        let line = self.line(gsi)?;
        self.with_pin(line, Pin::pulse);
        self.settle(line);
        Ok(())
    }

    fn message(&self, address: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.apics.message(address, data)
    }
}

impl<A: LocalApics, const LINES: usize> Device<'_> for Ioapic<A, LINES> {
    fn name(&self) -> &str {
        "ioapic"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        let index = self.state.lock().index;
        access.load_at(INDEX, &u32::from(index).to_le_bytes(), data);
        access.load_at(WINDOW, &self.read_window().to_le_bytes(), data);
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        match (access.offset(), data) {
            (INDEX, [index, ..]) => self.state.lock().index = *index,
            // Its registers are dwords (82093AA data sheet, 3.1.2).
            (WINDOW, &[a, b, c, d]) => self.write_window(u32::from_le_bytes([a, b, c, d])),
            (EOI, [vector, ..]) if self.has_eoi_register => self.ended(*vector, |gsi| self.apics.ended(gsi)),
            _ => {}
        }
    }

    /// All lines are masked. What asserts them goes on to.
    fn reset(&self) {
        let mut state = self.state.lock();
        (state.index, state.id) = (0, 0);
        for pin in &mut state.pins {
            pin.reset();
            pin.begin_telling();
        }
        drop(state);
        self.tell_redirections(0..LINES);
    }

    /// Sends what was refused.
    fn tick(&self, now: u64) -> Option<u64> {
        (0..LINES).for_each(|line| self.settle(line));
        let is_refused = self.state.lock().pins.iter().any(Pin::is_due);
        is_refused.then(|| now.saturating_add(RETRY))
    }

    fn describe(&self, description: &mut dyn Description) {
        description.compatible(&["intel,ce4100-ioapic"]);
        // Its id is 0 until a guest writes another one.
        description.role(Role::IoApic { id: 0, first_gsi: self.first });
    }
}

/// Where the interrupts of the lines of an [`Ioapic`] go, as the guest has programmed it by now.
pub struct Redirections<'a> {
    state: &'a Mutex<State<[Pin]>>,
    first: u32,
}

impl Redirections<'_> {
    /// That of one line; `None` if the IOAPIC does not have it.
    pub fn get(&self, gsi: Gsi) -> Option<Redirection> {
        let line = gsi.0.checked_sub(self.first)?;
        self.state.lock().pins.get(line as usize).map(Pin::redirection)
    }

    /// Those of all lines, the lowest first. Each is read when the iterator returns it, and may have changed since the one before.
    ///
    /// ```
    /// use vm_device::devices::ioapic::{Ioapic, LocalApics};
    /// use vm_device::{GuestAddress, InterruptError};
    ///
    /// # struct Nobody;
    /// # impl LocalApics for Nobody {
    /// #     fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// let ioapic = Ioapic::new(Nobody);
    /// assert_eq!(ioapic.redirections().iter().count(), 24);
    /// assert!(ioapic.redirections().iter().all(|(_, redirection)| redirection.message().masked));
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (Gsi, Redirection)> {
        (0..u32::MAX).map_while(|line| {
            let gsi = Gsi(self.first.checked_add(line)?);
            Some((gsi, self.get(gsi)?))
        })
    }
}

//! A real-time clock: the MC146818, with the memory that PCs call CMOS.

mod calendar;
mod registers;

use spin::Mutex;

use super::hpet::LegacyReplacement;
use super::output::Output;
use super::time::{Clock, WallClock};
use crate::access::Access;
use crate::description::{Description, Part, Role};
use crate::device::{Device, Rejected};
use crate::resource::{IoResource, Resources};
use registers::{Registers, Time};

/// The ports of a PC: the index of a register, and the register.
const PORTS: u16 = 0x70;

/// The real-time clock MC146818 of a PC (Motorola data sheet ADI-856), with 128 bytes of registers and memory at ports 0x70 and
/// 0x71, and one interrupt, which is level-triggered and on a PC is number 8.
///
/// `C` is both clocks of the embedder. The time of day is set from the [`WallClock`] at the first access or tick, in 24 hours
/// and BCD, and goes with it from there: the guest may set another time, which keeps its distance, and where the wall clock is
/// set, the guest's time of day moves by as much. The periodic interrupt goes by the [`Clock`]. Both are read under the
/// device's own lock, under which the interrupt controller is called too: none of them may call the device.
///
/// It has all that the data sheet has: the alarm with bytes that match everything, updates, periods of 122 us to 500 ms, 12 and
/// 24 hours, BCD and binary, the SET bit, a divider that can be held. An update takes no time: UIP is set in the 244 us before
/// it. Each setting of the divider that does not hold it is that of a crystal of 32.768 kHz. The square wave leads nowhere, and
/// daylight saving is the guest's own affair. Without [`with_century`](Self::with_century), years are those from 1970 to 2069.
///
/// The uppermost bit of the index, which on a PC masks the NMI, has no effect. The index reads as open bus. A
/// [`reset`](Device::reset) does what the data sheet's reset input does: interrupts are off, and time and memory stay.
///
/// ```
/// use vm_device::devices::rtc::Rtc;
/// use vm_device::devices::time::HandClock;
/// use vm_device::{DeviceManager, Gsi, GuestAddress, IoRange, IoType, IrqResource, Storage, SystemAllocator};
///
/// let clock = HandClock::new();
/// // 2026-01-02 03:04:05.
/// clock.set_utc(1_767_323_045_000_000_000);
/// let rtc = Rtc::new(&clock).with_century(0x32);
/// // The RAM above 16 MiB in units of 64 KiB, for firmware: 112 MiB.
/// assert!(rtc.set_byte(0x34, 0x00) && rtc.set_byte(0x35, 0x07));
///
/// let storage = Storage::<8, 16, 2>::new();
/// let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
/// let manager = DeviceManager::new(&storage, allocator);
/// manager.register_device(&rtc, None, &[rtc.ports()], &[IrqResource::Fixed(Gsi(8))]).unwrap();
/// let read = |index| {
///     let mut data = [0];
///     manager.write(GuestAddress(0x70), &[index], IoType::Pio).unwrap();
///     manager.read(GuestAddress(0x71), &mut data, IoType::Pio).unwrap();
///     data[0]
/// };
/// assert_eq!([0x32, 9, 8, 7, 4, 2, 0].map(read), [0x20, 0x26, 0x01, 0x02, 0x03, 0x04, 0x05]);
/// assert_eq!(read(0x35), 0x07);
/// ```
pub struct Rtc<'d, C> {
    clock: C,
    replaced: Option<&'d LegacyReplacement>,
    state: Mutex<State<'d>>,
}

struct State<'d> {
    registers: Registers,
    index: u8,
    output: Output<'d>,
    /// The latest time that was seen.
    now: u64,
}

impl State<'_> {
    const fn new(registers: Registers) -> Self {
        Self { registers, index: 0, output: Output::DISCONNECTED, now: 0 }
    }

    fn advance(&mut self, now: u64, utc: u64) -> Time {
        self.now = self.now.max(now);
        let time = Time { now: self.now, utc };
        self.registers.advance(time);
        time
    }

    /// Drives the interrupt, and returns when it changes next by itself, or is to be told again.
    fn settle(&mut self, time: Time, is_replaced: bool) -> Option<u64> {
        self.output.set(self.registers.interrupts() && !is_replaced);
        self.output.deadline(self.registers.deadline(time), time.now)
    }
}

impl<'d, C> Rtc<'d, C> {
    /// A clock as after power-on, whose battery has kept nothing.
    pub const fn new(clock: C) -> Self {
        Self { clock, replaced: None, state: Mutex::new(State::new(Registers::new())) }
    }

    /// The same clock as after power-on, with the century in the byte at an index, from 0x0e to 0x7f: what the field `CENTURY`
    /// of the FADT says (ACPI 6.5, table 5.9), 0x32 as a rule. Any other index is none.
    #[must_use]
    pub const fn with_century(mut self, index: u8) -> Self {
        self.state = Mutex::new(State::new(Registers::new().with_century(index)));
        self
    }

    /// The same clock, whose interrupt is not asserted while an [`Hpet`](super::hpet::Hpet) stands in its place.
    #[must_use]
    pub const fn with_legacy_replacement(mut self, replaced: &'d LegacyReplacement) -> Self {
        self.replaced = Some(replaced);
        self
    }

    /// The request for its ports, 0x70 and 0x71.
    pub const fn ports(&self) -> IoResource {
        IoResource::pio(PORTS, 2)
    }

    /// Sets a byte of the memory, from 0x0e to 0x7f: what firmware looks for there, or what a battery has kept. It returns
    /// whether there is such a byte; that of the century is not one.
    pub fn set_byte(&self, index: u8, value: u8) -> bool {
        self.state.lock().registers.memory(index).map(|byte| *byte = value).is_some()
    }

    /// A byte of the memory: see [`set_byte`](Self::set_byte).
    pub fn byte(&self, index: u8) -> Option<u8> {
        self.state.lock().registers.memory(index).copied()
    }
}

impl<C: Clock + WallClock> Rtc<'_, C> {
    /// Calls `act` with the state of now.
    fn with_state(&self, act: impl FnOnce(&mut State<'_>, Time)) {
        let mut state = self.state.lock();
        // Under the lock: the time of day may go back, but not by a call that comes late on another processor.
        let time = state.advance(self.clock.now(), self.clock.utc());
        act(&mut state, time);
        if let Some(deadline) = state.settle(time, self.is_replaced()) {
            self.clock.deadline(deadline);
        }
    }

    fn is_replaced(&self) -> bool {
        self.replaced.is_some_and(LegacyReplacement::is_on)
    }
}

impl<'d, C: Clock + WallClock + Sync> Device<'d> for Rtc<'d, C> {
    fn name(&self) -> &str {
        "rtc"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.with_state(|state, time| {
            for (_, byte) in (access.offset()..).zip(data).filter(|(offset, _)| *offset == 1) {
                *byte = state.registers.read(state.index, time);
            }
        });
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.with_state(|state, time| {
            for (offset, byte) in (access.offset()..).zip(data) {
                match offset {
                    0 => state.index = *byte & 0x7f,
                    _ => state.registers.write(state.index, *byte, time),
                }
            }
        });
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.state.lock().output = Output::new(resources.irq(0));
        Ok(())
    }

    fn reset(&self) {
        self.with_state(|state, _| state.registers.reset());
    }

    fn tick(&self, now: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let time = state.advance(now, self.clock.utc());
        state.settle(time, self.is_replaced())
    }

    fn describe(&self, description: &mut dyn Description) {
        description.acpi("PNP0B00", Part::ALL);
        description.compatible(&["motorola,mc146818"]);
        description.edge_triggered(1);
        description.role(Role::Rtc { century: self.state.lock().registers.century().unwrap_or(0) });
    }
}

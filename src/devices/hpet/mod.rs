//! A high precision event timer: the HPET.

mod timer;

use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;

use super::output::Output;
use super::time::{Clock, Rate, SHORTEST_PERIOD};
use crate::access::Access;
use crate::description::{Description, Part, Role};
use crate::device::{Device, Rejected};
use crate::resource::{IoResource, MAX_IRQS_PER_DEVICE, Resources};
use timer::{Timer, merged};

/// How many bytes the registers take.
const SIZE: u64 = 0x400;

/// Registers, of 8 bytes each.
const CAPABILITIES: u64 = 0x000;
const CONFIGURATION: u64 = 0x010;
const STATUS: u64 = 0x020;
const COUNTER: u64 = 0x0f0;
/// The first of a timer, and how far the next timer's are behind.
const TIMERS: u64 = 0x100;
const TIMER_SIZE: u64 = 0x20;
/// Within a timer's.
const TIMER_CONFIGURATION: u64 = 0x00;
const TIMER_COMPARATOR: u64 = 0x08;

/// Revision 1, three timers, a counter of 64 bits, and the vendor.
const ID: u64 = 0x8086_2201;
const CAN_REPLACE: u64 = 1 << 15;

/// Of the configuration: the counter counts, and timers interrupt; they do in the place of others.
const ENABLE: u64 = 1 << 0;
const REPLACE: u64 = 1 << 1;

/// Femtoseconds: what a period is given in, and the longest and the shortest one.
const PER_NANOSECOND: u32 = 1_000_000;
const LONGEST: u32 = 100_000_000;

/// Whether an [`Hpet`] stands in the place of the interrupts of a [`Pit`](super::pit::Pit) and an [`Rtc`](super::rtc::Rtc),
/// which are made with the same value (`LEG_RT_CNF`, IA-PC HPET specification 1.0a, 2.3.5).
///
/// ```
/// use vm_device::devices::hpet::LegacyReplacement;
///
/// static REPLACED: LegacyReplacement = LegacyReplacement::new();
/// assert!(!REPLACED.is_on());
/// ```
#[derive(Debug, Default)]
pub struct LegacyReplacement(AtomicBool);

impl LegacyReplacement {
    /// Off, as after power-on.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Whether it is on: the guest has asked the HPET for it.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The high precision event timer (Intel IA-PC HPET specification 1.0a): 1,024 bytes of registers in memory, a main counter and
/// three timers of 64 bits, each one-shot or periodic, edge- or level-triggered, in 64 or 32 bits. Accesses of every size are
/// served.
///
/// The main counter counts at 10 MHz unless it is made [`with_period`](Self::with_period), exactly by the clock `C`.
///
/// **Interrupts.** The device is registered with as many as it is to have, up to 16. A timer can have each of them whose GSI is
/// less than 32: its configuration register says which, and selects one by its GSI. A selection of another one is not taken.
/// Without an interrupt that it has selected, a timer interrupts nobody. An edge on a line that is shared is asserted and
/// deasserted; 8 edges are signalled at once at most, and those beyond are lost. What was refused is told again by the next call,
/// for which a tick is asked for. Messages (FSB delivery) are not offered. The interrupt controller is called under the device's
/// own lock, and must not call it.
///
/// **Legacy replacement.** [`with_legacy_replacement`](Self::with_legacy_replacement) offers it. The first two interrupts of
/// the device are then those of the PIT and the RTC: GSI 0 or 2, and GSI 8. The device shares them with the two, so that all
/// three ask for them as [`IrqResource::Shared`](crate::IrqResource::Shared). Timers 0 and 1 have these while the guest asks
/// for it, and none has them otherwise. Meanwhile a `Pit` and an `Rtc` that are made with the same [`LegacyReplacement`]
/// interrupt nobody.
///
/// A match is signalled by the next [`tick`](Device::tick) or access. A period shorter than 100 us asks for a tick every 100
/// us, which signals the edges of its period together. Without a period, which a periodic timer gets by a write of its
/// comparator, it is one-shot.
///
/// ```
/// use vm_device::devices::hpet::Hpet;
/// use vm_device::devices::time::HandClock;
/// use vm_device::{DeviceManager, Gsi, GuestAddress, IoRange, IoType, IrqResource, Storage, SystemAllocator};
///
/// let clock = HandClock::new();
/// let hpet = Hpet::new(&clock);
/// let storage = Storage::<8, 16, 2>::new();
/// let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 23);
/// let manager = DeviceManager::new(&storage, allocator);
/// let irqs = [IrqResource::Fixed(Gsi(20)), IrqResource::Fixed(Gsi(21))];
/// manager.register_device(&hpet, None, &[hpet.mmio(0xfed0_0000)], &irqs).unwrap();
///
/// // Its counter counts.
/// manager.write(GuestAddress(0xfed0_0010), &1_u64.to_le_bytes(), IoType::Mmio).unwrap();
/// clock.advance(1_000);
/// let mut data = [0; 8];
/// manager.read(GuestAddress(0xfed0_00f0), &mut data, IoType::Mmio).unwrap();
/// assert_eq!(u64::from_le_bytes(data), 10);
/// // The first timer can have both interrupts.
/// manager.read(GuestAddress(0xfed0_0104), &mut data[..4], IoType::Mmio).unwrap();
/// assert_eq!(data[..4], (1_u32 << 20 | 1 << 21).to_le_bytes());
/// ```
pub struct Hpet<'d, C> {
    clock: C,
    board: Board<'d>,
    state: Mutex<State<'d>>,
}

struct State<'d> {
    configuration: u64,
    /// How far the main counter is ahead of the ticks, wrapping; while it is halted, what it holds.
    counter: u64,
    timers: [Timer; 3],
    outputs: [Output<'d>; MAX_IRQS_PER_DEVICE],
    /// The latest tick that was seen.
    now: u64,
}

/// What does not change while the device is used.
#[derive(Clone, Copy)]
struct Board<'d> {
    period: u32,
    replaces: Option<&'d LegacyReplacement>,
}

impl Board<'_> {
    fn rate(self) -> Rate {
        Rate::new(PER_NANOSECOND, self.period)
    }

    const fn capabilities(self) -> u64 {
        (self.period as u64) << 32 | ID | if self.replaces.is_some() { CAN_REPLACE } else { 0 }
    }

    /// How many of the interrupts are those of others.
    fn replaced(self) -> usize {
        if self.replaces.is_some() { 2 } else { 0 }
    }
}

impl<'d> State<'d> {
    const fn new(outputs: [Output<'d>; MAX_IRQS_PER_DEVICE]) -> Self {
        Self { configuration: 0, counter: 0, timers: [Timer::new(); 3], outputs, now: 0 }
    }

    fn is_enabled(&self) -> bool {
        self.configuration & ENABLE != 0
    }

    /// What the main counter holds.
    fn counter(&self) -> u64 {
        if self.is_enabled() { self.now.wrapping_add(self.counter) } else { self.counter }
    }

    fn set_counter(&mut self, value: u64) {
        self.counter = if self.is_enabled() { value.wrapping_sub(self.now) } else { value };
        self.timers.iter_mut().for_each(|timer| timer.compare_from(self.now));
    }

    /// The GSIs that a timer can select, a bit each.
    fn routes(&self, board: Board<'_>) -> u32 {
        let outputs = self.outputs.iter().skip(board.replaced());
        let gsis = outputs.filter_map(|output| output.line().gsi());
        gsis.fold(0, |routes, gsi| routes | 1_u32.checked_shl(gsi.0).unwrap_or(0))
    }

    /// The number of the interrupt that a timer has.
    fn output_of(&self, number: usize, board: Board<'_>) -> Option<usize> {
        if self.configuration & REPLACE != 0 && number < 2 {
            return Some(number);
        }
        let route = self.timers.get(number)?.route();
        let mut outputs = self.outputs.iter().enumerate().skip(board.replaced());
        outputs.find(|(_, output)| output.line().gsi().is_some_and(|gsi| gsi.0 == route)).map(|(index, _)| index)
    }

    /// Signals what has become due by now.
    fn advance(&mut self, now: u64, board: Board<'_>) {
        self.now = self.now.max(board.rate().ticks_at(now));
        if !self.is_enabled() {
            return;
        }
        for number in 0..self.timers.len() {
            let Some(timer) = self.timers.get_mut(number) else { continue };
            let matches = timer.advance(self.now, self.counter);
            if matches != 0
                && timer.is_enabled()
                && !timer.is_level()
                && let Some(index) = self.output_of(number, board)
                && let Some(output) = self.outputs.get_mut(index)
            {
                output.signal(matches);
            }
        }
    }

    /// Drives the levels, and returns when the next interrupt is due, or what was refused is to be told again.
    fn settle(&mut self, now: u64, board: Board<'_>) -> Option<u64> {
        let mut asserted = 0_u32;
        let mut deadline: Option<u64> = None;
        for (number, timer) in self.timers.iter().enumerate() {
            if !self.is_enabled() || !timer.is_enabled() {
                continue;
            }
            let Some(index) = self.output_of(number, board) else { continue };
            if timer.status {
                asserted |= 1_u32.checked_shl(index as u32).unwrap_or(0);
            } else if let Some(tick) = timer.next_match(self.counter) {
                let due = board.rate().time_of(tick);
                let is_fast = timer.period().is_some_and(|period| period < board.rate().ticks_at(SHORTEST_PERIOD));
                let due = if is_fast { due.max(now.saturating_add(SHORTEST_PERIOD)) } else { due };
                deadline = Some(deadline.map_or(due, |earliest| earliest.min(due)));
            }
        }
        for (index, output) in self.outputs.iter_mut().enumerate() {
            output.signal(0);
            output.set(asserted >> index & 1 != 0);
            deadline = output.deadline(deadline, now);
        }
        deadline
    }

    /// Reads the register of 8 bytes at an offset.
    fn read(&self, offset: u64, board: Board<'_>) -> u64 {
        match offset {
            CAPABILITIES => board.capabilities(),
            CONFIGURATION => self.configuration,
            STATUS => self.timers.iter().rev().fold(0, |bits, timer| bits << 1 | u64::from(timer.status)),
            COUNTER => self.counter(),
            _ => match self.timer_at(offset) {
                Some((number, TIMER_CONFIGURATION)) => {
                    self.timers.get(number).map_or(0, |timer| timer.config(self.routes(board)))
                }
                Some((number, TIMER_COMPARATOR)) => self.timers.get(number).map_or(0, Timer::comparator),
                _ => 0,
            },
        }
    }

    /// Writes the bits of `mask` of the register of 8 bytes at an offset.
    fn write(&mut self, offset: u64, value: u64, mask: u64, board: Board<'_>) {
        match offset {
            CONFIGURATION => self.configure(merged(self.configuration, value, mask), board),
            STATUS => {
                for (number, timer) in self.timers.iter_mut().enumerate() {
                    timer.status &= (value & mask) >> number & 1 == 0;
                }
            }
            COUNTER => self.set_counter(merged(self.counter(), value, mask)),
            _ => {
                let (now, routes) = (self.now, self.routes(board));
                let Some((number, register)) = self.timer_at(offset) else { return };
                let Some(timer) = self.timers.get_mut(number) else { return };
                match register {
                    TIMER_CONFIGURATION => timer.set_config(value, mask, routes),
                    TIMER_COMPARATOR => timer.set_comparator(value, mask, now),
                    _ => {}
                }
            }
        }
    }

    /// Which timer's register is at an offset, and which of its registers it is.
    fn timer_at(&self, offset: u64) -> Option<(usize, u64)> {
        let offset = offset.checked_sub(TIMERS)?;
        Some((usize::try_from(offset / TIMER_SIZE).ok()?, offset % TIMER_SIZE))
    }

    fn configure(&mut self, value: u64, board: Board<'_>) {
        let counter = self.counter();
        let writable = if board.replaces.is_some() { ENABLE | REPLACE } else { ENABLE };
        let starts = value & !self.configuration & ENABLE != 0;
        self.configuration = value & writable;
        self.counter = if self.is_enabled() { counter.wrapping_sub(self.now) } else { counter };
        if starts {
            self.timers.iter_mut().for_each(|timer| timer.compare_from(self.now));
        }
        if let Some(replaces) = board.replaces {
            replaces.0.store(self.configuration & REPLACE != 0, Ordering::SeqCst);
        }
    }
}

impl<'d, C> Hpet<'d, C> {
    /// A timer as after power-on, at 10 MHz.
    pub const fn new(clock: C) -> Self {
        let state = State::new([Output::DISCONNECTED; MAX_IRQS_PER_DEVICE]);
        Self { clock, board: Board { period: LONGEST, replaces: None }, state: Mutex::new(state) }
    }

    /// The same timer, whose main counter counts once in so many femtoseconds: from 1,000,000, which is a nanosecond, to
    /// 100,000,000, which is the longest that the specification allows. Anything else is the nearest of these.
    #[must_use]
    pub const fn with_period(mut self, femtoseconds: u32) -> Self {
        self.board.period = match femtoseconds {
            ..PER_NANOSECOND => PER_NANOSECOND,
            LONGEST.. => LONGEST,
            _ => femtoseconds,
        };
        self
    }

    /// The same timer, which can stand in the place of a `Pit` and an `Rtc`: its first two interrupts are theirs.
    #[must_use]
    pub const fn with_legacy_replacement(mut self, replaces: &'d LegacyReplacement) -> Self {
        self.board.replaces = Some(replaces);
        self
    }

    /// The request for its registers in memory from `base` on: 1,024 bytes. PCs have them at 0xfed0_0000.
    pub const fn mmio(&self, base: u64) -> IoResource {
        IoResource::mmio(base, SIZE)
    }
}

impl<'d, C: Clock> Hpet<'d, C> {
    /// Calls `act` with the state of now.
    fn with_state(&self, act: impl FnOnce(&mut State<'d>)) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.advance(now, self.board);
        let before = state.configuration;
        act(&mut state);
        // What has become due by the change itself.
        state.advance(now, self.board);
        if let Some(deadline) = state.settle(now, self.board) {
            self.clock.deadline(deadline);
        }
        if (before ^ state.configuration) & REPLACE != 0 {
            // The PIT and the RTC look at their outputs.
            self.clock.deadline(now);
        }
    }
}

impl<'d, C: Clock + Sync> Device<'d> for Hpet<'d, C> {
    fn name(&self) -> &str {
        "hpet"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.with_state(|state| {
            for register in access.registers::<8>(data.len()) {
                access.load_at(register, &state.read(register, self.board).to_le_bytes(), data);
            }
        });
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.with_state(|state| {
            for register in access.registers::<8>(data.len()) {
                // The bytes that are written are the same in both.
                let (mut value, mut other) = ([0; 8], [0xff; 8]);
                access.store_at(register, &mut value, data);
                access.store_at(register, &mut other, data);
                let (value, other) = (u64::from_le_bytes(value), u64::from_le_bytes(other));
                state.write(register, value, !(value ^ other), self.board);
            }
        });
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        let mut state = self.state.lock();
        for (index, output) in state.outputs.iter_mut().enumerate() {
            *output = Output::new(resources.irq(index));
        }
        Ok(())
    }

    fn reset(&self) {
        self.with_state(|state| {
            state.outputs.iter_mut().for_each(Output::reset);
            state.configure(0, self.board);
            *state = State { now: state.now, ..State::new(state.outputs) };
        });
    }

    fn tick(&self, now: u64) -> Option<u64> {
        let mut state = self.state.lock();
        state.advance(now, self.board);
        state.settle(now, self.board)
    }

    fn describe(&self, description: &mut dyn Description) {
        // Which lines its timers have is what the guest programs.
        description.acpi("PNP0103", Part { irqs: 0, ..Part::ALL });
        description.compatible(&["intel,ce4100-hpet"]);
        description.edge_triggered(u16::MAX);
        let minimum_tick = self.board.rate().ticks_at(SHORTEST_PERIOD);
        let capabilities = self.board.capabilities() as u32;
        description.role(Role::Hpet { capabilities, minimum_tick: u16::try_from(minimum_tick).unwrap_or(u16::MAX) });
    }
}

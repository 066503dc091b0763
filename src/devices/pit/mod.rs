//! A programmable interval timer: the 8254.

mod counter;

use spin::Mutex;

use super::hpet::LegacyReplacement;
use super::output::Output;
use super::time::{Clock, Rate, SHORTEST_PERIOD};
use crate::access::Access;
use crate::description::{Description, Part};
use crate::device::{Device, Rejected};
use crate::resource::{IoResource, Resources};
use counter::Counter;

/// A twelfth of the 315/22 MHz of a PC's crystal: 1.193182 MHz.
const RATE: Rate = Rate::new(105, 88_000);

/// The ports of a PC. Three counters, and the control word behind them.
const COUNTERS: u16 = 0x40;
const CONTROL: u64 = 3;
/// System control port B.
const PORT_B: u16 = 0x61;

/// Of port B: what is written.
const GATE: u8 = 1 << 0;
const WRITABLE: u8 = 0x0f;

/// How many pulses a refresh of memory takes on a PC: 15.085 us.
const REFRESH: u64 = 18;

/// The programmable interval timer 8254 of a PC (Intel data sheet 231164), with system control port B at 0x61 (IBM PS/2
/// Hardware Interface Technical Reference, "System control ports").
///
/// Three counters count at 1.193182 MHz in modes 0 to 5, in binary or BCD, exactly by the clock `C`. Each rise of the output of
/// counter 0 is an edge of the device's interrupt, which a board connects to interrupt 0 of the 8259, and to input 2 of an
/// IOAPIC. The gates of counters 0 and 1 are open. Bit 0 of port B is the gate of counter 2, whose output is bit 5; bit 4
/// changes with each refresh of memory, every 15 us; bits 1 to 3 keep what is written, and bits 6 and 7 are 0: no error of
/// memory. The speaker is silent.
///
/// At each [`tick`](Device::tick), and at each access, all edges are signalled that were due since the last one, but no more
/// than 8: those beyond are lost, as interrupts are that a processor is too late for. An interrupt controller that has not
/// delivered one edge takes those that follow as the same. A refused edge is signalled again by the next call, for which a tick is
/// asked for. On a line that is shared, an edge is a level that is asserted and deasserted. A period shorter than 100 us asks for a
/// tick every 100 us, which signals the edges of its period together. A count of 1 in modes 2 and 3, which the data sheet forbids,
/// leaves the output high.
///
/// The control port reads as open bus. After power-on, which the data sheet leaves undefined, and after a reset, the counters
/// are in mode 3 without a count. The interrupt controller is called under the device's own lock, and must not call it.
///
/// ```
/// use vm_device::devices::pit::Pit;
/// use vm_device::devices::time::HandClock;
/// use vm_device::{DeviceManager, Gsi, IoRange, IoType, IrqResource, Storage, SystemAllocator};
///
/// let clock = HandClock::new();
/// let pit = Pit::new(&clock);
/// let storage = Storage::<8, 16, 2>::new();
/// let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 15);
/// let manager = DeviceManager::new(&storage, allocator);
/// manager.register_device(&pit, None, &pit.ports(), &[IrqResource::Fixed(Gsi(0))]).unwrap();
///
/// // Counter 0 in mode 2, by both bytes of 11,932: 100 edges a second.
/// let out = |port: u16, value| manager.write(port.into(), &[value], IoType::Pio).unwrap();
/// out(0x43, 0x34);
/// out(0x40, 0x9c);
/// out(0x40, 0x2e);
/// assert_eq!(clock.asked_for().map(|deadline| deadline / 1_000_000), Some(10));
/// assert_eq!(manager.tick(clock.advance(10_001_000)).map(|deadline| deadline / 1_000_000), Some(20));
/// ```
pub struct Pit<'d, C> {
    clock: C,
    replaced: Option<&'d LegacyReplacement>,
    state: Mutex<State<'d>>,
}

struct State<'d> {
    counters: [Counter; 3],
    /// The bits of port B that are written.
    port_b: u8,
    output: Output<'d>,
    /// The time in pulses, which has come so far.
    now: u64,
    /// How often the output of counter 0 has risen since it was signalled.
    rises: u64,
}

impl<'d> State<'d> {
    const fn new(output: Output<'d>) -> Self {
        let counters = [Counter::new(true), Counter::new(true), Counter::new(false)];
        Self { counters, port_b: 0, output, now: 0, rises: 0 }
    }

    /// Lets the time go on. A call that comes late on another processor changes nothing.
    fn advance(&mut self, now: u64) {
        self.now = self.now.max(RATE.ticks_at(now));
        let [first, others @ ..] = &mut self.counters;
        self.rises = self.rises.saturating_add(first.advance(self.now));
        for counter in others {
            counter.advance(self.now);
        }
    }

    /// Changes counter number `index`, if there is one.
    fn change(&mut self, index: u64, change: impl FnOnce(&mut Counter) -> u64) {
        if let Some(counter) = usize::try_from(index).ok().and_then(|index| self.counters.get_mut(index)) {
            let rises = change(counter);
            if index == 0 {
                self.rises = self.rises.saturating_add(rises);
            }
        }
    }

    /// Takes a control word: a mode for a counter, or a command that latches.
    fn control(&mut self, word: u8) {
        let counter = u64::from(word >> 6);
        if counter == 3 {
            // Read back: both are low to latch.
            let selected = (1..).zip(&mut self.counters).filter(|(bit, _)| word >> bit & 1 != 0);
            for (_, counter) in selected {
                if word & 1 << 5 == 0 {
                    counter.latch();
                }
                if word & 1 << 4 == 0 {
                    counter.latch_status();
                }
            }
        } else if word & 0x30 == 0 {
            self.change(counter, |counter| {
                counter.latch();
                0
            });
        } else {
            self.change(counter, |counter| counter.control(word));
        }
    }

    fn read_port_b(&self) -> u8 {
        let [.., speaker] = &self.counters;
        let refresh = ((self.now / REFRESH) & 1) as u8;
        self.port_b | refresh << 4 | u8::from(speaker.output()) << 5
    }

    fn write_port_b(&mut self, value: u8) {
        self.port_b = value & WRITABLE;
        self.change(2, |counter| counter.set_gate(value & GATE != 0));
    }

    /// Signals the edges that are due, and returns when the next one is, or those that were refused are to be signalled again.
    fn settle(&mut self, now: u64, is_replaced: bool) -> Option<u64> {
        let rises = core::mem::take(&mut self.rises);
        self.output.signal(if is_replaced { 0 } else { rises });
        // On a shared line the last edge may have been refused as it fell.
        self.output.set(false);
        let [counter, ..] = &self.counters;
        let is_fast = counter.is_periodic() && counter.count().get() < RATE.ticks_at(SHORTEST_PERIOD);
        let earliest = if is_fast { now.saturating_add(SHORTEST_PERIOD) } else { 0 };
        let rise = counter.next_rise().map(|rise| RATE.time_of(rise).max(earliest));
        self.output.deadline(rise, now)
    }
}

impl<'d, C> Pit<'d, C> {
    /// A timer as after power-on.
    pub const fn new(clock: C) -> Self {
        Self { clock, replaced: None, state: Mutex::new(State::new(Output::DISCONNECTED)) }
    }

    /// The same timer, whose interrupt is not signalled while an [`Hpet`](super::hpet::Hpet) stands in its place.
    #[must_use]
    pub const fn with_legacy_replacement(mut self, replaced: &'d LegacyReplacement) -> Self {
        self.replaced = Some(replaced);
        self
    }

    /// The requests for its ports: 0x40 to 0x43, and 0x61.
    pub const fn ports(&self) -> [IoResource; 2] {
        [IoResource::pio(COUNTERS, 4), IoResource::pio(PORT_B, 1)]
    }
}

impl<C: Clock> Pit<'_, C> {
    /// Calls `act` with the state of now.
    fn with_state(&self, act: impl FnOnce(&mut State<'_>)) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.advance(now);
        act(&mut state);
        if let Some(deadline) = state.settle(now, self.is_replaced()) {
            self.clock.deadline(deadline);
        }
    }

    fn is_replaced(&self) -> bool {
        self.replaced.is_some_and(LegacyReplacement::is_on)
    }
}

impl<'d, C: Clock + Sync> Device<'d> for Pit<'d, C> {
    fn name(&self) -> &str {
        "pit"
    }

    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        self.with_state(|state| {
            for (offset, byte) in (access.offset()..).zip(data) {
                if access.range_index() != 0 {
                    *byte = state.read_port_b();
                } else {
                    state.change(offset, |counter| {
                        *byte = counter.read();
                        0
                    });
                }
            }
        });
    }

    fn write(&self, access: &Access<'_>, data: &[u8]) {
        self.with_state(|state| {
            for (offset, byte) in (access.offset()..).zip(data) {
                match offset {
                    _ if access.range_index() != 0 => state.write_port_b(*byte),
                    CONTROL => state.control(*byte),
                    _ => state.change(offset, |counter| counter.write(*byte)),
                }
            }
        });
    }

    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        self.state.lock().output = Output::new(resources.irq(0));
        Ok(())
    }

    fn reset(&self) {
        self.with_state(|state| {
            state.output.reset();
            *state = State { now: state.now, ..State::new(state.output) };
            state.counters.iter_mut().for_each(|counter| {
                counter.advance(state.now);
            });
        });
    }

    fn tick(&self, now: u64) -> Option<u64> {
        let mut state = self.state.lock();
        state.advance(now);
        state.settle(now, self.is_replaced())
    }

    fn describe(&self, description: &mut dyn Description) {
        description.acpi("PNP0100", Part { ranges: 0b01, ..Part::ALL });
        // The speaker.
        description.acpi("PNP0800", Part { ranges: 0b10, irqs: 0 });
        description.edge_triggered(1);
    }
}

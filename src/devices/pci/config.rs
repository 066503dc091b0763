//! A configuration space as data: what each register holds after reset, which of its bits can be written, and what the
//! registers say of the ranges that the function decodes.

use bitflags::bitflags;
use heapless::Vec;

use super::bar::Bar;
use super::pin::Pin;
use super::window;
use crate::address::IoRange;
use crate::resource::IoResource;

/// How many ranges a function can have: six base address registers and an expansion ROM.
const MAX_RANGES: usize = 7;

/// How many dwords a configuration space has.
pub(super) const DWORDS: usize = 64;

/// Where each range of a function lies; `None`: nowhere, it is not decoded.
pub(super) type Places = Ranges<Option<IoRange>>;

/// One item for each range of a function.
pub(super) type Ranges<T> = Vec<T, MAX_RANGES>;

/// Collects items. There are no more of them than ranges; what `Vec` itself has for that panics if there are.
pub(super) fn collect<T>(items: impl IntoIterator<Item = T>) -> Ranges<T> {
    let mut collected = Ranges::new();
    for item in items {
        if collected.push(item).is_err() {
            break;
        }
    }
    collected
}

/// Registers by the number of their dword, a quarter of their offset (PCI Local Bus 3.0, 6.1).
pub(super) mod dword {
    pub(in super::super) const COMMAND: usize = 1;
    pub(in super::super) const CLASS: usize = 0x08 / 4;
    /// Cache line size, latency timer, header type, built-in self test.
    pub(in super::super) const HEADER: usize = 0x0c / 4;
    pub(in super::super) const FIRST_BAR: usize = 0x10 / 4;
    pub(in super::super) const SUBSYSTEM: usize = 0x2c / 4;
    pub(in super::super) const ROM: usize = 0x30 / 4;
    pub(in super::super) const CAPABILITIES: usize = 0x34 / 4;
    pub(in super::super) const INTERRUPT: usize = 0x3c / 4;
    /// The first that is the function's own.
    pub(in super::super) const OWN: usize = 0x40 / 4;
}

bitflags! {
    /// The command register (PCI Local Bus 3.0, 6.2.2). A function has those bits that mean something for it; the others read
    /// 0.
    ///
    /// ```
    /// use vm_device::devices::pci::Command;
    ///
    /// assert_eq!((Command::MEMORY | Command::BUS_MASTER).bits(), 6);
    /// ```
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Command: u16 {
        /// The function answers at the ports of its base address registers; a bridge forwards ports.
        const PORTS = 1 << 0;
        /// The function answers in the memory of its base address registers; a bridge forwards memory.
        const MEMORY = 1 << 1;
        /// The function may access memory by itself, and send messages as interrupts.
        const BUS_MASTER = 1 << 2;
        /// The function reports parity errors.
        const PARITY = 1 << 6;
        /// The function may report system errors.
        const SYSTEM_ERROR = 1 << 8;
        /// The function does not assert its interrupt pin.
        const INTERRUPT_DISABLE = 1 << 10;
    }
}

/// The bits of the status register that a function sets and a guest clears by writing ones (PCI Local Bus 3.0, 6.2.3):
/// errors.
const STATUS_ERRORS: u32 = 0xf900;
/// The bits that a function may set: errors, and the state of its interrupt pin.
const STATUS_OF_DEVICE: u32 = STATUS_ERRORS | 1 << 3;
/// There is a list of capabilities.
const STATUS_CAPABILITIES: u32 = 1 << 4;
/// The speed at which the function claims an access: medium.
pub(super) const STATUS_MEDIUM: u32 = 0b01 << 9;

/// A register of a function's own, from 0x40 on: a capability, or what a chipset has there.
///
/// ```
/// use vm_device::devices::pci::Register;
///
/// // A message-signalled interrupt capability (PCI Local Bus 3.0, 6.8.1): one vector, a 32-bit address.
/// static MSI: [Register; 3] = [
///     Register::new(0x50, 0x0000_0005, 0x0001_0000),
///     Register::new(0x54, 0, 0xffff_fffc),
///     Register::new(0x58, 0, 0x0000_ffff),
/// ];
/// assert_eq!(MSI[0].offset(), 0x50);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register {
    offset: u8,
    value: u32,
    writable: u32,
    clearable: u32,
}

impl Register {
    /// The 4 bytes at `offset`, a multiple of 4: their value after reset, and the bits that a guest can write.
    pub const fn new(offset: u8, value: u32, writable: u32) -> Self {
        Self { offset, value, writable, clearable: 0 }
    }

    /// The same register with bits that a guest clears by writing ones.
    #[must_use]
    pub const fn clearable(mut self, bits: u32) -> Self {
        self.clearable = bits;
        self
    }

    /// Where it is in the configuration space.
    pub const fn offset(&self) -> u8 {
        self.offset
    }
}

/// A configuration space as it is after reset: identity, ranges, interrupt pin, registers of the function's own.
///
/// It has the 256 bytes of conventional PCI. Through the memory-mapped mechanism too, what is beyond reads all ones, by which
/// software tells that there are no extended registers: 4 KiB for each function would be mostly zeros.
///
/// ```
/// use vm_device::devices::pci::{Bar, Config};
///
/// // A network controller (class 0x02): ports, memory, an expansion ROM, interrupt pin A.
/// const NIC: Config = Config::new(0x1af4, 0x1000)
///     .class(0x02_0000)
///     .subsystem(0x1af4, 1)
///     .bar(0, Bar::ports(0x20))
///     .bar(4, Bar::memory64(0x4000).prefetchable())
///     .rom(0x1_0000)
///     .interrupt_pin(1);
/// assert_eq!(NIC.requests().len(), 3);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config<'d> {
    identity: u32,
    class: u32,
    subsystem: u32,
    bars: [Bar; 6],
    rom: Bar,
    pin: u8,
    capabilities: u8,
    registers: &'d [Register],
    /// The bits of the command register that are always set.
    always: Command,
    bridge: bool,
    /// A base address register that there cannot be.
    bad_bar: Option<usize>,
}

/// One half of two, by bits.
const fn words(low: u16, high: u16) -> u32 {
    low as u32 | (high as u32) << 16
}

impl<'d> Config<'d> {
    /// The function of a vendor. It has no ranges yet.
    pub const fn new(vendor: u16, device: u16) -> Self {
        Self {
            identity: words(vendor, device),
            class: 0,
            subsystem: 0,
            bars: [Bar::NONE; 6],
            rom: Bar::NONE,
            pin: 0,
            capabilities: 0,
            registers: &[],
            always: Command::empty(),
            bridge: false,
            bad_bar: None,
        }
    }

    /// The host bridge of the i440FX chipset, function 0 of device 0 on bus 0, which firmware and systems know. It keeps what
    /// is written to the registers of its memory controller (Intel 290549, 3.2: 0x50 to 0x57, the attributes of shadow
    /// memory from 0x59 on, the sizes of memory from 0x60 on, system management memory at 0x72), and does nothing by it.
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function};
    ///
    /// static BRIDGE: Function<'static> = Function::new(Config::i440fx());
    /// assert_eq!(BRIDGE.register(0), 0x1237_8086);
    /// ```
    pub const fn i440fx() -> Self {
        const SCRATCH: &[Register] = &[
            Register::new(0x50, 0, u32::MAX),
            Register::new(0x54, 0, u32::MAX),
            Register::new(0x58, 0, 0xffff_ff00),
            Register::new(0x5c, 0, u32::MAX),
            Register::new(0x60, 0, u32::MAX),
            Register::new(0x64, 0, u32::MAX),
            Register::new(0x70, 0x0002_0000, 0x00ff_0000),
        ];
        Self::new(0x8086, 0x1237).class(0x06_0000).revision(2).registers(SCRATCH)
    }

    /// A PCI-to-PCI bridge, whose header is of type 1.
    pub(super) const fn bridge(vendor: u16, device: u16) -> Self {
        Self { bridge: true, ..Self::new(vendor, device) }.class(0x06_0400)
    }

    /// The class code: base class, subclass and programming interface, 8 bits each (PCI Local Bus 3.0, appendix D).
    #[must_use]
    pub const fn class(mut self, class: u32) -> Self {
        self.class = self.class & 0xff | class << 8;
        self
    }

    /// The revision of the function.
    #[must_use]
    pub const fn revision(mut self, revision: u8) -> Self {
        self.class = self.class & !0xff | revision as u32;
        self
    }

    /// Who made the card, and which it is.
    #[must_use]
    pub const fn subsystem(mut self, vendor: u16, device: u16) -> Self {
        self.subsystem = words(vendor, device);
        self
    }

    /// Base address register `index`, of 0 to 5.
    #[must_use]
    pub const fn bar(mut self, index: usize, bar: Bar) -> Self {
        let mut rest: &mut [Bar] = &mut self.bars;
        let mut at = 0;
        while let Some((first, others)) = rest.split_first_mut() {
            if at == index {
                *first = bar;
                return self;
            }
            rest = others;
            at += 1;
        }
        self.bad_bar = Some(index);
        self
    }

    /// An expansion ROM of `size` bytes: 2 KiB to 16 MiB. It is the last of the function's ranges.
    #[must_use]
    pub const fn rom(mut self, size: u64) -> Self {
        self.rom = Bar::rom(size);
        self
    }

    /// The interrupt pin: 1 for INTA# to 4 for INTD#, 0 for none (PCI Local Bus 3.0, 6.2.4).
    #[must_use]
    pub const fn interrupt_pin(mut self, pin: u8) -> Self {
        self.pin = pin;
        self
    }

    /// What the command register enables always.
    pub(super) const fn always(mut self, command: Command) -> Self {
        self.always = command;
        self
    }

    /// The interrupt pin, if there is one.
    pub(super) const fn pin(&self) -> Option<Pin> {
        Pin::from_register(self.pin)
    }

    /// The function's own registers, from 0x40 on. What is below that is ignored, and of two at one place the first is used.
    #[must_use]
    pub const fn registers(mut self, registers: &'d [Register]) -> Self {
        self.registers = registers;
        self
    }

    /// Where the list of capabilities starts (PCI Local Bus 3.0, 6.7).
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function, Register};
    ///
    /// static MSI: [Register; 1] = [Register::new(0x50, 0x05, 0x0001_0000)];
    /// static CARD: Function<'static> = Function::new(Config::new(0x1234, 1).registers(&MSI).capabilities(0x50));
    /// assert_eq!((CARD.register(0x34), CARD.register(0x50)), (0x50, 0x05));
    /// // The status register has the bit that says so.
    /// assert_eq!(CARD.register(4) >> 16 & 0x10, 0x10);
    /// ```
    #[must_use]
    pub const fn capabilities(mut self, first: u8) -> Self {
        self.capabilities = first;
        self
    }

    /// What the function's device has to be registered with: a range for each base address register, in their order, and one
    /// for the expansion ROM. Other ranges of the device come behind these.
    ///
    /// ```
    /// use vm_device::IoType;
    /// use vm_device::devices::pci::{Bar, Config};
    ///
    /// let requests = Config::new(0x1234, 1).bar(1, Bar::memory(0x1000)).bar(2, Bar::ports(8)).requests();
    /// assert_eq!(requests.len(), 2);
    /// assert_eq!((requests[0].io_type(), requests[1].io_type()), (IoType::Mmio, IoType::Pio));
    /// ```
    pub fn requests(&self) -> Requests {
        Requests(match self.bridge {
            true => collect(window::requests()),
            false => collect(self.existing_bars().map(|(_, bar)| bar.request())),
        })
    }

    pub(super) const fn is_bridge(&self) -> bool {
        self.bridge
    }

    /// The base address registers that there are, the expansion ROM's last, with the number of their dword.
    fn existing_bars(&self) -> impl Iterator<Item = (usize, &Bar)> {
        let bars = (dword::FIRST_BAR..).zip(&self.bars).chain([(dword::ROM, &self.rom)]);
        bars.filter(|(_, bar)| bar.exists())
    }

    /// The base address register in this dword, and whether the dword is its upper half.
    fn bar_at(&self, register: usize) -> Option<(&Bar, bool)> {
        let bar = |register: usize| self.bars.get(register.checked_sub(dword::FIRST_BAR)?);
        match bar(register.wrapping_sub(1)) {
            Some(below) if below.is_wide() => Some((below, true)),
            _ => bar(register).map(|bar| (bar, false)),
        }
    }

    /// The first base address register that there cannot be: of a size that its kind does not have, beyond the last, or in the
    /// upper half of another.
    pub(super) fn bad_bar(&self) -> Option<usize> {
        let bars = || (0..).zip(&self.bars);
        let below = |index: usize| index.checked_sub(1).and_then(|below| self.bars.get(below));
        let is_bad = |(index, bar): (usize, &Bar)| {
            let overlaps = bar.exists() && below(index).is_some_and(Bar::is_wide);
            let is_cut = bar.is_wide() && index + 1 == self.bars.len();
            (!bar.is_valid() || overlaps || is_cut).then_some(index)
        };
        let rom = (!self.rom.is_valid()).then_some(self.bars.len());
        self.bad_bar.or_else(|| bars().find_map(is_bad)).or(rom)
    }

    /// Where the list of capabilities starts; 0: there is none.
    pub(super) const fn first_capability(&self) -> u8 {
        self.capabilities
    }

    /// The base address registers, of which some may not be there.
    pub(super) const fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// Whether a dword is a register of the function's own.
    pub(super) fn is_own(&self, register: usize) -> bool {
        self.own(register).is_some()
    }

    fn own(&self, register: usize) -> Option<&Register> {
        self.registers.iter().find(|own| register >= dword::OWN && usize::from(own.offset / 4) == register)
    }

    /// The value of a dword after reset.
    pub(super) fn reset_value(&self, register: usize) -> u32 {
        match register {
            0 => self.identity,
            dword::COMMAND => {
                let capabilities = if self.capabilities == 0 { 0 } else { STATUS_CAPABILITIES };
                (STATUS_MEDIUM | capabilities) << 16 | u32::from(self.always.bits())
            }
            dword::CLASS => self.class,
            dword::HEADER => u32::from(self.bridge) << 16,
            dword::CAPABILITIES => self.capabilities.into(),
            dword::INTERRUPT => u32::from(self.pin) << 8,
            dword::OWN.. => self.own(register).map_or(0, |own| own.value),
            _ if self.bridge => window::reset_value(register),
            dword::SUBSYSTEM => self.subsystem,
            _ => self.bar_at(register).filter(|(_, upper)| !upper).map_or(0, |(bar, _)| bar.flags()),
        }
    }

    /// The bits of a dword that a guest can write.
    pub(super) fn writable(&self, register: usize) -> u32 {
        match register {
            dword::COMMAND => (self.commands() - self.always).bits().into(),
            // The cache line size and the latency timer are hints of the bus that nothing here needs.
            dword::HEADER => 0xffff,
            // The line is for software to remember (PCI Local Bus 3.0, 6.2.4).
            dword::INTERRUPT => 0xff | if self.bridge { window::CONTROL } else { 0 },
            dword::OWN.. => self.own(register).map_or(0, |own| own.writable),
            _ if self.bridge => window::writable(register),
            dword::ROM => self.rom.writable(),
            _ => match self.bar_at(register) {
                Some((bar, true)) => bar.writable_above(),
                Some((bar, false)) => bar.writable(),
                None => 0,
            },
        }
    }

    /// The bits of a dword that a guest clears by writing ones.
    pub(super) fn clearable(&self, register: usize) -> u32 {
        match register {
            dword::COMMAND => STATUS_ERRORS << 16,
            dword::OWN.. => self.own(register).map_or(0, |own| own.clearable),
            _ => 0,
        }
    }

    /// The bits of a dword that the device itself may change: errors and its interrupt in the status register, and the
    /// registers of its own.
    pub(super) fn changeable(&self, register: usize) -> u32 {
        match register {
            dword::COMMAND => STATUS_OF_DEVICE << 16,
            dword::OWN.. if self.own(register).is_some() => u32::MAX,
            _ => 0,
        }
    }

    /// The bits of the command register that the function has.
    fn commands(&self) -> Command {
        let mut commands = Command::all();
        if !self.bridge {
            let decodes = |wanted: fn(&Bar) -> bool| self.existing_bars().any(|(_, bar)| wanted(bar));
            commands.set(Command::PORTS, decodes(Bar::is_ports));
            commands.set(Command::MEMORY, decodes(|bar| !bar.is_ports()));
        }
        commands
    }

    /// Where each range of the function lies, as the values of its dwords say.
    pub(super) fn places(&self, value: impl Fn(usize) -> u32) -> Places {
        let command = Command::from_bits_truncate(value(dword::COMMAND) as u16);
        if self.bridge {
            return window::places(command, value);
        }
        let decoded = |(register, bar): (usize, &Bar)| {
            let enable = if bar.is_ports() { Command::PORTS } else { Command::MEMORY };
            let place = bar.place(value(register), value(register + 1));
            place.filter(|_| command.contains(enable))
        };
        collect(self.existing_bars().map(decoded))
    }
}

/// What a function's device has to be registered with.
///
/// It is a slice of [`IoResource`]s.
///
/// ```
/// use vm_device::devices::pci::Config;
///
/// assert!(Config::i440fx().requests().is_empty());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requests(Ranges<IoResource>);

impl core::ops::Deref for Requests {
    type Target = [IoResource];
    fn deref(&self) -> &[IoResource] {
        &self.0
    }
}

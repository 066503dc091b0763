//! A function: its configuration space, and the map that follows it.
//!
//! What a guest writes changes the registers under the function's lock, and then, without it, the ranges that the write is
//! about are relocated as the registers say: a relocation may call code of the embedder, which may come back here. So the
//! registers may have changed again when the relocation is done, by another vCPU whose own relocation came before it. The writer
//! looks, and repeats its relocation until the registers say what it has relocated to. The last relocation of a range is
//! followed by such a look, so that the map ends as the registers do.
//!
//! The interrupt pin is driven in the same way: its level is decided under the lock, and told without it. The message that
//! stands for the pin is marked under the lock, and sent without it.

use spin::Mutex;

use super::bus::{Bus, Slot};
use super::capability::{Capabilities, InBar};
use super::config::{Command, Config, DWORDS, Places, Ranges, Requests, collect, dword};
use super::pin::Pin;
use crate::address::{GuestUsize, IoRange};
use crate::instance::InstanceId;
use crate::interrupt::{IrqLine, Messages};
use crate::manager::{DeviceManager, Relocation};
use crate::resource::Resources;

/// How often a change is made because another vCPU has changed the same registers meanwhile. Only a guest that writes them
/// without end from several vCPUs needs more; the next write to the function makes up for what is left then.
pub(super) const MAX_REPEATS: usize = 16;

/// In the dword of the command register: the state of the device's interrupt, in the status register.
const INTERRUPT: u32 = 1 << 19;

/// The offset behind the last register.
pub(super) const SIZE: usize = 4 * DWORDS;

/// A function of a device on a PCI bus: a configuration space, and where it is plugged in.
///
/// The device itself implements [`Device`](crate::Device) as any other, and is registered with the
/// [`requests`](Self::requests) of the function; it need not know that there is one. The function moves the device's ranges as
/// the guest writes base address registers and the command register (PCI Local Bus 3.0, 6.2.5 and 6.2.2).
///
/// ```
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
/// use vm_device::devices::pci::{Bar, Config, Function, HostBridge, Slot};
/// use vm_device::{DeviceManager, IoRange, IoType, RangeState, Storage, SystemAllocator};
///
/// static STORAGE: Storage<8, 16, 2> = Storage::new();
/// static MANAGER: DeviceManager<'static> =
///     DeviceManager::new(&STORAGE, SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS));
/// static HOST: HostBridge<'static> = HostBridge::new("pci", &MANAGER);
/// static DISK: Constant = Constant("disk", 7);
/// static FUNCTION: Function<'static> = Function::new(Config::new(0x1234, 1).bar(0, Bar::memory(0x1000)));
///
/// MANAGER.register_device(&HOST, None, &[HostBridge::PORTS], &[])?;
/// let disk = MANAGER.register_device(&DISK, None, &FUNCTION.requests(), &[])?;
/// HOST.bus().plug(&FUNCTION, Slot::new(3, 0), disk)?;
///
/// // The guest writes an address into the register at 0x10 of device 3, and turns decoding of memory on.
/// for (register, value) in [(0x10, 0xc000_0000_u32), (0x04, 0x0002)] {
///     MANAGER.write(0xcf8_u16.into(), &(0x8000_1800_u32 | register).to_le_bytes(), IoType::Pio)?;
///     MANAGER.write(0xcfc_u16.into(), &value.to_le_bytes(), IoType::Pio)?;
/// }
/// let mut data = [0; 1];
/// MANAGER.read(0xc000_0000_u64.into(), &mut data, IoType::Mmio)?;
/// assert_eq!(data, [7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Function<'d> {
    config: Config<'d>,
    capabilities: Capabilities<'d>,
    pub(super) state: Mutex<State<'d>>,
    /// The bus behind a bridge. Nothing is plugged into that of another function.
    pub(super) secondary: Bus<'d>,
}

/// What changes of a function.
pub(super) struct State<'d> {
    /// The bits of each dword that differ from those after reset.
    changed: [u32; DWORDS],
    /// A bit for each range that may not lie where the registers say.
    unsettled: u8,
    /// Where it is plugged in, and the device whose ranges follow it.
    pub(super) plugged: Option<(Slot, InstanceId)>,
    /// The interrupt of the device that is the pin, and its number among the device's.
    irq: Option<(IrqLine<'d>, usize)>,
    /// The next function on the same bus.
    pub(super) next: Option<&'d Function<'d>>,
}

impl<'d> Function<'d> {
    /// A function with this configuration space, not plugged in.
    pub const fn new(config: Config<'d>) -> Self {
        let state = State { changed: [0; DWORDS], unsettled: 0, plugged: None, irq: None, next: None };
        Self { config, capabilities: Capabilities::new(), state: Mutex::new(state), secondary: Bus::new() }
    }

    /// The function interrupts by its pin, or by one message in the pin's place, as the guest likes: it has the capability MSI at
    /// `offset`, as that of [`with_msi`](Self::with_msi). The device need not know by which:
    /// [`set_interrupt`](Self::set_interrupt).
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function};
    ///
    /// static CARD: Function<'static> = Function::new(Config::new(0x1234, 1).interrupt_pin(1)).with_message(0x50);
    /// assert_eq!((CARD.register(0x34), CARD.register(0x50)), (0x50, 0x0180_0005));
    /// ```
    #[must_use]
    pub const fn with_message(mut self, offset: u8) -> Self {
        self.capabilities.add_own(offset, self.config.first_capability());
        self.config = self.config.capabilities(offset);
        self
    }

    /// The function interrupts by messages, as the capability MSI at `offset` says (PCI Local Bus 3.0, 6.8.1): 24 bytes, with an
    /// address of 64 bits, and a mask and a pending bit for each message. It comes first in the list of capabilities.
    ///
    /// `messages` are those of the device, 1 to 32, and belong to this function alone. They follow its registers: what the device
    /// [signals](Messages::signal) goes to the address that the guest has written, with the number of the message in the lowest
    /// bits of the data. Where the guest allocates fewer messages than there are, each that it allocates stands for several.
    ///
    /// ```
    /// use vm_device::Messages;
    /// use vm_device::devices::pci::{Config, Function};
    ///
    /// static MESSAGES: Messages<'static, 4> = Messages::new();
    /// static CARD: Function<'static> = Function::new(Config::new(0x1234, 1)).with_msi(0x50, &MESSAGES);
    /// // The list of capabilities starts there; it is MSI, which asks for 2 to the power of 2 messages.
    /// assert_eq!((CARD.register(0x34), CARD.register(0x50)), (0x50, 0x0184_0005));
    /// assert!(!MESSAGES.is_enabled());
    /// ```
    #[must_use]
    pub const fn with_msi<const N: usize>(mut self, offset: u8, messages: &'d Messages<'d, N>) -> Self {
        self.capabilities.add_msi(offset, self.config.first_capability(), messages);
        self.config = self.config.capabilities(offset);
        self
    }

    /// The function interrupts by messages, as the capability MSI-X at `offset` says (PCI Local Bus 3.0, 6.8.2): 12 bytes, which
    /// say where in the memory of the function its table and its pending bits lie. It comes first in the list of capabilities.
    ///
    /// `messages` are those of the device, 1 to 2,048, and belong to this function alone. There the device answers itself, by
    /// [`load_table`](Messages::load_table), [`store_table`](Messages::store_table) and [`load_pending`](Messages::load_pending):
    /// 16 bytes for each message, and 8 for each 64.
    ///
    /// ```
    /// use vm_device::devices::pci::{Bar, Config, Function, InBar};
    /// use vm_device::{Access, Device, Messages, Rejected, Resources};
    ///
    /// /// Memory with the table at its base, and the pending bits at 0x800.
    /// struct Card<'d>(Messages<'d, 16>);
    ///
    /// impl<'d> Device<'d> for Card<'d> {
    ///     fn name(&self) -> &str {
    ///         "card"
    ///     }
    ///     fn read(&self, access: &Access<'_>, data: &mut [u8]) {
    ///         match access.offset() {
    ///             offset @ 0..0x800 => self.0.load_table(offset, data),
    ///             offset => self.0.load_pending(offset - 0x800, data),
    ///         }
    ///     }
    ///     fn write(&self, access: &Access<'_>, data: &[u8]) {
    ///         self.0.store_table(access.offset(), data);
    ///     }
    ///     fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
    ///         self.0.connect(resources.irq(0));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// static CARD: Card<'static> = Card(Messages::new());
    /// static FUNCTION: Function<'static> = Function::new(Config::new(0x1234, 1).bar(0, Bar::memory(0x1000)))
    ///     .with_msix(0x60, &CARD.0, InBar::new(0, 0), InBar::new(0, 0x800));
    /// // 16 messages; the table at 0, and the pending bits at 0x800, of base address register 0.
    /// assert_eq!([0x60, 0x64, 0x68].map(|offset| FUNCTION.register(offset)), [0x000f_0011, 0, 0x800]);
    /// ```
    #[must_use]
    pub const fn with_msix<const N: usize>(
        mut self,
        offset: u8,
        messages: &'d Messages<'d, N>,
        table: InBar,
        pending: InBar,
    ) -> Self {
        self.capabilities.add_msix(offset, self.config.first_capability(), messages, [table, pending]);
        self.config = self.config.capabilities(offset);
        self
    }

    /// What its device has to be registered with: see [`Config::requests`].
    pub fn requests(&self) -> Requests {
        self.config.requests()
    }

    /// The 4 bytes of the configuration space around `offset`, as a guest would read them; all ones beyond its end.
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function};
    ///
    /// let function = Function::new(Config::new(0x1234, 0x5678));
    /// assert_eq!(function.register(0), 0x5678_1234);
    /// assert_eq!(function.register(0x100), u32::MAX);
    /// ```
    pub fn register(&self, offset: usize) -> u32 {
        if offset < SIZE { self.value(&self.state.lock(), offset / 4) } else { u32::MAX }
    }

    /// The command register: whether the device may access memory by itself, and assert its interrupt pin.
    ///
    /// ```
    /// use vm_device::devices::pci::{Command, Config, Function};
    ///
    /// let function = Function::new(Config::new(0x1234, 0x5678));
    /// assert!(!function.command().contains(Command::BUS_MASTER));
    /// ```
    pub fn command(&self) -> Command {
        Command::from_bits_truncate(self.register(4 * dword::COMMAND) as u16)
    }

    /// Whether the device may assert its interrupt pin: the command register does not disable it, and the guest has not enabled
    /// messages (PCI Local Bus 3.0, 6.2.2, 6.8.1.3 and 6.8.2.3). Otherwise the device interrupts by messages, or not at all.
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function};
    ///
    /// let function = Function::new(Config::new(0x1234, 0x5678).interrupt_pin(1));
    /// assert!(function.may_use_pin());
    /// ```
    pub fn may_use_pin(&self) -> bool {
        !self.command().contains(Command::INTERRUPT_DISABLE) && !self.capabilities.is_enabled()
    }

    /// Interrupt number `index` of the device is the pin of the function from now on, and its handle the way of the message that
    /// stands for it: the device calls this in [`set_resources`](crate::Device::set_resources). What line the pin leads to is the
    /// host bridge's matter, if that [routes pins](super::HostBridge::with_lines): the device asks for an interrupt that is
    /// [`Unrouted`](crate::IrqResource::Unrouted) then.
    pub fn connect(&self, resources: &Resources<'_, 'd>, index: usize) {
        let irq = resources.irq(index);
        self.state.lock().irq = Some((irq, index));
        self.capabilities.connect_own(irq);
    }

    /// The device has an interrupt for the guest, or has none any more. Bit 3 of the status register says so (PCI Local Bus 3.0,
    /// 6.2.3). The pin is asserted as long as the device has one and [may use the pin](Self::may_use_pin), and follows when the guest
    /// changes that. A [message](Self::with_message) is sent when the device gets an interrupt, and when the guest enables messages
    /// while it has one.
    ///
    /// It may be called from any thread. A level or a message that the interrupt controller refuses is told again by the next call,
    /// and by the guest's next write to the function. No lock of the function's is held while the controller is called.
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function, HostBridge, PinLines, Slot};
    /// use vm_device::{
    ///     Device, DeviceManager, Gsi, IoRange, IrqResource, Rejected, Resources, Storage, SystemAllocator,
    /// };
    ///
    /// struct Card<'d>(Function<'d>);
    ///
    /// impl<'d> Device<'d> for Card<'d> {
    ///     fn name(&self) -> &str {
    ///         "card"
    ///     }
    ///     fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
    ///         self.0.connect(resources, 0);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let (storage, card) = (Storage::<8, 16, 2>::new(), Card(Function::new(Config::new(0x1234, 1).interrupt_pin(1))));
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(0, 23));
    /// let host = HostBridge::new("pci", &manager).with_lines(PinLines::new(Gsi(16), 8));
    /// let id = manager.register_device(&card, None, &[], &[IrqResource::Unrouted]).unwrap();
    /// host.bus().plug(&card.0, Slot::new(3, 0), id).unwrap();
    /// host.route();
    /// assert_eq!(manager.irq(id, 0).unwrap().gsi, Some(Gsi(19)));
    /// card.0.set_interrupt(true);
    /// assert_eq!(card.0.register(4) >> 19 & 1, 1);
    /// ```
    pub fn set_interrupt(&self, asserted: bool) {
        self.set_register(4 * dword::COMMAND, INTERRUPT, if asserted { INTERRUPT } else { 0 });
    }

    /// The device changes the bits of `mask` in the 4 bytes around `offset`: in a register of its own, or in the status register:
    /// errors, and the state of its interrupt (PCI Local Bus 3.0, 6.2.3), which [`set_interrupt`](Self::set_interrupt) sets too.
    /// Other bits stay as they are.
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function};
    ///
    /// let function = Function::new(Config::new(0x1234, 0x5678));
    /// // The interrupt is asserted; the vendor stays.
    /// function.set_register(4, 1 << 19, u32::MAX);
    /// function.set_register(0, u32::MAX, 0);
    /// assert_eq!((function.register(4) >> 19 & 1, function.register(0)), (1, 0x5678_1234));
    /// ```
    pub fn set_register(&self, offset: usize, mask: u32, value: u32) {
        let register = offset / 4;
        let mask = mask & self.config.changeable(register);
        {
            let mut state = self.state.lock();
            let old = self.value(&state, register);
            let new = old & !mask | value & mask;
            self.store(&mut state, register, new);
            if register == dword::COMMAND && (old ^ new) & INTERRUPT != 0 {
                self.capabilities.mark_own(new & INTERRUPT != 0);
            }
        }
        if register == dword::COMMAND {
            self.settle_interrupt();
        }
    }

    /// Gives every register its value after reset, so that none of the ranges is decoded: the VMM resets the machine.
    ///
    /// It may be called whenever [`relocate`](DeviceManager::relocate) may.
    ///
    /// ```
    /// use vm_device::devices::pci::{Config, Function, Register};
    /// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
    ///
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let registers = [Register::new(0x40, 1, 0)];
    /// let function = Function::new(Config::new(0x1234, 0x5678).registers(&registers));
    /// function.set_register(0x40, u32::MAX, 2);
    /// function.reset(&manager);
    /// assert_eq!(function.register(0x40), 1);
    /// ```
    pub fn reset(&self, manager: &DeviceManager<'d>) {
        self.change(manager, |state| {
            state.changed = [0; DWORDS];
            self.capabilities.reset();
        });
    }

    /// Why the function cannot be plugged in, as far as that depends on its configuration space.
    pub(super) fn bad_bar(&self) -> Option<usize> {
        self.config.bad_bar()
    }

    /// As [`bad_bar`](Self::bad_bar), of the capabilities.
    pub(super) fn bad_capability(&self) -> Option<u8> {
        self.capabilities.bad(self.config.bars(), |register| self.config.is_own(register))
    }

    pub(super) fn is_bridge(&self) -> bool {
        self.config.is_bridge()
    }

    /// Puts the function into a slot, in front of those that are on the bus, with its registers as after reset.
    pub(super) fn plug_in(&self, state: &mut State<'d>, slot: Slot, id: InstanceId, next: Option<&'d Function<'d>>) {
        // The device may have an interrupt already.
        let interrupt = self.value(state, dword::COMMAND) & INTERRUPT;
        *state = State { changed: [0; DWORDS], unsettled: 0, plugged: Some((slot, id)), irq: state.irq, next };
        self.capabilities.reset();
        let command = self.reset_value(dword::COMMAND) | interrupt;
        self.store(state, dword::COMMAND, command);
        self.capabilities.follow(|register| self.value(state, register));
    }

    /// Takes the function out of its slot, and returns the next on its bus. The caller holds the lock of the bus, and
    /// [settles](Self::settle_interrupt) the interrupt without it.
    pub(super) fn unplugged(&self) -> Option<&'d Function<'d>> {
        let mut state = self.state.lock();
        state.plugged = None;
        let command = self.value(&state, dword::COMMAND) & !INTERRUPT;
        self.store(&mut state, dword::COMMAND, command);
        self.capabilities.hold();
        state.next.take()
    }

    /// The pin that leads to a line: of which device, and the number of the device's interrupt that it is.
    pub(super) fn pin(&self) -> Option<(InstanceId, usize, Pin)> {
        let state = self.state.lock();
        let ((_, id), (_, index)) = (state.plugged?, state.irq?);
        Some((id, index, self.config.pin()?))
    }

    /// The byte at `offset`.
    pub(super) fn byte(&self, offset: usize) -> u8 {
        let mut byte = [0xff];
        self.read(offset, 0, &mut byte);
        let [byte] = byte;
        byte
    }

    /// Reads the bytes from `offset` on. `flags` are bits of the dword of the header type that the function does not know
    /// itself. What is beyond the last register stays as it is.
    pub(super) fn read(&self, offset: usize, flags: u32, data: &mut [u8]) {
        let state = self.state.lock();
        for (at, byte) in (offset..SIZE).zip(data) {
            let flags = if at / 4 == dword::HEADER { flags } else { 0 };
            *byte = ((self.value(&state, at / 4) | flags) >> (8 * (at % 4))) as u8;
        }
    }

    /// Writes the bytes from `offset` on, and has the map follow. What is beyond the last register is ignored.
    pub(super) fn write(&self, manager: &DeviceManager<'d>, offset: usize, data: &[u8]) {
        self.change(manager, |state| {
            for (at, byte) in (offset..SIZE).zip(data) {
                let (register, shift) = (at / 4, 8 * (at % 4));
                let (lane, byte) = (0xff << shift, u32::from(*byte) << shift);
                let writable = self.writable(register) & lane;
                let cleared = self.config.clearable(register) & byte;
                let new = (self.value(state, register) & !writable | byte & writable) & !cleared;
                self.store(state, register, new);
            }
        });
    }

    pub(super) fn value(&self, state: &State<'d>, register: usize) -> u32 {
        let stored = |register| self.reset_value(register) ^ state.changed.get(register).copied().unwrap_or_default();
        self.capabilities.pending(register, stored).unwrap_or_else(|| stored(register))
    }

    /// The value of a dword after reset.
    fn reset_value(&self, register: usize) -> u32 {
        self.capabilities.reset_value(register).unwrap_or_else(|| self.config.reset_value(register))
    }

    /// The bits of a dword that a guest can write.
    fn writable(&self, register: usize) -> u32 {
        self.capabilities.writable(register).unwrap_or_else(|| self.config.writable(register))
    }

    fn store(&self, state: &mut State<'d>, register: usize, value: u32) {
        if let Some(changed) = state.changed.get_mut(register) {
            *changed = self.reset_value(register) ^ value;
        }
    }

    fn places(&self, state: &State<'d>) -> Places {
        self.config.places(|register| self.value(state, register))
    }

    /// Changes registers under the lock, and then, without it, has those ranges follow whose places have changed, and sends the
    /// messages that may be sent now.
    fn change(&self, manager: &DeviceManager<'d>, act: impl FnOnce(&mut State<'d>)) {
        let (ranges, wanted) = {
            let mut state = self.state.lock();
            let (before, had_messages) = (self.places(&state), self.capabilities.is_enabled());
            act(&mut state);
            self.capabilities.follow(|register| self.value(&state, register));
            if state.plugged.is_none() {
                self.capabilities.hold();
            }
            // The guest may have seen the interrupt at the pin, and waits for the message now.
            let interrupt = self.value(&state, dword::COMMAND) & INTERRUPT != 0;
            if interrupt && !had_messages && self.capabilities.is_enabled() {
                self.capabilities.mark_own(true);
            }
            let unsettled = core::mem::take(&mut state.unsettled);
            let ranges = unsettled | differing(&before, &self.places(&state));
            (ranges, self.wanted(&state, ranges))
        };
        if ranges != 0 {
            self.settle(manager, ranges, wanted);
        }
        self.settle_interrupt();
    }

    /// Drives the pin as the registers say, and sends the messages that may be sent now.
    pub(super) fn settle_interrupt(&self) {
        let wanted = self.level(&self.state.lock());
        self.settle_pin(wanted);
        self.capabilities.settle();
    }

    /// Drives the pin as the registers said when the caller looked, and then as they say, until they say the same twice.
    fn settle_pin(&self, mut wanted: Option<(IrqLine<'d>, bool)>) {
        for _ in 0..MAX_REPEATS {
            let Some((irq, asserted)) = wanted else { return };
            // The next change, or the manager, tells a level that was refused.
            let _ = if asserted { irq.assert() } else { irq.deassert() };
            wanted = self.level(&self.state.lock()).filter(|(_, now)| *now != asserted);
        }
    }

    /// The interrupt that is the pin, if there is one, and whether it is to be asserted.
    fn level(&self, state: &State<'d>) -> Option<(IrqLine<'d>, bool)> {
        let (irq, _) = state.irq.filter(|_| self.config.pin().is_some())?;
        let command = self.value(state, dword::COMMAND);
        let is_disabled = command & u32::from(Command::INTERRUPT_DISABLE.bits()) != 0 || self.capabilities.is_enabled();
        Some((irq, command & INTERRUPT != 0 && !is_disabled && state.plugged.is_some()))
    }

    /// Relocates ranges, a bit for each, in one transaction: to where the registers said when the caller looked, and then to
    /// where they say, until they say the same twice.
    fn settle(&self, manager: &DeviceManager<'d>, ranges: u8, mut wanted: Option<Wanted>) {
        for _ in 0..MAX_REPEATS {
            // A function that is not plugged in has no ranges to move.
            let Some((id, places)) = &wanted else { return };
            let mut relocations = collect(places.iter().map(|(index, place)| self.relocation(*id, *index, *place)));
            // An error: the device is gone or going, or was registered with other ranges; or a listener has refused a place, or
            // has not returned yet and there is no room for the change to wait.
            let is_done = manager.relocate(&mut relocations).is_ok();
            let now = self.wanted(&self.state.lock(), ranges);
            if now == wanted {
                if is_done {
                    return;
                }
                break;
            }
            wanted = now;
        }
        self.state.lock().unsettled |= ranges;
    }

    /// The device, and where the registers want its ranges, of those that have a bit.
    fn wanted(&self, state: &State<'d>, ranges: u8) -> Option<Wanted> {
        let (_, id) = state.plugged?;
        let places = self.places(state);
        let places = places.iter().copied().enumerate().filter(|(index, _)| ranges >> index & 1 != 0);
        Some((id, collect(places)))
    }

    fn relocation(&self, id: InstanceId, index: usize, place: Option<IoRange>) -> Relocation {
        let relocation = Relocation::new(id, index);
        let Some(place) = place else { return relocation.unplaced() };
        let relocation = relocation.to(place.first()).waiting();
        // A window has the size that its registers say. All of memory has a size that cannot be said: it lacks its last byte.
        if self.is_bridge() { relocation.resized(place.size().unwrap_or(GuestUsize(u64::MAX))) } else { relocation }
    }
}

/// A device, and where which of its ranges are to lie.
type Wanted = (InstanceId, Ranges<(usize, Option<IoRange>)>);

/// A bit for each range that has another place.
fn differing(before: &Places, after: &Places) -> u8 {
    let pairs = before.iter().zip(after).enumerate();
    pairs.filter(|(_, (before, after))| before != after).fold(0, |bits, (index, _)| bits | 1 << index)
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicBool, Ordering};

    use super::super::bar::Bar;
    use super::*;
    use crate::access::Access;
    use crate::address::GuestAddress;
    use crate::allocator::SystemAllocator;
    use crate::device::{Device, Rejected};
    use crate::interrupt::{Gsi, InterruptController, InterruptError};
    use crate::manager::Storage;
    use crate::resource::{IrqResource, RangeState};

    struct Card;

    impl Device<'_> for Card {
        fn name(&self) -> &str {
            "card"
        }
        fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
        fn write(&self, _: &Access<'_>, _: &[u8]) {}
    }

    /// Interrupts by its function.
    struct Pinned<'d>(Function<'d>);

    impl<'d> Device<'d> for Pinned<'d> {
        fn name(&self) -> &str {
            "pinned"
        }
        fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
            self.0.connect(resources, 0);
            Ok(())
        }
    }

    /// The level of a line.
    struct Level(AtomicBool);

    impl InterruptController for Level {
        fn set_level(&self, _: Gsi, asserted: bool) -> Result<(), InterruptError> {
            self.0.store(asserted, Ordering::Relaxed);
            Ok(())
        }
        fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
            Err(InterruptError::Refused)
        }
        fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
            Ok(())
        }
    }

    const CONFIG: Config<'static> = Config::new(0x1234, 1).bar(0, Bar::memory(0x1000)).bar(1, Bar::memory(0x1000));
    const BAR0: usize = 0x10;
    const BAR1: usize = 0x14;
    const COMMAND: usize = 0x04;

    /// A function in a slot whose two ranges are decoded at 0xc0000000 and 0xd0000000.
    macro_rules! card {
        ($manager:ident, $function:ident, $range:ident) => {
            let storage = Storage::<2, 2, 1>::new();
            let $manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
            let (bus, $function) = (Bus::new(), Function::new(CONFIG));
            let id = $manager.register_device(&Card, None, &$function.requests(), &[]).unwrap();
            bus.plug(&$function, Slot::new(1, 0), id).unwrap();
            for (register, value) in [(BAR0, 0xc000_0000), (BAR1, 0xd000_0000), (COMMAND, 2)] {
                $function.write(&$manager, register, &u32::to_le_bytes(value));
            }
            let $range = |index| $manager.range(id, index).map(|range| (range.state, range.range.first().0)).unwrap();
        };
    }

    #[test]
    fn a_relocation_that_comes_after_that_of_a_later_write_is_repeated() {
        card!(manager, function, range);
        let looked = function.wanted(&function.state.lock(), 0b11);
        function.write(&manager, BAR0, &u32::to_le_bytes(0xc800_0000));
        function.write(&manager, BAR1, &u32::to_le_bytes(0xd800_0000));
        function.settle(&manager, 0b11, looked);
        assert_eq!([0, 1].map(range), [(RangeState::Decoded, 0xc800_0000), (RangeState::Decoded, 0xd800_0000)]);

        let looked = function.wanted(&function.state.lock(), 0b01);
        function.write(&manager, COMMAND, &[0, 0]);
        function.settle(&manager, 0b01, looked);
        assert_eq!([0, 1].map(|index| range(index).0), [RangeState::Unplaced; 2]);
    }

    #[test]
    fn a_pin_that_is_driven_after_a_later_change_is_driven_again() {
        let (storage, bus) = (Storage::<2, 2, 1>::new(), Bus::new());
        let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_irqs(5, 5);
        let level = Level(AtomicBool::new(false));
        let manager = DeviceManager::new(&storage, allocator).with_interrupt_controller(&level);
        let card = Pinned(Function::new(CONFIG.interrupt_pin(1)));
        let id = manager.register_device(&card, None, &card.0.requests(), &[IrqResource::Fixed(Gsi(5))]).unwrap();
        bus.plug(&card.0, Slot::new(1, 0), id).unwrap();
        for asserted in [true, false, true] {
            let looked = card.0.level(&card.0.state.lock());
            card.0.set_interrupt(asserted);
            card.0.settle_pin(looked);
            assert_eq!(level.0.load(Ordering::Relaxed), asserted);
        }
    }

    #[test]
    fn a_write_that_comes_after_the_function_was_pulled_out_sends_no_message() {
        let (storage, bus, level) = (Storage::<2, 2, 1>::new(), Bus::new(), Level(AtomicBool::new(false)));
        let allocator = SystemAllocator::new(IoRange::ALL_MEMORY);
        let manager = DeviceManager::new(&storage, allocator).with_interrupt_controller(&level);
        let card = Pinned(Function::new(CONFIG).with_message(0x50));
        let id = manager.register_device(&card, None, &card.0.requests(), &[]).unwrap();
        let is_pending = || {
            card.0.write(&manager, COMMAND, &4_u16.to_le_bytes());
            card.0.write(&manager, 0x52, &[1]);
            card.0.set_interrupt(false);
            card.0.set_interrupt(true);
            card.0.register(0x64) == 1
        };
        bus.plug(&card.0, Slot::new(1, 0), id).unwrap();
        assert!(!is_pending());
        assert!(bus.unplug(&card.0));
        assert!(is_pending());
    }

    #[test]
    fn what_a_write_could_not_settle_is_made_up_for_by_the_next() {
        card!(manager, function, range);
        // As if writers had gone on without end: one of them has come late.
        let mut late = [Relocation::new(function.state.lock().plugged.unwrap().1, 1).unplaced()];
        manager.relocate(&mut late).unwrap();
        function.state.lock().unsettled = 0b10;
        assert_eq!(range(1).0, RangeState::Unplaced);
        // A register that has nothing to do with ranges.
        function.write(&manager, 0x3c, &[1]);
        assert_eq!([0, 1].map(range), [(RangeState::Decoded, 0xc000_0000), (RangeState::Decoded, 0xd000_0000)]);
        assert_eq!(function.state.lock().unsettled, 0);
    }

    #[test]
    fn a_write_whose_relocation_fails_leaves_the_ranges_to_the_next() {
        card!(manager, function, _range);
        let (_, id) = function.state.lock().plugged.unwrap();
        manager.unregister_device(id).unwrap();
        function.write(&manager, BAR1, &u32::to_le_bytes(0xd800_0000));
        assert_eq!(function.state.lock().unsettled, 0b10);
    }
}

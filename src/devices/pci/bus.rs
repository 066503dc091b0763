//! A bus: a list of the functions that are plugged in, which are linked in themselves.
//!
//! The list's lock is held while the list is gone through, and each function's while it is looked at; nothing else is called
//! then. A function that was found may be unplugged before it is accessed: the access is then one to a function that is being
//! removed.

use core::fmt;

use spin::Mutex;

use super::function::{Function, State};
use super::pin::Pin;
use super::window;
use crate::instance::InstanceId;

/// Where a function is on its bus: the number of the device, of 0 to 31, and of the function in it, of 0 to 7.
///
/// ```
/// use vm_device::devices::pci::Slot;
///
/// assert_eq!(Slot::new(3, 1).to_string(), "03.1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Slot {
    device: u8,
    function: u8,
}

/// How many devices a bus has, and how many functions a device.
const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;

impl Slot {
    /// Function number `function` of device number `device`.
    pub const fn new(device: u8, function: u8) -> Self {
        Self { device, function }
    }

    /// The number of the device on its bus.
    pub const fn device(self) -> u8 {
        self.device
    }

    /// The number of the function in its device.
    pub const fn function(self) -> u8 {
        self.function
    }

    /// The slot by its 8 bits: 5 for the device, 3 for the function.
    pub(super) const fn from_bits(bits: u8) -> Self {
        Self::new(bits / FUNCTIONS, bits % FUNCTIONS)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{}", self.device, self.function)
    }
}

/// Why a function could not be plugged in. Nothing has changed then.
///
/// ```
/// use vm_device::devices::pci::{Bar, Bus, Config, Function, PlugError, Slot};
/// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
/// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
/// # use constant::Constant;
///
/// let (disk, storage) = (Constant("disk", 7), Storage::<8, 16, 2>::new());
/// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
/// let id = manager.register_device(&disk, None, &[], &[]).unwrap();
/// // No base address register has 24 bytes.
/// let function = Function::new(Config::new(0x1234, 1).bar(2, Bar::memory(24)));
/// let bus = Bus::new();
/// assert_eq!(bus.plug(&function, Slot::new(3, 0), id), Err(PlugError::BadBar { index: 2 }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PlugError {
    /// A bus has no such slot.
    NoSuchSlot {
        /// The slot asked for.
        slot: Slot,
    },
    /// Another function is there.
    SlotTaken {
        /// The slot asked for.
        slot: Slot,
        /// The device of that function.
        holder: InstanceId,
    },
    /// The function is plugged in already.
    PluggedIn {
        /// Where.
        slot: Slot,
    },
    /// There cannot be such a base address register: its size is no power of two, or not one of its kind; it has no upper half;
    /// it is beyond the last, or in the upper half of another.
    BadBar {
        /// Which; 6 for the expansion ROM.
        index: usize,
    },
    /// There cannot be such a capability: its offset is below 0x40 or no multiple of 4; it is in the place of another register, or
    /// behind the last; it is the second of its kind; it has no message, or too many; or a table of MSI-X is not in memory that the
    /// function decodes.
    BadCapability {
        /// Where it is in the configuration space.
        offset: u8,
    },
}

impl fmt::Display for PlugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlugError::NoSuchSlot { slot } => write!(f, "a bus has no slot {slot}: its slots are 00.0 to 1f.7"),
            PlugError::SlotTaken { slot, holder } => write!(f, "a function of {holder} is in slot {slot}"),
            PlugError::PluggedIn { slot } => write!(f, "the function is plugged in already, into slot {slot} of a bus"),
            PlugError::BadBar { index } => {
                write!(f, "there can be no base address register {index} of this size and kind")
            }
            PlugError::BadCapability { offset } => write!(f, "there can be no such capability at {offset:#x}"),
        }
    }
}

impl core::error::Error for PlugError {}

/// A PCI bus: that of a [`HostBridge`](super::HostBridge), or the one behind a [`Bridge`](super::Bridge).
///
/// It has room for any number of functions: each is linked in itself.
pub struct Bus<'d> {
    first: Mutex<Option<&'d Function<'d>>>,
}

impl<'d> Bus<'d> {
    /// An empty bus.
    #[expect(clippy::new_without_default, reason = "a bus is made by what it belongs to")]
    pub const fn new() -> Self {
        Self { first: Mutex::new(None) }
    }

    /// Plugs a function in, whose device is registered as `id` with the [`requests`](Function::requests) of the function first
    /// among its ranges. The guest finds the function from now on, with its registers as after reset. An interrupt that the device has
    /// told the function already counts.
    ///
    /// Of a device with several functions, the guest looks for the others once it has found function 0. The bit that says so
    /// (PCI Local Bus 3.0, 6.2.1) is the bus's matter.
    ///
    /// # Errors
    /// [`PlugError`] says what is wrong with the slot or the function.
    pub fn plug(&self, function: &'d Function<'d>, slot: Slot, id: InstanceId) -> Result<(), PlugError> {
        if slot.device >= DEVICES || slot.function >= FUNCTIONS {
            return Err(PlugError::NoSuchSlot { slot });
        }
        if let Some(index) = function.bad_bar() {
            return Err(PlugError::BadBar { index });
        }
        if let Some(offset) = function.bad_capability() {
            return Err(PlugError::BadCapability { offset });
        }
        self.link(function, slot, id)?;
        function.settle_interrupt();
        Ok(())
    }

    fn link(&self, function: &'d Function<'d>, slot: Slot, id: InstanceId) -> Result<(), PlugError> {
        let mut first = self.first.lock();
        let holder = find(*first, |_, state| state.plugged.filter(|(taken, _)| *taken == slot));
        if let Some((_, holder)) = holder {
            return Err(PlugError::SlotTaken { slot, holder });
        }
        let mut state = function.state.lock();
        if let Some((slot, _)) = state.plugged {
            return Err(PlugError::PluggedIn { slot });
        }
        function.plug_in(&mut state, slot, id, *first);
        *first = Some(function);
        Ok(())
    }

    /// Unplugs a function, and says whether it was on this bus. The guest finds nothing in its slot any more, and reads all ones
    /// there. The pin of the function is deasserted, and it sends no message. The ranges of its
    /// device stay as they are until the device is unregistered, which comes next.
    ///
    /// It may be called at any time, as a card is pulled out while its driver uses it, but not by the interrupt controller. The
    /// functions behind a bridge are unplugged before the bridge.
    ///
    /// ```
    /// use vm_device::devices::pci::{Bus, Config, Function, Slot};
    /// use vm_device::{DeviceManager, IoRange, Storage, SystemAllocator};
    /// # mod constant { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/constant.rs")); }
    /// # use constant::Constant;
    ///
    /// let (disk, storage) = (Constant("disk", 7), Storage::<8, 16, 2>::new());
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let id = manager.register_device(&disk, None, &[], &[]).unwrap();
    /// let function = Function::new(Config::new(0x1234, 1));
    /// let bus = Bus::new();
    /// bus.plug(&function, Slot::new(3, 0), id).unwrap();
    /// assert!(bus.unplug(&function));
    /// manager.unregister_device(id).unwrap();
    /// assert!(!bus.unplug(&function));
    /// ```
    pub fn unplug(&self, function: &Function<'d>) -> bool {
        let was_here = self.unlink(function);
        if was_here {
            function.settle_interrupt();
        }
        was_here
    }

    fn unlink(&self, function: &Function<'d>) -> bool {
        let mut first = self.first.lock();
        let is_it = |next: Option<&'d Function<'d>>| next.is_some_and(|next| core::ptr::eq(next, function));
        if is_it(*first) {
            *first = function.unplugged();
            return true;
        }
        let previous = find(*first, |previous, state| is_it(state.next).then_some(previous));
        if let Some(previous) = previous {
            previous.state.lock().next = function.unplugged();
        }
        previous.is_some()
    }

    /// The function in a slot of bus number `number`, which this bus leads to as bus number 0.
    pub(super) fn function(&self, number: u8, slot: Slot) -> Option<Found<'d>> {
        // Bus by bus: a bridge forwards what is for the buses behind it (PCI-to-PCI Bridge Architecture 1.2, 3.1).
        let (mut bus, mut own, mut wires) = (self, 0, Wires::ON_BUS_0);
        while number != own {
            (bus, own, wires) = bus.look(|bridge, state| {
                let (secondary, subordinate) = window::buses(bridge.value(state, window::dword::BUSES));
                let leads_there = bridge.is_bridge() && (secondary..=subordinate).contains(&number);
                let (at, _) = state.plugged.filter(|_| leads_there)?;
                Some((&bridge.secondary, secondary, wires.behind(at)))
            })?;
        }
        bus.in_slot(slot, wires)
    }

    /// The function in a slot of this bus.
    fn in_slot(&self, slot: Slot, wires: Wires) -> Option<Found<'d>> {
        let (mut found, mut is_one_of_several) = (None, false);
        self.look(|function, state| {
            let (at, _) = state.plugged?;
            if at == slot {
                found = Some(function);
            } else if at.device == slot.device {
                is_one_of_several = true;
            }
            None::<()>
        });
        Some(Found { function: found?, is_one_of_several, slot, wires })
    }

    /// Calls `act` with every function on the bus, and on the buses behind it, as many deep as windows can be.
    pub(super) fn each(&self, depth: usize, act: &mut dyn FnMut(Found<'d>)) {
        self.each_by(Wires::ON_BUS_0, depth, act);
    }

    fn each_by(&self, wires: Wires, depth: usize, act: &mut dyn FnMut(Found<'d>)) {
        for bits in 0..=u8::MAX {
            let slot = Slot::from_bits(bits);
            if let Some(found) = self.in_slot(slot, wires) {
                if let Some(depth) = depth.checked_sub(1).filter(|_| found.function.is_bridge()) {
                    found.function.secondary.each_by(wires.behind(slot), depth, act);
                }
                act(found);
            }
        }
    }

    /// The first answer that `look` has for a function, under the locks of both.
    fn look<R>(&self, look: impl FnMut(&'d Function<'d>, &State<'d>) -> Option<R>) -> Option<R> {
        find(*self.first.lock(), look)
    }
}

/// A function that was found.
#[derive(Clone, Copy)]
pub(super) struct Found<'d> {
    pub(super) function: &'d Function<'d>,
    /// Whether it is one of several of its device.
    pub(super) is_one_of_several: bool,
    slot: Slot,
    wires: Wires,
}

impl Found<'_> {
    /// Where on bus 0 a pin of the function comes out: in which slot, and at which pin of that.
    pub(super) fn on_bus_0(&self, pin: Pin) -> (Slot, Pin) {
        match self.wires.bridge {
            Some(bridge) => (bridge, pin.through_bridge(self.slot).turned(self.wires.turns)),
            None => (self.slot, pin),
        }
    }
}

/// How the pins of a bus's slots are wired to bus 0.
#[derive(Clone, Copy)]
struct Wires {
    /// The slot of the bridge on bus 0; `None`: this is bus 0.
    bridge: Option<Slot>,
    /// By how much the bridges between that one and this bus turn the pins.
    turns: u8,
}

impl Wires {
    const ON_BUS_0: Self = Self { bridge: None, turns: 0 };

    /// The same for the bus behind the bridge in `slot` of this bus.
    fn behind(self, slot: Slot) -> Self {
        match self.bridge {
            Some(bridge) => Self { bridge: Some(bridge), turns: self.turns.wrapping_add(slot.device) },
            None => Self { bridge: Some(slot), turns: 0 },
        }
    }
}

/// As [`Bus::look`], for the list from `next` on. The caller holds the lock of the bus.
fn find<'d, R>(
    mut next: Option<&'d Function<'d>>,
    mut look: impl FnMut(&'d Function<'d>, &State<'d>) -> Option<R>,
) -> Option<R> {
    while let Some(function) = next {
        let state = function.state.lock();
        if let Some(answer) = look(function, &state) {
            return Some(answer);
        }
        next = state.next;
    }
    None
}

//! What the embedder says of a PCI root bridge.

use super::TableError;
use super::registered::Registered;
use super::survey::{each_role, is_described, ranges};
use crate::address::{IoRange, IoType};
use crate::description::Role;
use crate::interrupt::Gsi;

/// What the embedder says of a PCI root bridge: the addresses that a guest may give to functions behind it, and where their pins lead.
///
/// The N-th of these is of the N-th host bridge that is registered. Its configuration space is where that lies.
///
/// ```
/// use vm_device::tables::{PciInterrupts, PciRoot};
/// use vm_device::{Gsi, IoRange};
///
/// let root = PciRoot {
///     ports: &PciRoot::PC_PORTS,
///     memory: &[IoRange::of::<0xc000_0000, 0xdfff_ffff>(), IoRange::of::<0x10_0000_0000, 0x1f_ffff_ffff>()],
///     interrupts: PciInterrupts::Swizzled([Gsi(16), Gsi(17), Gsi(18), Gsi(19)]),
///     ..PciRoot::NOTHING
/// };
/// // INTA# of device 3.
/// assert_eq!(root.interrupts.gsi(3, 1), Some(Gsi(19)));
/// ```
#[derive(Clone, Copy)]
pub struct PciRoot<'a> {
    /// The windows of ports. Other devices may lie in them, because a guest knows that ISA does, but no host bridge.
    pub ports: &'a [IoRange],
    /// Where in memory the first port is, for a device tree of a machine whose processor has no ports; 0 for one that has.
    pub ports_at: u64,
    /// The windows of memory, below 4 GiB or above. Nothing that the VMM has reserved may lie in them, and no device that says what it
    /// is.
    pub memory: &'a [IoRange],
    /// Where the pins lead.
    pub interrupts: PciInterrupts<'a>,
}

impl PciRoot<'_> {
    /// No windows, and pins that lead nowhere.
    pub const NOTHING: Self = Self { ports: &[], ports_at: 0, memory: &[], interrupts: PciInterrupts::None };

    /// All ports but those of configuration mechanism 1.
    pub const PC_PORTS: [IoRange; 2] = [IoRange::of::<0, 0xcf7>(), IoRange::of::<0xd00, 0xffff>()];

    /// Whether the windows are free for base address registers.
    pub(super) fn check(&self, registered: &dyn Registered) -> Result<(), TableError> {
        let mut result = Ok(());
        let mut look = |windows: &[IoRange], range: IoRange, holder| {
            if let (Ok(()), Some(window)) = (result, windows.iter().find(|window| window.overlaps(range))) {
                result = Err(TableError::WindowTaken { window: *window, range, holder });
            }
        };
        registered.each_mapped(IoType::Mmio, &mut |range, holder| {
            if holder.is_none_or(|id| is_described(registered, id)) {
                look(self.memory, range, holder);
            }
        });
        each_role(registered, &mut |entry, role| {
            let own = ranges(registered, entry.id, u16::MAX).filter(|(io_type, _)| *io_type == IoType::Pio);
            for (_, range) in own.filter(|_| role == Role::PciHost) {
                look(self.ports, range, Some(entry.id));
            }
        });
        result
    }
}

/// Where the interrupt pins of the devices on bus 0 lead. Behind bridges, the guest swizzles by itself (PCI-to-PCI Bridge Architecture
/// 1.2, 9.1).
#[derive(Clone, Copy)]
pub enum PciInterrupts<'a> {
    /// Nowhere: functions send messages.
    None,
    /// To four lines in turn: pin P (1 for INTA#) of device D leads to number `(D + P - 1) % 4`.
    Swizzled([Gsi; 4]),
    /// Where the function says, by the device (0 to 31) and the pin (1 to 4).
    Routed(&'a dyn Fn(u8, u8) -> Option<Gsi>),
}

impl PciInterrupts<'_> {
    /// Where a pin leads.
    pub fn gsi(&self, device: u8, pin: u8) -> Option<Gsi> {
        match self {
            Self::None => None,
            Self::Swizzled(lines) => {
                let number = usize::from(device).wrapping_add(usize::from(pin)).wrapping_sub(1);
                lines.get(number % lines.len()).copied()
            }
            Self::Routed(route) => route(device, pin),
        }
    }

    /// Every pin of the first `devices` devices, as device, pin and line.
    pub(super) fn each(&self, devices: u8, act: &mut dyn FnMut(u8, u8, Gsi)) {
        for device in 0..devices {
            for pin in 1..=4 {
                if let Some(gsi) = self.gsi(device, pin) {
                    act(device, pin, gsi);
                }
            }
        }
    }
}

/// How many devices a bus has.
pub(super) const DEVICES: u8 = 32;

//! Interrupt pins, and where they lead: through bridges, and from the slots of bus 0 to the lines of the machine.

use super::bus::Slot;
use crate::interrupt::Gsi;

/// An interrupt pin of a function (PCI Local Bus 3.0, 2.2.6): INTA# to INTD#.
///
/// ```
/// use vm_device::devices::pci::{Pin, Slot};
///
/// assert_eq!(Pin::from_register(1), Some(Pin::A));
/// // INTB# of device 2 behind a bridge is INTD# of the bridge.
/// assert_eq!(Pin::B.through_bridge(Slot::new(2, 0)), Pin::D);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pin {
    /// INTA#.
    A,
    /// INTB#.
    B,
    /// INTC#.
    C,
    /// INTD#.
    D,
}

impl Pin {
    /// All pins, in their order.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    /// The pin that an interrupt pin register names, by 1 to 4 (PCI Local Bus 3.0, 6.2.4). `None`: the function has none.
    pub const fn from_register(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::A),
            2 => Some(Self::B),
            3 => Some(Self::C),
            4 => Some(Self::D),
            _ => None,
        }
    }

    /// The pin of a bridge that this pin of a function in `slot` behind it leads to: the number of the device turns it (PCI-to-PCI
    /// Bridge Architecture 1.2, 9.1).
    #[must_use]
    pub const fn through_bridge(self, slot: Slot) -> Self {
        self.turned(slot.device())
    }

    /// Which of the inputs PIRQA# to PIRQD# of a PIIX3, 0 to 3, this pin of a function in `slot` of bus 0 leads to. INTA# of device
    /// 1 leads to the first, and each device is turned by one: the wiring that SeaBIOS fills the interrupt line registers by.
    ///
    /// ```
    /// use vm_device::devices::pci::{Pin, Slot};
    ///
    /// assert_eq!([1, 2, 3, 4, 5].map(|device| Pin::A.pirq(Slot::new(device, 0))), [0, 1, 2, 3, 0]);
    /// assert_eq!(Pin::D.pirq(Slot::new(3, 0)), 1);
    /// ```
    pub const fn pirq(self, slot: Slot) -> u8 {
        // Three is one less, in turns of four.
        self.turned(slot.device() % 4 + 3).number()
    }

    /// The pin so many further on, around.
    pub(super) const fn turned(self, turns: u8) -> Self {
        match (self.number() + turns % 4) % 4 {
            0 => Self::A,
            1 => Self::B,
            2 => Self::C,
            _ => Self::D,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
            Self::C => 2,
            Self::D => 3,
        }
    }
}

/// A board whose pins lead to fixed lines, one after the other: for machines whose lines are the inputs of an IOAPIC, where nothing
/// is routed. Pin `p` of device `d` on bus 0, both counted from 0, leads to line `(d + p) % count`.
///
/// The guest learns it from the tables of the firmware (ACPI 6.5, 6.2.13: `_PRT`), which ask it for each slot and pin.
///
/// ```
/// use vm_device::Gsi;
/// use vm_device::devices::pci::{Pin, PinLines, Slot};
///
/// const LINES: PinLines = PinLines::new(Gsi(16), 8);
/// assert_eq!(LINES.line(Slot::new(3, 0), Pin::A), Some(Gsi(19)));
/// assert_eq!(LINES.line(Slot::new(7, 0), Pin::D), Some(Gsi(18)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PinLines {
    first: Gsi,
    count: u8,
}

impl PinLines {
    /// `count` lines from `first` on. With 0 lines no pin leads to one.
    pub const fn new(first: Gsi, count: u8) -> Self {
        Self { first, count }
    }

    /// The line that a pin of a function in `slot` of bus 0 leads to.
    pub const fn line(&self, slot: Slot, pin: Pin) -> Option<Gsi> {
        let number = slot.device() as u32 + pin.number() as u32;
        match number.checked_rem(self.count as u32) {
            Some(number) => match self.first.0.checked_add(number) {
                Some(gsi) => Some(Gsi(gsi)),
                None => None,
            },
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn device(number: u8) -> Slot {
        Slot::new(number, 0)
    }

    #[test]
    fn a_register_names_four_pins_and_no_others() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 255].map(Pin::from_register),
            [None, Some(Pin::A), Some(Pin::B), Some(Pin::C), Some(Pin::D), None, None]
        );
    }

    #[test]
    fn a_pin_is_turned_by_the_number_of_its_device() {
        for (number, pin) in Pin::ALL.into_iter().enumerate() {
            for slot in 0..=31 {
                let expected = Pin::ALL[(number + usize::from(slot)) % 4];
                assert_eq!(pin.through_bridge(device(slot)), expected);
                // The board turns the other way round where it begins with device 1.
                let pirq = (number + usize::from(slot) + 3) % 4;
                assert_eq!(usize::from(pin.pirq(device(slot))), pirq);
            }
            assert_eq!(pin.turned(255), Pin::ALL[(number + 255) % 4]);
            assert!(pin.through_bridge(device(255)) == Pin::ALL[(number + 3) % 4] && pin.pirq(device(255)) < 4);
        }
    }

    #[test]
    fn lines_are_those_that_there_are() {
        assert_eq!(PinLines::new(Gsi(16), 0).line(device(1), Pin::A), None);
        assert_eq!(PinLines::new(Gsi(u32::MAX), 2).line(device(1), Pin::A), None);
        assert_eq!(PinLines::new(Gsi(u32::MAX), 2).line(device(2), Pin::A), Some(Gsi(u32::MAX)));
        assert_eq!(PinLines::new(Gsi(9), 1).line(device(31), Pin::D), Some(Gsi(9)));
        assert_eq!(PinLines::new(Gsi(16), 4).line(device(31), Pin::C), Some(Gsi(17)));
    }
}

//! The registers of a PCI-to-PCI bridge: its bus numbers and its windows (PCI-to-PCI Bridge Architecture 1.2, 3.2.5).

use super::config::{Command, Places, STATUS_MEDIUM, collect};
use crate::address::{GuestAddress, GuestUsize, IoRange, IoType};
use crate::resource::IoResource;

/// Registers by the number of their dword.
pub(super) mod dword {
    /// Primary, secondary and subordinate bus number, secondary latency timer.
    pub(in super::super) const BUSES: usize = 0x18 / 4;
    /// Base and limit of ports, a byte each, and the secondary status, which never has an error.
    pub(in super::super) const PORTS: usize = 0x1c / 4;
    /// Base and limit of memory.
    pub(in super::super) const MEMORY: usize = 0x20 / 4;
    /// Base and limit of prefetchable memory.
    pub(in super::super) const PREFETCHABLE: usize = 0x24 / 4;
    /// The upper halves of its base and of its limit.
    pub(in super::super) const BASE_ABOVE: usize = 0x28 / 4;
    pub(in super::super) const LIMIT_ABOVE: usize = 0x2c / 4;
}

/// The bits of the bridge control register that can be written, in its dword: parity error response, system errors, the mode
/// of a master abort. They are kept and do nothing. The bits that would forward the addresses of ISA and of a video card
/// otherwise than the windows do, and the reset of the secondary bus, are not there.
pub(super) const CONTROL: u32 = 0b10_0011 << 16;

/// The smallest windows: 4 KiB of ports, 1 MiB of memory.
const PORTS: u64 = 0x1000;
const MEMORY: u64 = 0x10_0000;

/// The windows as they are registered: for ports, for memory, for prefetchable memory.
pub(super) fn requests() -> [IoResource; 3] {
    [(IoType::Pio, PORTS), (IoType::Mmio, MEMORY), (IoType::Mmio, MEMORY)]
        .map(|(io_type, size)| IoResource::any(io_type, GuestUsize(size)).aligned(size).window().unplaced())
}

/// The value of a dword after reset. The windows are closed: each base is above its limit. Ports have 16 bits, prefetchable
/// memory 64.
pub(super) const fn reset_value(register: usize) -> u32 {
    match register {
        dword::PORTS => STATUS_MEDIUM << 16 | 0x00f0,
        dword::MEMORY => 0x0000_fff0,
        dword::PREFETCHABLE => 0x0001_fff1,
        dword::BASE_ABOVE => u32::MAX,
        _ => 0,
    }
}

/// The bits of a dword that a guest can write.
pub(super) const fn writable(register: usize) -> u32 {
    match register {
        dword::BUSES | dword::BASE_ABOVE | dword::LIMIT_ABOVE => u32::MAX,
        dword::PORTS => 0xf0f0,
        dword::MEMORY | dword::PREFETCHABLE => 0xfff0_fff0,
        _ => 0,
    }
}

/// The secondary and the subordinate bus number: the first and the last bus behind the bridge.
pub(super) const fn buses(value: u32) -> (u8, u8) {
    let [_, secondary, subordinate, _] = value.to_le_bytes();
    (secondary, subordinate)
}

/// Where the windows lie, as the values of the bridge's dwords say. A window whose base is above its limit is closed.
pub(super) fn places(command: Command, value: impl Fn(usize) -> u32) -> Places {
    let [base, limit, ..] = value(dword::PORTS).to_le_bytes().map(|byte| u64::from(byte & 0xf0) << 8);
    let ports = window(base, limit, PORTS).filter(|_| command.contains(Command::PORTS));

    let (base, limit) = halves(value(dword::MEMORY));
    let memory = window(base, limit, MEMORY);

    let (base, limit) = halves(value(dword::PREFETCHABLE));
    let above = |register| u64::from(value(register)) << 32;
    let prefetchable = window(above(dword::BASE_ABOVE) | base, above(dword::LIMIT_ABOVE) | limit, MEMORY);

    let memory = [memory, prefetchable].map(|place| place.filter(|_| command.contains(Command::MEMORY)));
    collect([ports].into_iter().chain(memory))
}

/// Base and limit of memory, whose lowest 20 bits are not in the register.
fn halves(value: u32) -> (u64, u64) {
    (u64::from(value & 0xfff0) << 16, u64::from(value & 0xfff0_0000))
}

/// The window from the unit that starts at `base` to the one that starts at `limit`.
fn window(base: u64, limit: u64, unit: u64) -> Option<IoRange> {
    IoRange::new(GuestAddress(base), GuestAddress(limit | (unit - 1))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The windows of a bridge with these registers, all of its decoding on.
    fn windows(ports: u32, memory: u32, prefetchable: u32, above: (u32, u32)) -> [Option<(u64, u64)>; 3] {
        let value = |register| match register {
            dword::PORTS => ports,
            dword::MEMORY => memory,
            dword::PREFETCHABLE => prefetchable,
            dword::BASE_ABOVE => above.0,
            dword::LIMIT_ABOVE => above.1,
            _ => 0,
        };
        let places = places(Command::all(), value);
        let ends = |place: Option<IoRange>| place.map(|place| (place.first().0, place.last().0));
        [0, 1, 2].map(|index| ends(places[index]))
    }

    #[test]
    fn a_window_reaches_to_the_end_of_its_last_unit() {
        let open = windows(0x2010, 0xfeb0_fea0, 0x0011_0001, (8, 8));
        let expected = [(0x1000, 0x2fff), (0xfea0_0000, 0xfebf_ffff), (8 << 32, (8 << 32) | 0x1f_ffff)];
        assert_eq!(open, expected.map(Some));
        let whole = windows(0xf000, 0xfff0_0000, 0xfff1_0001, (0, u32::MAX));
        assert_eq!(whole, [(0, 0xffff), (0, 0xffff_ffff), (0, u64::MAX)].map(Some));
    }

    #[test]
    fn a_base_above_its_limit_is_a_closed_window() {
        assert_eq!(windows(0x1020, 0xfea0_feb0, 0x0001_0011, (0, 0)), [None; 3]);
        // The upper halves count.
        assert_eq!(windows(0x00f0, 0xfff0, 0x0011_0001, (1, 0)), [None; 3]);
        let [ports, memory, prefetchable] = [dword::PORTS, dword::MEMORY, dword::PREFETCHABLE].map(reset_value);
        let above = (reset_value(dword::BASE_ABOVE), reset_value(dword::LIMIT_ABOVE));
        assert_eq!(windows(ports, memory, prefetchable, above), [None; 3], "after reset");
    }
}

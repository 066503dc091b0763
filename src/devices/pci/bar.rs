//! Base address registers: which bits of one can be written, and which range one asks for.

use crate::address::{GuestAddress, GuestUsize, IoRange, IoType};
use crate::resource::IoResource;
use crate::sizes::AccessSizes;

/// One range that a function decodes, and the base address register that says where (PCI Local Bus 3.0, 6.2.5.1).
///
/// Sizes are powers of two, within the limits of each kind. A size that is not is found when the function is plugged in:
/// [`PlugError::BadBar`](super::PlugError::BadBar).
///
/// ```
/// use vm_device::AccessSizes;
/// use vm_device::devices::pci::Bar;
///
/// let registers = Bar::memory(0x1000).sizes(AccessSizes::DWORD | AccessSizes::ALIGNED);
/// let video = Bar::memory64(1 << 24).prefetchable().physical();
/// assert_eq!((registers.size(), video.size()), (0x1000, 0x100_0000));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    kind: Kind,
    size: u64,
    prefetchable: bool,
    physical: bool,
    sizes: AccessSizes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    None,
    Ports,
    Memory,
    Memory64,
    Rom,
}

/// The bit by which a register of ports is told from one of memory.
const PORTS: u32 = 1 << 0;
/// The type field of a register of memory: anywhere in the 64-bit address space.
const MEMORY_64: u32 = 0b10 << 1;
/// Reads of this memory have no side effects.
const PREFETCHABLE: u32 = 1 << 3;
/// The enable bit of the expansion ROM's register (PCI Local Bus 3.0, 6.2.5.2).
const ROM_ENABLE: u32 = 1 << 0;

impl Bar {
    /// No register: it reads 0.
    pub(super) const NONE: Self = Self::new(Kind::None, 0);

    const fn new(kind: Kind, size: u64) -> Self {
        Self { kind, size, prefetchable: false, physical: false, sizes: AccessSizes::ANY }
    }

    /// `size` ports: 4 to 256.
    pub const fn ports(size: u64) -> Self {
        Self::new(Kind::Ports, size)
    }

    /// `size` bytes of memory below 4 GiB: 16 bytes to 2 GiB.
    pub const fn memory(size: u64) -> Self {
        Self::new(Kind::Memory, size)
    }

    /// `size` bytes of memory anywhere, 16 or more. It takes two registers: the one it is given to, and the next.
    pub const fn memory64(size: u64) -> Self {
        Self::new(Kind::Memory64, size)
    }

    /// An expansion ROM of `size` bytes: 2 KiB to 16 MiB.
    pub(super) const fn rom(size: u64) -> Self {
        Self::new(Kind::Rom, size)
    }

    /// Reads of this memory have no side effects, so that it may lie in the prefetchable window of a bridge. It changes
    /// nothing for ports.
    #[must_use]
    pub const fn prefetchable(mut self) -> Self {
        self.prefetchable = true;
        self
    }

    /// The memory is physically backed ([`IoType::PhysicalMmio`]). It changes nothing for ports.
    #[must_use]
    pub const fn physical(mut self) -> Self {
        self.physical = true;
        self
    }

    /// The sizes of access that the device accepts there; [`AccessSizes::ANY`] unless said.
    #[must_use]
    pub const fn sizes(mut self, sizes: AccessSizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// The number of bytes or ports.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Whether the size is one that this kind of register can have.
    pub(super) const fn is_valid(&self) -> bool {
        let (least, most) = match self.kind {
            Kind::None => return true,
            Kind::Ports => (4, 0x100),
            Kind::Memory => (0x10, 1 << 31),
            Kind::Memory64 => (0x10, 1 << 63),
            Kind::Rom => (0x800, 1 << 24),
        };
        self.size.is_power_of_two() && least <= self.size && self.size <= most
    }

    /// Whether there is such a register.
    pub(super) const fn exists(&self) -> bool {
        !matches!(self.kind, Kind::None)
    }

    /// Whether the next register is this one's upper half.
    pub(super) const fn is_wide(&self) -> bool {
        matches!(self.kind, Kind::Memory64)
    }

    /// Whether it decodes ports.
    pub(super) const fn is_ports(&self) -> bool {
        matches!(self.kind, Kind::Ports)
    }

    /// The space that it decodes.
    pub(super) const fn io_type(&self) -> IoType {
        match self.kind {
            Kind::Ports => IoType::Pio,
            _ if self.physical => IoType::PhysicalMmio,
            _ => IoType::Mmio,
        }
    }

    /// The bits that say what it is, which cannot be written.
    pub(super) const fn flags(&self) -> u32 {
        let prefetchable = if self.prefetchable { PREFETCHABLE } else { 0 };
        match self.kind {
            Kind::None | Kind::Rom => 0,
            Kind::Ports => PORTS,
            Kind::Memory => prefetchable,
            Kind::Memory64 => MEMORY_64 | prefetchable,
        }
    }

    /// The bits of an address that can be written: those that are not below the size. A guest finds the size by writing all
    /// ones.
    const fn address_bits(&self) -> u64 {
        match self.kind {
            Kind::None => 0,
            _ => !self.size.wrapping_sub(1),
        }
    }

    /// The bits of the register that can be written.
    pub(super) const fn writable(&self) -> u32 {
        let enable = if matches!(self.kind, Kind::Rom) { ROM_ENABLE } else { 0 };
        self.address_bits() as u32 | enable
    }

    /// The bits of the upper half that can be written.
    pub(super) const fn writable_above(&self) -> u32 {
        if self.is_wide() { (self.address_bits() >> 32) as u32 } else { 0 }
    }

    /// What the function decodes, as the register and its upper half say. `None`: nothing, because a ROM is not enabled, or the
    /// ports are beyond the last one. (The register has all 32 bits: firmware that looks for the size needs them.)
    pub(super) fn place(&self, low: u32, high: u32) -> Option<IoRange> {
        if matches!(self.kind, Kind::Rom) && low & ROM_ENABLE == 0 {
            return None;
        }
        let high = if self.is_wide() { u64::from(high) << 32 } else { 0 };
        let base = (high | u64::from(low)) & self.address_bits();
        let place = IoRange::with_size(GuestAddress(base), GuestUsize(self.size)).ok()?;
        (place.last() <= self.io_type().last_address()).then_some(place)
    }

    /// The range to register.
    pub(super) const fn request(&self) -> IoResource {
        IoResource::any(self.io_type(), GuestUsize(self.size)).aligned(self.size).sizes(self.sizes).unplaced()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> Option<IoRange> {
        IoRange::new(GuestAddress(first), GuestAddress(last)).ok()
    }

    #[test]
    fn the_bits_below_the_size_cannot_be_written() {
        assert_eq!(Bar::memory(0x10).writable(), 0xffff_fff0);
        assert_eq!(Bar::memory(1 << 31).writable(), 0x8000_0000);
        assert_eq!(Bar::ports(4).writable(), 0xffff_fffc);
        assert_eq!(Bar::ports(0x100).writable(), 0xffff_ff00);
        assert_eq!(Bar::rom(0x800).writable(), 0xffff_f801);
        let wide = |size| (Bar::memory64(size).writable_above(), Bar::memory64(size).writable());
        assert_eq!(wide(0x1000), (u32::MAX, 0xffff_f000));
        assert_eq!(wide(1 << 32), (u32::MAX, 0));
        assert_eq!(wide(1 << 63), (1 << 31, 0));
        assert_eq!((Bar::NONE.writable(), Bar::memory(0x10).writable_above()), (0, 0));
    }

    #[test]
    fn a_register_says_what_it_is() {
        assert_eq!(Bar::ports(8).flags(), 1);
        assert_eq!(Bar::memory(0x10).flags(), 0);
        assert_eq!(Bar::memory(0x10).prefetchable().flags(), 8);
        assert_eq!(Bar::memory64(0x10).flags(), 4);
        assert_eq!(Bar::memory64(0x10).prefetchable().flags(), 0xc);
        assert_eq!((Bar::rom(0x800).flags(), Bar::NONE.flags()), (0, 0));
    }

    #[test]
    fn all_ones_is_a_place_up_to_the_end_of_the_space() {
        assert_eq!(Bar::memory(0x1000).place(u32::MAX, 0), range(0xffff_f000, 0xffff_ffff));
        assert_eq!(Bar::memory64(0x1000).place(u32::MAX, u32::MAX), range(u64::MAX - 0xfff, u64::MAX));
        assert_eq!(Bar::memory64(1 << 63).place(u32::MAX, u32::MAX), range(1 << 63, u64::MAX));
        // The last port is 0xffff.
        assert_eq!(Bar::ports(8).place(u32::MAX, 0), None);
        assert_eq!(Bar::ports(8).place(0xffff, 0), range(0xfff8, 0xffff));
    }

    #[test]
    fn a_rom_is_decoded_by_its_own_enable_bit() {
        assert_eq!(Bar::rom(0x800).place(0xc000_0000, 0), None);
        assert_eq!(Bar::rom(0x800).place(0xc000_0001, 0), range(0xc000_0000, 0xc000_07ff));
    }

    #[test]
    fn sizes_are_powers_of_two_within_the_limits_of_their_kind() {
        for bar in [Bar::ports(4), Bar::ports(0x100), Bar::memory(0x10), Bar::memory(1 << 31), Bar::memory64(1 << 63)] {
            assert!(bar.is_valid(), "{bar:?}");
        }
        for bar in [Bar::ports(2), Bar::ports(0x200), Bar::memory(8), Bar::memory(1 << 32), Bar::memory(0x18)] {
            assert!(!bar.is_valid(), "{bar:?}");
        }
        for bar in [Bar::memory64(0), Bar::rom(0x400), Bar::rom(1 << 25), Bar::memory(0)] {
            assert!(!bar.is_valid(), "{bar:?}");
        }
    }
}

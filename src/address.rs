//! Guest addresses, sizes, address spaces and ranges.
//!
//! There is one range type in the crate, [`IoRange`]: its first and its last address, both inclusive. So the range
//! that ends at the last byte of the 64-bit space and the range of all 65,536 ports need no special case, and an
//! empty or a wrapping range cannot be written down.

use core::fmt;

/// An address a guest uses to reach a device: a guest physical address, or a port number.
///
/// It is never an address of the machine the hypervisor runs on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestAddress(pub u64);

/// A size in bytes, or a number of ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestUsize(pub u64);

impl From<u64> for GuestAddress {
    fn from(address: u64) -> Self {
        Self(address)
    }
}

impl From<u16> for GuestAddress {
    fn from(port: u16) -> Self {
        Self(port as u64)
    }
}

impl From<u64> for GuestUsize {
    fn from(size: u64) -> Self {
        Self(size)
    }
}

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestAddress({:#x})", self.0)
    }
}

impl fmt::Display for GuestUsize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for GuestUsize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestUsize({:#x})", self.0)
    }
}

/// The kind of an I/O resource, and with it the address space it lies in.
///
/// [`Mmio`](Self::Mmio) and [`PhysicalMmio`](Self::PhysicalMmio) share the guest physical address space.
///
/// ```
/// use vm_device::IoType;
///
/// assert!(IoType::Mmio.same_space(IoType::PhysicalMmio));
/// assert!(!IoType::Mmio.same_space(IoType::Pio));
/// assert_eq!(IoType::Pio.last_address().0, 0xffff);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IoType {
    /// Port I/O: the 65,536 ports that the x86 `IN` and `OUT` instructions reach (Intel SDM vol. 1, 19.3).
    Pio,
    /// Memory-mapped I/O: guest physical addresses whose accesses cause a VM exit and reach the device.
    Mmio,
    /// Guest physical addresses that belong to a device but are backed by memory: the VMM maps them, accesses do not
    /// exit and are never dispatched. The VMM chooses the memory; the
    /// [`address_map`](crate::DeviceManager::address_map) tells it where the range lies and which device has it.
    PhysicalMmio,
}

impl IoType {
    /// The highest address of the space: `0xffff` for ports, `u64::MAX` for memory.
    pub const fn last_address(self) -> GuestAddress {
        self.space().last_address()
    }

    /// Whether ranges of the two kinds compete for the same addresses.
    pub const fn same_space(self, other: IoType) -> bool {
        matches!(self.space(), Space::Ports) == matches!(other.space(), Space::Ports)
    }
}

/// An address space; both kinds of MMIO share one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Space {
    Ports,
    Memory,
}

impl IoType {
    pub(crate) const fn space(self) -> Space {
        match self {
            IoType::Pio => Space::Ports,
            IoType::Mmio | IoType::PhysicalMmio => Space::Memory,
        }
    }
}

impl Space {
    /// The last address of the space.
    pub(crate) const fn last_address(self) -> GuestAddress {
        match self {
            Space::Ports => GuestAddress(0xffff),
            Space::Memory => GuestAddress(u64::MAX),
        }
    }
}

impl fmt::Display for IoType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IoType::Pio => "pio",
            IoType::Mmio => "mmio",
            IoType::PhysicalMmio => "physical mmio",
        })
    }
}

/// A range of guest addresses: first and last, both inclusive, never empty, never wrapping.
///
/// ```
/// use vm_device::{GuestAddress, GuestUsize, IoRange, RangeError};
///
/// let com1 = IoRange::with_size(GuestAddress(0x3f8), GuestUsize(8))?;
/// assert_eq!(com1.last(), GuestAddress(0x3ff));
///
/// // Both ends of the 64-bit space can be named, and a range past them cannot.
/// let top = IoRange::with_size(GuestAddress(u64::MAX), GuestUsize(1))?;
/// assert!(top.contains(GuestAddress(u64::MAX)));
/// assert!(IoRange::with_size(GuestAddress(u64::MAX), GuestUsize(2)).is_err());
/// assert_eq!(IoRange::ALL_PORTS.size(), Some(GuestUsize(0x1_0000)));
/// # Ok::<(), RangeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoRange {
    first: u64,
    last: u64,
}

impl IoRange {
    /// All 65,536 ports.
    pub const ALL_PORTS: Self = Self { first: 0, last: 0xffff };
    /// The whole 64-bit guest physical address space.
    pub const ALL_MEMORY: Self = Self { first: 0, last: u64::MAX };

    /// The range from `FIRST` to `LAST`, both inclusive, where both are known when the program is compiled.
    ///
    /// ```
    /// use vm_device::IoRange;
    ///
    /// const DEVICE_MEMORY: IoRange = IoRange::of::<0xc000_0000, 0xffff_ffff>();
    /// assert_eq!(DEVICE_MEMORY.to_string(), "[0xc0000000, 0xffffffff]");
    /// ```
    ///
    /// A reversed one does not compile, wherever it stands.
    pub const fn of<const FIRST: u64, const LAST: u64>() -> Self {
        const { assert!(FIRST <= LAST, "the last address of the range lies before its first") };
        Self { first: FIRST, last: LAST }
    }

    /// The range from `first` to `last`, both inclusive. For a range that is known when the program is compiled,
    /// [`of`](Self::of) is better: it cannot fail.
    ///
    /// ```
    /// use vm_device::{GuestAddress, IoRange, RangeError};
    ///
    /// let (first, last) = (GuestAddress(0x3f8), GuestAddress(0x3ff));
    /// assert!(IoRange::new(first, last).is_ok());
    /// assert_eq!(IoRange::new(last, first), Err(RangeError::Reversed { first: last, last: first }));
    /// ```
    ///
    /// # Errors
    /// [`RangeError::Reversed`] if `last` lies before `first`.
    pub const fn new(first: GuestAddress, last: GuestAddress) -> Result<Self, RangeError> {
        if first.0 > last.0 {
            return Err(RangeError::Reversed { first, last });
        }
        Ok(Self { first: first.0, last: last.0 })
    }

    /// The range of `size` bytes (or ports) that starts at `base`.
    ///
    /// # Errors
    /// [`RangeError::Empty`] if `size` is 0, [`RangeError::Wraps`] if the range would pass the last byte of the
    /// 64-bit space.
    pub const fn with_size(base: GuestAddress, size: GuestUsize) -> Result<Self, RangeError> {
        if size.0 == 0 {
            return Err(RangeError::Empty { base });
        }
        match base.0.checked_add(size.0 - 1) {
            Some(last) => Ok(Self { first: base.0, last }),
            None => Err(RangeError::Wraps { base, size }),
        }
    }

    /// The first address of the range.
    pub const fn first(self) -> GuestAddress {
        GuestAddress(self.first)
    }

    /// The last address of the range.
    pub const fn last(self) -> GuestAddress {
        GuestAddress(self.last)
    }

    /// The number of bytes (or ports); `None` for the whole 64-bit space, whose size a `u64` cannot hold.
    ///
    /// ```
    /// use vm_device::{GuestUsize, IoRange};
    ///
    /// assert_eq!(IoRange::of::<0x3f8, 0x3ff>().size(), Some(GuestUsize(8)));
    /// assert_eq!(IoRange::ALL_MEMORY.size(), None);
    /// ```
    pub const fn size(self) -> Option<GuestUsize> {
        match (self.last - self.first).checked_add(1) {
            Some(size) => Some(GuestUsize(size)),
            None => None,
        }
    }

    /// Whether `address` lies in the range.
    pub const fn contains(self, address: GuestAddress) -> bool {
        self.first <= address.0 && address.0 <= self.last
    }

    /// Whether the whole of `other` lies in the range.
    ///
    /// ```
    /// use vm_device::IoRange;
    ///
    /// let window = IoRange::of::<0x1000, 0x1fff>();
    /// assert!(window.contains_range(IoRange::of::<0x1800, 0x1fff>()));
    /// assert!(!window.contains_range(IoRange::of::<0x1800, 0x2000>()));
    /// ```
    pub const fn contains_range(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether the two ranges have an address in common.
    ///
    /// ```
    /// use vm_device::IoRange;
    ///
    /// let com1 = IoRange::of::<0x3f8, 0x3ff>();
    /// assert!(com1.overlaps(IoRange::of::<0x3ff, 0x402>()));
    /// assert!(!com1.overlaps(IoRange::of::<0x400, 0x402>()));
    /// ```
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The range of the same size that starts at `base`.
    ///
    /// ```
    /// use vm_device::{GuestAddress, IoRange};
    ///
    /// let bar = IoRange::of::<0x1000, 0x1fff>();
    /// assert_eq!(bar.moved_to(GuestAddress(0x8000)), Ok(IoRange::of::<0x8000, 0x8fff>()));
    /// assert!(bar.moved_to(GuestAddress(u64::MAX)).is_err());
    /// ```
    ///
    /// # Errors
    /// [`RangeError::Wraps`] if it would pass the last byte of the 64-bit space.
    pub const fn moved_to(self, base: GuestAddress) -> Result<Self, RangeError> {
        let span = self.last - self.first;
        match base.0.checked_add(span) {
            Some(last) => Ok(Self { first: base.0, last }),
            // A wrapping range is longer than one byte and shorter than the whole space, so that its size fits.
            None => Err(RangeError::Wraps { base, size: GuestUsize(span.saturating_add(1)) }),
        }
    }
}

impl fmt::Display for IoRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x}]", self.first, self.last)
    }
}

impl fmt::Debug for IoRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoRange[{:#x}, {:#x}]", self.first, self.last)
    }
}

/// Why two numbers do not make an [`IoRange`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RangeError {
    /// The size is 0.
    Empty {
        /// Where the empty range was to start.
        base: GuestAddress,
    },
    /// The range would pass the last byte of the 64-bit space.
    Wraps {
        /// Where the range was to start.
        base: GuestAddress,
        /// The size it was to have.
        size: GuestUsize,
    },
    /// The last address lies before the first.
    Reversed {
        /// The address given as the first.
        first: GuestAddress,
        /// The address given as the last.
        last: GuestAddress,
    },
    /// The range passes the last address of its space: port `0xffff`.
    BeyondSpace {
        /// The range that was asked for.
        range: IoRange,
        /// The last address of the space.
        last: GuestAddress,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeError::Empty { base } => write!(f, "the range at {base} is empty"),
            RangeError::Wraps { base, size } => {
                write!(f, "the range of {size} bytes at {base} passes the end of the 64-bit address space")
            }
            RangeError::Reversed { first, last } => write!(f, "the last address {last} lies before the first, {first}"),
            RangeError::BeyondSpace { range, last } => {
                write!(f, "the range {range} passes {last}, the last address of its space")
            }
        }
    }
}

impl core::error::Error for RangeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> IoRange {
        IoRange::new(GuestAddress(first), GuestAddress(last)).unwrap()
    }

    #[test]
    fn both_ends_of_the_space_are_expressible() {
        assert_eq!(IoRange::of::<0, { u64::MAX }>(), IoRange::ALL_MEMORY);
        assert_eq!(IoRange::of::<{ u64::MAX }, { u64::MAX }>(), range(u64::MAX, u64::MAX));
        assert_eq!(IoRange::ALL_MEMORY, range(0, u64::MAX));
        assert_eq!(IoRange::ALL_MEMORY.size(), None);
        assert_eq!(range(u64::MAX, u64::MAX).size(), Some(GuestUsize(1)));
        assert_eq!(range(1, u64::MAX).size(), Some(GuestUsize(u64::MAX)));
        assert_eq!(IoRange::with_size(GuestAddress(0), GuestUsize(0x1_0000)).unwrap(), IoRange::ALL_PORTS);
    }

    #[test]
    fn empty_wrapping_and_reversed_ranges_are_refused() {
        let base = GuestAddress(0x10);
        assert_eq!(IoRange::with_size(base, GuestUsize(0)), Err(RangeError::Empty { base }));
        let (base, size) = (GuestAddress(u64::MAX), GuestUsize(2));
        assert_eq!(IoRange::with_size(base, size), Err(RangeError::Wraps { base, size }));
        assert!(matches!(IoRange::new(GuestAddress(2), GuestAddress(1)), Err(RangeError::Reversed { .. })));
        assert!(matches!(range(0, 1).moved_to(GuestAddress(u64::MAX)), Err(RangeError::Wraps { .. })));
        assert_eq!(range(0, 1).moved_to(GuestAddress(u64::MAX - 1)), Ok(range(u64::MAX - 1, u64::MAX)));
    }

    #[test]
    fn overlap_on_the_last_byte_is_seen() {
        assert!(range(0, u64::MAX).overlaps(range(u64::MAX, u64::MAX)));
        assert!(!range(0, u64::MAX - 1).overlaps(range(u64::MAX, u64::MAX)));
        assert!(range(5, 9).contains_range(range(9, 9)));
        assert!(!range(5, 9).contains_range(range(9, 10)));
    }
}

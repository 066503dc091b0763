//! One access of a guest, as a device sees it, and what can become of it.

use core::fmt;
use core::marker::PhantomData;

use crate::address::{GuestAddress, IoType};
use crate::slots::Place;

/// How deep accesses may nest: a device that accesses another device, which accesses a third, and so on. The access
/// that would be one deeper is refused as [`IoError::TooDeep`].
pub const MAX_DEPTH: usize = 8;

/// One access that a guest, or another device, makes to a device: where it goes. The data is passed beside it.
///
/// It stays on the thread of the vCPU that makes it:
///
/// ```compile_fail
/// fn elsewhere<T: Send>(_: T) {}
/// elsewhere(vm_device::Access::new(vm_device::IoType::Pio, 0_u16.into(), 0_u16.into(), 0));
/// ```
#[derive(Clone, Copy)]
pub struct Access<'a> {
    pub(crate) address: u64,
    pub(crate) base: u64,
    pub(crate) target: Target,
    pub(crate) caller: &'a Caller<'a>,
    one_thread: PhantomData<*mut ()>,
}

/// Whose range it is that an access goes to.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The topology node of the device.
    pub(crate) node: u16,
    /// Which of the device's ranges.
    pub(crate) range_index: u8,
    /// The space.
    pub(crate) io_type: IoType,
}

/// Who makes an access, as far as the manager can know.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// Which manager dispatches it: its address, to compare.
    pub(crate) manager: usize,
    /// Where that manager's removals look for the access.
    pub(crate) place: Place<'a>,
    /// The access from within whose callback this one is made.
    pub(crate) parent: Option<&'a Parent<'a>>,
}

/// What one access knows of another that it is nested in.
#[derive(Clone, Copy)]
pub(crate) struct Parent<'a> {
    /// The topology node of the device it goes to.
    pub(crate) node: u16,
    pub(crate) caller: &'a Caller<'a>,
}

impl Access<'static> {
    /// An access for a test of a device without a manager: to `address`, in the device's range number `range_index`
    /// (of 0 to 15), which starts at `base`.
    pub const fn new(io_type: IoType, address: GuestAddress, base: GuestAddress, range_index: usize) -> Self {
        let target = Target { node: u16::MAX, range_index: range_index as u8, io_type };
        Self::made(address.0, base.0, target, &Caller { manager: 0, place: Place::ANONYMOUS, parent: None })
    }
}

impl<'a> Access<'a> {
    pub(crate) const fn made(address: u64, base: u64, target: Target, caller: &'a Caller<'a>) -> Self {
        Self { address, base, target, caller, one_thread: PhantomData }
    }

    /// The access as those nested in it know it.
    pub(crate) const fn as_parent(&self) -> Parent<'a> {
        Parent { node: self.target.node, caller: self.caller }
    }

    /// The space: [`IoType::Pio`] or [`IoType::Mmio`].
    pub const fn io_type(&self) -> IoType {
        self.target.io_type
    }

    /// The address of the first byte accessed.
    pub const fn address(&self) -> GuestAddress {
        GuestAddress(self.address)
    }

    /// The address at which the range starts. It is the one under which this access found it; a relocation changes
    /// it for later ones.
    pub const fn base(&self) -> GuestAddress {
        GuestAddress(self.base)
    }

    /// The offset of the first byte into the range, in bytes.
    pub const fn offset(&self) -> u64 {
        self.address.wrapping_sub(self.base)
    }

    /// Which of the device's ranges is accessed: the index of the request it was given for.
    pub const fn range_index(&self) -> usize {
        self.target.range_index as usize
    }

    /// The same access `bytes` further on: an element of a string, a piece of a split access.
    pub(crate) const fn advanced(&self, bytes: u64) -> Self {
        let mut next = *self;
        next.address = self.address.wrapping_add(bytes);
        next
    }
}

impl fmt::Debug for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("io_type", &self.io_type())
            .field("address", &self.address())
            .field("base", &self.base())
            .field("range_index", &self.range_index())
            .field("level", &self.caller.place.level())
            .finish_non_exhaustive()
    }
}

/// Why an access did not reach a device whole. In each case the buffer of a read holds the open-bus value, and nothing
/// was written anywhere.
///
/// A VMM need not look at it: for the guest the access is complete. It is there for logs and counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IoError {
    /// No device claims the address.
    Unclaimed,
    /// The access is not wholly inside one range: it runs over the end of a range, or over the end of the space.
    Straddling,
    /// The device does not accept an access of this size, or not at this alignment.
    RefusedSize,
    /// The access is 0 bytes long, or its length is no multiple of the element size.
    InvalidLength,
    /// Accesses are nested deeper than [`MAX_DEPTH`], or more accesses without a
    /// [`Dispatcher`](crate::Dispatcher) meet in the same ranges than [`MAX_ANONYMOUS`](crate::MAX_ANONYMOUS).
    TooDeep,
    /// [`IoType::PhysicalMmio`] is backed by memory and never dispatched.
    NotDispatched,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IoError::Unclaimed => "no device claims the address",
            IoError::Straddling => "the access is not wholly inside one range",
            IoError::RefusedSize => "the device does not accept an access of this size and alignment",
            IoError::InvalidLength => "the length is 0 or no multiple of the element size",
            IoError::TooDeep => "accesses are nested too deeply",
            IoError::NotDispatched => "physically backed MMIO is never dispatched",
        })
    }
}

impl core::error::Error for IoError {}

/// The value a read has where nothing answers, a byte at a time.
///
/// On hardware nobody drives the bus then and its lines float high, which is why firmware takes all ones for "nothing
/// there" (PCI Local Bus 3.0, 6.1: the host bridge returns all ones for a configuration read that no device claims).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenBus(pub u8);

impl OpenBus {
    /// Every bit set. The default of both spaces.
    pub const ALL_ONES: Self = Self(0xff);

    /// The value of eight bytes, as a manager keeps it: a fill is one store then.
    pub(crate) const fn bytes(self) -> [u8; 8] {
        [self.0; 8]
    }
}

/// Gives every byte of `data` its open-bus value.
#[inline(always)]
pub(crate) fn fill(data: &mut [u8], open_bus: [u8; 8]) {
    // The lengths that guests use become single stores; the general case would be a call of memset.
    let [x0, x1, x2, x3, ..] = open_bus;
    match data {
        [a] => *a = x0,
        [a, b] => [*a, *b] = [x0, x1],
        [a, b, c, d] => [*a, *b, *c, *d] = [x0, x1, x2, x3],
        [a, b, c, d, e, f, g, h] => [*a, *b, *c, *d, *e, *f, *g, *h] = open_bus,
        other => other.fill(x0),
    }
}

impl Default for OpenBus {
    fn default() -> Self {
        Self::ALL_ONES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_bus_defines_every_byte() {
        for length in 0..40 {
            let mut data = [0; 40];
            fill(&mut data[..length], OpenBus::ALL_ONES.bytes());
            assert!(data[..length].iter().all(|byte| *byte == 0xff));
            assert!(data[length..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn an_access_knows_its_offset_at_the_top_of_the_space() {
        let access = Access::new(IoType::Mmio, GuestAddress(u64::MAX), GuestAddress(u64::MAX - 7), 3);
        assert_eq!(access.offset(), 7);
        assert_eq!(access.range_index(), 3);
    }
}

//! An operand in memory, in the pieces that lie in one page each.

use super::guest::Guest;
use super::memory::MemoryAccessKind;
use crate::address::GuestAddress;

/// The size of the smallest page, in bytes, on every processor here. What lies in it stays together when it is translated.
pub const PAGE: u64 = 0x1000;

/// The longest operand, in bytes: a vector register of AVX.
pub const MAX_OPERAND: usize = 32;

/// The longest part of an operand that is read or written at once, in bytes.
const PART: usize = 8;

/// The pieces of an operand that starts at a virtual address: one, or two if it crosses a page.
///
/// ```
/// use vm_device::exit::pieces;
///
/// assert_eq!(pieces(0x1ffd, 4, u64::MAX), [(0x1ffd, 3), (0x2000, 1)]);
/// assert_eq!(pieces(0x1ff0, 4, u64::MAX), [(0x1ff0, 4), (0x1ff4, 0)]);
/// // Outside the 64-bit mode of x86 the address wraps at 4 GiB.
/// assert_eq!(pieces(0xffff_ffff, 2, 0xffff_ffff), [(0xffff_ffff, 1), (0, 1)]);
/// ```
///
/// `last` is the highest address that there is. The second piece of an operand in one page has no bytes.
pub const fn pieces(address: u64, length: usize, last: u64) -> [(u64, usize); 2] {
    let room = (PAGE - address % PAGE) as usize;
    let first = if length < room { length } else { room };
    [(address & last, first), (address.wrapping_add(first as u64) & last, length - first)]
}

/// The guest physical address of the `length` bytes at a virtual `address`, if they lie in one page, of which `known` is the guest
/// physical address of any byte.
#[inline]
pub(crate) fn in_known_page(address: u64, length: usize, known: Option<GuestAddress>) -> Option<GuestAddress> {
    let within = address & (PAGE - 1);
    let page = known.filter(|_| within.saturating_add(length as u64) <= PAGE)?;
    Some(GuestAddress(page.0 & !(PAGE - 1) | within))
}

/// An operand whose pieces have their guest physical addresses.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    first: GuestAddress,
    length: usize,
    /// The piece in the next page; its length is 0 if there is none.
    second: GuestAddress,
    rest: usize,
}

impl Placed {
    /// Places the `length` bytes at a virtual `address`. `known` is the guest physical address of any byte of the page that the
    /// operand starts in, if the exit told it.
    #[inline]
    pub(crate) fn new<G: Guest>(
        guest: &mut G,
        address: u64,
        length: usize,
        last: u64,
        kind: MemoryAccessKind,
        known: Option<GuestAddress>,
    ) -> Result<Self, G::Fault> {
        match in_known_page(address, length, known) {
            Some(first) => Ok(Self { first, length, second: GuestAddress(0), rest: 0 }),
            None => Self::translated(guest, address, length, last, kind),
        }
    }

    /// The same, if no place is known.
    #[inline(never)]
    fn translated<G: Guest>(
        guest: &mut G,
        address: u64,
        length: usize,
        last: u64,
        kind: MemoryAccessKind,
    ) -> Result<Self, G::Fault> {
        let [(address, first), (next, rest)] = pieces(address, length, last);
        let place = guest.translate(address, kind)?;
        let second = if rest == 0 { GuestAddress(0) } else { guest.translate(next, kind)? };
        Ok(Self { first: place, length: first, second, rest })
    }

    /// Whether the operand lies in one page.
    pub(crate) const fn is_whole(&self) -> bool {
        self.rest == 0
    }

    /// An operand of the same length, `distance` bytes after this one: both are [whole](Self::is_whole), in the same page.
    pub(crate) const fn beside(&self, distance: u64) -> Self {
        Self { first: GuestAddress(self.first.0.wrapping_add(distance)), ..*self }
    }

    /// Reads the operand, in order, at most 8 bytes at a time. `data` has its length.
    #[inline]
    pub(crate) fn read<G: Guest>(&self, guest: &mut G, data: &mut [u8]) -> Result<(), G::Fault> {
        if self.is_whole() && data.len() <= PART { guest.read(self.first, data) } else { self.read_parts(guest, data) }
    }

    /// Writes the operand, in order, at most 8 bytes at a time. `data` has its length.
    #[inline]
    pub(crate) fn write<G: Guest>(&self, guest: &mut G, data: &[u8]) -> Result<(), G::Fault> {
        if self.is_whole() && data.len() <= PART {
            guest.write(self.first, data)
        } else {
            self.write_parts(guest, data)
        }
    }

    #[cold]
    #[inline(never)]
    fn read_parts<G: Guest>(&self, guest: &mut G, data: &mut [u8]) -> Result<(), G::Fault> {
        let (first, second) = data.split_at_mut_checked(self.length).unwrap_or_default();
        for (mut address, piece) in [(self.first, first), (self.second, second)] {
            for part in piece.chunks_mut(PART) {
                guest.read(address, part)?;
                address.0 = address.0.wrapping_add(PART as u64);
            }
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn write_parts<G: Guest>(&self, guest: &mut G, data: &[u8]) -> Result<(), G::Fault> {
        let (first, second) = data.split_at_checked(self.length).unwrap_or_default();
        for (mut address, piece) in [(self.first, first), (self.second, second)] {
            for part in piece.chunks(PART) {
                guest.write(address, part)?;
                address.0 = address.0.wrapping_add(PART as u64);
            }
        }
        Ok(())
    }
}

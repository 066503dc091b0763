//! An operand in memory, in the pieces that lie in one page each.

use super::guest::Guest;
use super::memory::MemoryAccessKind;
use crate::address::GuestAddress;

/// The size of the smallest page, in bytes, on every processor here. What lies in it stays together when it is translated.
pub const PAGE: u64 = 0x1000;

/// The longest operand, in bytes: a vector register of AVX.
pub const MAX_OPERAND: usize = 32;

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
        let [(address, first), (next, rest)] = pieces(address, length, last);
        match known {
            Some(known) if rest == 0 => {
                let first = GuestAddress(known.0 & !(PAGE - 1) | address & (PAGE - 1));
                Ok(Self { first, length, second: GuestAddress(0), rest })
            }
            _ => {
                let place = guest.translate(address, kind)?;
                let second = if rest == 0 { GuestAddress(0) } else { guest.translate(next, kind)? };
                Ok(Self { first: place, length: first, second, rest })
            }
        }
    }

    /// Reads the operand, in order, at most 8 bytes at a time.
    #[inline]
    pub(crate) fn read<G: Guest>(&self, guest: &mut G, data: &mut [u8]) -> Result<(), G::Fault> {
        if self.rest == 0 && data.len() <= 8 {
            return guest.read(self.first, data);
        }
        for (address, length, at) in self.parts() {
            if let Some(part) = data.get_mut(at..).and_then(|data| data.get_mut(..length)) {
                guest.read(address, part)?;
            }
        }
        Ok(())
    }

    /// Writes the operand, in order, at most 8 bytes at a time.
    #[inline]
    pub(crate) fn write<G: Guest>(&self, guest: &mut G, data: &[u8]) -> Result<(), G::Fault> {
        if self.rest == 0 && data.len() <= 8 {
            return guest.write(self.first, data);
        }
        for (address, length, at) in self.parts() {
            if let Some(part) = data.get(at..).and_then(|data| data.get(..length)) {
                guest.write(address, part)?;
            }
        }
        Ok(())
    }

    /// Address, length and place in the data of each access: both pieces, in parts of 8 bytes and what is left.
    fn parts(&self) -> impl Iterator<Item = (GuestAddress, usize, usize)> + use<> {
        const PART: usize = 8;
        let split = |place: GuestAddress, length: usize, at: usize| {
            (0..length).step_by(PART).map(move |done| {
                let address = GuestAddress(place.0.wrapping_add(done as u64));
                (address, PART.min(length.saturating_sub(done)), at.saturating_add(done))
            })
        };
        split(self.first, self.length, 0).chain(split(self.second, self.rest, self.length))
    }
}

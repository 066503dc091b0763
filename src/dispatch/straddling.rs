//! The policy for an access that no range holds whole: open bus, or pieces that are accesses of their own.

use crate::access::{Access, Caller, IoError, Straddling};
use crate::address::{GuestAddress, IoType, Space};
use crate::device::Device;
use crate::manager::DeviceManager;
use crate::observer::AccessDirection;
use crate::transfer::Transfer;

impl DeviceManager<'_> {
    /// Serves an access that no range holds whole, and that has been prepared: its policy is that of the space. A piece of an
    /// access has none.
    #[cold]
    #[inline(never)]
    pub(super) fn dispatch_straddling(
        &self,
        caller: &Caller<'_>,
        address: u64,
        io_type: IoType,
        transfer: &mut dyn Transfer,
    ) -> Result<(), IoError> {
        if transfer.is_piece() || self.straddling(io_type.space()) == Straddling::OpenBus {
            return Err(IoError::Straddling);
        }
        let (element, total) = (transfer.element_len(), transfer.len());
        let mut delivered = Delivered { bytes: 0, is_claimed: false };
        let mut at = 0;
        while at < total {
            self.dispatch_pieces(caller, address, io_type, Part { transfer, at, size: element }, &mut delivered)?;
            at = at.saturating_add(element);
        }
        match delivered {
            Delivered { bytes, .. } if bytes == total => Ok(()),
            Delivered { bytes, is_claimed: true } => {
                Err(IoError::Partial { delivered: bytes.try_into().unwrap_or(u32::MAX) })
            }
            // The ranges have gone meanwhile, or it was the end of the space that the access ran over.
            _ => Err(IoError::Unclaimed),
        }
    }

    /// Serves one element of such an access, from its lowest byte on, up to a piece that fails in its device.
    fn dispatch_pieces(
        &self,
        caller: &Caller<'_>,
        address: u64,
        io_type: IoType,
        element: Part<'_>,
        delivered: &mut Delivered,
    ) -> Result<(), IoError> {
        let Part { transfer, at: first, size: length } = element;
        let space = io_type.space();
        let mut at = 0;
        while at < length {
            // Bytes behind the end of the space are nobody's. No aligned piece runs over it.
            let next = address.checked_add(at as u64).filter(|next| *next <= space.last_address().0);
            let Some(next) = next else { break };
            let mut size = largest_piece(space, next, length - at);
            let outcome = loop {
                let mut piece = Part { transfer, at: first.saturating_add(at), size };
                match self.dispatch_from(caller, GuestAddress(next), io_type, &mut piece) {
                    Err(IoError::Straddling) if size > 1 => size /= 2,
                    outcome => break outcome,
                }
            };
            if let Err(IoError::Failed { .. }) = outcome {
                return outcome;
            }
            if outcome.is_ok() {
                delivered.bytes = delivered.bytes.saturating_add(size);
            }
            delivered.is_claimed |= outcome != Err(IoError::Unclaimed);
            at = at.saturating_add(size);
        }
        Ok(())
    }
}

/// What has become of the pieces of an access.
struct Delivered {
    /// How many bytes have reached a device.
    bytes: usize,
    /// Whether a range has any of the bytes.
    is_claimed: bool,
}

/// The length of the largest piece from `address` on that is naturally aligned and no longer than `left`, which is not 0.
fn largest_piece(space: Space, address: u64, left: usize) -> usize {
    // A port access has at most 4 bytes, a memory access of a register at most 8.
    let most: u32 = match space {
        Space::Ports => 2,
        Space::Memory => 3,
    };
    1 << most.min(address.trailing_zeros()).min(left.checked_ilog2().unwrap_or(0))
}

/// A part of the data of an access: `size` bytes from position `at` on.
struct Part<'t> {
    transfer: &'t mut dyn Transfer,
    at: usize,
    size: usize,
}

impl Transfer for Part<'_> {
    fn fill(&mut self, _: [u8; 4]) {}
    fn data(&self) -> &[u8] {
        self.transfer.data().get(self.at..self.at.saturating_add(self.size)).unwrap_or_default()
    }
    fn direction(&self) -> AccessDirection {
        self.transfer.direction()
    }
    fn element_len(&self) -> usize {
        self.size
    }
    fn has_valid_len(&self) -> bool {
        self.size != 0
    }
    fn is_piece(&self) -> bool {
        true
    }
    fn call<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) -> Result<(), IoError> {
        self.transfer.call_part(device, access, self.at, self.size).unwrap_or(Ok(()))
    }
    fn call_part<'d>(
        &mut self,
        device: &dyn Device<'d>,
        access: &Access<'_>,
        at: usize,
        size: usize,
    ) -> Option<Result<(), IoError>> {
        let is_inside = at.saturating_add(size) <= self.size;
        is_inside.then(|| self.transfer.call_part(device, access, self.at.saturating_add(at), size)).flatten()
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_aligned_and_as_large_as_the_space_allows() {
        for (space, most) in [(Space::Ports, 4), (Space::Memory, 8)] {
            for (address, left) in (0..32_u64).flat_map(|address| (1..20_usize).map(move |left| (address, left))) {
                let sizes = [8, 4, 2, 1].into_iter();
                let expected =
                    sizes.filter(|size| *size <= most && *size <= left).find(|size| address % *size as u64 == 0);
                assert_eq!(Some(largest_piece(space, address, left)), expected, "{left} bytes at {address}");
            }
        }
    }
}

//! The sizes of access that a range accepts.

use bitflags::bitflags;

bitflags! {
    /// The sizes of access that a range accepts, and whether the manager splits or refuses the others.
    ///
    /// An access that is not accepted never reaches the device: it is open bus and
    /// [`IoError::RefusedSize`](crate::IoError::RefusedSize), unless [`SPLIT`](Self::SPLIT) splits it into accepted ones.
    ///
    /// ```
    /// use spin::Mutex;
    /// use vm_device::{
    ///     Access, AccessSizes, Device, DeviceManager, GuestAddress, IoRange, IoResource, IoType, Storage,
    ///     SystemAllocator,
    /// };
    ///
    /// /// Remembers the lengths of its accesses.
    /// struct Lengths(Mutex<Vec<usize>>);
    ///
    /// impl Device<'_> for Lengths {
    ///     fn name(&self) -> &str {
    ///         "lengths"
    ///     }
    ///     fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    ///     fn write(&self, _: &Access<'_>, data: &[u8]) {
    ///         self.0.lock().push(data.len());
    ///     }
    /// }
    ///
    /// let device = Lengths(Mutex::new(Vec::new()));
    /// let storage = Storage::<8, 16, 2>::new();
    /// let manager = DeviceManager::new(&storage, SystemAllocator::new(IoRange::ALL_MEMORY));
    /// let sizes = AccessSizes::WORD | AccessSizes::DWORD | AccessSizes::ALIGNED | AccessSizes::SPLIT;
    /// let range = IoResource::mmio(0x1000, 0x10).sizes(sizes);
    /// manager.register_device(&device, None, &[range], &[]).unwrap();
    /// manager.write(GuestAddress(0x1002), &[0; 8], IoType::Mmio).unwrap();
    /// assert_eq!(*device.0.lock(), [2, 4, 2]);
    /// ```
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct AccessSizes: u8 {
        /// Accesses of 1 byte.
        const BYTE = 1 << 0;
        /// Accesses of 2 bytes.
        const WORD = 1 << 1;
        /// Accesses of 4 bytes.
        const DWORD = 1 << 2;
        /// Accesses of 8 bytes.
        const QWORD = 1 << 3;
        /// Accesses of any other length: 3, 5, 6 and 7 bytes, which a guest makes by an access across a page, and
        /// more than 8 bytes.
        const OTHER = 1 << 4;
        /// Of the power-of-two sizes, only naturally aligned accesses are accepted: their offset into the range is a multiple
        /// of their size.
        const ALIGNED = 1 << 6;
        /// An access that is not accepted is split, from its lowest byte up, into the largest naturally aligned
        /// accesses that are. Where there are none, it is refused.
        const SPLIT = 1 << 7;

        /// Every length, aligned or not. The default.
        const ANY = Self::BYTE.bits() | Self::WORD.bits() | Self::DWORD.bits() | Self::QWORD.bits() | Self::OTHER.bits();
    }
}

impl Default for AccessSizes {
    fn default() -> Self {
        Self::ANY
    }
}

impl AccessSizes {
    /// Whether an access of `size` bytes at `offset` into the range is accepted whole.
    ///
    /// ```
    /// use vm_device::AccessSizes;
    ///
    /// let sizes = AccessSizes::DWORD | AccessSizes::ALIGNED;
    /// assert!(sizes.accepts(8, 4));
    /// assert!(!sizes.accepts(6, 4));
    /// assert!(!sizes.accepts(8, 2));
    /// ```
    pub const fn accepts(self, offset: u64, size: usize) -> bool {
        let kind = match size {
            0 => return false,
            1 => Self::BYTE,
            2 => Self::WORD,
            4 => Self::DWORD,
            8 => Self::QWORD,
            _ => Self::OTHER,
        };
        if !self.contains(kind) {
            return false;
        }
        // A length that is no power of two has no natural alignment.
        !self.contains(Self::ALIGNED) || !size.is_power_of_two() || offset & (size as u64 - 1) == 0
    }

    /// The size of the first piece of a split access: the largest power of two up to 8 that fits in `remaining`
    /// bytes, is naturally aligned at `offset` and is accepted. `None` if there is none.
    pub(crate) const fn piece(self, offset: u64, remaining: usize) -> Option<usize> {
        let mut size = 8;
        while size > 0 {
            if size <= remaining && offset & (size as u64 - 1) == 0 && self.accepts(offset, size) {
                return Some(size);
            }
            size /= 2;
        }
        None
    }

    /// Whether an access of `size` bytes at `offset` is to be split, and can be, down to its last byte.
    pub(crate) const fn splits(self, mut offset: u64, mut size: usize) -> bool {
        if !self.contains(Self::SPLIT) {
            return false;
        }
        while size > 0 {
            let Some(piece) = self.piece(offset, size) else { return false };
            offset = offset.wrapping_add(piece as u64);
            size -= piece;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_by_size_and_alignment() {
        let dword = AccessSizes::DWORD;
        assert!(dword.accepts(1, 4));
        assert!(!dword.accepts(0, 2));
        assert!(!dword.accepts(0, 0));
        let aligned = AccessSizes::DWORD | AccessSizes::OTHER | AccessSizes::ALIGNED;
        assert!(!aligned.accepts(2, 4));
        assert!(aligned.accepts(4, 4));
        assert!(aligned.accepts(1, 3));
        assert!(AccessSizes::ANY.accepts(7, 16));
    }

    #[test]
    fn pieces_are_the_largest_that_are_accepted() {
        let bytes = AccessSizes::BYTE | AccessSizes::SPLIT;
        assert_eq!(bytes.piece(0, 8), Some(1));
        let both = AccessSizes::BYTE | AccessSizes::DWORD;
        assert_eq!(both.piece(4, 8), Some(4));
        assert_eq!(both.piece(2, 8), Some(1));
        assert_eq!(AccessSizes::DWORD.piece(0, 3), None);
    }
}

//! Sizes of accesses.

/// The size of one access, or of an operand.
///
/// ```
/// use vm_device::exit::x86::Size;
///
/// assert_eq!(Size::from_bytes(4), Some(Size::Dword));
/// assert_eq!((Size::Dword.bytes(), Size::Dword.bits()), (4, 32));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Size {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
    /// 8 bytes.
    Qword,
}

impl Size {
    /// The number of bytes: 1, 2, 4 or 8.
    pub const fn bytes(self) -> usize {
        1 << self as u32
    }

    /// The number of bits: 8, 16, 32 or 64.
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }

    /// The size of `bytes` bytes; `None` if that is not 1, 2, 4 or 8.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Size::Byte),
            2 => Some(Size::Word),
            4 => Some(Size::Dword),
            8 => Some(Size::Qword),
            _ => None,
        }
    }

    /// The low bits of `value` that an operand of this size holds.
    ///
    /// ```
    /// use vm_device::exit::x86::Size;
    ///
    /// assert_eq!(Size::Byte.truncate(0x1234), 0x34);
    /// ```
    pub const fn truncate(self, value: u64) -> u64 {
        value & self.mask()
    }

    /// The low bits of `value` as a signed number, in 64 bits.
    ///
    /// ```
    /// use vm_device::exit::x86::Size;
    ///
    /// assert_eq!(Size::Byte.sign_extend(0x80), 0xffff_ffff_ffff_ff80);
    /// assert_eq!(Size::Word.sign_extend(0x80), 0x80);
    /// ```
    pub const fn sign_extend(self, value: u64) -> u64 {
        let sign = self.sign();
        (self.truncate(value) ^ sign).wrapping_sub(sign)
    }

    /// The bytes of `data` that an access of this size transfers.
    ///
    /// ```
    /// use vm_device::exit::x86::Size;
    ///
    /// let mut data = [0; 8];
    /// Size::Word.of(&mut data).copy_from_slice(&[0x34, 0x12]);
    /// assert_eq!(u64::from_le_bytes(data), 0x1234);
    /// ```
    pub fn of(self, data: &mut [u8; 8]) -> &mut [u8] {
        data.get_mut(..self.bytes()).unwrap_or_default()
    }

    /// Ones in the bits of an operand of this size.
    pub(crate) const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The highest bit of an operand of this size.
    pub(crate) const fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }
}

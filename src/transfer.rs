//! The data of an access, in one direction, on its way to the device.

use crate::access::{Access, fill};
use crate::device::Device;

/// The data of an access, in one direction, on its way to the device.
pub(crate) trait Transfer {
    /// Before anything can fail: gives every byte of what is read the open-bus value.
    fn fill(&mut self, open_bus: [u8; 8]);
    /// The length of what is accessed at once, in bytes: the whole access, or one element of a string.
    fn unit(&self) -> usize;
    /// Whether the data is a whole number of units, and not empty.
    fn is_whole(&self) -> bool;
    /// Hands the access to the device as it is.
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>);
    /// Hands `size` bytes of it over, from the byte at `at` on. `false` if there are none.
    fn piece<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, at: usize, size: usize) -> bool;
}

pub(crate) struct Read<'b> {
    pub(crate) data: &'b mut [u8],
}

pub(crate) struct Write<'b> {
    pub(crate) data: &'b [u8],
}

pub(crate) struct ReadString<'b> {
    bytes: Read<'b>,
    element: usize,
}

pub(crate) struct WriteString<'b> {
    bytes: Write<'b>,
    element: usize,
}

impl<'b> ReadString<'b> {
    pub(crate) fn new(element: usize, data: &'b mut [u8]) -> Self {
        Self { bytes: Read { data }, element }
    }
}

impl<'b> WriteString<'b> {
    pub(crate) fn new(element: usize, data: &'b [u8]) -> Self {
        Self { bytes: Write { data }, element }
    }
}

impl Transfer for Read<'_> {
    #[inline(always)]
    fn fill(&mut self, open_bus: [u8; 8]) {
        fill(self.data, open_bus);
    }
    #[inline(always)]
    fn unit(&self) -> usize {
        self.data.len()
    }
    #[inline(always)]
    fn is_whole(&self) -> bool {
        !self.data.is_empty()
    }
    #[inline(always)]
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        device.read(access, self.data);
    }
    #[inline(never)]
    fn piece<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, at: usize, size: usize) -> bool {
        let Some(piece) = self.data.get_mut(at..at.saturating_add(size)) else { return false };
        device.read(access, piece);
        true
    }
}

impl Transfer for Write<'_> {
    #[inline(always)]
    fn fill(&mut self, _: [u8; 8]) {}
    #[inline(always)]
    fn unit(&self) -> usize {
        self.data.len()
    }
    #[inline(always)]
    fn is_whole(&self) -> bool {
        !self.data.is_empty()
    }
    #[inline(always)]
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        device.write(access, self.data);
    }
    #[inline(never)]
    fn piece<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, at: usize, size: usize) -> bool {
        let Some(piece) = self.data.get(at..at.saturating_add(size)) else { return false };
        device.write(access, piece);
        true
    }
}

impl Transfer for ReadString<'_> {
    fn fill(&mut self, [byte, ..]: [u8; 8]) {
        self.bytes.data.fill(byte);
    }
    fn unit(&self) -> usize {
        self.element
    }
    fn is_whole(&self) -> bool {
        !self.bytes.data.is_empty() && self.bytes.data.len().is_multiple_of(self.element)
    }
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        device.read_string(access, self.element, self.bytes.data);
    }
    fn piece<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, at: usize, size: usize) -> bool {
        self.bytes.piece(device, access, at, size)
    }
}

impl Transfer for WriteString<'_> {
    #[inline(always)]
    fn fill(&mut self, _: [u8; 8]) {}
    fn unit(&self) -> usize {
        self.element
    }
    fn is_whole(&self) -> bool {
        !self.bytes.data.is_empty() && self.bytes.data.len().is_multiple_of(self.element)
    }
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        device.write_string(access, self.element, self.bytes.data);
    }
    fn piece<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, at: usize, size: usize) -> bool {
        self.bytes.piece(device, access, at, size)
    }
}

impl<T: Transfer + ?Sized> Transfer for &mut T {
    fn fill(&mut self, open_bus: [u8; 8]) {
        (**self).fill(open_bus);
    }
    fn unit(&self) -> usize {
        (**self).unit()
    }
    fn is_whole(&self) -> bool {
        (**self).is_whole()
    }
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        (**self).whole(device, access);
    }
    fn piece<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, at: usize, size: usize) -> bool {
        (**self).piece(device, access, at, size)
    }
}

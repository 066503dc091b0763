//! The data of an access, in one direction, on its way to the device.

use crate::access::{Access, fill};
use crate::device::Device;
use crate::resource::AccessSizes;

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
    /// Hands it over in pieces of accepted sizes, which there are.
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes);
}

pub(crate) struct Read<'b> {
    pub(crate) data: &'b mut [u8],
}

pub(crate) struct Write<'b> {
    pub(crate) data: &'b [u8],
}

pub(crate) struct ReadString<'b> {
    pub(crate) element: usize,
    pub(crate) data: &'b mut [u8],
}

pub(crate) struct WriteString<'b> {
    pub(crate) element: usize,
    pub(crate) data: &'b [u8],
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
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes) {
        let mut access = *access;
        let mut rest = &mut *self.data;
        while let Some((piece, behind)) =
            sizes.piece(access.offset(), rest.len()).and_then(|size| rest.split_at_mut_checked(size))
        {
            device.read(&access, piece);
            access = access.advanced(piece.len() as u64);
            rest = behind;
        }
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
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes) {
        let mut access = *access;
        let mut rest = self.data;
        while let Some((piece, behind)) =
            sizes.piece(access.offset(), rest.len()).and_then(|size| rest.split_at_checked(size))
        {
            device.write(&access, piece);
            access = access.advanced(size_of_val(piece) as u64);
            rest = behind;
        }
    }
}

impl Transfer for ReadString<'_> {
    #[inline(always)]
    fn fill(&mut self, open_bus: [u8; 8]) {
        fill(self.data, open_bus);
    }
    fn unit(&self) -> usize {
        self.element
    }
    fn is_whole(&self) -> bool {
        !self.data.is_empty() && self.data.len().is_multiple_of(self.element)
    }
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        device.read_string(access, self.element, self.data);
    }
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes) {
        for data in self.data.chunks_mut(self.element.max(1)) {
            Read { data }.in_pieces(device, access, sizes);
        }
    }
}

impl Transfer for WriteString<'_> {
    #[inline(always)]
    fn fill(&mut self, _: [u8; 8]) {}
    fn unit(&self) -> usize {
        self.element
    }
    fn is_whole(&self) -> bool {
        !self.data.is_empty() && self.data.len().is_multiple_of(self.element)
    }
    fn whole<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) {
        device.write_string(access, self.element, self.data);
    }
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes) {
        for data in self.data.chunks(self.element.max(1)) {
            Write { data }.in_pieces(device, access, sizes);
        }
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
    fn in_pieces<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>, sizes: AccessSizes) {
        (**self).in_pieces(device, access, sizes);
    }
}

//! The data of an access: a read or a write, of one element or of a string.

use crate::access::{Access, IoError, fill};
use crate::device::Device;
use crate::observer::AccessDirection;

/// The data of an access, in one direction.
pub(crate) trait Transfer {
    /// Gives every byte of a read the open-bus value. It comes before everything that can fail.
    fn fill(&mut self, open_bus: [u8; 4]);
    /// What is written, or what was read.
    fn data(&self) -> &[u8];
    fn direction(&self) -> AccessDirection;
    /// The length in bytes of the data.
    fn len(&self) -> usize {
        self.data().len()
    }
    /// The length in bytes of one element: the whole of a plain access, or one element of a string.
    fn element_len(&self) -> usize;
    /// Whether the data is a whole number of elements, and not empty.
    fn has_valid_len(&self) -> bool;
    /// Whether it is a piece of an access, which is not split further.
    fn is_piece(&self) -> bool {
        false
    }
    /// Tells which range it is for, where no [`call`](Self::call) does: the device is called for parts, or refuses the size.
    fn is_for(&mut self, access: &Access<'_>) {
        let _ = access;
    }
    /// Calls the device once, with all of the data.
    fn call<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) -> Result<(), IoError>;
    /// Calls the device with a part of the data: `size` bytes from position `at` on. `None` if the data ends before.
    fn call_part<'d>(
        &mut self,
        device: &dyn Device<'d>,
        access: &Access<'_>,
        at: usize,
        size: usize,
    ) -> Option<Result<(), IoError>>;
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
    fn data(&self) -> &[u8] {
        self.data
    }
    fn direction(&self) -> AccessDirection {
        AccessDirection::Read
    }
    #[inline(always)]
    fn fill(&mut self, open_bus: [u8; 4]) {
        fill(self.data, open_bus);
    }
    #[inline(always)]
    fn element_len(&self) -> usize {
        self.data.len()
    }
    #[inline(always)]
    fn has_valid_len(&self) -> bool {
        !self.data.is_empty()
    }
    #[inline(always)]
    fn call<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) -> Result<(), IoError> {
        Ok(device.try_read(access, self.data)?)
    }
    #[inline(never)]
    fn call_part<'d>(
        &mut self,
        device: &dyn Device<'d>,
        access: &Access<'_>,
        at: usize,
        size: usize,
    ) -> Option<Result<(), IoError>> {
        let piece = self.data.get_mut(at..at.saturating_add(size))?;
        Some(device.try_read(access, piece).map_err(IoError::from))
    }
}

impl Transfer for Write<'_> {
    fn data(&self) -> &[u8] {
        self.data
    }
    fn direction(&self) -> AccessDirection {
        AccessDirection::Write
    }
    #[inline(always)]
    fn fill(&mut self, _: [u8; 4]) {}
    #[inline(always)]
    fn element_len(&self) -> usize {
        self.data.len()
    }
    #[inline(always)]
    fn has_valid_len(&self) -> bool {
        !self.data.is_empty()
    }
    #[inline(always)]
    fn call<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) -> Result<(), IoError> {
        Ok(device.try_write(access, self.data)?)
    }
    #[inline(never)]
    fn call_part<'d>(
        &mut self,
        device: &dyn Device<'d>,
        access: &Access<'_>,
        at: usize,
        size: usize,
    ) -> Option<Result<(), IoError>> {
        let piece = self.data.get(at..at.saturating_add(size))?;
        Some(device.try_write(access, piece).map_err(IoError::from))
    }
}

impl Transfer for ReadString<'_> {
    fn data(&self) -> &[u8] {
        self.bytes.data
    }
    fn direction(&self) -> AccessDirection {
        AccessDirection::Read
    }
    fn fill(&mut self, [byte, ..]: [u8; 4]) {
        self.bytes.data.fill(byte);
    }
    fn element_len(&self) -> usize {
        self.element
    }
    fn has_valid_len(&self) -> bool {
        !self.bytes.data.is_empty() && self.bytes.data.len().is_multiple_of(self.element)
    }
    fn call<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) -> Result<(), IoError> {
        Ok(device.read_string(access, self.element, self.bytes.data)?)
    }
    fn call_part<'d>(
        &mut self,
        device: &dyn Device<'d>,
        access: &Access<'_>,
        at: usize,
        size: usize,
    ) -> Option<Result<(), IoError>> {
        self.bytes.call_part(device, access, at, size)
    }
}

impl Transfer for WriteString<'_> {
    fn data(&self) -> &[u8] {
        self.bytes.data
    }
    fn direction(&self) -> AccessDirection {
        AccessDirection::Write
    }
    #[inline(always)]
    fn fill(&mut self, _: [u8; 4]) {}
    fn element_len(&self) -> usize {
        self.element
    }
    fn has_valid_len(&self) -> bool {
        !self.bytes.data.is_empty() && self.bytes.data.len().is_multiple_of(self.element)
    }
    fn call<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) -> Result<(), IoError> {
        Ok(device.write_string(access, self.element, self.bytes.data)?)
    }
    fn call_part<'d>(
        &mut self,
        device: &dyn Device<'d>,
        access: &Access<'_>,
        at: usize,
        size: usize,
    ) -> Option<Result<(), IoError>> {
        self.bytes.call_part(device, access, at, size)
    }
}

impl<T: Transfer + ?Sized> Transfer for &mut T {
    fn data(&self) -> &[u8] {
        (**self).data()
    }
    fn direction(&self) -> AccessDirection {
        (**self).direction()
    }
    fn fill(&mut self, open_bus: [u8; 4]) {
        (**self).fill(open_bus);
    }
    fn element_len(&self) -> usize {
        (**self).element_len()
    }
    fn has_valid_len(&self) -> bool {
        (**self).has_valid_len()
    }
    fn is_piece(&self) -> bool {
        (**self).is_piece()
    }
    fn is_for(&mut self, access: &Access<'_>) {
        (**self).is_for(access);
    }
    fn call<'d>(&mut self, device: &dyn Device<'d>, access: &Access<'_>) -> Result<(), IoError> {
        (**self).call(device, access)
    }
    fn call_part<'d>(
        &mut self,
        device: &dyn Device<'d>,
        access: &Access<'_>,
        at: usize,
        size: usize,
    ) -> Option<Result<(), IoError>> {
        (**self).call_part(device, access, at, size)
    }
}

//! A buffer that is filled from its start. What does not fit is counted.

use super::TableError;

pub(super) struct Writer<'b> {
    buffer: &'b mut [u8],
    position: usize,
}

impl<'b> Writer<'b> {
    pub(super) fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, position: 0 }
    }

    /// How many bytes have been written, those that did not fit included.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.patch(self.position, bytes);
        self.position = self.position.saturating_add(bytes.len());
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    pub(super) fn word(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn dword(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn qword(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn zeros(&mut self, count: usize) {
        (0..count).for_each(|_| self.byte(0));
    }

    /// Zeros up to a multiple of `alignment`, a power of two.
    pub(super) fn align(&mut self, alignment: usize) {
        let mask = alignment.wrapping_sub(1);
        self.zeros(self.position.wrapping_neg() & mask);
    }

    /// Overwrites what is at `at`.
    pub(super) fn patch(&mut self, at: usize, bytes: &[u8]) {
        let place = self.buffer.get_mut(at..).unwrap_or_default();
        place.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    }

    /// Puts bytes before what is at `at`.
    pub(super) fn insert(&mut self, at: usize, bytes: &[u8]) {
        for from in (at..self.position).rev() {
            let moved = self.buffer.get(from).copied();
            if let (Some(moved), Some(to)) = (moved, self.buffer.get_mut(from.saturating_add(bytes.len()))) {
                *to = moved;
            }
        }
        self.position = self.position.saturating_add(bytes.len());
        self.patch(at, bytes);
    }

    /// What makes the bytes from `from` on add up to 0.
    pub(super) fn checksum(&self, from: usize, count: usize) -> u8 {
        let bytes = self.buffer.iter().skip(from).take(count);
        bytes.fold(0, |sum: u8, byte| sum.wrapping_add(*byte)).wrapping_neg()
    }

    /// How many bytes were written.
    pub(super) fn finish(&self) -> Result<usize, TableError> {
        if self.position > self.buffer.len() {
            return Err(TableError::TooSmall { needed: self.position });
        }
        Ok(self.position)
    }
}

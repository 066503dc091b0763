//! Host memory that a guest uses: its RAM, and what backs ranges of its devices.

use std::io;
use std::ptr::NonNull;

/// The size of a page, in bytes: the unit in which KVM maps memory.
pub const PAGE: u64 = 4096;

/// A piece of zeroed, page-aligned host memory that a guest may change at any time.
///
/// It is therefore never borrowed: bytes are copied in and out.
pub struct Memory {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the value and stays where it is until the value is dropped; every access copies through
// raw pointers, so that no reference to what another thread, or the guest, changes is ever made.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `length` bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// What `mmap` refuses: a length of 0, or more than the host has.
    pub fn new(length: u64) -> io::Result<Self> {
        let length = length.next_multiple_of(PAGE) as usize;
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap returned the address 0"))?;
        Ok(Self { start, length })
    }

    /// The length in bytes, a multiple of [`PAGE`].
    pub fn length(&self) -> u64 {
        self.length as u64
    }

    /// The address of the first byte in this process.
    pub fn host_address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let to = self.check(offset, bytes.len());
        // SAFETY: `check` proved that the target lies in the mapping, which no reference points into.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Fills `bytes` from `offset`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        let from = self.check(offset, bytes.len());
        // SAFETY: `check` proved that the source lies in the mapping; `bytes` is not part of it, as nothing borrows it.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Copies a little-endian 64-bit word to `offset`.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn write_u64(&self, offset: u64, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }

    /// The little-endian 64-bit word at `offset`.
    ///
    /// # Panics
    /// If there is none.
    pub fn read_u64(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn check(&self, offset: u64, length: usize) -> *mut u8 {
        let end = (offset as usize).checked_add(length);
        assert!(end.is_some_and(|end| end <= self.length), "{length} bytes at {offset:#x} of {:#x}", self.length);
        // SAFETY: the offset lies within the mapping or at its end.
        unsafe { self.start.as_ptr().add(offset as usize) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and nothing else unmaps it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_the_end_is_checked() {
        let memory = Memory::new(100).unwrap();
        assert_eq!(memory.length(), PAGE);
        memory.write_u64(PAGE - 8, 0x1122_3344_5566_7788);
        assert_eq!(memory.read_u64(PAGE - 8), 0x1122_3344_5566_7788);
        assert!(std::panic::catch_unwind(|| memory.read_u64(PAGE - 7)).is_err());
        assert!(std::panic::catch_unwind(|| memory.read_u64(u64::MAX)).is_err());
    }
}

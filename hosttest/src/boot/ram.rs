//! The RAM of a PC: below 1 MiB with a hole for a video card, above it up to where devices begin, and the rest above 4 GiB.

use std::io;
use std::sync::Arc;

use vm_device::{GuestAddress, IoRange};

use crate::vmm::memory::Memory;
use crate::vmm::vm::Vm;

/// 1 MiB, in bytes.
pub const MIB: u64 = 1 << 20;
/// 4 GiB, in bytes.
pub const FOUR_GIB: u64 = 4 << 30;
/// The hole for the memory of a video card: its first address, and the first after it.
pub const VIDEO: u64 = 0xa_0000;
const VIDEO_END: u64 = 0xc_0000;
/// The text of a video card's screen (IBM VGA, mode 3): a character and its attribute, 80 in a row.
pub const TEXT: u64 = 0xb_8000;
const TEXT_SIZE: u64 = 0x8000;
const COLUMNS: usize = 80;
const ROWS: usize = 25;
/// Where the RAM below 4 GiB ends at the latest: what follows is for devices.
pub const LOW_END: u64 = 0xb000_0000;

/// The RAM of a machine, and the text on its screen.
pub struct Ram {
    /// Each part with its address, in order.
    parts: Vec<(u64, Arc<Memory>)>,
    text: Arc<Memory>,
    size: u64,
}

impl Ram {
    /// `size` bytes of RAM, counted with the hole below 1 MiB: a multiple of 1 MiB, 2 MiB or more.
    ///
    /// # Errors
    /// What the host refuses.
    pub fn new(size: u64) -> io::Result<Self> {
        let low = size.min(LOW_END);
        let mut parts = vec![(0, VIDEO), (VIDEO_END, low - VIDEO_END)];
        if size > low {
            parts.push((FOUR_GIB, size - low));
        }
        let memory = |(base, size)| Ok((base, Arc::new(Memory::new(size)?)));
        let parts = parts.into_iter().map(memory).collect::<io::Result<_>>()?;
        Ok(Self { parts, text: Arc::new(Memory::new(TEXT_SIZE)?), size })
    }

    /// How many bytes of it there are, as the machine was asked for.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The first address after the RAM below 4 GiB.
    pub fn low_end(&self) -> u64 {
        self.size.min(LOW_END)
    }

    /// The ranges with RAM, and that of the screen, which no device can have.
    pub fn ranges(&self) -> impl Iterator<Item = IoRange> {
        let parts = self.parts.iter().map(|(base, memory)| (*base, memory.length()));
        parts.chain([(TEXT, TEXT_SIZE)]).filter_map(|(base, size)| IoRange::with_size(base.into(), size.into()).ok())
    }

    /// Shows all of it to the guest.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn map(&self, vm: &Vm) -> Result<(), kvm_ioctls::Error> {
        for (base, memory) in &self.parts {
            vm.map(GuestAddress(*base), memory)?;
        }
        vm.map(GuestAddress(TEXT), &self.text).map(drop)
    }

    /// Copies `bytes` to `address`. `None` if they do not lie in one part of the RAM.
    #[must_use]
    pub fn write(&self, address: u64, bytes: &[u8]) -> Option<()> {
        let (offset, memory) = self.find(address, bytes.len())?;
        memory.write(offset, bytes);
        Some(())
    }

    /// Fills `bytes` from `address`. `None` if there are not so many in one part of the RAM.
    #[must_use]
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let (offset, memory) = self.find(address, bytes.len())?;
        memory.read(offset, bytes);
        Some(())
    }

    /// The RAM from address 0 on, for page tables and what else lies there.
    pub fn first(&self) -> &Memory {
        &self.parts[0].1
    }

    /// What stands on the screen, a line for each row.
    pub fn screen(&self) -> Vec<String> {
        let mut cells = vec![0; 2 * COLUMNS * ROWS];
        self.text.read(0, &mut cells);
        let character = |cell: &[u8]| match cell[0] {
            0 => ' ',
            byte if byte.is_ascii_graphic() || byte == b' ' => char::from(byte),
            // Code page 437 has lines and blocks there.
            _ => '#',
        };
        let row = |row: &[u8]| row.chunks(2).map(character).collect::<String>().trim_end().to_owned();
        cells.chunks(2 * COLUMNS).map(row).collect()
    }

    fn find(&self, address: u64, length: usize) -> Option<(u64, &Memory)> {
        self.parts.iter().find_map(|(base, memory)| {
            let offset = address.checked_sub(*base)?;
            let end = offset.checked_add(length as u64)?;
            (end <= memory.length()).then_some((offset, &**memory))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_lies_above_4_gib_and_nothing_in_the_hole() {
        let ram = Ram::new(LOW_END + 2 * MIB).unwrap();
        let ranges: Vec<_> = ram.ranges().map(|range| (range.first().0, range.last().0)).collect();
        assert_eq!(
            ranges,
            [(0, 0x9_ffff), (0xc_0000, LOW_END - 1), (FOUR_GIB, FOUR_GIB + 2 * MIB - 1), (TEXT, 0xb_ffff)]
        );
        assert_eq!((ram.write(VIDEO - 1, &[1, 2]), ram.write(LOW_END - 1, &[1, 2])), (None, None));
        assert_eq!(ram.write(FOUR_GIB + 2 * MIB - 2, &[1, 2]), Some(()));
        let mut bytes = [0; 2];
        assert_eq!((ram.read(FOUR_GIB + 2 * MIB - 2, &mut bytes), bytes), (Some(()), [1, 2]));
        assert_eq!(ram.read(u64::MAX, &mut bytes), None);
    }

    #[test]
    fn the_screen_is_read_row_by_row() {
        let ram = Ram::new(2 * MIB).unwrap();
        let cells: Vec<u8> = b"Pass: 1".iter().flat_map(|byte| [*byte, 7]).collect();
        ram.text.write(2 * 80, &cells);
        assert_eq!(ram.screen()[..3], ["", "Pass: 1", ""]);
    }
}

//! The bytes of a case.

use vm_device::exit::x86::Mode;

use super::{LENGTH, Maker};

/// The opcodes of one byte that have a memory operand which the crate executes.
const ONE_BYTE: [u8; 63] = [
    0x00, 0x01, 0x02, 0x03, 0x08, 0x09, 0x0a, 0x0b, 0x10, 0x11, 0x12, 0x13, 0x18, 0x19, 0x1a, 0x1b, 0x20, 0x21, 0x22,
    0x23, 0x28, 0x29, 0x2a, 0x2b, 0x30, 0x31, 0x32, 0x33, 0x38, 0x39, 0x3a, 0x3b, 0x63, 0x80, 0x81, 0x82, 0x83, 0x84,
    0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8f, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac,
    0xad, 0xae, 0xaf, 0x8f, 0xff, 0xff,
];
const MORE_ONE_BYTE: [u8; 5] = [0xc6, 0xc7, 0xf6, 0xf7, 0xfe];
/// The same after 0F.
const AFTER_0F: [u8; 29] = [
    0xa3, 0xab, 0xb3, 0xbb, 0xba, 0xb0, 0xb1, 0xc0, 0xc1, 0xc3, 0xc7, 0xc7, 0xb6, 0xb7, 0xbe, 0xbf, 0x10, 0x11, 0x28,
    0x29, 0x2b, 0x6e, 0x7e, 0x6f, 0x7f, 0xd6, 0xe7, 0xf0, 0x12,
];
/// The same after 0F and 38.
const AFTER_0F_38: [u8; 3] = [0xf0, 0xf1, 0x2a];
/// The same in map 1 of VEX.
const VEX: [u8; 13] = [0x10, 0x11, 0x28, 0x29, 0x2b, 0x6e, 0x7e, 0x6f, 0x7f, 0xd6, 0xe7, 0xf0, 0x50];

impl Maker<'_> {
    /// Often bytes that begin as an instruction does, and sometimes any.
    pub(super) fn bytes(&mut self, mode: Mode) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.random.next().to_le_bytes()[..word.len()]);
        }
        if self.random.below(5) == 0 {
            return bytes;
        }
        let mut start = Vec::with_capacity(LENGTH);
        while self.random.below(3) == 0 {
            start.push(
                self.one_of(&[0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x65, 0x65, 0x66, 0x67, 0xf3]),
            );
        }
        if self.random.below(40) == 0 {
            start.push(0x64);
        }
        if mode == Mode::Bits64 && self.random.below(2) == 0 {
            start.push(0x40 | self.byte() & 0xf);
            match self.random.below(30) {
                0 => start.push(0x40 | self.byte() & 0xf),
                1 => start.push(self.one_of(&[0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e])),
                _ => {}
            }
        }
        match self.random.below(20) {
            0..=8 => start.push(self.one_of(&ONE_BYTE)),
            9 | 10 => start.push(self.one_of(&MORE_ONE_BYTE)),
            11 => start.push(self.byte()),
            12..=15 => start.extend([0x0f, self.one_of(&AFTER_0F)]),
            16 => start.extend([0x0f, self.byte()]),
            17 => start.extend([0x0f, 0x38, self.one_of(&AFTER_0F_38)]),
            18 => {
                let unused = if self.random.below(8) == 0 { self.byte() & 0x78 } else { 0x78 };
                let opcode = self.one_of(&VEX);
                start.extend([0xc5, 0x80 | self.byte() & 0x80 | unused | self.byte() & 7, opcode]);
            }
            _ => {
                let unused = if self.random.below(8) == 0 { self.byte() & 0x78 } else { 0x78 };
                let (map, opcode) = if self.random.below(4) == 0 { (2, 0x2a) } else { (1, self.one_of(&VEX)) };
                // Outside 64-bit mode these bits tell it from LES.
                let inverted = if mode == Mode::Bits64 { self.byte() & 0xe0 } else { 0xe0 };
                start.extend([0xc4, inverted | map, self.byte() & 0x87 | unused, opcode]);
            }
        }
        let mut modrm = self.byte();
        if modrm >= 0xc0 && self.random.below(12) != 0 {
            modrm &= 0x7f;
        }
        // The field of ModRM is a part of these opcodes, and few values of it have a memory operand.
        let fields: &[u8] = match start[..] {
            [.., 0x0f, 0xc7] => &[1],
            [.., 0x0f, 0xba] => &[4, 5, 6, 7],
            [.., 0xff] => &[0, 1, 6, 6],
            [.., 0xfe] => &[0, 1],
            [.., 0x8f | 0xc6 | 0xc7] => &[0],
            _ => &[],
        };
        if !fields.is_empty() && self.random.below(3) != 0 {
            modrm = modrm & 0xc7 | self.one_of(fields) << 3;
        }
        start.push(modrm);
        for (byte, start) in bytes.iter_mut().zip(start) {
            *byte = start;
        }
        bytes
    }
}

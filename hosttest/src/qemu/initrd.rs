//! The initial RAM disk of a guest that is given none: its `/init` prints a line and turns the machine off.

use std::path::Path;

use crate::cpio::Archive;

/// The line that `/init` prints.
pub(crate) const GREETING: &str = "init: hello from an unmodified kernel\n";

/// Where the program is loaded.
const BASE: u32 = 0x40_0000;

// System calls (Linux, arch/x86/entry/syscalls/syscall_64.tbl) and their arguments.
const WRITE: u32 = 1;
const IOCTL: u32 = 16;
const REBOOT: u32 = 169;
const STANDARD_OUTPUT: u32 = 1;
/// With the argument 1: waits until all output is sent.
const TCSBRK: u32 = 0x5409;
const REBOOT_MAGIC: [u32; 2] = [0xfee1_dead, 0x2812_1969];
const POWER_OFF: u32 = 0x4321_fedc;

/// A RAM disk whose `/init` prints a line and turns the machine off.
#[must_use]
pub fn archive() -> Vec<u8> {
    let mut archive = Archive::new();
    archive.executable(Path::new("init"), &init());
    archive.finish()
}

/// The program: an ELF file of its headers, its code, and the line (System V ABI, chapters 4 and 5).
fn init() -> Vec<u8> {
    const HEADERS: u32 = 64 + 56;
    const CODE: u32 = 3 * 22;
    let text = BASE + HEADERS + CODE;
    let length = GREETING.len() as u32;
    let size = u64::from(HEADERS + CODE + length);

    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little-endian, version 1
    [2u16, 62].iter().for_each(|half| file.extend_from_slice(&half.to_le_bytes())); // executable, x86-64
    file.extend_from_slice(&1u32.to_le_bytes());
    let entry = u64::from(BASE + HEADERS);
    [entry, 64, 0].iter().for_each(|word| file.extend_from_slice(&word.to_le_bytes())); // program headers at 64
    file.extend_from_slice(&0u32.to_le_bytes());
    [64u16, 56, 1, 64, 0, 0].iter().for_each(|half| file.extend_from_slice(&half.to_le_bytes()));

    [1u32, 5].iter().for_each(|word| file.extend_from_slice(&word.to_le_bytes())); // to load, readable and executable
    let base = u64::from(BASE);
    [0, base, base, size, size, 0x1000].iter().for_each(|word| file.extend_from_slice(&word.to_le_bytes()));

    file.extend_from_slice(&system_call(WRITE, [STANDARD_OUTPUT, text, length]));
    file.extend_from_slice(&system_call(IOCTL, [STANDARD_OUTPUT, TCSBRK, 1]));
    file.extend_from_slice(&system_call(REBOOT, [REBOOT_MAGIC[0], REBOOT_MAGIC[1], POWER_OFF]));
    file.extend_from_slice(GREETING.as_bytes());
    file
}

/// `mov eax, number; mov edi, ...; mov esi, ...; mov edx, ...; syscall`
fn system_call(number: u32, [edi, esi, edx]: [u32; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    for (opcode, value) in [(0xb8, number), (0xbf, edi), (0xbe, esi), (0xba, edx)] {
        code.push(opcode);
        code.extend_from_slice(&value.to_le_bytes());
    }
    code.extend_from_slice(&[0x0f, 0x05]);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_of_whole_words_and_holds_the_program() {
        let archive = archive();
        assert_eq!(archive.len() % 4, 0);
        // The header of 110 bytes and the name, in whole words.
        let program = &archive[116..];
        assert_eq!(&program[..4], b"\x7fELF");
        assert_eq!(&init()[186..], GREETING.as_bytes());
    }
}

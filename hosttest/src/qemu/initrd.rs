//! The initial RAM disk of a guest that is given none: its `/init` prints a line and turns the machine off.

use std::path::Path;

use crate::cpio::Archive;

/// The line that `/init` prints.
pub(crate) const GREETING: &str = "init: hello from an unmodified kernel\n";

/// Where the program is loaded.
const BASE: u32 = 0x40_0000;
const HEADERS: u32 = 64 + 56;

// Arguments of system calls.
const STANDARD_OUTPUT: u32 = 1;
/// With the argument 1: waits until all output is sent.
const TCSBRK: u32 = 0x5409;
const REBOOT_MAGIC: [u32; 2] = [0xfee1_dead, 0x2812_1969];
const POWER_OFF: u32 = 0x4321_fedc;

/// The processor that a program is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Processor {
    /// x86-64.
    X86,
    /// AArch64.
    Arm,
    /// RISC-V of 64 bits.
    RiscV,
}

impl Processor {
    /// Its number in ELF files.
    const fn elf_machine(self) -> u16 {
        match self {
            Processor::X86 => 62,
            Processor::Arm => 183,
            Processor::RiscV => 243,
        }
    }

    /// The numbers of the system calls `write`, `ioctl` and `reboot` (Linux, arch/x86/entry/syscalls/syscall_64.tbl,
    /// include/uapi/asm-generic/unistd.h).
    const fn system_calls(self) -> [u32; 3] {
        match self {
            Processor::X86 => [1, 16, 169],
            Processor::Arm | Processor::RiscV => [64, 29, 142],
        }
    }

    /// A system call with three arguments.
    fn system_call(self, number: u32, arguments: [u32; 3]) -> Vec<u8> {
        let mut code = Vec::new();
        match self {
            // mov eax, number; mov edi, ...; mov esi, ...; mov edx, ...; syscall
            Processor::X86 => {
                let [edi, esi, edx] = arguments;
                for (opcode, value) in [(0xb8, number), (0xbf, edi), (0xbe, esi), (0xba, edx)] {
                    code.push(opcode);
                    code.extend(value.to_le_bytes());
                }
                code.extend([0x0f, 0x05]);
            }
            // mov w8, number; mov w0, ...; mov w1, ...; mov w2, ...; svc #0. Each move is a movz and a movk.
            Processor::Arm => {
                let [w0, w1, w2] = arguments;
                for (register, value) in [(8, number), (0, w0), (1, w1), (2, w2)] {
                    let (low, high) = (value & 0xffff, value >> 16);
                    code.extend((0x5280_0000 | low << 5 | register).to_le_bytes());
                    code.extend((0x72a0_0000 | high << 5 | register).to_le_bytes());
                }
                code.extend(0xd400_0001_u32.to_le_bytes());
            }
            // li a7, number; li a0, ...; li a1, ...; li a2, ...; ecall. Each load is a lui and an addiw, which has a sign.
            Processor::RiscV => {
                let [a0, a1, a2] = arguments;
                for (register, value) in [(17, number), (10, a0), (11, a1), (12, a2)] {
                    let (low, high) = (value & 0xfff, value.wrapping_add(0x800) & 0xffff_f000);
                    code.extend((high | register << 7 | 0x37).to_le_bytes());
                    code.extend((low << 20 | register << 15 | register << 7 | 0x1b).to_le_bytes());
                }
                code.extend(0x0000_0073_u32.to_le_bytes());
            }
        }
        code
    }
}

/// A RAM disk whose `/init` prints a line and turns the machine off.
#[must_use]
pub fn archive(processor: Processor) -> Vec<u8> {
    let mut archive = Archive::new();
    archive.executable(Path::new("init"), &init(processor));
    archive.finish()
}

/// The program: an ELF file of its headers, its code, and the line (System V ABI, chapters 4 and 5).
fn init(processor: Processor) -> Vec<u8> {
    let [write, ioctl, reboot] = processor.system_calls();
    let length = GREETING.len() as u32;
    // The text follows the code, whose length does not depend on where it is.
    let code = |text: u32| {
        let calls = [
            processor.system_call(write, [STANDARD_OUTPUT, text, length]),
            processor.system_call(ioctl, [STANDARD_OUTPUT, TCSBRK, 1]),
            processor.system_call(reboot, [REBOOT_MAGIC[0], REBOOT_MAGIC[1], POWER_OFF]),
        ];
        calls.concat()
    };
    let code = code(BASE + HEADERS + code(0).len() as u32);
    let size = u64::from(HEADERS + length) + code.len() as u64;

    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little-endian, version 1
    [2, processor.elf_machine()].iter().for_each(|half| file.extend_from_slice(&half.to_le_bytes())); // executable
    file.extend_from_slice(&1u32.to_le_bytes());
    let entry = u64::from(BASE + HEADERS);
    [entry, 64, 0].iter().for_each(|word| file.extend_from_slice(&word.to_le_bytes())); // program headers at 64
    file.extend_from_slice(&0u32.to_le_bytes());
    [64u16, 56, 1, 64, 0, 0].iter().for_each(|half| file.extend_from_slice(&half.to_le_bytes()));

    [1u32, 5].iter().for_each(|word| file.extend_from_slice(&word.to_le_bytes())); // to load, readable and executable
    let base = u64::from(BASE);
    [0, base, base, size, size, 0x1000].iter().for_each(|word| file.extend_from_slice(&word.to_le_bytes()));

    file.extend(code);
    file.extend_from_slice(GREETING.as_bytes());
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_of_whole_words_and_holds_the_program() {
        let archive = archive(Processor::X86);
        assert_eq!(archive.len() % 4, 0);
        // The header of 110 bytes and the name, in whole words.
        let program = &archive[116..];
        assert_eq!(&program[..4], b"\x7fELF");
        assert_eq!(&init(Processor::X86)[186..], GREETING.as_bytes());
        assert_eq!(&init(Processor::Arm)[228..], GREETING.as_bytes());
        assert_eq!(&init(Processor::RiscV)[228..], GREETING.as_bytes());
    }
}

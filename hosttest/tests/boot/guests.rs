//! Tiny guests, made by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The first serial port; the register that resets a PC; the control register of ACPI, and what switches off by it.
const COM1: u16 = 0x3f8;
const RESET: u16 = 0xcf9;
const PM1_CONTROL: u16 = 0x604;
const SLEEP_ENABLE: u16 = 0x2000;

/// Code of a processor in one of its modes.
#[derive(Clone)]
pub(crate) struct Code {
    bytes: Vec<u8>,
    /// What makes an operand one of 16 bits.
    word: &'static [u8],
}

impl Code {
    /// For 16-bit mode.
    pub(crate) fn short() -> Self {
        Self { bytes: Vec::new(), word: &[] }
    }

    /// For 32-bit and for 64-bit mode.
    pub(crate) fn long() -> Self {
        Self { bytes: Vec::new(), word: &[0x66] }
    }

    pub(crate) fn then(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// mov dx, port
    fn select(self, port: u16) -> Self {
        let [low, high] = port.to_le_bytes();
        let word = self.word;
        self.then(word).then(&[0xba, low, high])
    }

    /// Writes a byte to a port: mov al, byte; out dx, al
    fn out(self, port: u16, byte: u8) -> Self {
        self.select(port).then(&[0xb0, byte, 0xee])
    }

    pub(crate) fn print(self, text: &str) -> Self {
        text.bytes().fold(self, |code, byte| code.out(COM1, byte))
    }

    /// Prints the text at ESI, up to a 0: lodsb; test al, al; jz; out dx, al; jmp
    fn print_at_esi(self) -> Self {
        self.select(COM1).then(&[0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8])
    }

    /// jmp $
    pub(crate) fn spin(self) -> Self {
        self.then(&[0xeb, 0xfe])
    }

    pub(crate) fn reset(self) -> Self {
        self.out(RESET, 6).spin()
    }

    /// mov ax, SLP_EN; out dx, ax
    pub(crate) fn power_off(self) -> Self {
        let [low, high] = SLEEP_ENABLE.to_le_bytes();
        let word = self.word;
        self.select(PM1_CONTROL).then(word).then(&[0xb8, low, high]).then(word).then(&[0xef]).spin()
    }
}

/// A file for a test. Tests that run at the same time have the same file under one name, which is whole at any time.
pub(crate) fn file(name: &str, bytes: &[u8]) -> PathBuf {
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot");
    let (file, new) =
        (directory.join(name), directory.join(format!("new.{}", WRITTEN.fetch_add(1, Ordering::Relaxed))));
    let write = || {
        fs::create_dir_all(&directory)?;
        fs::write(&new, bytes)?;
        fs::rename(&new, &file)
    };
    write().expect("the temporary directory can be written");
    file
}

/// A firmware image of a page: the processor starts 16 bytes before its end, which is that of the first 4 GiB, and goes to its start.
pub(crate) fn firmware(name: &str, code: &Code) -> PathBuf {
    const SIZE: usize = 0x1000;
    assert!(code.bytes.len() <= SIZE - 16);
    let mut image = code.bytes.clone();
    image.resize(SIZE - 16, 0);
    // jmp, from the end of this instruction to the start of the page
    let distance = (-((SIZE - 16 + 3) as i16)).to_le_bytes();
    image.extend_from_slice(&[0xe9, distance[0], distance[1]]);
    image.resize(SIZE, 0);
    file(name, &image)
}

const MIB: u64 = 1 << 20;

/// An ELF file (System V ABI, chapters 4 and 5) whose code is loaded to 1 MiB and starts there: in 64-bit mode, or in 32-bit mode if
/// a note says so, as PVH has it (Xen, public/elfnote.h, `XEN_ELFNOTE_PHYS32_ENTRY`).
pub(crate) fn elf(name: &str, code: &Code, is_pvh: bool) -> PathBuf {
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    let note =
        [&4_u32.to_le_bytes()[..], &8_u32.to_le_bytes(), &18_u32.to_le_bytes(), b"Xen\0", &MIB.to_le_bytes()].concat();
    let note_at = HEADER + 2 * SEGMENT;
    let code_at = note_at + note.len() as u64;
    let segment = |kind: u32, offset: u64, address: u64, size: u64| {
        let mut header = [kind.to_le_bytes(), 7_u32.to_le_bytes()].concat();
        for word in [offset, address, address, size, size, 1] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        header
    };
    let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable for x86-64.
    for half in [2_u16, 62, 1, 0] {
        image.extend_from_slice(&half.to_le_bytes());
    }
    for word in [MIB, HEADER, 0] {
        image.extend_from_slice(&word.to_le_bytes());
    }
    for half in [0_u16, 0, HEADER as u16, SEGMENT as u16, 2, 0, 0, 0] {
        image.extend_from_slice(&half.to_le_bytes());
    }
    image.extend(segment(1, code_at, MIB, code.bytes.len() as u64));
    // A segment that is a note, or is none.
    image.extend(segment(if is_pvh { 4 } else { 0 }, note_at, 0, note.len() as u64));
    image.extend(note);
    image.extend_from_slice(&code.bytes);
    file(name, &image)
}

/// A bzImage (Linux, Documentation/arch/x86/boot.rst, protocol 2.12) of one sector of setup code, and of this code, which is in 32-bit
/// mode. It takes `init_size` bytes from 1 MiB on, and a command line of 255 bytes.
pub(crate) fn bz_image(name: &str, code: &Code, init_size: u32) -> PathBuf {
    let mut image = vec![0; 0x400];
    let sixteenths = code.bytes.len().div_ceil(16);
    let fields: [(usize, &[u8]); 9] = [
        (0x1f1, &[1]),
        (0x1f4, &(sixteenths as u32).to_le_bytes()),
        (0x1fe, &[0x55, 0xaa]),
        (0x202, b"HdrS"),
        (0x206, &0x020c_u16.to_le_bytes()),
        // It is loaded high.
        (0x211, &[1]),
        (0x214, &(MIB as u32).to_le_bytes()),
        (0x238, &255_u32.to_le_bytes()),
        (0x258, &MIB.to_le_bytes()),
    ];
    for (offset, bytes) in fields {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    image[0x260..0x264].copy_from_slice(&init_size.to_le_bytes());
    image.extend_from_slice(&code.bytes);
    image.resize(0x400 + 16 * sixteenths, 0);
    file(name, &image)
}

/// Prints a text and ends.
pub(crate) fn greets() -> PathBuf {
    firmware("greets", &Code::short().print("hello\r\n").power_off())
}

/// Prints a text, and never ends.
pub(crate) fn spins() -> PathBuf {
    firmware("spins", &Code::short().print("ready\r\n").spin())
}

/// Sends back what it receives, and never ends: in al, dx of the line status, until there is a byte; in al, dx; out dx, al
pub(crate) fn echoes() -> PathBuf {
    let echo = [0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb, 0xba, 0xf8, 0x03, 0xec, 0xee, 0xeb, 0xf1];
    firmware("echoes", &Code::short().print("ready\r\n").then(&echo))
}

/// Resets the machine, and ends when it finds that it has.
pub(crate) fn resets_once() -> PathBuf {
    let second = Code::short().print("second\r\n").power_off();
    // cmp byte ptr [0x500], 0x5a; jne over the second time; mov byte ptr [0x500], 0x5a
    let code = Code::short().then(&[0x80, 0x3e, 0x00, 0x05, 0x5a, 0x0f, 0x85]);
    let code = code.then(&(second.bytes.len() as u16).to_le_bytes()).then(&second.bytes);
    firmware("resets_once", &code.then(&[0xc6, 0x06, 0x00, 0x05, 0x5a]).print("first\r\n").reset())
}

/// Resets the machine again and again.
pub(crate) fn resets_always() -> PathBuf {
    firmware("resets_always", &Code::short().print("again\r\n").reset())
}

/// Says what Linux says at its end, and resets the machine.
pub(crate) fn panics() -> PathBuf {
    firmware("panics", &Code::short().print("[ 1.0] Kernel panic - not syncing: tiny\r\n").reset())
}

/// ud2, without an interrupt descriptor table
pub(crate) fn faults() -> PathBuf {
    elf("faults", &Code::long().then(&[0x0f, 0x0b]), true)
}

/// Three ways into a kernel, each of which finds its command line in another way, prints it, and ends.
pub(crate) fn entries() -> [PathBuf; 3] {
    let print = |find: &[u8]| Code::long().then(find).print_at_esi().power_off();
    // mov esi, [rsi + 0x228]: `cmd_line_ptr` of Linux' boot parameters
    let linux = print(&[0x8b, 0xb6, 0x28, 0x02, 0x00, 0x00]);
    // mov esi, [ebx + 24]: `cmdline_paddr` of PVH's start information
    let pvh = print(&[0x8b, 0x73, 0x18]);
    [elf("entry_64", &linux, false), elf("entry_pvh", &pvh, true), bz_image("entry_32", &linux, 0x1000)]
}

/// Starts all other processors, and ends when there were so many.
pub(crate) fn starts_others(count: u8) -> PathBuf {
    const START: u32 = 0x8000;
    const INTERRUPT_COMMAND: [u8; 4] = 0xfee0_0300_u32.to_le_bytes();
    // lock inc byte ptr [0x9000]; hlt; jmp
    let other = [0xf0, 0xfe, 0x06, 0x00, 0x90, 0xf4, 0xeb, 0xfd];
    let copied = (START..).zip(other).fold(Code::long(), |code, (address, byte)| {
        // mov byte ptr [address], byte
        code.then(&[0xc6, 0x05]).then(&address.to_le_bytes()).then(&[byte])
    });
    // To all but this one: INIT, then a start at page 8 (Intel SDM, 3A, 11.4.4.1).
    let started = [0x000c_4500_u32, 0x000c_4608].into_iter().fold(copied, |code, command| {
        // mov dword ptr [interrupt command], command
        code.then(&[0xc7, 0x05]).then(&INTERRUPT_COMMAND).then(&command.to_le_bytes())
    });
    // cmp byte ptr [0x9000], count; jne
    let waited = started.then(&[0x80, 0x3d, 0x00, 0x90, 0x00, 0x00, count, 0x75, 0xf7]);
    elf("starts_others", &waited.print("all there\r\n").power_off(), true)
}

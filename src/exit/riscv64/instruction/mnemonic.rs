//! The names of the instructions that touch memory and are not executed here.
//!
//! The encodings are those of the RISC-V ISA manual vol. I, of the chapters that are named beside them, and of vol. II, "Hypervisor
//! Instructions".

use super::decode::{bits, opcode};

/// The names of one atomic operation, by bits 14:12, the width. An empty one does not exist.
type ByWidth = [&'static str; 5];

/// Atomic operations by bits 31:27: the extensions "A", "Zabha", "Zacas", "Zicfiss" and "Zalasr".
#[rustfmt::skip]
const ATOMIC: [(u32, ByWidth); 15] = [
    (0b00000, ["amoadd.b", "amoadd.h", "amoadd.w", "amoadd.d", ""]),
    (0b00001, ["amoswap.b", "amoswap.h", "amoswap.w", "amoswap.d", ""]),
    (LOAD_RESERVED, ["", "", "lr.w", "lr.d", ""]),
    (0b00011, ["", "", "sc.w", "sc.d", ""]),
    (0b00100, ["amoxor.b", "amoxor.h", "amoxor.w", "amoxor.d", ""]),
    (0b00101, ["amocas.b", "amocas.h", "amocas.w", "amocas.d", "amocas.q"]),
    (LOAD_ACQUIRE, ["lb.aq", "lh.aq", "lw.aq", "ld.aq", ""]),
    (STORE_RELEASE, ["sb.rl", "sh.rl", "sw.rl", "sd.rl", ""]),
    (0b01000, ["amoor.b", "amoor.h", "amoor.w", "amoor.d", ""]),
    (0b01001, ["", "", "ssamoswap.w", "ssamoswap.d", ""]),
    (0b01100, ["amoand.b", "amoand.h", "amoand.w", "amoand.d", ""]),
    (0b10000, ["amomin.b", "amomin.h", "amomin.w", "amomin.d", ""]),
    (0b10100, ["amomax.b", "amomax.h", "amomax.w", "amomax.d", ""]),
    (0b11000, ["amominu.b", "amominu.h", "amominu.w", "amominu.d", ""]),
    (0b11100, ["amomaxu.b", "amomaxu.h", "amomaxu.w", "amomaxu.d", ""]),
];
const LOAD_RESERVED: u32 = 0b00010;
const LOAD_ACQUIRE: u32 = 0b00110;
const STORE_RELEASE: u32 = 0b00111;

/// Loads of the hypervisor extension by bits 31:20.
const HYPERVISOR_LOADS: [(u32, &str); 9] = [
    (0x600, "hlv.b"),
    (0x601, "hlv.bu"),
    (0x640, "hlv.h"),
    (0x641, "hlv.hu"),
    (0x643, "hlvx.hu"),
    (0x680, "hlv.w"),
    (0x681, "hlv.wu"),
    (0x683, "hlvx.wu"),
    (0x6c0, "hlv.d"),
];

/// Stores of the hypervisor extension by bits 31:25.
const HYPERVISOR_STORES: [(u32, &str); 4] = [(0x31, "hsv.b"), (0x33, "hsv.h"), (0x35, "hsv.w"), (0x37, "hsv.d")];

/// Shadow stacks: the extension "Zicfiss". They have `x1` or `x5`.
const SHADOW_STACK: [(u32, &str); 4] =
    [(0xce10_4073, "sspush"), (0xce50_4073, "sspush"), (0xcdc0_c073, "sspopchk"), (0xcdc2_c073, "sspopchk")];

/// The name of an instruction that touches memory and is not executed here, or what it is; `None` for any other. One of 2 bytes
/// is in the low half.
pub(super) fn of(word: u32) -> Option<&'static str> {
    if bits(word, 0, 2) == 3 { of_long(word) } else { of_compressed(word) }
}

/// The same, where it is as in memory or as `htinst` has it, and is known to be refused.
pub(super) fn of_refused(word: u32) -> Option<&'static str> {
    match of(word) {
        // `htinst` clears bit 1 of an instruction of 2 bytes.
        None if bits(word, 0, 2) == 1 => of_long(word | 2),
        name => name,
    }
}

fn of_compressed(word: u32) -> Option<&'static str> {
    Some(match (bits(word, 0, 2), bits(word, 13, 3)) {
        (0, 0b001) => "c.fld",
        (0, 0b101) => "c.fsd",
        (2, 0b001) => "c.fldsp",
        (2, 0b101) => "c.fsdsp",
        (1, _) if word == 0x6081 => "c.sspush",
        (1, _) if word == 0x6281 => "c.sspopchk",
        _ => return None,
    })
}

fn of_long(word: u32) -> Option<&'static str> {
    let width = bits(word, 12, 3);
    Some(match (bits(word, 0, 7), width) {
        (opcode::LOAD_FP, 1) => "flh",
        (opcode::LOAD_FP, 2) => "flw",
        (opcode::LOAD_FP, 3) => "fld",
        (opcode::LOAD_FP, 4) => "flq",
        (opcode::LOAD_FP, _) => "vector load",
        (opcode::STORE_FP, 1) => "fsh",
        (opcode::STORE_FP, 2) => "fsw",
        (opcode::STORE_FP, 3) => "fsd",
        (opcode::STORE_FP, 4) => "fsq",
        (opcode::STORE_FP, _) => "vector store",
        (opcode::AMO, _) => return atomic(word),
        (opcode::MISC_MEM, 2) => return cache_block(word),
        (opcode::SYSTEM, 4) => return system(word),
        (opcode::CUSTOM_0 | opcode::CUSTOM_1 | opcode::CUSTOM_2 | opcode::CUSTOM_3, _) => "custom instruction",
        // Bits 4:2 are all set.
        (opcode, _) if opcode & 0x1c == 0x1c => "instruction of more than 4 bytes",
        _ => return None,
    })
}

fn atomic(word: u32) -> Option<&'static str> {
    let operation = bits(word, 27, 5);
    let (acquire, release) = (bits(word, 26, 1) == 1, bits(word, 25, 1) == 1);
    let (source, destination) = (bits(word, 20, 5), bits(word, 7, 5));
    let valid = match operation {
        LOAD_RESERVED => source == 0,
        LOAD_ACQUIRE => source == 0 && acquire,
        STORE_RELEASE => destination == 0 && release,
        _ => true,
    };
    let (_, names) = ATOMIC.iter().find(|(number, _)| *number == operation && valid)?;
    names.get(bits(word, 12, 3) as usize).copied().filter(|name| !name.is_empty())
}

/// Cache-block operations: the extensions "Zicbom" and "Zicboz".
fn cache_block(word: u32) -> Option<&'static str> {
    let no_destination = bits(word, 7, 5) == 0;
    Some(match bits(word, 20, 12) {
        0 if no_destination => "cbo.inval",
        1 if no_destination => "cbo.clean",
        2 if no_destination => "cbo.flush",
        4 if no_destination => "cbo.zero",
        _ => return None,
    })
}

fn system(word: u32) -> Option<&'static str> {
    let upper = bits(word, 20, 12);
    let no_destination = bits(word, 7, 5) == 0;
    let load = HYPERVISOR_LOADS.iter().find(|(number, _)| *number == upper);
    let store = HYPERVISOR_STORES.iter().find(|(number, _)| *number == upper >> 5 && no_destination);
    let shadow = SHADOW_STACK.iter().find(|(number, _)| *number == word);
    load.or(store).or(shadow).map(|(_, name)| *name)
}

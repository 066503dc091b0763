//! `exit::riscv64::instruction::decode` agrees with two other decoders about every instruction that they know.
//!
//! Neither knows the extension "Zcb", nor vectors: the test of the whole module has words of an assembler for these.

use raki::{BaseIOpcode, COpcode, Decode, Isa, OpcodeKind};
use riscv_isa::{Target, Xlen, decode_le_bytes};
use vm_device::exit::Size;
use vm_device::exit::Size::{Byte, Dword, Qword, Word};
use vm_device::exit::riscv64::instruction::Operation::{Load, LoadUnsigned, Store};
use vm_device::exit::riscv64::instruction::{DecodeError, Location, Operation, decode};

/// What a decoder says of an instruction, in the words of this crate.
#[derive(PartialEq, Debug)]
enum Says {
    /// A load or store of an integer register: operation, size, register, base, offset, length.
    Transfer(Operation, Size, u8, u8, i16, usize),
    /// Another instruction, by its name in lower case. This crate has names only for those that touch memory.
    Another(String),
    /// It is no instruction, or none that the decoder knows.
    Nothing,
}

fn this_crate(bytes: &[u8]) -> Says {
    match decode(bytes) {
        Ok(instruction) => {
            let Location::Register { base, offset } = instruction.location() else { panic!("{instruction:?}") };
            let (operation, size, length) = (instruction.operation(), instruction.size(), instruction.length());
            Says::Transfer(operation, size, instruction.register(), base, offset, length)
        }
        Err(error @ DecodeError::Unsupported(_)) => Says::Another(error.mnemonic().expect("it has a name").into()),
        Err(DecodeError::NoMemoryOperand(_)) => Says::Another(String::new()),
        Err(DecodeError::Malformed(_)) => Says::Nothing,
        Err(error) => panic!("{bytes:02x?}: {error}"),
    }
}

fn riscv_isa(bytes: &[u8]) -> Says {
    use riscv_isa::Instruction as I;
    let target = Target {
        xlen: Xlen::Rv64,
        privileged: true,
        supervisor_mode: true,
        m: true,
        a: true,
        f: true,
        d: true,
        q: true,
        c: true,
        zicsr: true,
        zifencei: true,
        zfh: true,
        ..Target::default()
    };
    let (instruction, length) = decode_le_bytes(bytes, &target).expect("the bytes are enough");
    let transfer = |operation, size, register, base, offset| {
        Says::Transfer(operation, size, register as u8, base as u8, offset as i16, length)
    };
    match instruction {
        I::UNIMP => Says::Nothing,
        I::LB { rd, rs1, offset } => transfer(Load, Byte, rd, rs1, offset),
        I::LH { rd, rs1, offset } => transfer(Load, Word, rd, rs1, offset),
        I::LW { rd, rs1, offset } => transfer(Load, Dword, rd, rs1, offset),
        I::LD { rd, rs1, offset } => transfer(Load, Qword, rd, rs1, offset),
        I::LBU { rd, rs1, offset } => transfer(LoadUnsigned, Byte, rd, rs1, offset),
        I::LHU { rd, rs1, offset } => transfer(LoadUnsigned, Word, rd, rs1, offset),
        I::LWU { rd, rs1, offset } => transfer(LoadUnsigned, Dword, rd, rs1, offset),
        I::SB { rs1, rs2, offset } => transfer(Store, Byte, rs2, rs1, offset),
        I::SH { rs1, rs2, offset } => transfer(Store, Word, rs2, rs1, offset),
        I::SW { rs1, rs2, offset } => transfer(Store, Dword, rs2, rs1, offset),
        I::SD { rs1, rs2, offset } => transfer(Store, Qword, rs2, rs1, offset),
        another => {
            // `AMOADD_W { rd: 1, ... }`
            let text = format!("{another:?}");
            let name = text.split(' ').next().unwrap_or_default().to_lowercase().replace('_', ".");
            let compressed = if length == 2 && name.starts_with('f') { "c." } else { "" };
            let stack = if compressed.is_empty() || bytes[0] & 3 != 2 { "" } else { "sp" };
            Says::Another(format!("{compressed}{name}{stack}"))
        }
    }
}

fn raki(bytes: &[u8]) -> Says {
    let decoded = match *bytes {
        [first, second, third, fourth] if first & 3 == 3 => {
            u32::from_le_bytes([first, second, third, fourth]).decode(Isa::Rv64)
        }
        [first, second, ..] => u16::from_le_bytes([first, second]).decode(Isa::Rv64),
        _ => panic!("{bytes:02x?}"),
    };
    let Ok(instruction) = decoded else { return Says::Nothing };
    let (operation, size) = match &instruction.opc {
        OpcodeKind::BaseI(BaseIOpcode::LB) => (Load, Byte),
        OpcodeKind::BaseI(BaseIOpcode::LH) => (Load, Word),
        OpcodeKind::BaseI(BaseIOpcode::LW) | OpcodeKind::C(COpcode::LW | COpcode::LWSP) => (Load, Dword),
        OpcodeKind::BaseI(BaseIOpcode::LD) | OpcodeKind::C(COpcode::LD | COpcode::LDSP) => (Load, Qword),
        OpcodeKind::BaseI(BaseIOpcode::LBU) => (LoadUnsigned, Byte),
        OpcodeKind::BaseI(BaseIOpcode::LHU) => (LoadUnsigned, Word),
        OpcodeKind::BaseI(BaseIOpcode::LWU) => (LoadUnsigned, Dword),
        OpcodeKind::BaseI(BaseIOpcode::SB) => (Store, Byte),
        OpcodeKind::BaseI(BaseIOpcode::SH) => (Store, Word),
        OpcodeKind::BaseI(BaseIOpcode::SW) | OpcodeKind::C(COpcode::SW | COpcode::SWSP) => (Store, Dword),
        OpcodeKind::BaseI(BaseIOpcode::SD) | OpcodeKind::C(COpcode::SD | COpcode::SDSP) => (Store, Qword),
        another => return Says::Another(another.to_string()),
    };
    let register = if operation == Store { instruction.rs2 } else { instruction.rd };
    // Relative to the stack pointer, it has no base.
    let base = instruction.rs1.unwrap_or(2);
    let length = if instruction.is_compressed { 2 } else { 4 };
    let register = register.expect("a load or store has a register") as u8;
    let offset = instruction.imm.expect("a load or store has an offset") as i16;
    Says::Transfer(operation, size, register, base as u8, offset, length)
}

/// Where another decoder and this crate differ, and the manual is with this crate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fault {
    /// C.LWSP and C.LDSP to `x0` are reserved (vol. I, "Stack-Pointer-Based Loads and Stores"). Both decoders take them for loads.
    StackLoadToZero,
    /// C.ADDI4SPN with an immediate of 0 is reserved (vol. I, "Integer Register-Immediate Operations" of "C"). Both take it for one.
    AddNothing,
    /// C.LUI with an immediate of 0 is reserved, and was given to "Zcmop" and "Zicfiss" (vol. I, "Integer Constant-Generation
    /// Instructions"). riscv-isa takes C.SSPUSH and C.SSPOPCHK for it.
    UpperNothing,
    /// LR with a source register that is not `x0` is none (vol. I, "Load-Reserved/Store-Conditional Instructions"). raki takes it for one.
    ReservedWithSource,
    /// SSPUSH has no destination, and `x0` as its base; SSPOPCHK has no destination, and `x1` or `x5` as its source (vol. I,
    /// "Zicfiss"). raki takes any.
    ShadowStackOfAny,
}

/// Names of what one of the two decoders does not know.
const UNKNOWN_TO_RISCV_ISA: [&str; 9] =
    ["vector", "custom", "hlv", "hsv", "cbo.", "sspush", "sspopchk", "c.ss", "ssamoswap"];
const UNKNOWN_TO_RAKI: [&str; 13] =
    ["vector", "custom", "hlv", "hsv", "flh", "flw", "fld", "flq", "fsh", "fsw", "fsd", "fsq", "c.f"];
/// Names of what neither knows: "Zabha", "Zacas", "Zalasr", what is longer than 4 bytes, and cache-block operations but the zeroing.
fn is_unknown_to_both(name: &str) -> bool {
    let [zabha, zalasr] = [&[".b", ".h"][..], &[".aq", ".rl"]].map(|ends| ends.iter().any(|end| name.ends_with(end)));
    zabha
        || zalasr
        || name.starts_with("amocas")
        || name.starts_with("instruction of")
        || ["cbo.inval", "cbo.clean", "cbo.flush"].contains(&name)
}

/// "Zcb": the quadrant 0 with bits 15:13 = 100.
fn is_zcb(bytes: &[u8]) -> bool {
    bytes[0] & 3 == 0 && bytes[1] >> 5 == 0b100
}

fn known_fault(first: &Says, second: &Says, bytes: &[u8]) -> Option<Fault> {
    match (first, second) {
        (Says::Nothing, Says::Transfer(Load, Dword | Qword, 0, 2, _, 2)) => Some(Fault::StackLoadToZero),
        (Says::Nothing, Says::Another(_)) if bytes[0] & 3 == 0 && bytes[1] >> 5 == 0 => Some(Fault::AddNothing),
        (Says::Another(first), Says::Another(name)) if first.starts_with("c.ss") && name == "lui" => {
            Some(Fault::UpperNothing)
        }
        (Says::Nothing, Says::Another(name)) if name == "lr.w" || name == "lr.d" => Some(Fault::ReservedWithSource),
        (Says::Another(first), Says::Another(name)) if first.is_empty() && name.starts_with("ssp") => {
            Some(Fault::ShadowStackOfAny)
        }
        _ => None,
    }
}

/// Names of what a decoder says that touch memory, or none does.
fn touches_memory(name: &str) -> bool {
    let name = name.trim_start_matches("c.");
    let floating = ["flh", "flw", "fld", "flq", "fsh", "fsw", "fsd", "fsq"];
    let is_floating = floating.contains(&name.trim_end_matches("sp"));
    is_floating
        || ["amo", "lr.", "sc.", "cbo.", "sspush", "sspopchk", "ssamoswap"].iter().any(|start| name.starts_with(start))
}

#[derive(Default)]
struct Agreement {
    transfers: usize,
    names: usize,
    faults: std::collections::BTreeSet<Fault>,
}

impl Agreement {
    fn compare(&mut self, bytes: &[u8], second: Says, unknown: &[&str]) {
        let first = this_crate(bytes);
        if let Some(fault) = known_fault(&first, &second, bytes) {
            self.faults.insert(fault);
            return;
        }
        let agree = match (&first, &second) {
            (Says::Transfer(..), Says::Nothing) => is_zcb(bytes),
            (Says::Transfer(..), _) => {
                self.transfers += 1;
                first == second
            }
            (Says::Another(name), Says::Nothing) => {
                name.is_empty() || is_unknown_to_both(name) || unknown.iter().any(|start| name.starts_with(start))
            }
            (Says::Another(first), Says::Another(second)) if first.is_empty() => !touches_memory(second),
            (Says::Another(_), _) => {
                self.names += 1;
                first == second
            }
            (Says::Nothing, _) => second == Says::Nothing,
        };
        assert!(agree, "{bytes:02x?}: {first:?}, the other decoder: {second:?}");
    }

    fn of_both(bytes: impl Iterator<Item = [u8; 4]>) -> [Self; 2] {
        let mut agreements = [Self::default(), Self::default()];
        for bytes in bytes {
            let [first, second] = &mut agreements;
            first.compare(&bytes, riscv_isa(&bytes), &UNKNOWN_TO_RISCV_ISA);
            second.compare(&bytes, raki(&bytes), &UNKNOWN_TO_RAKI);
        }
        agreements
    }
}

/// xorshift64: the same words in every run.
fn random(state: &mut u64) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 20) as u32
}

#[test]
fn the_decoders_agree_on_every_compressed_instruction() {
    let parcels = (0..=u16::MAX).filter(|parcel| parcel & 3 != 3);
    let [first, second] = Agreement::of_both(parcels.map(|parcel| u32::from(parcel).to_le_bytes()));
    // Of 4 forms of 2 registers and 2 forms of the stack pointer each 2,048 words, of 2 more without those to `x0` 1,984.
    let transfers = 4 * 2048 + 2 * 2048 + 2 * 1984;
    assert_eq!([first.transfers, second.transfers], [transfers; 2]);
    assert_eq!(first.names, 4 * 2048);
    assert_eq!(
        first.faults.into_iter().collect::<Vec<_>>(),
        [Fault::StackLoadToZero, Fault::AddNothing, Fault::UpperNothing]
    );
    assert_eq!(second.faults.into_iter().collect::<Vec<_>>(), [Fault::StackLoadToZero, Fault::AddNothing]);
}

/// The opcodes of what touches memory, with every width and all upper 12 bits, and random registers; then with all registers, and random
/// upper bits.
#[test]
fn the_decoders_agree_on_every_load_store_and_atomic_operation() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut words = Vec::new();
    for opcode in [0x03, 0x23, 0x07, 0x27, 0x2f, 0x0f, 0x73] {
        for upper_and_width in 0..0x8000_u32 {
            let registers = random(&mut state) & 0x000f_8f80;
            words.push((upper_and_width >> 3) << 20 | (upper_and_width & 7) << 12 | registers | opcode);
        }
        for registers_and_width in 0..0x2000_u32 {
            let [base, register, width] =
                [registers_and_width >> 8, registers_and_width >> 3 & 31, registers_and_width & 7];
            words.push(random(&mut state) & 0xfff0_0000 | base << 15 | width << 12 | register << 7 | opcode);
        }
    }
    let [first, second] = Agreement::of_both(words.into_iter().map(u32::to_le_bytes));
    // 7 widths of loads and 4 of stores.
    assert_eq!([first.transfers, second.transfers], [11 * (4096 + 1024); 2]);
    assert!(first.names > 40_000 && second.names > 2_000, "{} {}", first.names, second.names);
    assert_eq!(first.faults.into_iter().collect::<Vec<_>>(), []);
    assert_eq!(second.faults.into_iter().collect::<Vec<_>>(), [Fault::ReservedWithSource, Fault::ShadowStackOfAny]);
}

#[test]
fn the_decoders_agree_on_random_words() {
    let mut state = 0x2545_f491_4f6c_dd1d;
    let words = (0..300_000).map(|_| random(&mut state).to_le_bytes());
    let [first, second] = Agreement::of_both(words);
    assert!(first.transfers > 50_000 && second.transfers > 50_000, "{} {}", first.transfers, second.transfers);
}

//! `exit::x86::instruction::decode` agrees with iced-x86 about every instruction, in every mode.

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, OpAccess, OpKind};
use vm_device::exit::x86::instruction::{DecodeError, Direction, Extension, Instruction, Operand, Operation, decode};
use vm_device::exit::x86::{AddressSize, Gpr, Mode, Register, Repeat, Rflags, Segment, Size, StringForm};

const MODES: [(Mode, u32); 3] = [(Mode::Bits16, 16), (Mode::Bits32, 32), (Mode::Bits64, 64)];

/// What the second decoder says of an instruction, in the words of this crate.
#[derive(PartialEq, Debug)]
struct Expected {
    operation: Operation,
    destination: Operand,
    source: Operand,
    size: Size,
    register_size: Size,
    sign: bool,
    direction: Direction,
    locked: bool,
    string: Option<StringForm>,
    flags: Rflags,
    length: usize,
}

impl From<Instruction> for Expected {
    fn from(instruction: Instruction) -> Self {
        Self {
            operation: instruction.operation(),
            destination: instruction.destination(),
            source: instruction.source(),
            size: instruction.size(),
            register_size: instruction.register_size().0,
            sign: instruction.register_size().1 == Extension::Sign,
            direction: instruction.direction(),
            locked: instruction.is_locked(),
            string: instruction.string(),
            flags: instruction.operation().flags(),
            length: instruction.length(),
        }
    }
}

fn operation(mnemonic: Mnemonic) -> Option<Operation> {
    Some(match mnemonic {
        Mnemonic::Mov | Mnemonic::Movnti | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => Operation::Move,
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => Operation::Move,
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => Operation::Move,
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => Operation::Move,
        Mnemonic::Add => Operation::Add,
        Mnemonic::Adc => Operation::Adc,
        Mnemonic::Sub => Operation::Sub,
        Mnemonic::Sbb => Operation::Sbb,
        Mnemonic::And => Operation::And,
        Mnemonic::Or => Operation::Or,
        Mnemonic::Xor => Operation::Xor,
        Mnemonic::Cmp => Operation::Cmp,
        Mnemonic::Test => Operation::Test,
        Mnemonic::Bt => Operation::Bt,
        Mnemonic::Bts => Operation::Bts,
        Mnemonic::Btr => Operation::Btr,
        Mnemonic::Btc => Operation::Btc,
        Mnemonic::Xchg => Operation::Xchg,
        Mnemonic::Xadd => Operation::Xadd,
        Mnemonic::Cmpxchg => Operation::Cmpxchg,
        Mnemonic::Inc => Operation::Inc,
        Mnemonic::Dec => Operation::Dec,
        Mnemonic::Not => Operation::Not,
        Mnemonic::Neg => Operation::Neg,
        _ => return None,
    })
}

fn register(register: iced_x86::Register) -> Option<Operand> {
    use iced_x86::Register as R;
    let high = |gpr| Some(Operand::Register(Register::High(gpr)));
    match register {
        R::AH => high(Gpr::Rax),
        R::CH => high(Gpr::Rcx),
        R::DH => high(Gpr::Rdx),
        R::BH => high(Gpr::Rbx),
        _ if register.is_gpr() => {
            let number = register.full_register() as u32 - R::RAX as u32;
            Some(Operand::Register(Register::Low(Gpr::from_number(number as u8).unwrap())))
        }
        _ => None,
    }
}

fn operand(instruction: &iced_x86::Instruction, index: u32) -> Option<Operand> {
    Some(match instruction.op_kind(index) {
        OpKind::Register => register(instruction.op_register(index))?,
        OpKind::Immediate8 => Operand::Immediate(instruction.immediate8() as i8 as u64),
        OpKind::Immediate16 => Operand::Immediate(instruction.immediate16() as i16 as u64),
        OpKind::Immediate32 => Operand::Immediate(instruction.immediate32() as i32 as u64),
        OpKind::Immediate8to16 => Operand::Immediate(instruction.immediate8to16() as u64),
        OpKind::Immediate8to32 => Operand::Immediate(instruction.immediate8to32() as u64),
        OpKind::Immediate8to64 => Operand::Immediate(instruction.immediate8to64() as u64),
        OpKind::Immediate32to64 => Operand::Immediate(instruction.immediate32to64() as u64),
        OpKind::MemorySegSI
        | OpKind::MemorySegESI
        | OpKind::MemorySegRSI
        | OpKind::MemoryESDI
        | OpKind::MemoryESEDI
        | OpKind::MemoryESRDI
        | OpKind::Memory => Operand::Memory,
        _ => return None,
    })
}

fn string(instruction: &iced_x86::Instruction, bitness: u32) -> Option<StringForm> {
    let kinds = (0..instruction.op_count()).map(|index| instruction.op_kind(index));
    let address_size = kinds
        .filter_map(|kind| match kind {
            OpKind::MemorySegSI | OpKind::MemoryESDI => Some(AddressSize::Bits16),
            OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(AddressSize::Bits32),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(AddressSize::Bits64),
            _ => None,
        })
        .next()?;
    let reads = (0..instruction.op_count()).any(|index| {
        matches!(instruction.op_kind(index), OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI)
    });
    Some(StringForm {
        repeat: match instruction.mnemonic() {
            _ if !instruction.has_rep_prefix() && !instruction.has_repne_prefix() => Repeat::Once,
            mnemonic if operation(mnemonic) != Some(Operation::Cmp) => Repeat::Count,
            _ if instruction.has_repne_prefix() => Repeat::WhileNotEqual,
            _ => Repeat::WhileEqual,
        },
        address_size,
        segment: match instruction.memory_segment() {
            // STOS has no segment to speak of; iced says ES, the only one it could have.
            _ if !reads => Segment::Ds,
            iced_x86::Register::FS => Segment::Fs,
            iced_x86::Register::GS => Segment::Gs,
            // iced reports these prefixes in 64-bit mode too, where they are ignored.
            _ if bitness == 64 => Segment::Ds,
            iced_x86::Register::ES => Segment::Es,
            iced_x86::Register::CS => Segment::Cs,
            iced_x86::Register::SS => Segment::Ss,
            _ => Segment::Ds,
        },
    })
}

/// `None` for what this crate refuses as unsupported or as touching no memory.
fn expected(instruction: &iced_x86::Instruction, bitness: u32, info: &mut InstructionInfoFactory) -> Option<Expected> {
    let operation = operation(instruction.mnemonic())?;
    let (mut destination, mut source) = (operand(instruction, 0)?, None);
    if instruction.op_count() > 1 {
        source = Some(operand(instruction, 1)?);
    }
    if operation == Operation::Xchg && source == Some(Operand::Memory) {
        (destination, source) = (Operand::Memory, Some(destination));
    }
    let source = match operation {
        Operation::Inc | Operation::Dec => Operand::Immediate(1),
        Operation::Not | Operation::Neg => destination,
        _ => source?,
    };
    let info = info.info(instruction);
    let [mut reads, mut writes] = [false; 2];
    for memory in info.used_memory() {
        let access = memory.access();
        reads |= matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite);
        writes |=
            matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite);
    }
    let both_memory = destination == Operand::Memory && source == Operand::Memory && instruction.op_count() == 2;
    let direction = match (reads, writes) {
        (true, true) if both_memory => Direction::Copy,
        (true, true) => Direction::ReadModifyWrite,
        (true, false) => Direction::Read,
        (false, true) => Direction::Write,
        (false, false) => return None,
    };
    let size = Size::from_bytes(instruction.memory_size().size())?;
    let register_size = match destination {
        Operand::Register(_) => Size::from_bytes(instruction.op_register(0).size())?,
        _ => size,
    };
    let sign = matches!(instruction.mnemonic(), Mnemonic::Movsx | Mnemonic::Movsxd);
    let modified = instruction.rflags_modified();
    let mut flags = Rflags::empty();
    for (bit, flag) in [
        (iced_x86::RflagsBits::CF, Rflags::CF),
        (iced_x86::RflagsBits::PF, Rflags::PF),
        (iced_x86::RflagsBits::AF, Rflags::AF),
        (iced_x86::RflagsBits::ZF, Rflags::ZF),
        (iced_x86::RflagsBits::SF, Rflags::SF),
        (iced_x86::RflagsBits::OF, Rflags::OF),
    ] {
        flags.set(flag, modified & bit != 0);
    }
    if matches!(operation, Operation::Bt | Operation::Bts | Operation::Btr | Operation::Btc) {
        // Undefined by Intel, unchanged by AMD.
        flags &= Rflags::CF;
    }
    Some(Expected {
        operation,
        destination,
        source,
        size,
        register_size,
        sign,
        direction,
        locked: instruction.has_lock_prefix() || operation == Operation::Xchg,
        string: string(instruction, bitness),
        flags,
        length: instruction.len(),
    })
}

/// Two kinds of encodings that no compiler emits are refused: the opcode 82, an alias of 80 outside 64-bit mode, and a
/// REX prefix before another one.
fn is_refused_by_choice(bytes: &[u8], second: &iced_x86::Instruction) -> bool {
    let is_rex = |byte: &u8| byte & 0xf0 == 0x40;
    let is_prefix =
        |byte: &u8| is_rex(byte) || [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3].contains(byte);
    let prefixes = bytes.iter().take_while(|byte| is_prefix(byte));
    format!("{:?}", second.code()).ends_with("_82") || prefixes.filter(|byte| is_rex(byte)).count() > 1
}

/// Compares both decoders on `bytes`. True if they agree on an instruction, false if they agree that there is none.
fn compare(bytes: &[u8], mode: Mode, bitness: u32, info: &mut InstructionInfoFactory) -> bool {
    let mut decoder = Decoder::new(bitness, bytes, DecoderOptions::NONE);
    let second = decoder.decode();
    let second_says = if second.is_invalid() { None } else { expected(&second, bitness, info) };
    match (decode(bytes, mode), second_says) {
        (Ok(first), Some(second)) => {
            assert_eq!(Expected::from(first), second, "{mode:?} {bytes:02x?}");
            true
        }
        (Err(_), None) => false,
        (Err(DecodeError::Malformed(_)), Some(_)) if is_refused_by_choice(bytes, &second) => false,
        (first, second_says) => panic!("{mode:?} {bytes:02x?}: {first:?}, iced: {second_says:?}"),
    }
}

/// xorshift64: the same bytes in every run.
fn random(state: &mut u64) -> [u8; 8] {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_le_bytes()
}

#[test]
fn both_decoders_agree_on_every_opcode_and_modrm() {
    const PREFIXES: [&[u8]; 11] = [
        &[],
        &[0x66],
        &[0x67],
        &[0xf3],
        &[0xf2],
        &[0xf0],
        &[0x64],
        &[0x2e],
        &[0x66, 0x67],
        &[0x66, 0xf2],
        &[0x65, 0x3e],
    ];
    const REX: [&[u8]; 6] = [&[], &[0x40], &[0x48], &[0x45], &[0x4f], &[0x48, 0x2e]];
    let mut info = InstructionInfoFactory::new();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut agreed = 0;
    for (mode, bitness) in MODES {
        for opcode_and_modrm in 0..0x2_0000_u32 {
            let [modrm, opcode, map, _] = opcode_and_modrm.to_le_bytes();
            // A few of the prefixes each time; over the 256 values of modrm every one has its turn many times.
            for turn in 0..2 {
                let turn = (2 * usize::from(modrm.wrapping_mul(37)) + turn + usize::from(opcode)) % 66;
                let rex = if mode == Mode::Bits64 { REX[turn / 11] } else { &[] };
                let opcode: &[u8] = if map == 0 { &[opcode] } else { &[0x0f, opcode] };
                let tail = [random(&mut state), random(&mut state)].concat();
                let mut bytes = [PREFIXES[turn % 11], rex, opcode, &[modrm], &tail].concat();
                bytes.truncate(15);
                agreed += usize::from(compare(&bytes, mode, bitness, &mut info));
            }
        }
    }
    assert!(agreed > 60_000, "instructions both decode: {agreed}");
}

#[test]
fn both_decoders_agree_on_random_bytes_of_every_length() {
    let mut info = InstructionInfoFactory::new();
    let mut state = 0x2545_f491_4f6c_dd1d;
    let mut agreed = 0;
    for round in 0..300_000 {
        let bytes = [random(&mut state), random(&mut state)].concat();
        let (mode, bitness) = MODES[round % 3];
        agreed += usize::from(compare(&bytes[..round % 16], mode, bitness, &mut info));
    }
    assert!(agreed > 40_000, "instructions both decode: {agreed}");
}

/// Fewer bytes than the instruction has are an instruction that goes on, and more bytes change nothing.
#[test]
fn truncated_instructions_are_reported_as_such() {
    let mut state = 0xda94_2042_e4dd_58b5;
    for round in 0..100_000 {
        let bytes = [random(&mut state), random(&mut state), random(&mut state)].concat();
        let (mode, _) = MODES[round % 3];
        let Ok(instruction) = decode(&bytes, mode) else { continue };
        assert_eq!(decode(&bytes[..instruction.length()], mode), Ok(instruction));
        for length in 0..instruction.length() {
            let error = decode(&bytes[..length], mode).unwrap_err();
            assert!(matches!(error, DecodeError::Truncated(_)), "{mode:?} {:02x?}: {error}", &bytes[..length]);
        }
    }
}

/// 15 bytes of prefixes are no instruction that goes on: no longer one exists.
#[test]
fn endless_prefixes_are_malformed() {
    for (mode, _) in MODES {
        assert!(matches!(decode(&[0x66; 14], mode), Err(DecodeError::Truncated(_))));
        assert!(matches!(decode(&[0x66; 15], mode), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode(&[0x66; 40], mode), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode(&[], mode), Err(DecodeError::Truncated(_))));
    }
    // add word [rip], imm16 with so many prefixes that the immediate lies beyond the 15th byte.
    let mut long = [0x66; 20];
    long[9..11].copy_from_slice(&[0x81, 0x05]);
    assert!(matches!(decode(&long[..14], Mode::Bits64), Err(DecodeError::Truncated(_))));
    assert!(matches!(decode(&long[..15], Mode::Bits64), Err(DecodeError::Malformed(_))));
    assert!(matches!(decode(&long, Mode::Bits64), Err(DecodeError::Malformed(_))));
}

#[test]
fn errors_show_the_bytes() {
    let error = decode(&[0x0f, 0x0b], Mode::Bits64).unwrap_err();
    assert_eq!(error.to_string(), "an instruction that is not executed here: 0f 0b");
    let error = decode(&[0x48, 0x89, 0xd8], Mode::Bits64).unwrap_err();
    assert!(matches!(error, DecodeError::NoMemoryOperand(bytes) if bytes.as_slice() == [0x48, 0x89, 0xd8]));
}

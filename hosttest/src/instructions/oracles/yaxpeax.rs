//! The decoder `yaxpeax-x86`, which has three decoders, each with types of its own.

use vm_device::exit::x86::instruction::{Operand, Operation};
use vm_device::exit::x86::{Gpr, Mode, Register, Registers, Repeat, Segment, Size};
use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::{long_mode, protected_mode, real_mode};

use super::words::yaxpeax_operation;
use super::{Meaning, bit_distance, effective};

/// What it is in the words of the crate; `None` for what the crate does not execute. What it does not say is as in `like`.
pub(crate) fn meaning(bytes: &[u8], mode: Mode, registers: &Registers, like: Option<Meaning>) -> Option<Meaning> {
    match mode {
        Mode::Bits16 => bits16(bytes, mode, registers, like),
        Mode::Bits32 => bits32(bytes, mode, registers, like),
        Mode::Bits64 => bits64(bytes, mode, registers, like),
    }
}

/// The register of an address.
enum Part {
    Gpr(u8),
    Rip,
}

/// The adapter to one of the three decoders. `bytes`, `quads` and `rip` are register classes and immediates that only 64-bit
/// mode has.
macro_rules! adapter {
    ($name:ident, $isa:ident, quads: [$($quad:ident),*], low_bytes: [$($low_byte:ident),*], rip: [$($rip:ident),*],
        eip: [$($eip:ident),*], displaced: $displaced:ident, immediates: [$($immediate:ident),*], addresses: [$($address:ident),*]) => {
        fn $name(bytes: &[u8], mode: Mode, registers: &Registers, like: Option<Meaning>) -> Option<Meaning> {
            use $isa::{InstDecoder, Opcode, RegSpec, register_class};
            use $isa::Operand as O;

            fn register(register: RegSpec) -> Option<Operand> {
                let number = register.num();
                Some(match register.class() {
                    register_class::B if number >= 4 => Operand::Register(Register::High(Gpr::from_number(number - 4)?)),
                    register_class::B | register_class::W | register_class::D $(| register_class::$low_byte)*
                        $(| register_class::$quad)* => Operand::Register(Register::Low(Gpr::from_number(number)?)),
                    register_class::X | register_class::Y => Operand::Vector(number),
                    _ => return None,
                })
            }

            fn operand(operand: &O) -> Option<Operand> {
                Some(match operand {
                    O::Register { reg } => register(*reg)?,
                    O::ImmediateI8 { imm } => Operand::Immediate(*imm as u64),
                    O::ImmediateU8 { imm } => Operand::Immediate(*imm as i8 as u64),
                    O::ImmediateI16 { imm } => Operand::Immediate(*imm as u64),
                    O::ImmediateU16 { imm } => Operand::Immediate(*imm as i16 as u64),
                    O::ImmediateI32 { imm } => Operand::Immediate(*imm as u64),
                    O::ImmediateU32 { imm } => Operand::Immediate(*imm as i32 as u64),
                    $(O::$immediate { imm } => Operand::Immediate(*imm as u64),)*
                    memory if memory.is_memory() => Operand::Memory,
                    _ => return None,
                })
            }

            /// The register, and how much of it counts.
            fn part(register: RegSpec) -> Option<(Part, Size)> {
                Some(match register.class() {
                    register_class::W => (Part::Gpr(register.num()), Size::Word),
                    register_class::D => (Part::Gpr(register.num()), Size::Dword),
                    $(register_class::$quad => (Part::Gpr(register.num()), Size::Qword),)*
                    $(register_class::$rip => (Part::Rip, Size::Qword),)*
                    $(register_class::$eip => (Part::Rip, Size::Dword),)*
                    _ => return None,
                })
            }

            let instruction = InstDecoder::default().decode_slice(bytes).ok()?;
            let prefixes = instruction.prefixes;
            let is_string = matches!(
                instruction.opcode(),
                Opcode::MOVS | Opcode::STOS | Opcode::LODS | Opcode::CMPS | Opcode::SCAS
            );
            let operation = yaxpeax_operation!(instruction.opcode(), Opcode);
            let operands = [instruction.operand(0), instruction.operand(1)];
            let first = operand(&operands[0])?;
            let second = operand(&operands[1]);
            let (destination, source) = match operation {
                Operation::Xchg if second == Some(Operand::Memory) => (Operand::Memory, first),
                Operation::Inc | Operation::Dec => (first, Operand::Immediate(1)),
                Operation::Not | Operation::Neg | Operation::CmpxchgPair => (first, first),
                Operation::Push => (Operand::Stack, first),
                Operation::Pop => (first, Operand::Stack),
                // CMPS and SCAS have the operand at RDI first here, and last in the manuals.
                Operation::Cmp if is_string => (second?, first),
                _ => (first, second?),
            };
            if destination != Operand::Memory && source != Operand::Memory {
                return None;
            }
            let bytes = usize::from(instruction.mem_size()?.bytes_size()?);
            let prefix = match prefixes.segment() {
                $isa::Segment::ES => Segment::Es,
                $isa::Segment::CS => Segment::Cs,
                $isa::Segment::SS => Segment::Ss,
                $isa::Segment::DS => Segment::Ds,
                $isa::Segment::FS => Segment::Fs,
                $isa::Segment::GS => Segment::Gs,
            };
            let next_rip = registers.rip.wrapping_add(instruction.len().to_const() as u64);
            let place = |index: u8| {
                let (base, index_register, scale, displacement) = match operands[usize::from(index)] {
                    O::MemDeref { base } => (Some(base), None, 1, 0),
                    O::$displaced { base, disp } => (Some(base), None, 1, i64::from(disp)),
                    O::MemIndexScale { index, scale } => (None, Some(index), scale, 0),
                    O::MemIndexScaleDisp { index, scale, disp } => (None, Some(index), scale, i64::from(disp)),
                    O::MemBaseIndexScale { base, index, scale } => (Some(base), Some(index), scale, 0),
                    O::MemBaseIndexScaleDisp { base, index, scale, disp } => {
                        (Some(base), Some(index), scale, i64::from(disp))
                    }
                    $(O::$address { addr } => (None, None, 1, addr as i64),)*
                    _ => return None,
                };
                let mut size = match mode.address_size().size() {
                    _ if prefixes.address_size() => mode.overridden_address_size().size(),
                    size => size,
                };
                let mut value = |register: Option<RegSpec>| {
                    let Some(register) = register else { return Some(0) };
                    let (part, width) = part(register)?;
                    size = width;
                    Some(size.truncate(match part {
                        Part::Gpr(number) => registers.get(Gpr::from_number(number)?),
                        Part::Rip => next_rip,
                    }))
                };
                let sum = value(base)?.wrapping_add(value(index_register)?.wrapping_mul(scale.into()));
                let mut offset = sum.wrapping_add(displacement as u64);
                let is_base = |number| matches!(base.and_then(part), Some((Part::Gpr(base), _)) if base == number);
                // DS stands for no prefix too, and then the stack's registers have SS.
                let segment = match prefix {
                    Segment::Ds if is_base(4) || is_base(5) => Segment::Ss,
                    segment => segment,
                };
                offset = offset.wrapping_add(match operation {
                    Operation::Pop if is_base(4) => bytes as u64,
                    _ => bit_distance(operation, source, bytes, registers),
                });
                Some((effective(segment, mode), size.truncate(offset)))
            };
            let both = destination == source && is_string;
            let (main, other) = if operands[0].is_memory() { (0, 1) } else { (1, 0) };
            let mut operand = place(main)?;
            if is_string && (both || destination == Operand::Memory || operation == Operation::Cmp) {
                operand.0 = effective(Segment::Es, mode);
            }
            Some(Meaning {
                length: instruction.len().to_const() as usize,
                operation,
                destination,
                source,
                bytes,
                extended: like.map_or((Size::Byte, false), |like| like.extended),
                is_locked: prefixes.lock() || operation == Operation::Xchg,
                repeat: match (is_string, operation) {
                    (true, Operation::Cmp) if prefixes.rep() => Repeat::WhileEqual,
                    (true, Operation::Cmp) if prefixes.repnz() => Repeat::WhileNotEqual,
                    (true, _) if prefixes.rep_any() => Repeat::Count,
                    _ => Repeat::Once,
                },
                operand,
                string_source: if both { Some(place(other)?) } else { None },
            })
        }
    };
}

adapter!(bits16, real_mode, quads: [], low_bytes: [], rip: [], eip: [], displaced: MemDisp, immediates: [],
    addresses: [AbsoluteU16, AbsoluteU32]);
adapter!(bits32, protected_mode, quads: [], low_bytes: [], rip: [], eip: [], displaced: Disp, immediates: [],
    addresses: [AbsoluteU16, AbsoluteU32]);
adapter!(bits64, long_mode, quads: [Q], low_bytes: [RB], rip: [RIP], eip: [EIP], displaced: Disp,
    immediates: [ImmediateI64, ImmediateU64], addresses: [AbsoluteU32, AbsoluteU64]);

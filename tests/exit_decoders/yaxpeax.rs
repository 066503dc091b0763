//! What yaxpeax-x86 says of an instruction. It has three decoders, each with types of its own.

use vm_device::exit::x86::Mode;
use vm_device::exit::x86::instruction::{Base, Instruction, MemoryOperand, Operand, Operation};
use vm_device::exit::x86::{Gpr, Register};
use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::{long_mode, protected_mode, real_mode};

use crate::expected::within;
use crate::words::yaxpeax_operation;

/// What can be compared with it: it has neither accesses nor flags.
#[derive(PartialEq, Debug)]
pub(crate) struct Partial {
    pub(crate) operation: Operation,
    pub(crate) destination: Operand,
    pub(crate) source: Operand,
    pub(crate) bytes: usize,
    pub(crate) base: Option<Base>,
    pub(crate) index: Option<Gpr>,
    pub(crate) scale: u8,
    pub(crate) displacement: u64,
    pub(crate) length: usize,
}

impl From<Instruction> for Partial {
    fn from(instruction: Instruction) -> Self {
        let MemoryOperand { base, index, scale, displacement, address_size, .. } = instruction.address();
        Self {
            operation: instruction.operation(),
            destination: instruction.destination(),
            source: instruction.source(),
            bytes: instruction.bytes(),
            base,
            index,
            scale,
            displacement: within(address_size, displacement),
            length: instruction.length(),
        }
    }
}

/// Where it says that the memory operand is.
#[derive(Default)]
struct Place {
    base: Option<Base>,
    index: Option<Gpr>,
    scale: u8,
    displacement: i64,
}

/// `None` for bytes that it does not take, and for what this crate refuses as unsupported or as touching no memory.
pub(crate) fn expected(bytes: &[u8], mode: Mode) -> Option<Partial> {
    let bytes = &bytes[..bytes.len().min(15)];
    match mode {
        Mode::Bits16 => bits16(bytes, mode),
        Mode::Bits32 => bits32(bytes, mode),
        Mode::Bits64 => bits64(bytes, mode),
    }
}

macro_rules! adapter {
    (
        $name:ident, $isa:ident, $disp:ident, classes: [$($class:ident),*], immediates: [$($immediate:ident),*],
        relative: [$($relative:ident),*], absolute: [$($absolute:ident),*]
    ) => {
        fn $name(bytes: &[u8], mode: Mode) -> Option<Partial> {
            use $isa::{InstDecoder, Opcode, RegSpec, register_class};

            fn register(register: RegSpec) -> Option<Operand> {
                let number = register.num();
                let gpr = |number| Gpr::from_number(number).unwrap();
                Some(match register.class() {
                    register_class::B if number >= 4 => Operand::Register(Register::High(gpr(number - 4))),
                    register_class::B | register_class::W | register_class::D $(| register_class::$class)* => {
                        Operand::Register(Register::Low(gpr(number)))
                    }
                    register_class::X | register_class::Y => Operand::Vector(number),
                    _ => return None,
                })
            }

            fn operand(operand: $isa::Operand) -> Option<Operand> {
                Some(match operand {
                    $isa::Operand::Register { reg } => register(reg)?,
                    $isa::Operand::ImmediateI8 { imm } => Operand::Immediate(imm as u64),
                    $isa::Operand::ImmediateI16 { imm } => Operand::Immediate(imm as u64),
                    $isa::Operand::ImmediateI32 { imm } => Operand::Immediate(imm as u64),
                    $($isa::Operand::$immediate { imm } => Operand::Immediate(imm as u64),)*
                    memory if memory.is_memory() => Operand::Memory,
                    _ => return None,
                })
            }

            fn base(register: RegSpec) -> Option<Base> {
                match register.class() {
                    $(register_class::$relative => Some(Base::Rip),)*
                    _ => Some(Base::Gpr(Gpr::from_number(register.num())?)),
                }
            }

            fn place(operand: $isa::Operand) -> Option<Place> {
                use $isa::Operand as O;
                let none = Place { scale: 1, ..Place::default() };
                let gpr = |register: RegSpec| Gpr::from_number(register.num());
                Some(match operand {
                    $(O::$absolute { addr } => Place { displacement: addr as i64, ..none },)*
                    O::MemDeref { base: register } => Place { base: base(register), ..none },
                    O::$disp { base: register, disp } => {
                        Place { base: base(register), displacement: disp.into(), ..none }
                    }
                    O::MemIndexScale { index, scale } => Place { index: gpr(index), scale, ..none },
                    O::MemIndexScaleDisp { index, scale, disp } => {
                        Place { index: gpr(index), scale, displacement: disp.into(), ..none }
                    }
                    O::MemBaseIndexScale { base: register, index, scale } => {
                        Place { base: base(register), index: gpr(index), scale, ..none }
                    }
                    O::MemBaseIndexScaleDisp { base: register, index, scale, disp } => {
                        Place { base: base(register), index: gpr(index), scale, displacement: disp.into() }
                    }
                    _ => return None,
                })
            }

            let instruction = InstDecoder::default().decode_slice(bytes).ok()?;
            let operation = yaxpeax_operation!(instruction.opcode(), Opcode);
            if instruction.prefixes.evex().is_some() {
                return None;
            }
            let first = operand(instruction.operand(0))?;
            let second = operand(instruction.operand(1));
            let (destination, source) = match operation {
                Operation::Inc | Operation::Dec => (first, Operand::Immediate(1)),
                Operation::Not | Operation::Neg => (first, first),
                Operation::CmpxchgPair => (first, Operand::Register(Register::Low(Gpr::Rbx))),
                Operation::Push => (Operand::Stack, first),
                Operation::Pop => (first, Operand::Stack),
                // It has the operands of SCAS the other way round than the manual.
                Operation::Cmp if instruction.opcode() == Opcode::SCAS => (second?, first),
                _ => (first, second?),
            };
            let operands = [destination, source];
            if !operands.contains(&Operand::Memory) || instruction.operand_count() > 2 {
                return None;
            }
            let has_vector = operands.iter().any(|operand| matches!(operand, Operand::Vector(_)));
            if (operation == Operation::MoveVector) != has_vector {
                return None;
            }
            // Of two, the one at RDI.
            let places = (0..2).filter_map(|number| place(instruction.operand(number)));
            let place = places.max_by_key(|place| place.base == Some(Base::Gpr(Gpr::Rdi)))?;
            let address_size = match instruction.prefixes.address_size() {
                true => mode.overridden_address_size(),
                false => mode.address_size(),
            };
            Some(Partial {
                operation,
                destination,
                source,
                bytes: instruction.mem_size()?.bytes_size()?.into(),
                base: place.base,
                index: place.index,
                scale: place.scale,
                displacement: within(address_size, place.displacement as u64),
                length: instruction.len().to_const() as usize,
            })
        }
    };
}

adapter!(
    bits16, real_mode, MemDisp, classes: [], immediates: [], relative: [], absolute: [AbsoluteU16, AbsoluteU32]
);
adapter!(
    bits32, protected_mode, Disp, classes: [], immediates: [], relative: [], absolute: [AbsoluteU16, AbsoluteU32]
);
adapter!(
    bits64, long_mode, Disp, classes: [Q, RB], immediates: [ImmediateI64], relative: [RIP, EIP],
    absolute: [AbsoluteU32, AbsoluteU64]
);

//! Every prefix, every mode, every form.

use super::vector::{Amount, Mandatory, vector};
use super::{Failure, Start, complete, opcodes};
use crate::exit::size::Size;
use crate::exit::x86::instruction::address::NONE;
use crate::exit::x86::instruction::form::{Form, Other, Width};
use crate::exit::x86::instruction::operation::Operation;
use crate::exit::x86::instruction::{Instruction, MAX_LENGTH};
use crate::exit::x86::mode::{AddressSize, Mode, Segment};
use crate::exit::x86::port::Repeat;
use crate::exit::x86::registers::Gpr;

/// The table that an opcode is of (Intel SDM vol. 2A, 2.1.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Map {
    OneByte,
    /// After 0F.
    Escape,
    /// After 0F 38.
    Escape38,
    Other,
}

/// The bytes of an instruction, with zeros behind them.
struct Reader {
    bytes: [u8; 32],
    at: usize,
    limit: usize,
}

impl Reader {
    /// The next byte, which is not taken yet.
    fn peek(&self) -> Result<u8, Failure> {
        match self.bytes.get(self.at) {
            Some(byte) if self.at < self.limit => Ok(*byte),
            _ => Err(Failure::Truncated),
        }
    }

    fn next(&mut self) -> Result<u8, Failure> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }
}

/// What the prefixes say.
struct Prefixes {
    mode: Mode,
    /// 66.
    operand: bool,
    /// 67.
    address: bool,
    lock: bool,
    /// F2 or F3, the last one.
    repeat: Option<u8>,
    segment: Option<Segment>,
    /// With the bits of VEX where that is there. 0 if there is none, or one that is ignored because a prefix follows it.
    rex: u8,
    /// The length of the vector register, if there is a VEX prefix.
    vex: Option<Vex>,
}

struct Vex {
    mandatory: Mandatory,
    is_long: bool,
    /// No second register is named.
    is_unary: bool,
}

/// `bytes` are 15 at most.
#[cold]
#[inline(never)]
pub(super) fn decode(bytes: &[u8], mode: Mode) -> Result<Instruction, Failure> {
    let mut reader = Reader { bytes: [0; 32], at: 0, limit: bytes.len().min(MAX_LENGTH) };
    for (kept, byte) in reader.bytes.iter_mut().zip(bytes) {
        *kept = *byte;
    }
    let mut prefixes = Prefixes::read(&mut reader, mode)?;
    let (map, opcode) = prefixes.opcode(&mut reader)?;
    let mut instruction = match map {
        Map::OneByte => prefixes.one_byte(&mut reader, opcode)?,
        _ => match prefixes.vector(&mut reader, map, opcode)? {
            Some(instruction) => instruction,
            None if prefixes.vex.is_some() => return Err(Failure::Unsupported),
            None => prefixes.escaped(&mut reader, map, opcode)?,
        },
    };
    if usize::from(instruction.length) > reader.limit {
        return Err(Failure::Truncated);
    }
    instruction.locked = prefixes.lock;
    instruction.vex = prefixes.vex.is_some();
    Ok(instruction)
}

impl Prefixes {
    fn read(reader: &mut Reader, mode: Mode) -> Result<Self, Failure> {
        let mut found =
            Self { mode, operand: false, address: false, lock: false, repeat: None, segment: None, rex: 0, vex: None };
        loop {
            let byte = reader.peek()?;
            match byte {
                0x40..=0x4f if mode == Mode::Bits64 => {
                    found.rex = byte;
                    reader.at += 1;
                    continue;
                }
                0x66 => found.operand = true,
                0x67 => found.address = true,
                0xf0 => found.lock = true,
                0xf2 | 0xf3 => found.repeat = Some(byte),
                0x64 | 0x65 => found.segment = Segment::from_number(u64::from(byte & 7)),
                0x26 | 0x2e | 0x36 | 0x3e if mode == Mode::Bits64 => {}
                0x26 | 0x2e | 0x36 | 0x3e => found.segment = Segment::from_number(u64::from(byte >> 3 & 3)),
                _ => return Ok(found),
            }
            found.rex = 0;
            reader.at += 1;
        }
    }

    /// Takes the opcode, and VEX before it.
    fn opcode(&mut self, reader: &mut Reader) -> Result<(Map, u8), Failure> {
        let map = match reader.next()? {
            0x0f => match reader.peek()? {
                0x38 => Map::Escape38,
                0x3a => Map::Other,
                opcode => {
                    reader.at += 1;
                    return Ok((Map::Escape, opcode));
                }
            },
            first @ (0xc4 | 0xc5) => {
                let next = reader.peek()?;
                // LES and LDS.
                if self.mode != Mode::Bits64 && next < 0xc0 {
                    return Err(Failure::Unsupported);
                }
                return self.vex(reader, first == 0xc4);
            }
            opcode => return Ok((Map::OneByte, opcode)),
        };
        reader.at += 1;
        Ok((map, reader.next()?))
    }

    /// The VEX prefix of two or three bytes (Intel SDM vol. 2A, 2.3.5).
    fn vex(&mut self, reader: &mut Reader, has_three: bool) -> Result<(Map, u8), Failure> {
        if self.rex != 0 || self.operand || self.lock || self.repeat.is_some() {
            return Err(Failure::Malformed);
        }
        let mut map = Map::Escape;
        let mut last = reader.next()?;
        // R, X and B are stored inverted.
        self.rex = 0x40 | (!last >> 5 & 4);
        if has_three {
            self.rex = 0x40 | !last >> 5;
            map = match last & 0x1f {
                1 => Map::Escape,
                2 => Map::Escape38,
                _ => Map::Other,
            };
            last = reader.next()?;
            self.rex |= last >> 4 & 8;
        }
        if self.mode != Mode::Bits64 {
            self.rex = 0x40;
        }
        self.vex = Some(Vex {
            mandatory: match last & 3 {
                0 => Mandatory::None,
                1 => Mandatory::Operand,
                2 => Mandatory::Rep,
                _ => Mandatory::Repne,
            },
            is_long: last & 4 != 0,
            is_unary: last >> 3 & 0xf == 0xf,
        });
        Ok((map, reader.next()?))
    }

    fn operand_size(&self) -> Size {
        match (self.mode, self.operand) {
            _ if self.rex & 8 != 0 => Size::Qword,
            (Mode::Bits16, false) | (Mode::Bits32 | Mode::Bits64, true) => Size::Word,
            _ => Size::Dword,
        }
    }

    /// The operand size of PUSH and POP: in 64-bit mode there is no one of 4 bytes.
    fn stack_size(&self) -> Size {
        match self.operand_size() {
            Size::Dword if self.mode == Mode::Bits64 => Size::Qword,
            size => size,
        }
    }

    fn address_size(&self) -> AddressSize {
        if self.address { self.mode.overridden_address_size() } else { self.mode.address_size() }
    }

    fn one_byte(&self, reader: &mut Reader, opcode: u8) -> Result<Instruction, Failure> {
        let is_long = self.mode == Mode::Bits64;
        let mut opcode = opcode;
        match opcode {
            0x63 if is_long => {
                return self.with_modrm(reader, Form::new(Operation::Move, Other::SignExtended, Width::Dword).loads());
            }
            // An alias.
            0x82 if is_long => return Err(Failure::Malformed),
            0x82 => opcode = 0x80,
            // XABORT and XBEGIN.
            0xc6 | 0xc7 if reader.peek().ok() == Some(0xf8) => return Err(Failure::Unsupported),
            // With AL, AX, EAX or RAX and an immediate, or with registers alone.
            0x00..=0x3f if opcode & 6 == 4 => return Err(Failure::NoMemoryOperand),
            0x40..=0x4f | 0x91..=0x97 | 0xa8 | 0xa9 | 0xb0..=0xbf => return Err(Failure::NoMemoryOperand),
            _ => {}
        }
        self.tabled(reader, false, opcode)
    }

    fn escaped(&self, reader: &mut Reader, map: Map, opcode: u8) -> Result<Instruction, Failure> {
        match (map, opcode) {
            // MOVNTI and MOVBE have no form with these prefixes.
            (Map::Escape, 0xc3) if self.operand || self.repeat.is_some() => Err(Failure::Malformed),
            (Map::Escape38, 0xf0 | 0xf1) if self.repeat == Some(0xf3) => Err(Failure::Malformed),
            (Map::Escape, 0xc3) => {
                let form = Form::new(Operation::Move, Other::Register, Width::DwordOrQword);
                self.with_modrm(reader, form.memory_only())
            }
            (Map::Escape38, 0xf0 | 0xf1) if self.repeat != Some(0xf2) => {
                let form = Form::new(Operation::Movbe, Other::Register, Width::Operand).memory_only();
                self.with_modrm(reader, if opcode == 0xf0 { form.loads() } else { form })
            }
            (Map::Escape, _) => self.tabled(reader, true, opcode),
            _ => Err(Failure::Unsupported),
        }
    }

    fn tabled(&self, reader: &mut Reader, is_escaped: bool, opcode: u8) -> Result<Instruction, Failure> {
        // An opcode that is refused whatever follows it needs nothing behind it.
        let modrm = if opcodes::is_group(is_escaped, opcode) { reader.peek()? } else { reader.peek().unwrap_or(0) };
        let form = opcodes::form(is_escaped, opcode, modrm);
        if form.other == Other::Unsupported {
            return Err(Failure::Unsupported);
        }
        if form.has_modrm() { self.with_modrm(reader, form) } else { self.without_modrm(reader, form, opcode) }
    }

    /// Takes ModRM and what follows it.
    fn with_modrm(&self, reader: &mut Reader, form: Form) -> Result<Instruction, Failure> {
        let modrm = reader.next()?;
        let has_memory = modrm < 0xc0;
        match form.other {
            Other::Undefined => return Err(Failure::Malformed),
            _ if self.lock && !(has_memory && form.is_lockable()) => return Err(Failure::Malformed),
            _ if form.is_memory_only() && !has_memory => return Err(Failure::Malformed),
            Other::Branch if has_memory => return Err(Failure::Branch),
            // CALL and JMP by a register; PUSH and POP of one touch memory, but only the stack.
            Other::Branch | Other::Stack if !has_memory => return Err(Failure::Unsupported),
            _ if !has_memory => return Err(Failure::NoMemoryOperand),
            _ => {}
        }
        let start = Start {
            at: reader.at,
            rex: self.rex,
            operand_size: if form.other == Other::Stack { self.stack_size() } else { self.operand_size() },
            address_size: self.address_size(),
            segment: self.segment,
            mode: self.mode,
        };
        let mut instruction = complete(&reader.bytes, modrm, form, start).ok_or(Failure::Truncated)?;
        if form.other == Other::Pair {
            instruction.register = Gpr::Rbx as u8;
            instruction.bytes += 1;
        }
        Ok(instruction)
    }

    fn vector(&self, reader: &mut Reader, map: Map, opcode: u8) -> Result<Option<Instruction>, Failure> {
        let (prefix, is_long) = match (&self.vex, self.repeat) {
            (Some(vex), _) => (vex.mandatory, vex.is_long),
            (None, Some(0xf3)) => (Mandatory::Rep, false),
            (None, Some(_)) => (Mandatory::Repne, false),
            (None, None) if self.operand => (Mandatory::Operand, false),
            (None, None) => (Mandatory::None, false),
        };
        let Some(entry) = vector(map, opcode, prefix) else { return Ok(None) };
        let mut instruction = self.with_modrm(reader, entry.form)?;
        let (bytes, has_length) = match entry.amount {
            Amount::Register => (if is_long { 32 } else { 16 }, true),
            Amount::Scalar(bytes) => (bytes, true),
            Amount::DwordOrQword if self.rex & 8 == 0 => (4, false),
            Amount::DwordOrQword | Amount::Qword => (8, false),
        };
        // Between registers, two of the moves name a second one.
        if self.vex.as_ref().is_some_and(|vex| !vex.is_unary) || (is_long && !has_length) {
            return Err(Failure::Malformed);
        }
        instruction.bytes = bytes.trailing_zeros() as u8;
        instruction.size = if bytes == 4 { Size::Dword } else { Size::Qword };
        Ok(Some(instruction))
    }

    /// A string instruction, or MOV between RAX and the address that follows.
    fn without_modrm(&self, reader: &mut Reader, form: Form, opcode: u8) -> Result<Instruction, Failure> {
        if self.lock {
            return Err(Failure::Malformed);
        }
        let (address_size, operand_size) = (self.address_size(), self.operand_size());
        let (mut base, mut address) = (NONE, [0; 8]);
        if form.is_string() {
            let is_lods = opcode & !1 == 0xac;
            base = if is_lods { Gpr::Rsi } else { Gpr::Rdi } as u8;
        } else {
            for byte in address_size.size().of(&mut address) {
                *byte = reader.next()?;
            }
        }
        let (size, _) = form.width.sizes(operand_size);
        Ok(Instruction {
            displacement: u64::from_le_bytes(address),
            immediate: 0,
            form,
            length: reader.at as u8,
            register: Gpr::Rax as u8,
            base,
            index: NONE,
            scale: 0,
            size,
            operand_size,
            bytes: size as u8,
            segment: self.segment,
            address_size,
            mode: self.mode,
            locked: false,
            repeat: match self.repeat {
                Some(_) if !form.is_string() => Repeat::Once,
                None => Repeat::Once,
                Some(_) if form.operation == Operation::Move => Repeat::Count,
                Some(0xf3) => Repeat::WhileEqual,
                Some(_) => Repeat::WhileNotEqual,
            },
            vex: false,
        })
    }
}

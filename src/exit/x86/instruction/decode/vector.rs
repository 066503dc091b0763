//! Moves between memory and vector registers (Intel SDM vol. 2B and 2C, MOVUPS and others).

use super::general::Map;
use crate::exit::size::Size;
use crate::exit::x86::instruction::form::{Form, Other, Width};
use crate::exit::x86::instruction::operation::Operation;

/// The prefix that is a part of the opcode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mandatory {
    None,
    Operand,
    Rep,
    Repne,
}

/// The form of a move, and the bytes it moves.
#[derive(Clone, Copy)]
pub(super) struct Vector {
    pub(super) form: Form,
    pub(super) bytes: u8,
    /// The length of the vector register matters: not for a scalar in single or double precision.
    pub(super) is_length_fixed: bool,
}

/// The move with this opcode; `wide` is REX.W or VEX.W, `length` that of the vector register in bytes.
pub(super) fn vector(map: Map, opcode: u8, prefix: Mandatory, wide: bool, length: u8) -> Option<Vector> {
    use Mandatory::{None as Plain, Operand, Rep, Repne};
    let integer = if wide { 8 } else { 4 };
    // Bytes, whether memory is the source, whether it has to be aligned, whether there is a form without memory.
    let (bytes, loads, aligned, memory_only) = match (map, opcode, prefix) {
        (Map::Escape, 0x10 | 0x11, Plain | Operand) => (length, opcode == 0x10, false, false),
        (Map::Escape, 0x10 | 0x11, Rep) => (4, opcode == 0x10, false, false),
        (Map::Escape, 0x10 | 0x11, Repne) => (8, opcode == 0x10, false, false),
        (Map::Escape, 0x28 | 0x29, Plain | Operand) => (length, opcode == 0x28, true, false),
        (Map::Escape, 0x2b, Plain | Operand) => (length, false, true, true),
        (Map::Escape, 0x6e, Operand) => (integer, true, false, false),
        (Map::Escape, 0x7e, Operand) => (integer, false, false, false),
        (Map::Escape, 0x7e, Rep) => (8, true, false, false),
        (Map::Escape, 0xd6, Operand) => (8, false, false, false),
        (Map::Escape, 0x6f | 0x7f, Operand) => (length, opcode == 0x6f, true, false),
        (Map::Escape, 0x6f | 0x7f, Rep) => (length, opcode == 0x6f, false, false),
        (Map::Escape, 0xe7, Operand) => (length, false, true, true),
        (Map::Escape, 0xf0, Repne) => (length, true, false, true),
        (Map::Escape38, 0x2a, Operand) => (length, true, true, true),
        _ => return None,
    };
    let mut form = Form::new(Operation::MoveVector, Other::Vector, Width::Operand);
    if loads {
        form = form.loads();
    }
    if aligned {
        form = form.aligned();
    }
    if memory_only {
        form = form.memory_only();
    }
    let is_length_fixed = bytes < 16 && !matches!(opcode, 0x10 | 0x11);
    Some(Vector { form, bytes, is_length_fixed })
}

impl Vector {
    /// The size of one element of the transfer.
    pub(super) fn size(&self) -> Size {
        if self.bytes == 4 { Size::Dword } else { Size::Qword }
    }
}

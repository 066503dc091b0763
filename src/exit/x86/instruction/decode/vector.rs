//! Moves between memory and vector registers (Intel SDM vol. 2B and 2C, MOVUPS and others).

use super::general::Map;
use crate::exit::x86::instruction::form::{Form, Other, Width};
use crate::exit::x86::instruction::operation::Operation;

/// The prefix that is a part of the opcode, as VEX has it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mandatory {
    None,
    Operand,
    Rep,
    Repne,
}

/// How many bytes are moved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    /// A whole register.
    Register,
    /// 4 or 8 of a floating-point number. The length of the register does not matter.
    Scalar(u8),
    /// 8 of an integer.
    Qword,
    /// 4 of an integer, or 8 with REX.W or VEX.W.
    DwordOrQword,
}

/// One move.
#[derive(Clone, Copy)]
pub(super) struct Move {
    map: Map,
    opcode: u8,
    prefix: Mandatory,
    pub(super) form: Form,
    pub(super) amount: Amount,
}

const LOAD: Form = Form::new(Operation::MoveVector, Other::Vector, Width::Operand).loads();
const STORE: Form = Form::new(Operation::MoveVector, Other::Vector, Width::Operand);

static MOVES: [Move; 25] = {
    use Amount::{DwordOrQword, Qword, Register, Scalar};
    use Mandatory::{None, Operand, Rep, Repne};
    const fn escape(opcode: u8, prefix: Mandatory, form: Form, amount: Amount) -> Move {
        Move { map: Map::Escape, opcode, prefix, form, amount }
    }
    [
        // MOVUPS, MOVUPD, MOVSS, MOVSD
        escape(0x10, None, LOAD, Register),
        escape(0x11, None, STORE, Register),
        escape(0x10, Operand, LOAD, Register),
        escape(0x11, Operand, STORE, Register),
        escape(0x10, Rep, LOAD, Scalar(4)),
        escape(0x11, Rep, STORE, Scalar(4)),
        escape(0x10, Repne, LOAD, Scalar(8)),
        escape(0x11, Repne, STORE, Scalar(8)),
        // MOVAPS, MOVAPD, MOVNTPS, MOVNTPD
        escape(0x28, None, LOAD.aligned(), Register),
        escape(0x29, None, STORE.aligned(), Register),
        escape(0x28, Operand, LOAD.aligned(), Register),
        escape(0x29, Operand, STORE.aligned(), Register),
        escape(0x2b, None, STORE.aligned().memory_only(), Register),
        escape(0x2b, Operand, STORE.aligned().memory_only(), Register),
        // MOVD and MOVQ
        escape(0x6e, Operand, LOAD, DwordOrQword),
        escape(0x7e, Operand, STORE, DwordOrQword),
        escape(0x7e, Rep, LOAD, Qword),
        escape(0xd6, Operand, STORE, Qword),
        // MOVDQA, MOVDQU, MOVNTDQ, LDDQU, MOVNTDQA
        escape(0x6f, Operand, LOAD.aligned(), Register),
        escape(0x7f, Operand, STORE.aligned(), Register),
        escape(0x6f, Rep, LOAD, Register),
        escape(0x7f, Rep, STORE, Register),
        escape(0xe7, Operand, STORE.aligned().memory_only(), Register),
        escape(0xf0, Repne, LOAD.memory_only(), Register),
        Move {
            map: Map::Escape38,
            opcode: 0x2a,
            prefix: Operand,
            form: LOAD.aligned().memory_only(),
            amount: Register,
        },
    ]
};

/// The move with this opcode.
pub(super) fn vector(map: Map, opcode: u8, prefix: Mandatory) -> Option<&'static Move> {
    MOVES.iter().find(|entry| entry.map == map && entry.opcode == opcode && entry.prefix == prefix)
}

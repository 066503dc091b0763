//! The opcodes whose form ModRM and what follows complete (Intel SDM vol. 2D, appendix A).

use crate::exit::x86::instruction::form::{Form, Other, Width};
use crate::exit::x86::instruction::operation::Operation;

use Operation::*;
use Other::{
    Accumulator, Branch, Immediate, Itself, Memory, One, Pair, Register, SignExtended, Stack, Undefined, Unsupported,
    ZeroExtended,
};

/// The form of a one-byte opcode, or of one after the escape 0F.
#[inline(always)]
pub(super) fn form(escaped: bool, opcode: u8, modrm: u8) -> Form {
    let at = usize::from(escaped) << 8 | usize::from(opcode);
    let place = TABLES.places.get(at).copied().unwrap_or(Place { first: 0, fields: 0 });
    let number = place.first.wrapping_add(modrm >> 3 & place.fields);
    TABLES.forms.get(usize::from(number)).copied().unwrap_or(UNSUPPORTED)
}

/// Whether the field `reg` of ModRM is a part of the opcode.
pub(super) fn is_group(escaped: bool, opcode: u8) -> bool {
    let at = usize::from(escaped) << 8 | usize::from(opcode);
    TABLES.places.get(at).is_some_and(|place| place.fields != 0)
}

/// The number of an opcode's form, to which the field `reg` is added if it is a part of the opcode.
#[derive(Clone, Copy)]
struct Place {
    first: u8,
    /// 7 if it is, else 0.
    fields: u8,
}

struct Tables {
    /// By opcode, those after the escape from 256 on.
    places: [Place; 512],
    forms: [Form; 256],
    used: u8,
}

const UNSUPPORTED: Form = Form::refused(Unsupported);
const UNDEFINED: Form = Form::refused(Undefined);
const BRANCH: Form = Form::refused(Branch);
const ESCAPE: usize = 0x100;

static TABLES: Tables = tables();

const fn tables() -> Tables {
    Tables { places: [Place { first: 0, fields: 0 }; 512], forms: [UNSUPPORTED; 256], used: 1 }
        .arithmetic()
        .moves()
        .unary()
        .bits()
        .exchanges()
}

/// A byte and its register, or an operand of the operand size and its register.
const fn sized(operation: Operation, byte: bool) -> Form {
    Form::new(operation, Register, if byte { Width::Byte } else { Width::Operand })
}

impl Tables {
    /// ADD, OR, ADC, SBB, AND, SUB, XOR, CMP: four opcodes each, and three for all with an immediate. TEST.
    const fn arithmetic(mut self) -> Self {
        const ALL: [Operation; 8] = [Add, Or, Adc, Sbb, And, Sub, Xor, Cmp];
        let mut number = 0;
        while number < ALL.len() {
            let (operation, first) = (ALL[number], number << 3);
            self = self.opcode(first, sized(operation, true)).opcode(first | 1, sized(operation, false));
            self = self.opcode(first | 2, sized(operation, true).loads());
            self = self.opcode(first | 3, sized(operation, false).loads());
            number += 1;
        }
        let (mut byte, mut whole, mut short) = ([UNDEFINED; 8], [UNDEFINED; 8], [UNDEFINED; 8]);
        number = 0;
        while number < ALL.len() {
            byte[number] = Form::new(ALL[number], Immediate, Width::ByteWithByte);
            whole[number] = Form::new(ALL[number], Immediate, Width::OperandWithOperand);
            short[number] = Form::new(ALL[number], Immediate, Width::OperandWithByte);
            number += 1;
        }
        self.group(0x80, byte)
            .group(0x81, whole)
            .group(0x83, short)
            .opcode(0x84, sized(Test, true))
            .opcode(0x85, sized(Test, false))
    }

    const fn moves(self) -> Self {
        const fn immediate(width: Width) -> [Form; 8] {
            let mut forms = [UNDEFINED; 8];
            forms[0] = Form::new(Move, Immediate, width);
            forms
        }
        self.opcode(0x88, sized(Move, true))
            .opcode(0x89, sized(Move, false))
            .opcode(0x8a, sized(Move, true).loads())
            .opcode(0x8b, sized(Move, false).loads())
            .group(0xc6, immediate(Width::ByteWithByte))
            .group(0xc7, immediate(Width::OperandWithOperand))
            .accumulator(0xa0, Move, false, true)
            .accumulator(0xa2, Move, false, false)
            .memory(0xa4, Move)
            .memory(0xa6, Cmp)
            .accumulator(0xaa, Move, true, false)
            .accumulator(0xac, Move, true, true)
            .accumulator(0xae, Cmp, true, true)
            .opcode(ESCAPE | 0xb6, Form::new(Move, ZeroExtended, Width::Byte).loads())
            .opcode(ESCAPE | 0xb7, Form::new(Move, ZeroExtended, Width::Word).loads())
            .opcode(ESCAPE | 0xbe, Form::new(Move, SignExtended, Width::Byte).loads())
            .opcode(ESCAPE | 0xbf, Form::new(Move, SignExtended, Width::Word).loads())
    }

    /// The groups 3 to 5, and POP. TEST has a second field that manuals leave out and processors execute.
    const fn unary(self) -> Self {
        const fn group_3(test: Form, width: Width) -> [Form; 8] {
            let (not, neg) = (Form::new(Not, Itself, width), Form::new(Neg, Itself, width));
            [test, test, not, neg, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED]
        }
        const fn group_5(width: Width) -> [Form; 8] {
            let mut forms = [UNDEFINED; 8];
            forms[0] = Form::new(Inc, One, width);
            forms[1] = Form::new(Dec, One, width);
            forms
        }
        let mut group_5_with_branches = group_5(Width::Operand);
        let mut number = 2;
        while number < 6 {
            group_5_with_branches[number] = BRANCH;
            number += 1;
        }
        group_5_with_branches[6] = Form::new(Push, Stack, Width::Operand).loads();
        // Other fields than 0 are AMD's XOP.
        let mut pop = [UNSUPPORTED; 8];
        pop[0] = Form::new(Pop, Stack, Width::Operand).moves_operand();
        self.group(0xf6, group_3(Form::new(Test, Immediate, Width::ByteWithByte), Width::Byte))
            .group(0xf7, group_3(Form::new(Test, Immediate, Width::OperandWithOperand), Width::Operand))
            .group(0xfe, group_5(Width::Byte))
            .group(0xff, group_5_with_branches)
            .group(0x8f, pop)
    }

    /// BT, BTS, BTR, BTC.
    const fn bits(mut self) -> Self {
        const ALL: [Operation; 4] = [Bt, Bts, Btr, Btc];
        let mut group = [UNDEFINED; 8];
        let mut number = 0;
        while number < ALL.len() {
            let by_register = Form::new(ALL[number], Register, Width::Operand).moves_operand();
            self = self.opcode(ESCAPE | 0xa3 | number << 3, by_register);
            group[number + 4] = Form::new(ALL[number], Immediate, Width::OperandWithByte);
            number += 1;
        }
        self.group(ESCAPE | 0xba, group)
    }

    const fn exchanges(self) -> Self {
        // The other fields are for the state of the processor, and for random numbers.
        let mut group_9 = [UNSUPPORTED; 8];
        group_9[1] = Form::new(CmpxchgPair, Pair, Width::DwordOrQword).memory_only();
        self.opcode(0x86, sized(Xchg, true))
            .opcode(0x87, sized(Xchg, false))
            .opcode(ESCAPE | 0xb0, sized(Cmpxchg, true))
            .opcode(ESCAPE | 0xb1, sized(Cmpxchg, false))
            .opcode(ESCAPE | 0xc0, sized(Xadd, true))
            .opcode(ESCAPE | 0xc1, sized(Xadd, false))
            .group(ESCAPE | 0xc7, group_9)
    }

    /// MOV with an absolute address, STOS, LODS and SCAS.
    const fn accumulator(self, opcode: usize, operation: Operation, is_string: bool, loads: bool) -> Self {
        const fn one(operation: Operation, width: Width, is_string: bool, loads: bool) -> Form {
            let form = Form::new(operation, Accumulator, width);
            let form = if is_string { form.string() } else { form };
            if loads { form.loads() } else { form }
        }
        self.opcode(opcode, one(operation, Width::Byte, is_string, loads))
            .opcode(opcode | 1, one(operation, Width::Operand, is_string, loads))
    }

    /// MOVS and CMPS.
    const fn memory(self, opcode: usize, operation: Operation) -> Self {
        self.opcode(opcode, Form::new(operation, Memory, Width::Byte).string())
            .opcode(opcode | 1, Form::new(operation, Memory, Width::Operand).string())
    }

    const fn opcode(mut self, opcode: usize, form: Form) -> Self {
        self.places[opcode] = Place { first: self.used, fields: 0 };
        self.forms[self.used as usize] = form;
        self.used += 1;
        self
    }

    const fn group(mut self, opcode: usize, forms: [Form; 8]) -> Self {
        self.places[opcode] = Place { first: self.used, fields: 7 };
        let mut field = 0;
        while field < forms.len() {
            self.forms[self.used as usize] = forms[field];
            self.used += 1;
            field += 1;
        }
        self
    }
}

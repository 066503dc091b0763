//! Operands brought to where they can be.

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register as Iced};
use vm_device::exit::x86::Segment;

use super::{Case, Maker};
use crate::instructions::memory::{DATA, PAGE, READ_ONLY};
use crate::instructions::oracles::iced;
use crate::random::Random;

impl Maker<'_> {
    /// The linear address of an operand of so many bytes: as a rule in the data, often at the end of a page, sometimes in or
    /// next to a page that is not mapped.
    fn target(&mut self, size: usize) -> u64 {
        let size = size.max(1);
        let within = |random: &mut Random, end: usize| (end - random.below(size + 1)) as i64;
        let random = &mut self.random;
        let offset = match random.below(32) {
            0..=4 => within(random, PAGE),
            5..=7 => within(random, READ_ONLY * PAGE),
            8 => within(random, DATA),
            9 => -(random.below(size + 1) as i64),
            10 => -(random.below(PAGE - 64) as i64),
            11 => (READ_ONLY * PAGE + random.below(PAGE - 64)) as i64,
            12..=20 => (random.below((READ_ONLY * PAGE - 64) / 64) * 64) as i64,
            _ => random.below(READ_ONLY * PAGE - size) as i64,
        };
        self.places.data.wrapping_add_signed(offset)
    }

    /// Changes registers and displacement so that the operands are where they can be.
    pub(super) fn aim(&mut self, case: &mut Case) {
        let instruction = case.second;
        case.machine.registers.rip = self.places.rip(case.mode);
        if instruction.is_invalid() {
            // Whatever it is, it finds the data.
            for number in 0..16 {
                case.machine.registers.gpr[number] = self.target(8);
            }
            return;
        }
        self.aim_stack(case);
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::Memory if instruction.is_vsib() => {}
                OpKind::Memory => self.aim_operand(case),
                OpKind::MemorySegSI => self.aim_string(case, Iced::SI),
                OpKind::MemorySegESI => self.aim_string(case, Iced::ESI),
                OpKind::MemorySegRSI => self.aim_string(case, Iced::RSI),
                OpKind::MemoryESDI => self.aim_string(case, Iced::DI),
                OpKind::MemoryESEDI => self.aim_string(case, Iced::EDI),
                OpKind::MemoryESRDI => self.aim_string(case, Iced::RDI),
                _ => {}
            }
        }
    }

    fn aim_stack(&mut self, case: &mut Case) {
        if matches!(case.second.mnemonic(), Mnemonic::Push | Mnemonic::Pop) {
            let Some(base) = case.bases.of(Segment::Ss, case.mode) else { return };
            case.machine.registers.gpr[4] = self.target(8).wrapping_add(self.random.below(9) as u64).wrapping_sub(base);
        }
    }

    /// A register that is an index or a base, below what an address takes of it.
    fn set(&mut self, case: &mut Case, register: Iced, value: u64) {
        let whole = &mut case.machine.registers.gpr[iced::number(register)];
        // What lies above is not to count.
        let mask = u64::MAX >> (64 - 8 * register.size());
        *whole = *whole & !mask | value & mask;
    }

    fn aim_string(&mut self, case: &mut Case, register: Iced) {
        let instruction = case.second;
        let is_destination = matches!(register, Iced::DI | Iced::EDI | Iced::RDI);
        let segment = if is_destination { Segment::Es } else { iced::segment(instruction.memory_segment()) };
        let Some(base) = case.bases.of(segment, case.mode) else { return };
        let size = instruction.memory_size().size();
        let target = self.target(size);
        self.set(case, register, target.wrapping_sub(base));
        self.patch(case, target);
        let count = match self.random.below(8) {
            0 => 0,
            1..=4 => 1 + self.random.below(4),
            _ => 1 + self.random.below(40),
        };
        let counter = match register.size() {
            2 => Iced::CX,
            4 => Iced::ECX,
            _ => Iced::RCX,
        };
        self.set(case, counter, count as u64);
    }

    fn aim_operand(&mut self, case: &mut Case) {
        let instruction = case.second;
        let segment = iced::segment(instruction.memory_segment());
        let Some(segment_base) = case.bases.of(segment, case.mode) else { return };
        let size = instruction.memory_size().size();
        let mut target = self.target(size);
        if instruction.has_lock_prefix() || instruction.mnemonic() == Mnemonic::Xchg {
            // Locked accesses over two cache lines are slow, and some kernels stop programs that make them.
            target &= !(size.max(1) as u64 - 1);
        }
        let is_bit = matches!(instruction.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc);
        if is_bit && instruction.op1_kind() == OpKind::Register {
            // The bit lies up to 512 bytes away, in either direction.
            let number = (self.random.below(0x2000) as u64).wrapping_sub(0x1000);
            self.set(case, instruction.op1_register(), number);
        }
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        let scale = u64::from(instruction.memory_index_scale());
        let displacement = instruction.memory_displacement64();
        let offset = target.wrapping_sub(segment_base);
        let value = |case: &Case, register: Iced| {
            let whole = case.machine.registers.gpr[iced::number(register)];
            whole & u64::MAX >> (64 - 8 * register.size())
        };
        match (base, index) {
            (Iced::None, Iced::None) | (Iced::RIP | Iced::EIP, _) => {
                let mut decoder = Decoder::new(iced::bitness(case.mode), &case.bytes, DecoderOptions::NONE);
                let offsets = decoder.decode();
                let offsets = decoder.get_constant_offsets(&offsets);
                let relative = if base == Iced::None { 0 } else { instruction.next_ip() };
                let displacement = offset.wrapping_sub(relative).to_le_bytes();
                case.bytes[offsets.displacement_offset()..][..offsets.displacement_size()]
                    .copy_from_slice(&displacement[..offsets.displacement_size()]);
            }
            (base, Iced::None) => self.set(case, base, offset.wrapping_sub(displacement)),
            (Iced::None, index) => self.set(case, index, offset.wrapping_sub(displacement) / scale),
            (base, index) if base == index => {
                // 1 + scale times the register: the inverse of 3, 5 and 9 modulo any power of 2, or a half.
                let sum = offset.wrapping_sub(displacement);
                let factor = 1 + scale;
                let inverse = (0..6)
                    .fold(factor, |inverse, _| inverse.wrapping_mul(2_u64.wrapping_sub(factor.wrapping_mul(inverse))));
                self.set(case, base, if factor == 2 { sum / 2 } else { sum.wrapping_mul(inverse) });
            }
            (base, index) => {
                let index = value(case, index).wrapping_mul(scale);
                self.set(case, base, offset.wrapping_sub(displacement).wrapping_sub(index));
            }
        }
        self.patch(case, target);
    }

    /// Gives the operand a value of its own: sometimes that of RAX and RDX, with which CMPXCHG compares.
    fn patch(&mut self, case: &mut Case, target: u64) {
        let mut bytes = [0; 32];
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&self.number().to_le_bytes());
        }
        if self.random.below(2) == 0 {
            let [rax, _, rdx, ..] = case.machine.registers.gpr.map(u64::to_le_bytes);
            let half = if case.second.memory_size().size() == 8 { 4 } else { 8 };
            let is_pair = matches!(case.second.mnemonic(), Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b);
            bytes[..8].copy_from_slice(&rax);
            if is_pair {
                bytes[half..][..half].copy_from_slice(&rdx[..half]);
            }
        }
        let offset = target.wrapping_sub(self.places.data);
        if offset <= (READ_ONLY * PAGE - bytes.len()) as u64 {
            case.patches.push((offset as usize, bytes));
        }
    }
}

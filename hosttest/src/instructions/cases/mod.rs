//! The cases: random bytes, and registers that bring their operands into the data.

mod aim;
mod bytes;

use iced_x86::Instruction;
use vm_device::exit::x86::{Mode, Registers, Rflags};

use super::memory::{Bases, DATA, PAGE};
use super::oracles::iced;
use super::processor::Machine;
use crate::random::Random;

/// The longest instruction, in bytes.
pub(super) const LENGTH: usize = 15;

/// An instruction, and all that it finds.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) mode: Mode,
    pub(super) bytes: [u8; LENGTH],
    pub(super) machine: Machine,
    pub(super) bases: Bases,
    /// What the data has beside what every case finds there, by offset.
    pub(super) patches: Vec<(usize, [u8; 32])>,
    /// What the first oracle says.
    pub(super) second: Instruction,
    /// A string is executed to its end, and not an element of it.
    pub(super) to_the_end: bool,
}

/// Where the code and the data of cases lie.
#[derive(Clone, Copy)]
pub(super) struct Places {
    /// RIP of an instruction in 64-bit code.
    pub(super) rip: u64,
    pub(super) data: u64,
    /// Whether bytes 16 to 31 of the vector registers are there.
    pub(super) has_avx: bool,
}

impl Places {
    /// Whether an operand at this offset of a segment is in the page of the code, or close to it.
    pub(super) fn is_code(&self, base: Option<u64>, offset: u64) -> bool {
        let linear = base.unwrap_or(0).wrapping_add(offset) & 0xffff_ffff;
        linear.abs_diff(self.rip) <= PAGE as u64
    }

    /// What the instruction pointer is in this mode.
    pub(super) fn rip(&self, mode: Mode) -> u64 {
        if mode == Mode::Bits64 { self.rip } else { self.rip - Bases::near(self.data).cs }
    }
}

/// What the data has in every case.
pub(super) fn pristine() -> [u8; DATA] {
    let mut random = Random::new(0, 0);
    let mut data = [0; DATA];
    for word in data.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    data
}

impl Case {
    /// The case with this number.
    pub(super) fn new(seed: u64, number: u64, places: &Places) -> Self {
        let mut maker = Maker { random: Random::new(seed, number), places };
        let mode = match maker.random.below(10) {
            0..=5 => Mode::Bits64,
            6..=8 => Mode::Bits32,
            _ => Mode::Bits16,
        };
        let bytes = maker.bytes(mode);
        let machine = maker.machine();
        let second = iced::decode(&bytes, mode, places.rip(mode));
        let to_the_end = maker.random.below(2) == 0;
        let has_words = iced::address_bytes(&second) == 2;
        let bases = if has_words { Bases::near(places.data) } else { Bases::far(places.data) };
        let mut case = Self { mode, bytes, machine, bases, patches: Vec::new(), second, to_the_end };
        maker.aim(&mut case);
        case.second = iced::decode(&case.bytes, mode, places.rip(mode));
        case
    }
}

struct Maker<'a> {
    random: Random,
    places: &'a Places,
}

impl Maker<'_> {
    fn one_of(&mut self, bytes: &[u8]) -> u8 {
        bytes[self.random.below(bytes.len())]
    }

    fn byte(&mut self) -> u8 {
        self.random.next() as u8
    }

    /// Numbers at the ends of each size set more flags than others.
    fn number(&mut self) -> u64 {
        let number = self.random.next();
        match number >> 60 {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (number & 63),
            3 => 0x8080_8080_8080_8080,
            4 => 0x7f7f_7f7f_7f7f_7fff,
            _ => number.rotate_left(17),
        }
    }

    fn machine(&mut self) -> Machine {
        let gpr = core::array::from_fn(|_| self.number());
        let rflags = self.random.next() & (Rflags::STATUS | Rflags::DF).bits() | 0x202;
        let mut vectors = [[0; 32]; 16];
        for vector in &mut vectors {
            for word in vector[..if self.places.has_avx { 32 } else { 16 }].chunks_exact_mut(8) {
                word.copy_from_slice(&self.random.next().to_le_bytes());
            }
        }
        Machine { registers: Registers { gpr, rip: 0, rflags }, vectors }
    }
}
